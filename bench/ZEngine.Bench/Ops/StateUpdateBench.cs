using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>One step of a batch of sequences through a Mamba-2 layer, between its projections.</summary>
public class StateUpdateBench : OpBench, IOpBench
{
    private const long G = 1, K = 4;
    private Tensor _x = null!, _dt = null!, _a = null!, _weight = null!, _bias = null!, _d = null!;
    private StateCache _cache = null!;
    private long _b = 1, _h = 16, _p = 64, _n = 64;

    /// <inheritdoc/>
    public override void Setup()
    {
        long width = _h * _p + 2 * G * _n;
        (_x, _dt, _weight, _bias, _d) = (Normal(_b, width), Normal(_b, _h), Normal(width, K), Normal(width), Normal(_h));
        _a = Own(Tensor.Empty([_h], DType.Float32, Device.Cpu));
        Ops.Fill(_a, -1);
        _cache = new(Normal(_b, K - 1, width), Normal(_b, _h, _p, _n), Own(Tensor.Zeros([_b, G], DType.Int32, Device.Cpu)));
    }

    /// <summary>y; the states change in place.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.StateUpdate(_x, _dt, _a, _weight, _cache, _bias, _d));

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach ((long b, long h, long p, long n) in ((long, long, long, long)[])[(1, 16, 64, 64), (1, 64, 64, 128), (16, 64, 64, 128)])
        {
            using var bench = new StateUpdateBench { _b = b, _h = h, _p = p, _n = n };
            bench.Setup();
            double states = (double)b * h * p * n;
            yield return new TableRow("StateUpdate", "decode", $"[{b}, H {h}, P {p}] N {n}", 5 * states, 2 * 4 * states, bench.Forward);
        }
    }
}
