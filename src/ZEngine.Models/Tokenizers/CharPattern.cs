using System.Text;

namespace ZEngine.Models;

/// <summary>Finds single characters of a class.</summary>
internal sealed class CharPattern(Func<Rune, bool> contains) : SplitPattern
{
    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (contains(rune)) matches.Add((at, at + rune.Utf16SequenceLength));
            at += rune.Utf16SequenceLength;
        }
    }
}
