using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>The loss over a vocabulary.</summary>
public class CrossEntropyBench : OpBench, IOpBench
{
    private const long L = 2048, V = 8192;
    private Tensor _logits = null!, _targets = null!, _one = null!;

    /// <inheritdoc/>
    public override void Setup() => (_logits, _targets, _one) = (Normal(L, V), Tokens(V, L), Own(Tensor.Scalar(1, Device.Cpu)));

    /// <summary>The loss.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.CrossEntropy(_logits, _targets));

    /// <summary>And the gradient of the logits.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.CrossEntropy(_logits, _targets), _one, _logits);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new CrossEntropyBench();
        bench.Setup();
        const double n = L * V;
        yield return new TableRow("CrossEntropy", "forward", $"[{L}, {V}]", 0, 4 * n, bench.Forward);
        yield return new TableRow("CrossEntropy", "train", $"[{L}, {V}]", 0, (1 + 2) * 4 * n, bench.ForwardBackward);
    }
}
