using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace ZEngine.Tests.Oracles;

/// <summary>Reads a whole safetensors file: 8 bytes header length, a JSON header, then the data. F32, I32 and I64 only; a test may be picky.</summary>
internal static class SafeTensorsReader
{
    public static Dictionary<string, CaseTensor> Read(string file)
    {
        byte[] bytes = File.ReadAllBytes(file);
        int headerBytes = checked((int)BinaryPrimitives.ReadInt64LittleEndian(bytes));
        using JsonDocument header = JsonDocument.Parse(bytes.AsMemory(8, headerBytes));
        var tensors = new Dictionary<string, CaseTensor>();
        foreach (JsonProperty entry in header.RootElement.EnumerateObject())
        {
            if (entry.Name == "__metadata__") continue;
            int[] shape = entry.Value.Ints("shape")!, offsets = entry.Value.Ints("data_offsets")!;
            ReadOnlySpan<byte> data = bytes.AsSpan(8 + headerBytes)[offsets[0]..offsets[1]];
            tensors[entry.Name] = entry.Value.Text("dtype") switch
            {
                "F32" => new(MemoryMarshal.Cast<byte, float>(data).ToArray(), shape),
                "I64" => new(MemoryMarshal.Cast<byte, long>(data).ToArray(), shape),
                "I32" => new(Array.ConvertAll(MemoryMarshal.Cast<byte, int>(data).ToArray(), x => (long)x), shape),
                var dtype => throw new NotSupportedException($"{file}: tensor {entry.Name} has dtype {dtype}."),
            };
        }
        return tensors;
    }
}
