namespace ZEngine.Training;

/// <summary>How prompts and answers become rows.</summary>
public sealed record AnswerOptions
{
    /// <summary>Inputs of a row, L: prompt and answer together may have one token more, since the last is a target alone.</summary>
    public required int Length { get; init; }

    /// <summary>All tokens are below this number.</summary>
    public required int Vocabulary { get; init; }

    /// <summary>Chooses the order.</summary>
    public ulong Seed { get; init; }

    /// <summary>A token put before every prompt; null for none.</summary>
    public int? Begin { get; init; }

    /// <summary>A token put behind every answer and learned with it; null for none.</summary>
    public int? End { get; init; }

    /// <summary>What is done with what does not fit.</summary>
    public OverlongRule Overlong { get; init; }
}
