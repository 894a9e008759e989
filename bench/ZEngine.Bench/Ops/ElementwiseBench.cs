using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Pointwise functions, sums of two tensors and broadcasting, at the size of a layer's activations.</summary>
public class ElementwiseBench : OpBench, IOpBench
{
    private const long L = 2048, D = 1024;
    private Tensor _a = null!, _b = null!, _bias = null!, _dy = null!;

    /// <inheritdoc/>
    public override void Setup() => (_a, _b, _bias, _dy) = (Normal(L, D), Normal(L, D), Normal(D), Normal(L, D));

    /// <summary>a + b.</summary>
    [Benchmark]
    public void Add() => Once(() => Ops.Add(_a, _b));

    /// <summary>a + a row.</summary>
    [Benchmark]
    public void AddBias() => Once(() => Ops.Add(_a, _bias));

    /// <summary>silu(a).</summary>
    [Benchmark]
    public void Silu() => Once(() => Ops.Map(Pointwise.Silu, _a));

    /// <summary>silu(a) and its gradient.</summary>
    [Benchmark]
    public void SiluTrain() => Differentiate(() => Ops.Map(Pointwise.Silu, _a), _dy, _a);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new ElementwiseBench();
        bench.Setup();
        const double n = L * D;
        string shape = $"[{L}, {D}]";
        yield return new TableRow("Elementwise", "forward", $"{shape} add", 0, 3 * 4 * n, bench.Add);
        yield return new TableRow("Elementwise", "forward", $"{shape} add row", 0, 2 * 4 * n, bench.AddBias);
        yield return new TableRow("Elementwise", "forward", $"{shape} silu", 0, 2 * 4 * n, bench.Silu);
        yield return new TableRow("Elementwise", "train", $"{shape} silu", 0, (2 + 3) * 4 * n, bench.SiluTrain);
    }
}
