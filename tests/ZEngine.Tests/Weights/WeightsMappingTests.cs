using System.Diagnostics;
using System.Text;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Weights;

/// <summary>Opening maps and does not read; writing is exact, bounded in memory and all or nothing.</summary>
public sealed class WeightsMappingTests
{
    [Fact]
    public unsafe void Opening_eight_gigabytes_reads_only_the_header()
    {
        const long Elements = (1L << 31) + 5;
        const long Data = Elements * 4 + 8;
        using var folder = new TemporaryFolder();
        string json = $$$"""{"big":{"dtype":"F32","shape":[{{{Elements}}}],"data_offsets":[0,{{{Elements * 4}}}]},"end":{"dtype":"I64","shape":[1],"data_offsets":[{{{Elements * 4}}},{{{Data}}}]}}""".PadRight(256);
        using (FileStream stream = File.Create(folder["model.safetensors"]))
        {
            stream.Write(Fixtures.File(json, 0));
            stream.SetLength(8 + 256 + Data);
            stream.Position = 8 + 256 + Elements * 4 - 4;
            // NTFS would fill the eight gigabytes before a write at their end; there the end stays zero.
            if (!OperatingSystem.IsWindows()) stream.Write([0, 0, 0x80, 0x3F, 42, 0, 0, 0, 0, 0, 0, 0]);
        }

        long allocated = GC.GetAllocatedBytesForCurrentThread();
        var clock = Stopwatch.StartNew();
        using SafetensorsFile file = SafetensorsFile.Open(folder["model.safetensors"], isWritable: false);
        TimeSpan elapsed = clock.Elapsed;
        allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;

        // Reading 8 GB takes seconds on any machine; the bound leaves a loaded one room.
        Assert.True(elapsed < TimeSpan.FromMilliseconds(500), $"opening took {elapsed.TotalMilliseconds} ms");
        Assert.True(allocated < 100_000, $"opening allocated {allocated} bytes");
        Assert.Equal(Data, file.DataBytes);
        (SafetensorsEntry big, SafetensorsEntry end) = (file.Entries[0], file.Entries[1]);
        Assert.Equal(Elements * 4, (long)(file.AddressOf(end) - file.AddressOf(big)));
        Assert.Equal(OperatingSystem.IsWindows() ? 0.0f : 1.0f, ((float*)file.AddressOf(big))[Elements - 1]);
        Assert.Equal(0.0f, ((float*)file.AddressOf(big))[Elements / 2]);
        Assert.Equal(OperatingSystem.IsWindows() ? 0L : 42L, *(long*)file.AddressOf(end));
        Assert.Contains($"tensor 'big' has {Elements * 4} bytes, more than a span holds", Fixtures.MessageOf<InvalidDataException>(() => file.Bytes(big)), StringComparison.Ordinal);
    }

    [Fact]
    public unsafe void Writing_through_an_address_stays_in_the_process()
    {
        using var folder = new TemporaryFolder();
        SafetensorsWriter.Write(folder["m.safetensors"], [Fixtures.Floats("w", 1, 2, 3)]);
        byte[] before = File.ReadAllBytes(folder["m.safetensors"]);
        using (SafetensorsFile file = SafetensorsFile.Open(folder["m.safetensors"]))
        {
            Assert.True(file.IsWritable);
            ((float*)file.AddressOf(file.Entries[0]))[1] = 7;
            Assert.Equal(7f, BitConverter.ToSingle(file.Bytes(file.Entries[0])[4..]));
        }
        Assert.Equal(before, File.ReadAllBytes(folder["m.safetensors"]));
    }

    [Fact]
    public void Types_that_no_tensor_has_are_refused_when_asked_for_and_copied_unread()
    {
        using var folder = new TemporaryFolder();
        byte[] bytes = Fixtures.File("""{"b":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}} """, 3);
        bytes[^1] = 1;
        File.WriteAllBytes(folder["m.safetensors"], bytes);
        using SafetensorsFile file = SafetensorsFile.Open(folder["m.safetensors"]);
        string expected = $"{file.Path}: tensor 'b' is of dtype BOOL, which is not read; read are F32, BF16, F16, I32, I64, U8 and I8.";
        Assert.Equal(expected, Fixtures.MessageOf<InvalidDataException>(() => file.AddressOf(file.Entries[0])));
        Assert.Equal(expected, Fixtures.MessageOf<InvalidDataException>(() => file.Bytes(file.Entries[0])));
        SafetensorsWriter.Write(folder["again.safetensors"], Fixtures.TensorsOf(file));
        Assert.Equal(bytes, File.ReadAllBytes(folder["again.safetensors"]));
    }

    [Fact]
    public void Refuses_entries_of_other_files_and_use_after_dispose()
    {
        using var folder = new TemporaryFolder();
        SafetensorsWriter.Write(folder["m.safetensors"], [Fixtures.Bytes("w", 1)]);
        SafetensorsFile one = SafetensorsFile.Open(folder["m.safetensors"]);
        using SafetensorsFile two = SafetensorsFile.Open(folder["m.safetensors"]);
        Assert.Contains("is an entry of another file", Fixtures.MessageOf<ArgumentException>(() => one.AddressOf(two.Entries[0])), StringComparison.Ordinal);
        one.Dispose();
        one.Dispose();
        Assert.Throws<ObjectDisposedException>(() => one.AddressOf(one.Entries[0]));
    }

    [Fact]
    public void Missing_file_and_invalid_file_name_the_path_and_leave_nothing_open()
    {
        using var folder = new TemporaryFolder();
        Assert.Contains(folder["no.safetensors"], Fixtures.MessageOf<FileNotFoundException>(() => SafetensorsFile.Open(folder["no.safetensors"])), StringComparison.Ordinal);
        File.WriteAllBytes(folder["bad.safetensors"], Fixtures.File("{}", 4));
        Assert.StartsWith(folder["bad.safetensors"] + ": the tensors end", Fixtures.MessageOf<InvalidDataException>(() => SafetensorsFile.Open(folder["bad.safetensors"])), StringComparison.Ordinal);
        File.WriteAllBytes(folder["bad.safetensors"], []);
        Assert.Contains("a file of 0 bytes", Fixtures.MessageOf<InvalidDataException>(() => SafetensorsFile.Open(folder["bad.safetensors"])), StringComparison.Ordinal);
        using FileStream exclusive = new(folder["bad.safetensors"], FileMode.Open, FileAccess.ReadWrite, FileShare.None);
    }

    [Fact]
    public void Writes_the_reference_order_and_escapes()
    {
        using var folder = new TemporaryFolder();
        SafetensorsTensor Empty(string name, DType dtype) => SafetensorsTensor.FromStream(name, dtype, [0], _ => { });
        SafetensorsWriter.Write(
            folder["m.safetensors"],
            [Empty("u8", DType.UInt8), Empty("i8", DType.Int8), Empty("f16", DType.Float16), Empty("bf16", DType.BFloat16), Empty("i32", DType.Int32),
             Empty("f32", DType.Float32), Empty("i64", DType.Int64), Empty("\uE000", DType.Float32), Empty("\U00010000", DType.Float32), Empty("\"\\\n\u0001\u007fé", DType.Float32)],
            [new("z", "1"), new("a", "2")]);
        string header = Encoding.UTF8.GetString(File.ReadAllBytes(folder["m.safetensors"]).AsSpan(8));
        Assert.StartsWith("{\"__metadata__\":{\"z\":\"1\",\"a\":\"2\"},\"i64\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[0,0]},", header, StringComparison.Ordinal);
        Assert.Contains("\"\\\"\\\\\\n\\u0001\u007fé\":{", header, StringComparison.Ordinal);
        using SafetensorsFile file = SafetensorsFile.Open(folder["m.safetensors"]);
        Assert.Equal(["i64", "\"\\\n\u0001\u007fé", "f32", "\uE000", "\U00010000", "i32", "bf16", "f16", "i8", "u8"], file.Entries.Select(entry => entry.Name));
        Assert.Equal(0, file.AddressOf(file.Entries[0]) % 8);
    }

    [Fact]
    public void Empty_file_is_that_of_the_reference()
    {
        using var folder = new TemporaryFolder();
        SafetensorsWriter.Write(folder["m.safetensors"], []);
        Assert.Equal([8, 0, 0, 0, 0, 0, 0, 0, .. "{}      "u8], File.ReadAllBytes(folder["m.safetensors"]));
        using SafetensorsFile file = SafetensorsFile.Open(folder["m.safetensors"]);
        Assert.Empty(file.Entries);
    }

    [Theory]
    [InlineData(3, "Tensor 'w': 3 bytes were written, the shape takes 4.")]
    [InlineData(5, "Tensor 'w': more bytes are written than the 4 its shape takes.")]
    public void Failed_write_leaves_the_old_file_and_no_other(int bytes, string message)
    {
        using var folder = new TemporaryFolder();
        File.WriteAllText(folder["m.safetensors"], "old");
        SafetensorsTensor tensor = SafetensorsTensor.FromStream("w", DType.Int32, [1], stream => stream.Write(new byte[bytes]));
        Assert.Equal(message, Fixtures.MessageOf<InvalidOperationException>(() => SafetensorsWriter.Write(folder["m.safetensors"], [tensor])));
        Assert.Equal("old", File.ReadAllText(folder["m.safetensors"]));
        Assert.Equal(["m.safetensors"], folder.Names);
    }

    [Fact]
    public unsafe void Memory_source_and_rejected_tensors()
    {
        using var folder = new TemporaryFolder();
        float[] values = [1, 2, 3, 4];
        fixed (float* first = values)
        {
            SafetensorsWriter.Write(folder["m.safetensors"], [SafetensorsTensor.FromMemory("w", DType.Float32, [2, 2], (nint)first, 16)]);
            nint address = (nint)first;
            Assert.Contains("12 bytes given, the shape takes 16", Fixtures.MessageOf<ArgumentException>(() => SafetensorsTensor.FromMemory("w", DType.Float32, [2, 2], address, 12)), StringComparison.Ordinal);
        }
        using SafetensorsFile file = SafetensorsFile.Open(folder["m.safetensors"]);
        Assert.Equal(System.Runtime.InteropServices.MemoryMarshal.AsBytes<float>(values), file.Bytes(file.Entries[0]));
        Assert.Throws<ArgumentException>(() => SafetensorsWriter.Write(folder["n.safetensors"], [Fixtures.Bytes("w", 1), Fixtures.Bytes("w", 2)]));
        Assert.Throws<ArgumentException>(() => SafetensorsWriter.Write(folder["n.safetensors"], [], [new("k", "1"), new("k", "2")]));
        Assert.Throws<ArgumentException>(() => Fixtures.Bytes("__metadata__", 1));
        Assert.ThrowsAny<ArgumentException>(() => SafetensorsWriter.Write(folder["n.safetensors"], [Fixtures.Bytes("\ud800", 1)]));
        Assert.ThrowsAny<ArgumentException>(() => SafetensorsWriter.Write(folder["n.safetensors"], [], [new("k", "\udc00")]));
        Assert.Throws<ArgumentException>(() => SafetensorsTensor.FromStream("w", DType.Int8, [-1], _ => { }));
        Assert.Equal(["m.safetensors"], folder.Names);
    }
}
