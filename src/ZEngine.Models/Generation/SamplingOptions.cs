namespace ZEngine.Models;

/// <summary>How the next token is chosen. The filters act in the order of the members.</summary>
public sealed record SamplingOptions
{
    /// <summary>Tokens at most.</summary>
    public int MaxNewTokens { get; init; } = 256;

    /// <summary>Logits of tokens seen before are divided by this where positive and multiplied where negative; 1 for none. Keskar et al. 2019, arXiv:1909.05858.</summary>
    public float RepetitionPenalty { get; init; } = 1;

    /// <summary>Logits are divided by this; 0 takes the likeliest token.</summary>
    public float Temperature { get; init; } = 1;

    /// <summary>Only this many of the likeliest tokens; 0 for all.</summary>
    public int TopK { get; init; }

    /// <summary>Only the likeliest tokens whose probabilities together reach this; 1 for all. Holtzman et al. 2020, arXiv:1904.09751.</summary>
    public float TopP { get; init; } = 1;

    /// <summary>Only tokens at least this share as likely as the likeliest; 0 for all. Nguyen et al. 2024, arXiv:2407.01082.</summary>
    public float MinP { get; init; }

    /// <summary>Chooses the random numbers: the same seed, prompt and model give the same text.</summary>
    public ulong Seed { get; init; }

    /// <summary>Tokens that end the text; they are not returned.</summary>
    public IReadOnlyList<int> StopTokens { get; init; } = [];

    /// <summary>Takes the likeliest token always.</summary>
    public static SamplingOptions Greedy { get; } = new() { Temperature = 0 };

    internal void Validate()
    {
        Require(MaxNewTokens >= 0, nameof(MaxNewTokens), MaxNewTokens, "0 or more");
        Require(RepetitionPenalty > 0 && float.IsFinite(RepetitionPenalty), nameof(RepetitionPenalty), RepetitionPenalty, "above 0");
        Require(Temperature >= 0 && float.IsFinite(Temperature), nameof(Temperature), Temperature, "0 or more");
        Require(TopK >= 0, nameof(TopK), TopK, "0 or more");
        Require(TopP is > 0 and <= 1, nameof(TopP), TopP, "above 0 and at most 1");
        Require(MinP is >= 0 and <= 1, nameof(MinP), MinP, "from 0 to 1");
    }

    private static void Require<T>(bool holds, string name, T value, string range)
    {
        if (!holds) throw new ArgumentException($"SamplingOptions: {name} must be {range}, got {value}.");
    }
}
