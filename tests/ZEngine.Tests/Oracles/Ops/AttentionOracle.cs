using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// o = softmax(scale·q·kᵀ)·v for q [B, L, H, P], k, v [B, S, G, P]; query head h reads key head h / (H/G); lse [B, L, H] = log Σ exp(score).
/// Causal is aligned to the end: query l sees keys up to l + S − L; window w keeps the last w of them. softcap c turns a score into c·tanh(score/c).
/// A query that sees no key has o = 0 and lse = −∞.
/// </summary>
/// <remarks>Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.</remarks>
internal sealed class AttentionOracle : Oracle
{
    public override Dictionary<string, string> Letters => new()
    {
        ["q"] = "B L H P", ["k"] = "B S G P", ["v"] = "B S G P", ["o"] = "B L H P", ["lse"] = "B L H",
    };

    public override string[] Differentiable => ["o"];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs)
    {
        OracleTensor<T> q = x["q"], k = x["k"], v = x["v"];
        (int nb, int nl, int nh, int ns) = (q.Shape[0], q.Shape[1], q.Shape[2], k.Shape[1]);
        bool isCausal = attrs.Flag("causal");
        int? window = attrs.Int("window");
        if (window is not null && !isCausal) throw new ArgumentException("A window needs causal attention.");
        Sequence[] queries = Sequence.All(attrs, nb, nl);
        Sequence[] keys = Sequence.All(attrs, nb, ns, attrs.Ints("cu_seqlens_k") is null ? "cu_seqlens" : "cu_seqlens_k");

        var o = new OracleTensor<T>(nb, nl, nh, v.Shape[3]);
        var lse = new OracleTensor<T>(nb, nl, nh);
        foreach ((Sequence ql, Sequence ks) in queries.Zip(keys))
        for (int l = 0; l < ql.Length; l++)
        for (int h = 0; h < nh; h++)
        {
            int last = isCausal ? l + ks.Length - ql.Length : ks.Length - 1;
            int first = window is { } w ? Math.Max(0, last - w + 1) : 0;
            lse[ql.Row, ql.Start + l, h] =
                Row(q, k, v, attrs, ql.Row, ql.Start + l, h, ks.Start + first, ks.Start + last + 1, o.Data.AsSpan(((ql.Row * nl + ql.Start + l) * nh + h) * v.Shape[3], v.Shape[3]));
        }
        return new() { ["o"] = o, ["lse"] = lse };
    }

    /// <summary>One query against keys first to end (exclusive): writes its output and returns its lse.</summary>
    public static T Row<T>(OracleTensor<T> q, OracleTensor<T> k, OracleTensor<T> v, JsonElement attrs, int b, int l, int h, int first, int end, Span<T> o)
        where T : struct, IReal<T>
    {
        int g = h / (q.Shape[2] / k.Shape[2]), np = q.Shape[3];
        T scale = attrs.Number("scale") ?? 1 / Math.Sqrt(np);
        double? softcap = attrs.Number("softcap");
        for (int p = 0; p < o.Length; p++) o[p] = 0.0;
        if (end <= first) return double.NegativeInfinity;

        var score = new T[end - first];
        double max = double.NegativeInfinity;
        for (int s = first; s < end; s++)
        {
            T sum = 0.0;
            for (int p = 0; p < np; p++) sum += q[b, l, h, p] * k[b, s, g, p];
            sum = scale * sum;
            score[s - first] = softcap is { } cap ? cap * T.Tanh(sum / cap) : sum;
            max = Math.Max(max, score[s - first].ToDouble());
        }
        T total = 0.0;
        foreach (ref T e in score.AsSpan()) total += e = T.Exp(e - max);       // the shift by a constant max cancels, in the gradient too
        for (int s = first; s < end; s++)
        {
            T weight = score[s - first] / total;
            for (int p = 0; p < o.Length; p++) o[p] += weight * v[b, s, g, p];
        }
        return max + T.Log(total);
    }
}

/// <summary>
/// Attention whose keys are split into shards: each gives its own o and lse, and weights exp(lse − max lse) combine them. A shard without keys weighs 0.
/// </summary>
/// <remarks>Shyam et al. 2024, arXiv:2408.04093, algorithm 3.</remarks>
internal sealed class TreeAttentionOracle : Oracle
{
    public override Dictionary<string, string> Letters => new AttentionOracle().Letters;
    public override string[] Differentiable => ["o"];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs)
    {
        OracleTensor<T> q = x["q"], k = x["k"], v = x["v"];
        int[] shards = attrs.Ints("shards") ?? throw new ArgumentException("No shards.");
        (int nb, int nl, int nh, int np) = (q.Shape[0], q.Shape[1], q.Shape[2], v.Shape[3]);

        var o = new OracleTensor<T>(nb, nl, nh, np);
        var lse = new OracleTensor<T>(nb, nl, nh);
        for (int b = 0; b < nb; b++)
        for (int l = 0; l < nl; l++)
        for (int h = 0; h < nh; h++)
        {
            int count = shards.Length - 1;
            var part = new T[count][];
            var partLse = new T[count];
            double max = double.NegativeInfinity;
            for (int i = 0; i < count; i++)
            {
                part[i] = new T[np];
                partLse[i] = AttentionOracle.Row(q, k, v, attrs, b, l, h, shards[i], shards[i + 1], part[i]);
                max = Math.Max(max, partLse[i].ToDouble());
            }
            T denominator = 0.0;
            var numerator = new T[np];
            for (int i = 0; i < count; i++)
            {
                if (double.IsNegativeInfinity(partLse[i].ToDouble())) continue;
                T weight = T.Exp(partLse[i] - max);
                denominator += weight;
                for (int p = 0; p < np; p++) numerator[p] += weight * part[i][p];
            }
            bool isEmpty = double.IsNegativeInfinity(max);
            for (int p = 0; p < np; p++) o[b, l, h, p] = isEmpty ? 0.0 : numerator[p] / denominator;
            lse[b, l, h] = isEmpty ? double.NegativeInfinity : max + T.Log(denominator);
        }
        return new() { ["o"] = o, ["lse"] = lse };
    }
}
