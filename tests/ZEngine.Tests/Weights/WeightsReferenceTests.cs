using System.Text;
using System.Text.Json;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Weights;

/// <summary>Files that the reference implementations wrote are read, and written again to the same bytes.</summary>
public sealed class WeightsReferenceTests
{
    public static TheoryData<string> Models => [.. Directory.GetDirectories(Path.Combine(Fixtures.Golden, "models")).Select(folder => Path.GetFileName(folder)).Order()];

    [Fact]
    public void Every_reference_safetensors_file_is_rewritten_byte_for_byte()
    {
        using var folder = new TemporaryFolder();
        string[] paths = Directory.GetFiles(Fixtures.Golden, "*.safetensors", SearchOption.AllDirectories);
        Assert.True(paths.Length >= 80, $"only {paths.Length} golden files");
        foreach (string path in paths)
        {
            using SafetensorsFile file = SafetensorsFile.Open(path);
            SafetensorsTensor[] tensors = Fixtures.TensorsOf(file);
            Array.Reverse(tensors);
            SafetensorsWriter.Write(folder["again.safetensors"], tensors, file.HasMetadata ? file.Metadata : null);
            Assert.True(File.ReadAllBytes(path).AsSpan().SequenceEqual(File.ReadAllBytes(folder["again.safetensors"])), path);
        }
    }

    [Theory, MemberData(nameof(Models))]
    public void Checkpoint_folder_is_saved_byte_for_byte(string model)
    {
        using var folder = new TemporaryFolder();
        string source = Path.Combine(Fixtures.Golden, "models", model);
        using WeightFiles weights = WeightFiles.Open(source);
        Assert.False(weights.Layout.IsSharded);
        WeightFiles.Save(folder["as-read"], Fixtures.TensorsOf(weights), weights.Layout);
        WeightFiles.Save(folder["as-new"], Fixtures.TensorsOf(weights));
        byte[] expected = File.ReadAllBytes(Path.Combine(source, "model.safetensors"));
        Assert.Equal(expected, File.ReadAllBytes(folder["as-read/model.safetensors"]));
        Assert.Equal(expected, File.ReadAllBytes(folder["as-new/model.safetensors"]));
        Assert.Equal(["model.safetensors"], Directory.GetFiles(folder["as-new"]).Select(Path.GetFileName));
    }

    [Theory, MemberData(nameof(Models))]
    public void Configuration_is_saved_byte_for_byte_and_made_anew_byte_for_byte(string model)
    {
        using var folder = new TemporaryFolder();
        string path = Path.Combine(Fixtures.Golden, "models", model, "config.json");
        ModelConfigFile config = ModelConfigFile.Open(path);
        config.Save(folder["config.json"]);
        Assert.Equal(File.ReadAllBytes(path), File.ReadAllBytes(folder["config.json"]));

        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path));
        var values = (Dictionary<string, object?>)Plain(document.RootElement)!;
        Assert.Equal(File.ReadAllText(path), ModelConfigFile.Create(values.Reverse()).Text);
    }

    [Fact]
    public void Tensor_values_are_those_of_the_file()
    {
        string path = Path.Combine(Fixtures.Golden, "models", "llama", "model.safetensors");
        byte[] bytes = File.ReadAllBytes(path);
        int data = 8 + (int)BitConverter.ToInt64(bytes);
        using SafetensorsFile file = SafetensorsFile.Open(path);
        Assert.Equal("pt", file.Metadata["format"]);
        Assert.True(file.TryGet("model.norm.weight", out SafetensorsEntry? entry));
        Assert.Equal(DType.Float32, entry.DType);
        Assert.Equal([32L], entry.Shape);
        Assert.Equal(bytes.AsSpan(data + (int)entry.ByteOffset, 128), file.Bytes(entry));
        Assert.All(file.Entries, one => Assert.Equal(0, file.AddressOf(one) % 4));
        Assert.False(file.TryGet("model.norm", out _));
    }

    /// <summary>Numbers become long or double, so that their text has to be made again.</summary>
    private static object? Plain(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.Null => null,
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        JsonValueKind.String => element.GetString(),
        JsonValueKind.Number => element.GetRawText().AsSpan().ContainsAny(".eE") ? element.GetDouble() : (object)element.GetInt64(),
        JsonValueKind.Array => element.EnumerateArray().Select(Plain).ToList(),
        _ when element.TryGetProperty("__float__", out _) => double.PositiveInfinity,
        _ => element.EnumerateObject().ToDictionary(member => member.Name, member => Plain(member.Value)),
    };
}
