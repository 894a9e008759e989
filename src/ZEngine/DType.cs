namespace ZEngine;

/// <summary>The element type of a tensor.</summary>
public enum DType : byte
{
    /// <summary>IEEE 754 binary32.</summary>
    Float32,
    /// <summary>The upper 16 bits of a binary32.</summary>
    BFloat16,
    /// <summary>IEEE 754 binary16.</summary>
    Float16,
    /// <summary>32-bit signed integer.</summary>
    Int32,
    /// <summary>64-bit signed integer.</summary>
    Int64,
    /// <summary>8-bit unsigned integer.</summary>
    UInt8,
    /// <summary>8-bit signed integer.</summary>
    Int8,
}

/// <summary>Facts about element types.</summary>
public static class DTypeExtensions
{
    extension(DType dtype)
    {
        /// <summary>Bytes per element.</summary>
        public int Size => dtype switch
        {
            DType.Float32 or DType.Int32 => 4,
            DType.BFloat16 or DType.Float16 => 2,
            DType.Int64 => 8,
            DType.UInt8 or DType.Int8 => 1,
            _ => throw new ArgumentOutOfRangeException(nameof(dtype), dtype, "not an element type"),
        };

        /// <summary>Whether elements are floating-point numbers.</summary>
        public bool IsFloat => dtype is DType.Float32 or DType.BFloat16 or DType.Float16;
    }

    /// <summary>The element type that holds values of <typeparamref name="T"/>.</summary>
    /// <exception cref="NotSupportedException"><typeparamref name="T"/> is no element type.</exception>
    public static DType Of<T>() where T : unmanaged =>
        typeof(T) == typeof(float) ? DType.Float32 :
        typeof(T) == typeof(BFloat16) ? DType.BFloat16 :
        typeof(T) == typeof(Half) ? DType.Float16 :
        typeof(T) == typeof(int) ? DType.Int32 :
        typeof(T) == typeof(long) ? DType.Int64 :
        typeof(T) == typeof(byte) ? DType.UInt8 :
        typeof(T) == typeof(sbyte) ? DType.Int8 :
        throw new NotSupportedException($"{typeof(T).Name} is not an element type of a tensor.");
}
