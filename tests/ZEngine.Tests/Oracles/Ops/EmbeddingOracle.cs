using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>y [..., D] = weight [V, D] at the integer ids [...].</summary>
internal sealed class EmbeddingOracle : Oracle
{
    public override Dictionary<string, string> Letters => new() { ["weight"] = "V D", ["ids"] = "B L", ["y"] = "B L D" };

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs)
    {
        OracleTensor<T> weight = x["weight"];
        OracleTensor<long> ids = x.Integers("ids");
        int nd = weight.Shape[1];
        var y = new OracleTensor<T>([.. ids.Shape, nd]);
        for (int i = 0; i < ids.Count; i++)
        for (int d = 0; d < nd; d++)
            y[i * nd + d] = weight[(int)ids[i], d];
        return new() { ["y"] = y };
    }
}
