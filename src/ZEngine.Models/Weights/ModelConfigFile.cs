using System.Text;
using System.Text.Json;

namespace ZEngine.Models;

/// <summary>A <c>config.json</c>: read with types, saved as the bytes it came as.</summary>
public sealed class ModelConfigFile : ModelConfigObject
{
    /// <summary>What the file is called in a checkpoint folder.</summary>
    public const string FileName = "config.json";

    private readonly byte[] _text;

    private ModelConfigFile(string path, byte[] text, JsonElement root) : base(path, "", root) => _text = text;

    /// <summary>The text as it was read.</summary>
    public string Text => Encoding.UTF8.GetString(_text);

    /// <summary>Reads a file.</summary>
    /// <exception cref="InvalidDataException">It is not one JSON object with distinct keys; one line that names the file.</exception>
    /// <exception cref="IOException">It is missing or cannot be read.</exception>
    public static ModelConfigFile Open(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        return Parse(JsonFile.ReadBytes(path), path);
    }

    /// <summary>Reads the text of a file; the bare tokens Infinity, -Infinity and NaN of Python count as numbers.</summary>
    /// <param name="text">UTF-8, with or without a byte order mark.</param>
    /// <param name="path">What error messages call it.</param>
    /// <exception cref="InvalidDataException">The text is not one JSON object with distinct keys; one line.</exception>
    public static ModelConfigFile Parse(ReadOnlySpan<byte> text, string path = FileName)
    {
        ReadOnlySpan<byte> json = text.StartsWith(Encoding.UTF8.Preamble) ? text[Encoding.UTF8.Preamble.Length..] : text;
        return new ModelConfigFile(path, text.ToArray(), JsonFile.ParseObject(WithoutBareTokens(json), path));
    }

    /// <summary>Makes a configuration from values, spelled as transformers spells its files: sorted keys, indented by two, a final newline.</summary>
    /// <param name="values">Null, bool, int, long, float, double, string, lists of these, and dictionaries from string to object.</param>
    /// <exception cref="ArgumentException">A key is given twice, or a value has another type.</exception>
    public static ModelConfigFile Create(IEnumerable<KeyValuePair<string, object?>> values)
    {
        ArgumentNullException.ThrowIfNull(values);
        return Parse(Encoding.UTF8.GetBytes(PythonJson.Document(values)));
    }

    /// <summary>Writes the text crash-safely, byte for byte.</summary>
    public void Save(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        DurableFile.Write(path, stream => stream.Write(_text));
    }

    /// <summary>Replaces Infinity, -Infinity and NaN outside strings by the objects that newer files have in their place.</summary>
    private static ReadOnlySpan<byte> WithoutBareTokens(ReadOnlySpan<byte> json)
    {
        if (json.IndexOf("Infinity"u8) < 0 && json.IndexOf("NaN"u8) < 0) return json;
        var replaced = new MemoryStream(json.Length + 256);
        bool isString = false;
        for (int i = 0; i < json.Length; i++)
        {
            if (isString)
            {
                replaced.WriteByte(json[i]);
                if (json[i] == (byte)'"') isString = false;
                else if (json[i] == (byte)'\\' && i + 1 < json.Length) replaced.WriteByte(json[++i]);
                continue;
            }
            string? token = BareToken(json, i);
            if (token is null)
            {
                isString = json[i] == (byte)'"';
                replaced.WriteByte(json[i]);
                continue;
            }
            replaced.Write(Encoding.ASCII.GetBytes($$"""{"__float__":"{{token}}"}"""));
            i += token.Length - 1;
        }
        return replaced.ToArray();
    }

    // A token glued to other letters or digits is no token; the JSON parser then refuses it.
    private static string? BareToken(ReadOnlySpan<byte> json, int at)
    {
        if (at > 0 && IsWord(json[at - 1])) return null;
        foreach (string token in (ReadOnlySpan<string>)["Infinity", "-Infinity", "NaN"])
        {
            if (json.Length - at < token.Length || !Ascii.Equals(json.Slice(at, token.Length), token)) continue;
            return at + token.Length < json.Length && IsWord(json[at + token.Length]) ? null : token;
        }
        return null;
    }

    private static bool IsWord(byte b) => char.IsAsciiLetterOrDigit((char)b) || b is (byte)'_' or (byte)'-' or (byte)'+' or (byte)'.';
}
