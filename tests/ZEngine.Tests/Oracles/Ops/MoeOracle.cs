using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// Every token x [L, D] goes to the top_k experts of p = softmax(router·x) and adds up weight_e·down_e(silu(gate_e·x)·(up_e·x)); the weights are
/// the p of the chosen ones, divided by their sum with "normalize". aux_loss = E·Σ_e f_e·mean(p_e) with f_e the tokens of expert e per token.
/// router [E, D], gate_proj and up_proj [E, F, D], down_proj [E, D, F]. Of equal probabilities the lower expert is chosen.
/// </summary>
/// <remarks>Fedus et al. 2021, arXiv:2101.03961, section 2.2, with k experts for one.</remarks>
internal sealed class MoeOracle : Oracle
{
    public override Dictionary<string, string> Letters => new()
    {
        ["x"] = "L D", ["router"] = "E D", ["gate_proj"] = "E F D", ["up_proj"] = "E F D", ["down_proj"] = "E D F", ["y"] = "L D",
    };

    public override string[] Differentiable => ["y", "aux_loss"];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> inputs, JsonElement attrs)
    {
        OracleTensor<T> x = inputs["x"], router = inputs["router"];
        OracleTensor<T> gate = inputs["gate_proj"], up = inputs["up_proj"], down = inputs["down_proj"];
        int topK = attrs.Int("top_k") ?? throw new ArgumentException("No top_k.");
        (int nl, int nd, int ne, int nf) = (x.Shape[0], x.Shape[1], router.Shape[0], gate.Shape[1]);

        var y = new OracleTensor<T>(nl, nd);
        var probability = new T[ne];                                           // Σ over tokens of p_e
        var chosen = new int[ne];                                              // how many tokens chose e
        for (int l = 0; l < nl; l++)
        {
            T[] p = Softmax(x, router, l);
            for (int e = 0; e < ne; e++) probability[e] += p[e];
            int[] experts = [.. Enumerable.Range(0, ne).OrderByDescending(e => p[e].ToDouble()).Take(topK)];
            T total = 0.0;
            foreach (int e in experts) total += p[e];

            for (int d = 0; d < nd; d++) y[l, d] = 0.0;
            foreach (int e in experts)
            {
                chosen[e]++;
                T weight = attrs.Flag("normalize") ? p[e] / total : p[e];
                var hidden = new T[nf];
                for (int f = 0; f < nf; f++)
                {
                    T gated = 0.0, linear = 0.0;
                    for (int d = 0; d < nd; d++)
                    {
                        gated += gate[e, f, d] * x[l, d];
                        linear += up[e, f, d] * x[l, d];
                    }
                    hidden[f] = Functions.Silu(gated) * linear;
                }
                for (int d = 0; d < nd; d++)
                {
                    T sum = 0.0;
                    for (int f = 0; f < nf; f++) sum += down[e, d, f] * hidden[f];
                    y[l, d] += weight * sum;
                }
            }
        }
        T balance = 0.0;
        for (int e = 0; e < ne; e++) balance += (double)chosen[e] / nl * (probability[e] / (double)nl);
        return new() { ["y"] = y, ["aux_loss"] = new([(double)ne * balance]) };
    }

    private static T[] Softmax<T>(OracleTensor<T> x, OracleTensor<T> router, int l) where T : struct, IReal<T>
    {
        var logits = new T[router.Shape[0]];
        for (int e = 0; e < logits.Length; e++)
        {
            logits[e] = 0.0;
            for (int d = 0; d < x.Shape[1]; d++) logits[e] += router[e, d] * x[l, d];
        }
        double max = logits.Max(logit => logit.ToDouble());
        T total = 0.0;
        foreach (ref T e in logits.AsSpan()) total += e = T.Exp(e - max);
        foreach (ref T e in logits.AsSpan()) e /= total;
        return logits;
    }
}
