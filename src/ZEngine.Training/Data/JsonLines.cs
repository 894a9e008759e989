using System.Text;
using System.Text.Json;

namespace ZEngine.Training;

/// <summary>Reads files in which every line is a JSON object.</summary>
internal static class JsonLines
{
    private static readonly UTF8Encoding s_strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>The named strings of every line, and what error messages call the line; empty lines are passed over.</summary>
    /// <exception cref="InvalidDataException">A line is no object with these strings; one line that names file and line.</exception>
    public static IEnumerable<(string Name, string[] Values)> Read(string path, params string[] fields)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        int number = 0;
        using var reader = new StreamReader(path, s_strict);
        while (NextLine(reader, path, number) is { } line)
        {
            string name = FormattableString.Invariant($"{path}({++number}):");
            if (!string.IsNullOrWhiteSpace(line)) yield return (name, Fields(name, line, fields));
        }
    }

    private static string? NextLine(StreamReader reader, string path, int number)
    {
        try
        {
            return reader.ReadLine();
        }
        catch (DecoderFallbackException e)
        {
            throw new InvalidDataException($"{path}: not UTF-8 behind line {number}.", e);
        }
    }

    private static string[] Fields(string name, string line, string[] fields)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(line, new JsonDocumentOptions { AllowDuplicateProperties = false });
            JsonElement root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object) throw new InvalidDataException($"{name} is no JSON object.");
            return Array.ConvertAll(fields, field => root.TryGetProperty(field, out JsonElement value) && value.ValueKind == JsonValueKind.String
                ? value.GetString()!
                : throw new InvalidDataException($"{name} has no string \"{field}\"."));
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)        // the latter: half a surrogate pair
        {
            throw new InvalidDataException($"{name} is no JSON object ({e.Message.ReplaceLineEndings(" ")}).", e);
        }
    }
}
