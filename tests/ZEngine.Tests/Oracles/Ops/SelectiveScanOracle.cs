using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// Δ = softplus(dt + dt_bias);  h[l] = exp(Δ·A)·h[l−1] + Δ·B·u;  y = (C·h + D·u)·silu(z).
/// u, dt, z [B, L, D], A [D, N], B, C [B, L, G, N], D [D], states [B, D, N].
/// </summary>
/// <remarks>Gu and Dao 2023, arXiv:2312.00752, section 3.2 and algorithm 2.</remarks>
internal sealed class SelectiveScanOracle : Oracle
{
    public override Dictionary<string, string> Letters => new()
    {
        ["u"] = "B L D", ["dt"] = "B L D", ["A"] = "D N", ["B"] = "B L G N", ["C"] = "B L G N", ["D"] = "D", ["z"] = "B L D", ["dt_bias"] = "D",
        ["initial_state"] = "B D N", ["y"] = "B L D", ["final_state"] = "B D N",
    };

    public override string[] Differentiable => ["y", "final_state"];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs)
    {
        OracleTensor<T> u = x["u"], dt = x["dt"], A = x["A"], B = x["B"], C = x["C"];
        OracleTensor<T>? D = x.Optional("D"), z = x.Optional("z"), bias = x.Optional("dt_bias"), initial = x.Optional("initial_state");
        bool hasSoftplus = attrs.Flag("softplus");
        (int nb, int nl, int nd, int ng, int nn) = (u.Shape[0], u.Shape[1], u.Shape[2], B.Shape[2], A.Shape[1]);
        Sequence[] sequences = Sequence.All(attrs, nb, nl);

        var y = new OracleTensor<T>(nb, nl, nd);
        var states = new OracleTensor<T>(sequences.Length, nd, nn);
        foreach (Sequence s in sequences)
        for (int d = 0; d < nd; d++)
        {
            int b = s.Row, g = d / (nd / ng), state = s.StateOf(initial, sequences.Length);
            var h = new T[nn];
            for (int n = 0; n < nn; n++) h[n] = state < 0 ? 0.0 : initial![state, d, n];

            for (int l = s.Start; l < s.End; l++)
            {
                T delta = bias is null ? dt[b, l, d] : dt[b, l, d] + bias[d];
                if (hasSoftplus) delta = Functions.Softplus(delta);
                T input = delta * u[b, l, d], sum = 0.0;
                for (int n = 0; n < nn; n++)
                {
                    h[n] = T.Exp(delta * A[d, n]) * h[n] + input * B[b, l, g, n];
                    sum += C[b, l, g, n] * h[n];
                }
                if (D is not null) sum += D[d] * u[b, l, d];
                y[b, l, d] = z is null ? sum : sum * Functions.Silu(z[b, l, d]);
            }
            for (int n = 0; n < nn; n++) states[s.Index, d, n] = h[n];
        }
        return States.With(new() { ["y"] = y }, states, attrs);
    }
}
