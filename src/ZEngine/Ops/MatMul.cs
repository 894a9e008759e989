namespace ZEngine;

public static partial class Ops
{
    /// <summary>Matrix product over the last two axes, or of a stack of rows with one matrix.</summary>
    /// <param name="a">[..., rows, inner]; with <paramref name="transposeA"/> [..., inner, rows].</param>
    /// <param name="b">[inner, columns], shared by all leading axes of a, or [..., inner, columns] with the leading axes of a; with <paramref name="transposeB"/> its last two axes exchanged. May be of any floating-point type.</param>
    /// <param name="transposeA">Whether a is stored transposed.</param>
    /// <param name="transposeB">Whether b is stored transposed, as the weight [out, in] of a linear layer is.</param>
    /// <param name="bias">[columns], added to every row, or null.</param>
    /// <param name="activation">What is applied to every sum before it is rounded: Silu, Gelu, GeluTanh, Relu, Relu2 or Sigmoid; or null.</param>
    /// <returns>[..., rows, columns] in the type of a.</returns>
    /// <remarks>
    /// y = f(a·b + bias) in one launch. For the gradient what the activation was given is kept, in the type of y; of Relu nothing but y is. On a GPU cuBLASLt
    /// computes what it can compute alike: a bias where y is Float32, Relu, and GeluTanh where y has 16 bits or TF32 is allowed, as its digits are
    /// documented nowhere. All else is computed by the engine's own kernels.
    /// </remarks>
    public static Tensor MatMul(Tensor a, Tensor b, bool transposeA = false, bool transposeB = false, Tensor? bias = null, Pointwise? activation = null)
    {
        var contract = new ShapeContract(nameof(MatMul));
        contract.Require(a, "...");
        contract.RequireWeight(b, "...");
        contract.OptionalFloat32(bias, "...");
        contract.Require(a.Rank >= 2 && b.Rank >= 2, $"a and b need two axes or more, got {Tensor.ShapeText(a.Shape)} and {Tensor.ShapeText(b.Shape)}.");
        // A stack of rows against one matrix is one tall product.
        bool isStack = a.Rank > 2 && b.Rank == 2 && !transposeA;
        (long rows, long inner) = transposeA ? (a.Shape[^1], a.Shape[^2]) : (a.Shape[^2], a.Shape[^1]);
        (long innerB, long columns) = transposeB ? (b.Shape[^1], b.Shape[^2]) : (b.Shape[^2], b.Shape[^1]);
        contract.Require(inner == innerB, $"inner sizes differ: a {Tensor.ShapeText(a.Shape)}{(transposeA ? " transposed" : "")} has {inner}, b {Tensor.ShapeText(b.Shape)}{(transposeB ? " transposed" : "")} has {innerB}.");
        contract.Require(isStack || a.Shape[..^2].SequenceEqual(b.Shape[..^2]), $"leading axes differ: a is {Tensor.ShapeText(a.Shape)}, b is {Tensor.ShapeText(b.Shape)}.");
        RequireActivation(contract, activation);
        contract.Require(bias is null || bias.Rank == 1 && bias.Shape[0] == columns, $"bias must be [{columns}], got {(bias is null ? "" : Tensor.ShapeText(bias.Shape))}.");

        using TensorScope scope = TensorScope.Enter();
        Span<long> shape = stackalloc long[Tensor.MaxRank];
        a.Shape.CopyTo(shape);
        (shape[a.Rank - 2], shape[a.Rank - 1]) = (rows, columns);
        Tensor y = Tensor.Empty(shape[..a.Rank], a.DType, a.Device);
        bool isTracked = Tape.Tracks(a) || Tape.Tracks(b) || bias is not null && Tape.Tracks(bias);
        // Where Relu is above 0, so was its argument.
        Tensor? kept = activation is null || !isTracked ? null : activation == Pointwise.Relu ? y : Tensor.EmptyLike(y);
        MatMulInputs inputs;
        using (Tape.NoGrad())
        {
            Tensor Rows(Tensor tensor) => isStack ? tensor.Reshape(-1, columns) : tensor;
            inputs = new MatMulInputs((isStack ? a.Reshape(-1, inner) : a).WithEvenRows(), b.WithEvenRows(), transposeA, transposeB, bias?.Contiguous())
            {
                Activation = activation, Kept = kept is null || kept == y ? null : Rows(kept),
            };
            a.Backend.MatMul(inputs, Rows(y), isAdding: false);
        }
        return scope.Keep(isTracked ? RecordMatMul(inputs, a, b, bias, y, kept) : y);
    }

    /// <summary>A linear layer: f(x·Wᵀ + bias).</summary>
    /// <param name="x">[..., in].</param>
    /// <param name="weight">[out, in].</param>
    /// <param name="bias">[out] or null.</param>
    /// <param name="activation">f, see <see cref="MatMul"/>; null for none.</param>
    public static Tensor Linear(Tensor x, Tensor weight, Tensor? bias = null, Pointwise? activation = null)
    {
        var contract = new ShapeContract(nameof(Linear));
        contract.Require(x, "... in");
        contract.RequireWeight(weight, "out in");
        contract.OptionalFloat32(bias, "out");
        RequireActivation(contract, activation);
        if (x.Rank >= 2) return MatMul(x, weight, transposeB: true, bias: bias, activation: activation);
        using TensorScope scope = TensorScope.Enter();
        return scope.Keep(MatMul(x.Reshape(1, -1), weight, transposeB: true, bias: bias, activation: activation).Reshape(-1));
    }

    private static void RequireActivation(ShapeContract contract, Pointwise? activation) => contract.Require(
        activation is null or Pointwise.Silu or Pointwise.Gelu or Pointwise.GeluTanh or Pointwise.Relu or Pointwise.Relu2 or Pointwise.Sigmoid,
        $"{activation} is not the activation of a product; Silu, Gelu, GeluTanh, Relu, Relu2 and Sigmoid are.");

    private static Tensor RecordMatMul(MatMulInputs x, Tensor a, Tensor b, Tensor? bias, Tensor y, Tensor? kept)
    {
        bool needsA = Tape.Tracks(a), needsB = Tape.Tracks(b), needsBias = bias is not null && Tape.Tracks(bias);
        bool isStack = x.A.Rank != a.Rank, isParameter = b.Parameter is not null;
        Pointwise? activation = x.Activation;
        return Tape.Record(y, [a, b, bias], [needsB ? x.A : null, needsA ? x.B : null, kept], dy =>
        {
            if (activation is { } function)
            {
                Tensor inner = Tensor.EmptyLike(kept!);
                kept!.Backend.PointwiseBackward(function, kept, dy.Contiguous(), inner);
                dy = inner;
            }
            Tensor gradient = (isStack ? dy.Reshape(-1, dy.Shape[^1]) : dy).WithEvenRows();
            return
            [
                needsA ? GradientOfA(x, gradient).Reshape(a.Shape) : null,
                needsB ? GradientOfB(x, gradient, isParameter ? DType.Float32 : dy.DType) : null,
                needsBias ? Sum(gradient.Reshape(-1, gradient.Shape[^1]), 0) : null,
            ];
        });
    }

    /// <summary>dA = dY·Bᵀ, or its transpose B·dYᵀ.</summary>
    private static Tensor GradientOfA(MatMulInputs x, Tensor dy) => x.TransposeA
        ? Multiply(new MatMulInputs(x.B.To(dy.DType), dy, x.TransposeB, true, null), dy.DType)
        : Multiply(new MatMulInputs(dy, x.B, false, !x.TransposeB, null), dy.DType);

    /// <summary>dB = Aᵀ·dY, or its transpose dYᵀ·A; of a parameter in Float32, as its gradients add up.</summary>
    private static Tensor GradientOfB(MatMulInputs x, Tensor dy, DType dtype) => x.TransposeB
        ? Multiply(new MatMulInputs(dy, x.A, true, x.TransposeA, null), dtype)
        : Multiply(new MatMulInputs(x.A, dy, !x.TransposeA, false, null), dtype);

    private static Tensor Multiply(MatMulInputs x, DType dtype)
    {
        Span<long> shape = stackalloc long[Tensor.MaxRank];
        x.A.Shape.CopyTo(shape);
        int rank = x.A.Rank;
        shape[rank - 2] = x.TransposeA ? x.A.Shape[^1] : x.A.Shape[^2];
        shape[rank - 1] = x.TransposeB ? x.B.Shape[^2] : x.B.Shape[^1];
        Tensor y = Tensor.Empty(shape[..rank], dtype, x.A.Device);
        y.Backend.MatMul(x, y, isAdding: false);
        return y;
    }

}

/// <summary>The operands of a matrix product. Rows are dense and evenly spaced over all leading axes.</summary>
internal readonly record struct MatMulInputs(Tensor A, Tensor B, bool TransposeA, bool TransposeB, Tensor? Bias)
{
    /// <summary>What is applied to every sum, or null.</summary>
    public Pointwise? Activation { get; init; }

    /// <summary>Of the shape and type of y: receives what the activation is given; or null.</summary>
    public Tensor? Kept { get; init; }
}

public abstract partial class Backend
{
    /// <summary>y = f(a·b (+ bias)), or y += a·b (+ bias), where no activation is; the leading axes of a, b and y are equal, y is contiguous and of the type of a, or Float32.</summary>
    internal abstract void MatMul(MatMulInputs x, Tensor y, bool isAdding);
}
