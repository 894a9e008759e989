using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Causal attention with shared keys, and one query against a cache.</summary>
public class AttentionBench : OpBench, IOpBench
{
    private Tensor _q = null!, _k = null!, _v = null!, _dO = null!;
    private long _b, _l, _s, _h = 8, _g = 8, _p = 64;

    /// <summary>A batch of sequences, or one query against 4096 keys.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        (_b, _l, _s) = Phase == Phase.Train ? (4, 512, 512) : (1, 1, 4096);
        (_q, _k, _v, _dO) = (Normal(_b, _l, _h, _p), Normal(_b, _s, _g, _p), Normal(_b, _s, _g, _p), Normal(_b, _l, _h, _p));
    }

    /// <summary>o and lse.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.Attention(_q, _k, _v));

    /// <summary>And back.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.Attention(_q, _k, _v).O, _dO, _q, _k, _v);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach ((Phase phase, long h, long g, long p) in ((Phase, long, long, long)[])[(Phase.Train, 8, 8, 64), (Phase.Train, 8, 2, 64), (Phase.Train, 8, 8, 80), (Phase.Decode, 8, 8, 64), (Phase.Decode, 32, 8, 128)])
        {
            using var bench = new AttentionBench { Phase = phase, _h = h, _g = g, _p = p };
            bench.Setup();
            (double b, double l, double s) = (bench._b, bench._l, bench._s);
            // Pairs of a query and a key that it sees; two products forward, five backward.
            double pairs = phase == Phase.Train ? b * h * l * (l + 1) / 2 : b * h * s, product = 2 * pairs * p;
            double queries = 4 * b * l * h * p, keys = 4 * b * s * g * p;
            string shape = $"[{b}, {l}, H {h}, P {p}] S {s}, G {g}";
            yield return new TableRow("Attention", phase == Phase.Train ? "forward" : "decode", shape, 2 * product, 2 * queries + 2 * keys, bench.Forward);
            if (phase == Phase.Train) yield return new TableRow("Attention", "train", shape, 7 * product, 6 * queries + 6 * keys, bench.ForwardBackward);
        }
    }
}
