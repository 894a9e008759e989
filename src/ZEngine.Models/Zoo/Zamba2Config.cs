using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Zamba2"/>, as in Hugging Face's <c>Zamba2Config</c>.</summary>
public sealed record Zamba2Config : SharedBlockConfig
{
    private const string ConvBiasKey = "use_conv_bias";

    /// <summary>A configuration of one's own: N = 64.</summary>
    public Zamba2Config() => StateSize = 64;

    [SetsRequiredMembers]
    private Zamba2Config(ModelConfigFile file) : base(file, hiddenSize: 2560, layers: 54, stateSize: 64, attentionHeads: 32, ConvBiasKey)
    {
        ConfigRules.RequireValue(file, "add_bias_linear", file.Bool("add_bias_linear", false), false);
        bool isLong = file.Bool("use_long_context", false);
        if (isLong) throw file.Error("use_long_context", "is true: the rescaled rotary base of long contexts is not supported; give it as rope_theta and set this to false");
        ConfigRules.Ignore(file, "chunk_size", "kv_channels", "num_query_groups", "use_mem_eff_path");
        int expand = file.Int("mamba_expand", 2, max: 64);
        MambaHeads = file.Int("n_mamba_heads", 8, max: ConfigRules.MaxWidth);
        MambaHeadDimension = file.Int("mamba_headdim", HiddenSize * expand / MambaHeads, max: ConfigRules.MaxWidth);
        if ((long)HiddenSize * expand != (long)MambaHeads * MambaHeadDimension)
            throw file.Error("n_mamba_heads", $"times mamba_headdim must be hidden_size times mamba_expand = {(long)HiddenSize * expand}, got {MambaHeads} times {MambaHeadDimension}");
        HybridLayers = ReadHybridLayers(file) is { } named ? RequireSame(file, named) : ReadNumbers(file, Layers);
        MambaGroups = file.Int("mamba_ngroups", 1, max: ConfigRules.MaxWidth);
        SharedBlocks = file.Int("num_mem_blocks", 1, max: ConfigRules.MaxWidth);
        AdapterRank = file.Int("adapter_rank", 128, max: ConfigRules.MaxWidth);
        HasAttentionAdapters = file.Bool("use_shared_attention_adapter", false);
        HasRope = file.Bool("use_mem_rope", false);
        Rotary = RotaryOptions.Read(file);
        TimeStepLimit = ReadLimit(file);
    }

    /// <summary>The layers that use a shared block before their Mamba-2 mixer, rising.</summary>
    public required IReadOnlyList<int> HybridLayers { get; init; }
    /// <summary>H of the Mamba-2 mixers.</summary>
    public required int MambaHeads { get; init; }
    /// <summary>P of the Mamba-2 mixers.</summary>
    public int MambaHeadDimension { get; init; } = 64;
    /// <summary>G of the Mamba-2 mixers.</summary>
    public int MambaGroups { get; init; } = 1;
    /// <summary>How many shared blocks the hybrid layers take in turn.</summary>
    public int SharedBlocks { get; init; } = 1;
    /// <summary>Rank of the adapters that each use of a shared block has of its own.</summary>
    public int AdapterRank { get; init; } = 128;
    /// <summary>Whether q, k and v have adapters, beside the MLP.</summary>
    public bool HasAttentionAdapters { get; init; }
    /// <summary>Whether q and k are rotated.</summary>
    public bool HasRope { get; init; } = true;
    /// <summary>Base and scaling of the rotation.</summary>
    public RotaryOptions Rotary { get; init; } = new();
    /// <summary>Least and largest Δ; null for no limit.</summary>
    public (double Min, double Max)? TimeStepLimit { get; init; }

    /// <summary>Reads a <c>config.json</c>.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static Zamba2Config Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        if (file.Has("conv_dimension") || file.Has("use_shared_block_lora"))
            throw file.Error("model_type", "is \"zamba2\" in the layout of the first uploads, before transformers 4.48; convert it with transformers' own script");
        return new Zamba2Config(file);
    }

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    /// <summary>The mixer of a layer.</summary>
    /// <exception cref="ArgumentException">Sizes do not go together.</exception>
    internal Mamba2MixerOptions Validate()
    {
        int hybrids = HybridLayers.Count;
        ConfigRules.Require(HybridLayers.Zip(HybridLayers.Skip(1)).All(pair => pair.First < pair.Second) && HybridLayers.All(layer => layer >= 0 && layer < Layers),
            $"Zamba2: the hybrid layers must be rising numbers below {Layers}.");
        ConfigRules.Require(SharedBlocks > 0 && hybrids >= SharedBlocks, $"Zamba2: {SharedBlocks} shared blocks need as many hybrid layers, got {hybrids}.");
        long inner = (long)MambaHeads * MambaHeadDimension;
        Validate(nameof(Zamba2), inner, $"heads times head dimension, {MambaHeads} · {MambaHeadDimension}");
        if (HasRope) _ = Rotary.RotaryDimension(AttentionHeadDimension);
        (double min, double max) = TimeStepLimit ?? (double.NegativeInfinity, double.PositiveInfinity);
        var mixer = new Mamba2MixerOptions(
            HiddenSize, MambaHeads, MambaHeadDimension, StateSize, MambaGroups, ConvKernel, inner / Math.Max(1, MambaGroups), (float)NormEpsilon, HasBias: false, HasConvBias,
            (float)min, (float)max, (float)InitializerRange, OutputScale: 1, TimeStepMin, TimeStepMax, TimeStepFloor);
        mixer.Validate(nameof(Zamba2));
        return mixer;
    }

    private ModelConfigFile NewFile()
    {
        Dictionary<string, object?> values = ToValues("Zamba2ForCausalLM", "zamba2", HybridLayers, (long)MambaHeads * MambaHeadDimension, ConvBiasKey);
        values["hybrid_layer_ids"] = HybridLayers.ToArray();
        (values["n_mamba_heads"], values["mamba_headdim"], values["mamba_ngroups"]) = (MambaHeads, MambaHeadDimension, MambaGroups);
        (values["num_mem_blocks"], values["adapter_rank"], values["use_shared_attention_adapter"]) = (SharedBlocks, AdapterRank, HasAttentionAdapters);
        (values["use_mem_rope"], values["max_position_embeddings"], values["rope_parameters"]) = (HasRope, Rotary.MaxPositions, Rotary.ToValues());
        (values["add_bias_linear"], values["chunk_size"], values["use_long_context"]) = (false, 256, false);
        values["time_step_limit"] = TimeStepLimit is { } limit ? new[] { limit.Min, limit.Max } : null;
        return ModelConfigFile.Create(values);
    }

    private static int[] RequireSame(ModelConfigFile file, int[] named)
    {
        if (file.Has("hybrid_layer_ids") && !file.IntList("hybrid_layer_ids").SequenceEqual(named)) throw file.Error("hybrid_layer_ids", "does not name the layers that layers_block_type calls hybrid");
        return named;
    }

    private static int[] ReadNumbers(ModelConfigFile file, int layers)
    {
        int[] given = file.IntList("hybrid_layer_ids");
        if (given.Length == 0 || given.Any(layer => layer >= layers) || given.Zip(given.Skip(1)).Any(pair => pair.First >= pair.Second))
            throw file.Error("hybrid_layer_ids", $"must be rising layer numbers below {layers}.");
        return given;
    }

    private static (double, double)? ReadLimit(ModelConfigFile file)
    {
        if (!file.Has("time_step_limit") || file.Kind("time_step_limit") == System.Text.Json.JsonValueKind.Null)
        {
            file.MarkRead("time_step_limit");
            return null;
        }
        double[] limit = file.FloatList("time_step_limit", [], allowNonFinite: true);
        return limit.Length == 2 ? (limit[0], limit[1]) : throw file.Error("time_step_limit", $"must be two numbers, got {limit.Length}");
    }
}
