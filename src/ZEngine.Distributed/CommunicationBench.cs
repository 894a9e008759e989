// A measurement of collectives: its rows, the line through them, and how they are taken.
using System.Diagnostics;

namespace ZEngine.Distributed;

/// <summary>One line of a measurement; times in microseconds, each the slowest rank's.</summary>
/// <param name="Op">The collective.</param>
/// <param name="DType">Of the elements.</param>
/// <param name="Bytes">Of the whole array: of all ranks' parts where it is dealt out.</param>
/// <param name="Iterations">Timed.</param>
/// <param name="Min">The fastest.</param>
/// <param name="P50">The median.</param>
/// <param name="P99">The slow ones.</param>
/// <param name="Wrong">Elements of all ranks that were not what they have to be.</param>
/// <param name="Factor">What the busiest link moves per byte of the array, as nccl-tests counts.</param>
public sealed record CommunicationRow(CollectiveKind Op, DType DType, long Bytes, int Iterations, double Min, double P50, double P99, long Wrong, double Factor)
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
    public long BytesForFourFifths(double factor) => (long)Math.Min(long.MaxValue / 2, 4 * Latency * Bandwidth * 1e3 / factor);

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

/// <summary>Measures collectives over sizes, and checks every element of every size.</summary>
public sealed class CommunicationBench(Communicator world, int leastIterations = 20, double seconds = 0.3)
{
    private const int WarmUps = 5;

    /// <summary>What is measured.</summary>
    public static IReadOnlyList<CollectiveKind> Ops { get; } = [CollectiveKind.AllReduce, CollectiveKind.ReduceScatter, CollectiveKind.AllGather, CollectiveKind.AllToAll, CollectiveKind.Broadcast];

    /// <summary>One line; every rank calls and gets it.</summary>
    /// <param name="bytes">Of the array; rounded up so that the ranks have equal parts.</param>
    public CommunicationRow Measure(CollectiveKind op, DType dtype, long bytes)
    {
        if (dtype is not (DType.Float32 or DType.BFloat16)) throw new ArgumentException($"CommunicationBench: measures Float32 and BFloat16, not {dtype}.", nameof(dtype));
        int size = world.Size;
        long part = Math.Max(1, (bytes / dtype.Size + size - 1) / size), count = part * size;
        using TensorScope scope = TensorScope.Enter();
        Tensor whole = Tensor.Empty([count], dtype, Device.Cpu), other = Tensor.Empty([count], dtype, Device.Cpu), own = Tensor.Empty([part], dtype, Device.Cpu);

        void Prepare()
        {
            float[] values = new float[op == CollectiveKind.AllGather ? part : count];
            for (int i = 0; i < values.Length; i++) values[i] = Value(world.Rank, i);
            using Tensor filled = Tensor.From<float>(values, [values.Length], Device.Cpu);
            ZEngine.Ops.Copy(filled, op == CollectiveKind.AllGather ? own : whole);
        }

        void Run()
        {
            switch (op)
            {
                case CollectiveKind.AllReduce: world.AllReduce(whole); break;
                case CollectiveKind.ReduceScatter: world.ReduceScatter(whole, own); break;
                case CollectiveKind.AllGather: world.AllGather(own, whole); break;
                case CollectiveKind.AllToAll: world.AllToAll(whole, other); break;
                case CollectiveKind.Broadcast: world.Broadcast(whole); break;
                default: throw new ArgumentException($"CommunicationBench: {op} is not measured.", nameof(op));
            }
        }

        Prepare();
        Run();
        long wrong = world.Gather(CountWrong(op, op is CollectiveKind.ReduceScatter ? own : op is CollectiveKind.AllToAll ? other : whole, part)).Sum();
        whole.Clear();                                         // repeated sums must not overflow
        long begin = Stopwatch.GetTimestamp();
        for (int i = 0; i < WarmUps; i++) Run();
        int iterations = world.Gather((int)Math.Clamp(seconds / (Stopwatch.GetElapsedTime(begin).TotalSeconds / WarmUps), leastIterations, 10_000)).Min();
        var times = new double[iterations];
        for (int i = 0; i < iterations; i++)
        {
            begin = Stopwatch.GetTimestamp();
            Run();
            times[i] = Stopwatch.GetElapsedTime(begin).TotalMicroseconds;
        }
        double[] slowest = [.. world.Gather<double>(times).Select(ranks => ranks.Max()).Order()];
        return new CommunicationRow(op, dtype, count * dtype.Size, iterations, slowest[0], slowest[iterations / 2], slowest[Math.Min(iterations - 1, iterations * 99 / 100)], wrong, FactorOf(op));
    }

    /// <summary>The factors of nccl-tests.</summary>
    private double FactorOf(CollectiveKind op) => op switch
    {
        CollectiveKind.AllReduce => 2.0 * (world.Size - 1) / world.Size,
        CollectiveKind.Broadcast => 1,
        _ => (double)(world.Size - 1) / world.Size,
    };

    /// <summary>Small whole numbers: their sums are exact in every type.</summary>
    private static float Value(int rank, long i) => (i + 3 * rank) % 5;

    private long CountWrong(CollectiveKind op, Tensor result, long part)
    {
        float[] values = result.To(DType.Float32).ToArray<float>();
        float Sum(long i) => Enumerable.Range(0, world.Size).Sum(rank => Value(rank, i));
        long wrong = 0;
        for (long i = 0; i < values.Length; i++)
        {
            float expected = op switch
            {
                CollectiveKind.AllReduce => Sum(i),
                CollectiveKind.ReduceScatter => Sum(world.Rank * part + i),
                CollectiveKind.AllGather => Value((int)(i / part), i % part),
                CollectiveKind.AllToAll => Value((int)(i / part), world.Rank * part + i % part),
                _ => Value(0, i),
            };
            if (values[i] != expected) wrong++;
        }
        return wrong;
    }
}
