using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Routing of a step's tokens to 2 of 16 experts.</summary>
public class RouteBench : OpBench, IOpBench
{
    private const long Experts = 16;

    private static readonly RouteOptions s_options = new(2);

    private Tensor _logits = null!, _dWeights = null!;

    /// <summary>A step's tokens, or one.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    private long Count => Phase == Phase.Train ? 2048 : 1;

    /// <inheritdoc/>
    public override void Setup() => (_logits, _dWeights) = (Normal(Count, Experts), Normal(Count, 2));

    /// <summary>Experts, weights and losses.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.Route(_logits, s_options));

    /// <summary>Also the gradient of the logits.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.Route(_logits, s_options).Weights, _dWeights, _logits);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach (Phase phase in (Phase[])[Phase.Train, Phase.Decode])
        {
            using var bench = new RouteBench { Phase = phase };
            bench.Setup();
            double bytes = 4.0 * bench.Count * (Experts + 4);
            string shape = $"[{bench.Count}, {Experts}], 2 each";
            yield return new TableRow("Route", phase == Phase.Train ? "forward" : "decode", shape, 0, bytes, bench.Forward);
            if (phase == Phase.Train) yield return new TableRow("Route", "train", shape, 0, bytes + 4.0 * bench.Count * (2 * Experts + 2), bench.ForwardBackward);
        }
    }
}
