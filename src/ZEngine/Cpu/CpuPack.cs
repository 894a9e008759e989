using System.Runtime.CompilerServices;

namespace ZEngine;

/// <summary>Copies part of a matrix into the order in which the register tiles read it.</summary>
internal static unsafe class CpuPack
{
    /// <summary>
    /// Writes rows k0..k0+k of columns j0..j0+columns to <paramref name="packed"/> [k, width], columns beyond the last as zeros.
    /// </summary>
    public static void Panel(CpuMatrix source, long k0, long j0, long k, long columns, int width, float* packed)
    {
        long offset = k0 * source.RowStride + j0 * source.ColumnStride;
        switch (source.DType)
        {
            case DType.Float32: Panel((float*)source.Data + offset, source.RowStride, source.ColumnStride, k, columns, width, packed); break;
            case DType.BFloat16: Panel((BFloat16*)source.Data + offset, source.RowStride, source.ColumnStride, k, columns, width, packed); break;
            default: Panel((Half*)source.Data + offset, source.RowStride, source.ColumnStride, k, columns, width, packed); break;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Panel<TElement>(TElement* source, long rowStride, long columnStride, long k, long columns, int width, float* packed) where TElement : unmanaged
    {
        if (columns < width) new Span<float>(packed, checked((int)(k * width))).Clear();
        if (columnStride == 1)
        {
            for (long p = 0; p < k; p++, source += rowStride, packed += width)
            {
                if (typeof(TElement) == typeof(float) && columns == width) Unsafe.CopyBlockUnaligned(packed, source, (uint)width * sizeof(float));
                else for (long j = 0; j < columns; j++) packed[j] = ToFloat(source[j]);
            }
            return;
        }
        // Transposing: four source rows at a time, so that the stores of one step share a cache line.
        long column = 0;
        for (; column + 4 <= columns; column += 4)
        {
            TElement* s0 = source + column * columnStride, s1 = s0 + columnStride, s2 = s1 + columnStride, s3 = s2 + columnStride;
            float* to = packed + column;
            for (long p = 0; p < k; p++, to += width)
            {
                long at = p * rowStride;
                (to[0], to[1], to[2], to[3]) = (ToFloat(s0[at]), ToFloat(s1[at]), ToFloat(s2[at]), ToFloat(s3[at]));
            }
        }
        for (; column < columns; column++)
        for (long p = 0; p < k; p++) packed[p * width + column] = ToFloat(source[column * columnStride + p * rowStride]);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float ToFloat<TElement>(TElement value) where TElement : unmanaged
    {
        if (typeof(TElement) == typeof(float)) return Unsafe.BitCast<TElement, float>(value);
        if (typeof(TElement) == typeof(BFloat16)) return Unsafe.BitCast<TElement, BFloat16>(value);
        return (float)Unsafe.BitCast<TElement, Half>(value);
    }
}
