using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Sums over the last axis and over rows, as the gradient of a bias needs them.</summary>
public class ReduceBench : OpBench, IOpBench
{
    private const long L = 2048, D = 1024;
    private Tensor _x = null!, _dRows = null!;

    /// <inheritdoc/>
    public override void Setup() => (_x, _dRows) = (Normal(L, D), Normal(L));

    /// <summary>Over channels.</summary>
    [Benchmark]
    public void SumOfRows() => Once(() => Ops.Sum(_x, -1));

    /// <summary>Over rows.</summary>
    [Benchmark]
    public void SumOfColumns() => Once(() => Ops.Sum(_x, 0));

    /// <summary>Largest of each row.</summary>
    [Benchmark]
    public void MaxOfRows() => Once(() => Ops.Max(_x, -1));

    /// <summary>Over channels and back.</summary>
    [Benchmark]
    public void SumTrain() => Differentiate(() => Ops.Sum(_x, -1), _dRows, _x);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new ReduceBench();
        bench.Setup();
        const double n = L * D;
        string shape = $"[{L}, {D}]";
        yield return new TableRow("Reduce", "forward", $"{shape} sum, last axis", 0, 4 * n, bench.SumOfRows);
        yield return new TableRow("Reduce", "forward", $"{shape} sum, first axis", 0, 4 * n, bench.SumOfColumns);
        yield return new TableRow("Reduce", "forward", $"{shape} max, last axis", 0, 4 * n, bench.MaxOfRows);
        yield return new TableRow("Reduce", "train", $"{shape} sum, last axis", 0, 2 * 4 * n, bench.SumTrain);
    }
}
