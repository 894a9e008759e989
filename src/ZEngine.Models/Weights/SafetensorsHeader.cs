using System.Buffers.Binary;
using System.Collections.ObjectModel;
using System.Text.Json;
using System.Text.Unicode;

namespace ZEngine.Models;

/// <summary>The checked header of a safetensors file: eight bytes of length, a JSON object, then the data it describes.</summary>
/// <remarks>
/// What is accepted holds: names are distinct, every tensor's bytes are its shape times its element width, and in the order of
/// <see cref="Entries"/> the tensors cover the data from first to last byte, each beginning where the one before it ends.
/// </remarks>
internal sealed class SafetensorsHeader
{
    /// <summary>Bytes of the length in front of the header.</summary>
    public const int PrefixBytes = 8;

    /// <summary>The format's limit for the JSON text.</summary>
    public const long MaxHeaderBytes = 100_000_000;

    private const string MetadataKey = "__metadata__";

    private SafetensorsHeader(OrderedDictionary<string, string>? metadata, SafetensorsEntry[] entries)
    {
        HasMetadata = metadata is not null;
        Metadata = new ReadOnlyDictionary<string, string>(metadata ?? []);
        Entries = entries;
    }

    public bool HasMetadata { get; }

    /// <summary>The metadata in file order.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>In the order of the data; empty tensors keep the order of the header among themselves.</summary>
    public IReadOnlyList<SafetensorsEntry> Entries { get; }

    /// <summary>Reads the length prefix: the bytes of JSON that follow it.</summary>
    public static int ReadLength(ReadOnlySpan<byte> prefix, long fileBytes, string path)
    {
        if (fileBytes < PrefixBytes || prefix.Length < PrefixBytes)
            throw WeightErrors.Invalid(path, $"a file of {fileBytes} bytes is no safetensors file: its first 8 bytes are the header's length.");
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (length > (ulong)MaxHeaderBytes)
            throw WeightErrors.Invalid(path, $"the header claims {length} bytes, above the limit of {MaxHeaderBytes}.");
        if ((long)length > fileBytes - PrefixBytes)
            throw WeightErrors.Invalid(path, $"the header claims {length} bytes, but {fileBytes - PrefixBytes} bytes follow its length.");
        return (int)length;
    }

    /// <summary>Parses and checks the JSON of a header that stands before <paramref name="dataBytes"/> bytes of data.</summary>
    /// <exception cref="InvalidDataException">Anything is not as the format demands; one line that names the place.</exception>
    public static SafetensorsHeader Parse(ReadOnlySpan<byte> json, long dataBytes, string path)
    {
        if (json.IsEmpty || json[0] != (byte)'{') throw WeightErrors.Invalid(path, "the header does not begin with '{'.");
        if (!Utf8.IsValid(json)) throw WeightErrors.Invalid(path, "the header is not valid UTF-8.");
        try
        {
            return new Parser(json, dataBytes, path).Run();
        }
        catch (JsonException e)
        {
            throw WeightErrors.Invalid(path, $"the header is not valid JSON at line {(e.LineNumber ?? 0) + 1}, byte {(e.BytePositionInLine ?? 0) + 1}.", e);
        }
    }

    private ref struct Parser(ReadOnlySpan<byte> json, long dataBytes, string path)
    {
        private Utf8JsonReader _reader = new(json);
        private OrderedDictionary<string, string>? _metadata;
        private readonly List<SafetensorsEntry> _entries = [];
        private readonly HashSet<string> _names = new(StringComparer.Ordinal);

        public SafetensorsHeader Run()
        {
            _reader.Read();
            while (NextKey(out string name))
            {
                if (!_names.Add(name)) throw WeightErrors.Invalid(path, $"{WeightErrors.Quote(name)} stands in the header twice.");
                if (name == MetadataKey) ReadMetadata();
                else ReadEntry(name);
            }
            if (_reader.Read()) throw WeightErrors.Invalid(path, "the header goes on behind its object.");

            SafetensorsEntry[] entries = [.. _entries.OrderBy(entry => entry.ByteOffset).ThenBy(entry => entry.ByteCount)];
            RequireCover(entries);
            return new SafetensorsHeader(_metadata, entries);
        }

        /// <summary>Moves to the next key of the current object; false at the object's end.</summary>
        private bool NextKey(out string key)
        {
            _reader.Read();
            key = _reader.TokenType == JsonTokenType.PropertyName ? Text("a name in the header") : "";
            return _reader.TokenType == JsonTokenType.PropertyName;
        }

        private string Text(string what)
        {
            try
            {
                return _reader.GetString()!;
            }
            catch (InvalidOperationException e)
            {
                // Valid UTF-8 can still escape half of a surrogate pair.
                throw WeightErrors.Invalid(path, $"{what} at byte {_reader.TokenStartIndex + 1} escapes half a surrogate pair.", e);
            }
        }

        private void ReadMetadata()
        {
            _reader.Read();
            if (_reader.TokenType != JsonTokenType.StartObject) throw WeightErrors.Invalid(path, $"{MetadataKey} must be an object, got {Token()}.");
            _metadata = new OrderedDictionary<string, string>(StringComparer.Ordinal);
            while (NextKey(out string key))
            {
                _reader.Read();
                if (_reader.TokenType != JsonTokenType.String)
                    throw WeightErrors.Invalid(path, $"{MetadataKey}: {WeightErrors.Quote(key)} must be a string, got {Token()}.");
                if (!_metadata.TryAdd(key, Text($"{MetadataKey}: {WeightErrors.Quote(key)}")))
                    throw WeightErrors.Invalid(path, $"{MetadataKey}: {WeightErrors.Quote(key)} stands in the header twice.");
            }
        }

        private void ReadEntry(string name)
        {
            _reader.Read();
            if (_reader.TokenType != JsonTokenType.StartObject) throw WeightErrors.Tensor(path, name, $"must be an object, got {Token()}.");
            string? dtype = null;
            long[]? shape = null;
            long[]? offsets = null;
            while (NextKey(out string key))
            {
                bool isRepeated = key switch { "dtype" => dtype is not null, "shape" => shape is not null, "data_offsets" => offsets is not null, _ => false };
                if (isRepeated) throw WeightErrors.Tensor(path, name, $"has two {key}.");
                _reader.Read();
                if (key == "dtype") dtype = ReadDType(name);
                else if (key == "shape") shape = ReadIntegers(name, "shape");
                else if (key == "data_offsets") offsets = ReadIntegers(name, "data_offsets");
                else throw WeightErrors.Tensor(path, name, $"has the unknown key {WeightErrors.Quote(key)}.");
            }
            if (dtype is null) throw WeightErrors.Tensor(path, name, "has no dtype.");
            if (shape is null) throw WeightErrors.Tensor(path, name, "has no shape.");
            if (offsets is null) throw WeightErrors.Tensor(path, name, "has no data_offsets.");
            _entries.Add(Checked(name, dtype, shape, offsets));
        }

        private string ReadDType(string name)
        {
            if (_reader.TokenType != JsonTokenType.String) throw WeightErrors.Tensor(path, name, $"has a dtype that is not a string: {Token()}.");
            string dtype = Text($"the dtype of tensor {WeightErrors.Quote(name)}");
            if (!SafetensorsDTypes.IsKnown(dtype)) throw WeightErrors.Tensor(path, name, $"has the unknown dtype {WeightErrors.Quote(dtype)}.");
            return dtype;
        }

        private long[] ReadIntegers(string name, string key)
        {
            if (_reader.TokenType != JsonTokenType.StartArray) throw WeightErrors.Tensor(path, name, $"has a {key} that is not a list: {Token()}.");
            var values = new List<long>();
            while (_reader.Read() && _reader.TokenType != JsonTokenType.EndArray)
            {
                if (_reader.TokenType != JsonTokenType.Number || _reader.ValueSpan[0] == (byte)'-' || !_reader.TryGetInt64(out long value))
                    throw WeightErrors.Tensor(path, name, $"has a {key} with {Token()} in place {values.Count}; it must be an integer from 0 to 2^63 - 1.");
                values.Add(value);
            }
            return [.. values];
        }

        private readonly SafetensorsEntry Checked(string name, string dtype, long[] shape, long[] offsets)
        {
            if (offsets.Length != 2) throw WeightErrors.Tensor(path, name, $"has {offsets.Length} data_offsets; they are a begin and an end.");
            (long begin, long end) = (offsets[0], offsets[1]);
            if (begin > end) throw WeightErrors.Tensor(path, name, $"ends at byte {end}, before its begin at {begin}.");
            if (end > dataBytes) throw WeightErrors.Tensor(path, name, $"spans bytes {begin}..{end}, beyond the data of {dataBytes} bytes.");
            if (!SafetensorsDTypes.TryByteCount(dtype, shape, out long bytes))
                throw WeightErrors.Tensor(path, name, $"has shape {Axes(shape)}, whose bytes as {dtype} are no whole number below 2^63.");
            if (bytes != end - begin)
                throw WeightErrors.Tensor(path, name, $"spans {end - begin} bytes, but shape {Axes(shape)} of {dtype} takes {bytes}.");
            return new SafetensorsEntry(name, dtype, shape, begin, bytes);
        }

        private readonly void RequireCover(SafetensorsEntry[] entries)
        {
            long covered = 0;
            foreach (SafetensorsEntry entry in entries)
            {
                if (entry.ByteOffset < covered)
                    throw WeightErrors.Tensor(path, entry.Name, $"begins at byte {entry.ByteOffset}, inside the tensor that ends at {covered}.");
                if (entry.ByteOffset > covered)
                    throw WeightErrors.Tensor(path, entry.Name, $"begins at byte {entry.ByteOffset}, behind a hole that begins at {covered}.");
                covered += entry.ByteCount;
            }
            if (covered != dataBytes) throw WeightErrors.Invalid(path, $"the tensors end at byte {covered} of {dataBytes} bytes of data.");
        }

        private readonly string Token() => _reader.TokenType switch
        {
            JsonTokenType.Number => WeightErrors.Line(System.Text.Encoding.UTF8.GetString(_reader.ValueSpan)),
            JsonTokenType.String => "a string",
            JsonTokenType.StartObject => "an object",
            JsonTokenType.StartArray => "a list",
            JsonTokenType.True => "true",
            JsonTokenType.False => "false",
            _ => "null",
        };

        private static string Axes(long[] shape) => WeightErrors.Line($"[{string.Join(", ", shape)}]");
    }
}
