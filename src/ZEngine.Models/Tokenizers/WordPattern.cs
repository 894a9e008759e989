using System.Text;

namespace ZEngine.Models;

/// <summary>Finds runs of word characters and runs of what is neither word character nor space: <c>\w+|[^\w\s]+</c>.</summary>
internal sealed class WordPattern : SplitPattern
{
    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        int at = 0, start = 0, kind = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            int next = UnicodeText.IsWord(rune) ? 1 : Rune.IsWhiteSpace(rune) ? 0 : 2;
            if (next != kind)
            {
                if (kind != 0) matches.Add((start, at));
                (start, kind) = (at, next);
            }
            at += rune.Utf16SequenceLength;
        }
        if (kind != 0) matches.Add((start, at));
    }
}
