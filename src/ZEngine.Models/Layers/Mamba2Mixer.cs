namespace ZEngine.Models;

/// <summary>Sizes and variants of a Mamba-2 mixer.</summary>
internal sealed record Mamba2MixerOptions(
    int HiddenSize, int Heads, int HeadDimension, int StateSize, int Groups, int ConvKernel, long NormGroupSize, float NormEpsilon,
    bool HasBias, bool HasConvBias, float MinDelta, float MaxDelta, float InitializerRange, double OutputScale, double TimeStepMin, double TimeStepMax, double TimeStepFloor)
{
    /// <exception cref="ArgumentException">The sizes do not fit together.</exception>
    public void Validate(string model)
    {
        ConfigRules.Require(Groups > 0 && Heads % Groups == 0, $"{model}: {Groups} groups do not divide {Heads} heads.");
        ConfigRules.Require(ConvKernel > 0, $"{model}: the convolution's kernel must be positive, got {ConvKernel}.");
        ConfigRules.Require(MinDelta <= MaxDelta, $"{model}: the time step's limits must be the least and the largest, got {MinDelta} and {MaxDelta}.");
        ConfigRules.Require(TimeStepMin >= 0 && TimeStepMin <= TimeStepMax, $"{model}: initial time steps must be from a least to a largest, got {TimeStepMin} and {TimeStepMax}.");
    }

    public long InnerSize => (long)Heads * HeadDimension;

    public long ConvChannels => InnerSize + 2L * Groups * StateSize;
}

/// <summary>The Mamba-2 mixer: projection, causal convolution, SSD scan, gated norm, projection.</summary>
/// <remarks>Rows of in_proj are [z; x; B; C; dt]. Dao and Gu 2024, arXiv:2405.21060, section 7.</remarks>
internal sealed class Mamba2Mixer : Mixer
{
    private readonly Mamba2MixerOptions _options;
    private readonly Parameter _inProjection, _outProjection, _convWeight, _dtBias, _logA, _skip, _norm;
    private readonly Parameter? _inBias, _outBias, _convBias;

    public Mamba2Mixer(Mamba2MixerOptions o)
    {
        _options = o;
        long inner = o.InnerSize;
        _inProjection = Register("in_proj.weight", Matrix(inner + o.ConvChannels + o.Heads, o.HiddenSize, o.InitializerRange));
        _inBias = o.HasBias ? Register("in_proj.bias", Vector(inner + o.ConvChannels + o.Heads, Initializer.Zeros)) : null;
        float convRange = 1 / MathF.Sqrt(o.ConvKernel);
        _convWeight = Register("conv1d.weight", new Parameter([o.ConvChannels, 1, o.ConvKernel], Initializer.Uniform(-convRange, convRange), isDecayed: true));
        _convBias = o.HasConvBias ? Register("conv1d.bias", Vector(o.ConvChannels, Initializer.Zeros)) : null;
        _dtBias = Register("dt_bias", Vector(o.Heads, DeltaBias(o.TimeStepMin, o.TimeStepMax, o.TimeStepFloor)));
        _logA = Register("A_log", Vector(o.Heads, Initializer.FromUniform((u, _) => MathF.Log(1 + 15 * u))));
        _skip = Register("D", Vector(o.Heads, Initializer.Ones));
        _norm = Register("norm.weight", Vector(inner, Initializer.Ones));
        _outProjection = Register("out_proj.weight", Matrix(o.HiddenSize, inner, (float)(o.InitializerRange * o.OutputScale)));
        _outBias = o.HasBias ? Register("out_proj.bias", Vector(o.HiddenSize, Initializer.Zeros)) : null;
    }

    public override long FlopsPerToken => 2 * (_inProjection.Count + _outProjection.Count) + 2 * _convWeight.Count + 5 * _options.InnerSize * _options.StateSize;

    public override long StateBytes => sizeof(float) * ((_options.ConvKernel - 1) * _options.ConvChannels + _options.InnerSize * _options.StateSize);

    public override ScanState NewState(Device device, long batch) => new(
        device, [batch, _options.ConvKernel - 1, _options.ConvChannels], [batch, _options.Heads, _options.HeadDimension, _options.StateSize], _options.Groups);

    public override Tensor Forward(Tensor x, ScanState? state, SequenceLayout? layout)
    {
        Mamba2MixerOptions o = _options;
        (long batch, long length, long inner) = (x.Shape[0], x.Shape[1], o.InnerSize);
        using TensorScope scope = TensorScope.Enter();
        Tensor[] parts = Ops.Split(_inProjection.Project(x, _inBias), inner, o.ConvChannels, o.Heads);     // z, xBC, dt
        Tensor weight = _convWeight.Effective().Reshape(o.ConvChannels, o.ConvKernel), A = _logA.Effective();
        var options = new SsdScanOptions(MinDelta: o.MinDelta, MaxDelta: o.MaxDelta, Layout: layout, HasLogA: true);
        Tensor y = length == 1 && layout is null && state?.InPlace is { } cache
            ? Ops.StateUpdate(parts[1].Reshape(batch, -1), parts[2].Reshape(batch, -1), A, weight, cache, _convBias?.Effective(), _skip.Effective(), _dtBias.Effective(), options: options)
            : Scan(parts[1], parts[2], A, weight, state, options);
        Tensor normed = Ops.RmsNorm(y.Reshape(batch, length, inner), _norm.Effective(), o.NormEpsilon, parts[0], GateOrder.BeforeNorm, o.NormGroupSize);
        return scope.Keep(_outProjection.Project(normed, _outBias));
    }

    /// <summary>Convolution and scan of whole sequences.</summary>
    private Tensor Scan(Tensor channels, Tensor dt, Tensor A, Tensor weight, ScanState? state, SsdScanOptions options)
    {
        Mamba2MixerOptions o = _options;
        (long batch, long length, long groupStates) = (channels.Shape[0], channels.Shape[1], (long)o.Groups * o.StateSize);
        (Tensor xBC, Tensor convState) = Ops.CausalConv1d(channels, weight, _convBias?.Effective(), hasSilu: true, state?.Convolution, options.Layout);
        Tensor[] parts = Ops.Split(xBC, o.InnerSize, groupStates, groupStates);
        (Tensor y, Tensor scanState) = Ops.SsdScan(
            parts[0].Reshape(batch, length, o.Heads, o.HeadDimension), dt, A, parts[1].Reshape(batch, length, o.Groups, o.StateSize), parts[2].Reshape(batch, length, o.Groups, o.StateSize),
            _skip.Effective(), dtBias: _dtBias.Effective(), initialState: state?.Scan, options: options);
        if (state is not null) (state.Convolution, state.Scan) = (convState, scanState);
        return y;
    }

    internal static Parameter Matrix(long rows, long columns, float standardDeviation) =>
        new([rows, columns], Initializer.Normal(standardDeviation), isMatrix: true, isDecayed: true);

    internal static Parameter Vector(long size, Initializer initializer) => new([size], initializer);

    /// <summary>The inverse softplus of a step size that is uniform in its logarithm: Mamba's initialisation of dt.</summary>
    internal static Initializer DeltaBias(double min, double max, double floor) => Initializer.FromUniform((u, _) =>
    {
        double delta = Math.Max(floor, Math.Exp(u * (Math.Log(max) - Math.Log(min)) + Math.Log(min)));
        return (float)(delta + Math.Log(-double.ExpM1(-delta)));
    });
}
