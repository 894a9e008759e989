namespace ZEngine.Models;

/// <summary>Replaces the matches of a pattern by a text, taken literally.</summary>
internal sealed class ReplaceNormalizer(SplitPattern pattern, string content) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        if (content.Length == 0 && isAtStart)
        {
            var matches = new List<(int Start, int End)>();
            pattern.FindAll(text, matches);
            if (matches.Count > 0 && matches[0] is { Start: 0, End: > 0 }) isAtStart = false;
        }
        return pattern.Replace(text, content);
    }
}
