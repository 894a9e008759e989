using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace ZEngine.Training;

/// <summary>Everything that a training run is told, beside model and data.</summary>
public sealed record TrainingOptions
{
    /// <summary>Where metrics and checkpoints go; created where it is missing. One run, one folder, one process at a time.</summary>
    public required string RunFolder { get; init; }

    /// <summary>Optimizer steps of the whole run.</summary>
    public required int Steps { get; init; }

    /// <summary>Sequences of a micro-batch of the whole world, B.</summary>
    public int Batch { get; init; } = 8;

    /// <summary>Tokens of a sequence, L; the data must have the same.</summary>
    public required int Length { get; init; }

    /// <summary>Micro-batches of a step of the whole world; gradients are averaged over all their tokens.</summary>
    /// <remarks>
    /// Ranks share a step's micro-batches, or each micro-batch where they cannot. With a power of two of micro-batches a rank, a run has the
    /// same bits on any number of ranks, one among them.
    /// </remarks>
    public int Accumulation { get; init; } = 1;

    /// <summary>Whether ranks part the optimizer's state among them (ZeRO-1); changes memory, not bits.</summary>
    public bool IsOptimizerSharded { get; init; }

    /// <summary>What <see cref="BucketBytes"/> is where nothing is measured.</summary>
    public const long DefaultBucketBytes = 32 << 20;

    /// <summary>Bytes of gradients that ranks exchange at once; changes no bit.</summary>
    public long BucketBytes { get; init; } = DefaultBucketBytes;

    /// <summary>Elements of the pieces in which parameters are dealt out to ranks, and over which norms are worked out.</summary>
    internal long SegmentElements { get; init; } = 1 << 16;

    /// <summary>The largest learning rate.</summary>
    public float LearningRate { get; init; } = 1e-3f;

    /// <summary>The smallest learning rate after warm-up.</summary>
    public float LearningRateFloor { get; init; }

    /// <summary>Steps of warm-up.</summary>
    public int Warmup { get; init; }

    /// <summary>How the learning rate goes on after warm-up.</summary>
    public ScheduleKind Schedule { get; init; } = ScheduleKind.Cosine;

    /// <summary>Steps of the fall at the end of <see cref="ScheduleKind.WarmupStableDecay"/>.</summary>
    public int DecaySteps { get; init; }

    /// <summary>Decoupled weight decay of the parameters that are decayed.</summary>
    public double WeightDecay { get; init; } = 0.1;

    /// <summary>Decay of Adam's first moment.</summary>
    public double Beta1 { get; init; } = 0.9;

    /// <summary>Decay of Adam's second moment.</summary>
    public double Beta2 { get; init; } = 0.95;

    /// <summary>Added to the root of Adam's second moment.</summary>
    public double Epsilon { get; init; } = 1e-8;

    /// <summary>Gradients are scaled down to this norm where theirs is larger; 0 for no limit.</summary>
    public float Clip { get; init; } = 1;

    /// <summary>The seed of the run, recorded with it.</summary>
    public ulong Seed { get; init; }

    /// <summary>Steps from one held-out loss to the next; 0 for none. The first is before the first step, one more after the last.</summary>
    public int EvaluationInterval { get; init; } = 100;

    /// <summary>Batches of a held-out loss, always the same ones; fewer where the part has fewer.</summary>
    public int EvaluationBatches { get; init; } = 16;

    /// <summary>Steps from one checkpoint to the next; 0 for the one at the end alone.</summary>
    public int CheckpointInterval { get; init; } = 500;

    /// <summary>How many of the newest checkpoints stay.</summary>
    public int KeepCheckpoints { get; init; } = 2;

    /// <summary>Whether checkpoints are written while training goes on, from copies in host memory; the next save and the end wait for it.</summary>
    public bool IsSaveInBackground { get; init; } = true;

    /// <summary>After so many skipped steps in a row the run goes back to the newest regular checkpoint and on with later data; 0 for never.</summary>
    /// <remarks>Regular ones are those of <see cref="CheckpointInterval"/> at which no steps were being skipped; the newest of them is kept. Before the first, steps are skipped.</remarks>
    public int RollBackAfterSkips { get; init; } = 3;

    /// <summary>How often the run goes back to the same checkpoint before it ends with an error.</summary>
    public int MaxRollBacks { get; init; } = 3;

    /// <summary>The run ends with an error after so many skipped steps in a row.</summary>
    public int MaxSkipsInARow { get; init; } = 50;

    /// <summary>Whether a run folder that holds a run is gone on with. False makes such a folder an error.</summary>
    public bool Resume { get; init; } = true;

    /// <summary>Whether to go on where options or data differ from those that the checkpoint was trained with; the result is then no longer that of one run.</summary>
    public bool AcceptChanges { get; init; }

    /// <summary>The schedule that the options describe.</summary>
    /// <exception cref="ArgumentException">An option is out of range.</exception>
    public Schedule CreateSchedule() => Schedule switch
    {
        ScheduleKind.Cosine => new CosineSchedule(LearningRate, Steps, Warmup, LearningRateFloor),
        ScheduleKind.Linear => new LinearSchedule(LearningRate, Steps, Warmup, LearningRateFloor),
        ScheduleKind.Constant => new ConstantSchedule(LearningRate, Steps, Warmup),
        ScheduleKind.InverseSquareRoot => new InverseSquareRootSchedule(LearningRate, Steps, Warmup, LearningRateFloor),
        ScheduleKind.WarmupStableDecay => new WarmupStableDecaySchedule(LearningRate, Steps, Warmup, DecaySteps, LearningRateFloor),
        ScheduleKind.Annealing => new AnnealingSchedule(LearningRate, Steps, Warmup, floor: LearningRateFloor),
        _ => throw new ArgumentException($"TrainingOptions.Schedule: {Schedule} is no schedule."),
    };

    /// <summary>The options that decide the resulting bits, by name, as checkpoints record them.</summary>
    internal IReadOnlyList<KeyValuePair<string, string>> Decisive =>
    [
        new("steps", Text(Steps)), new("batch", Text(Batch)), new("length", Text(Length)), new("accumulation", Text(Accumulation)),
        new("learning_rate", Text(LearningRate)), new("learning_rate_floor", Text(LearningRateFloor)), new("warmup", Text(Warmup)),
        new("schedule", Schedule.ToString()), new("decay_steps", Text(DecaySteps)), new("weight_decay", Text(WeightDecay)),
        new("beta1", Text(Beta1)), new("beta2", Text(Beta2)), new("epsilon", Text(Epsilon)), new("clip", Text(Clip)), new("seed", Text(Seed)),
    ];

    internal void RequireValid()
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(RunFolder, nameof(RunFolder));
        RequireAtLeast(1, Steps, nameof(Steps));
        RequireAtLeast(1, Batch, nameof(Batch));
        RequireAtLeast(1, Length, nameof(Length));
        RequireAtLeast(1, Accumulation, nameof(Accumulation));
        RequireAtLeast(0, EvaluationInterval, nameof(EvaluationInterval));
        RequireAtLeast(1, EvaluationBatches, nameof(EvaluationBatches));
        RequireAtLeast(0, CheckpointInterval, nameof(CheckpointInterval));
        RequireAtLeast(1, KeepCheckpoints, nameof(KeepCheckpoints));
        RequireAtLeast(0, RollBackAfterSkips, nameof(RollBackAfterSkips));
        RequireAtLeast(1, MaxRollBacks, nameof(MaxRollBacks));
        RequireAtLeast(1, MaxSkipsInARow, nameof(MaxSkipsInARow));
        if (BucketBytes < 1) throw new ArgumentException($"TrainingOptions.BucketBytes must be at least 1, got {BucketBytes}.");
        if (!(Clip >= 0) || !float.IsFinite(Clip)) throw new ArgumentException($"TrainingOptions.Clip must be a number from 0 up, got {Text(Clip)}.");
        if (DecaySteps != 0 && Schedule != ScheduleKind.WarmupStableDecay) throw new ArgumentException($"TrainingOptions.DecaySteps belongs to the schedule WarmupStableDecay, not to {Schedule}.");
        if (LearningRateFloor != 0 && Schedule == ScheduleKind.Constant) throw new ArgumentException("TrainingOptions.LearningRateFloor has no meaning for the schedule Constant.");
    }

    internal static string Hash(IEnumerable<KeyValuePair<string, string>> options) =>
        Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\n', options.Select(option => $"{option.Key}={option.Value}")))));

    private static void RequireAtLeast(int least, int value, string name)
    {
        if (value < least) throw new ArgumentException($"TrainingOptions.{name} must be at least {least}, got {value}.");
    }

    private static string Text(IFormattable value) => value.ToString(null, CultureInfo.InvariantCulture);
}
