using System.Text.Json;

namespace ZEngine.Tests.Oracles.Ops;

/// <summary>y = f(a·b (+ bias)), with an activation f or without: a [..., I, J], b [J, O] or [..., J, O]; transpose_a and transpose_b say that the last two axes are stored swapped.</summary>
internal sealed class MatmulOracle : Oracle
{
    public override Dictionary<string, string> Letters => [];

    public override Dictionary<string, OracleTensor<T>> Run<T>(OracleInputs<T> x, JsonElement attrs) => Product(x, attrs, sum => sum);

    /// <summary>What the activation is given is a tensor of activations in a plain implementation, and kept as one by others for the gradient.</summary>
    public override Dictionary<string, OracleTensor<T>> Plain<T>(OracleInputs<T> x, JsonElement attrs) => Product(x, attrs, T.Store);

    private static Dictionary<string, OracleTensor<T>> Product<T>(OracleInputs<T> x, JsonElement attrs, Func<T, T> kept) where T : struct, IReal<T>
    {
        string? activation = attrs.Text("activation");
        OracleTensor<T> a = x["a"], b = x["b"];
        OracleTensor<T>? bias = x.Optional("bias");                            // [O]
        bool isATransposed = attrs.Flag("transpose_a"), isBTransposed = attrs.Flag("transpose_b");
        (int ni, int nj) = isATransposed ? (a.Shape[^1], a.Shape[^2]) : (a.Shape[^2], a.Shape[^1]);
        (int nk, int no) = isBTransposed ? (b.Shape[^1], b.Shape[^2]) : (b.Shape[^2], b.Shape[^1]);
        int batch = Shapes.Count(a.Shape.AsSpan()[..^2]), batchOfB = Shapes.Count(b.Shape.AsSpan()[..^2]);
        if (nk != nj || (batchOfB != 1 && batchOfB != batch)) throw new ArgumentException("Matmul shapes do not fit.");

        var y = new OracleTensor<T>([.. a.Shape[..^2], ni, no]);
        for (int n = 0; n < batch; n++)
        for (int i = 0; i < ni; i++)
        for (int o = 0; o < no; o++)
        {
            int ia = n * ni * nj, ib = batchOfB == 1 ? 0 : n * nj * no;
            T sum = 0.0;
            for (int j = 0; j < nj; j++)
                sum += a[ia + (isATransposed ? j * ni + i : i * nj + j)] * b[ib + (isBTransposed ? o * nj + j : j * no + o)];
            if (bias is not null) sum += bias[o];
            y[(n * ni + i) * no + o] = activation is null ? sum : Functions.Apply(activation, kept(sum));
        }
        return new() { ["y"] = y };
    }
}
