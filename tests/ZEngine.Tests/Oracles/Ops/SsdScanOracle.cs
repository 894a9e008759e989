using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// Δ = clamp(softplus(dt + dt_bias), dt_limit);  h[l] = exp(Δ·A)·h[l−1] + Δ·x·Bᵀ;  y = (h·C + D·x)·silu(z): the recurrence in time, no chunks.
/// x, z [B, L, H, P], dt [B, L, H], A [H], B, C [B, L, G, N], D [H] or [H, P], states [B, H, P, N].
/// </summary>
/// <remarks>Dao and Gu 2024, arXiv:2405.21060, equation 1 with a scalar A per head.</remarks>
internal sealed class SsdScanOracle : Oracle
{
    public override Dictionary<string, string> Letters => new()
    {
        ["x"] = "B L H P", ["dt"] = "B L H", ["A"] = "H", ["B"] = "B L G N", ["C"] = "B L G N", ["D"] = "H", ["z"] = "B L H P", ["dt_bias"] = "H",
        ["initial_state"] = "B H P N", ["y"] = "B L H P", ["final_state"] = "B H P N",
    };

    public override string[] Differentiable => ["y", "final_state"];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> inputs, JsonElement attrs)
    {
        OracleTensor<T> x = inputs["x"], dt = inputs["dt"], A = inputs["A"], B = inputs["B"], C = inputs["C"];
        OracleTensor<T>? D = inputs.Optional("D"), z = inputs.Optional("z"), bias = inputs.Optional("dt_bias"), initial = inputs.Optional("initial_state");
        (int nb, int nl, int nh, int np) = (x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]);
        (int ng, int nn) = (B.Shape[2], B.Shape[3]);
        Sequence[] sequences = Sequence.All(attrs, nb, nl);

        var y = new OracleTensor<T>(x.Shape);
        var states = new OracleTensor<T>(sequences.Length, nh, np, nn);
        foreach (Sequence s in sequences)
        for (int h = 0; h < nh; h++)
        {
            int b = s.Row, g = h / (nh / ng), start = s.StateOf(initial, sequences.Length);
            var state = new OracleTensor<T>(np, nn);
            for (int p = 0; p < np; p++)
            for (int n = 0; n < nn; n++)
                state[p, n] = start < 0 ? 0.0 : initial![start, h, p, n];

            for (int l = s.Start; l < s.End; l++)
            {
                T delta = Delta(bias is null ? dt[b, l, h] : dt[b, l, h] + bias[h], attrs);
                T decay = T.Exp(delta * A[h]);
                for (int p = 0; p < np; p++)
                {
                    T input = delta * x[b, l, h, p], sum = 0.0;
                    for (int n = 0; n < nn; n++)
                    {
                        state[p, n] = decay * state[p, n] + input * B[b, l, g, n];
                        sum += C[b, l, g, n] * state[p, n];
                    }
                    if (D is not null) sum += (D.Rank == 1 ? D[h] : D[h, p]) * x[b, l, h, p];
                    y[b, l, h, p] = z is null ? sum : sum * Functions.Silu(z[b, l, h, p]);
                }
            }
            for (int p = 0; p < np; p++)
            for (int n = 0; n < nn; n++)
                states[s.Index, h, p, n] = state[p, n];
        }
        return States.With(new() { ["y"] = y }, states, attrs);
    }

    private static T Delta<T>(T dt, JsonElement attrs) where T : struct, IReal<T>
    {
        T delta = attrs.Flag("softplus") ? Functions.Softplus(dt) : dt;
        if (attrs.Numbers("dt_limit") is not { } limit) return delta;
        if (limit[0] is { } low && delta < low) return low;
        if (limit[1] is { } high && delta > high) return high;
        return delta;
    }
}
