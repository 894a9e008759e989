namespace ZEngine.Models;

/// <summary>Llama 3's split, by hand, and Qwen 2's, which differs in taking digits one by one. Its matches tile the text.</summary>
internal sealed class Llama3Split(int maxDigits) : SplitPattern
{
    public const string Regex = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    public const string SingleDigitRegex = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        for (int start = 0, end; start < text.Length; start = end)
        {
            end = End(text, start);
            matches.Add((start, end));
        }
    }

    private int End(ReadOnlySpan<char> text, int start)
    {
        char first = text[start];
        if (first == '\'')
        {
            int contraction = Contraction(text[(start + 1)..]);
            if (contraction > 0) return start + 1 + contraction;
        }
        CharKind kind = CharKinds.At(text, start, out int length);
        int next = start + length;
        if (kind == CharKind.Letter) return Gpt2Split.RunEnd(text, next, kind);
        if (kind == CharKind.Number) return DigitsEnd(text, next);

        CharKind nextKind = next < text.Length ? CharKinds.At(text, next, out length) : CharKind.Space;
        if (nextKind == CharKind.Letter && first is not ('\r' or '\n')) return Gpt2Split.RunEnd(text, next + length, nextKind);
        if (kind == CharKind.Other) return SymbolsEnd(text, next);
        if (first == ' ' && nextKind == CharKind.Other) return SymbolsEnd(text, next);

        int spaces = Gpt2Split.RunEnd(text, next, CharKind.Space);
        int newline = text[start..spaces].LastIndexOfAny('\r', '\n');
        return newline >= 0 ? start + newline + 1 : Gpt2Split.SpacesEnd(text, start);
    }

    private int DigitsEnd(ReadOnlySpan<char> text, int at)
    {
        for (int digits = 1; digits < maxDigits && at < text.Length; digits++)
        {
            if (CharKinds.At(text, at, out int length) != CharKind.Number) break;
            at += length;
        }
        return at;
    }

    private static int SymbolsEnd(ReadOnlySpan<char> text, int at)
    {
        at = Gpt2Split.RunEnd(text, at, CharKind.Other);
        while (at < text.Length && text[at] is '\r' or '\n') at++;
        return at;
    }

    private static int Contraction(ReadOnlySpan<char> rest)
    {
        if (rest.IsEmpty) return 0;
        char first = Fold(rest[0]);
        if (first is 's' or 't' or 'm' or 'd') return 1;
        if (rest.Length < 2) return 0;
        return (first, Fold(rest[1])) is ('r', 'e') or ('v', 'e') or ('l', 'l') ? 2 : 0;
    }

    // Of the letters here only s has a third form under Unicode case folding: the long s.
    private static char Fold(char c) => c == '\u017F' ? 's' : char.IsAscii(c) ? (char)(c | 0x20) : c;
}
