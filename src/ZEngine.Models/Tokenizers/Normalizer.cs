using System.Text;

namespace ZEngine.Models;

/// <summary>A step that rewrites text before it is cut.</summary>
internal abstract class Normalizer
{
    /// <param name="text">Well-formed text.</param>
    /// <param name="isAtStart">Cleared when characters at the front go away, because what follows then no longer begins where the user's
    /// text begins.</param>
    public abstract string Apply(string text, ref bool isAtStart);
}

/// <summary>One step after another.</summary>
internal sealed class NormalizerSequence(Normalizer[] steps) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        foreach (Normalizer step in steps) text = step.Apply(text, ref isAtStart);
        return text;
    }
}

/// <summary>Puts a text before any text that is not empty.</summary>
internal sealed class Prepend(string prefix) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart) => text.Length == 0 ? text : prefix + text;
}

/// <summary>Replaces the matches of a pattern by a text, taken literally.</summary>
internal sealed class Replace(SplitPattern pattern, string content) : Normalizer
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

/// <summary>Lower case, one character at a time, without regard to language.</summary>
internal sealed class Lowercase : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        if (Ascii.IsValid(text)) return text.ToLowerInvariant();
        var lower = new StringBuilder(text.Length);
        Span<char> units = stackalloc char[2];
        foreach (Rune rune in text.EnumerateRunes())
        {
            // The one character whose lower case is two; .NET keeps it as it is.
            if (rune.Value == 0x130) lower.Append("i\u0307");
            else lower.Append(units[..Rune.ToLowerInvariant(rune).EncodeToUtf16(units)]);
        }
        return lower.ToString();
    }
}

/// <summary>Cuts white space from the ends.</summary>
internal sealed class Strip(bool left, bool right) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        if (left && text.Length > 0 && char.IsWhiteSpace(text[0])) isAtStart = false;
        if (left) text = text.TrimStart();
        return right ? text.TrimEnd() : text;
    }
}

/// <summary>Drops combining marks.</summary>
internal sealed class StripAccents : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        var kept = new StringBuilder(text.Length);
        bool isFirst = true;
        foreach (Rune rune in text.EnumerateRunes())
        {
            bool isMark = UnicodeText.IsMark(rune);
            if (isMark && isFirst) isAtStart = false;
            if (!isMark) kept.Append(rune.ToString());
            isFirst = false;
        }
        return kept.ToString();
    }
}

/// <summary>Writes the UTF-8 bytes in the byte alphabet.</summary>
internal sealed class ByteLevelNormalizer : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        var mapped = new char[text.Length * 3];
        return new(mapped, 0, ByteLevel.WriteBytes(text, mapped));
    }
}

/// <summary>A Unicode normalization form.</summary>
internal sealed class UnicodeForm(NormalizationForm form) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart) => UnicodeNormalizer.Normalize(text, form);
}
