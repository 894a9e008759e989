using System.Text.Json;

namespace ZEngine.Models;

/// <summary>How rotary frequencies are stretched for sequences longer than those of the first training.</summary>
public enum RotaryScaling
{
    /// <summary>Not at all.</summary>
    Default,
    /// <summary>Positions are divided by the factor.</summary>
    Linear,
    /// <summary>NTK-aware: beyond the trained length the base grows with the current length.</summary>
    Dynamic,
    /// <summary>YaRN: fast frequencies stay, slow ones are divided by the factor, those between are blended. arXiv:2309.00071.</summary>
    Yarn,
    /// <summary>Llama 3.1: like YaRN, with bounds on wavelengths.</summary>
    Llama3,
    /// <summary>LongRoPE: every frequency has its own divisor, one list for short and one for long sequences. arXiv:2402.13753.</summary>
    LongRope,
}

/// <summary>What a configuration says about rotary position embedding.</summary>
public sealed record RotaryOptions
{
    /// <summary>The base θ of the frequencies θ^(-2i/r).</summary>
    public double Theta { get; init; } = 10000;

    /// <summary>The share of a head's channels that rotates.</summary>
    public double PartialFactor { get; init; } = 1;

    /// <summary>The rule that stretches the frequencies.</summary>
    public RotaryScaling Scaling { get; init; } = RotaryScaling.Default;

    /// <summary>How far the frequencies are stretched; at least 1.</summary>
    public double Factor { get; init; } = 1;

    /// <summary>Positions the model is made for, null where a configuration does not say; Dynamic and LongRope need it.</summary>
    public int? MaxPositions { get; init; }

    /// <summary>Positions of the first training; null is <see cref="MaxPositions"/>.</summary>
    public int? OriginalMaxPositions { get; init; }

    /// <summary>What cosines and sines are multiplied with, for YaRN and LongRope; null is each rule's own formula.</summary>
    public double? AttentionFactor { get; init; }

    /// <summary>Whether cosines and sines are rounded to BFloat16, as the tables that Samba was trained with.</summary>
    public bool HasRoundedTables { get; init; }

    /// <summary>YaRN: the multiplier is m(mscale) / m(mscaleAllDim) where both are given and not 0.</summary>
    public double? Mscale { get; init; }

    /// <summary>YaRN: see <see cref="Mscale"/>.</summary>
    public double? MscaleAllDim { get; init; }

    /// <summary>YaRN: frequencies with more turns than this over the trained length stay.</summary>
    public double BetaFast { get; init; } = 32;

    /// <summary>YaRN: frequencies with fewer turns than this are divided by the factor.</summary>
    public double BetaSlow { get; init; } = 1;

    /// <summary>YaRN: whether the bounds of the blend are rounded outwards to whole pairs.</summary>
    public bool Truncate { get; init; } = true;

    /// <summary>Llama3: wavelengths above trained length / this are divided by the factor.</summary>
    public double LowFrequencyFactor { get; init; } = 1;

    /// <summary>Llama3: wavelengths below trained length / this stay.</summary>
    public double HighFrequencyFactor { get; init; } = 4;

    /// <summary>LongRope: the divisor of each pair up to the trained length.</summary>
    public IReadOnlyList<double> ShortFactors { get; init; } = [];

    /// <summary>LongRope: the divisor of each pair beyond the trained length.</summary>
    public IReadOnlyList<double> LongFactors { get; init; } = [];

    /// <summary>How many channels of a head rotate: an even number.</summary>
    /// <exception cref="ArgumentException">The share of the head is not an even number of channels.</exception>
    public int RotaryDimension(int headDimension)
    {
        int rotary = (int)(headDimension * PartialFactor);
        return rotary > 0 && rotary <= headDimension && rotary % 2 == 0
            ? rotary
            : throw new ArgumentException($"RotaryOptions: {PartialFactor} of {headDimension} channels is {rotary}, which must be a positive even number of at most {headDimension}.");
    }

    /// <summary>Reads both forms: <c>rope_parameters</c>, and the older <c>rope_theta</c> with <c>rope_scaling</c>, in which <c>type</c> stands for <c>rope_type</c>.</summary>
    /// <param name="config">The configuration of a model.</param>
    /// <param name="defaultTheta">θ where the file gives none.</param>
    /// <param name="layerType">The key of <c>rope_parameters</c> to read where the file gives them for each layer type.</param>
    /// <exception cref="InvalidDataException">An unknown rule, or values it cannot work with; one line that names the key.</exception>
    public static RotaryOptions Read(ModelConfigObject config, double defaultTheta = 10000, string? layerType = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        ModelConfigObject? old = config.ObjectOrNull("rope_scaling"), current = config.ObjectOrNull("rope_parameters");
        RotaryOptions common = new()
        {
            Theta = AtLeast(config, "rope_theta", defaultTheta, 1),
            PartialFactor = Share(config, 1),
            MaxPositions = config.IntOrNull("max_position_embeddings"),
            OriginalMaxPositions = config.IntOrNull("original_max_position_embeddings"),
        };
        RotaryOptions? fromOld = old is null ? null : ReadScaling(old, common);
        if (current is null) return fromOld ?? common;

        RotaryOptions options = ReadScaling(OfLayer(config, current, layerType), common);
        if (fromOld is not null && (fromOld.Scaling, fromOld.Factor) != (options.Scaling, options.Factor))
            throw config.Error("rope_scaling", $"says {fromOld.Scaling} with factor {fromOld.Factor}, but rope_parameters says {options.Scaling} with factor {options.Factor}.");
        return options;
    }

    /// <summary>The values of <c>rope_parameters</c>, as <see cref="Read"/> takes them; the key of <see cref="MaxPositions"/> stands beside them.</summary>
    internal Dictionary<string, object?> ToValues()
    {
        var values = new Dictionary<string, object?> { ["rope_type"] = Scaling.ToString().ToLowerInvariant(), ["rope_theta"] = Theta };
        if (PartialFactor != 1) values["partial_rotary_factor"] = PartialFactor;
        if (OriginalMaxPositions is int trained) values["original_max_position_embeddings"] = trained;
        if (Scaling != RotaryScaling.Default) values["factor"] = Factor;
        if (Scaling is RotaryScaling.Yarn or RotaryScaling.LongRope && AttentionFactor is double attention) values["attention_factor"] = attention;
        switch (Scaling)
        {
            case RotaryScaling.Yarn:
                (values["beta_fast"], values["beta_slow"], values["truncate"]) = (BetaFast, BetaSlow, Truncate);
                if (Mscale is double scale) values["mscale"] = scale;
                if (MscaleAllDim is double scaleAll) values["mscale_all_dim"] = scaleAll;
                break;
            case RotaryScaling.Llama3:
                (values["low_freq_factor"], values["high_freq_factor"]) = (LowFrequencyFactor, HighFrequencyFactor);
                break;
            case RotaryScaling.LongRope:
                (values["short_factor"], values["long_factor"]) = (ShortFactors.ToArray(), LongFactors.ToArray());
                break;
        }
        return values;
    }

    /// <summary>Equal values, the lists of divisors included.</summary>
    public bool Equals(RotaryOptions? other) =>
        other is not null &&
        (Theta, PartialFactor, Scaling, Factor, MaxPositions, OriginalMaxPositions, AttentionFactor, HasRoundedTables)
            == (other.Theta, other.PartialFactor, other.Scaling, other.Factor, other.MaxPositions, other.OriginalMaxPositions, other.AttentionFactor, other.HasRoundedTables) &&
        (Mscale, MscaleAllDim, BetaFast, BetaSlow, Truncate, LowFrequencyFactor, HighFrequencyFactor)
            == (other.Mscale, other.MscaleAllDim, other.BetaFast, other.BetaSlow, other.Truncate, other.LowFrequencyFactor, other.HighFrequencyFactor) &&
        ShortFactors.SequenceEqual(other.ShortFactors) && LongFactors.SequenceEqual(other.LongFactors);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(Theta, PartialFactor, Scaling, Factor, MaxPositions, OriginalMaxPositions, ShortFactors.Count, LongFactors.Count);

    private static ModelConfigObject OfLayer(ModelConfigObject config, ModelConfigObject parameters, string? layerType)
    {
        if (layerType is not null && parameters.Kind(layerType) == JsonValueKind.Object) return parameters.Object(layerType);
        string? nested = parameters.Keys.FirstOrDefault(key => parameters.Kind(key) == JsonValueKind.Object);
        return nested is null ? parameters : throw config.Error("rope_parameters", $"are given for each layer type, such as {nested}; {(layerType is null ? "the model must name one" : $"there is none for {layerType}")}.");
    }

    private static RotaryOptions ReadScaling(ModelConfigObject source, RotaryOptions common)
    {
        string? type = source.StringOrNull("rope_type"), alias = source.StringOrNull("type");
        int? inside = source.IntOrNull("original_max_position_embeddings");
        RotaryOptions options = common with
        {
            Theta = AtLeast(source, "rope_theta", common.Theta, 1),
            PartialFactor = Share(source, common.PartialFactor),
            OriginalMaxPositions = common.OriginalMaxPositions ?? inside,
            Scaling = Rule(source, type ?? alias),
        };
        return options.Scaling switch
        {
            RotaryScaling.Linear or RotaryScaling.Dynamic => options with { Factor = AtLeast(source, "factor", null, 1), MaxPositions = options.Scaling == RotaryScaling.Linear ? options.MaxPositions : Trained(source, options.MaxPositions) },
            RotaryScaling.Yarn => ReadYarn(source, options),
            RotaryScaling.Llama3 => ReadLlama3(source, options),
            RotaryScaling.LongRope => ReadLongRope(source, options),
            _ => options,
        };
    }

    private static RotaryScaling Rule(ModelConfigObject source, string? type) => type switch
    {
        null or "default" => RotaryScaling.Default,
        "linear" => RotaryScaling.Linear,
        "dynamic" => RotaryScaling.Dynamic,
        "yarn" => RotaryScaling.Yarn,
        "llama3" => RotaryScaling.Llama3,
        "longrope" or "su" => RotaryScaling.LongRope,
        _ => throw source.Error(source.Has("rope_type") ? "rope_type" : "type", $"must be default, linear, dynamic, yarn, llama3 or longrope, got {WeightErrors.Quote(type)}."),
    };

    private static RotaryOptions ReadYarn(ModelConfigObject source, RotaryOptions options)
    {
        int trained = Trained(source, options.OriginalMaxPositions ?? options.MaxPositions);
        double fast = AtLeast(source, "beta_fast", 0, 0), slow = AtLeast(source, "beta_slow", 0, 0);      // 0 stands for absent, as in the reference
        double? ratio = options.MaxPositions is int max ? Math.Max(1, (double)max / trained) : null;
        return options with
        {
            OriginalMaxPositions = trained,
            Factor = AtLeast(source, "factor", ratio, 1),
            AttentionFactor = Positive(source, "attention_factor"),
            Mscale = source.Has("mscale") ? AtLeast(source, "mscale", null, 0) : null,
            MscaleAllDim = source.Has("mscale_all_dim") ? AtLeast(source, "mscale_all_dim", null, 0) : null,
            BetaFast = fast == 0 ? 32 : fast,
            BetaSlow = slow == 0 ? 1 : slow,
            Truncate = source.Bool("truncate", true),
        };
    }

    private static RotaryOptions ReadLlama3(ModelConfigObject source, RotaryOptions options)
    {
        RotaryOptions llama = options with
        {
            Factor = AtLeast(source, "factor", null, 1),
            LowFrequencyFactor = AtLeast(source, "low_freq_factor", null, 0),
            HighFrequencyFactor = AtLeast(source, "high_freq_factor", null, 0),
            OriginalMaxPositions = Trained(source, options.OriginalMaxPositions ?? options.MaxPositions),
        };
        return llama.LowFrequencyFactor > 0 && llama.HighFrequencyFactor > llama.LowFrequencyFactor
            ? llama
            : throw source.Error("high_freq_factor", $"must be above low_freq_factor, and both above 0; got {llama.HighFrequencyFactor} and {llama.LowFrequencyFactor}.");
    }

    private static RotaryOptions ReadLongRope(ModelConfigObject source, RotaryOptions options)
    {
        int trained = Trained(source, options.OriginalMaxPositions ?? options.MaxPositions);
        double ratio = options.MaxPositions is int max ? (double)max / trained : 1;
        return options with
        {
            OriginalMaxPositions = trained,
            Factor = Math.Max(1, AtLeast(source, "factor", ratio, 0)),
            AttentionFactor = Positive(source, "attention_factor"),
            ShortFactors = Divisors(source, "short_factor"),
            LongFactors = Divisors(source, "long_factor"),
        };
    }

    private static int Trained(ModelConfigObject source, int? positions) =>
        positions ?? throw source.Error("original_max_position_embeddings", "is missing, and so is max_position_embeddings; one must be a positive integer.");

    private static double[] Divisors(ModelConfigObject source, string key)
    {
        double[] divisors = source.FloatList(key);
        return divisors.Length > 0 && Array.TrueForAll(divisors, divisor => divisor > 0) ? divisors : throw source.Error(key, "must be a list of positive numbers.");
    }

    private static double? Positive(ModelConfigObject source, string key)
    {
        if (!source.Has(key)) return null;
        double value = source.Float(key);
        return value > 0 ? value : throw source.Error(key, $"must be above 0, got {value}.");
    }

    private static double Share(ModelConfigObject source, double defaultValue)
    {
        double share = source.Float("partial_rotary_factor", defaultValue);
        return share is > 0 and <= 1 ? share : throw source.Error("partial_rotary_factor", $"must be above 0 and at most 1, got {share}.");
    }

    private static double AtLeast(ModelConfigObject source, string key, double? defaultValue, double least)
    {
        double value = source.Float(key, defaultValue);
        return value >= least ? value : throw source.Error(key, $"must be at least {least}, got {value}.");
    }
}
