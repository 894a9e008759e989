namespace ZEngine.Training;

/// <summary>The learning rate of every step of a run: a pure function of the step.</summary>
public abstract class Schedule
{
    /// <summary>Checks what all schedules share.</summary>
    /// <param name="peak">The largest learning rate.</param>
    /// <param name="steps">Length of the run.</param>
    /// <param name="warmup">Steps of the linear rise; the step after them has the peak.</param>
    /// <param name="floor">The smallest learning rate after the rise.</param>
    private protected Schedule(float peak, int steps, int warmup, float floor)
    {
        string name = GetType().Name;
        if (!float.IsFinite(peak) || peak <= 0) throw new ArgumentOutOfRangeException(nameof(peak), peak, $"{name}: the peak must be a positive number");
        if (steps < 1) throw new ArgumentOutOfRangeException(nameof(steps), steps, $"{name}: at least one step");
        if (warmup < 0 || warmup > steps) throw new ArgumentOutOfRangeException(nameof(warmup), warmup, $"{name}: warm-up must be from 0 to the {steps} steps of the run");
        if (!(floor >= 0 && floor <= peak)) throw new ArgumentOutOfRangeException(nameof(floor), floor, $"{name}: the floor must be from 0 to the peak {peak}");
        (Peak, Steps, Warmup, Floor) = (peak, steps, warmup, floor);
    }

    /// <summary>Length of the run.</summary>
    public int Steps { get; }

    /// <summary>The largest learning rate.</summary>
    public float Peak { get; }

    /// <summary>Steps of the linear rise: step t of them has peak·(t + 1) / warm-up, so that the first is above 0 and the last is the peak.</summary>
    public int Warmup { get; }

    /// <summary>The smallest learning rate after the rise.</summary>
    public float Floor { get; }

    /// <summary>The learning rate of a step, counted from 0. Beyond the last step it stays what it was at <see cref="Steps"/>.</summary>
    public float this[long step]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(step);
            return (float)(step < Warmup ? Peak * ((step + 1) / (double)Warmup) : AfterWarmup(Math.Min(step, Steps)));
        }
    }

    /// <summary>The learning rate at a step from <see cref="Warmup"/> to <see cref="Steps"/>.</summary>
    private protected abstract double AfterWarmup(long step);

    /// <summary>How much of the time from a step to the end of the run has passed, 0 to 1.</summary>
    private protected double Progress(long step, long from) => Steps == from ? 1 : (step - from) / (double)(Steps - from);
}
