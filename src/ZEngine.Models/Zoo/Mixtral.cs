using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Mixtral"/>, as in Hugging Face's <c>MixtralConfig</c>.</summary>
public sealed record MixtralConfig : TransformerConfig
{
    private const double DefaultEpsilon = 1e-5, DefaultTheta = 1e6;

    /// <summary>A configuration of one's own.</summary>
    public MixtralConfig() => (NormEpsilon, Rotary) = (DefaultEpsilon, new RotaryOptions { Theta = DefaultTheta });

    [SetsRequiredMembers]
    private MixtralConfig(ModelConfigFile file) : base(file, 14336, 8, DefaultEpsilon, DefaultTheta)
    {
        if (file.Float("router_jitter_noise", 0.0) != 0) throw file.Error("router_jitter_noise", "must be 0");
        // Whether the logits of the routers are handed out is the caller's affair; their loss is part of training here always.
        ConfigRules.Ignore(file, "attention_dropout", "max_position_embeddings", "output_router_logits");
        Experts = file.Int("num_local_experts", 8, max: ConfigRules.MaxLayers);
        ExpertsPerToken = file.Int("num_experts_per_tok", 2, max: ConfigRules.MaxLayers);
        AuxiliaryLossWeight = file.Float("router_aux_loss_coef", 0.001);
        SlidingWindow = file.IntOrNull("sliding_window") ?? 0;
    }

    /// <summary>E.</summary>
    public int Experts { get; init; } = 8;
    /// <summary>Experts that each token passes through.</summary>
    public int ExpertsPerToken { get; init; } = 2;
    /// <summary>Weight of the load-balancing loss in training.</summary>
    public double AuxiliaryLossWeight { get; init; } = 0.001;

    /// <summary>Reads a <c>config.json</c>.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static MixtralConfig Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return new MixtralConfig(file);
    }

    /// <summary>The configuration as a file: the one it was read from, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    internal void Validate()
    {
        Validate(nameof(Mixtral));
        ConfigRules.Require(ExpertsPerToken <= Experts, $"Mixtral: a token cannot pass through {ExpertsPerToken} of {Experts} experts.");
    }

    private ModelConfigFile NewFile()
    {
        Dictionary<string, object?> values = ToValues("MixtralForCausalLM", "mixtral");
        (values["num_local_experts"], values["num_experts_per_tok"]) = (Experts, ExpertsPerToken);
        (values["router_aux_loss_coef"], values["router_jitter_noise"]) = (AuxiliaryLossWeight, 0.0);
        return ModelConfigFile.Create(values);
    }
}

/// <summary>Mixtral: a transformer whose MLPs are mixtures of experts; no token is dropped.</summary>
/// <remarks>
/// h += Attention(RMS(h)); h += Σ_e w_e·MLP_e(RMS(h)) over a token's best experts, weights renormalised to sum 1. The load-balancing loss takes
/// the router logits of all layers as one long list of tokens. Jiang et al. 2024, arXiv:2401.04088, section 2.1.
/// </remarks>
public sealed class Mixtral : LanguageModel
{
    private readonly MixtralConfig _config;
    private readonly Parameter _embedding, _finalNorm;
    private readonly Parameter? _head;
    private readonly Layer[] _layers;
    private RotaryEmbedding? _rotary;

    /// <summary>Declares the structure, without memory.</summary>
    public Mixtral(MixtralConfig config) : base(ConfigRules.NotNull(config).ToFile())
    {
        _config = config;
        config.Validate();
        (long hidden, long inner, long experts, float range) = (config.HiddenSize, config.IntermediateSize, config.Experts, (float)config.InitializerRange);
        var attention = new SelfAttentionOptions(config.HiddenSize, config.Heads, config.KeyValueHeads, config.HeadDimension, range, Window: config.SlidingWindow);
        _embedding = Register("model.embed_tokens.weight", Mamba2Mixer.Matrix(config.VocabularySize, hidden, range));
        _layers = new Layer[config.Layers];
        for (int i = 0; i < config.Layers; i++)
        {
            string name = $"model.layers.{i}";
            _layers[i] = new Layer(
                Register(name + ".input_layernorm.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones)),
                Register(name + ".self_attn", new SelfAttention(attention)),
                Register(name + ".post_attention_layernorm.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones)),
                Register(name + ".mlp.gate.weight", Mamba2Mixer.Matrix(experts, hidden, range)),
                Register(name + ".mlp.experts.gate_up_proj", new Parameter([experts, 2 * inner, hidden], Initializer.Normal(range), isMatrix: true, isDecayed: true) { GradientClass = GradientClass.Expert }),
                Register(name + ".mlp.experts.down_proj", new Parameter([experts, hidden, inner], Initializer.Normal(range), isMatrix: true, isDecayed: true) { GradientClass = GradientClass.Expert }));
        }
        _finalNorm = Register("model.norm.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones));
        if (!config.IsTied) _head = Register("lm_head.weight", Mamba2Mixer.Matrix(config.VocabularySize, hidden, range));
    }

    /// <summary>Makes a fresh model.</summary>
    public Mixtral(MixtralConfig config, Device device, ulong seed, DType dtype = DType.Float32) : this(config) => Initialize(device, seed, dtype);

    /// <inheritdoc/>
    public override int VocabularySize => _config.VocabularySize;

    /// <inheritdoc/>
    public override IReadOnlyList<ModelPart> Parts =>
    [
        new("embedding", 1, _embedding.Count, 0),
        new("attention", _layers.Length, _layers.Sum(layer => layer.Attention.ParameterCount + layer.InputNorm.Count), _layers.Sum(layer => layer.Attention.FlopsPerToken),
            CacheBytesPerToken: _layers.Sum(layer => layer.Attention.CacheBytesPerToken)),
        new("experts", _layers.Length * _config.Experts, _layers.Sum(layer => layer.GateUp.Count + layer.Down.Count),
            2 * _layers.Sum(layer => (layer.GateUp.Count + layer.Down.Count) / _config.Experts * _config.ExpertsPerToken)),
        new("router", _layers.Length, _layers.Sum(layer => layer.Router.Count + layer.MlpNorm.Count), 2 * _layers.Sum(layer => layer.Router.Count)),
        new(_head is null ? "head (tied)" : "head", 1, (_head?.Count ?? 0) + _finalNorm.Count, 2 * _embedding.Count),
    ];

    /// <inheritdoc/>
    protected override Parameter HeadWeight => _head ?? _embedding;

    /// <summary>Files hold the router under another name, and each expert's gate, up and down as w1, w3 and w2.</summary>
    protected override IEnumerable<StoredPart> StoredParts
    {
        get
        {
            long inner = _config.IntermediateSize, hidden = _config.HiddenSize;
            for (int i = 0; i < _layers.Length; i++)
            {
                Layer layer = _layers[i];
                string name = $"model.layers.{i}.block_sparse_moe";
                yield return new StoredPart(name + ".gate.weight", layer.Router, layer.Router.Shape.ToArray(), value => value);
                for (int e = 0; e < _config.Experts; e++)
                {
                    int expert = e;
                    yield return new StoredPart($"{name}.experts.{e}.w1.weight", layer.GateUp, [inner, hidden], value => value.Select(0, expert).Slice(0, 0, inner));
                    yield return new StoredPart($"{name}.experts.{e}.w3.weight", layer.GateUp, [inner, hidden], value => value.Select(0, expert).Slice(0, inner, inner));
                    yield return new StoredPart($"{name}.experts.{e}.w2.weight", layer.Down, [hidden, inner], value => value.Select(0, expert));
                }
            }
        }
    }

    /// <inheritdoc/>
    public override (Tensor Logits, Tensor? AuxiliaryLoss) ForwardWithLoss(Tensor tokens, SequenceLayout? layout = null)
    {
        RequireTokens(tokens);
        using TensorScope scope = TensorScope.Enter();
        var routers = new List<Tensor>();
        Tensor logits = scope.Keep(Head(Hidden(tokens, null, layout, routers)));
        Routing all = Ops.Route(Ops.Concat(0, [.. routers]), new RouteOptions(_config.ExpertsPerToken));
        return (logits, scope.Keep(Ops.Scale(all.AuxLoss, (float)_config.AuxiliaryLossWeight)));
    }

    /// <inheritdoc/>
    protected internal override LayerState[] NewLayerStates(int batch, long maxLength) => [.. _layers.Select(layer => layer.Attention.NewCache(Device, ActivationType, batch, maxLength))];

    /// <inheritdoc/>
    protected override Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout) => Hidden(tokens, state, layout, null);

    /// <inheritdoc/>
    protected override string? CanonicalName(string name) => name == "lm_head.weight" && _head is null ? _embedding.Name : base.CanonicalName(name);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing) _rotary?.Dispose();
        base.Dispose(disposing);
    }

    private Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout, List<Tensor>? routers)
    {
        RotaryEmbedding rotary = RotaryEmbedding.Shared(ref _rotary, _config.Rotary, _config.Rotary.RotaryDimension(_config.HeadDimension), Device);
        var options = new RouteOptions(_config.ExpertsPerToken);
        Parameter NormOf(int layer) => layer < _layers.Length ? _layers[layer].InputNorm : _finalNorm;
        var stream = new ResidualStream(Ops.Embedding(_embedding.Effective(), tokens), NormOf(0), (float)_config.NormEpsilon);
        for (int i = 0; i < _layers.Length; i++)
        {
            using TensorScope scope = TensorScope.Enter();
            Layer layer = _layers[i];
            stream.Add(scope, layer.Attention.Forward(stream.Normed, rotary, (KeyValueCache?)state?.Layers[i], state?.Length ?? 0, layout), layer.MlpNorm);
            Tensor logits = layer.Router.Project(stream.Normed);
            routers?.Add(scope.Keep(logits.Reshape(-1, _config.Experts)));
            stream.Add(scope, Ops.GroupedExperts(stream.Normed, Ops.Route(logits, options), layer.GateUp.Effective(), layer.Down.Effective()), NormOf(i + 1));
        }
        return stream.Normed;
    }

    private sealed record Layer(Parameter InputNorm, SelfAttention Attention, Parameter MlpNorm, Parameter Router, Parameter GateUp, Parameter Down);
}
