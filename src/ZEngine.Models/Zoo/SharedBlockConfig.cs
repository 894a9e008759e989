using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>What the configurations of <see cref="Zamba"/> and <see cref="Zamba2"/> share, under Hugging Face's names.</summary>
public abstract record SharedBlockConfig
{
    private protected SharedBlockConfig() { }

    /// <summary>Reads the shared keys.</summary>
    /// <param name="file">The file.</param>
    /// <param name="hiddenSize">What a file that does not say means; as the other three.</param>
    /// <param name="layers">Layers.</param>
    /// <param name="stateSize">N.</param>
    /// <param name="attentionHeads">H of the attention.</param>
    /// <param name="convBiasKey">The key of <see cref="HasConvBias"/>.</param>
    [SetsRequiredMembers]
    private protected SharedBlockConfig(ModelConfigFile file, int hiddenSize, int layers, int stateSize, int attentionHeads, string convBiasKey)
    {
        ConfigRules.RequireText(file, "hidden_act", "gelu");
        ConfigRules.RequireValue(file, "tie_word_embeddings", file.Bool("tie_word_embeddings", true), true);
        ConfigRules.Ignore(file, "attention_dropout", "max_position_embeddings", "num_logits_to_keep", "use_mamba_kernels");
        File = file;
        VocabularySize = file.Int("vocab_size", 32000);
        HiddenSize = file.Int("hidden_size", hiddenSize, max: ConfigRules.MaxWidth);
        Layers = file.Int("num_hidden_layers", layers, max: ConfigRules.MaxLayers);
        IntermediateSize = file.Int("intermediate_size", 4 * HiddenSize, max: ConfigRules.MaxWidth);
        StateSize = file.Int("mamba_d_state", stateSize, max: ConfigRules.MaxWidth);
        ConvKernel = file.Int("mamba_d_conv", 4, max: ConfigRules.MaxWidth);
        HasConvBias = file.Bool(convBiasKey, true);
        AttentionHeads = file.Int("num_attention_heads", attentionHeads, max: ConfigRules.MaxWidth);
        KeyValueHeads = file.Int("num_key_value_heads", AttentionHeads, max: ConfigRules.MaxWidth);
        ConfigRules.RequireValue(file, "attention_hidden_size", file.Int("attention_hidden_size", 2 * HiddenSize), 2 * HiddenSize);
        ConfigRules.RequireValue(file, "attention_head_dim", file.Int("attention_head_dim", AttentionHeadDimension), AttentionHeadDimension);
        NormEpsilon = file.Float("rms_norm_eps", 1e-5);
        InitializerRange = file.Float("initializer_range", 0.02);
        TimeStepMin = file.Float("time_step_min", 1e-3);
        TimeStepMax = file.Float("time_step_max", 0.1);
        TimeStepFloor = file.Float("time_step_floor", 1e-4);
    }

    /// <summary>V.</summary>
    public required int VocabularySize { get; init; }
    /// <summary>D, the width of the residual stream; the shared block's attention works at twice this width.</summary>
    public required int HiddenSize { get; init; }
    /// <summary>Number of layers.</summary>
    public required int Layers { get; init; }
    /// <summary>Width F of the shared MLP.</summary>
    public required int IntermediateSize { get; init; }
    /// <summary>N of the mixers.</summary>
    public int StateSize { get; init; }
    /// <summary>K of the mixers.</summary>
    public int ConvKernel { get; init; } = 4;
    /// <summary>Whether the convolutions have a bias.</summary>
    public bool HasConvBias { get; init; } = true;
    /// <summary>Query heads of the shared attention.</summary>
    public required int AttentionHeads { get; init; }
    /// <summary>Key and value heads of the shared attention.</summary>
    public required int KeyValueHeads { get; init; }
    /// <summary>Width of an attention head: twice the hidden size over the heads.</summary>
    public int AttentionHeadDimension => 2 * HiddenSize / AttentionHeads;
    /// <summary>ε of the norms.</summary>
    public double NormEpsilon { get; init; } = 1e-5;
    /// <summary>Standard deviation of fresh matrices.</summary>
    public double InitializerRange { get; init; } = 0.02;
    /// <summary>Least initial Δ.</summary>
    public double TimeStepMin { get; init; } = 1e-3;
    /// <summary>Largest initial Δ.</summary>
    public double TimeStepMax { get; init; } = 0.1;
    /// <summary>Floor of the initial Δ.</summary>
    public double TimeStepFloor { get; init; } = 1e-4;
    /// <summary>The file that this was read from; null for a new one.</summary>
    internal ModelConfigFile? File { get; init; }

    /// <summary>What the scores of the shared attention are multiplied with: half of a head's width is the hidden state's.</summary>
    internal float AttentionScale => (float)Math.Pow(AttentionHeadDimension / 2.0, -0.5);

    /// <summary>The layers that a file calls hybrid; null where it does not say.</summary>
    private protected int[]? ReadHybridLayers(ModelConfigFile file)
    {
        if (!file.Has("layers_block_type"))
        {
            file.MarkRead("layers_block_type");
            return null;
        }
        string[] kinds = file.StringList("layers_block_type");
        if (kinds.Length != Layers) throw file.Error("layers_block_type", $"must name {Layers} layers, got {kinds.Length}");
        if (kinds.FirstOrDefault(kind => kind is not ("mamba" or "hybrid")) is { } unknown) throw file.Error("layers_block_type", $"may hold \"mamba\" and \"hybrid\", got \"{unknown}\"");
        return [.. Enumerable.Range(0, Layers).Where(layer => kinds[layer] == "hybrid")];
    }

    /// <summary>The shared keys of a new file.</summary>
    /// <param name="architecture">The class in transformers.</param>
    /// <param name="modelType">The key <c>model_type</c>.</param>
    /// <param name="hybridLayers">The layers that use a shared block.</param>
    /// <param name="innerSize">Width of the scan.</param>
    /// <param name="convBiasKey">The key of <see cref="HasConvBias"/>.</param>
    private protected Dictionary<string, object?> ToValues(string architecture, string modelType, IReadOnlyList<int> hybridLayers, long innerSize, string convBiasKey) => new()
    {
        ["architectures"] = new[] { architecture },
        ["model_type"] = modelType,
        ["vocab_size"] = VocabularySize,
        ["hidden_size"] = HiddenSize,
        ["num_hidden_layers"] = Layers,
        ["layers_block_type"] = Enumerable.Range(0, Layers).Select(layer => hybridLayers.Contains(layer) ? "hybrid" : "mamba").ToArray(),
        ["intermediate_size"] = IntermediateSize,
        ["hidden_act"] = "gelu",
        ["mamba_d_state"] = StateSize,
        ["mamba_d_conv"] = ConvKernel,
        ["mamba_expand"] = innerSize / HiddenSize,
        [convBiasKey] = HasConvBias,
        ["num_attention_heads"] = AttentionHeads,
        ["num_key_value_heads"] = KeyValueHeads,
        ["attention_hidden_size"] = 2 * HiddenSize,
        ["attention_head_dim"] = AttentionHeadDimension,
        ["tie_word_embeddings"] = true,
        ["rms_norm_eps"] = NormEpsilon,
        ["initializer_range"] = InitializerRange,
        ["time_step_min"] = TimeStepMin,
        ["time_step_max"] = TimeStepMax,
        ["time_step_floor"] = TimeStepFloor,
    };

    /// <summary>Rules that hold for both; <paramref name="model"/> begins the message.</summary>
    /// <exception cref="ArgumentException">Sizes do not go together.</exception>
    private protected void Validate(string model, long innerSize, string innerText)
    {
        ConfigRules.Require(2 * HiddenSize % AttentionHeads == 0, $"{model}: {AttentionHeads} attention heads do not divide twice the hidden size, {2 * HiddenSize}.");
        ConfigRules.Require(AttentionHeads % KeyValueHeads == 0, $"{model}: {KeyValueHeads} key and value heads do not divide {AttentionHeads} attention heads.");
        ConfigRules.Require(innerSize % HiddenSize == 0, $"{model}: {innerText}, must be a multiple of the hidden size {HiddenSize}.");
    }
}
