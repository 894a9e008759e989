using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>The gate of a feed-forward block: silu(gate)·up, both in one tensor.</summary>
public class GatedActivationBench : OpBench, IOpBench
{
    private const long L = 2048, F = 1408;
    private Tensor _gateUp = null!, _dy = null!;

    /// <inheritdoc/>
    public override void Setup() => (_gateUp, _dy) = (Normal(L, 2 * F), Normal(L, F));

    /// <summary>With silu.</summary>
    [Benchmark]
    public void Silu() => Once(() => Ops.GatedActivation(_gateUp, Pointwise.Silu));

    /// <summary>With gelu.</summary>
    [Benchmark]
    public void Gelu() => Once(() => Ops.GatedActivation(_gateUp, Pointwise.Gelu));

    /// <summary>With silu, and back.</summary>
    [Benchmark]
    public void SiluTrain() => Differentiate(() => Ops.GatedActivation(_gateUp, Pointwise.Silu), _dy, _gateUp);

    /// <summary>With gelu, and back.</summary>
    [Benchmark]
    public void GeluTrain() => Differentiate(() => Ops.GatedActivation(_gateUp, Pointwise.Gelu), _dy, _gateUp);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new GatedActivationBench();
        bench.Setup();
        const double n = L * F;
        string shape = $"[{L}, 2 x {F}]";
        yield return new TableRow("GatedActivation", "forward", $"{shape} silu", 0, 3 * 4 * n, bench.Silu);
        yield return new TableRow("GatedActivation", "forward", $"{shape} gelu", 0, 3 * 4 * n, bench.Gelu);
        yield return new TableRow("GatedActivation", "train", $"{shape} silu", 0, (3 + 5) * 4 * n, bench.SiluTrain);
        yield return new TableRow("GatedActivation", "train", $"{shape} gelu", 0, (3 + 5) * 4 * n, bench.GeluTrain);
    }
}
