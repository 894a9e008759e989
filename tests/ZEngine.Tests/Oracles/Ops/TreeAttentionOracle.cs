using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// Attention whose keys are split into shards: each gives its own o and lse, and weights exp(lse − max lse) combine them. A shard without keys weighs 0.
/// </summary>
/// <remarks>Shyam et al. 2024, arXiv:2408.04093.</remarks>
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
