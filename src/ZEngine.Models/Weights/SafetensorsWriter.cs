using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace ZEngine.Models;

/// <summary>Writes safetensors files byte for byte as the reference implementation does.</summary>
/// <remarks>
/// Tensors stand by element type, widest alignment first, and by name within a type; the JSON is compact, <c>__metadata__</c> first,
/// and padded with spaces so that the data begins at a multiple of 8. No more than one tensor's piece is in memory at a time.
/// </remarks>
public static class SafetensorsWriter
{
    // Half a surrogate pair in a metadata string is an error, not a replacement character.
    private static readonly UTF8Encoding s_utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Writes the file crash-safely: under a temporary name beside it, flushed to disk, then renamed.</summary>
    /// <param name="path">The file; one that exists is replaced only when the new one is complete.</param>
    /// <param name="tensors">The tensors in any order; names must be distinct.</param>
    /// <param name="metadata">Written in the order given; null leaves <c>__metadata__</c> out.</param>
    /// <exception cref="ArgumentException">Two tensors or two metadata keys have one name.</exception>
    /// <exception cref="InvalidOperationException">A tensor's source gave too few or too many bytes.</exception>
    public static void Write(string path, IReadOnlyCollection<SafetensorsTensor> tensors, IEnumerable<KeyValuePair<string, string>>? metadata = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(tensors);
        SafetensorsTensor[] ordered = Ordered(tensors);
        byte[] header = Header(ordered, metadata);
        DurableFile.Write(path, stream => WriteFile(stream, header, ordered));
    }

    /// <summary>In the order of the reference implementation.</summary>
    internal static SafetensorsTensor[] Ordered(IEnumerable<SafetensorsTensor> tensors) =>
        [.. tensors.OrderByDescending(tensor => SafetensorsDTypes.Rank(tensor.DTypeName)).ThenBy(tensor => tensor.Name, Utf8Order.Instance)];

    /// <summary>The padded JSON for tensors that follow each other in this order.</summary>
    internal static byte[] Header(IReadOnlyList<SafetensorsTensor> tensors, IEnumerable<KeyValuePair<string, string>>? metadata)
    {
        var json = new StringBuilder("{");
        if (metadata is not null) AppendMetadata(json, metadata);
        var names = new HashSet<string>(StringComparer.Ordinal);
        long begin = 0;
        foreach (SafetensorsTensor tensor in tensors)
        {
            if (!names.Add(tensor.Name)) throw new ArgumentException($"Two tensors are named {WeightErrors.Quote(tensor.Name)}.");
            if (json.Length > 1) json.Append(',');
            AppendString(json, tensor.Name);
            long end = checked(begin + tensor.ByteCount);
            json.Append(CultureInfo.InvariantCulture, $$""":{"dtype":"{{tensor.DTypeName}}","shape":[{{string.Join(',', tensor.Shape)}}],"data_offsets":[{{begin}},{{end}}]}""");
            begin = end;
        }
        json.Append('}');
        int bytes = s_utf8.GetByteCount(json.ToString());
        json.Append(' ', (8 - bytes % 8) % 8);
        byte[] header = s_utf8.GetBytes(json.ToString());
        if (header.Length > SafetensorsHeader.MaxHeaderBytes)
            throw new ArgumentException($"The header takes {header.Length} bytes, above the format's limit of {SafetensorsHeader.MaxHeaderBytes}.");
        return header;
    }

    /// <summary>Writes length, header and the tensors in this order.</summary>
    internal static void WriteFile(Stream stream, ReadOnlySpan<byte> header, IEnumerable<SafetensorsTensor> tensors)
    {
        Span<byte> prefix = stackalloc byte[SafetensorsHeader.PrefixBytes];
        BinaryPrimitives.WriteInt64LittleEndian(prefix, header.Length);
        stream.Write(prefix);
        stream.Write(header);
        foreach (SafetensorsTensor tensor in tensors) tensor.WriteTo(stream);
    }

    private static void AppendMetadata(StringBuilder json, IEnumerable<KeyValuePair<string, string>> metadata)
    {
        json.Append("\"__metadata__\":{");
        var keys = new HashSet<string>(StringComparer.Ordinal);
        foreach ((string key, string value) in metadata)
        {
            if (!keys.Add(key)) throw new ArgumentException($"The metadata key {WeightErrors.Quote(key)} is given twice.");
            if (keys.Count > 1) json.Append(',');
            AppendString(json, key);
            json.Append(':');
            AppendString(json, value);
        }
        json.Append('}');
    }

    /// <summary>A JSON string with the fewest escapes, as the reference implementation writes it: control characters, quote, backslash.</summary>
    private static void AppendString(StringBuilder json, string value)
    {
        json.Append('"');
        foreach (char c in value)
        {
            switch (c)
            {
                case '"': json.Append("\\\""); break;
                case '\\': json.Append("\\\\"); break;
                case '\n': json.Append("\\n"); break;
                case '\r': json.Append("\\r"); break;
                case '\t': json.Append("\\t"); break;
                case '\f': json.Append("\\f"); break;
                case '\b': json.Append("\\b"); break;
                case < ' ': json.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}"); break;
                default: json.Append(c); break;
            }
        }
        json.Append('"');
    }
}
