using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>
/// y[l, d] = act(bias[d] + Σ_k weight[d, k]·x[l − K + 1 + k, d]); before the sequence lies initial_state (its last K − 1 inputs) or zeros.
/// final_state holds the last K − 1 inputs, those of initial_state included when the sequence is shorter.
/// </summary>
internal sealed class CausalConv1dOracle : Oracle
{
    public override Dictionary<string, string> Letters => new()
    {
        ["x"] = "B L D", ["weight"] = "D K", ["bias"] = "D", ["initial_state"] = "B K D", ["y"] = "B L D", ["final_state"] = "B K D",
    };

    public override string[] Differentiable => ["y", "final_state"];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> inputs, JsonElement attrs)
    {
        OracleTensor<T> x = inputs["x"], weight = inputs["weight"];
        OracleTensor<T>? bias = inputs.Optional("bias"), initial = inputs.Optional("initial_state");
        string? activation = attrs.Text("activation");
        (int nb, int nl, int nd, int nk) = (x.Shape[0], x.Shape[1], x.Shape[2], weight.Shape[1]);
        Sequence[] sequences = Sequence.All(attrs, nb, nl);

        var y = new OracleTensor<T>(nb, nl, nd);
        var states = new OracleTensor<T>(sequences.Length, nk - 1, nd);
        foreach (Sequence s in sequences)
        for (int d = 0; d < nd; d++)
        {
            int state = s.StateOf(initial, sequences.Length);
            T Input(int l) => l >= 0 ? x[s.Row, s.Start + l, d] : state < 0 ? 0.0 : initial![state, nk - 1 + l, d];

            for (int l = 0; l < s.Length; l++)
            {
                T sum = bias is null ? 0.0 : bias[d];
                for (int k = 0; k < nk; k++) sum += weight[d, k] * Input(l - nk + 1 + k);
                y[s.Row, s.Start + l, d] = activation is null ? sum : Functions.Apply(activation, sum);
            }
            for (int k = 0; k < nk - 1; k++) states[s.Index, k, d] = Input(s.Length - nk + 1 + k);
        }
        return States.With(new() { ["y"] = y }, states, attrs);
    }
}
