namespace ZEngine;

/// <summary>Hyper-parameters of AdamW.</summary>
/// <param name="Beta1">Decay of the first moment.</param>
/// <param name="Beta2">Decay of the second moment.</param>
/// <param name="Epsilon">Added to the root of the second moment.</param>
/// <param name="WeightDecay">Decoupled decay, times the learning rate, for the parameters that are decayed.</param>
public readonly record struct AdamWOptions(double Beta1 = 0.9, double Beta2 = 0.95, double Epsilon = 1e-8, double WeightDecay = 0.1)
{
    /// <summary>The defaults.</summary>
    public AdamWOptions() : this(0.9) { }
}

/// <summary>One parameter's tensors for a step of AdamW; all contiguous, and Float32 but for <paramref name="Value"/>, which may be of any floating-point type.</summary>
/// <param name="Value">The parameter.</param>
/// <param name="Master">Its Float32 master copy, or null when the value is Float32 itself.</param>
/// <param name="Gradient">Its gradient.</param>
/// <param name="FirstMoment">Running mean of the gradient.</param>
/// <param name="SecondMoment">Running mean of its square.</param>
/// <param name="IsDecayed">Whether weight decay applies.</param>
public readonly record struct AdamWSlot(Tensor Value, Tensor? Master, Tensor Gradient, Tensor FirstMoment, Tensor SecondMoment, bool IsDecayed);

public static partial class Ops
{
    /// <summary>One step of Adam with decoupled weight decay over all parameters.</summary>
    /// <param name="slots">The parameters' tensors, updated in place.</param>
    /// <param name="options">Hyper-parameters.</param>
    /// <param name="learningRate">Of this step.</param>
    /// <param name="step">[1] Int64: steps taken so far, incremented by a step that is taken.</param>
    /// <param name="gradientNorm">[] Float32: norm of all gradients; a step whose norm is not finite changes nothing at all. Null: no check.</param>
    /// <param name="maxNorm">Gradients are scaled down to this norm where theirs is larger; 0 for no limit. Needs <paramref name="gradientNorm"/>.</param>
    /// <remarks>
    /// m ← β₁m + (1 - β₁)g, v ← β₂v + (1 - β₂)g², p ← p - η·λ·p - η·(m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + ε).
    /// Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101.
    /// </remarks>
    public static void AdamW(IReadOnlyList<AdamWSlot> slots, AdamWOptions options, float learningRate, Tensor step, Tensor? gradientNorm = null, float maxNorm = 0) =>
        AdamW(slots, options, new LearningRate(learningRate, null), step, gradientNorm, maxNorm);

    /// <summary>As above with a learning rate that is read where and when the step is computed: a captured step follows a schedule that is written there before each replay.</summary>
    /// <param name="slots">The parameters' tensors, updated in place.</param>
    /// <param name="options">Hyper-parameters.</param>
    /// <param name="learningRate">[] or [1] Float32.</param>
    /// <param name="step">[1] Int64: steps taken so far, incremented by a step that is taken.</param>
    /// <param name="gradientNorm">[] Float32: norm of all gradients. Null: no check.</param>
    /// <param name="maxNorm">Gradients are scaled down to this norm where theirs is larger; 0 for no limit.</param>
    public static void AdamW(IReadOnlyList<AdamWSlot> slots, AdamWOptions options, Tensor learningRate, Tensor step, Tensor? gradientNorm = null, float maxNorm = 0)
    {
        new ShapeContract(nameof(AdamW)).RequireAny(learningRate);
        AdamW(slots, options, new LearningRate(0, learningRate), step, gradientNorm, maxNorm);
    }

    private static void AdamW(IReadOnlyList<AdamWSlot> slots, AdamWOptions options, LearningRate learningRate, Tensor step, Tensor? gradientNorm, float maxNorm)
    {
        ArgumentNullException.ThrowIfNull(slots);
        var contract = new ShapeContract(nameof(AdamW));
        contract.RequireAny(step);
        contract.Require(step.DType == DType.Int64 && step.Count == 1, $"step must be one Int64, got {step}.");
        contract.Require(maxNorm == 0 || gradientNorm is not null, "maxNorm needs gradientNorm.");
        contract.OptionalFloat32(gradientNorm, "");
        contract.OptionalFloat32(learningRate.Tensor, "...", nameof(learningRate));
        contract.Require(learningRate.Tensor is null or { Count: 1, Rank: <= 1 }, $"learningRate must be one Float32, got {learningRate.Tensor}.");
        foreach (AdamWSlot slot in slots)
        {
            contract.RequireWeight(slot.Value, "...");
            contract.RequireFloat32(slot.Gradient, "...");
            contract.RequireFloat32(slot.FirstMoment, "...");
            contract.RequireFloat32(slot.SecondMoment, "...");
            contract.OptionalFloat32(slot.Master, "...");
            contract.Require(slot.Value.IsContiguous, $"slot.Value {slot.Value} is not contiguous.");
            contract.Require(slot.Master is not null || slot.Value.DType == DType.Float32, $"a value of type {slot.Value.DType} needs a Float32 master copy.");
            foreach (Tensor? tensor in (ReadOnlySpan<Tensor?>)[slot.Gradient, slot.FirstMoment, slot.SecondMoment, slot.Master])
                contract.Require(tensor is null || tensor.Shape.SequenceEqual(slot.Value.Shape) && tensor.IsContiguous, $"slot.Value is {slot.Value}, but the master copy, the gradient or a moment of it is {tensor}{(tensor!.IsContiguous ? "" : ", not contiguous")}.");
        }
        step.Backend.AdamW(slots, options, learningRate, step, gradientNorm, maxNorm);
    }

    /// <summary>The Euclidean norm over all elements of several Float32 tensors, shape []; infinite or NaN where an element is, or where one is beyond 1.8e19.</summary>
    /// <remarks>Squares are summed in double in an order that depends on the shapes alone.</remarks>
    public static Tensor Norm(IReadOnlyList<Tensor> tensors)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        var contract = new ShapeContract(nameof(Norm));
        contract.Require(tensors.Count > 0, "needs at least one tensor.");
        foreach (Tensor tensor in tensors)
        {
            contract.RequireFloat32(tensor, "...");
            contract.Require(tensor.IsContiguous, $"{tensor} is not contiguous.");
        }
        Tensor norm = Tensor.Empty([], DType.Float32, tensors[0].Device);
        norm.Backend.Norm(tensors, norm);
        return norm;
    }
}

/// <summary>A learning rate: a number, or one Float32 that the backend reads.</summary>
internal readonly record struct LearningRate(float Number, Tensor? Tensor);

public abstract partial class Backend
{
    /// <summary>Updates all slots and increments step, or does nothing where the norm is not finite.</summary>
    internal abstract void AdamW(IReadOnlyList<AdamWSlot> slots, AdamWOptions options, LearningRate learningRate, Tensor step, Tensor? gradientNorm, float maxNorm);

    /// <summary>norm = √Σ x² over all tensors.</summary>
    internal abstract void Norm(IReadOnlyList<Tensor> tensors, Tensor norm);
}
