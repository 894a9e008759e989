using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// loss = Σ over targets of (1 − s)·(lse − logit[target]) + s·(lse − mean(logits)) + z_loss·lse², with s the label_smoothing, over logits [..., V].
/// Targets equal to ignore_index are left out; reduction "mean" divides by the number of those kept (no target kept: loss 0), "sum" does not.
/// </summary>
/// <remarks>Smoothing: Szegedy et al. 2015, arXiv:1512.00567, section 7; z-loss: Chowdhery et al. 2022, arXiv:2204.02311, section 5.</remarks>
internal sealed class CrossEntropyOracle : Oracle
{
    public override Dictionary<string, string> Letters => new() { ["logits"] = "L V", ["targets"] = "L" };
    public override string[] Differentiable => ["loss"];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs)
    {
        OracleTensor<T> logits = x["logits"];
        OracleTensor<long> targets = x.Integers("targets");
        double smoothing = attrs.Number("label_smoothing") ?? 0, zLoss = attrs.Number("z_loss") ?? 0;
        int? ignored = attrs.Int("ignore_index");
        int nv = logits.Shape[^1], kept = 0;

        T loss = 0.0;
        for (int l = 0; l < targets.Count; l++)
        {
            if (targets[l] == ignored) continue;
            kept++;
            Span<T> row = logits.Data.AsSpan(l * nv, nv);
            T lse = LogSumExp(row), sum = 0.0;
            T term = (1 - smoothing) * (lse - row[(int)targets[l]]);
            if (smoothing != 0)
            {
                foreach (T logit in row) sum += logit;
                term += smoothing * (lse - sum / (double)nv);
            }
            if (zLoss != 0) term += zLoss * (lse * lse);
            loss += term;
        }
        if (attrs.Text("reduction") is not "sum" && kept > 0) loss /= (double)kept;
        return new() { ["loss"] = new([loss]) };
    }

    public static T LogSumExp<T>(ReadOnlySpan<T> row) where T : struct, IReal<T>
    {
        double max = double.NegativeInfinity;
        foreach (T logit in row) max = Math.Max(max, logit.ToDouble());
        T sum = 0.0;
        foreach (T logit in row) sum += T.Exp(logit - max);
        return max + T.Log(sum);
    }
}
