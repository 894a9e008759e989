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

    /// <summary>
    /// The dual form, as tensors hold it: scores C·Bᵀ, scores with their decay, Δ·x, its decay to the end, and the initial state as an operand. Sums are not rounded.
    /// </summary>
    /// <remarks>Dao and Gu 2024, arXiv:2405.21060, section 3.2 and listing 1 (its stable sum of segments).</remarks>
    public override Dictionary<string, OracleTensor<T>> Plain<T>(OracleInputs<T> inputs, JsonElement attrs)
    {
        OracleTensor<T> x = inputs["x"], dt = inputs["dt"], A = inputs["A"], B = inputs["B"], C = inputs["C"];
        OracleTensor<T>? D = inputs.Optional("D"), z = inputs.Optional("z"), bias = inputs.Optional("dt_bias"), initial = inputs.Optional("initial_state");
        (int nb, int nl, int nh, int np) = (x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]);
        (int ng, int nn) = (B.Shape[2], B.Shape[3]);
        Sequence[] sequences = Sequence.All(attrs, nb, nl);
        var y = new OracleTensor<T>(x.Shape);
        var states = new OracleTensor<T>(sequences.Length, nh, np, nn);
        foreach (Sequence s in sequences)
        {
            OracleTensor<T> scores = Scores(s, B, C);
            for (int h = 0; h < nh; h++)
            {
                int b = s.Row, g = h / (nh / ng), start = s.StateOf(initial, sequences.Length), length = s.End - s.Start;
                var exponents = new T[length];                 // Δ·A
                var weighted = new OracleTensor<T>(length, np);
                for (int i = 0; i < length; i++)
                {
                    T delta = Delta(bias is null ? dt[b, s.Start + i, h] : dt[b, s.Start + i, h] + bias[h], attrs);
                    exponents[i] = delta * A[h];
                    for (int p = 0; p < np; p++) weighted[i, p] = T.Store(delta * x[b, s.Start + i, h, p]);
                }
                for (int i = 0; i < length; i++)
                {
                    var sums = new T[np];
                    T exponent = 0.0;
                    for (int j = i; j >= 0; j--)
                    {
                        T score = T.Store(scores[g, i, j] * T.Exp(exponent));
                        for (int p = 0; p < np; p++) sums[p] += score * weighted[j, p];
                        exponent += exponents[j];
                    }
                    T decay = T.Exp(exponent);
                    for (int p = 0; p < np; p++)
                    {
                        if (start >= 0)
                        {
                            T carried = 0.0;
                            for (int n = 0; n < nn; n++) carried += C[b, s.Start + i, g, n] * T.Store(initial![start, h, p, n]);
                            sums[p] += decay * carried;
                        }
                        if (D is not null) sums[p] += (D.Rank == 1 ? D[h] : D[h, p]) * x[b, s.Start + i, h, p];
                        y[b, s.Start + i, h, p] = z is null ? sums[p] : T.Store(sums[p]) * Functions.Silu(z[b, s.Start + i, h, p]);
                    }
                }
                T toEnd = 0.0;
                for (int j = length - 1; j >= 0; j--)
                {
                    for (int p = 0; p < np; p++)
                    {
                        T decayed = T.Store(weighted[j, p] * T.Exp(toEnd));
                        for (int n = 0; n < nn; n++) states[s.Index, h, p, n] += decayed * B[b, s.Start + j, g, n];
                    }
                    toEnd += exponents[j];
                }
                for (int p = 0; p < np && start >= 0; p++)
                for (int n = 0; n < nn; n++)
                    states[s.Index, h, p, n] += T.Exp(toEnd) * initial![start, h, p, n];
            }
        }
        return States.With(new() { ["y"] = y }, states, attrs);
    }

    /// <summary>C·Bᵀ of a sequence, by group, on and below the diagonal.</summary>
    private static OracleTensor<T> Scores<T>(Sequence s, OracleTensor<T> B, OracleTensor<T> C) where T : struct, IReal<T>
    {
        int length = s.End - s.Start;
        var scores = new OracleTensor<T>(B.Shape[2], length, length);
        for (int g = 0; g < B.Shape[2]; g++)
        for (int i = 0; i < length; i++)
        for (int j = 0; j <= i; j++)
        {
            T sum = 0.0;
            for (int n = 0; n < B.Shape[3]; n++) sum += C[s.Row, s.Start + i, g, n] * B[s.Row, s.Start + j, g, n];
            scores[g, i, j] = T.Store(sum);
        }
        return scores;
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
