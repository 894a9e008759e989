using System.Text;

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
