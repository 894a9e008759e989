namespace ZEngine.Training;

/// <summary>The schedules that <see cref="TrainingOptions"/> can name.</summary>
public enum ScheduleKind
{
    /// <summary><see cref="CosineSchedule"/></summary>
    Cosine,
    /// <summary><see cref="LinearSchedule"/></summary>
    Linear,
    /// <summary><see cref="ConstantSchedule"/></summary>
    Constant,
    /// <summary><see cref="InverseSquareRootSchedule"/></summary>
    InverseSquareRoot,
    /// <summary><see cref="WarmupStableDecaySchedule"/></summary>
    WarmupStableDecay,
    /// <summary><see cref="AnnealingSchedule"/> with cosine decay; the learning rate is the first phase's peak.</summary>
    Annealing,
}
