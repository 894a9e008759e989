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

    public override (Tensor Y, RowScale? Scale) Forward(Tensor x, ScanState? state, SequenceLayout? layout, bool defersScale)
    {
        Mamba2MixerOptions o = _options;
        using TensorScope scope = TensorScope.Enter();
        Tensor projected = _inProjection.Project(x, _inBias);                        // rows [z; x; B; C; dt]
        var options = new SsdScanOptions(MinDelta: o.MinDelta, MaxDelta: o.MaxDelta, Layout: layout, HasLogA: true);
        if (x.Shape[1] == 1 && layout is null && state?.InPlace is { } cache) return (scope.Keep(Step(projected, cache, options)), null);
        // A bias behind the product would be scaled too.
        Mamba2ScanResult scan = Ops.Mamba2Scan(
            projected, _logA.Effective(), _convWeight.Effective(), _norm.Effective(), new Mamba2ScanOptions(o.Groups, o.NormEpsilon, o.NormGroupSize, defersScale && _outBias is null, options),
            _convBias?.Effective(), _skip.Effective(), _dtBias.Effective(), state?.Convolution, state?.Scan);
        if (state is not null) (state.Convolution, state.Scan) = (scan.ConvState, scan.ScanState);
        if (scan.Scale is not null) scan.Scale.Keep(scope);
        return (scope.Keep(_outProjection.Project(scan.Y, _outBias)), scan.Scale);
    }

    /// <summary>A step of every sequence, on states that stay where they are.</summary>
    private Tensor Step(Tensor projected, StateCache cache, SsdScanOptions options)
    {
        Mamba2MixerOptions o = _options;
        long batch = projected.Shape[0];
        Tensor[] parts = Ops.Split(projected, o.InnerSize, o.ConvChannels, o.Heads);        // z, xBC, dt
        Tensor y = Ops.StateUpdate(
            parts[1].Reshape(batch, -1), parts[2].Reshape(batch, -1), _logA.Effective(), _convWeight.Effective().Reshape(o.ConvChannels, o.ConvKernel), cache,
            _convBias?.Effective(), _skip.Effective(), _dtBias.Effective(), options: options);
        Tensor normed = Ops.RmsNorm(y.Reshape(batch, 1, o.InnerSize), _norm.Effective(), o.NormEpsilon, parts[0], GateOrder.BeforeNorm, o.NormGroupSize);
        return _outProjection.Project(normed, _outBias);
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
