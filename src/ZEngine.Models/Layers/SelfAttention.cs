namespace ZEngine.Models;

/// <summary>Sizes and variants of a self-attention layer.</summary>
internal sealed record SelfAttentionOptions(
    int HiddenSize, int Heads, int KeyValueHeads, int HeadDimension, float InitializerRange, bool HasBias = false, long Window = 0, double OutputScale = 1);

/// <summary>Grouped-query self-attention with separate projections, as Llama and its relatives name them.</summary>
internal sealed class SelfAttention : Module
{
    private readonly SelfAttentionOptions _options;
    private readonly Parameter _query, _key, _value, _output;
    private readonly Parameter? _queryBias, _keyBias, _valueBias, _outputBias;

    public SelfAttention(SelfAttentionOptions o)
    {
        _options = o;
        (long queries, long keys) = ((long)o.Heads * o.HeadDimension, (long)o.KeyValueHeads * o.HeadDimension);
        (_query, _queryBias) = Projection("q_proj", queries, o.HiddenSize, 1);
        (_key, _keyBias) = Projection("k_proj", keys, o.HiddenSize, 1);
        (_value, _valueBias) = Projection("v_proj", keys, o.HiddenSize, 1);
        (_output, _outputBias) = Projection("o_proj", o.HiddenSize, queries, o.OutputScale);
    }

    /// <summary>Floating-point operations of the projections per token.</summary>
    public long FlopsPerToken => 2 * (_query.Count + _key.Count + _value.Count + _output.Count);

    public long CacheBytesPerToken => 2L * sizeof(float) * _options.KeyValueHeads * _options.HeadDimension;

    public KeyValueCache NewCache(Device device, DType dtype, long batch, long maxLength) => new(device, dtype, batch, maxLength, _options.KeyValueHeads, _options.HeadDimension);

    /// <param name="x">[B, L, D], normalised.</param>
    /// <param name="rotary">Rotation of q and k, or null.</param>
    /// <param name="cache">Keys and values so far, or null.</param>
    /// <param name="offset">Position of the first step.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    public Tensor Forward(Tensor x, RotaryEmbedding? rotary, KeyValueCache? cache, long offset, SequenceLayout? layout)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor q = Heads(_query.Project(x, _queryBias), _options.Heads), k = Heads(_key.Project(x, _keyBias), _options.KeyValueHeads), v = Heads(_value.Project(x, _valueBias), _options.KeyValueHeads);
        Tensor o = KeyValueCache.Attend(cache, q, k, v, rotary, offset, new AttentionOptions(Window: _options.Window, Layout: layout));
        return scope.Keep(_output.Project(o.Reshape(x.Shape[0], x.Shape[1], -1), _outputBias));
    }

    private static Tensor Heads(Tensor x, long heads) => x.Reshape(x.Shape[0], x.Shape[1], heads, -1);

    private (Parameter Weight, Parameter? Bias) Projection(string name, long rows, long columns, double scale) => (
        Register(name + ".weight", Mamba2Mixer.Matrix(rows, columns, (float)(_options.InitializerRange * scale))),
        _options.HasBias ? Register(name + ".bias", Mamba2Mixer.Vector(rows, Initializer.Zeros)) : null);
}

/// <summary>A gated MLP: down(f(gate(x)) ⊙ up(x)).</summary>
internal sealed class GatedMlp : Module
{
    private readonly Parameter _gate, _up, _down;
    private readonly Parameter? _gateBias, _upBias, _downBias;
    private readonly Pointwise _function;

    public GatedMlp(long hidden, long intermediate, float range, Pointwise function = Pointwise.Silu, bool hasBias = false)
    {
        _function = function;
        (_gate, _gateBias) = Projection("gate_proj", intermediate, hidden, range, hasBias);
        (_up, _upBias) = Projection("up_proj", intermediate, hidden, range, hasBias);
        (_down, _downBias) = Projection("down_proj", hidden, intermediate, range, hasBias);
    }

    public long FlopsPerToken => 2 * (_gate.Count + _up.Count + _down.Count);

    /// <param name="x">[B, L, D], normalised.</param>
    public Tensor Forward(Tensor x)
    {
        using TensorScope scope = TensorScope.Enter();
        return scope.Keep(_down.Project(Ops.GatedActivation(_gate.Project(x, _gateBias), _up.Project(x, _upBias), _function), _downBias));
    }

    private (Parameter, Parameter?) Projection(string name, long rows, long columns, float range, bool hasBias) => (
        Register(name + ".weight", Mamba2Mixer.Matrix(rows, columns, range)),
        hasBias ? Register(name + ".bias", Mamba2Mixer.Vector(rows, Initializer.Zeros)) : null);
}
