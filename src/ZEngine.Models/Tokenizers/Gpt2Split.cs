namespace ZEngine.Models;

/// <summary>GPT-2's split, by hand. Its matches tile the text.</summary>
internal sealed class Gpt2Split : SplitPattern
{
    public const string Regex = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        for (int start = 0, end; start < text.Length; start = end)
        {
            end = End(text, start);
            matches.Add((start, end));
        }
    }

    private static int End(ReadOnlySpan<char> text, int start)
    {
        if (text[start] == '\'')
        {
            int contraction = Contraction(text[(start + 1)..]);
            if (contraction > 0) return start + 1 + contraction;
        }
        int run = text[start] == ' ' && start + 1 < text.Length ? start + 1 : start;
        CharKind kind = CharKinds.At(text, run, out int length);
        if (kind == CharKind.Space) return SpacesEnd(text, start);
        return RunEnd(text, run + length, kind);
    }

    private static int Contraction(ReadOnlySpan<char> rest)
    {
        if (rest.IsEmpty) return 0;
        if (rest[0] is 's' or 't' or 'm' or 'd') return 1;
        if (rest.Length < 2) return 0;
        return (rest[0], rest[1]) is ('r', 'e') or ('v', 'e') or ('l', 'l') ? 2 : 0;
    }

    internal static int RunEnd(ReadOnlySpan<char> text, int at, CharKind kind)
    {
        while (at < text.Length && CharKinds.At(text, at, out int length) == kind) at += length;
        return at;
    }

    /// <summary><c>\s+(?!\S)|\s+</c>: all of the spaces, less the last if something follows and more than one would be left.</summary>
    internal static int SpacesEnd(ReadOnlySpan<char> text, int start)
    {
        int end = RunEnd(text, start, CharKind.Space);
        return end < text.Length && end - start > 1 ? end - 1 : end;
    }
}
