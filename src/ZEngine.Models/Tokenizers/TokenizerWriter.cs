using System.Text.Encodings.Web;
using System.Text.Json;

namespace ZEngine.Models;

/// <summary>Writes <c>tokenizer.json</c>.</summary>
internal static class TokenizerWriter
{
    private static readonly JsonWriterOptions Options = new() { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Writes the file, and the configuration beside it when <paramref name="path"/> is a folder.</summary>
    public static void Save(string path, byte[] json, byte[]? config)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (path.EndsWith(".json", StringComparison.OrdinalIgnoreCase) && !Directory.Exists(path))
        {
            File.WriteAllBytes(path, json);
            return;
        }
        Directory.CreateDirectory(path);
        File.WriteAllBytes(Path.Combine(path, "tokenizer.json"), json);
        if (config is not null) File.WriteAllBytes(Path.Combine(path, SpecialRoles.ConfigFileName), config);
    }

    /// <summary>The JSON of a tokenizer.</summary>
    /// <param name="texts">Spellings by id; null where the model has no token.</param>
    /// <param name="merges">Pairs in rank order.</param>
    /// <param name="added">The added tokens.</param>
    /// <param name="sections">The JSON of the steps, by name.</param>
    /// <param name="model">The model's switches.</param>
    public static byte[] Write(ReadOnlySpan<string?> texts, IEnumerable<(int Left, int Right)> merges, IEnumerable<AddedToken> added,
        IReadOnlyDictionary<string, string> sections, ModelSettings model)
    {
        using var stream = new MemoryStream();
        using var json = new Utf8JsonWriter(stream, Options);
        json.WriteStartObject();
        json.WriteString("version", "1.0");
        json.WriteNull("truncation");
        json.WriteNull("padding");
        WriteAdded(json, added);
        foreach (string name in PipelineReader.Sections)
        {
            json.WritePropertyName(name);
            json.WriteRawValue(sections[name]);
        }
        WriteModel(json, texts, merges, model);
        json.WriteEndObject();
        json.Flush();
        return stream.ToArray();
    }

    /// <summary>The JSON of a byte-level tokenizer whose texts need no normalizer and no template.</summary>
    public static byte[] ByteLevel(ReadOnlySpan<string?> texts, IEnumerable<(int Left, int Right)> merges, IEnumerable<AddedToken> added, bool useRegex)
    {
        string step = $$"""{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":{{(useRegex ? "true" : "false")}}}""";
        var sections = new Dictionary<string, string>
        {
            ["normalizer"] = "null",
            ["pre_tokenizer"] = step,
            ["post_processor"] = "null",
            ["decoder"] = step,
        };
        return Write(texts, merges, added, sections, new(null, false, false, false));
    }

    private static void WriteAdded(Utf8JsonWriter json, IEnumerable<AddedToken> added)
    {
        json.WriteStartArray("added_tokens");
        foreach (AddedToken token in added)
        {
            json.WriteStartObject();
            json.WriteNumber("id", token.Id);
            json.WriteString("content", token.Content);
            json.WriteBoolean("single_word", token.IsSingleWord);
            json.WriteBoolean("lstrip", token.StripsLeft);
            json.WriteBoolean("rstrip", token.StripsRight);
            json.WriteBoolean("normalized", token.IsNormalized);
            json.WriteBoolean("special", token.IsSpecial);
            json.WriteEndObject();
        }
        json.WriteEndArray();
    }

    private static void WriteModel(Utf8JsonWriter json, ReadOnlySpan<string?> texts, IEnumerable<(int Left, int Right)> merges, ModelSettings model)
    {
        json.WriteStartObject("model");
        json.WriteString("type", "BPE");
        json.WriteNull("dropout");
        json.WriteString("unk_token", model.UnknownText);
        json.WriteNull("continuing_subword_prefix");
        json.WriteNull("end_of_word_suffix");
        json.WriteBoolean("fuse_unk", model.FusesUnknown);
        json.WriteBoolean("byte_fallback", model.HasByteFallback);
        json.WriteBoolean("ignore_merges", model.IgnoresMerges);
        json.WriteStartObject("vocab");
        for (int id = 0; id < texts.Length; id++)
            if (texts[id] is { } text) json.WriteNumber(text, id);
        json.WriteEndObject();
        json.WriteStartArray("merges");
        foreach ((int left, int right) in merges)
        {
            json.WriteStartArray();
            json.WriteStringValue(texts[left]);
            json.WriteStringValue(texts[right]);
            json.WriteEndArray();
        }
        json.WriteEndArray();
        json.WriteEndObject();
    }
}
