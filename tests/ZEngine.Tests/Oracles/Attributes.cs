using System.Text.Json;

namespace ZEngine.Tests.Oracles;

/// <summary>Reads of a case's attributes; an absent one and a null one are the same.</summary>
internal static class Attributes
{
    private static JsonElement? Find(JsonElement attrs, string name) =>
        attrs.ValueKind == JsonValueKind.Object && attrs.TryGetProperty(name, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;

    public static bool Flag(this JsonElement attrs, string name) => Find(attrs, name)?.GetBoolean() ?? false;
    public static int? Int(this JsonElement attrs, string name) => Find(attrs, name)?.GetInt32();
    public static double? Number(this JsonElement attrs, string name) => Find(attrs, name)?.GetDouble();
    public static string? Text(this JsonElement attrs, string name) => Find(attrs, name)?.GetString();
    public static int[]? Ints(this JsonElement attrs, string name) => Find(attrs, name)?.EnumerateArray().Select(x => x.GetInt32()).ToArray();

    /// <summary>A list of numbers in which null means "none".</summary>
    public static double?[]? Numbers(this JsonElement attrs, string name) =>
        Find(attrs, name)?.EnumerateArray().Select(x => x.ValueKind == JsonValueKind.Null ? (double?)null : x.GetDouble()).ToArray();
}
