using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Rows of a table by token.</summary>
public class EmbeddingBench : OpBench, IOpBench
{
    private const long V = 32000, D = 512;
    private Tensor _table = null!, _tokens = null!, _dy = null!;

    /// <summary>A batch of tokens, or one.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        (long b, long l) = Phase == Phase.Train ? (4, 512) : (1, 1);
        (_table, _tokens, _dy) = (Normal(V, D), Tokens(V, b, l), Normal(b, l, D));
    }

    /// <summary>Gathers rows.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.Embedding(_table, _tokens));

    /// <summary>Gathers rows and adds the gradients to a dense one of the table.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.Embedding(_table, _tokens), _dy, _table);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new EmbeddingBench();
        bench.Setup();
        const double n = 4 * 512 * D;
        yield return new TableRow("Embedding", "forward", $"[4, 512] of [{V}, {D}]", 0, 2 * 4 * n, bench.Forward);
        yield return new TableRow("Embedding", "train", $"[4, 512] of [{V}, {D}]", 0, 2 * 4 * n + 4.0 * V * D + 3 * 4 * n, bench.ForwardBackward);
    }
}
