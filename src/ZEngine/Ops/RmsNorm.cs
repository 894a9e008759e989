namespace ZEngine;

/// <summary>Where the gate of a gated RMSNorm acts.</summary>
public enum GateOrder
{
    /// <summary>x is multiplied by silu(z) first, then normalised: Mamba-2 and its family.</summary>
    BeforeNorm,
    /// <summary>x is normalised first, then multiplied by silu(z).</summary>
    AfterNorm,
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
        x.Backend.RmsNormForward(inputs, y, rstd);
        return scope.Keep(Tape.IsRecording ? RecordRmsNorm(inputs, y, rstd) : y);
    }

    private static Tensor RecordRmsNorm(RmsNormInputs x, Tensor y, Tensor rstd) => Tape.Record(y, [x.X, x.Weight, x.Z], [x.X, x.Weight, x.Z, rstd], dy =>
    {
        RmsNormInputs d = x with
        {
            X = Tensor.Empty(x.X.Shape, dy.DType, dy.Device),
            Weight = Tensor.Empty(x.Weight.Shape, DType.Float32, dy.Device),
            Z = x.Z is null ? null : Tensor.Empty(x.X.Shape, dy.DType, dy.Device),
        };
        dy.Backend.RmsNormBackward(x, rstd, dy.Contiguous(), d);
        return [d.X, d.Weight, d.Z];
    });
}

/// <summary>Rows of x and z may be parts of wider rows.</summary>
internal readonly record struct RmsNormInputs(Tensor X, Tensor Weight, Tensor? Z, float Epsilon, GateOrder GateOrder, long GroupSize);

public abstract partial class Backend
{
    /// <summary>Writes y and rstd [rows · groups], one over the root of each group's mean square.</summary>
    internal abstract void RmsNormForward(RmsNormInputs x, Tensor y, Tensor rstd);

    /// <summary>Overwrites <paramref name="d"/> with the gradients of <paramref name="x"/>.</summary>
    internal abstract void RmsNormBackward(RmsNormInputs x, Tensor rstd, Tensor dy, RmsNormInputs d);
}
