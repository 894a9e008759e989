using ZEngine.Distributed;

namespace ZEngine.Tests.Distributed;

/// <summary>The measurement checks what it measures, and its line is the line.</summary>
public sealed class CommunicationBenchTests
{
    [Theory, InlineData(1), InlineData(2), InlineData(3)]
    public void Every_element_is_right(int ranks) => InProcessWorld.Run(ranks, world =>
    {
        var bench = new CommunicationBench(world, leastIterations: 3, seconds: 1e-9);
        foreach (MeasuredExchange op in CommunicationBench.Ops)
        foreach (DType dtype in (DType[])[DType.Float32, DType.BFloat16])
        foreach (long bytes in (long[])[1, 1000, 300_000])
        {
            CommunicationRow row = bench.Measure(op, dtype, bytes);
            Assert.Equal((0L, 3), (row.Wrong, row.Iterations));
            Assert.True((row.Bytes >= bytes || op == MeasuredExchange.Barrier) && row.Min <= row.P50 && row.P50 <= row.P99);
        }
    }, Worlds.Timeout);

    [Fact]
    public void Wrong_elements_are_counted()
    {
        CommunicationRow[] rows = InProcessWorld.Run(2, world => new CommunicationBench(new Liar(world), null, 3, 1e-9).Measure(MeasuredExchange.AllReduce, DType.Float32, 400), Worlds.Timeout);
        Assert.All(rows, row => Assert.Equal(1, row.Wrong));   // of rank 1 alone
    }

    [Fact]
    public void Fit_finds_latency_and_bandwidth()
    {
        CommunicationRow Row(long bytes) => new(MeasuredExchange.AllReduce, DType.Float32, bytes, 20, 1, 40 + bytes * 1.5 / 2e3, 1, 0, 1.5);
        CommunicationFit fit = CommunicationFit.Of([Row(1 << 10), Row(1 << 14), Row(1 << 20), Row(1 << 24)]);
        Assert.Equal(40, fit.Latency, 1e-6);
        Assert.Equal(2, fit.Bandwidth, 1e-9);
        Assert.Equal(4 * 40 * 2000 / 1.5, fit.BytesForFourFifths(1.5), 1.0);
        Assert.Equal(40 * 2000 / 1.5, fit.BytesForShare(0.5, 1.5), 1.0);
        Assert.Equal(213_333, CommunicationBench.BucketFor([Row(1 << 10), Row(1 << 14), Row(1 << 20)]));
    }

    [Fact]
    public void All_ranks_take_the_same_bucket()
    {
        long[] buckets = InProcessWorld.Run(3, world => CommunicationBench.TuneBucket(world, Device.Cpu), Worlds.Timeout);
        Assert.All(buckets, bucket => Assert.Equal(buckets[0], bucket));
        Assert.InRange(buckets[0], 1 << 16, 256 << 20);
    }

    [Fact]
    public void Arrays_of_devices_go_between_devices() => InProcessNccl.Run(2, (world, device) =>
    {
        var bench = new CommunicationBench(world, device, leastIterations: 1, seconds: 1e-9);
        foreach (MeasuredExchange op in CommunicationBench.Ops) Assert.Equal(0, bench.Measure(op, DType.Float32, 3000).Wrong);
    });

    /// <summary>Changes one element of what rank 1 gets.</summary>
    private sealed class Liar(Communicator world) : Communicator
    {
        public override int Rank => world.Rank;

        public override int Size => world.Size;

        public override string Name => "liar";

        public override Communicator? Split(int color, int key = 0) => world.Split(color, key);

        public override void Abort(int exitCode, string reason) => world.Abort(exitCode, reason);

        protected override void Execute(Collective call)
        {
            if (call.Kind == CollectiveKind.AllGather) world.AllGather(call.Source!, call.Destination!, call.DestinationCounts);
            else world.AllReduce(call.Source!);
            if (call.Kind == CollectiveKind.AllReduce && Rank == 1) call.Source!.CopyFrom<float>([7, .. call.Source.ToArray<float>().AsSpan(1)]);
        }
    }
}
