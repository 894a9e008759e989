namespace ZEngine;

/// <summary>A trainable tensor of a module: declared with a name and a shape first, given memory when its model is initialised or loaded.</summary>
/// <remarks>Owned by its module. Gradients are Float32 whatever the value's type, and add up until they are cleared.</remarks>
public sealed class Parameter : IDisposable
{
    private readonly long[] _shape;
    private Tensor? _value, _gradient;

    /// <summary>Declares a parameter.</summary>
    /// <param name="shape">Sizes of the axes.</param>
    /// <param name="initializer">How a fresh model fills it.</param>
    /// <param name="isMatrix">Whether it may be kept in a 16-bit type; norms, biases and state-space parameters stay Float32.</param>
    /// <param name="isDecayed">Whether weight decay applies.</param>
    /// <exception cref="ArgumentException">A negative size, or more elements than 64 bits count.</exception>
    public Parameter(ReadOnlySpan<long> shape, Initializer initializer, bool isMatrix = false, bool isDecayed = false)
    {
        (_shape, Initializer, IsMatrix, IsDecayed) = (shape.ToArray(), initializer, isMatrix, isDecayed);
        Count = Tensor.CountOf(shape, "Parameter");
    }

    /// <summary>The dotted path from the root module, for example <c>backbone.layers.0.mixer.A_log</c>.</summary>
    public string Name { get; internal set; } = "";

    /// <summary>Sizes of the axes.</summary>
    public ReadOnlySpan<long> Shape => _shape;

    /// <summary>Number of elements.</summary>
    public long Count { get; }

    /// <summary>How a fresh model fills it.</summary>
    public Initializer Initializer { get; }

    /// <summary>Whether it may be kept in a 16-bit type.</summary>
    public bool IsMatrix { get; }

    /// <summary>Whether weight decay applies.</summary>
    public bool IsDecayed { get; }

    /// <summary>Which ranks hold copies of it, and so over which its gradient is summed.</summary>
    public GradientClass GradientClass { get; init; }

    /// <summary>Whether gradients are worked out; false freezes it.</summary>
    public bool IsTrainable { get; set; } = true;

    /// <summary>A trainable change on top of the value, or null. Models apply it wherever they use the parameter.</summary>
    public LowRankUpdate? Update { get; set; }

    /// <summary>Whether it has memory.</summary>
    public bool IsMaterialized => _value is not null;

    /// <summary>The elements.</summary>
    /// <exception cref="InvalidOperationException">The module was neither initialised nor loaded.</exception>
    public Tensor Value => _value ?? throw new InvalidOperationException($"Parameter {Name} {Tensor.ShapeText(_shape)} has no value yet: initialise or load the module first.");

    /// <summary>The gradient accumulated since <see cref="ClearGradient"/>, Float32; null when there is none.</summary>
    public Tensor? Gradient => _gradient;

    /// <summary>Takes ownership of a tensor as the value.</summary>
    /// <exception cref="ArgumentException">Wrong shape, or not a floating-point type.</exception>
    public void Materialize(Tensor value)
    {
        ArgumentNullException.ThrowIfNull(value);
        if (value.IsDisposed) throw new ObjectDisposedException(nameof(value), $"Parameter {Name} {Tensor.ShapeText(_shape)}: the value, {value}, was disposed, by hand or with the scope that owned it.");
        if (!value.Shape.SequenceEqual(_shape) || !value.DType.IsFloat || !value.IsContiguous)
            throw new ArgumentException($"Parameter {Name} must be a contiguous float {Tensor.ShapeText(_shape)}, got {value}.");
        Dispose();
        TensorScope.Release(value);
        value.Parameter = this;
        _value = value;
    }

    /// <summary>Fills the value as <see cref="Initializer"/> says. The numbers depend on the seed and the name alone.</summary>
    public void Initialize(Device device, ulong seed, DType dtype = DType.Float32)
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor value = Initializer.Create(_shape, device, seed, RandomStream.Of(Name));
        Materialize(value.To(IsMatrix ? dtype : DType.Float32));
    }

    /// <summary>Adds to the gradient.</summary>
    /// <param name="gradient">Same shape; taken over without a copy when nobody else can see it.</param>
    public void Accumulate(Tensor gradient)
    {
        ArgumentNullException.ThrowIfNull(gradient);
        if (_gradient is not null) _gradient.Backend.Accumulate(gradient, _gradient);
        else
        {
            bool isOurs = gradient is { DType: DType.Float32, IsContiguous: true, GradientUses: 0, Keeper: null, Parameter: null } && !gradient.Storage.IsShared;
            Tensor own = isOurs ? gradient : gradient.DType == DType.Float32 ? gradient.Clone() : gradient.To(DType.Float32);
            _gradient = TensorScope.Release(own);
        }
    }

    /// <summary>Multiplies the gradient in place; does nothing when there is none.</summary>
    public void ScaleGradient(float factor) => _gradient?.Backend.Scale(_gradient, factor, _gradient);

    /// <summary>Hands the gradient to the caller, who disposes it; the parameter has none then.</summary>
    public Tensor? TakeGradient()
    {
        Tensor? gradient = _gradient;
        _gradient = null;
        return gradient;
    }

    /// <summary>Takes ownership of a tensor as the gradient, in the place of another; it may be a view that others see too.</summary>
    /// <exception cref="ArgumentException">Not a contiguous Float32 of the parameter's shape.</exception>
    public void SetGradient(Tensor gradient)
    {
        ArgumentNullException.ThrowIfNull(gradient);
        if (gradient.DType != DType.Float32 || !gradient.IsContiguous || !gradient.Shape.SequenceEqual(_shape))
            throw new ArgumentException($"Parameter {Name}: the gradient must be a contiguous Float32 {Tensor.ShapeText(_shape)}, got {gradient}.");
        ClearGradient();
        _gradient = TensorScope.Release(gradient);
    }

    /// <summary>Forgets the gradient.</summary>
    public void ClearGradient()
    {
        _gradient?.Dispose();
        _gradient = null;
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Name} {Tensor.ShapeText(_shape)}";

    /// <inheritdoc/>
    public void Dispose()
    {
        ClearGradient();
        _value?.Dispose();
        _value = null;
    }
}
