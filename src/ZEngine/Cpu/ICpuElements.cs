using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine;

/// <summary>Elements of a type, read as floats.</summary>
internal unsafe interface ICpuElements
{
    static abstract int Size { get; }
    static abstract float Load(byte* data, long index);
    static abstract Vector128<float> Load4(byte* data, long index);
    static abstract T Load<T>(byte* data, long index) where T : struct, IFloats<T>;

    /// <summary>Loads two registers: one after the other, but of BFloat16 the elements at even places and those at odd ones.</summary>
    static abstract (T, T) LoadTwo<T>(byte* data, long index) where T : struct, IFloats<T>;
}

internal readonly unsafe struct Float32Elements : ICpuElements
{
    public static int Size
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 4;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Load(byte* data, long index) => ((float*)data)[index];
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<float> Load4(byte* data, long index) => Vector128.Load((float*)data + index);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Load<T>(byte* data, long index) where T : struct, IFloats<T> => T.Load((float*)data + index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (T, T) LoadTwo<T>(byte* data, long index) where T : struct, IFloats<T> => (Load<T>(data, index), Load<T>(data, index + T.Width));
}

internal readonly unsafe struct BFloat16Elements : ICpuElements
{
    public static int Size
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 2;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Load(byte* data, long index) => BitConverter.UInt32BitsToSingle((uint)((ushort*)data)[index] << 16);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<float> Load4(byte* data, long index) =>
        (Vector128.WidenLower(Vector128.CreateScalarUnsafe(*(ulong*)((ushort*)data + index)).AsUInt16()) << 16).AsSingle();
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Load<T>(byte* data, long index) where T : struct, IFloats<T> => T.LoadBFloat16((ushort*)data + index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (T, T) LoadTwo<T>(byte* data, long index) where T : struct, IFloats<T> => T.LoadBFloat16Pairs((ushort*)data + index);
}

internal readonly unsafe struct Float16Elements : ICpuElements
{
    public static int Size
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 2;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Load(byte* data, long index) => (float)((Half*)data)[index];
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<float> Load4(byte* data, long index)
    {
        Half* x = (Half*)data + index;
        return Vector128.Create((float)x[0], (float)x[1], (float)x[2], (float)x[3]);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Load<T>(byte* data, long index) where T : struct, IFloats<T>
    {
        float* lanes = stackalloc float[16];
        for (int i = 0; i < T.Width; i++) lanes[i] = (float)((Half*)data)[index + i];
        return T.Load(lanes);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (T, T) LoadTwo<T>(byte* data, long index) where T : struct, IFloats<T> => (Load<T>(data, index), Load<T>(data, index + T.Width));
}
