namespace ZEngine.Models;

/// <summary>A step that rewrites text before it is cut.</summary>
internal abstract class Normalizer
{
    /// <param name="text">Well-formed text.</param>
    /// <param name="isAtStart">Cleared when characters at the front go away, because what follows then no longer begins where the user's
    /// text begins.</param>
    public abstract string Apply(string text, ref bool isAtStart);
}
