using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine;

/// <summary>Products of a few rows with a weight matrix whose rows are dense: decoding. Each weight is read from memory once.</summary>
internal static unsafe class CpuRowDots
{
    /// <summary>Beyond this the packed multiplication is faster.</summary>
    public const int MaxRows = 16;

    private const int WeightRows = 4;

    /// <summary>c[i, j] = Σ x[i, p]·w[j, p] (+ bias[j]).</summary>
    public static void Multiply(long m, long n, long k, float* x, long xStride, CpuMatrix w, float* c, long rowStride, float* bias, bool isAdding)
    {
        // About 64 KiB of weights to a piece, a whole number of row groups.
        long grain = Math.Max(WeightRows, 65536 / Math.Max(1, k * w.DType.Size) / WeightRows * WeightRows);
        CpuThreads.For(n, grain, new Job(m, k, x, xStride, w, c, rowStride, bias, isAdding));
    }

    private readonly struct Job(long m, long k, float* x, long xStride, CpuMatrix w, float* c, long rowStride, float* bias, bool isAdding) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            if (Vector512.IsHardwareAccelerated) Rows<Floats16>(begin, end);
            else if (Vector256.IsHardwareAccelerated) Rows<Floats8>(begin, end);
            else Rows<Floats4>(begin, end);
        }

        private void Rows<T>(long begin, long end) where T : struct, IFloats<T>
        {
            float* sums = stackalloc float[WeightRows];
            for (long j = begin; j < end; j += WeightRows)
            {
                long rows = Math.Min(WeightRows, end - j);
                for (long i = 0; i < m; i++)
                {
                    float* xi = x + i * xStride;
                    if (w.DType == DType.Float32) Dots<T>(k, xi, (float*)w.Data + j * w.RowStride, w.RowStride, rows, sums);
                    else if (w.DType == DType.BFloat16) Dots<T>(k, xi, (ushort*)w.Data + j * w.RowStride, w.RowStride, rows, sums);
                    else Dots(k, xi, (Half*)w.Data + j * w.RowStride, w.RowStride, rows, sums);
                    float* at = c + i * rowStride + j;
                    for (long r = 0; r < rows; r++) at[r] = (isAdding ? at[r] : 0) + sums[r] + (bias != null ? bias[j + r] : 0);
                }
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Dots<T>(long k, float* x, float* w, long stride, long rows, float* sums) where T : struct, IFloats<T>
    {
        if (rows < WeightRows)
        {
            for (long r = 0; r < rows; r++) sums[r] = Dot<T>(k, x, w + r * stride);
            return;
        }
        T s0 = T.Zero, s1 = T.Zero, s2 = T.Zero, s3 = T.Zero, t0 = T.Zero, t1 = T.Zero, t2 = T.Zero, t3 = T.Zero;
        float* w1 = w + stride, w2 = w1 + stride, w3 = w2 + stride;
        long p = 0;
        for (; p + 2 * T.Width <= k; p += 2 * T.Width)
        {
            T x0 = T.Load(x + p), x1 = T.Load(x + p + T.Width);
            s0 = T.MulAdd(x0, T.Load(w + p), s0); t0 = T.MulAdd(x1, T.Load(w + p + T.Width), t0);
            s1 = T.MulAdd(x0, T.Load(w1 + p), s1); t1 = T.MulAdd(x1, T.Load(w1 + p + T.Width), t1);
            s2 = T.MulAdd(x0, T.Load(w2 + p), s2); t2 = T.MulAdd(x1, T.Load(w2 + p + T.Width), t2);
            s3 = T.MulAdd(x0, T.Load(w3 + p), s3); t3 = T.MulAdd(x1, T.Load(w3 + p + T.Width), t3);
        }
        for (; p < k; p += T.Width)
        {
            T x0 = T.LoadUpTo(x + p, k - p);
            s0 = T.MulAdd(x0, T.LoadUpTo(w + p, k - p), s0); s1 = T.MulAdd(x0, T.LoadUpTo(w1 + p, k - p), s1);
            s2 = T.MulAdd(x0, T.LoadUpTo(w2 + p, k - p), s2); s3 = T.MulAdd(x0, T.LoadUpTo(w3 + p, k - p), s3);
        }
        (sums[0], sums[1], sums[2], sums[3]) = ((s0 + t0).Sum(), (s1 + t1).Sum(), (s2 + t2).Sum(), (s3 + t3).Sum());
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float Dot<T>(long k, float* x, float* w) where T : struct, IFloats<T>
    {
        T s = T.Zero, t = T.Zero;
        long p = 0;
        for (; p + 2 * T.Width <= k; p += 2 * T.Width)
        {
            s = T.MulAdd(T.Load(x + p), T.Load(w + p), s);
            t = T.MulAdd(T.Load(x + p + T.Width), T.Load(w + p + T.Width), t);
        }
        for (; p < k; p += T.Width) s = T.MulAdd(T.LoadUpTo(x + p, k - p), T.LoadUpTo(w + p, k - p), s);
        return (s + t).Sum();
    }

    /// <summary>The same for bfloat16 weights.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Dots<T>(long k, float* x, ushort* w, long stride, long rows, float* sums) where T : struct, IFloats<T>
    {
        for (long r = 0; r < rows; r++, w += stride)
        {
            T s = T.Zero, t = T.Zero;
            long p = 0;
            for (; p + 2 * T.Width <= k; p += 2 * T.Width)
            {
                s = T.MulAdd(T.Load(x + p), T.LoadBFloat16(w + p), s);
                t = T.MulAdd(T.Load(x + p + T.Width), T.LoadBFloat16(w + p + T.Width), t);
            }
            for (; p + T.Width <= k; p += T.Width) s = T.MulAdd(T.Load(x + p), T.LoadBFloat16(w + p), s);
            float sum = (s + t).Sum();
            for (; p < k; p++) sum += x[p] * new BFloat16(w[p]);
            sums[r] = sum;
        }
    }

    private static void Dots(long k, float* x, Half* w, long stride, long rows, float* sums)
    {
        for (long r = 0; r < rows; r++, w += stride)
        {
            float sum = 0;
            for (long p = 0; p < k; p++) sum += x[p] * (float)w[p];
            sums[r] = sum;
        }
    }
}
