namespace ZEngine.Models;

/// <summary>One tensor as the header of a safetensors file describes it.</summary>
public sealed class SafetensorsEntry
{
    internal SafetensorsEntry(string name, string dtypeName, long[] shape, long byteOffset, long byteCount)
    {
        Name = name;
        DTypeName = dtypeName;
        DType = SafetensorsDTypes.Find(dtypeName);
        Shape = shape;
        ByteOffset = byteOffset;
        ByteCount = byteCount;
    }

    /// <summary>The tensor's name, unescaped.</summary>
    public string Name { get; }

    /// <summary>The element type as the file spells it, such as <c>BF16</c>.</summary>
    public string DTypeName { get; }

    /// <summary>The element type, or null for a format type that no tensor has (BOOL, F64, U16, F8_E4M3, …).</summary>
    public DType? DType { get; }

    /// <summary>The sizes of the axes; empty for a scalar. Not to be written to.</summary>
    public long[] Shape { get; }

    /// <summary>Where the first byte lies, counted from the start of the file's data (behind the header).</summary>
    public long ByteOffset { get; }

    /// <summary>Bytes of all elements.</summary>
    public long ByteCount { get; }

    /// <inheritdoc/>
    public override string ToString() => $"{WeightErrors.Quote(Name)} {DTypeName} [{string.Join(", ", Shape)}]";
}
