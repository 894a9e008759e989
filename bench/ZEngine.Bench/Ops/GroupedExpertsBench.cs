using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>A step's tokens through 2 of 8 SwiGLU experts, d 512, hidden 1024.</summary>
public class GroupedExpertsBench : OpBench, IOpBench
{
    private const long Width = 512, Hidden = 1024, Experts = 8, Slots = 2;

    private Tensor _x = null!, _up = null!, _down = null!, _dy = null!;
    private Routing _routing = null!;

    /// <summary>A step's tokens, or one.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    private long Count => Phase == Phase.Train ? 2048 : 1;

    /// <inheritdoc/>
    public override void Setup()
    {
        (_x, _dy, _up, _down) = (Normal(Count, Width), Normal(Count, Width), Normal(Experts, 2 * Hidden, Width), Normal(Experts, Width, Hidden));
        _routing = Ops.Route(Normal(Count, Experts), new RouteOptions(Slots));
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[_routing.Experts, _routing.Weights, _routing.Load, _routing.AuxLoss, _routing.ZLoss]) Own(tensor);
    }

    /// <summary>y.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.GroupedExperts(_x, _routing, _up, _down));

    /// <summary>y and all gradients.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.GroupedExperts(_x, _routing, _up, _down), _dy, _x, _up, _down);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach (Phase phase in (Phase[])[Phase.Train, Phase.Decode])
        {
            using var bench = new GroupedExpertsBench { Phase = phase };
            bench.Setup();
            double pairs = bench.Count * Slots, used = Math.Min(pairs, Experts), flops = 2 * pairs * 3 * Width * Hidden, bytes = 4 * (2 * bench.Count * Width + used * 3 * Width * Hidden);
            string shape = $"[{bench.Count}, {Width}], {Slots} of {Experts} experts, hidden {Hidden}";
            yield return new TableRow("GroupedExperts", phase == Phase.Train ? "forward" : "decode", shape, flops, bytes, bench.Forward);
            if (phase == Phase.Train) yield return new TableRow("GroupedExperts", "train", shape, 3 * flops, 3 * bytes, bench.ForwardBackward);
        }
    }
}
