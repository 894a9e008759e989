using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine;

/// <summary>Copies part of a matrix into the order in which the register tiles read it.</summary>
internal static unsafe class CpuPack
{
    /// <summary>
    /// Writes rows k0..k0+k of columns j0..j0+columns to <paramref name="packed"/> [k, width], columns beyond the last as zeros.
    /// </summary>
    public static void Panel<T>(CpuMatrix source, long k0, long j0, long k, long columns, int width, float* packed) where T : struct, IFloats<T>
    {
        if (columns < width) new Span<float>(packed, checked((int)(k * width))).Clear();
        long offset = k0 * source.RowStride + j0 * source.ColumnStride;
        switch (source.DType)
        {
            case DType.Float32: Panel<T, Float32Source>((byte*)((float*)source.Data + offset), source, k, columns, width, packed); break;
            case DType.BFloat16: Panel<T, BFloat16Source>((byte*)((ushort*)source.Data + offset), source, k, columns, width, packed); break;
            default: Panel<T, Float16Source>((byte*)((Half*)source.Data + offset), source, k, columns, width, packed); break;
        }
    }

    private static void Panel<T, TSource>(byte* from, CpuMatrix source, long k, long columns, int width, float* packed) where T : struct, IFloats<T> where TSource : struct, ISource
    {
        if (source.ColumnStride == 1) Copy<T, TSource>(from, source.RowStride, k, columns, width, packed);
        else if (source.RowStride == 1) Transpose<TSource>(from, source.ColumnStride, k, columns, width, packed);
        else
        {
            for (long p = 0; p < k; p++)
            for (long j = 0; j < columns; j++) packed[p * width + j] = TSource.Load(from, p * source.RowStride + j * source.ColumnStride);
        }
    }

    /// <summary>Columns are neighbours in the source too.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Copy<T, TSource>(byte* from, long rowStride, long k, long columns, int width, float* packed) where T : struct, IFloats<T> where TSource : struct, ISource
    {
        for (long p = 0; p < k; p++, packed += width)
        {
            long j = 0, row = p * rowStride;
            for (; j + T.Width <= columns; j += T.Width) TSource.Load<T>(from, row + j).Store(packed + j);
            for (; j + 4 <= columns; j += 4) TSource.Load4(from, row + j).Store(packed + j);
            for (; j < columns; j++) packed[j] = TSource.Load(from, row + j);
        }
    }

    /// <summary>Rows are neighbours in the source: transposes squares of four by four.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Transpose<TSource>(byte* from, long columnStride, long k, long columns, int width, float* packed) where TSource : struct, ISource
    {
        for (long next = 0; columns >= 4 && next < columns; next += 4)
        {
            // The last four columns may repeat some.
            long j = Math.Min(next, columns - 4), s0 = j * columnStride, s1 = s0 + columnStride, s2 = s1 + columnStride, s3 = s2 + columnStride;
            float* to = packed + j;
            long p = 0;
            for (; p + 4 <= k; p += 4, to += 4 * width)
            {
                (Vector128<float> r0, Vector128<float> r1, Vector128<float> r2, Vector128<float> r3) =
                    CpuTiles.Transpose(TSource.Load4(from, s0 + p), TSource.Load4(from, s1 + p), TSource.Load4(from, s2 + p), TSource.Load4(from, s3 + p));
                r0.Store(to);
                r1.Store(to + width);
                r2.Store(to + 2 * width);
                r3.Store(to + 3 * width);
            }
            for (; p < k; p++, to += width)
                (to[0], to[1], to[2], to[3]) = (TSource.Load(from, s0 + p), TSource.Load(from, s1 + p), TSource.Load(from, s2 + p), TSource.Load(from, s3 + p));
        }
        for (long j = 0; columns < 4 && j < columns; j++)
        for (long p = 0; p < k; p++) packed[p * width + j] = TSource.Load(from, j * columnStride + p);
    }

    /// <summary>Elements of a type, read as floats.</summary>
    private interface ISource
    {
        static abstract float Load(byte* data, long index);
        static abstract Vector128<float> Load4(byte* data, long index);
        static abstract T Load<T>(byte* data, long index) where T : struct, IFloats<T>;
    }

    private readonly struct Float32Source : ISource
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static float Load(byte* data, long index) => ((float*)data)[index];
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector128<float> Load4(byte* data, long index) => Vector128.Load((float*)data + index);
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static T Load<T>(byte* data, long index) where T : struct, IFloats<T> => T.Load((float*)data + index);
    }

    private readonly struct BFloat16Source : ISource
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static float Load(byte* data, long index) => BitConverter.UInt32BitsToSingle((uint)((ushort*)data)[index] << 16);
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector128<float> Load4(byte* data, long index) =>
            (Vector128.WidenLower(Vector128.CreateScalarUnsafe(*(ulong*)((ushort*)data + index)).AsUInt16()) << 16).AsSingle();
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static T Load<T>(byte* data, long index) where T : struct, IFloats<T> => T.LoadBFloat16((ushort*)data + index);
    }

    private readonly struct Float16Source : ISource
    {
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
    }
}
