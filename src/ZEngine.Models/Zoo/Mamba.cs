using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Mamba"/>, as in Hugging Face's <c>MambaConfig</c> and <c>FalconMambaConfig</c>.</summary>
public sealed record MambaConfig : MixerStackConfig
{
    /// <summary>A configuration of one's own: N = 16, and the head is the embedding.</summary>
    public MambaConfig() => (StateSize, IsTied) = (16, true);

    [SetsRequiredMembers]
    private MambaConfig(ModelConfigFile file, bool isFalcon) : base(file, vocabularySize: 50280, hiddenSize: 768, layers: 32, stateSize: 16, isTied: true)
    {
        if (file.String("time_step_init_scheme", "random") is not "random" and var scheme) throw file.Error("time_step_init_scheme", $"must be \"random\", got \"{scheme}\"");
        ConfigRules.Ignore(file, "use_mambapy", "use_falcon_mambapy", "use_associative_scan");
        InnerSize = file.Int("intermediate_size", checked((int)ExpandedSize(file)), max: ConfigRules.MaxWidth);
        TimeStepRank = ConfigRules.TimeStepRank(file, "time_step_rank", HiddenSize);
        TimeStepScale = file.Float("time_step_scale", 1.0);
        ProjectionNormEpsilon = isFalcon ? file.Float("mixer_rms_eps", 1e-6) : null;
    }

    /// <summary>Width of the scan.</summary>
    public required int InnerSize { get; init; }
    /// <summary>R, the rank of the projection of Δ.</summary>
    public required int TimeStepRank { get; init; }
    /// <summary>ε of the weightless norms on dt, B and C: Falcon-Mamba's; null for none.</summary>
    public double? ProjectionNormEpsilon { get; init; }
    /// <summary>Factor on the range of the fresh projection of Δ.</summary>
    public double TimeStepScale { get; init; } = 1;

    /// <summary>Reads a <c>config.json</c> of a Mamba or a Falcon-Mamba.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static MambaConfig Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return new MambaConfig(file, file.String("model_type") == "falcon_mamba");
    }

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    private ModelConfigFile NewFile()
    {
        Dictionary<string, object?> values = ProjectionNormEpsilon is null ? ToValues("MambaForCausalLM", "mamba", InnerSize) : ToValues("FalconMambaForCausalLM", "falcon_mamba", InnerSize);
        (values["intermediate_size"], values["time_step_rank"], values["time_step_scale"], values["time_step_init_scheme"]) = (InnerSize, TimeStepRank, TimeStepScale, "random");
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
            config.OutputScale, config.TimeStepMin, config.TimeStepMax, config.TimeStepFloor, config.TimeStepScale, (float?)config.ProjectionNormEpsilon);
        return () => new MambaMixer(options);
    }
}
