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

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs) => Compute(x, attrs, null);

    /// <summary>The weights softmax(score) stand in a tensor, as operand of the product with v, and so does their gradient.</summary>
    public override Dictionary<string, OracleTensor<T>> Plain<T>(OracleInputs<T> x, JsonElement attrs) => Compute(x, attrs, T.Store);

    private static Dictionary<string, OracleTensor<T>> Compute<T>(OracleInputs<T> x, JsonElement attrs, Func<T, T>? kept) where T : struct, IReal<T>
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
            int b = ql.Row, at = ql.Start + l;
            Span<T> output = o.Data.AsSpan(((b * nl + at) * nh + h) * v.Shape[3], v.Shape[3]);
            lse[b, at, h] = Row(q, k, v, attrs, b, at, h, ks.Start + first, ks.Start + last + 1, output, kept);
        }
        return new() { ["o"] = o, ["lse"] = lse };
    }

    /// <summary>One query against keys first to end (exclusive): writes its output and returns its lse.</summary>
    public static T Row<T>(
        OracleTensor<T> q, OracleTensor<T> k, OracleTensor<T> v, JsonElement attrs, int b, int l, int h, int first, int end, Span<T> o, Func<T, T>? kept = null)
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
            if (kept is not null) weight = kept(weight);
            for (int p = 0; p < o.Length; p++) o[p] += weight * v[b, s, g, p];
        }
        return max + T.Log(total);
    }
}
