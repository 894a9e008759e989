namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Mamba"/>, as in Hugging Face's <c>MambaConfig</c> and <c>FalconMambaConfig</c>.</summary>
public sealed record MambaConfig
{
    /// <summary>V.</summary>
    public required int VocabularySize { get; init; }
    /// <summary>D, the width of the residual stream.</summary>
    public required int HiddenSize { get; init; }
    /// <summary>Number of layers.</summary>
    public required int Layers { get; init; }
    /// <summary>Width of the scan.</summary>
    public required int InnerSize { get; init; }
    /// <summary>N.</summary>
    public int StateSize { get; init; } = 16;
    /// <summary>K.</summary>
    public int ConvKernel { get; init; } = 4;
    /// <summary>R, the rank of the projection of Δ.</summary>
    public required int TimeStepRank { get; init; }
    /// <summary>Whether the projections have a bias.</summary>
    public bool HasBias { get; init; }
    /// <summary>Whether the convolution has a bias.</summary>
    public bool HasConvBias { get; init; } = true;
    /// <summary>Whether the head is the embedding.</summary>
    public bool IsTied { get; init; } = true;
    /// <summary>ε of the norms.</summary>
    public double NormEpsilon { get; init; } = 1e-5;
    /// <summary>ε of the weightless norms on dt, B and C: Falcon-Mamba's; null for none.</summary>
    public double? ProjectionNormEpsilon { get; init; }
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
    /// <summary>Factor on the range of the fresh projection of Δ.</summary>
    public double TimeStepScale { get; init; } = 1;
    /// <summary>The file that this was read from; null for a new one.</summary>
    internal ModelConfigFile? File { get; init; }

    /// <summary>Reads a <c>config.json</c> of a Mamba or a Falcon-Mamba.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static MambaConfig Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        bool isFalcon = file.String("model_type") == "falcon_mamba";
        ConfigRules.RequireText(file, "hidden_act", "silu");
        if (file.String("time_step_init_scheme", "random") is not "random" and var scheme) throw file.Error("time_step_init_scheme", $"must be \"random\", got \"{scheme}\"");
        ConfigRules.Ignore(file, "residual_in_fp32", "use_mambapy", "use_falcon_mambapy", "use_associative_scan");
        (int hidden, int expand) = (file.Int("hidden_size", 768, max: ConfigRules.MaxWidth), file.Int("expand", 2, max: 64));
        return new MambaConfig
        {
            File = file,
            VocabularySize = file.Int("vocab_size", 50280),
            HiddenSize = hidden,
            Layers = file.Int("num_hidden_layers", 32, max: ConfigRules.MaxLayers),
            InnerSize = file.Int("intermediate_size", hidden * expand, max: ConfigRules.MaxWidth),
            StateSize = file.Int("state_size", 16, max: ConfigRules.MaxWidth),
            ConvKernel = file.Int("conv_kernel", 4, max: ConfigRules.MaxWidth),
            TimeStepRank = !file.Has("time_step_rank") || file.Kind("time_step_rank") == System.Text.Json.JsonValueKind.String ? AutomaticRank(file, hidden) : file.Int("time_step_rank", max: ConfigRules.MaxWidth),
            HasBias = file.Bool("use_bias", false),
            HasConvBias = file.Bool("use_conv_bias", true),
            IsTied = file.Bool("tie_word_embeddings", true),
            NormEpsilon = file.Float("layer_norm_epsilon", 1e-5),
            ProjectionNormEpsilon = isFalcon ? file.Float("mixer_rms_eps", 1e-6) : null,
            InitializerRange = file.Float("initializer_range", 0.1),
            RescalesResidual = file.Bool("rescale_prenorm_residual", false),
            TimeStepMin = file.Float("time_step_min", 1e-3),
            TimeStepMax = file.Float("time_step_max", 0.1),
            TimeStepFloor = file.Float("time_step_floor", 1e-4),
            TimeStepScale = file.Float("time_step_scale", 1.0),
        };
    }

    private static int AutomaticRank(ModelConfigFile file, int hidden)
    {
        if (file.String("time_step_rank", "auto") is not "auto" and var other) throw file.Error("time_step_rank", $"must be a number or \"auto\", got \"{other}\"");
        return (hidden + 15) / 16;
    }

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    private ModelConfigFile NewFile()
    {
        var values = new Dictionary<string, object?>
        {
            ["architectures"] = new[] { ProjectionNormEpsilon is null ? "MambaForCausalLM" : "FalconMambaForCausalLM" },
            ["model_type"] = ProjectionNormEpsilon is null ? "mamba" : "falcon_mamba",
            ["vocab_size"] = VocabularySize,
            ["hidden_size"] = HiddenSize,
            ["num_hidden_layers"] = Layers,
            ["intermediate_size"] = InnerSize,
            ["expand"] = Math.Max(1, InnerSize / HiddenSize),
            ["state_size"] = StateSize,
            ["conv_kernel"] = ConvKernel,
            ["time_step_rank"] = TimeStepRank,
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
            ["time_step_scale"] = TimeStepScale,
            ["time_step_init_scheme"] = "random",
        };
        if (ProjectionNormEpsilon is { } epsilon) values["mixer_rms_eps"] = epsilon;
        return ModelConfigFile.Create(values);
    }
}

/// <summary>Mamba, and Falcon-Mamba with its norms on Δ, B and C: a stack of selective-scan mixers.</summary>
/// <remarks>Gu and Dao 2023, arXiv:2312.00752; Zuo et al. 2024, arXiv:2410.05355.</remarks>
public sealed class Mamba : MixerStack
{
    /// <summary>Declares the structure, without memory.</summary>
    public Mamba(MambaConfig config) : base(
        ConfigRules.NotNull(config).ToFile(), "Mamba layer", config.VocabularySize, config.HiddenSize, config.Layers, config.IsTied, config.NormEpsilon, config.InitializerRange, MixerOf(config)) { }

    /// <summary>Makes a fresh model.</summary>
    public Mamba(MambaConfig config, Device device, ulong seed, DType dtype = DType.Float32) : this(config) => Initialize(device, seed, dtype);

    private static Func<Mixer> MixerOf(MambaConfig config)
    {
        var options = new MambaMixerOptions(
            config.HiddenSize, config.InnerSize, config.StateSize, config.ConvKernel, config.TimeStepRank, config.HasBias, config.HasConvBias, (float)config.InitializerRange,
            config.RescalesResidual ? 1 / Math.Sqrt(config.Layers) : 1, config.TimeStepMin, config.TimeStepMax, config.TimeStepFloor, config.TimeStepScale, (float?)config.ProjectionNormEpsilon);
        return () => new MambaMixer(options);
    }
}
