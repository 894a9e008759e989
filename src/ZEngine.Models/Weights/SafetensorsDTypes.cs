namespace ZEngine.Models;

/// <summary>The element types of the safetensors format: names, widths, and the order in which writers sort them.</summary>
internal static class SafetensorsDTypes
{
    // In the order of the reference implementation's enumeration, whose descending order is the order of tensors in a file.
    private static readonly (string Name, int Bits, DType? DType)[] s_all =
    [
        ("BOOL", 8, null),
        ("F4", 4, null),
        ("F6_E2M3", 6, null),
        ("F6_E3M2", 6, null),
        ("U8", 8, DType.UInt8),
        ("I8", 8, DType.Int8),
        ("F8_E5M2", 8, null),
        ("F8_E4M3", 8, null),
        ("F8_E8M0", 8, null),
        ("F8_E4M3FNUZ", 8, null),
        ("F8_E5M2FNUZ", 8, null),
        ("I16", 16, null),
        ("U16", 16, null),
        ("F16", 16, DType.Float16),
        ("BF16", 16, DType.BFloat16),
        ("I32", 32, DType.Int32),
        ("U32", 32, null),
        ("F32", 32, DType.Float32),
        ("C64", 64, null),
        ("F64", 64, null),
        ("I64", 64, DType.Int64),
        ("U64", 64, null),
    ];

    private static readonly Dictionary<string, int> s_rank =
        s_all.Select((type, rank) => (type.Name, rank)).ToDictionary(pair => pair.Name, pair => pair.rank, StringComparer.Ordinal);

    public static bool IsKnown(string name) => s_rank.ContainsKey(name);

    public static DType? Find(string name) => s_rank.TryGetValue(name, out int rank) ? s_all[rank].DType : null;

    /// <summary>Position in the sort order of writers; larger stands earlier in a file.</summary>
    public static int Rank(string name) => s_rank[name];

    public static int Bits(string name) => s_all[s_rank[name]].Bits;

    public static string Name(DType dtype) => dtype switch
    {
        DType.Float32 => "F32",
        DType.BFloat16 => "BF16",
        DType.Float16 => "F16",
        DType.Int32 => "I32",
        DType.Int64 => "I64",
        DType.UInt8 => "U8",
        DType.Int8 => "I8",
        _ => throw new ArgumentOutOfRangeException(nameof(dtype), dtype, "not an element type"),
    };

    /// <summary>Bytes of a tensor; false when the count overflows 63 bits or the last byte would be shared.</summary>
    /// <remarks>A zero on any axis makes the count zero, but the product of the other axes must fit all the same.</remarks>
    public static bool TryByteCount(string name, ReadOnlySpan<long> shape, out long bytes)
    {
        bytes = 0;
        long elements = 1;
        bool isEmpty = false;
        foreach (long size in shape)
        {
            if (size < 0) return false;
            if (size == 0) isEmpty = true;
            else if (elements > long.MaxValue / size) return false;
            else elements *= size;
        }
        if (isEmpty) return true;
        int bits = Bits(name);
        if (elements > long.MaxValue / bits) return false;
        if (elements * bits % 8 != 0) return false;
        bytes = elements * bits / 8;
        return true;
    }
}
