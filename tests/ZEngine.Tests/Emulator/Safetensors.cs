using System.Runtime.InteropServices;
using System.Text.Json;

namespace ZEngine.Tests.Emulator;

/// <summary>The float tensors of a golden case.</summary>
internal static class Safetensors
{
    public static Dictionary<string, (int[] Shape, float[] Data)> Read(string path)
    {
        byte[] file = File.ReadAllBytes(path);
        int header = (int)BitConverter.ToInt64(file);
        using JsonDocument json = JsonDocument.Parse(file.AsMemory(8, header));
        var tensors = new Dictionary<string, (int[], float[])>();
        foreach (JsonProperty entry in json.RootElement.EnumerateObject())
        {
            if (entry.Name == "__metadata__" || entry.Value.GetProperty("dtype").GetString() != "F32") continue;
            int[] shape = [.. entry.Value.GetProperty("shape").EnumerateArray().Select(e => e.GetInt32())];
            int begin = entry.Value.GetProperty("data_offsets")[0].GetInt32(), end = entry.Value.GetProperty("data_offsets")[1].GetInt32();
            tensors[entry.Name] = (shape, MemoryMarshal.Cast<byte, float>(file.AsSpan(8 + header + begin, end - begin)).ToArray());
        }
        return tensors;
    }
}
