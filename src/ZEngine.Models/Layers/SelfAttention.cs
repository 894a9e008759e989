namespace ZEngine.Models;

/// <summary>Sizes and variants of a self-attention layer.</summary>
/// <param name="HiddenSize">Channels that it reads.</param>
/// <param name="Heads">Query heads H.</param>
/// <param name="KeyValueHeads">Key and value heads G.</param>
/// <param name="HeadDimension">P.</param>
/// <param name="InitializerRange">Standard deviation of fresh matrices.</param>
/// <param name="HasBias">Whether the projections have a bias.</param>
/// <param name="Window">Tokens that a query sees, itself included; 0 for all.</param>
/// <param name="OutputScale">Factor on the standard deviation of the fresh output projection.</param>
/// <param name="OutputSize">Channels that it writes; null for as many as it reads.</param>
/// <param name="Scale">Factor on the scores; null for P^(-½).</param>
/// <param name="IsPacked">Whether q, k and v are one matrix: of each key head the rows of its query heads, of its key and of its value.</param>
internal sealed record SelfAttentionOptions(
    int HiddenSize, int Heads, int KeyValueHeads, int HeadDimension, float InitializerRange, bool HasBias = false, long Window = 0, double OutputScale = 1,
    int? OutputSize = null, float? Scale = null, bool IsPacked = false);

/// <summary>Grouped-query self-attention, with the projections and names of Llama and its relatives, or packed as Samba has them.</summary>
internal sealed class SelfAttention : Module
{
    private readonly SelfAttentionOptions _options;
    private readonly (Parameter Weight, Parameter? Bias)[] _inputs;      // q, k and v; or all of them
    private readonly (Parameter Weight, Parameter? Bias) _output;

    public SelfAttention(SelfAttentionOptions o)
    {
        _options = o;
        (long queries, long keys) = ((long)o.Heads * o.HeadDimension, (long)o.KeyValueHeads * o.HeadDimension);
        _inputs = o.IsPacked ? [Projection("attn", queries + 2 * keys, o.HiddenSize, 1)]
            : [Projection("q_proj", queries, o.HiddenSize, 1), Projection("k_proj", keys, o.HiddenSize, 1), Projection("v_proj", keys, o.HiddenSize, 1)];
        _output = Projection(o.IsPacked ? "proj" : "o_proj", o.OutputSize ?? o.HiddenSize, queries, o.OutputScale);
    }

    /// <summary>Floating-point operations of the projections per token.</summary>
    public long FlopsPerToken => 2 * (_inputs.Sum(input => input.Weight.Count) + _output.Weight.Count);

    public long CacheBytesPerToken => 2L * sizeof(float) * _options.KeyValueHeads * _options.HeadDimension;

    public KeyValueCache NewCache(Device device, DType dtype, long batch, long maxLength) => new(device, dtype, batch, maxLength, _options.KeyValueHeads, _options.HeadDimension, _options.Window);

    /// <param name="x">[B, L, D], normalised.</param>
    /// <param name="rotary">Rotation of q and k, or null.</param>
    /// <param name="cache">Keys and values so far, or null.</param>
    /// <param name="offset">Position of the first step.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    public Tensor Forward(Tensor x, RotaryEmbedding? rotary, KeyValueCache? cache, long offset, SequenceLayout? layout)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor[] parts = [.. _inputs.Select(input => input.Weight.Project(x, input.Bias))];
        if (_options.IsPacked)
        {
            long p = _options.HeadDimension;
            parts = Ops.Split(Heads(parts[0], _options.KeyValueHeads), _options.Heads / _options.KeyValueHeads * p, p, p);
        }
        Tensor q = Heads(parts[0], _options.Heads), k = Heads(parts[1], _options.KeyValueHeads), v = Heads(parts[2], _options.KeyValueHeads);
        Tensor o = KeyValueCache.Attend(cache, q, k, v, rotary, offset, new AttentionOptions(Scale: _options.Scale, Window: _options.Window, Layout: layout));
        return scope.Keep(_output.Weight.Project(o.Reshape(x.Shape[0], x.Shape[1], -1), _output.Bias));
    }

    private static Tensor Heads(Tensor x, long heads) => x.Reshape(x.Shape[0], x.Shape[1], heads, -1);

    private (Parameter Weight, Parameter? Bias) Projection(string name, long rows, long columns, double scale) => (
        Register(name + ".weight", Mamba2Mixer.Matrix(rows, columns, (float)(_options.InitializerRange * scale))),
        _options.HasBias ? Register(name + ".bias", Mamba2Mixer.Vector(rows, Initializer.Zeros)) : null);
}

/// <summary>Names of a gated MLP's matrices in files.</summary>
internal sealed record GatedMlpNames(string Gate, string Up, string Down)
{
    public static readonly GatedMlpNames Llama = new("gate_proj", "up_proj", "down_proj"), Samba = new("swiglu.w1", "swiglu.w2", "swiglu.w3");
}

/// <summary>A gated MLP: down(f(gate(x)) ⊙ up(x)).</summary>
internal sealed class GatedMlp : Module
{
    private readonly Parameter _gate, _up, _down;
    private readonly Parameter? _gateBias, _upBias, _downBias;
    private readonly Pointwise _function;

    public GatedMlp(long hidden, long intermediate, float range, Pointwise function = Pointwise.Silu, bool hasBias = false, GatedMlpNames? names = null, double outputScale = 1)
    {
        names ??= GatedMlpNames.Llama;
        _function = function;
        (_gate, _gateBias) = Projection(names.Gate, intermediate, hidden, range, hasBias);
        (_up, _upBias) = Projection(names.Up, intermediate, hidden, range, hasBias);
        (_down, _downBias) = Projection(names.Down, hidden, intermediate, (float)(range * outputScale), hasBias);
    }

    public long FlopsPerToken => 2 * MatrixCount;

    public long MatrixCount => _gate.Count + _up.Count + _down.Count;

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
