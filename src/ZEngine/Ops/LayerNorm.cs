namespace ZEngine;

public static partial class Ops
{
    /// <summary>Layer normalisation of each row: mean 0, variance 1, then a scale and a shift per channel.</summary>
    /// <param name="x">[..., D].</param>
    /// <param name="weight">[D], Float32, or null for ones.</param>
    /// <param name="bias">[D], Float32, or null for zeros.</param>
    /// <param name="epsilon">Added to the variance, which divides by D.</param>
    /// <returns>[..., D].</returns>
    /// <remarks>y = w ⊙ (x - mean(x)) / √(var(x) + ε) + b. Ba, Kiros and Hinton 2016, arXiv:1607.06450, section 3.</remarks>
    public static Tensor LayerNorm(Tensor x, Tensor? weight, Tensor? bias, float epsilon)
    {
        var contract = new ShapeContract(nameof(LayerNorm));
        contract.Require(x, "... D");
        contract.OptionalFloat32(weight, "D");
        contract.OptionalFloat32(bias, "D");

        using TensorScope scope = TensorScope.Enter();
        var inputs = new LayerNormInputs(x.WithEvenRows(), weight?.Contiguous(), bias?.Contiguous(), epsilon);
        long rows = x.Count / Math.Max(1, contract['D']);
        Tensor y = Tensor.Empty(x.Shape, x.DType, x.Device);
        Tensor mean = Tensor.Empty([rows], DType.Float32, x.Device), rstd = Tensor.Empty([rows], DType.Float32, x.Device);
        x.Backend.LayerNormForward(inputs, y, mean, rstd);
        return scope.Keep(Tape.IsRecording ? RecordLayerNorm(inputs, y, mean, rstd) : y);
    }

    private static Tensor RecordLayerNorm(LayerNormInputs x, Tensor y, Tensor mean, Tensor rstd) => Tape.Record(y, [x.X, x.Weight, x.Bias], [x.X, x.Weight, mean, rstd], dy =>
    {
        LayerNormInputs d = x with
        {
            X = Tensor.Empty(x.X.Shape, dy.DType, dy.Device),
            Weight = x.Weight is null ? null : Tensor.Empty(x.Weight.Shape, DType.Float32, dy.Device),
            Bias = x.Bias is null ? null : Tensor.Empty(x.Bias.Shape, DType.Float32, dy.Device),
        };
        dy.Backend.LayerNormBackward(x, mean, rstd, dy.Contiguous(), d);
        return [d.X, d.Weight, d.Bias];
    });
}

/// <summary>Rows of x may be parts of wider rows.</summary>
internal readonly record struct LayerNormInputs(Tensor X, Tensor? Weight, Tensor? Bias, float Epsilon);

public abstract partial class Backend
{
    /// <summary>Writes y, and of each row the mean and one over the root of its variance.</summary>
    internal abstract void LayerNormForward(LayerNormInputs x, Tensor y, Tensor mean, Tensor rstd);

    /// <summary>Overwrites <paramref name="d"/> with the gradients of <paramref name="x"/>.</summary>
    internal abstract void LayerNormBackward(LayerNormInputs x, Tensor mean, Tensor rstd, Tensor dy, LayerNormInputs d);
}
