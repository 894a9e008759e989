using ZEngine.CrashHost;
using ZEngine.Distributed;
using ZEngine.Tests.Distributed;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>A run whose losses are not finite again and again goes back to the checkpoint before, and on with later data.</summary>
public sealed class RollBackTests
{
    private const int Steps = 12, Interval = 4, Poisoned = 7;

    private static TrainingOptions Options(RunFolder run, int accumulation = 1) => run.Options(Steps) with { Accumulation = accumulation, EvaluationInterval = 0, CheckpointInterval = Interval, IsOptimizerSharded = true, SegmentElements = 640 };

    /// <summary>Trains; weights are spoilt on one rank before the passes for which the given function says so.</summary>
    private static (byte[] Weights, List<string> Notices) Train(RunFolder run, int ranks, TrainingOptions options, Func<int, bool>? spoils = null, SequenceSource? data = null, int? stopAfter = null) => InProcessWorld.Run(ranks, world =>
    {
        using TinyModel model = RunFolder.NewModel();
        using var stop = new CancellationTokenSource();
        var notices = new List<string>();
        var trainer = new Trainer(model, data ?? run.Windows(), null, options, world: world);
        trainer.Noticed += notices.Add;
        trainer.StepTaken += report => { if (report.Step == stopAfter) stop.Cancel(); };
        int passes = 0;
        if (world.Rank == ranks - 1) model.BeforeForward = () =>
        {
            if (spoils?.Invoke(++passes) != true) return;
            Tensor table = model.Parameters[0].Value;
            table.CopyFrom<float>([.. Enumerable.Repeat(float.NaN, (int)table.Count)]);
        };
        TrainingResult result = trainer.Run(stop.Token);
        Assert.Equal(stopAfter ?? Steps, result.Step);
        return (RunFolder.Weights(model), notices);
    }, Worlds.Timeout)[0];

    /// <summary>What the run is to be: the first steps, then the data behind the three that were skipped.</summary>
    private static byte[] Expected(int accumulation)
    {
        using var run = new RunFolder();
        TrainingOptions options = Options(run, accumulation) with { IsOptimizerSharded = false };
        long sequences = options.Batch * options.Accumulation;
        return Train(run, 1, options, data: new Jump(run.Windows(), Interval * sequences, (Poisoned + 2 - Interval) * sequences)).Weights;
    }

    [Theory, InlineData(1), InlineData(2)]
    public void Weights_are_those_of_the_checkpoint_and_the_data_behind(int ranks)
    {
        using var run = new RunFolder();
        (byte[] weights, List<string> notices) = Train(run, ranks, Options(run, ranks), pass => pass == Poisoned);
        Assert.Equal(Expected(ranks), weights);
        Assert.Contains("3 steps in a row up to step 9 were not finite; the run goes back to step 4, and on with later data.", Assert.Single(notices), StringComparison.Ordinal);
        Assert.Single(run.Metrics(), line => line == """{"step":4,"rolled_back_from":9}""");
    }

    [Fact]
    public void Run_that_was_stopped_between_the_skips_goes_back_all_the_same()
    {
        using var run = new RunFolder();
        Train(run, 1, Options(run), pass => pass == Poisoned, stopAfter: 8);
        // Step 8 is a regular checkpoint, but one with spoilt weights: not where to go back to.
        Assert.Equal(Expected(1), Train(run, 1, Options(run)).Weights);
    }

    [Fact]
    public void Going_back_that_does_not_help_is_an_error()
    {
        using var run = new RunFolder();
        var e = Assert.Throws<InvalidOperationException>(() => Train(run, 2, Options(run, 2), pass => pass >= Poisoned));
        Assert.Contains("going back 3 times to step 4 did not help", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Without_going_back_steps_are_skipped()
    {
        using var run = new RunFolder();
        Assert.Empty(Train(run, 1, Options(run) with { RollBackAfterSkips = 0 }, pass => pass == Poisoned).Notices);
        Assert.Equal(Steps - Poisoned + 1, run.Metrics().Count(line => line.Contains("\"skipped\":true", StringComparison.Ordinal)));
    }

    /// <summary>The places of a source, from one on so many further.</summary>
    private sealed class Jump(SequenceSource source, long from, long by) : SequenceSource
    {
        public override int Length => source.Length;
        public override long EpochLength => source.EpochLength;
        public override int Vocabulary => source.Vocabulary;
        public override string Fingerprint => source.Fingerprint;

        public override void Read(long place, Span<int> tokens, Span<int> targets) => source.Read(place < from ? place : place + by, tokens, targets);
    }
}
