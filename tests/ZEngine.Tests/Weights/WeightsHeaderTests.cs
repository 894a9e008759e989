using System.Buffers.Binary;
using System.Text;
using Xunit;
using ZEngine.Models;

namespace ZEngine.Tests.Weights;

/// <summary>Every rule of the safetensors header, by the message of its violation.</summary>
public sealed class WeightsHeaderTests
{
    private const string A = """{"dtype":"F32","shape":[2],"data_offsets":[0,8]}""";

    [Theory]
    // the JSON as a whole
    [InlineData(0, "", "the header does not begin with '{'.")]
    [InlineData(0, " {}", "the header does not begin with '{'.")]
    [InlineData(0, "[]", "the header does not begin with '{'.")]
    [InlineData(0, "{", "the header is not valid JSON at line 1, byte 2.")]
    [InlineData(0, "{} {}", "the header is not valid JSON at line 1, byte 4.")]
    [InlineData(0, "{}\0", "the header is not valid JSON at line 1, byte 3.")]
    [InlineData(8, """{"a":ENTRY,"a":ENTRY}""", "'a' stands in the header twice.")]
    [InlineData(8, """{"a":ENTRY,"\u0061":ENTRY}""", "'a' stands in the header twice.")]
    [InlineData(0, """{"\ud800":ENTRY}""", "a name in the header at byte 2 escapes half a surrogate pair.")]
    // metadata
    [InlineData(0, """{"__metadata__":{},"__metadata__":{}}""", "'__metadata__' stands in the header twice.")]
    [InlineData(0, """{"__metadata__":7}""", "__metadata__ must be an object, got 7.")]
    [InlineData(0, """{"__metadata__":{"k":null}}""", "__metadata__: 'k' must be a string, got null.")]
    [InlineData(0, """{"__metadata__":{"k":"1","k":"2"}}""", "__metadata__: 'k' stands in the header twice.")]
    // the keys of a tensor
    [InlineData(8, """{"a":[]}""", "tensor 'a' must be an object, got a list.")]
    [InlineData(8, """{"a":{"shape":[2],"data_offsets":[0,8]}}""", "tensor 'a' has no dtype.")]
    [InlineData(8, """{"a":{"dtype":"F32","data_offsets":[0,8]}}""", "tensor 'a' has no shape.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[2]}}""", "tensor 'a' has no data_offsets.")]
    [InlineData(8, """{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", "tensor 'a' has two dtype.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[2],"strides":[1],"data_offsets":[0,8]}}""", "tensor 'a' has the unknown key 'strides'.")]
    [InlineData(8, """{"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}}""", "tensor 'a' has a dtype that is not a string: 7.")]
    [InlineData(8, """{"a":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}}""", "tensor 'a' has the unknown dtype 'f32'.")]
    // numbers
    [InlineData(8, """{"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}""", "tensor 'a' has a shape that is not a list: 2.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[1,-2],"data_offsets":[0,8]}}""", "tensor 'a' has a shape with -2 in place 1; it must be an integer from 0 to 2^63 - 1.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,8]}}""", "tensor 'a' has a shape with -0 in place 0; it must be an integer from 0 to 2^63 - 1.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}""", "tensor 'a' has a shape with 2.0 in place 0; it must be an integer from 0 to 2^63 - 1.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}""", "tensor 'a' has a shape with a string in place 0; it must be an integer from 0 to 2^63 - 1.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775808]}}""", "tensor 'a' has a data_offsets with 9223372036854775808 in place 1; it must be an integer from 0 to 2^63 - 1.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}""", "tensor 'a' has shape [4294967296, 4294967296], whose bytes as F32 are no whole number below 2^63.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,8]}}""", "tensor 'a' has shape [2305843009213693952], whose bytes as F32 are no whole number below 2^63.")]
    [InlineData(0, """{"a":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,0]}}""", "tensor 'a' has shape [2305843009213693952], whose bytes as F32 are no whole number below 2^63.")]
    [InlineData(0, """{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}""", "tensor 'a' has shape [4294967296, 4294967296], whose bytes as F32 are no whole number below 2^63.")]
    [InlineData(8, """{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}""", "tensor 'a' has shape [3], whose bytes as F4 are no whole number below 2^63.")]
    // places
    [InlineData(8, """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}""", "tensor 'a' has 1 data_offsets; they are a begin and an end.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}""", "tensor 'a' ends at byte 0, before its begin at 8.")]
    [InlineData(16, """{"a.b":{"dtype":"U8","shape":[10],"data_offsets":[10,20]}}""", "tensor 'a.b' spans bytes 10..20, beyond the data of 16 bytes.")]
    [InlineData(8, """{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}""", "tensor 'a' spans 8 bytes, but shape [1] of F32 takes 4.")]
    [InlineData(12, """{"a":ENTRY,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}""", "tensor 'b' begins at byte 4, inside the tensor that ends at 8.")]
    [InlineData(20, """{"a":ENTRY,"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}""", "tensor 'b' begins at byte 12, behind a hole that begins at 8.")]
    [InlineData(8, """{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""", "tensor 'b' begins at byte 4, behind a hole that begins at 0.")]
    [InlineData(9, """{"a":ENTRY}""", "the tensors end at byte 8 of 9 bytes of data.")]
    [InlineData(1, "{}", "the tensors end at byte 0 of 1 bytes of data.")]
    public void Rejects_header(int dataBytes, string json, string message)
    {
        byte[] file = Fixtures.File(json.Replace("ENTRY", A, StringComparison.Ordinal), dataBytes);
        Assert.Equal($"f.safetensors: {message}", Fixtures.MessageOf<InvalidDataException>(() => Fixtures.ParseFile(file)));
    }

    [Fact]
    public void Rejects_invalid_utf8()
    {
        byte[] file = Fixtures.File([.. "{\"a"u8, 0xFF, .. "\":0}"u8], 0);
        Assert.Equal("f.safetensors: the header is not valid UTF-8.", Fixtures.MessageOf<InvalidDataException>(() => Fixtures.ParseFile(file)));
    }

    [Fact]
    public void Rejects_deep_nesting()
    {
        byte[] file = Fixtures.File($$"""{"__metadata__":{"a":{{new string('[', 100_000)}}""", 0);
        Assert.Contains("__metadata__: 'a' must be a string, got a list.", Fixtures.MessageOf<InvalidDataException>(() => Fixtures.ParseFile(file)), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, "a file of 0 bytes is no safetensors file: its first 8 bytes are the header's length.")]
    [InlineData(7, "a file of 7 bytes is no safetensors file: its first 8 bytes are the header's length.")]
    public void Rejects_short_file(int bytes, string message) =>
        Assert.Equal($"f.safetensors: {message}", Fixtures.MessageOf<InvalidDataException>(() => Fixtures.ParseFile(new byte[bytes])));

    [Theory]
    [InlineData(3UL, "the header claims 3 bytes, but 2 bytes follow its length.")]
    [InlineData(100_000_001UL, "the header claims 100000001 bytes, above the limit of 100000000.")]
    [InlineData(ulong.MaxValue, "the header claims 18446744073709551615 bytes, above the limit of 100000000.")]
    public void Rejects_header_length(ulong length, string message)
    {
        byte[] file = Fixtures.File("{}", 0);
        BinaryPrimitives.WriteUInt64LittleEndian(file, length);
        Assert.Equal($"f.safetensors: {message}", Fixtures.MessageOf<InvalidDataException>(() => Fixtures.ParseFile(file)));
    }

    [Fact]
    public void Message_stays_one_line_whatever_the_name()
    {
        string name = "x\\n\\u2028\\u0000" + new string('y', 1000);
        byte[] file = Fixtures.File($$"""{"{{name}}":7}""", 0);
        string message = Fixtures.MessageOf<InvalidDataException>(() => Fixtures.ParseFile(file));
        Assert.StartsWith("f.safetensors: tensor 'x\\u000a\\u2028\\u0000yyy", message, StringComparison.Ordinal);
        Assert.EndsWith("yyy…' must be an object, got 7.", message, StringComparison.Ordinal);
        Assert.InRange(message.Length, 200, 300);
    }

    [Fact]
    public void Accepts_scalars_empty_tensors_and_entries_out_of_order()
    {
        SafetensorsHeader header = Fixtures.ParseFile(Fixtures.File("""
            {"late":{"data_offsets":[4,6],"shape":[1],"dtype":"BF16"},"empty":{"dtype":"I64","shape":[0,7],"data_offsets":[4,4]},
             "scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"also empty":{"dtype":"I8","shape":[0],"data_offsets":[4,4]}}
            """, 6));
        Assert.Equal(["scalar", "empty", "also empty", "late"], header.Entries.Select(entry => entry.Name));
        Assert.Equal([4L, 0, 0, 2], header.Entries.Select(entry => entry.ByteCount));
        Assert.False(header.HasMetadata);
    }

    [Fact]
    public void Lists_types_that_are_not_read()
    {
        SafetensorsHeader header = Fixtures.ParseFile(Fixtures.File("""
            {"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"BOOL","shape":[1],"data_offsets":[8,9]},
             "c":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[9,10]},"d":{"dtype":"F4","shape":[2],"data_offsets":[10,11]}}
            """, 11));
        Assert.All(header.Entries, entry => Assert.Null(entry.DType));
        Assert.Equal(["F64", "BOOL", "F8_E4M3", "F4"], header.Entries.Select(entry => entry.DTypeName));
    }

    [Theory]
    [InlineData("F32", DType.Float32), InlineData("BF16", DType.BFloat16), InlineData("F16", DType.Float16), InlineData("I32", DType.Int32)]
    [InlineData("I64", DType.Int64), InlineData("U8", DType.UInt8), InlineData("I8", DType.Int8)]
    public void Reads_type(string name, DType dtype)
    {
        string json = $$$"""{"a":{"dtype":"{{{name}}}","shape":[3],"data_offsets":[0,{{{3 * dtype.Size}}}]}}""";
        Assert.Equal(dtype, Assert.Single(Fixtures.ParseFile(Fixtures.File(json, 3 * dtype.Size)).Entries).DType);
        Assert.Equal(name, SafetensorsDTypes.Name(dtype));
    }
}
