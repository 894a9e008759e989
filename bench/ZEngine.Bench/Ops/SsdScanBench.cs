using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>The chunked scan of Mamba-2 with skip and gate, and its one-step form.</summary>
public class SsdScanBench : OpBench, IOpBench
{
    private const long G = 1, Q = 64;
    private Tensor _x = null!, _dt = null!, _a = null!, _inputB = null!, _c = null!, _d = null!, _z = null!, _bias = null!, _state = null!, _dy = null!;
    private long _b, _l, _h = 16, _p = 64, _n = 64;

    /// <summary>A batch of sequences, or the next step of one.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        (_b, _l) = Phase == Phase.Train ? (4, 512) : (1, 1);
        (_x, _dt, _z, _dy) = (Normal(_b, _l, _h, _p), Normal(_b, _l, _h), Normal(_b, _l, _h, _p), Normal(_b, _l, _h, _p));
        (_inputB, _c, _d, _bias) = (Normal(_b, _l, G, _n), Normal(_b, _l, G, _n), Normal(_h), Normal(_h));
        _a = Own(Tensor.Empty([_h], DType.Float32, Device.Cpu));
        Ops.Fill(_a, -1);
        _state = Normal(_b, _h, _p, _n);
    }

    /// <summary>y and the state behind the last step.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.SsdScan(_x, _dt, _a, _inputB, _c, _d, _z, _bias, Phase == Phase.Decode ? _state : null));

    /// <summary>And back.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.SsdScan(_x, _dt, _a, _inputB, _c, _d, _z, _bias).Y, _dy, _x, _dt, _a, _inputB, _c, _d, _z, _bias);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach ((Phase phase, long h, long p, long n) in ((Phase, long, long, long)[])[(Phase.Train, 16, 64, 64), (Phase.Train, 16, 64, 128), (Phase.Train, 16, 80, 64), (Phase.Train, 32, 64, 16), (Phase.Decode, 16, 64, 64), (Phase.Decode, 64, 64, 128)])
        {
            using var bench = new SsdScanBench { Phase = phase, _h = h, _p = p, _n = n };
            bench.Setup();
            (double steps, double y) = (bench._b * bench._l, bench._b * bench._l * h * p);
            string shape = $"[{bench._b}, {bench._l}, H {h}, P {p}] N {n}";
            if (phase == Phase.Decode)
            {
                yield return new TableRow("SsdScan", "decode", shape, 5.0 * h * p * n, 2 * 4.0 * h * p * n, bench.Forward);
                continue;
            }
            // Per step: C·Bᵀ and its product with Δx over half of the chunk; the chunk's state in and out.
            double forward = steps * (G * Q * n + h * (Q * p + 4.0 * n * p));
            // d(C·Bᵀ) twice, the decayed product twice, the state's four products.
            double backward = steps * (3 * G * Q * n + h * (2 * Q * p + 8.0 * n * p));
            yield return new TableRow("SsdScan", "forward", shape, forward, 3 * 4 * y + 2 * 4 * steps * G * n, bench.Forward);
            yield return new TableRow("SsdScan", "train", shape, forward + backward, (4 + 6) * 4 * y, bench.ForwardBackward);
        }
    }
}
