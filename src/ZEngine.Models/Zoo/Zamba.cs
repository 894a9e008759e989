using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Zamba"/>, as in Hugging Face's <c>ZambaConfig</c>.</summary>
public sealed record ZambaConfig : SharedBlockConfig
{
    private const string ConvBiasKey = "mamba_conv_bias";

    /// <summary>Layers before the period begins; the last of them uses the shared block.</summary>
    private const int FirstLayers = 3;

    /// <summary>A configuration of one's own: N = 16.</summary>
    public ZambaConfig() => StateSize = 16;

    [SetsRequiredMembers]
    private ZambaConfig(ModelConfigFile file) : base(file, hiddenSize: 3712, layers: 76, stateSize: 16, attentionHeads: 16, ConvBiasKey)
    {
        ConfigRules.RequireText(file, "hidden_mamba_act", "silu");
        MambaHeads = file.Int("n_mamba_heads", 2, max: ConfigRules.MaxWidth);
        Expand = file.Int("mamba_expand", 2, max: 64);
        TimeStepRank = ConfigRules.TimeStepRank(file, "mamba_dt_rank", HiddenSize);
        HasBias = file.Bool("mamba_proj_bias", false);
        AttentionPeriod = file.Int("attn_layer_period", 6, max: ConfigRules.MaxLayers);
        AttentionOffset = file.Int("attn_layer_offset", 4, min: 0, max: ConfigRules.MaxLayers);
        if (ReadHybridLayers(file) is { } named && !named.SequenceEqual(HybridLayers))
            throw file.Error("layers_block_type", $"does not follow attn_layer_period {AttentionPeriod} and attn_layer_offset {AttentionOffset}, by which layers {string.Join(", ", HybridLayers)} are hybrid");
    }

    /// <summary>Slices of a mixer's channels with projections of their own to Δ, B and C.</summary>
    public int MambaHeads { get; init; } = 2;
    /// <summary>Width of the scan over the hidden size.</summary>
    public int Expand { get; init; } = 2;
    /// <summary>R, the rank of the projection of Δ.</summary>
    public required int TimeStepRank { get; init; }
    /// <summary>Whether the mixers' outer projections have a bias.</summary>
    public bool HasBias { get; init; }
    /// <summary>From the fourth layer on, every so many use the shared block.</summary>
    public int AttentionPeriod { get; init; } = 6;
    /// <summary>Which of a period uses it.</summary>
    public int AttentionOffset { get; init; } = 4;

    /// <summary>The layers that use the shared block before their Mamba mixer, rising: the third, and one of each period behind it.</summary>
    public IReadOnlyList<int> HybridLayers =>
        [.. Enumerable.Range(0, Layers).Where(layer => layer == FirstLayers - 1 || layer >= FirstLayers && (layer - FirstLayers) % AttentionPeriod == AttentionOffset)];

    /// <summary>Reads a <c>config.json</c>.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static ZambaConfig Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return new ZambaConfig(file);
    }

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    /// <summary>The mixer of a layer.</summary>
    /// <exception cref="ArgumentException">Sizes do not go together.</exception>
    internal MambaMixerOptions Validate()
    {
        long inner = (long)Expand * HiddenSize;
        ConfigRules.Require(Layers >= FirstLayers, $"Zamba: the shared block comes with layer {FirstLayers}, but there are {Layers}.");
        ConfigRules.Require(AttentionPeriod > 0, $"Zamba: the period of the shared block must be positive, got {AttentionPeriod}.");
        ConfigRules.Require(MambaHeads > 0 && inner % MambaHeads == 0, $"Zamba: {MambaHeads} Mamba heads do not divide {inner} channels.");
        Validate(nameof(Zamba), inner, $"the width of the scan, {inner}");
        return new MambaMixerOptions(
            HiddenSize, inner, StateSize, ConvKernel, TimeStepRank, HasBias, HasConvBias, (float)InitializerRange, OutputScale: 1, TimeStepMin, TimeStepMax, TimeStepFloor, TimeStepScale: 1, Heads: MambaHeads);
    }

    private ModelConfigFile NewFile()
    {
        Dictionary<string, object?> values = ToValues("ZambaForCausalLM", "zamba", HybridLayers, (long)Expand * HiddenSize, ConvBiasKey);
        (values["hidden_mamba_act"], values["n_mamba_heads"], values["mamba_dt_rank"], values["mamba_proj_bias"]) = ("silu", MambaHeads, TimeStepRank, HasBias);
        (values["attn_layer_period"], values["attn_layer_offset"]) = (AttentionPeriod, AttentionOffset);
        return ModelConfigFile.Create(values);
    }
}

/// <summary>Zamba: Mamba layers, some of which first run one transformer block that they share.</summary>
/// <remarks>
/// A layer with the block: u = RMS([h; e₀]), a = Attention(u), f = GeGLU(RMS(a)), t = Linear_i(f), h ← h + Mamba(RMS(h + t)), with e₀ the token
/// embeddings; there is neither a residual nor a rotation inside the block. Glorioso et al. 2024, arXiv:2405.16712. The published model's
/// heads have 464 channels, more than the CUDA kernels take (256): it runs on the CPU, smaller ones on both.
/// </remarks>
public sealed class Zamba : SharedBlockModel
{
    /// <summary>Declares the structure, without memory.</summary>
    public Zamba(ZambaConfig config) : this(ConfigRules.NotNull(config), config.Validate()) { }

    private Zamba(ZambaConfig config, MambaMixerOptions mixer) : base(
        config.ToFile(), config, config.HybridLayers, blocks: 1, rotary: null, ("Mamba layer", "projection of a use", "shared_transf"), () => new MambaMixer(mixer), _ => new ZambaBlock(config)) { }

    /// <summary>Makes a fresh model.</summary>
    public Zamba(ZambaConfig config, Device device, ulong seed, DType dtype = DType.Float32) : this(config) => Initialize(device, seed, dtype);
}
