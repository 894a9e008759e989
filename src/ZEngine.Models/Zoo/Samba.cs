using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Samba"/>, under the names of its repository, microsoft/Samba.</summary>
public sealed record SambaConfig
{
    /// <summary>A configuration of one's own.</summary>
    public SambaConfig() { }

    [SetsRequiredMembers]
    private SambaConfig(ModelConfigFile file)
    {
        RequireVariant(file);
        File = file;
        VocabularySize = PaddedVocabulary(file);
        HiddenSize = file.Int("n_embd", max: ConfigRules.MaxWidth);
        IntermediateSize = file.Int("intermediate_size", max: ConfigRules.MaxWidth);
        Layers = file.Int("n_layer", max: ConfigRules.MaxLayers);
        Heads = file.Int("n_head", max: ConfigRules.MaxWidth);
        KeyValueHeads = file.IntOrNull("n_query_groups", max: ConfigRules.MaxWidth) ?? Heads;
        int window = file.Int("local_window", -1, min: -1), mamba = file.Int("mb_per_layer", -1, min: -1);
        (SlidingWindow, MambaPeriod) = (Math.Max(0, window), Math.Max(0, mamba));
        FullPeriod = file.Int("full_per_layer", 1_000_000);
        StateSize = file.Int("mamba_d_state", 16, max: ConfigRules.MaxWidth);
        ConvKernel = file.Int("mamba_d_conv", 4, max: ConfigRules.MaxWidth);
        Expand = file.Int("mamba_expand", 2, max: 64);
        TimeStepRank = ConfigRules.TimeStepRank(file, "mamba_dt_rank", HiddenSize);
        HasRope = !file.Bool("nope", false);
        Rotary = ReadRotary(file);
        IsTied = file.Bool("mamba_init", false);
        NormEpsilon = file.Float("norm_eps", 1e-5);
    }

    /// <summary>V, with what it is padded by.</summary>
    public required int VocabularySize { get; init; }
    /// <summary>D, the width of the residual stream.</summary>
    public required int HiddenSize { get; init; }
    /// <summary>Width F of the MLPs.</summary>
    public required int IntermediateSize { get; init; }
    /// <summary>Layers, of a mixer and an MLP each.</summary>
    public required int Layers { get; init; }
    /// <summary>Query heads.</summary>
    public required int Heads { get; init; }
    /// <summary>Key and value heads.</summary>
    public required int KeyValueHeads { get; init; }
    /// <summary>P.</summary>
    public int HeadDimension => HiddenSize / Heads;
    /// <summary>Layers whose number is a multiple of this have a Mamba mixer, the others attention; 0 for attention everywhere.</summary>
    public int MambaPeriod { get; init; } = 2;
    /// <summary>Tokens that a query sees, itself included; 0 for all.</summary>
    public int SlidingWindow { get; init; } = 2048;
    /// <summary>The last of so many layers sees all tokens, if it is one with attention.</summary>
    public int FullPeriod { get; init; } = 1_000_000;
    /// <summary>N of the mixers.</summary>
    public int StateSize { get; init; } = 16;
    /// <summary>K of the mixers.</summary>
    public int ConvKernel { get; init; } = 4;
    /// <summary>Width of the scan over the hidden size.</summary>
    public int Expand { get; init; } = 2;
    /// <summary>R, the rank of the projection of Δ.</summary>
    public required int TimeStepRank { get; init; }
    /// <summary>Whether q and k are rotated.</summary>
    public bool HasRope { get; init; } = true;
    /// <summary>Base and scaling of the rotation. A file knows the share of a head that rotates and a linear factor, and where there is another rule <c>rope_parameters</c>.</summary>
    public RotaryOptions Rotary { get; init; } = new() { HasRoundedTables = true };
    /// <summary>Whether the head is the embedding.</summary>
    public bool IsTied { get; init; } = true;
    /// <summary>ε of the norms.</summary>
    public double NormEpsilon { get; init; } = 1e-5;
    /// <summary>Standard deviation of fresh matrices; null for √(2 / 5D). Those that write to the residual stream are divided by √(2·layers); the embedding's is 0.02.</summary>
    public double? InitializerRange { get; init; }
    /// <summary>The file that this was read from; null for a new one.</summary>
    internal ModelConfigFile? File { get; init; }

    /// <summary>Reads a <c>config.json</c>.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static SambaConfig Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return new SambaConfig(file);
    }

    /// <summary>Whether a layer has a Mamba mixer.</summary>
    internal bool IsMamba(int layer) => MambaPeriod > 0 && layer % MambaPeriod == 0;

    /// <summary>The window of a layer with attention; 0 for none.</summary>
    internal int WindowOf(int layer) => layer % FullPeriod < FullPeriod - 1 ? SlidingWindow : 0;

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    /// <exception cref="ArgumentException">Sizes do not go together.</exception>
    internal void Validate()
    {
        ConfigRules.Require(HiddenSize % Heads == 0, $"Samba: {Heads} heads do not divide the hidden size {HiddenSize}.");
        ConfigRules.Require(Heads % KeyValueHeads == 0, $"Samba: {KeyValueHeads} key and value heads do not divide {Heads} attention heads.");
        ConfigRules.Require(FullPeriod > 0, $"Samba: the period of layers that see all tokens must be positive, got {FullPeriod}.");
        if (HasRope) _ = Rotary.RotaryDimension(HeadDimension);
    }

    private ModelConfigFile NewFile()
    {
        var values = new Dictionary<string, object?>
        {
            ["model_type"] = "samba",
            ["vocab_size"] = VocabularySize,
            ["padded_vocab_size"] = VocabularySize,
            ["n_embd"] = HiddenSize,
            ["intermediate_size"] = IntermediateSize,
            ["n_layer"] = Layers,
            ["n_head"] = Heads,
            ["n_query_groups"] = KeyValueHeads,
            ["local_window"] = SlidingWindow > 0 ? SlidingWindow : -1,
            ["mb_per_layer"] = MambaPeriod > 0 ? MambaPeriod : -1,
            ["full_per_layer"] = FullPeriod,
            ["mamba_d_state"] = StateSize,
            ["mamba_d_conv"] = ConvKernel,
            ["mamba_expand"] = Expand,
            ["mamba_dt_rank"] = TimeStepRank,
            ["nope"] = !HasRope,
            ["rotary_percentage"] = Rotary.PartialFactor,
            ["condense_ratio"] = Rotary.Scaling == RotaryScaling.Linear ? Rotary.Factor : 1,
            ["mamba_init"] = IsTied,
            ["bias"] = false,
            ["parallel_residual"] = false,
            ["_norm_class"] = "FusedRMSNorm",
            ["_mlp_class"] = "LLaMAMLP",
            ["norm_eps"] = NormEpsilon,
        };
        if (Rotary.MaxPositions is { } positions) values["block_size"] = positions;
        if (Rotary.Theta != 10000 || Rotary.Scaling is not (RotaryScaling.Default or RotaryScaling.Linear)) values["rope_parameters"] = Rotary.ToValues();
        return ModelConfigFile.Create(values);
    }

    /// <summary>The repository's other mixers and blocks are other models.</summary>
    private static void RequireVariant(ModelConfigFile file)
    {
        foreach (string key in (ReadOnlySpan<string>)["bias", "parallel_residual", "shared_attention_norm", "sc_attn", "mamba"]) ConfigRules.RequireValue(file, key, file.Bool(key, false), false);
        foreach (string key in (ReadOnlySpan<string>)["gla_per_layer", "ret_per_layer"]) ConfigRules.RequireValue(file, key, file.Int(key, -1, min: -1), -1);
        ConfigRules.RequireValue(file, "mlp", file.Bool("mlp", true), true);
        if (file.Has("attn_layer_pos")) throw file.Error("attn_layer_pos", "must be null: layers with attention are those that mb_per_layer leaves");
        file.MarkRead("attn_layer_pos");
        if (file.String("_norm_class", "FusedRMSNorm") is not ("FusedRMSNorm" or "RMSNorm") and var norm) throw file.Error("_norm_class", $"must be \"FusedRMSNorm\" or \"RMSNorm\", got \"{norm}\"");
        ConfigRules.RequireText(file, "_mlp_class", "LLaMAMLP");
        ConfigRules.Ignore(file, "org", "name", "rms_norm", "residual_in_fp32", "fused_add_norm");
    }

    private static int PaddedVocabulary(ModelConfigFile file)
    {
        (int size, int multiple) = (file.Int("vocab_size", 32000), file.Int("padding_multiple", 64, max: ConfigRules.MaxWidth));
        return file.IntOrNull("padded_vocab_size") ?? checked((size + multiple - 1) / multiple * multiple);
    }

    private static RotaryOptions ReadRotary(ModelConfigFile file)
    {
        (double share, double ratio) = (file.Float("rotary_percentage", 1.0), file.Float("condense_ratio", 1.0));
        if (share is not (> 0 and <= 1)) throw file.Error("rotary_percentage", $"must be above 0 and at most 1, got {share}");
        if (ratio < 1) throw file.Error("condense_ratio", $"must be at least 1, got {ratio}");
        RotaryOptions options = RotaryOptions.Read(file) with { PartialFactor = share, HasRoundedTables = true, MaxPositions = file.IntOrNull("block_size") };
        if (ratio == 1) return options;
        if (options.Scaling != RotaryScaling.Default) throw file.Error("condense_ratio", $"must be 1 where rope_parameters say {options.Scaling}, got {ratio}");
        return options with { Scaling = RotaryScaling.Linear, Factor = ratio };
    }
}

/// <summary>Samba: Mamba mixers and sliding-window attention in turn, an MLP behind each.</summary>
/// <remarks>
/// h += Mixer(RMS(h)); h += MLP(RMS(h)). Ren et al. 2024, arXiv:2406.07522. Tensors have the names of microsoft/Samba's checkpoints; their
/// <c>config.json</c> is that of the repository's configuration, with <c>model_type</c> "samba".
/// </remarks>
public sealed class Samba : LanguageModel
{
    private readonly SambaConfig _config;
    private readonly Parameter _embedding, _finalNorm;
    private readonly Parameter? _head;
    private readonly Layer[] _layers;
    private RotaryEmbedding? _rotary;

    /// <summary>Declares the structure, without memory.</summary>
    public Samba(SambaConfig config) : base(ConfigRules.NotNull(config).ToFile())
    {
        _config = config;
        config.Validate();
        float range = (float)(config.InitializerRange ?? Math.Sqrt(2.0 / (5 * config.HiddenSize)));
        double outputScale = 1 / Math.Sqrt(2.0 * config.Layers);
        var mixer = new MambaMixerOptions(
            config.HiddenSize, (long)config.Expand * config.HiddenSize, config.StateSize, config.ConvKernel, config.TimeStepRank, HasBias: false, HasConvBias: true, range, outputScale,
            TimeStepMin: 1e-3, TimeStepMax: 0.1, TimeStepFloor: 1e-4, TimeStepScale: 1);
        _embedding = Register("transformer.wte.weight", Mamba2Mixer.Matrix(config.VocabularySize, config.HiddenSize, (float)(config.InitializerRange ?? 0.02)));
        _layers = new Layer[config.Layers];
        for (int i = 0; i < config.Layers; i++)
        {
            string name = $"transformer.h.{i}";
            bool isMamba = config.IsMamba(i);
            _layers[i] = new Layer(
                Register(name + ".norm_1.weight", Mamba2Mixer.Vector(config.HiddenSize, Initializer.Ones)),
                isMamba ? Register(name + ".attn", new MambaMixer(mixer)) : null,
                isMamba ? null : Register(name + ".attn", new SelfAttention(new SelfAttentionOptions(
                    config.HiddenSize, config.Heads, config.KeyValueHeads, config.HeadDimension, range, Window: config.WindowOf(i), OutputScale: outputScale, IsPacked: true))),
                Register(name + ".norm_2.weight", Mamba2Mixer.Vector(config.HiddenSize, Initializer.Ones)),
                Register(name + ".mlp", new GatedMlp(config.HiddenSize, config.IntermediateSize, range, names: GatedMlpNames.Samba, outputScale: outputScale)));
        }
        _finalNorm = Register("transformer.ln_f.weight", Mamba2Mixer.Vector(config.HiddenSize, Initializer.Ones));
        if (!config.IsTied) _head = Register("lm_head.weight", Mamba2Mixer.Matrix(config.VocabularySize, config.HiddenSize, range));
    }

    /// <summary>Makes a fresh model.</summary>
    public Samba(SambaConfig config, Device device, ulong seed, DType dtype = DType.Float32) : this(config) => Initialize(device, seed, dtype);

    /// <inheritdoc/>
    public override int VocabularySize => _config.VocabularySize;

    /// <inheritdoc/>
    public override IReadOnlyList<ModelPart> Parts
    {
        get
        {
            Layer[] mamba = [.. _layers.Where(layer => layer.Mamba is not null)], attention = [.. _layers.Where(layer => layer.Attention is not null)];
            return
            [
                new("embedding", 1, _embedding.Count, 0),
                new("Mamba layer", mamba.Length, mamba.Sum(layer => layer.Mamba!.ParameterCount + layer.MixerNorm.Count), mamba.Sum(layer => layer.Mamba!.FlopsPerToken), mamba.Sum(layer => layer.Mamba!.StateBytes)),
                new("attention", attention.Length, attention.Sum(layer => layer.Attention!.ParameterCount + layer.MixerNorm.Count), attention.Sum(layer => layer.Attention!.FlopsPerToken),
                    CacheBytesPerToken: attention.Sum(layer => layer.Attention!.CacheBytesPerToken)),
                new("MLP", _layers.Length, _layers.Sum(layer => layer.Mlp.ParameterCount + layer.MlpNorm.Count), _layers.Sum(layer => layer.Mlp.FlopsPerToken)),
                new(_head is null ? "head (tied)" : "head", 1, (_head?.Count ?? 0) + _finalNorm.Count, 2 * _embedding.Count),
            ];
        }
    }

    /// <inheritdoc/>
    protected override Parameter HeadWeight => _head ?? _embedding;

    /// <inheritdoc/>
    protected internal override LayerState[] NewLayerStates(int batch, long maxLength) =>
        [.. _layers.Select(layer => layer.Mamba is { } mamba ? (LayerState)mamba.NewState(Device, batch) : layer.Attention!.NewCache(Device, ActivationType, batch, maxLength))];

    /// <inheritdoc/>
    protected override Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout)
    {
        RotaryEmbedding? rotary = _config.HasRope ? RotaryEmbedding.Shared(ref _rotary, _config.Rotary, _config.HeadDimension, Device) : null;
        Parameter NormOf(int layer) => layer < _layers.Length ? _layers[layer].MixerNorm : _finalNorm;
        var stream = new ResidualStream(Ops.Embedding(_embedding.Effective(), tokens), NormOf(0), (float)_config.NormEpsilon);
        for (int i = 0; i < _layers.Length; i++)
        {
            using TensorScope scope = TensorScope.Enter();
            Layer layer = _layers[i];
            (Tensor y, RowScale? scale) = layer.Mamba is { } mamba ? mamba.Forward(stream.Normed, (ScanState?)state?.Layers[i], layout, defersScale: true)
                : (layer.Attention!.Forward(stream.Normed, rotary, (KeyValueCache?)state?.Layers[i], state?.Length ?? 0, layout), null);
            stream.Add(scope, y, layer.MlpNorm, scale);
            stream.Add(scope, layer.Mlp.Forward(stream.Normed), NormOf(i + 1));
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

    private sealed record Layer(Parameter MixerNorm, MambaMixer? Mamba, SelfAttention? Attention, Parameter MlpNorm, GatedMlp Mlp);
}
