using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>Steps of AdamW on param [N] with grads [steps, N], moments starting at 0: decoupled decay first, then the bias-corrected step.</summary>
/// <remarks>Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2, with the learning rate multiplying the decay.</remarks>
internal sealed class AdamWOracle : Oracle
{
    public override Dictionary<string, string> Letters => [];
    public override string[] Differentiable => [];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs)
    {
        OracleTensor<T> param = x["param"].Select(p => p), grads = x["grads"];
        OracleTensor<T> mean = new(param.Shape), square = new(param.Shape);
        double Attr(string name) => attrs.Number(name) ?? throw new ArgumentException($"No {name}.");
        double lr = Attr("lr"), beta1 = Attr("beta1"), beta2 = Attr("beta2"), eps = Attr("eps"), decay = Attr("weight_decay");

        for (int step = 0; step < grads.Shape[0]; step++)
        for (int i = 0; i < param.Count; i++)
        {
            T g = grads[step * param.Count + i];
            mean[i] = beta1 * mean[i] + (1 - beta1) * g;
            square[i] = beta2 * square[i] + (1 - beta2) * (g * g);
            T meanHat = mean[i] / (1 - Math.Pow(beta1, step + 1));
            T squareHat = square[i] / (1 - Math.Pow(beta2, step + 1));
            param[i] = (1 - lr * decay) * param[i] - lr * (meanHat / (T.Sqrt(squareHat) + eps));
        }
        return new() { ["param"] = param, ["exp_avg"] = mean, ["exp_avg_sq"] = square };
    }
}
