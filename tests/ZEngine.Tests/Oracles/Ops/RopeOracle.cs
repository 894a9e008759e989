using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// Turns pair i of the first rotary_dim channels of x [B, L, H, P] by position·theta^(−2i/rotary_dim). Style "half" pairs channel i with
/// i + rotary_dim/2, "interleaved" pairs 2i with 2i + 1. The position is l + position_offset, or positions [B, L] when given.
/// </summary>
/// <remarks>Su et al. 2021, arXiv:2104.09864, equation 34.</remarks>
internal sealed class RopeOracle : Oracle
{
    public override Dictionary<string, string> Letters => new() { ["x"] = "B L H P", ["y"] = "B L H P" };

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> inputs, JsonElement attrs)
    {
        OracleTensor<T> x = inputs["x"];
        OracleTensor<long>? positions = inputs.OptionalIntegers("positions");
        (int nb, int nl, int nh, int np) = (x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]);
        int width = attrs.Int("rotary_dim") ?? np, offset = attrs.Int("position_offset") ?? 0;
        bool isInterleaved = attrs.Text("style") switch
        {
            "half" => false,
            "interleaved" => true,
            var style => throw new ArgumentException($"No rope style '{style}'."),
        };
        double theta = attrs.Number("theta") ?? 10000;

        var y = x.Select(value => value);
        for (int b = 0; b < nb; b++)
        for (int l = 0; l < nl; l++)
        for (int i = 0; i < width / 2; i++)
        {
            T frequency = Math.Pow(theta, -2.0 * i / width);
            T angle = (T)(positions is null ? l + offset : (double)positions[b, l]) * frequency;
            T cos = T.Cos(angle), sin = T.Sin(angle);
            (int first, int second) = isInterleaved ? (2 * i, 2 * i + 1) : (i, i + width / 2);
            for (int h = 0; h < nh; h++)
            {
                T x1 = x[b, l, h, first], x2 = x[b, l, h, second];
                y[b, l, h, first] = x1 * cos - x2 * sin;
                y[b, l, h, second] = x2 * cos + x1 * sin;
            }
        }
        return new() { ["y"] = y };
    }
}
