using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>What stands between the projections of a Mamba-2 layer: convolution, chunked scan, gate and norm.</summary>
public class Mamba2ScanBench : OpBench, IOpBench
{
    private const long B = 4, L = 512, H = 16, P = 64, K = 4, Q = 64, Inner = H * P;
    private Tensor _projected = null!, _a = null!, _weight = null!, _norm = null!, _bias = null!, _d = null!, _dtBias = null!, _dy = null!;
    private long _n = 64;

    /// <inheritdoc/>
    public override void Setup()
    {
        long channels = Inner + 2 * _n;
        (_projected, _weight, _norm, _bias) = (Normal(B, L, Inner + channels + H), Normal(channels, 1, K), Normal(Inner), Normal(channels));
        (_a, _d, _dtBias, _dy) = (Normal(H), Normal(H), Normal(H), Normal(B, L, Inner));
    }

    /// <summary>y and the states behind the last step.</summary>
    [Benchmark]
    public void Forward() => Once(() => Run());

    /// <summary>And back.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Run().Y, _dy, _projected, _a, _weight, _norm, _bias, _d, _dtBias);

    private Mamba2ScanResult Run() => Ops.Mamba2Scan(_projected, _a, _weight, _norm, new Mamba2ScanOptions(1, 1e-5f, Scan: new SsdScanOptions(HasLogA: true)), _bias, _d, _dtBias);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach (long n in (long[])[64, 128])
        {
            using var bench = new Mamba2ScanBench { _n = n };
            bench.Setup();
            double steps = B * L, channels = Inner + 2 * n, convolution = 2 * K * steps * channels;
            // As the two ops count: the scan's products, and the taps.
            double forward = convolution + steps * (Q * n + H * (Q * P + 4.0 * n * P)), backward = 3 * convolution + steps * (3 * Q * n + H * (2 * Q * P + 8.0 * n * P));
            double projected = 4 * steps * (Inner + channels + H), y = 4 * steps * Inner;
            string shape = $"[{B}, {L}, H {H}, P {P}] N {n} K {K}";
            yield return new TableRow("Mamba2Scan", "forward", shape, forward, projected + y, bench.Forward);
            yield return new TableRow("Mamba2Scan", "train", shape, forward + backward, 3 * projected + 2 * y, bench.ForwardBackward);
        }
    }
}
