using System.Text;

namespace ZEngine.Models;

/// <summary>Lower case, one character at a time, without regard to language.</summary>
internal sealed class LowercaseNormalizer : Normalizer
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
