using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// y = x / √(mean(x²) + eps) · weight over the last axis, or over each group of group_size channels by itself.
/// With a gate z: x·silu(z) goes into the norm, or, with norm_before_gate, the normalised result is multiplied by silu(z).
/// </summary>
/// <remarks>Zhang and Sennrich 2019, arXiv:1910.07467, equation 4; gate as in Mamba-2, arXiv:2405.21060, section 7.</remarks>
internal sealed class RmsNormOracle : Oracle
{
    public override Dictionary<string, string> Letters => new() { ["x"] = "B L D", ["z"] = "B L D", ["weight"] = "D", ["y"] = "B L D" };

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> inputs, JsonElement attrs)
    {
        OracleTensor<T> x = inputs["x"], weight = inputs["weight"];
        OracleTensor<T>? z = attrs.Flag("gated") ? inputs["z"] : null;
        bool isGateLast = attrs.Flag("norm_before_gate");
        int nd = x.Shape[^1], width = attrs.Int("group_size") ?? nd, rows = x.Count / nd;
        T eps = attrs.Number("eps") ?? 1e-5;

        var y = new OracleTensor<T>(x.Shape);
        for (int row = 0; row < rows; row++)
        for (int start = 0; start < nd; start += width)
        {
            var u = new T[width];
            T sum = 0.0;
            for (int i = 0; i < width; i++)
            {
                int at = row * nd + start + i;
                u[i] = z is null || isGateLast ? x[at] : x[at] * Functions.Silu(z[at]);
                sum += u[i] * u[i];
            }
            T scale = 1.0 / T.Sqrt(sum / (double)width + eps);
            for (int i = 0; i < width; i++)
            {
                int at = row * nd + start + i;
                T value = u[i] * scale * weight[start + i];
                y[at] = z is null || !isGateLast ? value : value * Functions.Silu(z[at]);
            }
        }
        return new() { ["y"] = y };
    }
}
