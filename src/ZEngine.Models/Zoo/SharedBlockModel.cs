namespace ZEngine.Models;

/// <summary>State-space layers, some of which first run a transformer block that they share: what Zamba and Zamba2 have in common.</summary>
/// <remarks>
/// Use J of the shared blocks, at layer i: t = Linear_i(Block([h; e₀])), h ← h + Mixer(RMS(h + t)), with e₀ the token embeddings; other layers have no t.
/// </remarks>
public abstract class SharedBlockModel : LanguageModel
{
    private readonly SharedBlockConfig _config;
    private readonly Parameter _embedding, _finalNorm;
    private readonly Layer[] _layers;
    private readonly int[] _hybridLayers;
    private readonly SharedBlock[] _blocks;
    private readonly string[] _firstUses;
    private readonly string _mixerName, _useName, _blockPath;
    private readonly RotaryOptions? _rotaryOptions;
    private RotaryEmbedding? _rotary;

    /// <param name="file">The configuration's file.</param>
    /// <param name="config">Sizes.</param>
    /// <param name="hybridLayers">The layers that use a block, rising.</param>
    /// <param name="blocks">How many blocks they take in turn.</param>
    /// <param name="rotary">How q and k are rotated, or null.</param>
    /// <param name="names">What a summary calls a mixer and what is a use's own; and a block's name in files.</param>
    /// <param name="newMixer">Makes a layer's mixer.</param>
    /// <param name="newBlock">Makes the block of that number.</param>
    private protected SharedBlockModel(
        ModelConfigFile file, SharedBlockConfig config, IReadOnlyList<int> hybridLayers, int blocks, RotaryOptions? rotary, (string Mixer, string Use, string Block) names,
        Func<Mixer> newMixer, Func<int, SharedBlock> newBlock) : base(file)
    {
        (_config, _hybridLayers, _rotaryOptions, _mixerName, _useName, _blockPath) = (config, [.. hybridLayers], rotary, names.Mixer, names.Use, $".{names.Block}.");
        NormedMixer NewMixer() => new(newMixer(), config.HiddenSize);
        _embedding = Register("model.embed_tokens.weight", Mamba2Mixer.Matrix(config.VocabularySize, config.HiddenSize, (float)config.InitializerRange));
        _layers = new Layer[config.Layers];
        _blocks = new SharedBlock[blocks];
        _firstUses = new string[blocks];
        int use = 0;
        for (int i = 0; i < config.Layers; i++)
        {
            string name = $"model.layers.{i}";
            if (!_hybridLayers.Contains(i))
            {
                _layers[i] = new Layer(Register(name, NewMixer()), -1, null);
                continue;
            }
            if (use < blocks)
            {
                _firstUses[use] = name + _blockPath;
                _blocks[use] = Register($"{name}.{names.Block}", newBlock(use));
            }
            Parameter linear = Register(name + ".linear.weight", Mamba2Mixer.Matrix(config.HiddenSize, config.HiddenSize, (float)config.InitializerRange));
            _layers[i] = new Layer(Register(name + ".mamba_decoder", NewMixer()), use++, linear);
        }
        _finalNorm = Register("model.final_layernorm.weight", Mamba2Mixer.Vector(config.HiddenSize, Initializer.Ones));
    }

    /// <inheritdoc/>
    public override int VocabularySize => _config.VocabularySize;

    /// <inheritdoc/>
    public override IReadOnlyList<ModelPart> Parts
    {
        get
        {
            long own = _blocks.Sum(block => block.ParameterCount - block.SharedCount) + _layers.Sum(layer => layer.Linear?.Count ?? 0);
            return
            [
                new("embedding", 1, _embedding.Count, 0),
                new(_mixerName, _layers.Length, _layers.Sum(layer => layer.Mixer.ParameterCount), _layers.Sum(layer => layer.Mixer.Mixer.FlopsPerToken), _layers.Sum(layer => layer.Mixer.Mixer.StateBytes)),
                new("shared block", _blocks.Length, _blocks.Sum(block => block.SharedCount), _layers.Sum(layer => layer.Use < 0 ? 0 : 2 * Block(layer.Use).SharedMatrixCount),
                    CacheBytesPerToken: 2L * sizeof(float) * _hybridLayers.Length * _config.KeyValueHeads * _config.AttentionHeadDimension),
                new(_useName, _hybridLayers.Length, own, 2 * own),
                new("head (tied)", 1, _finalNorm.Count, 2 * _embedding.Count),
            ];
        }
    }

    /// <inheritdoc/>
    protected override Parameter HeadWeight => _embedding;

    /// <inheritdoc/>
    protected internal override LayerState[] NewLayerStates(int batch, long maxLength) =>
    [
        .. _layers.Select(layer => layer.Mixer.Mixer.NewState(Device, batch)),
        .. _hybridLayers.Select(_ => new KeyValueCache(Device, ActivationType, batch, maxLength, _config.KeyValueHeads, _config.AttentionHeadDimension)),
    ];

    /// <inheritdoc/>
    protected override Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout)
    {
        RotaryEmbedding? rotary = _rotaryOptions is null ? null : RotaryEmbedding.Shared(ref _rotary, _rotaryOptions, _config.AttentionHeadDimension, Device);
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
        int at = name.IndexOf(_blockPath, StringComparison.Ordinal);
        if (at < 0 || !name.StartsWith("model.layers.", StringComparison.Ordinal) || !int.TryParse(name["model.layers.".Length..at], out int layer)) return base.CanonicalName(name);
        int use = Array.IndexOf(_hybridLayers, layer);
        return use < 0 ? name : _firstUses[use % _blocks.Length] + name[(at + _blockPath.Length)..];
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing) _rotary?.Dispose();
        base.Dispose(disposing);
    }

    private SharedBlock Block(int use) => _blocks[use % _blocks.Length];

    private sealed record Layer(NormedMixer Mixer, int Use, Parameter? Linear);
}
