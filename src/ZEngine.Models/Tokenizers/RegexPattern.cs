using System.Text;
using System.Text.RegularExpressions;

namespace ZEngine.Models;

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
