using System.Diagnostics.CodeAnalysis;

namespace ZEngine.Models;

/// <summary>Configuration of <see cref="Mamba2"/>, as in Hugging Face's <c>Mamba2Config</c>.</summary>
public sealed record Mamba2Config : MixerStackConfig
{
    /// <summary>A configuration of one's own: N = 128.</summary>
    public Mamba2Config() => StateSize = 128;

    [SetsRequiredMembers]
    private Mamba2Config(ModelConfigFile file) : base(file, vocabularySize: 32768, hiddenSize: 4096, layers: 64, stateSize: 128, isTied: false)
    {
        Heads = file.Int("num_heads", 128, max: ConfigRules.MaxWidth);
        HeadDimension = file.Int("head_dim", 64, max: ConfigRules.MaxWidth);
        Groups = file.Int("n_groups", 8, max: ConfigRules.MaxWidth);
        if (ExpandedSize(file) is var inner && inner != (long)Heads * HeadDimension)
            throw file.Error("num_heads", $"times head_dim must be hidden_size times expand = {inner}, got {Heads} times {HeadDimension}");
        if (!file.Bool("rms_norm", true)) throw file.Error("rms_norm", "must be true");
        double[] limit = file.FloatList("time_step_limit", [0, double.PositiveInfinity], allowNonFinite: true);
        if (limit.Length != 2) throw file.Error("time_step_limit", $"must be two numbers, got {limit.Length}");
        TimeStepLimit = (limit[0], limit[1]);
        ConfigRules.Ignore(file, "chunk_size", "time_step_rank");
    }

    /// <summary>H; heads times head dimension is the inner width.</summary>
    public required int Heads { get; init; }
    /// <summary>P.</summary>
    public int HeadDimension { get; init; } = 64;
    /// <summary>G.</summary>
    public int Groups { get; init; } = 1;
    /// <summary>Least and largest Δ.</summary>
    public (double Min, double Max) TimeStepLimit { get; init; } = (0, double.PositiveInfinity);

    /// <summary>Reads a <c>config.json</c>.</summary>
    /// <exception cref="InvalidDataException">A value is missing, wrong or not supported.</exception>
    public static Mamba2Config Read(ModelConfigFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return new Mamba2Config(file);
    }

    /// <summary>The configuration as a file: the one it was read from while that says the same, or a new one.</summary>
    internal ModelConfigFile ToFile() => ConfigRules.FileOf(File, this, static file => Read(file), static config => config.NewFile());

    private ModelConfigFile NewFile()
    {
        Dictionary<string, object?> values = ToValues("Mamba2ForCausalLM", "mamba2", (long)Heads * HeadDimension);
        (values["num_heads"], values["head_dim"], values["n_groups"], values["rms_norm"]) = (Heads, HeadDimension, Groups, true);
        (values["time_step_limit"], values["chunk_size"]) = (new[] { TimeStepLimit.Min, TimeStepLimit.Max }, 256);
        return ModelConfigFile.Create(values);
    }
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
            config.OutputScale, config.TimeStepMin, config.TimeStepMax, config.TimeStepFloor);
        options.Validate(nameof(Mamba2));
        return () => new Mamba2Mixer(options);
    }
}
