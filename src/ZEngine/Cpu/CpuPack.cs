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
            case DType.Float32: Panel<T, Float32Elements>((byte*)((float*)source.Data + offset), source, k, columns, width, packed); break;
            case DType.BFloat16: Panel<T, BFloat16Elements>((byte*)((ushort*)source.Data + offset), source, k, columns, width, packed); break;
            default: Panel<T, Float16Elements>((byte*)((Half*)source.Data + offset), source, k, columns, width, packed); break;
        }
    }

    private static void Panel<T, TElements>(byte* from, CpuMatrix source, long k, long columns, int width, float* packed) where T : struct, IFloats<T> where TElements : struct, ICpuElements
    {
        if (source.ColumnStride == 1) Copy<T, TElements>(from, source.RowStride, k, columns, width, packed);
        else if (source.RowStride == 1) Transpose<TElements>(from, source.ColumnStride, k, columns, width, packed);
        else
        {
            for (long p = 0; p < k; p++)
            for (long j = 0; j < columns; j++) packed[p * width + j] = TElements.Load(from, p * source.RowStride + j * source.ColumnStride);
        }
    }

    /// <summary>Columns are neighbours in the source too.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Copy<T, TElements>(byte* from, long rowStride, long k, long columns, int width, float* packed) where T : struct, IFloats<T> where TElements : struct, ICpuElements
    {
        for (long p = 0; p < k; p++, packed += width)
        {
            long j = 0, row = p * rowStride;
            for (; j + T.Width <= columns; j += T.Width) TElements.Load<T>(from, row + j).Store(packed + j);
            for (; j + 4 <= columns; j += 4) TElements.Load4(from, row + j).Store(packed + j);
            for (; j < columns; j++) packed[j] = TElements.Load(from, row + j);
        }
    }

    /// <summary>Rows are neighbours in the source: transposes squares of four by four.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Transpose<TElements>(byte* from, long columnStride, long k, long columns, int width, float* packed) where TElements : struct, ICpuElements
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
                    CpuTiles.Transpose(TElements.Load4(from, s0 + p), TElements.Load4(from, s1 + p), TElements.Load4(from, s2 + p), TElements.Load4(from, s3 + p));
                r0.Store(to);
                r1.Store(to + width);
                r2.Store(to + 2 * width);
                r3.Store(to + 3 * width);
            }
            for (; p < k; p++, to += width)
                (to[0], to[1], to[2], to[3]) = (TElements.Load(from, s0 + p), TElements.Load(from, s1 + p), TElements.Load(from, s2 + p), TElements.Load(from, s3 + p));
        }
        for (long j = 0; columns < 4 && j < columns; j++)
        for (long p = 0; p < k; p++) packed[p * width + j] = TElements.Load(from, j * columnStride + p);
    }
}
