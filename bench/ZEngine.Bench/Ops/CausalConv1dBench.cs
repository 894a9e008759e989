using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>The short convolution before a scan, with bias and silu.</summary>
public class CausalConv1dBench : OpBench, IOpBench
{
    private const long D = 1152, K = 4;
    private Tensor _x = null!, _weight = null!, _bias = null!, _state = null!, _dy = null!;
    private long _b, _l;

    /// <summary>A batch of sequences, or the next step of one.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        (_b, _l) = Phase == Phase.Train ? (4, 512) : (1, 1);
        (_x, _weight, _bias, _state, _dy) = (Normal(_b, _l, D), Normal(D, K), Normal(D), Normal(_b, K - 1, D), Normal(_b, _l, D));
    }

    /// <summary>y and the state behind the last step.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.CausalConv1d(_x, _weight, _bias, hasSilu: true, _state));

    /// <summary>And back.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.CausalConv1d(_x, _weight, _bias, hasSilu: true).Y, _dy, _x, _weight, _bias);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach (Phase phase in (Phase[])[Phase.Train, Phase.Decode])
        {
            using var bench = new CausalConv1dBench { Phase = phase };
            bench.Setup();
            double n = bench._b * bench._l * D, flops = 2 * K * n, states = phase == Phase.Decode ? 2 * 4 * bench._b * (K - 1) * D : 0, weights = 4 * D * (K + 1);
            string shape = $"[{bench._b}, {bench._l}, {D}] K {K}, silu";
            yield return new TableRow("CausalConv1d", phase == Phase.Train ? "forward" : "decode", shape, flops, 2 * 4 * n + states + weights, bench.Forward);
            // Backwards the sum before the activation is worked out again; then one product for dx and one for the taps.
            if (phase == Phase.Train) yield return new TableRow("CausalConv1d", "train", shape, 4 * flops, (2 + 3) * 4 * n, bench.ForwardBackward);
        }
    }
}
