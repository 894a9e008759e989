// A measurement of collectives: its rows, the line through them, and how they are taken.
using System.Diagnostics;

namespace ZEngine.Distributed;

/// <summary>What is measured.</summary>
public enum MeasuredExchange
{
    /// <summary><see cref="Communicator.AllReduce"/>.</summary>
    AllReduce,
    /// <summary><see cref="Communicator.ReduceScatter"/>, equal parts.</summary>
    ReduceScatter,
    /// <summary><see cref="Communicator.AllGather"/>, equal parts.</summary>
    AllGather,
    /// <summary><see cref="Communicator.AllToAll"/>, equal parts.</summary>
    AllToAll,
    /// <summary><see cref="Communicator.Broadcast"/> from rank 0.</summary>
    Broadcast,
    /// <summary>Every rank gives to the next and takes from the one before.</summary>
    SendReceive,
    /// <summary>What a layer of tree-attention decoding exchanges: a gather of outputs with their lse, and the merge of all.</summary>
    TreeMerge,
    /// <summary><see cref="Communicator.Barrier"/>.</summary>
    Barrier,
}

/// <summary>One line of a measurement; times in microseconds, each the slowest rank's.</summary>
/// <param name="Op">The exchange.</param>
/// <param name="DType">Of the elements.</param>
/// <param name="Bytes">Of the whole array: of all ranks' parts where it is dealt out.</param>
/// <param name="Iterations">Timed.</param>
/// <param name="Min">The fastest.</param>
/// <param name="P50">The median.</param>
/// <param name="P99">The slow ones.</param>
/// <param name="Wrong">Elements of all ranks that were not what they have to be.</param>
/// <param name="Factor">What the busiest link moves per byte of the array, as nccl-tests counts.</param>
public sealed record CommunicationRow(MeasuredExchange Op, DType DType, long Bytes, int Iterations, double Min, double P50, double P99, long Wrong, double Factor)
{
    /// <summary>GB/s of the array, at the median.</summary>
    public double AlgorithmBandwidth => Bytes / P50 / 1e3;

    /// <summary>GB/s of the busiest link, at the median.</summary>
    public double BusBandwidth => AlgorithmBandwidth * Factor;
}

/// <summary>The line t = α + S·factor/β through the medians of a collective.</summary>
/// <param name="Latency">α, microseconds.</param>
/// <param name="Bandwidth">β, GB/s.</param>
public readonly record struct CommunicationFit(double Latency, double Bandwidth)
{
    /// <summary>Bytes at which four fifths of the bandwidth are reached: a good size for a bucket of gradients.</summary>
    public long BytesForFourFifths(double factor) => BytesForShare(0.8, factor);

    /// <summary>Bytes at which a share of the bandwidth is reached.</summary>
    /// <param name="share">Below 1.</param>
    /// <param name="factor">Of the rows.</param>
    public long BytesForShare(double share, double factor) => (long)Math.Min(long.MaxValue / 2, share / (1 - share) * Latency * Bandwidth * 1e3 / factor);

    /// <summary>The line of least relative squares; needs two sizes.</summary>
    public static CommunicationFit Of(IReadOnlyList<CommunicationRow> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        double w = 0, x = 0, y = 0, xx = 0, xy = 0;
        foreach (CommunicationRow row in rows)
        {
            (double weight, double size) = (1 / (row.P50 * row.P50), row.Bytes * row.Factor);
            (w, x, y, xx, xy) = (w + weight, x + weight * size, y + weight * row.P50, xx + weight * size * size, xy + weight * size * row.P50);
        }
        double slope = (w * xy - x * y) / (w * xx - x * x);
        return new CommunicationFit(Math.Max(0, (y - slope * x) / w), 1 / slope / 1e3);
    }
}

/// <summary>Measures exchanges between ranks over sizes, and checks every element of every size.</summary>
/// <param name="world">The ranks; every one makes the same calls.</param>
/// <param name="device">Where the arrays are; null for the CPU.</param>
/// <param name="leastIterations">Timed at least so often.</param>
/// <param name="seconds">Timed at least so long.</param>
public sealed class CommunicationBench(Communicator world, Device? device = null, int leastIterations = 20, double seconds = 0.3)
{
    private const int WarmUps = 5, MostIterations = 10_000, TreeHeadDimension = 128;
    private const long LeastBucket = 1 << 16, MostBucket = 256 << 20;
    private const double SecondsToTune = 0.03;

    private readonly Device _device = device ?? Device.Cpu;

    /// <summary>All of them.</summary>
    public static IReadOnlyList<MeasuredExchange> Ops { get; } = Enum.GetValues<MeasuredExchange>();

    /// <summary>Bytes of gradients to exchange at once: those at which an all-reduce between these ranks reaches four fifths of its bandwidth. The same on every rank.</summary>
    public static long BucketFor(IReadOnlyList<CommunicationRow> rows)
    {
        CommunicationFit fit = CommunicationFit.Of(rows);
        return Math.Clamp(fit.Bandwidth > 0 ? fit.BytesForFourFifths(rows[0].Factor) : LeastBucket, LeastBucket, MostBucket);
    }

    /// <summary>Measures for a moment how large buckets of gradients should be; every rank calls and gets the same number.</summary>
    public static long TuneBucket(Communicator world, Device device)
    {
        var bench = new CommunicationBench(world, device, leastIterations: 5, SecondsToTune);
        return BucketFor([.. ((long[])[1 << 14, 1 << 18, 1 << 22]).Select(bytes => bench.Measure(MeasuredExchange.AllReduce, DType.Float32, bytes))]);
    }

    /// <summary>One line; every rank calls and gets it.</summary>
    /// <param name="op">What.</param>
    /// <param name="dtype">Of the elements; <see cref="MeasuredExchange.TreeMerge"/> is always Float32.</param>
    /// <param name="bytes">Of the array; rounded up so that the ranks have equal parts.</param>
    public CommunicationRow Measure(MeasuredExchange op, DType dtype, long bytes)
    {
        if (dtype is not (DType.Float32 or DType.BFloat16)) throw new ArgumentException($"CommunicationBench: measures Float32 and BFloat16, not {dtype}.", nameof(dtype));
        if (op == MeasuredExchange.TreeMerge) dtype = DType.Float32;
        int size = world.Size;
        long unit = op == MeasuredExchange.TreeMerge ? TreeHeadDimension + 1 : 1;
        long part = op == MeasuredExchange.Barrier ? 0 : Math.Max(1, (bytes / dtype.Size + size * unit - 1) / (size * unit)) * unit, count = part * size;
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        var arrays = new Arrays(Tensor.Empty([count], dtype, _device), Tensor.Empty([count], dtype, _device), Tensor.Empty([part], dtype, _device));
        bool isPart = op is MeasuredExchange.AllGather or MeasuredExchange.TreeMerge;
        Fill(isPart ? arrays.Own : arrays.Whole);

        long wrong = world.Gather(CountWrong(op, Run(op, arrays), part)).Sum();
        (isPart ? arrays.Own : arrays.Whole).Clear();          // repeated sums must not overflow
        double[] slowest = Time(op, arrays);
        return new CommunicationRow(op, dtype, count * dtype.Size, slowest.Length, slowest[0], slowest[slowest.Length / 2], slowest[Math.Min(slowest.Length - 1, slowest.Length * 99 / 100)], wrong, FactorOf(op));
    }

    /// <summary>The times of the slowest rank, sorted.</summary>
    private double[] Time(MeasuredExchange op, Arrays arrays)
    {
        long begin = Stopwatch.GetTimestamp();
        for (int i = 0; i < WarmUps; i++) RunToEnd(op, arrays);
        int iterations = world.Gather((int)Math.Clamp(seconds / (Stopwatch.GetElapsedTime(begin).TotalSeconds / WarmUps), leastIterations, MostIterations)).Min();
        var times = new double[iterations];
        for (int i = 0; i < iterations; i++)
        {
            begin = Stopwatch.GetTimestamp();
            RunToEnd(op, arrays);
            times[i] = Stopwatch.GetElapsedTime(begin).TotalMicroseconds;
        }
        return [.. world.Gather<double>(times).Select(ranks => ranks.Max()).Order()];
    }

    private void RunToEnd(MeasuredExchange op, Arrays arrays)
    {
        using TensorScope scope = TensorScope.Enter();
        Run(op, arrays);
        _device.Synchronize();
    }

    /// <returns>Where the result is.</returns>
    private Tensor Run(MeasuredExchange op, Arrays arrays)
    {
        switch (op)
        {
            case MeasuredExchange.AllReduce: world.AllReduce(arrays.Whole); return arrays.Whole;
            case MeasuredExchange.ReduceScatter: world.ReduceScatter(arrays.Whole, arrays.Own); return arrays.Own;
            case MeasuredExchange.AllGather: world.AllGather(arrays.Own, arrays.Whole); return arrays.Whole;
            case MeasuredExchange.AllToAll: world.AllToAll(arrays.Whole, arrays.Other); return arrays.Other;
            case MeasuredExchange.Broadcast: world.Broadcast(arrays.Whole); return arrays.Whole;
            case MeasuredExchange.SendReceive: PassOn(arrays); return arrays.Other;
            case MeasuredExchange.TreeMerge: return MergeTree(arrays);
            default: world.Barrier(); return arrays.Own;
        }
    }

    /// <summary>An all-to-all in which all but the neighbours have nothing: sending and taking at the same time.</summary>
    private void PassOn(Arrays arrays)
    {
        long[] gives = new long[world.Size], takes = new long[world.Size];
        gives[(world.Rank + 1) % world.Size] = takes[(world.Rank + world.Size - 1) % world.Size] = arrays.Whole.Count;
        world.AllToAll(arrays.Whole, arrays.Other, gives, takes);
    }

    private Tensor MergeTree(Arrays arrays)
    {
        long heads = arrays.Own.Count / (TreeHeadDimension + 1);
        world.AllGather(arrays.Own, arrays.Whole);
        Tensor all = arrays.Whole.Reshape(world.Size, 1, 1, heads, TreeHeadDimension + 1);
        return ZEngine.Ops.MergeAttention([.. Enumerable.Range(0, world.Size).Select(rank =>
        {
            Tensor one = all.Select(0, rank);
            return (one.Slice(-1, 0, TreeHeadDimension), one.Slice(-1, TreeHeadDimension, 1).Contiguous().Reshape(1, 1, heads));
        })]).O;
    }

    /// <summary>The factors of nccl-tests.</summary>
    private double FactorOf(MeasuredExchange op) => op switch
    {
        MeasuredExchange.AllReduce => 2.0 * (world.Size - 1) / world.Size,
        MeasuredExchange.Broadcast or MeasuredExchange.SendReceive => 1,
        _ => (double)(world.Size - 1) / world.Size,
    };

    /// <summary>Small whole numbers: their sums are exact in every type.</summary>
    private static float Value(int rank, long i) => (i + 3 * rank) % 5;

    private void Fill(Tensor tensor)
    {
        float[] values = new float[tensor.Count];
        for (int i = 0; i < values.Length; i++) values[i] = Value(world.Rank, i);
        using Tensor filled = Tensor.From<float>(values, [values.Length], _device);
        ZEngine.Ops.Copy(filled, tensor);
    }

    private long CountWrong(MeasuredExchange op, Tensor result, long part)
    {
        float[] values = result.To(DType.Float32).Contiguous().ToArray<float>();
        float Sum(long i) => Enumerable.Range(0, world.Size).Sum(rank => Value(rank, i));
        long wrong = 0;
        for (long i = 0; i < values.Length; i++)
        {
            float expected = op switch
            {
                MeasuredExchange.AllReduce => Sum(i),
                MeasuredExchange.ReduceScatter => Sum(world.Rank * part + i),
                MeasuredExchange.AllGather => Value((int)(i / part), i % part),
                MeasuredExchange.AllToAll => Value((int)(i / part), world.Rank * part + i % part),
                MeasuredExchange.SendReceive => Value((world.Rank + world.Size - 1) % world.Size, i),
                MeasuredExchange.TreeMerge => Merged(i),
                _ => Value(0, i),
            };
            if (op == MeasuredExchange.TreeMerge ? !(Math.Abs(values[i] - expected) <= 1e-4f) : values[i] != expected) wrong++;
        }
        return wrong;
    }

    /// <summary>The mean of the ranks' outputs, weighted by the exponentials of their lse.</summary>
    private float Merged(long i)
    {
        (long head, long place) = (i / TreeHeadDimension, i % TreeHeadDimension);
        double sum = 0, weights = 0;
        for (int rank = 0; rank < world.Size; rank++)
        {
            double weight = Math.Exp(Value(rank, head * (TreeHeadDimension + 1) + TreeHeadDimension));
            (sum, weights) = (sum + weight * Value(rank, head * (TreeHeadDimension + 1) + place), weights + weight);
        }
        return (float)(sum / weights);
    }

    /// <param name="Whole">Of all ranks.</param>
    /// <param name="Other">As large.</param>
    /// <param name="Own">One rank's part.</param>
    private readonly record struct Arrays(Tensor Whole, Tensor Other, Tensor Own);
}
