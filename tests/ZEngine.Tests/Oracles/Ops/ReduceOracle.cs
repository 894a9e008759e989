using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>y = sum, mean or max of x over one axis (all axes when there is no "axis"); "keep_axis" leaves a size of 1 behind.</summary>
/// <remarks>The gradient of max goes to the first of equal elements.</remarks>
internal sealed class ReduceOracle : Oracle
{
    public override Dictionary<string, string> Letters => [];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> inputs, JsonElement attrs)
    {
        OracleTensor<T> x = inputs["x"];
        string function = attrs.Text("function") ?? throw new ArgumentException("No function.");
        int? axis = attrs.Int("axis");
        int at = axis is { } given ? (given + x.Rank) % x.Rank : 0;
        int outer = axis is null ? 1 : Shapes.Count(x.Shape.AsSpan()[..at]);
        int count = axis is null ? x.Count : x.Shape[at];
        int inner = axis is null ? 1 : Shapes.Count(x.Shape.AsSpan()[(at + 1)..]);
        int[] kept = attrs.Flag("keep_axis") ? [1] : [];
        int[] shape = axis is null ? [] : [.. x.Shape[..at], .. kept, .. x.Shape[(at + 1)..]];

        var y = new OracleTensor<T>(shape);
        for (int o = 0; o < outer; o++)
        for (int i = 0; i < inner; i++)
        {
            T result = x[o * count * inner + i];
            for (int j = 1; j < count; j++)
            {
                T next = x[(o * count + j) * inner + i];
                result = function == "max" ? T.Max(result, next) : result + next;
            }
            y[o * inner + i] = function switch
            {
                "sum" or "max" => result,
                "mean" => result / (double)count,
                _ => throw new ArgumentException($"No reduction '{function}'."),
            };
        }
        return new() { ["y"] = y };
    }
}
