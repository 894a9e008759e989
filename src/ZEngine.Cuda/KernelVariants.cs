namespace ZEngine.Cuda;

/// <summary>The header field <c>Variants</c> of a kernel file: every template instance that a launch may ask for.</summary>
/// <remarks>
/// Instances stand one after the other, separated by <c>;</c>. Braces hold alternatives separated by <c>|</c>, and each combination is an
/// instance: <c>norm_forward&lt;{f32|bf16}, {4|1}&gt;; norm_backward&lt;f32&gt;</c> are five.
/// </remarks>
internal static class KernelVariants
{
    private const string Field = "// Variants";

    public static IEnumerable<string> In(string source)
    {
        var text = new System.Text.StringBuilder();
        bool isInside = false;
        foreach (string line in source.Split('\n'))
        {
            if (!line.StartsWith("//", StringComparison.Ordinal)) break;
            if (line.StartsWith(Field, StringComparison.Ordinal)) (isInside, _) = (true, text.Append(line[Field.Length..].Trim()));
            else if (isInside && !line.StartsWith("//   ", StringComparison.Ordinal)) isInside = false;
            else if (isInside) text.Append(' ').Append(line[2..].Trim());
        }
        return text.ToString().Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).SelectMany(Expand);
    }

    private static IEnumerable<string> Expand(string pattern)
    {
        int open = pattern.IndexOf('{', StringComparison.Ordinal);
        if (open < 0) return [pattern];
        int close = pattern.IndexOf('}', open);
        if (close < 0) throw new FormatException($"Variants: {pattern} opens a brace that it does not close.");
        return from choice in pattern[(open + 1)..close].Split('|', StringSplitOptions.TrimEntries)
               from rest in Expand(pattern[(close + 1)..])
               select pattern[..open] + choice + rest;
    }
}
