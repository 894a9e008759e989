using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>y = activation(gate)·up, element by element: the middle of SwiGLU and GeGLU.</summary>
/// <remarks>Shazeer 2020, arXiv:2002.05202, equation 6.</remarks>
internal sealed class GatedActivationOracle : Oracle
{
    public override Dictionary<string, string> Letters => [];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs)
    {
        OracleTensor<T> gate = x["gate"], up = x["up"];
        string activation = attrs.Text("activation") ?? throw new ArgumentException("No activation.");
        var y = new OracleTensor<T>(gate.Shape);
        for (int i = 0; i < y.Count; i++) y[i] = Functions.Apply(activation, gate[i]) * up[i];
        return new() { ["y"] = y };
    }
}
