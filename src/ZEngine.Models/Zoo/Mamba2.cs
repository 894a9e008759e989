namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Mamba2"/>, as in Hugging Face's <c>Mamba2Config</c>.</summary>
public sealed record Mamba2Config
{
    /// <summary>V.</summary>
    public required int VocabularySize { get; init; }
    /// <summary>D, the width of the residual stream.</summary>
    public required int HiddenSize { get; init; }
    /// <summary>Number of layers.</summary>
    public required int Layers { get; init; }
    /// <summary>H; heads times head dimension is the inner width.</summary>
    public required int Heads { get; init; }
    /// <summary>P.</summary>
    public int HeadDimension { get; init; } = 64;
    /// <summary>N.</summary>
    public int StateSize { get; init; } = 128;
    /// <summary>G.</summary>
    public int Groups { get; init; } = 1;
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
    /// <summary>Least and largest Δ.</summary>
    public (double Min, double Max) TimeStepLimit { get; init; } = (0, double.PositiveInfinity);
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
    public static Mamba2Config Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        (int hidden, int heads, int headDimension, int expand) = (file.Int("hidden_size", 4096, max: ConfigRules.MaxWidth), file.Int("num_heads", 128, max: ConfigRules.MaxWidth), file.Int("head_dim", 64, max: ConfigRules.MaxWidth), file.Int("expand", 2, max: 64));
        if ((long)hidden * expand != (long)heads * headDimension)
            throw file.Error("num_heads", $"times head_dim must be hidden_size times expand = {(long)hidden * expand}, got {heads} times {headDimension}");
        ConfigRules.RequireText(file, "hidden_act", "silu");
        if (!file.Bool("rms_norm", true)) throw file.Error("rms_norm", "must be true");
        double[] limit = file.FloatList("time_step_limit", [0, double.PositiveInfinity], allowNonFinite: true);
        if (limit.Length != 2) throw file.Error("time_step_limit", $"must be two numbers, got {limit.Length}");
        ConfigRules.Ignore(file, "chunk_size", "time_step_rank", "residual_in_fp32");
        return new Mamba2Config
        {
            File = file,
            VocabularySize = file.Int("vocab_size", 32768),
            HiddenSize = hidden,
            Layers = file.Int("num_hidden_layers", 64, max: ConfigRules.MaxLayers),
            Heads = heads,
            HeadDimension = headDimension,
            StateSize = file.Int("state_size", 128, max: ConfigRules.MaxWidth),
            Groups = file.Int("n_groups", 8, max: ConfigRules.MaxWidth),
            ConvKernel = file.Int("conv_kernel", 4, max: ConfigRules.MaxWidth),
            HasBias = file.Bool("use_bias", false),
            HasConvBias = file.Bool("use_conv_bias", true),
            IsTied = file.Bool("tie_word_embeddings", false),
            NormEpsilon = file.Float("layer_norm_epsilon", 1e-5),
            InitializerRange = file.Float("initializer_range", 0.1),
            RescalesResidual = file.Bool("rescale_prenorm_residual", false),
            TimeStepLimit = (limit[0], limit[1]),
            TimeStepMin = file.Float("time_step_min", 1e-3),
            TimeStepMax = file.Float("time_step_max", 0.1),
            TimeStepFloor = file.Float("time_step_floor", 1e-4),
        };
    }

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    private ModelConfigFile NewFile() => ModelConfigFile.Create(new Dictionary<string, object?>
    {
        ["architectures"] = new[] { "Mamba2ForCausalLM" },
        ["model_type"] = "mamba2",
        ["vocab_size"] = VocabularySize,
        ["hidden_size"] = HiddenSize,
        ["num_hidden_layers"] = Layers,
        ["num_heads"] = Heads,
        ["head_dim"] = HeadDimension,
        ["state_size"] = StateSize,
        ["n_groups"] = Groups,
        ["conv_kernel"] = ConvKernel,
        ["expand"] = (long)Heads * HeadDimension / HiddenSize,
        ["hidden_act"] = "silu",
        ["rms_norm"] = true,
        ["use_bias"] = HasBias,
        ["use_conv_bias"] = HasConvBias,
        ["tie_word_embeddings"] = IsTied,
        ["layer_norm_epsilon"] = NormEpsilon,
        ["initializer_range"] = InitializerRange,
        ["rescale_prenorm_residual"] = RescalesResidual,
        ["time_step_limit"] = new[] { TimeStepLimit.Min, TimeStepLimit.Max },
        ["time_step_min"] = TimeStepMin,
        ["time_step_max"] = TimeStepMax,
        ["time_step_floor"] = TimeStepFloor,
        ["chunk_size"] = 256,
        ["residual_in_fp32"] = true,
    });
}

/// <summary>Mamba-2: a stack of SSD mixers.</summary>
/// <remarks>Dao and Gu 2024, arXiv:2405.21060. The gated norm runs over the whole inner width, as in Hugging Face's model.</remarks>
public sealed class Mamba2 : MixerStack
{
    /// <summary>Declares the structure, without memory.</summary>
    public Mamba2(Mamba2Config config) : base(
        ConfigRules.NotNull(config).ToFile(), "Mamba-2 layer", config.VocabularySize, config.HiddenSize, config.Layers, config.IsTied, config.NormEpsilon, config.InitializerRange, MixerOf(config)) { }

    /// <summary>Makes a fresh model.</summary>
    public Mamba2(Mamba2Config config, Device device, ulong seed, DType dtype = DType.Float32) : this(config) => Initialize(device, seed, dtype);

    private static Func<Mixer> MixerOf(Mamba2Config config)
    {
        ConfigRules.Require((long)config.Heads * config.HeadDimension % config.HiddenSize == 0, $"Mamba2: heads times head dimension, {config.Heads} · {config.HeadDimension}, must be a multiple of the hidden size {config.HiddenSize}.");
        var options = new Mamba2MixerOptions(
            config.HiddenSize, config.Heads, config.HeadDimension, config.StateSize, config.Groups, config.ConvKernel, NormGroupSize: 0, (float)config.NormEpsilon,
            config.HasBias, config.HasConvBias, (float)config.TimeStepLimit.Min, (float)config.TimeStepLimit.Max, (float)config.InitializerRange,
            config.RescalesResidual ? 1 / Math.Sqrt(config.Layers) : 1, config.TimeStepMin, config.TimeStepMax, config.TimeStepFloor);
        options.Validate(nameof(Mamba2));
        return () => new Mamba2Mixer(options);
    }
}
