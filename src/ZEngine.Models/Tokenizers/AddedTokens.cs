using System.Buffers;
using System.Text;

namespace ZEngine.Models;

/// <summary>Finds added tokens in text: the leftmost, and of those the longest.</summary>
internal sealed class AddedTokens
{
    private readonly Node _root = new();
    private readonly SearchValues<char> _firstChars;

    /// <param name="tokens">The tokens with the text to look for, which is not empty.</param>
    public AddedTokens(IReadOnlyCollection<(string Text, AddedToken Token)> tokens)
    {
        Count = tokens.Count;
        foreach ((string text, AddedToken token) in tokens)
        {
            Node node = _root;
            foreach (char c in text)
            {
                if (!node.Next.TryGetValue(c, out Node? next)) node.Next.Add(c, next = new());
                node = next;
            }
            node.Token ??= token;
        }
        _firstChars = SearchValues.Create([.. _root.Next.Keys]);
    }

    public int Count { get; }

    /// <summary>Finds the next token.</summary>
    /// <param name="text">The whole text.</param>
    /// <param name="done">Where the text not yet used begins; stripping does not reach back beyond it.</param>
    /// <param name="from">Where to search; moved past what was looked at.</param>
    /// <param name="start">Where the match begins, with the white space it strips.</param>
    /// <param name="end">Where it ends.</param>
    /// <param name="token">The token.</param>
    public bool TryFind(ReadOnlySpan<char> text, int done, ref int from, out int start, out int end, out AddedToken token)
    {
        while (from < text.Length)
        {
            int at = text[from..].IndexOfAny(_firstChars);
            if (at < 0) break;
            start = from + at;
            AddedToken? match = Longest(text[start..], out int length);
            if (match is null)
            {
                from = start + 1;
                continue;
            }
            // A match that fails the single word test still uses up its text, as in the reference.
            from = end = start + length;
            if (match.IsSingleWord && (EndsWithWord(text[..start]) || StartsWithWord(text[end..]))) continue;
            if (match.StripsLeft)
                while (start > done && char.IsWhiteSpace(text[start - 1])) start--;
            if (match.StripsRight)
                while (end < text.Length && char.IsWhiteSpace(text[end])) end++;
            start = Math.Max(start, done);
            token = match;
            return true;
        }
        from = text.Length;
        (start, end, token) = (0, 0, null!);
        return false;
    }

    private AddedToken? Longest(ReadOnlySpan<char> text, out int length)
    {
        AddedToken? best = null;
        length = 0;
        Node node = _root;
        for (int i = 0; i < text.Length && node.Next.TryGetValue(text[i], out Node? next); i++)
        {
            node = next;
            if (node.Token is null) continue;
            best = node.Token;
            length = i + 1;
        }
        return best;
    }

    private static bool StartsWithWord(ReadOnlySpan<char> text) =>
        Rune.DecodeFromUtf16(text, out Rune rune, out _) == OperationStatus.Done && UnicodeText.IsWord(rune);

    private static bool EndsWithWord(ReadOnlySpan<char> text) =>
        Rune.DecodeLastFromUtf16(text, out Rune rune, out _) == OperationStatus.Done && UnicodeText.IsWord(rune);

    private sealed class Node
    {
        public Dictionary<char, Node> Next { get; } = [];

        public AddedToken? Token { get; set; }
    }
}
