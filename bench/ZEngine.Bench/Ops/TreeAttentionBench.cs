using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>One query of 8 heads of 64 channels over 4096 keys in 8 shards.</summary>
public class TreeAttentionBench : OpBench, IOpBench
{
    private const long Heads = 8, Channels = 64, Keys = 512, Shards = 8;

    private readonly (Tensor K, Tensor V)[] _shards = new (Tensor, Tensor)[Shards];
    private Tensor _q = null!, _dO = null!;

    /// <inheritdoc/>
    public override void Setup()
    {
        (_q, _dO) = (Normal(1, 1, Heads, Channels), Normal(1, 1, Heads, Channels));
        for (int i = 0; i < Shards; i++) _shards[i] = (Normal(1, Keys, Heads, Channels), Normal(1, Keys, Heads, Channels));
    }

    /// <summary>All shards and their merge.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.TreeAttention(_q, _shards));

    /// <summary>Also the gradient of the query.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.TreeAttention(_q, _shards).O, _dO, _q);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new TreeAttentionBench();
        bench.Setup();
        double products = (double)Shards * Keys * Heads * Channels;
        yield return new TableRow("TreeAttention", "decode", $"[1, 1, {Heads}, {Channels}], {Shards} shards of {Keys} keys", 4 * products, 8 * products, bench.Forward);
    }
}
