using System.Buffers;
using System.Text;
using System.Text.Json;

namespace ZEngine.Models;

/// <summary>A checked <c>model.safetensors.index.json</c>: which shard holds which tensor.</summary>
internal sealed class WeightIndex
{
    public const string FileName = "model.safetensors.index.json";

    private static readonly SearchValues<char> s_unsafe = SearchValues.Create("/\\:*?\"<>|");

    private WeightIndex(byte[] text, JsonElement? metadata, OrderedDictionary<string, string> weightMap)
    {
        Text = text;
        Metadata = metadata;
        WeightMap = weightMap;
    }

    /// <summary>The file as it was read.</summary>
    public byte[] Text { get; }

    public JsonElement? Metadata { get; }

    /// <summary>Tensor name to shard file name, in file order.</summary>
    public OrderedDictionary<string, string> WeightMap { get; }

    /// <summary>The shard file names, each once, in the order of their names.</summary>
    public IReadOnlyList<string> Shards => [.. WeightMap.Values.Distinct(StringComparer.Ordinal).Order(Utf8Order.Instance)];

    public static WeightIndex Parse(ReadOnlySpan<byte> json, string path)
    {
        JsonElement root = JsonFile.ParseObject(json, path);
        JsonElement? metadata = null;
        if (root.TryGetProperty("metadata", out JsonElement given))
        {
            if (given.ValueKind != JsonValueKind.Object) throw WeightErrors.Invalid(path, $"metadata must be an object, got {JsonFile.Describe(given)}.");
            metadata = given;
        }
        if (!root.TryGetProperty("weight_map", out JsonElement map)) throw WeightErrors.Invalid(path, "has no weight_map.");
        if (map.ValueKind != JsonValueKind.Object) throw WeightErrors.Invalid(path, $"weight_map must be an object, got {JsonFile.Describe(map)}.");
        var weights = new OrderedDictionary<string, string>(StringComparer.Ordinal);
        foreach (JsonProperty weight in map.EnumerateObject())
        {
            if (weight.Value.ValueKind != JsonValueKind.String)
                throw WeightErrors.Tensor(path, weight.Name, $"must map to a file name, got {JsonFile.Describe(weight.Value)}.");
            string shard = weight.Value.GetString()!;
            if (!IsShardName(shard)) throw WeightErrors.Tensor(path, weight.Name, $"maps to {WeightErrors.Quote(shard)}, which is no .safetensors file name in this folder.");
            weights.Add(weight.Name, shard);
        }
        if (weights.Count == 0) throw WeightErrors.Invalid(path, "weight_map is empty.");
        return new WeightIndex(json.ToArray(), metadata, weights);
    }

    /// <summary>The text of an index as the reference writes it.</summary>
    public static byte[] Format(IEnumerable<KeyValuePair<string, string>> weightMap, long totalBytes, JsonElement? metadata = null)
    {
        var about = new Dictionary<string, object?>(StringComparer.Ordinal);
        if (metadata is JsonElement old) foreach (JsonProperty member in old.EnumerateObject()) about[member.Name] = member.Value;
        about["total_size"] = totalBytes;
        return Encoding.ASCII.GetBytes(PythonJson.Document(
        [
            new("metadata", about),
            new("weight_map", weightMap.Select(pair => new KeyValuePair<string, object?>(pair.Key, pair.Value))),
        ]));
    }

    // One path element on every system: no separator, drive or stream; the ending leaves no room for a parent.
    private static bool IsShardName(string name) =>
        name.Length is > 12 and <= 255 && name.EndsWith(".safetensors", StringComparison.Ordinal)
        && !name.AsSpan().ContainsAny(s_unsafe) && !name.Any(char.IsControl);
}
