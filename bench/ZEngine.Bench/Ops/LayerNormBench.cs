using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>The norm of a step's tokens, d 512.</summary>
public class LayerNormBench : OpBench, IOpBench
{
    private const long Width = 512;

    private Tensor _x = null!, _weight = null!, _bias = null!, _dy = null!;

    /// <summary>A step's rows, or one token's.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    private long Count => Phase == Phase.Train ? 2048 : 1;

    /// <inheritdoc/>
    public override void Setup() => (_x, _dy, _weight, _bias) = (Normal(Count, Width), Normal(Count, Width), Normal(Width), Normal(Width));

    /// <summary>y.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.LayerNorm(_x, _weight, _bias, 1e-5f));

    /// <summary>y and all gradients.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.LayerNorm(_x, _weight, _bias, 1e-5f), _dy, _x, _weight, _bias);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach (Phase phase in (Phase[])[Phase.Train, Phase.Decode])
        {
            using var bench = new LayerNormBench { Phase = phase };
            bench.Setup();
            double bytes = 4.0 * (2 * bench.Count * Width + 2 * Width);
            string shape = $"[{bench.Count}, {Width}]";
            yield return new TableRow("LayerNorm", phase == Phase.Train ? "forward" : "decode", shape, 0, bytes, bench.Forward);
            if (phase == Phase.Train) yield return new TableRow("LayerNorm", "train", shape, 0, bytes + 4.0 * 3 * bench.Count * Width, bench.ForwardBackward);
        }
    }
}
