namespace ZEngine.Training;

/// <summary>What a <see cref="LoraAdapter"/> covers, and with how many numbers.</summary>
public sealed record LoraOptions
{
    /// <summary>R, the rank of the change of a matrix.</summary>
    public int Rank { get; init; } = 8;

    /// <summary>α: the change of a matrix is scaled by α / R. The change of a vector is not scaled.</summary>
    public float Alpha { get; init; } = 16;

    /// <summary>
    /// Names of modules or parameters: one or more whole segments of the dotted path, such as <c>in_proj</c>, <c>conv1d</c>, <c>A_log</c>,
    /// <c>D</c> or <c>layers.3.mixer</c>. Biases of layers are covered only where a target names them, such as <c>conv1d.bias</c>.
    /// Null covers every matrix but the embedding and the head: all projections, out_proj included.
    /// </summary>
    public IReadOnlyList<string>? Targets { get; init; }

    internal void RequireValid()
    {
        if (Rank < 1) throw new ArgumentException($"LoraOptions.Rank must be at least 1, got {Rank}.");
        if (!(Alpha > 0) || !float.IsFinite(Alpha)) throw new ArgumentException($"LoraOptions.Alpha must be a positive number, got {Alpha}.");
        if (Targets is { Count: 0 }) throw new ArgumentException("LoraOptions.Targets is empty; name what to adapt, or give null for every projection.");
        if (Targets is not null && Targets.Any(string.IsNullOrWhiteSpace)) throw new ArgumentException("LoraOptions.Targets has an empty name.");
    }
}
