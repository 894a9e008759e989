using System.Globalization;

namespace ZEngine.Models;

/// <summary>Looks up <see cref="CharKind"/> by table.</summary>
internal static class CharKinds
{
    private static readonly CharKind[] Table = MakeTable();

    /// <summary>The kind and the length in chars of the character at <paramref name="i"/> of well-formed text.</summary>
    public static CharKind At(ReadOnlySpan<char> text, int i, out int length)
    {
        char c = text[i];
        if (!char.IsHighSurrogate(c))
        {
            length = 1;
            return Table[c];
        }
        length = 2;
        return Kind(CharUnicodeInfo.GetUnicodeCategory(char.ConvertToUtf32(c, text[i + 1])));
    }

    private static CharKind Kind(UnicodeCategory category) => category switch
    {
        <= UnicodeCategory.OtherLetter => CharKind.Letter,
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => CharKind.Number,
        _ => CharKind.Other,
    };

    private static CharKind[] MakeTable()
    {
        var table = new CharKind[char.MaxValue + 1];
        for (int c = 0; c <= char.MaxValue; c++)
            table[c] = char.IsWhiteSpace((char)c) ? CharKind.Space : Kind(CharUnicodeInfo.GetUnicodeCategory((char)c));
        return table;
    }
}
