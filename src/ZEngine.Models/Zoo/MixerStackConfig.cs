using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>What the configurations of <see cref="Mamba"/> and <see cref="Mamba2"/> share, under Hugging Face's names.</summary>
public abstract record MixerStackConfig
{
    private protected MixerStackConfig() { }

    /// <summary>Reads the shared keys.</summary>
    /// <param name="file">The file.</param>
    /// <param name="vocabularySize">What a file that does not say means; as the other four.</param>
    /// <param name="hiddenSize">D.</param>
    /// <param name="layers">Layers.</param>
    /// <param name="stateSize">N.</param>
    /// <param name="isTied">Whether the head is the embedding.</param>
    [SetsRequiredMembers]
    private protected MixerStackConfig(ModelConfigFile file, int vocabularySize, int hiddenSize, int layers, int stateSize, bool isTied)
    {
        ConfigRules.RequireText(file, "hidden_act", "silu");
        ConfigRules.Ignore(file, "residual_in_fp32");
        File = file;
        VocabularySize = file.Int("vocab_size", vocabularySize);
        HiddenSize = file.Int("hidden_size", hiddenSize, max: ConfigRules.MaxWidth);
        Layers = file.Int("num_hidden_layers", layers, max: ConfigRules.MaxLayers);
        StateSize = file.Int("state_size", stateSize, max: ConfigRules.MaxWidth);
        ConvKernel = file.Int("conv_kernel", 4, max: ConfigRules.MaxWidth);
        HasBias = file.Bool("use_bias", false);
        HasConvBias = file.Bool("use_conv_bias", true);
        IsTied = file.Bool("tie_word_embeddings", isTied);
        NormEpsilon = file.Float("layer_norm_epsilon", 1e-5);
        InitializerRange = file.Float("initializer_range", 0.1);
        RescalesResidual = file.Bool("rescale_prenorm_residual", false);
        TimeStepMin = file.Float("time_step_min", 1e-3);
        TimeStepMax = file.Float("time_step_max", 0.1);
        TimeStepFloor = file.Float("time_step_floor", 1e-4);
    }

    /// <summary>V.</summary>
    public required int VocabularySize { get; init; }
    /// <summary>D, the width of the residual stream.</summary>
    public required int HiddenSize { get; init; }
    /// <summary>Number of layers.</summary>
    public required int Layers { get; init; }
    /// <summary>N.</summary>
    public int StateSize { get; init; }
    /// <summary>K.</summary>
    public int ConvKernel { get; init; } = 4;
    /// <summary>Whether the projections have a bias.</summary>
    public bool HasBias { get; init; }
    /// <summary>Whether the convolution has a bias.</summary>
    public bool HasConvBias { get; init; } = true;
    /// <summary>Whether the head is the embedding.</summary>
    public bool IsTied { get; init; }
    /// <summary>ε of the norms.</summary>
    public double NormEpsilon { get; init; } = 1e-5;
    /// <summary>Standard deviation of fresh matrices.</summary>
    public double InitializerRange { get; init; } = 0.02;
    /// <summary>Whether fresh output projections are divided by the root of the number of layers.</summary>
    public bool RescalesResidual { get; init; }
    /// <summary>Least initial Δ.</summary>
    public double TimeStepMin { get; init; } = 1e-3;
    /// <summary>Largest initial Δ.</summary>
    public double TimeStepMax { get; init; } = 0.1;
    /// <summary>Floor of the initial Δ.</summary>
    public double TimeStepFloor { get; init; } = 1e-4;
    /// <summary>The file that this was read from; null for a new one.</summary>
    internal ModelConfigFile? File { get; init; }

    /// <summary>Factor on the standard deviation of fresh output projections.</summary>
    internal double OutputScale => RescalesResidual ? 1 / Math.Sqrt(Layers) : 1;

    /// <summary>The inner width that a file's <c>expand</c> says.</summary>
    private protected long ExpandedSize(ModelConfigFile file) => (long)HiddenSize * file.Int("expand", 2, max: 64);

    /// <summary>The shared keys of a new file.</summary>
    /// <param name="architecture">The class in transformers.</param>
    /// <param name="modelType">The key <c>model_type</c>.</param>
    /// <param name="innerSize">Width of the scan.</param>
    private protected Dictionary<string, object?> ToValues(string architecture, string modelType, long innerSize) => new()
    {
        ["architectures"] = new[] { architecture },
        ["model_type"] = modelType,
        ["vocab_size"] = VocabularySize,
        ["hidden_size"] = HiddenSize,
        ["num_hidden_layers"] = Layers,
        ["expand"] = Math.Max(1, innerSize / HiddenSize),
        ["state_size"] = StateSize,
        ["conv_kernel"] = ConvKernel,
        ["hidden_act"] = "silu",
        ["use_bias"] = HasBias,
        ["use_conv_bias"] = HasConvBias,
        ["tie_word_embeddings"] = IsTied,
        ["layer_norm_epsilon"] = NormEpsilon,
        ["initializer_range"] = InitializerRange,
        ["rescale_prenorm_residual"] = RescalesResidual,
        ["residual_in_fp32"] = true,
        ["time_step_min"] = TimeStepMin,
        ["time_step_max"] = TimeStepMax,
        ["time_step_floor"] = TimeStepFloor,
    };
}
