using System.Text;
using System.Text.RegularExpressions;

namespace ZEngine.Models;

/// <summary>A way to find non-overlapping matches in text, left to right.</summary>
internal abstract class SplitPattern
{
    /// <summary>Appends the start and end of every match.</summary>
    public abstract void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches);

    /// <summary>The text with every match replaced by <paramref name="content"/>, taken literally.</summary>
    public string Replace(string text, string content)
    {
        var matches = new List<(int Start, int End)>();
        FindAll(text, matches);
        if (matches.Count == 0) return text;
        var replaced = new StringBuilder(text.Length);
        int done = 0;
        foreach ((int start, int end) in matches)
        {
            replaced.Append(text, done, start - done).Append(content);
            done = end;
        }
        return replaced.Append(text, done, text.Length - done).ToString();
    }

    /// <summary>The fastest matcher with the meaning of <paramref name="regex"/>.</summary>
    /// <exception cref="FormatException">The pattern is not supported.</exception>
    public static SplitPattern FromRegex(string regex) => regex switch
    {
        Gpt2Split.Regex => new Gpt2Split(),
        Llama3Split.Regex => new Llama3Split(maxDigits: 3),
        Llama3Split.SingleDigitRegex => new Llama3Split(maxDigits: 1),
        _ => new RegexPattern(regex),
    };
}

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

/// <summary>Finds the matches of a regular expression over characters, not over UTF-16 units.</summary>
internal sealed class RegexPattern : SplitPattern
{
    // No sane split takes seconds for one match; a pattern that backtracks without end must not take the process with it.
    private static readonly TimeSpan MatchTimeout = TimeSpan.FromSeconds(10);
    private readonly Regex _regex;

    public RegexPattern(string pattern, TimeSpan? matchTimeout = null)
    {
        string translated = RegexDialect.Translate(pattern);
        try
        {
            _regex = new Regex(translated, RegexOptions.CultureInvariant | RegexOptions.Compiled, matchTimeout ?? MatchTimeout);
        }
        catch (ArgumentException e)
        {
            throw new FormatException(e.Message, e);
        }
    }

    public override void FindAll(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        if (text.IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            Find(text, matches);
            return;
        }
        // .NET matches UTF-16 units: outside the basic plane it would see two of category Cs. One stand-in of the character's own
        // category takes their place, and the positions are mapped back.
        var narrow = new char[text.Length];
        var origin = new int[text.Length + 1];
        int count = 0, at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            origin[count] = at;
            narrow[count++] = rune.IsBmp ? (char)rune.Value : RegexDialect.StandIn(rune);
            at += rune.Utf16SequenceLength;
        }
        origin[count] = at;
        int first = matches.Count;
        Find(narrow.AsSpan(0, count), matches);
        for (int i = first; i < matches.Count; i++) matches[i] = (origin[matches[i].Start], origin[matches[i].End]);
    }

    private void Find(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        int end = -1;
        foreach (ValueMatch match in _regex.EnumerateMatches(text))
        {
            // The reference takes no empty match where the last match ended.
            if (match.Length == 0 && match.Index == end) continue;
            end = match.Index + match.Length;
            matches.Add((match.Index, end));
        }
    }
}
