namespace ZEngine.Models;

/// <summary>One step after another.</summary>
internal sealed class SequenceNormalizer(Normalizer[] steps) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        foreach (Normalizer step in steps) text = step.Apply(text, ref isAtStart);
        return text;
    }
}
