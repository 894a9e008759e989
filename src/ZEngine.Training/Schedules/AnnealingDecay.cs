namespace ZEngine.Training;

/// <summary>How an <see cref="AnnealingSchedule"/> falls.</summary>
public enum AnnealingDecay
{
    /// <summary>Half a cosine.</summary>
    Cosine,
    /// <summary>By the same factor in every step; needs a floor above 0.</summary>
    Exponential,
}
