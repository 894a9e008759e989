using System.Text.Json;
using ZEngine.CrashHost;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>A run learns, goes on with the same bits, and says what it skips.</summary>
public sealed class TrainerTests
{
    [Fact]
    public void Loss_falls_below_the_unigram_entropy_of_a_pattern()
    {
        using var run = new RunFolder();
        var tokens = new TextTokens([.. Enumerable.Range(0, 5000).Select(i => i % 13)], 256);
        using TinyModel model = RunFolder.NewModel();
        var heldOut = new TokenWindows(tokens, RunFolder.Length, 1, DataPart.HeldOut, new DataSplit(5, 300));
        var trainer = new Trainer(model, new TokenWindows(tokens, RunFolder.Length, 1, DataPart.Train, new DataSplit(5, 300)), heldOut, run.Options(150) with { LearningRate = 1e-2f });
        TrainingResult result = trainer.Run(TestContext.Current.CancellationToken);
        Assert.True(result.IsFinished);
        Assert.Equal(Math.Log(13), heldOut.UnigramEntropy(), 1e-4);
        Assert.True(result.HeldOutLoss < 0.5, $"held-out loss {result.HeldOutLoss}");
    }

    [Theory]
    [InlineData(1, DType.Float32)]
    [InlineData(3, DType.Float32)]
    [InlineData(2, DType.BFloat16)]
    public void Resumed_run_has_the_bits_of_an_uninterrupted_one(int accumulation, DType dtype)
    {
        using RunFolder straight = new(), stopped = new();
        (_, byte[] expected) = straight.Train(straight.Options(20) with { Accumulation = accumulation }, dtype: dtype);

        int threads = CpuDevice.Threads;
        try
        {
            CpuDevice.Threads = 1;
            Assert.Equal(10, stopped.Train(stopped.Options(20) with { Accumulation = accumulation }, cancelAfterStep: 10, dtype).Result.Step);
            CpuDevice.Threads = 3;
            Assert.Equal(13, stopped.Train(stopped.Options(20) with { Accumulation = accumulation }, cancelAfterStep: 13, dtype).Result.Step);
            (TrainingResult result, byte[] weights) = stopped.Train(stopped.Options(20) with { Accumulation = accumulation }, dtype: dtype);
            Assert.True(result.IsFinished);
            Assert.Equal(expected, weights);
            Assert.Equal(straight.Metrics(), stopped.Metrics());
        }
        finally
        {
            CpuDevice.Threads = threads;
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Hybrid_model_learns_and_resumes_with_the_same_bits(bool isInPieces)
    {
        using var run = new RunFolder();
        var tokens = new TextTokens([.. Enumerable.Range(0, 4000).Select(i => i % 13)], 256);
        byte[] straight = Train(int.MaxValue);
        if (!isInPieces) Assert.Equal(straight, Train(int.MaxValue));
        else
        {
            using var pieces = new RunFolder();
            Train(7, pieces);
            Train(16, pieces);
            Assert.Equal(straight, Train(int.MaxValue, pieces));
        }

        byte[] Train(int cancelAfterStep, RunFolder? folder = null)
        {
            using var own = new RunFolder();
            using var model = new ZEngine.Models.Zamba2(
                new ZEngine.Models.Zamba2Config
                {
                    VocabularySize = 256, HiddenSize = 32, Layers = 3, HybridLayers = [1, 2], IntermediateSize = 64, MambaHeads = 4, MambaHeadDimension = 16,
                    StateSize = 8, AttentionHeads = 4, KeyValueHeads = 4, AdapterRank = 4,
                },
                Device.Cpu, seed: 3);
            using var cancellation = new CancellationTokenSource();
            var trainer = new Trainer(model, new TokenWindows(tokens, RunFolder.Length, 1), new TokenWindows(tokens, RunFolder.Length, 1), (folder ?? own).Options(25) with { LearningRate = 1e-2f });
            trainer.StepTaken += report => { if (report.Step == cancelAfterStep) cancellation.Cancel(); };
            TrainingResult result = trainer.Run(cancellation.Token);
            Assert.Equal(cancelAfterStep == int.MaxValue, result.IsFinished);
            if (result.IsFinished) Assert.True(result.HeldOutLoss < 2, $"held-out loss {result.HeldOutLoss}");
            return RunFolder.Weights(model);
        }
    }

    [Fact]
    public void Steps_after_the_last_checkpoint_are_cut_from_the_record_and_done_again()
    {
        using RunFolder straight = new(), stopped = new();
        (_, byte[] expected) = straight.Train(straight.Options(20));
        // The process dies in step 14: what it wrote after the checkpoint of step 10 must not stay.
        Assert.Throws<TimeoutException>(() => stopped.Train(stopped.Options(20), watch: trainer => trainer.StepTaken += report => { if (report.Step == 13) throw new TimeoutException(); }));
        File.AppendAllText(Trainer.MetricsPath(stopped.Path), "{\"step\":14,\"lo");
        Assert.Equal(expected, stopped.Train(stopped.Options(20)).Weights);
        Assert.Equal(straight.Metrics(), stopped.Metrics());
    }

    [Fact]
    public void Cancelling_within_a_step_drops_the_step()
    {
        using RunFolder straight = new(), stopped = new();
        (_, byte[] expected) = straight.Train(straight.Options(8) with { Accumulation = 4, EvaluationInterval = 0 });
        using var cancellation = new CancellationTokenSource();
        using TinyModel model = RunFolder.NewModel();
        int passes = 0;
        model.BeforeForward = () => { if (++passes == 4 * 3 + 2) cancellation.Cancel(); };
        TrainingResult result = stopped.NewTrainer(model, stopped.Options(8) with { Accumulation = 4, EvaluationInterval = 0 }).Run(cancellation.Token);
        Assert.Equal((3, false), (result.Step, result.IsFinished));
        Assert.EndsWith("step-000000003", result.Checkpoint, StringComparison.Ordinal);
        Assert.Equal(4 * 3 + 2, passes);
        Assert.Equal(expected, stopped.Train(stopped.Options(8) with { Accumulation = 4, EvaluationInterval = 0 }).Weights);
    }

    [Fact]
    public void Micro_batches_are_weighted_by_their_tokens()
    {
        using RunFolder whole = new(), parts = new();
        byte[] one = TrainMasked(whole, batch: 4, accumulation: 1), four = TrainMasked(parts, batch: 1, accumulation: 4);
        ReadOnlySpan<float> a = System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(one), b = System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(four);
        for (int i = 0; i < a.Length; i++) Assert.True(Math.Abs(a[i] - b[i]) < 2e-5f, $"parameter element {i}: {a[i]} and {b[i]}");
    }

    [Fact]
    public void Step_with_a_loss_that_is_not_finite_is_skipped_counted_and_reported()
    {
        using var run = new RunFolder();
        var reports = new List<StepReport>();
        byte[] before = [], after = [];
        float[] table = [];
        int passes = 0;
        using TinyModel model = RunFolder.NewModel();
        Tensor embedding = model.Parameters[0].Value;
        model.BeforeForward = () =>
        {
            passes++;
            if (passes == 3)
            {
                before = RunFolder.Weights(model);
                table = embedding.ToArray<float>();
                embedding.CopyFrom<float>([float.NaN, .. table.AsSpan(1)]);
            }
            else if (passes == 4)
            {
                embedding.CopyFrom<float>([table[0], .. embedding.ToArray<float>().AsSpan(1)]);
                after = RunFolder.Weights(model);
            }
        };
        var trainer = new Trainer(model, new Zeros(), null, run.Options(5));
        trainer.StepTaken += reports.Add;
        TrainingResult result = trainer.Run(TestContext.Current.CancellationToken);
        Assert.Equal([false, false, true, false, false], reports.Select(report => report.IsSkipped));
        Assert.Equal(1, result.SkippedSteps);
        Assert.False(double.IsFinite(reports[2].Loss));
        Assert.Contains("\"loss\":null", File.ReadAllText(Trainer.MetricsPath(run.Path)), StringComparison.Ordinal);
        Assert.Equal(before, after);
        Assert.NotEqual(after, RunFolder.Weights(model));
    }

    [Fact]
    public void Endless_skipping_is_an_error()
    {
        using var run = new RunFolder();
        using TinyModel model = RunFolder.NewModel();
        float[] table = model.Parameters[0].Value.ToArray<float>();
        Array.Fill(table, float.NaN);
        model.Parameters[0].Value.CopyFrom<float>(table);
        var error = Assert.Throws<InvalidOperationException>(() => run.NewTrainer(model, run.Options(50) with { MaxSkipsInARow = 7, EvaluationInterval = 0 }).Run(TestContext.Current.CancellationToken));
        Assert.StartsWith("Trainer: 7 steps in a row up to step 7 had a loss or gradient norm that is not finite", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_line_of_the_record_is_JSON_in_order()
    {
        using var run = new RunFolder();
        run.Train(run.Options(12));
        var steps = new List<long>();
        int heldOut = 0;
        foreach (string line in File.ReadLines(Trainer.MetricsPath(run.Path)))
        {
            using JsonDocument document = JsonDocument.Parse(line);
            if (document.RootElement.TryGetProperty("held_out_loss", out _)) heldOut++;
            else steps.Add(document.RootElement.GetProperty("step").GetInt64());
        }
        Assert.Equal(Enumerable.Range(1, 12).Select(step => (long)step), steps);
        Assert.Equal(4, heldOut);                              // before the first step, after 5, 10 and the last
    }

    [Fact]
    public void Rejects_what_does_not_fit()
    {
        using var run = new RunFolder();
        using TinyModel model = RunFolder.NewModel();
        using var small = new TinyModel(vocabulary: 100);
        Rejects("Trainer: the data has sequences of 16 tokens, TrainingOptions.Length is 32.", () => run.NewTrainer(model, run.Options(5) with { Length = 32 }));
        Rejects("Trainer: the data has tokens up to 255, the model has 100 classes.", () => run.NewTrainer(small, run.Options(5)));
        Rejects("TrainingOptions.Batch must be at least 1, got 0.", () => run.NewTrainer(model, run.Options(5) with { Batch = 0 }));
        using var change = new Parameter([32], Initializer.Zeros);
        using TinyModel changed = RunFolder.NewModel();
        changed.Parameters[2].Update = new LowRankUpdate(null, change, 1);
        Rejects("Trainer: up.bias [32] has a low-rank update, which the trainer does not train;", () => run.NewTrainer(changed, run.Options(5)));
        Rejects("TrainingOptions.DecaySteps belongs to the schedule WarmupStableDecay, not to Cosine.", () => run.NewTrainer(model, run.Options(5) with { DecaySteps = 3 }));

        static void Rejects(string message, Action action) => Assert.StartsWith(message, Assert.ThrowsAny<ArgumentException>(action).Message, StringComparison.Ordinal);
    }

    private static byte[] TrainMasked(RunFolder run, int batch, int accumulation)
    {
        using TinyModel model = RunFolder.NewModel();
        new Trainer(model, new Masked(run.Windows()), null, run.Options(6) with { Batch = batch, Accumulation = accumulation }).Run(TestContext.Current.CancellationToken);
        return RunFolder.Weights(model);
    }

    /// <summary>Sequences of which every one has another number of targets that count.</summary>
    private sealed class Masked(SequenceSource source) : SequenceSource
    {
        public override int Length => source.Length;
        public override long EpochLength => source.EpochLength;
        public override int Vocabulary => source.Vocabulary;
        public override string Fingerprint => $"masked({source.Fingerprint})";

        public override void Read(long place, Span<int> tokens, Span<int> targets)
        {
            source.Read(place, tokens, targets);
            targets[..(int)(place % 4 * 5)].Fill(-100);
        }
    }

    /// <summary>Token 0 followed by token 0.</summary>
    private sealed class Zeros : SequenceSource
    {
        public override int Length => RunFolder.Length;
        public override long EpochLength => 1;
        public override int Vocabulary => 1;
        public override string Fingerprint => "zeros";

        public override void Read(long place, Span<int> tokens, Span<int> targets)
        {
            tokens.Clear();
            targets.Clear();
        }
    }
}
