namespace ZEngine.Models;

/// <summary>Sizes and variants of a Mamba mixer.</summary>
internal sealed record MambaMixerOptions(
    int HiddenSize, long InnerSize, int StateSize, int ConvKernel, int TimeStepRank, bool HasBias, bool HasConvBias, float InitializerRange, double OutputScale,
    double TimeStepMin, double TimeStepMax, double TimeStepFloor, double TimeStepScale, float? ProjectionNormEpsilon = null);

/// <summary>The Mamba mixer: projection, causal convolution, input-dependent Δ, B and C, selective scan with a gate, projection.</summary>
/// <remarks>Rows of in_proj are [x; z], those of x_proj [dt; B; C]. Gu and Dao 2023, arXiv:2312.00752, section 3.</remarks>
internal sealed class MambaMixer : Mixer
{
    private readonly MambaMixerOptions _options;
    private readonly Parameter _inProjection, _outProjection, _convWeight, _xProjection, _dtProjection, _dtBias, _logA, _skip;
    private readonly Parameter? _inBias, _outBias, _convBias;

    public MambaMixer(MambaMixerOptions o)
    {
        _options = o;
        long inner = o.InnerSize;
        _inProjection = Register("in_proj.weight", Mamba2Mixer.Matrix(2 * inner, o.HiddenSize, o.InitializerRange));
        _inBias = o.HasBias ? Register("in_proj.bias", Mamba2Mixer.Vector(2 * inner, Initializer.Zeros)) : null;
        float convRange = 1 / MathF.Sqrt(o.ConvKernel), stepRange = (float)(Math.Pow(o.TimeStepRank, -0.5) * o.TimeStepScale);
        _convWeight = Register("conv1d.weight", new Parameter([inner, 1, o.ConvKernel], Initializer.Uniform(-convRange, convRange), isDecayed: true));
        _convBias = o.HasConvBias ? Register("conv1d.bias", Mamba2Mixer.Vector(inner, Initializer.Zeros)) : null;
        _xProjection = Register("x_proj.weight", Mamba2Mixer.Matrix(o.TimeStepRank + 2L * o.StateSize, inner, o.InitializerRange));
        _dtProjection = Register("dt_proj.weight", new Parameter([inner, o.TimeStepRank], Initializer.Uniform(-stepRange, stepRange), isMatrix: true, isDecayed: true));
        _dtBias = Register("dt_proj.bias", Mamba2Mixer.Vector(inner, Mamba2Mixer.DeltaBias(o.TimeStepMin, o.TimeStepMax, o.TimeStepFloor)));
        _logA = Register("A_log", new Parameter([inner, o.StateSize], Initializer.FromUniform((_, i) => MathF.Log(1 + i % o.StateSize))));
        _skip = Register("D", Mamba2Mixer.Vector(inner, Initializer.Ones));
        _outProjection = Register("out_proj.weight", Mamba2Mixer.Matrix(o.HiddenSize, inner, (float)(o.InitializerRange * o.OutputScale)));
        _outBias = o.HasBias ? Register("out_proj.bias", Mamba2Mixer.Vector(o.HiddenSize, Initializer.Zeros)) : null;
    }

    public override long FlopsPerToken => 2 * (_inProjection.Count + _xProjection.Count + _dtProjection.Count + _outProjection.Count + _convWeight.Count) + 6 * _options.InnerSize * _options.StateSize;

    public override long StateBytes => sizeof(float) * _options.InnerSize * (_options.ConvKernel - 1 + _options.StateSize);

    public override ScanState NewState(Device device, long batch) => new(
        device, [batch, _options.ConvKernel - 1, _options.InnerSize], [batch, _options.InnerSize, _options.StateSize]);

    public override Tensor Forward(Tensor x, ScanState? state, SequenceLayout? layout)
    {
        MambaMixerOptions o = _options;
        (long batch, long length, long inner) = (x.Shape[0], x.Shape[1], o.InnerSize);
        using TensorScope scope = TensorScope.Enter();
        Tensor[] xz = Ops.Split(_inProjection.Project(x, _inBias), inner, inner);
        (Tensor u, Tensor convState) = Ops.CausalConv1d(
            xz[0], _convWeight.Effective().Reshape(inner, o.ConvKernel), _convBias?.Effective(), hasSilu: true, state?.Convolution, layout);
        Tensor[] parts = Ops.Split(_xProjection.Project(u), o.TimeStepRank, o.StateSize, o.StateSize);        // dt, B, C
        if (o.ProjectionNormEpsilon is { } epsilon)
            for (int i = 0; i < parts.Length; i++) parts[i] = PlainNorm(parts[i], epsilon);
        (Tensor y, Tensor scanState) = Ops.SelectiveScan(
            u, _dtProjection.Project(parts[0]), _logA.Effective(),
            parts[1].Reshape(batch, length, 1, o.StateSize), parts[2].Reshape(batch, length, 1, o.StateSize),
            _skip.Effective(), xz[1], _dtBias.Effective(), state?.Scan, hasSoftplus: true, layout, isLogarithm: true);
        if (state is not null) (state.Convolution, state.Scan) = (convState, scanState);
        return scope.Keep(_outProjection.Project(y, _outBias));
    }

    /// <summary>RMSNorm without a learned weight: Falcon-Mamba's, on dt, B and C.</summary>
    private static Tensor PlainNorm(Tensor x, float epsilon)
    {
        Tensor ones = Tensor.Empty([x.Shape[^1]], DType.Float32, x.Device);
        Ops.Fill(ones, 1);
        return Ops.RmsNorm(x, ones, epsilon);
    }
}
