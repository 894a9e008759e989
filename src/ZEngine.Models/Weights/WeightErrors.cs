using System.Globalization;
using System.Text;

namespace ZEngine.Models;

/// <summary>One-line messages about files: whatever stands in a file, its text cannot break the line or flood the log.</summary>
internal static class WeightErrors
{
    private const int LongestQuote = 200;

    /// <summary>An error at <paramref name="path"/>: <c>path: message</c>.</summary>
    public static InvalidDataException Invalid(string path, string message, Exception? inner = null) => new($"{path}: {message}", inner);

    /// <summary>An error about one tensor: <c>path: tensor 'name' message</c>.</summary>
    public static InvalidDataException Tensor(string path, string name, string message) => new($"{path}: tensor {Quote(name)} {message}");

    /// <summary>The text in single quotes, control characters escaped, cut after 200 characters.</summary>
    public static string Quote(string text) => $"'{Line(text)}'";

    /// <summary>The text as part of one line.</summary>
    public static string Line(string text)
    {
        var line = new StringBuilder(Math.Min(text.Length, LongestQuote) + 8);
        foreach (char c in text.AsSpan(0, Math.Min(text.Length, LongestQuote)))
        {
            if (char.IsControl(c) || c is '\u2028' or '\u2029' || char.IsSurrogate(c)) line.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}");
            else line.Append(c);
        }
        if (text.Length > LongestQuote) line.Append('…');
        return line.ToString();
    }
}
