using System.Text;

namespace ZEngine.Models;

/// <summary>Drops combining marks.</summary>
internal sealed class StripAccentsNormalizer : Normalizer
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
