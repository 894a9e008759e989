namespace ZEngine.Models;

/// <summary>Sizes and variants of a Mamba mixer.</summary>
/// <param name="HiddenSize">D, channels that it reads and writes.</param>
/// <param name="InnerSize">Channels of the scan.</param>
/// <param name="StateSize">N.</param>
/// <param name="ConvKernel">K.</param>
/// <param name="TimeStepRank">R.</param>
/// <param name="HasBias">Whether the outer projections have a bias.</param>
/// <param name="HasConvBias">Whether the convolution has a bias.</param>
/// <param name="InitializerRange">Standard deviation of fresh matrices.</param>
/// <param name="OutputScale">Factor on that of the output projection.</param>
/// <param name="TimeStepMin">Least initial Δ.</param>
/// <param name="TimeStepMax">Largest initial Δ.</param>
/// <param name="TimeStepFloor">Floor of the initial Δ.</param>
/// <param name="TimeStepScale">Factor on the range of the fresh projection of Δ.</param>
/// <param name="ProjectionNormEpsilon">ε of the weightless norms on dt, B and C: Falcon-Mamba's; null for none.</param>
/// <param name="Heads">Zamba's Mamba heads: equal slices of the channels with projections of their own to dt, B and C, and rows of in_proj that alternate between x and z; 0 for the plain mixer.</param>
internal sealed record MambaMixerOptions(
    int HiddenSize, long InnerSize, int StateSize, int ConvKernel, int TimeStepRank, bool HasBias, bool HasConvBias, float InitializerRange, double OutputScale,
    double TimeStepMin, double TimeStepMax, double TimeStepFloor, double TimeStepScale, float? ProjectionNormEpsilon = null, int Heads = 0);

/// <summary>The Mamba mixer: projection, causal convolution, input-dependent Δ, B and C, selective scan with a gate, projection.</summary>
/// <remarks>Rows of in_proj are [x; z], of a mixer with heads x and z of every channel in turn; those of x_proj are [dt; B; C]. Gu and Dao 2023, arXiv:2312.00752, section 3.</remarks>
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
        bool hasHeads = o.Heads > 0;
        long[] Shape(params ReadOnlySpan<long> shape) => hasHeads ? [o.Heads, .. shape] : shape.ToArray();
        long own = hasHeads ? inner / o.Heads : inner;
        _xProjection = Register(hasHeads ? "x_proj_weight" : "x_proj.weight", new Parameter(Shape(o.TimeStepRank + 2L * o.StateSize, own), Initializer.Normal(o.InitializerRange), isMatrix: true, isDecayed: true));
        _dtProjection = Register(hasHeads ? "dt_proj_weight" : "dt_proj.weight", new Parameter(Shape(own, o.TimeStepRank), Initializer.Uniform(-stepRange, stepRange), isMatrix: true, isDecayed: true));
        _dtBias = Register(hasHeads ? "dt_proj_bias" : "dt_proj.bias", new Parameter(Shape(own), Mamba2Mixer.DeltaBias(o.TimeStepMin, o.TimeStepMax, o.TimeStepFloor)));
        _logA = Register("A_log", new Parameter(Shape(own, o.StateSize), Initializer.FromUniform((_, i) => MathF.Log(1 + i % o.StateSize))));
        _skip = Register("D", new Parameter(Shape(own), Initializer.Ones));
        _outProjection = Register("out_proj.weight", Mamba2Mixer.Matrix(o.HiddenSize, inner, (float)(o.InitializerRange * o.OutputScale)));
        _outBias = o.HasBias ? Register("out_proj.bias", Mamba2Mixer.Vector(o.HiddenSize, Initializer.Zeros)) : null;
    }

    public override long FlopsPerToken => 2 * (_inProjection.Count + _xProjection.Count + _dtProjection.Count + _outProjection.Count + _convWeight.Count) + 6 * _options.InnerSize * _options.StateSize;

    public override long StateBytes => sizeof(float) * _options.InnerSize * (_options.ConvKernel - 1 + _options.StateSize);

    public override ScanState NewState(Device device, long batch) => new(
        device, [batch, _options.ConvKernel - 1, _options.InnerSize], [batch, _options.InnerSize, _options.StateSize]);

    public override (Tensor Y, RowScale? Scale) Forward(Tensor x, ScanState? state, SequenceLayout? layout, bool defersScale)
    {
        MambaMixerOptions o = _options;
        (long batch, long length, long inner) = (x.Shape[0], x.Shape[1], o.InnerSize);
        using TensorScope scope = TensorScope.Enter();
        Tensor both = _inProjection.Project(x, _inBias);
        if (o.Heads > 0) both = both.Reshape(batch, length, inner, 2).Transpose(2, 3).Reshape(batch, length, 2 * inner);
        Tensor[] xz = Ops.Split(both, inner, inner);
        if (length == 1 && layout is null && state?.SelectiveInPlace is { } cache && _xProjection.Update is null && _dtProjection.Update is null)
            return (scope.Keep(_outProjection.Project(Step(xz[0].Reshape(batch, inner), xz[1].Reshape(batch, inner), cache).Reshape(batch, 1, inner), _outBias)), null);
        (Tensor u, Tensor convState) = Ops.CausalConv1d(
            xz[0], _convWeight.Effective().Reshape(inner, o.ConvKernel), _convBias?.Effective(), hasSilu: true, state?.Convolution, layout);
        (Tensor dt, Tensor B, Tensor C) = o.Heads > 0 ? ProjectHeads(u) : Project(u);
        (Tensor y, Tensor scanState) = Ops.SelectiveScan(
            u, dt, _logA.Effective().Reshape(inner, o.StateSize), B, C,
            _skip.Effective().Reshape(inner), xz[1], _dtBias.Effective().Reshape(inner), state?.Scan, hasSoftplus: true, layout, hasLogA: true);
        if (state is not null) (state.Convolution, state.Scan) = (convState, scanState);
        return (scope.Keep(_outProjection.Project(y, _outBias)), null);
    }

    /// <summary>One step of every sequence, in place.</summary>
    private Tensor Step(Tensor x, Tensor z, SelectiveStateCache cache)
    {
        MambaMixerOptions o = _options;
        (long inner, long groups) = (o.InnerSize, Math.Max(1, o.Heads));
        var layer = new SelectiveStateLayer(
            _convWeight.Effective().Reshape(inner, o.ConvKernel), _convBias?.Effective(), _xProjection.Value.Reshape(groups, o.TimeStepRank + 2L * o.StateSize, inner / groups),
            _dtProjection.Value.Reshape(inner, o.TimeStepRank), _logA.Effective().Reshape(inner, o.StateSize), _skip.Effective().Reshape(inner), _dtBias.Effective().Reshape(inner), o.ProjectionNormEpsilon);
        return Ops.SelectiveStateUpdate(x, layer, cache, z);
    }

    /// <summary>dt [B, L, D], and B and C [B, L, 1, N].</summary>
    private (Tensor Dt, Tensor B, Tensor C) Project(Tensor u)
    {
        MambaMixerOptions o = _options;
        Tensor[] parts = Ops.Split(_xProjection.Project(u), o.TimeStepRank, o.StateSize, o.StateSize);
        if (o.ProjectionNormEpsilon is { } epsilon)
            for (int i = 0; i < parts.Length; i++) parts[i] = PlainNorm(parts[i], epsilon);
        return (_dtProjection.Project(parts[0]), parts[1].Reshape(u.Shape[0], u.Shape[1], 1, o.StateSize), parts[2].Reshape(u.Shape[0], u.Shape[1], 1, o.StateSize));
    }

    /// <summary>As <see cref="Project"/>, each head from its own channels; B and C are [B, L, heads, N].</summary>
    private (Tensor Dt, Tensor B, Tensor C) ProjectHeads(Tensor u)
    {
        MambaMixerOptions o = _options;
        Tensor[] channels = Ops.Split(u, [.. Enumerable.Repeat(o.InnerSize / o.Heads, o.Heads)]);
        Tensor[] dt = new Tensor[o.Heads], B = new Tensor[o.Heads], C = new Tensor[o.Heads];
        Tensor xWeight = _xProjection.Effective(), dtWeight = _dtProjection.Effective();
        for (int h = 0; h < o.Heads; h++)
        {
            Tensor[] parts = Ops.Split(Ops.Linear(channels[h], xWeight.Select(0, h)), o.TimeStepRank, o.StateSize, o.StateSize);
            (dt[h], B[h], C[h]) = (Ops.Linear(parts[0], dtWeight.Select(0, h)), parts[1].Reshape(u.Shape[0], u.Shape[1], 1, o.StateSize), parts[2].Reshape(u.Shape[0], u.Shape[1], 1, o.StateSize));
        }
        return (Ops.Concat(-1, dt), Ops.Concat(2, B), Ops.Concat(2, C));
    }

    /// <summary>RMSNorm without a learned weight: Falcon-Mamba's, on dt, B and C.</summary>
    private static Tensor PlainNorm(Tensor x, float epsilon)
    {
        Tensor ones = Tensor.Empty([x.Shape[^1]], DType.Float32, x.Device);
        Ops.Fill(ones, 1);
        return Ops.RmsNorm(x, ones, epsilon);
    }
}
