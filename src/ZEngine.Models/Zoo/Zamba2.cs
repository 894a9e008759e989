namespace ZEngine.Models;

/// <summary>Zamba2: Mamba-2 layers, some of which first run a transformer block that they share, each use with adapters of its own.</summary>
/// <remarks>
/// Use J of the shared blocks, at layer i: u = RMS([h; e₀]), a = Attention(u), f = GeGLU(RMS(a)), t = Linear_i(f), h ← h + Mamba2(RMS(h + t)),
/// with e₀ the token embeddings; there is no residual inside the block. Glorioso et al. 2024, arXiv:2411.15242.
/// </remarks>
public sealed class Zamba2 : LanguageModel
{
    private readonly Zamba2Config _config;
    private readonly Parameter _embedding, _finalNorm;
    private readonly Layer[] _layers;
    private readonly SharedTransformer[] _blocks;
    private readonly string[] _firstUses;
    private RotaryEmbedding? _rotary;

    /// <summary>Declares the structure, without memory.</summary>
    public Zamba2(Zamba2Config config) : base(ConfigRules.NotNull(config).ToFile())
    {
        _config = config;
        int hybrids = config.HybridLayers.Count;
        ConfigRules.Require(config.HybridLayers.Zip(config.HybridLayers.Skip(1)).All(pair => pair.First < pair.Second) && config.HybridLayers.All(layer => layer >= 0 && layer < config.Layers),
            $"Zamba2: the hybrid layers must be rising numbers below {config.Layers}.");
        ConfigRules.Require(config.SharedBlocks > 0 && hybrids >= config.SharedBlocks, $"Zamba2: {config.SharedBlocks} shared blocks need as many hybrid layers, got {hybrids}.");
        ConfigRules.Require(2 * config.HiddenSize % config.AttentionHeads == 0, $"Zamba2: {config.AttentionHeads} attention heads do not divide twice the hidden size, {2 * config.HiddenSize}.");
        ConfigRules.Require(config.AttentionHeads % config.KeyValueHeads == 0, $"Zamba2: {config.KeyValueHeads} key and value heads do not divide {config.AttentionHeads} attention heads.");
        ConfigRules.Require((long)config.MambaHeads * config.MambaHeadDimension % config.HiddenSize == 0, $"Zamba2: heads times head dimension, {config.MambaHeads} · {config.MambaHeadDimension}, must be a multiple of the hidden size {config.HiddenSize}.");
        if (config.HasRope) _ = config.Rotary.RotaryDimension(config.AttentionHeadDimension);
        (double min, double max) = config.TimeStepLimit ?? (double.NegativeInfinity, double.PositiveInfinity);
        var mixer = new Mamba2MixerOptions(
            config.HiddenSize, config.MambaHeads, config.MambaHeadDimension, config.StateSize, config.MambaGroups, config.ConvKernel,
            (long)config.MambaHeads * config.MambaHeadDimension / Math.Max(1, config.MambaGroups), (float)config.NormEpsilon, HasBias: false, config.HasConvBias,
            (float)min, (float)max, (float)config.InitializerRange, OutputScale: 1, config.TimeStepMin, config.TimeStepMax, config.TimeStepFloor);

        mixer.Validate(nameof(Zamba2));
        _embedding = Register("model.embed_tokens.weight", Mamba2Mixer.Matrix(config.VocabularySize, config.HiddenSize, (float)config.InitializerRange));
        _layers = new Layer[config.Layers];
        _blocks = new SharedTransformer[config.SharedBlocks];
        _firstUses = new string[config.SharedBlocks];
        int use = 0;
        for (int i = 0; i < config.Layers; i++)
        {
            string name = $"model.layers.{i}";
            if (!config.HybridLayers.Contains(i))
            {
                _layers[i] = new Layer(Register(name, new NormedMixer(mixer)), -1, null);
                continue;
            }
            if (use < config.SharedBlocks)
            {
                _firstUses[use] = name + ".shared_transformer.";
                _blocks[use] = Register(name + ".shared_transformer", new SharedTransformer(config, use));
            }
            Parameter linear = Register(name + ".linear.weight", Mamba2Mixer.Matrix(config.HiddenSize, config.HiddenSize, (float)config.InitializerRange));
            _layers[i] = new Layer(Register(name + ".mamba_decoder", new NormedMixer(mixer)), use++, linear);
        }
        _finalNorm = Register("model.final_layernorm.weight", Mamba2Mixer.Vector(config.HiddenSize, Initializer.Ones));
    }

    /// <summary>Makes a fresh model.</summary>
    public Zamba2(Zamba2Config config, Device device, ulong seed, DType dtype = DType.Float32) : this(config) => Initialize(device, seed, dtype);

    /// <inheritdoc/>
    public override int VocabularySize => _config.VocabularySize;

    /// <inheritdoc/>
    public override IReadOnlyList<ModelPart> Parts =>
    [
        new("embedding", 1, _embedding.Count, 0),
        new("Mamba-2 layer", _layers.Length, _layers.Sum(layer => layer.Mixer.ParameterCount), _layers.Sum(layer => layer.Mixer.Mixer.FlopsPerToken), _layers.Sum(layer => layer.Mixer.Mixer.StateBytes)),
        new("shared block", _blocks.Length, _blocks.Sum(block => block.SharedCount), _layers.Sum(layer => layer.Use < 0 ? 0 : 2 * Block(layer.Use).SharedMatrixCount),
            CacheBytesPerToken: 2L * sizeof(float) * _config.HybridLayers.Count * _config.KeyValueHeads * _config.AttentionHeadDimension),
        new("adapter and projection of a use", _config.HybridLayers.Count, _blocks.Sum(block => block.ParameterCount - block.SharedCount) + _layers.Sum(layer => layer.Linear?.Count ?? 0),
            2 * (_blocks.Sum(block => block.ParameterCount - block.SharedCount) + _layers.Sum(layer => layer.Linear?.Count ?? 0))),
        new("head (tied)", 1, _finalNorm.Count, 2 * _embedding.Count),
    ];

    /// <inheritdoc/>
    protected override Parameter HeadWeight => _embedding;

    /// <inheritdoc/>
    protected internal override LayerState[] NewLayerStates(int batch, long maxLength) =>
    [
        .. _layers.Select(layer => layer.Mixer.Mixer.NewState(Device, batch)),
        .. _config.HybridLayers.Select(_ => new KeyValueCache(Device, ActivationType, batch, maxLength, _config.KeyValueHeads, _config.AttentionHeadDimension)),
    ];

    /// <inheritdoc/>
    protected override Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout)
    {
        RotaryEmbedding? rotary = _config.HasRope ? RotaryEmbedding.Shared(ref _rotary, _config.Rotary, _config.AttentionHeadDimension, Device) : null;
        Tensor embedded = Ops.Embedding(_embedding.Effective(), tokens);
        float epsilon = (float)_config.NormEpsilon;
        var stream = new ResidualStream(embedded, NormBefore(0), epsilon);
        for (int i = 0; i < _layers.Length; i++)
        {
            Layer layer = _layers[i];
            using TensorScope scope = TensorScope.Enter();
            Tensor x = stream.Normed;
            if (layer.Use >= 0)
            {
                var cache = (KeyValueCache?)state?.Layers[_layers.Length + layer.Use];
                Tensor shared = Block(layer.Use).Forward(stream.Sum, embedded, layer.Use, rotary, cache, state?.Length ?? 0, layout);
                x = Ops.AddRmsNorm(layer.Linear!.Project(shared), stream.Sum, layer.Mixer.Norm.Effective(), epsilon).Y;
            }
            Parameter? next = NormBefore(i + 1);
            (Tensor y, RowScale? scale) = layer.Mixer.Mixer.Forward(x, (ScanState?)state?.Layers[i], layout, defersScale: next is not null);
            stream.Add(scope, y, next, scale);
        }
        return stream.Normed;
    }

    /// <summary>The norm that reads the hidden state before a layer, or behind the last; null where a shared block reads the state itself.</summary>
    private Parameter? NormBefore(int layer) => layer == _layers.Length ? _finalNorm : _layers[layer].Use >= 0 ? null : _layers[layer].Mixer.Norm;

    /// <summary>Files may repeat a shared block's tensors at its later uses.</summary>
    protected override string? CanonicalName(string name)
    {
        if (name == "lm_head.weight") return _embedding.Name;
        int at = name.IndexOf(".shared_transformer.", StringComparison.Ordinal);
        if (at < 0 || !name.StartsWith("model.layers.", StringComparison.Ordinal) || !int.TryParse(name["model.layers.".Length..at], out int layer)) return base.CanonicalName(name);
        int use = _config.HybridLayers.ToList().IndexOf(layer);
        return use < 0 ? name : _firstUses[use % _blocks.Length] + name[(at + ".shared_transformer.".Length)..];
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing) _rotary?.Dispose();
        base.Dispose(disposing);
    }

    private SharedTransformer Block(int use) => _blocks[use % _blocks.Length];

    private sealed record Layer(NormedMixer Mixer, int Use, Parameter? Linear);

    /// <summary>A norm and the mixer behind it.</summary>
    private sealed class NormedMixer : Module
    {
        public NormedMixer(Mamba2MixerOptions options)
        {
            Norm = Register("input_layernorm.weight", Mamba2Mixer.Vector(options.HiddenSize, Initializer.Ones));
            Mixer = Register("mamba", new Mamba2Mixer(options));
        }

        public Parameter Norm { get; }

        public Mamba2Mixer Mixer { get; }
    }
}
