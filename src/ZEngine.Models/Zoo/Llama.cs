using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Llama"/>, as in Hugging Face's <c>LlamaConfig</c> and <c>MistralConfig</c>.</summary>
public sealed record LlamaConfig : TransformerConfig
{
    /// <summary>A configuration of one's own.</summary>
    public LlamaConfig() { }

    [SetsRequiredMembers]
    private LlamaConfig(ModelConfigFile file, bool isMistral) : base(file, isMistral ? 14336 : 11008, isMistral ? 8 : null, normEpsilon: 1e-6, theta: 1e4)
    {
        ConfigRules.Ignore(file, "attention_dropout", "max_position_embeddings", "pretraining_tp");
        if (!file.Has("sliding_window")) file.MarkRead("sliding_window");         // null says the same as absent
        SlidingWindow = isMistral ? file.IntOrNull("sliding_window") ?? 0 : 0;
        HasAttentionBias = file.Bool("attention_bias", false);
        HasMlpBias = file.Bool("mlp_bias", false);
    }

    /// <summary>Whether the attention's projections have a bias.</summary>
    public bool HasAttentionBias { get; init; }
    /// <summary>Whether the MLP's projections have a bias.</summary>
    public bool HasMlpBias { get; init; }

    /// <summary>Reads a <c>config.json</c> of a Llama or a Mistral.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static LlamaConfig Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return new LlamaConfig(file, file.String("model_type") == "mistral");
    }

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    internal void Validate() => Validate(nameof(Llama));

    private ModelConfigFile NewFile()
    {
        Dictionary<string, object?> values = SlidingWindow > 0 ? ToValues("MistralForCausalLM", "mistral") : ToValues("LlamaForCausalLM", "llama");
        (values["attention_bias"], values["mlp_bias"]) = (HasAttentionBias, HasMlpBias);
        return ModelConfigFile.Create(values);
    }
}

/// <summary>Llama, and Mistral with its sliding window: the dense transformer.</summary>
/// <remarks>h += Attention(RMS(h)); h += MLP(RMS(h)). Touvron et al. 2023, arXiv:2302.13971; Jiang et al. 2023, arXiv:2310.06825.</remarks>
public sealed class Llama : LanguageModel
{
    private readonly LlamaConfig _config;
    private readonly Parameter _embedding, _finalNorm;
    private readonly Parameter? _head;
    private readonly (Parameter InputNorm, SelfAttention Attention, Parameter MlpNorm, GatedMlp Mlp)[] _layers;
    private RotaryEmbedding? _rotary;

    /// <summary>Declares the structure, without memory.</summary>
    public Llama(LlamaConfig config) : base(ConfigRules.NotNull(config).ToFile())
    {
        _config = config;
        config.Validate();
        var attention = new SelfAttentionOptions(
            config.HiddenSize, config.Heads, config.KeyValueHeads, config.HeadDimension, (float)config.InitializerRange, config.HasAttentionBias, config.SlidingWindow);
        _embedding = Register("model.embed_tokens.weight", Mamba2Mixer.Matrix(config.VocabularySize, config.HiddenSize, (float)config.InitializerRange));
        _layers = new (Parameter, SelfAttention, Parameter, GatedMlp)[config.Layers];
        for (int i = 0; i < config.Layers; i++)
        {
            string name = $"model.layers.{i}";
            _layers[i] = (
                Register(name + ".input_layernorm.weight", Mamba2Mixer.Vector(config.HiddenSize, Initializer.Ones)),
                Register(name + ".self_attn", new SelfAttention(attention)),
                Register(name + ".post_attention_layernorm.weight", Mamba2Mixer.Vector(config.HiddenSize, Initializer.Ones)),
                Register(name + ".mlp", new GatedMlp(config.HiddenSize, config.IntermediateSize, (float)config.InitializerRange, hasBias: config.HasMlpBias)));
        }
        _finalNorm = Register("model.norm.weight", Mamba2Mixer.Vector(config.HiddenSize, Initializer.Ones));
        if (!config.IsTied) _head = Register("lm_head.weight", Mamba2Mixer.Matrix(config.VocabularySize, config.HiddenSize, (float)config.InitializerRange));
    }

    /// <summary>Makes a fresh model.</summary>
    public Llama(LlamaConfig config, Device device, ulong seed, DType dtype = DType.Float32) : this(config) => Initialize(device, seed, dtype);

    /// <inheritdoc/>
    public override int VocabularySize => _config.VocabularySize;

    /// <inheritdoc/>
    public override IReadOnlyList<ModelPart> Parts =>
    [
        new("embedding", 1, _embedding.Count, 0),
        new("attention", _layers.Length, _layers.Sum(layer => layer.Attention.ParameterCount + layer.InputNorm.Count), _layers.Sum(layer => layer.Attention.FlopsPerToken),
            CacheBytesPerToken: _layers.Sum(layer => layer.Attention.CacheBytesPerToken)),
        new("MLP", _layers.Length, _layers.Sum(layer => layer.Mlp.ParameterCount + layer.MlpNorm.Count), _layers.Sum(layer => layer.Mlp.FlopsPerToken)),
        new(_head is null ? "head (tied)" : "head", 1, (_head?.Count ?? 0) + _finalNorm.Count, 2 * _embedding.Count),
    ];

    /// <inheritdoc/>
    protected override Parameter HeadWeight => _head ?? _embedding;

    /// <inheritdoc/>
    protected internal override LayerState[] NewLayerStates(int batch, long maxLength) => [.. _layers.Select(layer => layer.Attention.NewCache(Device, ActivationType, batch, maxLength))];

    /// <inheritdoc/>
    protected override Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout)
    {
        RotaryEmbedding rotary = RotaryEmbedding.Shared(ref _rotary, _config.Rotary, _config.HeadDimension, Device);
        Parameter NormOf(int layer) => layer < _layers.Length ? _layers[layer].InputNorm : _finalNorm;
        var stream = new ResidualStream(Ops.Embedding(_embedding.Effective(), tokens), NormOf(0), (float)_config.NormEpsilon);
        for (int i = 0; i < _layers.Length; i++)
        {
            using TensorScope scope = TensorScope.Enter();
            (_, SelfAttention attention, Parameter mlpNorm, GatedMlp mlp) = _layers[i];
            stream.Add(scope, attention.Forward(stream.Normed, rotary, (KeyValueCache?)state?.Layers[i], state?.Length ?? 0, layout), mlpNorm);
            stream.Add(scope, mlp.Forward(stream.Normed), NormOf(i + 1));
        }
        return stream.Normed;
    }

    /// <inheritdoc/>
    protected override string? CanonicalName(string name) => name == "lm_head.weight" && _head is null ? _embedding.Name : base.CanonicalName(name);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing) _rotary?.Dispose();
        base.Dispose(disposing);
    }
}
