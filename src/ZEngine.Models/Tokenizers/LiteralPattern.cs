namespace ZEngine.Models;

/// <summary>Finds a literal.</summary>
internal sealed class LiteralPattern(string literal) : SplitPattern
{
    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        for (int from = 0, at; (at = text[from..].IndexOf(literal, StringComparison.Ordinal)) >= 0;)
        {
            matches.Add((from + at, from + at + literal.Length));
            from += at + literal.Length;
        }
    }
}
