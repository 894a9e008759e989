using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine;

/// <summary>Products of a few rows with a weight matrix whose rows are dense: decoding. Each weight is read from memory once.</summary>
internal static unsafe class CpuRowDots
{
    /// <summary>Beyond this the packed multiplication is faster.</summary>
    public const int MaxRows = 16;

    private const int PieceBytes = 64 << 10;                 // a stream begins anew with each: a quarter as many are up to a twentieth faster
    private const int WeightRows = 4;                          // several rows of x: weights are taken by four rows
    private const int MaxFollowersBits = 11, MaxFollowers = 1 << MaxFollowersBits;
    private const int BlockK = 1024;                           // and stay in the first-level cache for all rows of x

    /// <summary>c[i, j] = Σ x[i, p]·w[j, p] (+ bias[j]).</summary>
    public static void Multiply(long m, long n, long k, float* x, long xStride, CpuMatrix w, float* c, long rowStride, float* bias, bool isAdding)
    {
        // A thread's pieces follow each other, so the weights arrive as a stream however short they are.
        long rows = Math.Max(1, PieceBytes / Math.Max(1, k * w.DType.Size)), grain = Math.Clamp(n / (4 * CpuThreads.Count), 1, rows);
        grain = (grain + WeightRows - 1) / WeightRows * WeightRows;
        Stretch next = CpuThreads.Count == 1 ? default : NextAfter(new Stretch((nint)w.Data, n * w.RowStride * w.DType.Size));
        if (m > 1 || w.DType != DType.BFloat16)
        {
            CpuThreads.For(n, grain, new Job(m, k, x, xStride, w, c, rowStride, bias, isAdding), next);
            return;
        }
        using var ordered = new CpuScratch(k);
        Order(k, x, w.DType, ordered.Data);
        CpuThreads.For(n, grain, new Job(m, k, ordered.Data, k, w, c, rowStride, bias, isAdding), next);
    }

    // The weights that a thread's products met, each with those that followed the last time: a token meets them in the order of the one before.
    [ThreadStatic] private static (nint Weights, Stretch Next)[]? t_followers;
    [ThreadStatic] private static nint t_last;

    /// <summary>The weights that will follow, if the order is that of the last time; none where these are new.</summary>
    private static Stretch NextAfter(Stretch weights)
    {
        (nint Weights, Stretch Next)[] followers = t_followers ??= new (nint, Stretch)[MaxFollowers];
        followers[Slot(t_last)] = (t_last, weights);
        t_last = weights.Address;
        (nint known, Stretch next) = followers[Slot(weights.Address)];
        return known == weights.Address ? next : default;
    }

    private static int Slot(nint address) => (int)((uint)((address >> 7) * 0x9E3779B1) >> 32 - MaxFollowersBits);

    /// <summary>Copies a row of x in the order in which rows of such weights meet it.</summary>
    public static void Order(long k, float* x, DType weights, float* to)
    {
        if (weights != DType.BFloat16) Buffer.MemoryCopy(x, to, k * sizeof(float), k * sizeof(float));
        else if (Vector512.IsHardwareAccelerated) Pair<Floats16>(k, x, to);
        else if (Vector256.IsHardwareAccelerated) Pair<Floats8>(k, x, to);
        else Pair<Floats4>(k, x, to);
    }

    /// <summary>c[j] = Σ x[p]·w[j, p] for some rows of the weights, on this thread, with the bits that <see cref="Multiply"/> of one row gives. x as <see cref="Order"/> leaves it.</summary>
    public static void MultiplyOrdered<T>(long k, float* x, CpuMatrix w, float* c, long begin, long end) where T : struct, IFloats<T> =>
        new Job(1, k, x, k, w, c, 0, null, isAdding: false).Rows<T>(begin, end);

    /// <summary>Brings x into the order in which <see cref="DotLanes"/> meets BFloat16 weights.</summary>
    private static void Pair<T>(long k, float* x, float* to) where T : struct, IFloats<T>
    {
        long whole = k / (4 * T.Width) * (4 * T.Width);
        for (long p = 0; p < whole; p += 2 * T.Width)
        {
            (T even, T odd) = T.LoadPairs(x + p);
            even.Store(to + p);
            odd.Store(to + p + T.Width);
        }
        for (long p = whole; p < k; p++) to[p] = x[p];
    }

    private readonly struct Job(long m, long k, float* x, long xStride, CpuMatrix w, float* c, long rowStride, float* bias, bool isAdding) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            if (Vector512.IsHardwareAccelerated) Rows<Floats16>(begin, end);
            else if (Vector256.IsHardwareAccelerated) Rows<Floats8>(begin, end);
            else Rows<Floats4>(begin, end);
        }

        public void Rows<T>(long begin, long end) where T : struct, IFloats<T>
        {
            switch (w.DType)
            {
                case DType.Float32: Rows<T, Float32Elements>(begin, end); break;
                case DType.BFloat16: Rows<T, BFloat16Elements>(begin, end); break;
                default: Rows<T, Float16Elements>(begin, end); break;
            }
        }

        private void Rows<T, TWeight>(long begin, long end) where T : struct, IFloats<T> where TWeight : struct, ICpuElements
        {
            var weights = (byte*)w.Data;
            long step = w.RowStride * TWeight.Size;
            if (m == 1)
            {
                float* four = stackalloc float[WeightRows];
                for (long j = begin; j < end; j += WeightRows)
                {
                    long rows = Math.Min(WeightRows, end - j);
                    DotRows<T, TWeight>(k, x, weights + j * step, step, rows, four);
                    for (long r = 0; r < rows; r++) Put(0, j + r, four[r]);
                }
                return;
            }
            float* sums = stackalloc float[WeightRows * MaxRows];
            for (long j = begin; j < end; j += WeightRows)
            {
                long rows = Math.Min(WeightRows, end - j);
                new Span<float>(sums, WeightRows * MaxRows).Clear();
                for (long k0 = 0; k0 < k; k0 += BlockK)
                for (long i = 0; i < m; i += 2)
                    AddTile<T, TWeight>(Math.Min(BlockK, k - k0), x + i * xStride + k0, i + 1 < m ? xStride : 0, weights + j * step + k0 * TWeight.Size, step, rows, sums + i * WeightRows);
                for (long i = 0; i < m; i++)
                for (long r = 0; r < rows; r++) Put(i, j + r, sums[i * WeightRows + r]);
            }
        }

        private void Put(long i, long j, float sum)
        {
            float* at = c + i * rowStride + j;
            *at = (isAdding ? *at : 0) + sum + (bias != null ? bias[j] : 0);
        }
    }

    /// <summary>The products of one row of x with four rows of weights, one after the other: a single stream, which the memory follows best. Rows that do not exist repeat the last one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void DotRows<T, TWeight>(long k, float* x, byte* w, long step, long rows, float* sums) where T : struct, IFloats<T> where TWeight : struct, ICpuElements
    {
        byte* w1 = w + Math.Min(1, rows - 1) * step, w2 = w + Math.Min(2, rows - 1) * step, w3 = w + Math.Min(3, rows - 1) * step;
        T.SumEach(DotLanes<T, TWeight>(k, x, w), DotLanes<T, TWeight>(k, x, w1), DotLanes<T, TWeight>(k, x, w2), DotLanes<T, TWeight>(k, x, w3), sums);
        for (long p = k / T.Width * T.Width; p < k; p++)
        {
            sums[0] += x[p] * TWeight.Load(w, p);
            sums[1] += x[p] * TWeight.Load(w1, p);
            sums[2] += x[p] * TWeight.Load(w2, p);
            sums[3] += x[p] * TWeight.Load(w3, p);
        }
    }

    /// <summary>The product of two rows as far as whole registers go, one sum to a lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T DotLanes<T, TWeight>(long k, float* x, byte* w) where T : struct, IFloats<T> where TWeight : struct, ICpuElements
    {
        T s0 = T.Zero, s1 = T.Zero, s2 = T.Zero, s3 = T.Zero;
        long p = 0;
        for (; p + 4 * T.Width <= k; p += 4 * T.Width)
        {
            FetchAhead<T, TWeight>(w, p);
            (T w0, T w1) = TWeight.LoadTwo<T>(w, p);
            (T w2, T w3) = TWeight.LoadTwo<T>(w, p + 2 * T.Width);
            s0 = T.MulAdd(w0, T.Load(x + p), s0);
            s1 = T.MulAdd(w1, T.Load(x + p + T.Width), s1);
            s2 = T.MulAdd(w2, T.Load(x + p + 2 * T.Width), s2);
            s3 = T.MulAdd(w3, T.Load(x + p + 3 * T.Width), s3);
        }
        for (; p + T.Width <= k; p += T.Width)
        {
            CpuSimd.FetchAhead(w + p * TWeight.Size, AheadBytes<TWeight>());
            s0 = T.MulAdd(T.Load(x + p), TWeight.Load<T>(w, p), s0);
        }
        return s0 + s1 + (s2 + s3);
    }

    /// <summary>Adds the products of two rows of x with four rows of weights to sums [2, 4]. Rows that do not exist repeat the last one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void AddTile<T, TWeight>(long k, float* x, long xStride, byte* w, long step, long rows, float* sums) where T : struct, IFloats<T> where TWeight : struct, ICpuElements
    {
        float* y = x + xStride;
        byte* w1 = w + Math.Min(1, rows - 1) * step, w2 = w + Math.Min(2, rows - 1) * step, w3 = w + Math.Min(3, rows - 1) * step;
        T s0 = T.Zero, s1 = T.Zero, s2 = T.Zero, s3 = T.Zero, t0 = T.Zero, t1 = T.Zero, t2 = T.Zero, t3 = T.Zero;
        long p = 0;
        for (; p + T.Width <= k; p += T.Width)
        {
            T x0 = T.Load(x + p), y0 = T.Load(y + p), v = TWeight.Load<T>(w, p);
            s0 = T.MulAdd(x0, v, s0); t0 = T.MulAdd(y0, v, t0);
            v = TWeight.Load<T>(w1, p); s1 = T.MulAdd(x0, v, s1); t1 = T.MulAdd(y0, v, t1);
            v = TWeight.Load<T>(w2, p); s2 = T.MulAdd(x0, v, s2); t2 = T.MulAdd(y0, v, t2);
            v = TWeight.Load<T>(w3, p); s3 = T.MulAdd(x0, v, s3); t3 = T.MulAdd(y0, v, t3);
        }
        sums[0] += s0.Sum(); sums[1] += s1.Sum(); sums[2] += s2.Sum(); sums[3] += s3.Sum();
        sums[4] += t0.Sum(); sums[5] += t1.Sum(); sums[6] += t2.Sum(); sums[7] += t3.Sum();
        for (; p < k; p++)
        {
            (float v0, float v1, float v2, float v3) = (TWeight.Load(w, p), TWeight.Load(w1, p), TWeight.Load(w2, p), TWeight.Load(w3, p));
            sums[0] += x[p] * v0; sums[1] += x[p] * v1; sums[2] += x[p] * v2; sums[3] += x[p] * v3;
            sums[4] += y[p] * v0; sums[5] += y[p] * v1; sums[6] += y[p] * v2; sums[7] += y[p] * v3;
        }
    }

    /// <summary>
    /// How far weights are fetched ahead of their use, measured on a Zen 4: Float32 from memory comes a quarter slower at 16 KiB than at 3. 16-bit weights, of which a row is half as long and
    /// a model often lies in the third-level cache, come from there by a third faster at 16 KiB than at 6, and from memory as fast.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int AheadBytes<TWeight>() where TWeight : struct, ICpuElements => TWeight.Size == sizeof(float) ? 3 << 10 : 16 << 10;

    /// <summary>Fetches the cache lines of one round of four registers. An address behind the matrix is harmless.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void FetchAhead<T, TWeight>(byte* w, long p) where T : struct, IFloats<T> where TWeight : struct, ICpuElements
    {
        for (int line = 0; line < 4 * T.Width * TWeight.Size; line += 64) CpuSimd.FetchAhead(w + p * TWeight.Size + line, AheadBytes<TWeight>());
    }
}
