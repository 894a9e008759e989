using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>y = (x − mean(x)) / √(var(x) + eps) · weight + bias over the last axis; weight and bias may be absent.</summary>
/// <remarks>Ba, Kiros and Hinton 2016, arXiv:1607.06450, section 3; the variance divides by the count.</remarks>
internal sealed class LayerNormOracle : Oracle
{
    public override Dictionary<string, string> Letters => new() { ["x"] = "B L D", ["weight"] = "D", ["bias"] = "D", ["y"] = "B L D" };

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> inputs, JsonElement attrs)
    {
        OracleTensor<T> x = inputs["x"];
        OracleTensor<T>? weight = inputs.Optional("weight"), bias = inputs.Optional("bias");
        int nd = x.Shape[^1], rows = x.Count / nd;
        T eps = attrs.Number("eps") ?? 1e-5;

        var y = new OracleTensor<T>(x.Shape);
        for (int row = 0; row < rows; row++)
        {
            T sum = 0.0, squares = 0.0;
            for (int d = 0; d < nd; d++) sum += x[row * nd + d];
            T mean = sum / (double)nd;
            for (int d = 0; d < nd; d++)
            {
                T deviation = x[row * nd + d] - mean;
                squares += deviation * deviation;
            }
            T scale = 1.0 / T.Sqrt(squares / (double)nd + eps);
            for (int d = 0; d < nd; d++)
            {
                T value = (x[row * nd + d] - mean) * scale;
                if (weight is not null) value *= weight[d];
                if (bias is not null) value += bias[d];
                y[row * nd + d] = value;
            }
        }
        return new() { ["y"] = y };
    }
}
