using System.Globalization;
using System.Text.Json;

namespace ZEngine.Models;

/// <summary>One object of a configuration: typed reading of its keys, with errors of one line that name file and key.</summary>
/// <remarks>
/// A key whose value is null counts as absent: readers give the default, or fail where there is none. Reading a key, present or not,
/// marks it as read. Not for several threads at once.
/// </remarks>
public class ModelConfigObject
{
    private readonly string _prefix;
    private readonly Dictionary<string, JsonElement> _values = new(StringComparer.Ordinal);
    private readonly HashSet<string> _read = new(StringComparer.Ordinal);
    private readonly Dictionary<string, ModelConfigObject> _objects = new(StringComparer.Ordinal);

    internal ModelConfigObject(string path, string prefix, JsonElement element)
    {
        Path = path;
        _prefix = prefix;
        foreach (JsonProperty member in element.EnumerateObject()) _values.Add(member.Name, member.Value);
    }

    /// <summary>The file as error messages name it.</summary>
    public string Path { get; }

    /// <summary>The keys, in file order.</summary>
    public IReadOnlyCollection<string> Keys => _values.Keys;

    /// <summary>The keys that nothing has read so far, with those of nested objects as <c>outer.inner</c>; in file order.</summary>
    public IReadOnlyList<string> UnreadKeys
    {
        get
        {
            var unread = new List<string>();
            foreach (string key in _values.Keys)
            {
                if (!_read.Contains(key)) unread.Add(_prefix + key);
                else if (_objects.TryGetValue(key, out ModelConfigObject? nested)) unread.AddRange(nested.UnreadKeys);
            }
            return unread;
        }
    }

    /// <summary>Declares that a key is known although its value does not matter.</summary>
    public void MarkRead(string key) => _read.Add(key);

    /// <summary>Whether the key is there with a value other than null. Does not count as reading it.</summary>
    public bool Has(string key) => _values.TryGetValue(key, out JsonElement value) && value.ValueKind != JsonValueKind.Null;

    /// <summary>The kind of the key's value; Undefined when it is absent. Does not count as reading it.</summary>
    public JsonValueKind Kind(string key) => _values.TryGetValue(key, out JsonElement value) ? value.ValueKind : JsonValueKind.Undefined;

    /// <summary>An integer within bounds.</summary>
    /// <param name="key">The key.</param>
    /// <param name="defaultValue">For an absent key; null makes the key required.</param>
    /// <param name="min">The least value a file may give; sizes and counts are positive.</param>
    /// <param name="max">The largest value a file may give.</param>
    public int Int(string key, int? defaultValue = null, int min = 1, int max = int.MaxValue) =>
        Take(key) is JsonElement value ? Integer(value, key, min, max) : defaultValue ?? throw Missing(key, IntegerWords(min, max));

    /// <summary>An integer within bounds, or null for an absent key.</summary>
    public int? IntOrNull(string key, int min = 1, int max = int.MaxValue) => Take(key) is JsonElement value ? Integer(value, key, min, max) : null;

    /// <summary>A number. Infinity and NaN, in any of their spellings, are errors unless allowed.</summary>
    public double Float(string key, double? defaultValue = null, bool allowNonFinite = false) =>
        Take(key) is JsonElement value ? Number(value, key, allowNonFinite) : defaultValue ?? throw Missing(key, "a number");

    /// <summary>True or false.</summary>
    public bool Bool(string key, bool? defaultValue = null) => Take(key) is not JsonElement value
        ? defaultValue ?? throw Missing(key, "true or false")
        : value.ValueKind is JsonValueKind.True or JsonValueKind.False ? value.GetBoolean() : throw Wrong(key, "true or false", value);

    /// <summary>A string.</summary>
    public string String(string key, string? defaultValue = null) => StringOrNull(key) ?? defaultValue ?? throw Missing(key, "a string");

    /// <summary>A string, or null for an absent key.</summary>
    public string? StringOrNull(string key) => Take(key) is not JsonElement value
        ? null
        : value.ValueKind == JsonValueKind.String ? value.GetString() : throw Wrong(key, "a string", value);

    /// <summary>A list of integers within bounds.</summary>
    public int[] IntList(string key, int[]? defaultValue = null, int min = 0, int max = int.MaxValue) => List(key, "a list of integers", (item, name) => Integer(item, name, min, max)) ?? defaultValue ?? throw Missing(key, "a list of integers");

    /// <summary>A list of integers, where one integer alone stands for a list of one, as in <c>eos_token_id</c>.</summary>
    public int[] IntOrIntList(string key, int[]? defaultValue = null, int min = 0, int max = int.MaxValue) =>
        Kind(key) == JsonValueKind.Number ? [Int(key, min: min, max: max)] : IntList(key, defaultValue, min, max);

    /// <summary>A list of numbers.</summary>
    public double[] FloatList(string key, double[]? defaultValue = null, bool allowNonFinite = false) =>
        List(key, "a list of numbers", (item, name) => Number(item, name, allowNonFinite)) ?? defaultValue ?? throw Missing(key, "a list of numbers");

    /// <summary>A list of strings.</summary>
    public string[] StringList(string key, string[]? defaultValue = null) =>
        List(key, "a list of strings", (item, name) => item.ValueKind == JsonValueKind.String ? item.GetString()! : throw Wrong(name, "a string", item))
        ?? defaultValue ?? throw Missing(key, "a list of strings");

    /// <summary>A nested object; the same one every time.</summary>
    public ModelConfigObject Object(string key) => ObjectOrNull(key) ?? throw Missing(key, "an object");

    /// <summary>A nested object, or null for an absent key.</summary>
    public ModelConfigObject? ObjectOrNull(string key)
    {
        if (Take(key) is not JsonElement value) return null;
        if (value.ValueKind != JsonValueKind.Object || NonFinite(value) is not null) throw Wrong(key, "an object", value);
        if (!_objects.TryGetValue(key, out ModelConfigObject? nested)) _objects.Add(key, nested = new ModelConfigObject(Path, $"{_prefix}{key}.", value));
        return nested;
    }

    /// <summary>An error about the value of a key, for a reader that knows more rules than this class: <c>file: key message</c>.</summary>
    public InvalidDataException Error(string key, string message) => WeightErrors.Invalid(Path, $"{WeightErrors.Line(_prefix + key)} {message}");

    private JsonElement? Take(string key)
    {
        ArgumentNullException.ThrowIfNull(key);
        _read.Add(key);
        return _values.TryGetValue(key, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;
    }

    private T[]? List<T>(string key, string words, Func<JsonElement, string, T> read)
    {
        if (Take(key) is not JsonElement value) return null;
        if (value.ValueKind != JsonValueKind.Array) throw Wrong(key, words, value);
        return [.. value.EnumerateArray().Select((item, i) => read(item, $"{key}[{i}]"))];
    }

    private int Integer(JsonElement value, string key, int min, int max) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number) && number >= min && number <= max
            ? number
            : throw Wrong(key, IntegerWords(min, max), value);

    private double Number(JsonElement value, string key, bool allowNonFinite)
    {
        string words = allowNonFinite ? "a number" : "a finite number";
        if (NonFinite(value) is double special) return allowNonFinite ? special : throw Wrong(key, words, value);
        if (value.ValueKind != JsonValueKind.Number) throw Wrong(key, words, value);
        double number = value.GetDouble();
        return double.IsFinite(number) ? number : throw Error(key, $"is out of range: {JsonFile.Describe(value)}.");
    }

    /// <summary>The number that <c>{"__float__": "Infinity"}</c> stands for.</summary>
    private static double? NonFinite(JsonElement value)
    {
        if (value.ValueKind != JsonValueKind.Object || value.GetPropertyCount() != 1) return null;
        if (!value.TryGetProperty("__float__", out JsonElement name) || name.ValueKind != JsonValueKind.String) return null;
        return name.GetString() switch
        {
            "Infinity" => double.PositiveInfinity,
            "-Infinity" => double.NegativeInfinity,
            "NaN" => double.NaN,
            _ => null,
        };
    }

    private InvalidDataException Missing(string key, string words) =>
        Error(key, _values.ContainsKey(key) ? $"must be {words}, got null." : $"is missing; it must be {words}.");

    private InvalidDataException Wrong(string key, string words, JsonElement value) =>
        Error(key, $"must be {words}, got {(NonFinite(value) is double special ? special.ToString(CultureInfo.InvariantCulture) : JsonFile.Describe(value))}.");

    private static string IntegerWords(int min, int max) => (min, max) switch
    {
        (1, int.MaxValue) => "a positive integer",
        (0, int.MaxValue) => "a non-negative integer",
        (int.MinValue, int.MaxValue) => "an integer",
        (_, int.MaxValue) => $"an integer of at least {min}",
        (int.MinValue, _) => $"an integer of at most {max}",
        _ => $"an integer from {min} to {max}",
    };
}
