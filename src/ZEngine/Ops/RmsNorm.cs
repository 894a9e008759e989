namespace ZEngine;

/// <summary>Where the gate of a gated RMSNorm acts.</summary>
public enum GateOrder
{
    /// <summary>x is multiplied by silu(z) first, then normalised: Mamba-2 and its family.</summary>
    BeforeNorm,
    /// <summary>x is normalised first, then multiplied by silu(z).</summary>
    AfterNorm,
}

/// <summary>A factor of each row, 1 / √(mean square + ε), that a product with a weight has put off: what adds its rows to others applies it (see <see cref="Ops.AddRmsNorm"/>).</summary>
public sealed class RowScale
{
    internal RowScale(Tensor squares, long count, float epsilon) => (Squares, Count, Epsilon) = (squares, count, epsilon);

    /// <summary>[..., parts], Float32: sums of squares, which add up to that of a row.</summary>
    internal Tensor Squares { get; }

    /// <summary>How many squares a row has.</summary>
    internal long Count { get; }

    internal float Epsilon { get; }

    /// <summary>Moves it out of a scope, as <see cref="TensorScope.Keep"/> does a tensor.</summary>
    public void Keep(TensorScope scope) => scope.Keep(Squares);
}

public static partial class Ops
{
    /// <summary>Root-mean-square normalisation of each row, with a gate and groups as the state-space models use it.</summary>
    /// <param name="x">[..., D].</param>
    /// <param name="weight">[D], Float32.</param>
    /// <param name="epsilon">Added to the mean square.</param>
    /// <param name="z">[..., D], the gate, or null.</param>
    /// <param name="gateOrder">Whether the gate acts before or after the norm.</param>
    /// <param name="groupSize">Channels that are normalised together; a divisor of D, or 0 for all.</param>
    /// <returns>[..., D].</returns>
    /// <remarks>
    /// y = w ⊙ u / √(mean(u²) + ε) with u = x, or u = x ⊙ silu(z); the mean runs over the channels of a group. Zhang and Sennrich 2019,
    /// arXiv:1910.07467; gated: Dao and Gu 2024, arXiv:2405.21060, section 7.
    /// </remarks>
    public static Tensor RmsNorm(Tensor x, Tensor weight, float epsilon, Tensor? z = null, GateOrder gateOrder = GateOrder.BeforeNorm, long groupSize = 0)
    {
        var contract = new ShapeContract(nameof(RmsNorm));
        contract.Require(x, "... D");
        contract.RequireFloat32(weight, "D");
        contract.Optional(z, "... D");
        contract.Require(z is null || z.Shape.SequenceEqual(x.Shape), $"z is {(z is null ? "" : Tensor.ShapeText(z.Shape))} but x is {Tensor.ShapeText(x.Shape)}.");
        if (groupSize == 0) groupSize = contract['D'];
        contract.Require(groupSize > 0 && contract['D'] % groupSize == 0, $"groupSize {groupSize} does not divide D = {contract['D']}.");

        using TensorScope scope = TensorScope.Enter();
        var inputs = new RmsNormInputs(x.WithEvenRows(), weight.Contiguous(), z?.WithEvenRows(), epsilon, gateOrder, groupSize);
        Tensor y = Tensor.Empty(x.Shape, x.DType, x.Device);
        Tensor rstd = Tensor.Empty([x.Count / groupSize], DType.Float32, x.Device);
        x.Backend.RmsNormForward(inputs, y, rstd, null);
        return scope.Keep(Tape.IsRecording ? RecordRmsNorm(inputs, y, rstd) : y);
    }

    /// <summary>The sum of two tensors, and its root-mean-square normalisation: a residual connection with the norm that follows it.</summary>
    /// <param name="x">[..., D].</param>
    /// <param name="residual">[..., D].</param>
    /// <param name="weight">[D], Float32.</param>
    /// <param name="epsilon">Added to the mean square.</param>
    /// <param name="scale">A factor of each row of x, or null for 1.</param>
    /// <returns>The normalised sum, and the sum, [..., D].</returns>
    /// <remarks>sum = scale ⊙ x + residual, y = weight ⊙ sum / √(mean(sum²) + ε): without a scale the numbers of <see cref="Add"/> and <see cref="RmsNorm"/>.</remarks>
    public static (Tensor Y, Tensor Sum) AddRmsNorm(Tensor x, Tensor residual, Tensor weight, float epsilon, RowScale? scale = null)
    {
        var contract = new ShapeContract(nameof(AddRmsNorm));
        contract.Require(x, "... D");
        contract.Require(residual, "... D");
        contract.RequireFloat32(weight, "D");
        contract.Require(residual.Shape.SequenceEqual(x.Shape), $"residual is {Tensor.ShapeText(residual.Shape)} but x is {Tensor.ShapeText(x.Shape)}.");
        contract.OptionalFloat32(scale?.Squares, "... parts", nameof(scale));
        contract.Require(scale is null || scale.Squares.Shape[..^1].SequenceEqual(x.Shape[..^1]), $"the scale is of {(scale is null ? "" : Tensor.ShapeText(scale.Squares.Shape[..^1]))} rows but x is {Tensor.ShapeText(x.Shape)}.");

        using TensorScope scope = TensorScope.Enter();
        long rows = x.Count / Math.Max(1, contract['D']);
        var inputs = new RmsNormInputs(x.WithEvenRows(), weight.Contiguous(), null, epsilon, GateOrder.BeforeNorm, contract['D']);
        Tensor y = Tensor.Empty(x.Shape, x.DType, x.Device), sum = Tensor.Empty(x.Shape, x.DType, x.Device), rstd = Tensor.Empty([rows], DType.Float32, x.Device);
        Tensor? factor = scale is null ? null : Tensor.Empty([rows], DType.Float32, x.Device);
        x.Backend.RmsNormForward(inputs, y, rstd, new NormSum(residual.WithEvenRows(), sum, scale, factor));
        if (Tape.IsRecording) RecordAddRmsNorm(inputs, residual, scale, y, sum, rstd, factor);
        return (scope.Keep(y), scope.Keep(sum));
    }

    private static void RecordAddRmsNorm(RmsNormInputs x, Tensor residual, RowScale? scale, Tensor y, Tensor sum, Tensor rstd, Tensor? factor) => Tape.Record(
        [y, sum], [x.X, residual, x.Weight, scale?.Squares], [scale is null ? null : x.X, x.Weight, sum, rstd, factor], dOutputs =>
        {
            Tensor? dSum = dOutputs[1]?.Contiguous();
            Tensor dy = dOutputs[0]?.Contiguous() ?? Tensor.Zeros(sum.Shape, sum.DType, sum.Device);
            RmsNormInputs d = x with { X = Tensor.EmptyLike(sum), Weight = Tensor.Empty(x.Weight.Shape, DType.Float32, dy.Device) };
            // One gradient for all parts of a row's squares.
            Tensor? dAdded = scale is null ? null : Tensor.EmptyLike(sum), dSquares = scale is null ? null : Tensor.Empty([.. sum.Shape[..^1], 1], DType.Float32, dy.Device);
            dy.Backend.RmsNormBackward(x with { X = sum }, rstd, dy, d, new NormSumGradient(dSum, scale is null ? null : x.X, scale, factor, dAdded, dSquares), null, null);
            return [dAdded ?? d.X, d.X, d.Weight, dSquares?.BroadcastTo(scale!.Squares.Shape)];
        });

    private static Tensor RecordRmsNorm(RmsNormInputs x, Tensor y, Tensor rstd) => Tape.Record(y, [x.X, x.Weight, x.Z], [x.X, x.Weight, x.Z, rstd], dy =>
    {
        RmsNormInputs d = x with
        {
            X = Tensor.Empty(x.X.Shape, dy.DType, dy.Device),
            Weight = Tensor.Empty(x.Weight.Shape, DType.Float32, dy.Device),
            Z = x.Z is null ? null : Tensor.Empty(x.X.Shape, dy.DType, dy.Device),
        };
        dy.Backend.RmsNormBackward(x, rstd, dy.Contiguous(), d, null, null, null);
        return [d.X, d.Weight, d.Z];
    });
}

/// <summary>Rows of x and z may be parts of wider rows.</summary>
internal readonly record struct RmsNormInputs(Tensor X, Tensor Weight, Tensor? Z, float Epsilon, GateOrder GateOrder, long GroupSize);

/// <summary>What is added before the norm: <see cref="Sum"/> = scale ⊙ x + <see cref="Residual"/> is written and normalised; with a scale also each row's <see cref="Factor"/> [rows].</summary>
internal sealed record NormSum(Tensor Residual, Tensor Sum, RowScale? Scale, Tensor? Factor);

/// <summary>
/// The gradient that the sum has from others, or null, is added to that of the norm. With a scale, from what was added and the rows' factors: the gradient of what was added,
/// and of each square of a row [rows].
/// </summary>
internal sealed record NormSumGradient(Tensor? DSum, Tensor? Added, RowScale? Scale, Tensor? Factor, Tensor? DAdded, Tensor? DSquares);

public abstract partial class Backend
{
    /// <summary>Writes y and rstd [rows · groups], one over the root of each group's mean square; there is no gate where something is added.</summary>
    internal abstract void RmsNormForward(RmsNormInputs x, Tensor y, Tensor rstd, NormSum? sum);

    /// <summary>
    /// Overwrites <paramref name="d"/> with the gradients of <paramref name="x"/>, whose X is the sum where something was added; rows of d.Z may be parts of wider rows.
    /// With <paramref name="dGateSquares"/> [rows], y is weight ⊙ x ⊙ silu(z), and that is the gradient of each square of x ⊙ silu(z). <paramref name="sums"/> may take the last sums.
    /// </summary>
    internal abstract void RmsNormBackward(RmsNormInputs x, Tensor? rstd, Tensor dy, RmsNormInputs d, NormSumGradient? sum, Tensor? dGateSquares, PartialSums? sums);
}
