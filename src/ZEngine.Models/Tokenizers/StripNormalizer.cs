namespace ZEngine.Models;

/// <summary>Cuts white space from the ends.</summary>
internal sealed class StripNormalizer(bool left, bool right) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        if (left && text.Length > 0 && char.IsWhiteSpace(text[0])) isAtStart = false;
        if (left) text = text.TrimStart();
        return right ? text.TrimEnd() : text;
    }
}
