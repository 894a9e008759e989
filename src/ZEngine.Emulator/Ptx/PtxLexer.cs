namespace ZEngine.Emulator.Ptx;

internal enum TokenKind : byte { End, Word, Directive, Number, Text, Punctuation }

internal readonly record struct Token(TokenKind Kind, string Text, int Line)
{
    public bool Is(char c) => Kind == TokenKind.Punctuation && Text[0] == c;
}

/// <summary>
/// Splits PTX into tokens. An opcode with its modifiers is one word (<c>ld.global.v4.f32</c>), as is a register with its component
/// (<c>%tid.x</c>); a directive begins with a dot.
/// </summary>
internal static class PtxLexer
{
    public static List<Token> Tokens(string text)
    {
        var tokens = new List<Token>(text.Length / 4);
        int line = 1;
        for (int i = 0; i < text.Length;)
        {
            char c = text[i];
            if (c == '\n') line++;
            if (char.IsWhiteSpace(c) || c == '\0')
            {
                i++;
            }
            else if (c == '/' && i + 1 < text.Length && text[i + 1] == '/')
            {
                while (i < text.Length && text[i] != '\n') i++;
            }
            else if (c == '/' && i + 1 < text.Length && text[i + 1] == '*')
            {
                int end = text.IndexOf("*/", i, StringComparison.Ordinal);
                end = end < 0 ? text.Length : end + 2;
                for (; i < end; i++) if (text[i] == '\n') line++;
            }
            else if (c == '"')
            {
                int end = text.IndexOf('"', i + 1);
                tokens.Add(new Token(TokenKind.Text, text[(i + 1)..end], line));
                i = end + 1;
            }
            else if (char.IsAsciiDigit(c))
            {
                int start = i;
                bool isPrefixed = c == '0' && i + 1 < text.Length && char.IsAsciiLetter(text[i + 1]);      // 0x.. 0f.. 0d.. 0b..
                while (i < text.Length && (char.IsAsciiLetterOrDigit(text[i]) || !isPrefixed && IsPartOfDecimal(text, i))) i++;
                tokens.Add(new Token(TokenKind.Number, text[start..i], line));
            }
            else if (char.IsAsciiLetter(c) || c is '_' or '%' or '$' or '.')
            {
                int start = i++;
                while (i < text.Length && (char.IsAsciiLetterOrDigit(text[i]) || text[i] is '_' or '$' or '.' || text[i] == ':' && IsScopeColon(text, i))) i += text[i] == ':' ? 2 : 1;
                tokens.Add(new Token(c == '.' ? TokenKind.Directive : TokenKind.Word, text[start..i], line));
            }
            else
            {
                tokens.Add(new Token(TokenKind.Punctuation, c.ToString(), line));
                i++;
            }
        }
        tokens.Add(new Token(TokenKind.End, "", line));
        return tokens;
    }

    // The two colons inside a modifier such as L1::no_allocate; the single colon after a label is no part of the name.
    private static bool IsScopeColon(string text, int i) =>
        i + 2 < text.Length && text[i + 1] == ':' && char.IsAsciiLetterOrDigit(text[i + 2]);

    private static bool IsPartOfDecimal(string text, int i) =>
        text[i] == '.' || text[i] is '+' or '-' && text[i - 1] is 'e' or 'E';
}
