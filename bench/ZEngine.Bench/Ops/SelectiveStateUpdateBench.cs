using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>One step of a batch of sequences through a Mamba layer, between its outer projections.</summary>
public class SelectiveStateUpdateBench : OpBench, IOpBench
{
    private const long N = 16, K = 4;
    private Tensor _x = null!, _z = null!;
    private SelectiveStateLayer _layer = null!;
    private SelectiveStateCache _cache = null!;
    private long _b = 1, _d = 1536, _r = 48;

    /// <inheritdoc/>
    public override void Setup()
    {
        (_x, _z) = (Normal(_b, _d), Normal(_b, _d));
        Tensor projection = Own(Ops.Scale(Normal(1, _r + 2 * N, _d), 1 / MathF.Sqrt(_d)));
        _layer = new(Normal(_d, K), Normal(_d), projection, Normal(_d, _r), Normal(_d, N), Normal(_d), Normal(_d));
        _cache = new(Normal(_b, K - 1, _d), Normal(_b, _d, N));
    }

    /// <summary>y; the states change in place.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.SelectiveStateUpdate(_x, _layer, _cache, _z));

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach ((long b, long d, long r) in ((long, long, long)[])[(1, 1536, 48), (8, 1536, 48), (1, 5120, 160)])
        {
            using var bench = new SelectiveStateUpdateBench { _b = b, _d = d, _r = r };
            bench.Setup();
            double weights = (double)d * (2 * r + 2 * N), states = (double)b * d * N;
            yield return new TableRow("SelectiveStateUpdate", "decode", $"[{b}, {d}], {N} states, R {r}", b * 2 * weights + 6 * states, 4 * (weights + 2 * states), bench.Forward);
        }
    }
}
