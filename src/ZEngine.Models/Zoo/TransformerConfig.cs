using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>What the configurations of <see cref="Llama"/> and <see cref="Mixtral"/> share, under Hugging Face's names.</summary>
public abstract record TransformerConfig
{
    private protected TransformerConfig() { }

    /// <summary>Reads the shared keys.</summary>
    /// <param name="file">The file.</param>
    /// <param name="intermediateSize">What a file that does not say means; as the other two.</param>
    /// <param name="keyValueHeads">Null for as many as there are heads.</param>
    /// <param name="normEpsilon">ε.</param>
    /// <param name="theta">Base of the rotation.</param>
    [SetsRequiredMembers]
    private protected TransformerConfig(ModelConfigFile file, int intermediateSize, int? keyValueHeads, double normEpsilon, double theta)
    {
        ConfigRules.RequireText(file, "hidden_act", "silu");
        File = file;
        VocabularySize = file.Int("vocab_size", 32000);
        HiddenSize = file.Int("hidden_size", 4096, max: ConfigRules.MaxWidth);
        IntermediateSize = file.Int("intermediate_size", intermediateSize, max: ConfigRules.MaxWidth);
        Layers = file.Int("num_hidden_layers", 32, max: ConfigRules.MaxLayers);
        Heads = file.Int("num_attention_heads", 32, max: ConfigRules.MaxWidth);
        KeyValueHeads = file.Int("num_key_value_heads", keyValueHeads ?? Heads, max: ConfigRules.MaxWidth);
        HeadDimension = file.Int("head_dim", HiddenSize / Heads, max: ConfigRules.MaxWidth);
        Rotary = RotaryOptions.Read(file, theta);
        IsTied = file.Bool("tie_word_embeddings", false);
        NormEpsilon = file.Float("rms_norm_eps", normEpsilon);
        InitializerRange = file.Float("initializer_range", 0.02);
    }

    /// <summary>V.</summary>
    public required int VocabularySize { get; init; }
    /// <summary>D, the width of the residual stream.</summary>
    public required int HiddenSize { get; init; }
    /// <summary>Width F of the MLP, or of each expert's.</summary>
    public required int IntermediateSize { get; init; }
    /// <summary>Number of layers.</summary>
    public required int Layers { get; init; }
    /// <summary>Query heads.</summary>
    public required int Heads { get; init; }
    /// <summary>Key and value heads.</summary>
    public required int KeyValueHeads { get; init; }
    /// <summary>P.</summary>
    public required int HeadDimension { get; init; }
    /// <summary>Base and scaling of the rotation.</summary>
    public RotaryOptions Rotary { get; init; } = new();
    /// <summary>Tokens that a query sees, itself included; 0 for all.</summary>
    public int SlidingWindow { get; init; }
    /// <summary>Whether the head is the embedding.</summary>
    public bool IsTied { get; init; }
    /// <summary>ε of the norms.</summary>
    public double NormEpsilon { get; init; } = 1e-6;
    /// <summary>Standard deviation of fresh matrices.</summary>
    public double InitializerRange { get; init; } = 0.02;
    /// <summary>The file that this was read from; null for a new one.</summary>
    internal ModelConfigFile? File { get; init; }

    /// <summary>The shared keys of a new file.</summary>
    /// <param name="architecture">The class in transformers.</param>
    /// <param name="modelType">The key <c>model_type</c>.</param>
    private protected Dictionary<string, object?> ToValues(string architecture, string modelType) => new()
    {
        ["architectures"] = new[] { architecture },
        ["model_type"] = modelType,
        ["vocab_size"] = VocabularySize,
        ["hidden_size"] = HiddenSize,
        ["intermediate_size"] = IntermediateSize,
        ["num_hidden_layers"] = Layers,
        ["num_attention_heads"] = Heads,
        ["num_key_value_heads"] = KeyValueHeads,
        ["head_dim"] = HeadDimension,
        ["hidden_act"] = "silu",
        ["max_position_embeddings"] = Rotary.MaxPositions,
        ["rope_parameters"] = Rotary.ToValues(),
        ["sliding_window"] = SlidingWindow > 0 ? SlidingWindow : null,
        ["tie_word_embeddings"] = IsTied,
        ["rms_norm_eps"] = NormEpsilon,
        ["initializer_range"] = InitializerRange,
    };

    /// <summary>Rules that hold for both; <paramref name="model"/> begins the message.</summary>
    /// <exception cref="ArgumentException">Sizes do not go together.</exception>
    private protected void Validate(string model)
    {
        ConfigRules.Require(Heads % KeyValueHeads == 0, $"{model}: {KeyValueHeads} key and value heads do not divide {Heads} attention heads.");
        _ = Rotary.RotaryDimension(HeadDimension);
    }
}
