namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Zamba2"/>, as in Hugging Face's <c>Zamba2Config</c>.</summary>
public sealed record Zamba2Config
{
    /// <summary>V.</summary>
    public required int VocabularySize { get; init; }
    /// <summary>D, the width of the residual stream; the shared block's attention works at twice this width.</summary>
    public required int HiddenSize { get; init; }
    /// <summary>Number of layers.</summary>
    public required int Layers { get; init; }
    /// <summary>The layers that use a shared block before their Mamba-2 mixer, rising.</summary>
    public required IReadOnlyList<int> HybridLayers { get; init; }
    /// <summary>Width F of the shared MLP.</summary>
    public required int IntermediateSize { get; init; }
    /// <summary>H of the Mamba-2 mixers.</summary>
    public required int MambaHeads { get; init; }
    /// <summary>P of the Mamba-2 mixers.</summary>
    public int MambaHeadDimension { get; init; } = 64;
    /// <summary>N of the Mamba-2 mixers.</summary>
    public int StateSize { get; init; } = 64;
    /// <summary>G of the Mamba-2 mixers.</summary>
    public int MambaGroups { get; init; } = 1;
    /// <summary>K of the Mamba-2 mixers.</summary>
    public int ConvKernel { get; init; } = 4;
    /// <summary>Query heads of the shared attention.</summary>
    public required int AttentionHeads { get; init; }
    /// <summary>Key and value heads of the shared attention.</summary>
    public required int KeyValueHeads { get; init; }
    /// <summary>Width of an attention head: twice the hidden size over the heads.</summary>
    public int AttentionHeadDimension => 2 * HiddenSize / AttentionHeads;
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
    /// <summary>Whether the convolutions have a bias.</summary>
    public bool HasConvBias { get; init; } = true;
    /// <summary>ε of the norms.</summary>
    public double NormEpsilon { get; init; } = 1e-5;
    /// <summary>Standard deviation of fresh matrices.</summary>
    public double InitializerRange { get; init; } = 0.02;
    /// <summary>Least and largest Δ; null for no limit.</summary>
    public (double Min, double Max)? TimeStepLimit { get; init; }
    /// <summary>Least initial Δ.</summary>
    public double TimeStepMin { get; init; } = 1e-3;
    /// <summary>Largest initial Δ.</summary>
    public double TimeStepMax { get; init; } = 0.1;
    /// <summary>Floor of the initial Δ.</summary>
    public double TimeStepFloor { get; init; } = 1e-4;
    /// <summary>The file that this was read from; null for a new one.</summary>
    internal ModelConfigFile? File { get; init; }

    /// <summary>Reads a <c>config.json</c>.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static Zamba2Config Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        if (file.Has("conv_dimension") || file.Has("use_shared_block_lora"))
            throw file.Error("model_type", "is \"zamba2\" in the layout of the first uploads, before transformers 4.48; convert it with transformers' own script");
        (int hidden, int layers, int expand) = (file.Int("hidden_size", 2560, max: ConfigRules.MaxWidth), file.Int("num_hidden_layers", 54, max: ConfigRules.MaxLayers), file.Int("mamba_expand", 2, max: 64));
        (int heads, int headDimension) = (file.Int("n_mamba_heads", 8, max: ConfigRules.MaxWidth), file.Int("mamba_headdim", hidden * expand / file.Int("n_mamba_heads", 8, max: ConfigRules.MaxWidth), max: ConfigRules.MaxWidth));
        if ((long)hidden * expand != (long)heads * headDimension)
            throw file.Error("n_mamba_heads", $"times mamba_headdim must be hidden_size times mamba_expand = {(long)hidden * expand}, got {heads} times {headDimension}");
        ConfigRules.RequireText(file, "hidden_act", "gelu");
        RequireValue(file, "add_bias_linear", file.Bool("add_bias_linear", false), false);
        RequireValue(file, "tie_word_embeddings", file.Bool("tie_word_embeddings", true), true);
        int attentionHeads = file.Int("num_attention_heads", 32, max: ConfigRules.MaxWidth);
        RequireValue(file, "attention_hidden_size", file.Int("attention_hidden_size", 2 * hidden), 2 * hidden);
        RequireValue(file, "attention_head_dim", file.Int("attention_head_dim", 2 * hidden / attentionHeads), 2 * hidden / attentionHeads);
        bool isLong = file.Bool("use_long_context", false);
        if (isLong) throw file.Error("use_long_context", "is true: the rescaled rotary base of long contexts is not supported; give it as rope_theta and set this to false");
        ConfigRules.Ignore(file, "attention_dropout", "chunk_size", "kv_channels", "num_query_groups", "max_position_embeddings", "num_logits_to_keep", "use_mamba_kernels", "use_mem_eff_path");
        return new Zamba2Config
        {
            File = file,
            VocabularySize = file.Int("vocab_size", 32000),
            HiddenSize = hidden,
            Layers = layers,
            HybridLayers = ReadHybridLayers(file, layers),
            IntermediateSize = file.Int("intermediate_size", 4 * hidden, max: ConfigRules.MaxWidth),
            MambaHeads = heads,
            MambaHeadDimension = headDimension,
            StateSize = file.Int("mamba_d_state", 64, max: ConfigRules.MaxWidth),
            MambaGroups = file.Int("mamba_ngroups", 1, max: ConfigRules.MaxWidth),
            ConvKernel = file.Int("mamba_d_conv", 4, max: ConfigRules.MaxWidth),
            AttentionHeads = attentionHeads,
            KeyValueHeads = file.Int("num_key_value_heads", attentionHeads, max: ConfigRules.MaxWidth),
            SharedBlocks = file.Int("num_mem_blocks", 1, max: ConfigRules.MaxWidth),
            AdapterRank = file.Int("adapter_rank", 128, max: ConfigRules.MaxWidth),
            HasAttentionAdapters = file.Bool("use_shared_attention_adapter", false),
            HasRope = file.Bool("use_mem_rope", false),
            Rotary = RotaryOptions.Read(file),
            HasConvBias = file.Bool("use_conv_bias", true),
            NormEpsilon = file.Float("rms_norm_eps", 1e-5),
            InitializerRange = file.Float("initializer_range", 0.02),
            TimeStepLimit = ReadLimit(file),
            TimeStepMin = file.Float("time_step_min", 1e-3),
            TimeStepMax = file.Float("time_step_max", 0.1),
            TimeStepFloor = file.Float("time_step_floor", 1e-4),
        };
    }

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    private ModelConfigFile NewFile() => ModelConfigFile.Create(new Dictionary<string, object?>
    {
        ["architectures"] = new[] { "Zamba2ForCausalLM" },
        ["model_type"] = "zamba2",
        ["vocab_size"] = VocabularySize,
        ["hidden_size"] = HiddenSize,
        ["num_hidden_layers"] = Layers,
        ["layers_block_type"] = Enumerable.Range(0, Layers).Select(layer => HybridLayers.Contains(layer) ? "hybrid" : "mamba").ToArray(),
        ["hybrid_layer_ids"] = HybridLayers.ToArray(),
        ["intermediate_size"] = IntermediateSize,
        ["hidden_act"] = "gelu",
        ["n_mamba_heads"] = MambaHeads,
        ["mamba_headdim"] = MambaHeadDimension,
        ["mamba_d_state"] = StateSize,
        ["mamba_ngroups"] = MambaGroups,
        ["mamba_d_conv"] = ConvKernel,
        ["mamba_expand"] = (long)MambaHeads * MambaHeadDimension / HiddenSize,
        ["num_attention_heads"] = AttentionHeads,
        ["num_key_value_heads"] = KeyValueHeads,
        ["attention_hidden_size"] = 2 * HiddenSize,
        ["attention_head_dim"] = AttentionHeadDimension,
        ["num_mem_blocks"] = SharedBlocks,
        ["adapter_rank"] = AdapterRank,
        ["use_shared_attention_adapter"] = HasAttentionAdapters,
        ["use_mem_rope"] = HasRope,
        ["max_position_embeddings"] = Rotary.MaxPositions,
        ["rope_parameters"] = Rotary.ToValues(),
        ["use_conv_bias"] = HasConvBias,
        ["add_bias_linear"] = false,
        ["tie_word_embeddings"] = true,
        ["rms_norm_eps"] = NormEpsilon,
        ["initializer_range"] = InitializerRange,
        ["time_step_limit"] = TimeStepLimit is { } limit ? new[] { limit.Min, limit.Max } : null,
        ["time_step_min"] = TimeStepMin,
        ["time_step_max"] = TimeStepMax,
        ["time_step_floor"] = TimeStepFloor,
        ["chunk_size"] = 256,
        ["use_long_context"] = false,
    });

    private static int[] ReadHybridLayers(ModelConfigFile file, int layers)
    {
        if (!file.Has("layers_block_type"))
        {
            int[] given = file.IntList("hybrid_layer_ids");
            if (given.Length == 0 || given.Any(layer => layer >= layers) || given.Zip(given.Skip(1)).Any(pair => pair.First >= pair.Second))
                throw file.Error("hybrid_layer_ids", $"must be rising layer numbers below {layers}.");
            return given;
        }
        string[] kinds = file.StringList("layers_block_type");
        if (kinds.Length != layers) throw file.Error("layers_block_type", $"must name {layers} layers, got {kinds.Length}");
        if (kinds.FirstOrDefault(kind => kind is not ("mamba" or "hybrid")) is { } unknown) throw file.Error("layers_block_type", $"may hold \"mamba\" and \"hybrid\", got \"{unknown}\"");
        int[] hybrid = [.. Enumerable.Range(0, layers).Where(layer => kinds[layer] == "hybrid")];
        if (file.Has("hybrid_layer_ids") && !file.IntList("hybrid_layer_ids").SequenceEqual(hybrid)) throw file.Error("hybrid_layer_ids", "does not name the layers that layers_block_type calls hybrid");
        return hybrid;
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

    private static void RequireValue<T>(ModelConfigFile file, string key, T value, T only) where T : IEquatable<T>
    {
        if (!value.Equals(only)) throw file.Error(key, $"must be {only.ToString()!.ToLowerInvariant()}, got {value.ToString()!.ToLowerInvariant()}");
    }
}
