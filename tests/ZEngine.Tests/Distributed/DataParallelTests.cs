using ZEngine.CrashHost;
using ZEngine.Distributed;
using ZEngine.Tests.Training;
using ZEngine.Training;

namespace ZEngine.Tests.Distributed;

/// <summary>A run on several ranks is the run on one.</summary>
public sealed class DataParallelTests
{
    private const int Steps = 12;

    private static TrainingOptions Options(RunFolder run, int accumulation, bool isSharded = false) => run.Options(Steps) with
    {
        Accumulation = accumulation, IsOptimizerSharded = isSharded, BucketBytes = 4 * 3000, SegmentElements = 640, CheckpointInterval = 4,
    };

    /// <summary>Trains on so many ranks; all must end with the same weights.</summary>
    private static byte[] Train(RunFolder run, int ranks, TrainingOptions options, DType dtype = DType.Float32, int? stopAfter = null, Action<Communicator, TinyModel>? prepare = null)
    {
        byte[][] weights = InProcessWorld.Run(ranks, world =>
        {
            using TinyModel model = RunFolder.NewModel(dtype);
            prepare?.Invoke(world, model);
            using var cancellation = new CancellationTokenSource();
            var trainer = new Trainer(model, run.Windows(), run.Windows(DataPart.HeldOut), options, world: world);
            // The last rank alone wants to stop: all must.
            if (world.Rank == ranks - 1) trainer.StepTaken += report => { if (report.Step == stopAfter) cancellation.Cancel(); };
            TrainingResult result = trainer.Run(cancellation.Token);
            Assert.Equal((stopAfter ?? Steps, stopAfter is null), (result.Step, result.IsFinished));
            return RunFolder.Weights(model);
        }, Worlds.Timeout);
        Assert.All(weights, own => Assert.Equal(weights[0], own));
        return weights[0];
    }

    [Theory]
    [InlineData(2, 4, false, DType.Float32)]
    [InlineData(4, 4, false, DType.Float32)]
    [InlineData(2, 8, true, DType.Float32)]
    [InlineData(4, 4, true, DType.BFloat16)]
    [InlineData(3, 3, false, DType.BFloat16)]
    [InlineData(3, 12, true, DType.Float32)]
    [InlineData(1, 3, true, DType.Float32)]
    public void Weights_and_record_have_the_bits_of_one_rank(int ranks, int accumulation, bool isSharded, DType dtype)
    {
        using RunFolder alone = new(), together = new();
        byte[] expected = Train(alone, 1, Options(alone, accumulation), dtype);
        Assert.Equal(expected, Train(together, ranks, Options(together, accumulation, isSharded), dtype));
        Assert.Equal(alone.Metrics(), together.Metrics());
    }

    [Theory, InlineData(2), InlineData(4)]
    public void Sharded_optimizer_and_other_buckets_change_no_bit_where_micro_batches_are_shared(int ranks)
    {
        using RunFolder plain = new(), sharded = new(), one = new();
        byte[] expected = Train(plain, ranks, Options(plain, 1));
        Assert.Equal(expected, Train(sharded, ranks, Options(sharded, 1, isSharded: true) with { BucketBytes = 1 }));
        Assert.Equal(plain.Metrics(), sharded.Metrics());
        // One rank sums the same gradients in another order.
        ReadOnlySpan<float> a = Floats(expected), b = Floats(Train(one, 1, Options(one, 1)));
        for (int i = 0; i < a.Length; i++) Assert.True(Math.Abs(a[i] - b[i]) < 2e-4f, $"parameter element {i}: {a[i]} and {b[i]}");

        static ReadOnlySpan<float> Floats(byte[] bytes) => System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(bytes);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Run_goes_on_with_its_bits_on_other_numbers_of_ranks(bool isSharded)
    {
        using RunFolder straight = new(), moved = new();
        byte[] expected = Train(straight, 1, Options(straight, 8));
        Train(moved, 4, Options(moved, 8, isSharded), stopAfter: 3);
        Train(moved, 2, Options(moved, 8, isSharded), stopAfter: 6);
        Train(moved, 1, Options(moved, 8, isSharded), stopAfter: 7);
        Assert.Equal(expected, Train(moved, 4, Options(moved, 8, isSharded)));
        Assert.Equal(straight.Metrics(), moved.Metrics());
    }

    [Fact]
    public void State_of_four_ranks_is_dealt_out_again_to_two_then_three_then_one()
    {
        using RunFolder straight = new(), moved = new();
        TrainingOptions options = Options(moved, 12, isSharded: true);
        Train(straight, 3, Options(straight, 12, isSharded: true));
        Train(moved, 4, options, stopAfter: 3);
        Train(moved, 2, options, stopAfter: 6);
        Train(moved, 3, options, stopAfter: 9);
        Train(moved, 1, options);
        double[] a = Losses(straight), b = Losses(moved);
        Assert.Equal(Steps, a.Length);
        for (int i = 0; i < a.Length; i++) Assert.Equal(a[i], b[i], 1e-5);

        static double[] Losses(RunFolder run) => [.. MetricsFile.ReadLosses(Trainer.MetricsPath(run.Path)).Train.Select(point => point.Loss)];
    }

    [Fact]
    public void Parts_of_an_optimizer_state_must_be_whole()
    {
        using var run = new RunFolder();
        Train(run, 3, Options(run, 3, isSharded: true), stopAfter: 2);
        string checkpoint = new CheckpointStore(run.Checkpoints).FindNewest(out _)!;
        string[] parts = Directory.GetFiles(checkpoint, "optimizer-*").Order(StringComparer.Ordinal).ToArray();
        Assert.Equal(3, parts.Length);
        using TinyModel model = RunFolder.NewModel();
        using var adam = new AdamW(model.Parameters);
        adam.Load(parts);
        Assert.Equal(2, adam.StepCount);
        Assert.Contains("leave a gap or overlap", Assert.Throws<InvalidDataException>(() => adam.Load([parts[0], parts[2]])).Message, StringComparison.Ordinal);
        Assert.Contains("leave a gap or overlap", Assert.Throws<InvalidDataException>(() => adam.Load([parts[0], parts[1], parts[1], parts[2]])).Message, StringComparison.Ordinal);
        Assert.Contains("tensor '", Assert.Throws<InvalidDataException>(() => adam.Load([parts[2]])).Message, StringComparison.Ordinal);
        File.Delete(parts[1]);
        Assert.Contains("optimizer-00001-of-00003.safetensors is missing", Assert.Single(Invalid(run)), StringComparison.Ordinal);

        static IEnumerable<string> Invalid(RunFolder run)
        {
            new CheckpointStore(run.Checkpoints).FindNewest(out IReadOnlyList<InvalidCheckpoint> invalid);
            return invalid.Select(checkpoint => checkpoint.Reason);
        }
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Loss_that_is_not_finite_on_one_rank_makes_all_skip(bool isSharded)
    {
        using var run = new RunFolder();
        Train(run, 3, Options(run, 3, isSharded), prepare: (world, model) =>
        {
            if (world.Rank != 1) return;
            int passes = 0;
            float[] table = [];
            model.BeforeForward = () =>
            {
                passes++;
                Tensor embedding = model.Parameters[0].Value;
                if (passes == 3)
                {
                    table = embedding.ToArray<float>();
                    embedding.CopyFrom<float>([.. table.Select(_ => float.NaN)]);
                }
                else if (passes == 4) embedding.CopyFrom<float>(table);
            };
        });
        string[] skipped = [.. run.Metrics().Where(line => line.Contains("\"skipped\":true", StringComparison.Ordinal))];
        Assert.Contains("\"step\":2,", Assert.Single(skipped), StringComparison.Ordinal);
    }

    [Fact]
    public void Ranks_that_cannot_share_a_step_are_refused()
    {
        using var run = new RunFolder();
        var e = Assert.Throws<ArgumentException>(() => Train(run, 3, Options(run, 4)));
        Assert.Contains("3 ranks cannot share a step of 4 micro-batches of 4 sequences evenly", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Failing_rank_takes_the_others_along_and_leaves_the_last_checkpoint()
    {
        using RunFolder straight = new(), broken = new();
        byte[] expected = Train(straight, 1, Options(straight, 4));
        Assert.Throws<TimeZoneNotFoundException>(() => Train(broken, 4, Options(broken, 4) with { IsSaveInBackground = false }, prepare: (world, model) =>
        {
            int passes = 0;
            if (world.Rank == 2) model.BeforeForward = () => { if (++passes == 7) throw new TimeZoneNotFoundException("planted"); };
        }));
        Assert.EndsWith("step-000000004", new CheckpointStore(broken.Checkpoints).FindNewest(out _), StringComparison.Ordinal);
        Assert.Equal(expected, Train(broken, 2, Options(broken, 4)));
    }

    [Fact]
    public void Disk_that_one_rank_cannot_write_to_stops_all_and_leaves_older_checkpoints()
    {
        using var run = new RunFolder();
        var store = new CheckpointStore(run.Checkpoints);
        string[] messages = InProcessWorld.Run(3, world =>
        {
            var own = new CheckpointStore(run.Checkpoints);
            own.Save(1, folder => File.WriteAllText(Path.Combine(folder, world.Rank == 0 ? "trainer.json" : $"part{world.Rank}"), "1"), world);
            return Assert.Throws<IOException>(() => own.Save(2, folder =>
            {
                if (world.Rank == 2) throw new IOException("no room");
                File.WriteAllText(Path.Combine(folder, $"part{world.Rank}"), "2");
            }, world)).Message;
        }, Worlds.Timeout);
        Assert.All(messages, message => Assert.Contains("no room", message, StringComparison.Ordinal));
        Assert.EndsWith("step-000000001", store.FindNewest(out IReadOnlyList<InvalidCheckpoint> invalid), StringComparison.Ordinal);
        Assert.Empty(invalid);
        Assert.Empty(Directory.GetDirectories(run.Checkpoints, "*.tmp"));
    }
}
