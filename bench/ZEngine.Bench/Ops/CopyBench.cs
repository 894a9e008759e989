using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Copies: dense, transposed, of a slice of columns, and to bfloat16; joining and splitting with gradients.</summary>
public class CopyBench : OpBench, IOpBench
{
    private const long L = 2048, D = 1024;
    private Tensor _x = null!, _y = null!, _half = null!, _bfloat16 = null!, _dy = null!;

    /// <inheritdoc/>
    public override void Setup() =>
        (_x, _y, _half, _bfloat16, _dy) = (Normal(L, D), Normal(L, D), Normal(L, D / 2), Own(Tensor.Empty([L, D], DType.BFloat16, Device.Cpu)), Normal(L, 2 * D));

    /// <summary>Both dense.</summary>
    [Benchmark]
    public void Dense() => Once(() => Ops.Copy(_x, _y));

    /// <summary>Rows become columns.</summary>
    [Benchmark]
    public void Transposed() => Once(() => Ops.Copy(_x.Reshape(D, L).Transpose(0, 1), _y));

    /// <summary>Half of the columns.</summary>
    [Benchmark]
    public void Columns() => Once(() => Ops.Copy(_x.Slice(-1, D / 2, D / 2), _half));

    /// <summary>To bfloat16.</summary>
    [Benchmark]
    public void Converted() => Once(() => Ops.Copy(_x, _bfloat16));

    /// <summary>Two tensors side by side, and back.</summary>
    [Benchmark]
    public void ConcatTrain() => Differentiate(() => Ops.Concat(-1, _x, _y), _dy, _x, _y);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new CopyBench();
        bench.Setup();
        const double n = L * D;
        string shape = $"[{L}, {D}]";
        yield return new TableRow("Copy", "forward", $"{shape} dense", 0, 2 * 4 * n, bench.Dense);
        yield return new TableRow("Copy", "forward", $"{shape} transposed", 0, 2 * 4 * n, bench.Transposed);
        yield return new TableRow("Copy", "forward", $"{shape} half the columns", 0, 4 * n, bench.Columns);
        yield return new TableRow("Copy", "forward", $"{shape} to BFloat16", 0, (4 + 2) * n, bench.Converted);
        yield return new TableRow("Copy", "train", $"{shape} x 2 joined", 0, 4 * 4 * n, bench.ConcatTrain);
    }
}
