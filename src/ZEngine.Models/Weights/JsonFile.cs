using System.Text.Json;
using System.Text.Unicode;

namespace ZEngine.Models;

/// <summary>Reads JSON files that people and programs wrote, into documents whose every string can be read.</summary>
internal static class JsonFile
{
    /// <summary>The limit for index and configuration files; the largest known index has a few megabytes.</summary>
    public const int MaxBytes = 100_000_000;

    /// <summary>The file's bytes.</summary>
    public static byte[] ReadBytes(string path)
    {
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
        if (stream.Length > MaxBytes) throw WeightErrors.Invalid(path, $"{stream.Length} bytes are above the limit of {MaxBytes} for a JSON file.");
        byte[] bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        return bytes;
    }

    /// <summary>Parses one JSON object; names are distinct within each object, and every name and string is a valid string.</summary>
    /// <exception cref="InvalidDataException">The text is anything else; one line.</exception>
    public static JsonElement ParseObject(ReadOnlySpan<byte> json, string path)
    {
        if (!Utf8.IsValid(json)) throw WeightErrors.Invalid(path, "not valid UTF-8.");
        try
        {
            var reader = new Utf8JsonReader(json);
            using JsonDocument document = JsonDocument.ParseValue(ref reader);
            if (reader.Read()) throw WeightErrors.Invalid(path, "the text goes on behind its object.");
            JsonElement root = document.RootElement.Clone();
            if (root.ValueKind != JsonValueKind.Object) throw WeightErrors.Invalid(path, $"must be a JSON object, got {Describe(root)}.");
            RequireReadable(root, path);
            return root;
        }
        catch (JsonException e)
        {
            throw WeightErrors.Invalid(path, $"not valid JSON at line {(e.LineNumber ?? 0) + 1}, byte {(e.BytePositionInLine ?? 0) + 1}.", e);
        }
        catch (InvalidOperationException e)
        {
            // Valid UTF-8 can still escape half of a surrogate pair.
            throw WeightErrors.Invalid(path, "a string escapes half a surrogate pair.", e);
        }
    }

    /// <summary>The value as an error message shows it.</summary>
    public static string Describe(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        _ => WeightErrors.Line(value.GetRawText()),
    };

    private static void RequireReadable(JsonElement element, string path)
    {
        if (element.ValueKind == JsonValueKind.Object)
        {
            var names = new HashSet<string>(StringComparer.Ordinal);
            foreach (JsonProperty member in element.EnumerateObject())
            {
                if (!names.Add(member.Name)) throw WeightErrors.Invalid(path, $"the key {WeightErrors.Quote(member.Name)} stands twice in one object.");
                RequireReadable(member.Value, path);
            }
        }
        else if (element.ValueKind == JsonValueKind.Array)
        {
            foreach (JsonElement item in element.EnumerateArray()) RequireReadable(item, path);
        }
        else if (element.ValueKind == JsonValueKind.String)
        {
            _ = element.GetString();
        }
    }
}
