using System.Buffers.Binary;
using System.Text;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Weights;

/// <summary>Small files and tensors, and the message of an error.</summary>
internal static class Fixtures
{
    public static string Golden { get; } = System.IO.Path.Combine(AppContext.BaseDirectory, "golden");

    /// <summary>Length prefix, header and as many zero bytes of data.</summary>
    public static byte[] File(string headerJson, int dataBytes) => File(Encoding.UTF8.GetBytes(headerJson), dataBytes);

    public static byte[] File(ReadOnlySpan<byte> header, int dataBytes)
    {
        byte[] file = new byte[8 + header.Length + dataBytes];
        BinaryPrimitives.WriteInt64LittleEndian(file, header.Length);
        header.CopyTo(file.AsSpan(8));
        return file;
    }

    /// <summary>The checks of opening a file, on bytes in memory.</summary>
    public static SafetensorsHeader ParseFile(ReadOnlySpan<byte> file, string path = "f.safetensors")
    {
        int length = SafetensorsHeader.ReadLength(file[..Math.Min(8, file.Length)], file.Length, path);
        return SafetensorsHeader.Parse(file.Slice(8, length), file.Length - 8 - length, path);
    }

    public static SafetensorsTensor Bytes(string name, params byte[] bytes) =>
        SafetensorsTensor.FromStream(name, DType.UInt8, [bytes.Length], stream => stream.Write(bytes));

    public static SafetensorsTensor Floats(string name, params float[] values) =>
        SafetensorsTensor.FromStream(name, DType.Float32, [values.Length], stream => stream.Write(System.Runtime.InteropServices.MemoryMarshal.AsBytes<float>(values)));

    public static SafetensorsTensor[] TensorsOf(SafetensorsFile file) => [.. file.Entries.Select(entry => SafetensorsTensor.FromFile(file, entry))];

    public static SafetensorsTensor[] TensorsOf(WeightFiles files) => [.. files.Files.SelectMany(TensorsOf)];

    public static string MessageOf<T>(Action action) where T : Exception
    {
        string message = Assert.Throws<T>(action).Message;
        Assert.DoesNotContain('\n', message);
        return message;
    }
}
