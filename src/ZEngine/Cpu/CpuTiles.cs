using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ZEngine;

/// <summary>What is known to be zero, or not wanted, in a product of small tiles.</summary>
internal enum Triangle
{
    None,
    /// <summary>A is zero right of its diagonal.</summary>
    LowerA,
    /// <summary>A is zero left of its diagonal.</summary>
    UpperA,
    /// <summary>Only C's elements up to the diagonal are wanted; some beyond may be written.</summary>
    LowerC,
}

/// <summary>Products of tiles that fit the first-level caches, on the calling thread and without packing: the inner loops of the chunked scan and of attention.</summary>
internal static unsafe class CpuTiles
{
    private const int Rows = 6;

    /// <summary>C = A·B, or C += A·B.</summary>
    /// <param name="m">Rows of A and C.</param>
    /// <param name="n">Columns of B and C.</param>
    /// <param name="k">Columns of A, rows of B.</param>
    /// <param name="a">Element (i, p) at i·aRow + p·aColumn.</param>
    /// <param name="b">Rows dense, bRow apart.</param>
    /// <param name="c">Rows dense, cRow apart.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Multiply<T>(long m, long n, long k, float* a, long aRow, long aColumn, float* b, long bRow, float* c, long cRow, bool isAdding, Triangle triangle = Triangle.None) where T : struct, IFloats<T>
    {
        for (long i = 0; i < m; i += Rows)
        {
            long rows = Math.Min(Rows, m - i);
            long firstK = triangle == Triangle.UpperA ? Math.Min(i, k) : 0, lastK = triangle == Triangle.LowerA ? Math.Min(k, i + rows) : k;
            long columns = triangle == Triangle.LowerC ? Math.Min(n, (i + rows + 2 * T.Width - 1) / (2 * T.Width) * (2 * T.Width)) : n;
            float* ai = a + i * aRow + firstK * aColumn, bi = b + firstK * bRow;
            long j = 0;
            for (; j + 2 * T.Width <= columns; j += 2 * T.Width) Tile<T>(rows, lastK - firstK, ai, aRow, aColumn, bi + j, bRow, c + i * cRow + j, cRow, isAdding);
            for (; j < columns; j += T.Width) Edge<T>(rows, Math.Min(T.Width, n - j), lastK - firstK, ai, aRow, aColumn, bi + j, bRow, c + i * cRow + j, cRow, isAdding);
        }
    }

    /// <summary>to [columns, rows] = from [rows, columns] transposed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Transpose(float* from, long fromRow, long rows, long columns, float* to, long toRow)
    {
        long i = 0;
        for (; i + 4 <= rows; i += 4)
        {
            float* f0 = from + i * fromRow, f1 = f0 + fromRow, f2 = f1 + fromRow, f3 = f2 + fromRow;
            long j = 0;
            for (; j + 4 <= columns; j += 4)
            {
                (Vector128<float> r0, Vector128<float> r1, Vector128<float> r2, Vector128<float> r3) =
                    Transpose(Vector128.Load(f0 + j), Vector128.Load(f1 + j), Vector128.Load(f2 + j), Vector128.Load(f3 + j));
                float* t = to + j * toRow + i;
                r0.Store(t);
                r1.Store(t + toRow);
                r2.Store(t + 2 * toRow);
                r3.Store(t + 3 * toRow);
            }
            for (; j < columns; j++)
            {
                float* t = to + j * toRow + i;
                (t[0], t[1], t[2], t[3]) = (f0[j], f1[j], f2[j], f3[j]);
            }
        }
        for (; i < rows; i++)
        for (long j = 0; j < columns; j++) to[j * toRow + i] = from[i * fromRow + j];
    }

    /// <summary>A square of four by four, transposed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Vector128<float>, Vector128<float>, Vector128<float>, Vector128<float>) Transpose(Vector128<float> r0, Vector128<float> r1, Vector128<float> r2, Vector128<float> r3)
    {
        if (Sse.IsSupported)
        {
            Vector128<float> a = Sse.UnpackLow(r0, r1), b = Sse.UnpackLow(r2, r3), c = Sse.UnpackHigh(r0, r1), d = Sse.UnpackHigh(r2, r3);
            return (Sse.MoveLowToHigh(a, b), Sse.MoveHighToLow(b, a), Sse.MoveLowToHigh(c, d), Sse.MoveHighToLow(d, c));
        }
        return (
            Vector128.Create(r0[0], r1[0], r2[0], r3[0]), Vector128.Create(r0[1], r1[1], r2[1], r3[1]),
            Vector128.Create(r0[2], r1[2], r2[2], r3[2]), Vector128.Create(r0[3], r1[3], r2[3], r3[3]));
    }

    /// <summary>Σ a·b.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static float Dot<T>(float* a, float* b, long n) where T : struct, IFloats<T>
    {
        T s = T.Zero, t = T.Zero;
        long i = 0;
        for (; i + 2 * T.Width <= n; i += 2 * T.Width)
        {
            s = T.MulAdd(T.Load(a + i), T.Load(b + i), s);
            t = T.MulAdd(T.Load(a + i + T.Width), T.Load(b + i + T.Width), t);
        }
        for (; i < n; i += T.Width) s = T.MulAdd(T.LoadUpTo(a + i, n - i), T.LoadUpTo(b + i, n - i), s);
        return (s + t).Sum();
    }

    /// <summary>products[r] = scale·Σ a·b_r for four rows.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void DotEach<T>(float* a, float* b0, float* b1, float* b2, float* b3, long n, float scale, float* products) where T : struct, IFloats<T>
    {
        T s0 = T.Zero, s1 = T.Zero, s2 = T.Zero, s3 = T.Zero;
        long i = 0;
        for (; i + T.Width <= n; i += T.Width)
        {
            T x = T.Load(a + i);
            (s0, s1, s2, s3) = (T.MulAdd(x, T.Load(b0 + i), s0), T.MulAdd(x, T.Load(b1 + i), s1), T.MulAdd(x, T.Load(b2 + i), s2), T.MulAdd(x, T.Load(b3 + i), s3));
        }
        if (i < n)
        {
            long rest = n - i;
            T x = T.LoadUpTo(a + i, rest);
            (s0, s1) = (T.MulAdd(x, T.LoadUpTo(b0 + i, rest), s0), T.MulAdd(x, T.LoadUpTo(b1 + i, rest), s1));
            (s2, s3) = (T.MulAdd(x, T.LoadUpTo(b2 + i, rest), s2), T.MulAdd(x, T.LoadUpTo(b3 + i, rest), s3));
        }
        T.SumEach(s0, s1, s2, s3, products);
        for (long r = 0; r < 4; r++) products[r] *= scale;
    }

    /// <summary>y += Σ x_r·factors[r] over four rows.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void AddEach<T>(float* x0, float* x1, float* x2, float* x3, float* factors, float* y, long n) where T : struct, IFloats<T>
    {
        T f0 = T.Broadcast(factors[0]), f1 = T.Broadcast(factors[1]), f2 = T.Broadcast(factors[2]), f3 = T.Broadcast(factors[3]);
        long i = 0;
        for (; i + T.Width <= n; i += T.Width)
            T.MulAdd(T.Load(x3 + i), f3, T.MulAdd(T.Load(x2 + i), f2, T.MulAdd(T.Load(x1 + i), f1, T.MulAdd(T.Load(x0 + i), f0, T.Load(y + i))))).Store(y + i);
        if (i == n) return;
        long rest = n - i;
        T low = T.MulAdd(T.LoadUpTo(x1 + i, rest), f1, T.MulAdd(T.LoadUpTo(x0 + i, rest), f0, T.LoadUpTo(y + i, rest)));
        T.MulAdd(T.LoadUpTo(x3 + i, rest), f3, T.MulAdd(T.LoadUpTo(x2 + i, rest), f2, low)).StoreUpTo(y + i, rest);
    }

    /// <summary>y = x·factor.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Scale<T>(float* x, float factor, float* y, long n) where T : struct, IFloats<T>
    {
        T f = T.Broadcast(factor);
        for (long i = 0; i < n; i += T.Width) (T.LoadUpTo(x + i, n - i) * f).StoreUpTo(y + i, n - i);
    }

    /// <summary>y += x·factor.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void AddScaled<T>(float* x, float factor, float* y, long n) where T : struct, IFloats<T>
    {
        T f = T.Broadcast(factor);
        for (long i = 0; i < n; i += T.Width) T.MulAdd(T.LoadUpTo(x + i, n - i), f, T.LoadUpTo(y + i, n - i)).StoreUpTo(y + i, n - i);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile<T>(long rows, long k, float* a, long aRow, long aColumn, float* b, long bRow, float* c, long cRow, bool isAdding) where T : struct, IFloats<T>
    {
        // Rows that do not exist repeat the last one and are not stored.
        float* a1 = a + Math.Min(1, rows - 1) * aRow, a2 = a + Math.Min(2, rows - 1) * aRow, a3 = a + Math.Min(3, rows - 1) * aRow;
        float* a4 = a + Math.Min(4, rows - 1) * aRow, a5 = a + Math.Min(5, rows - 1) * aRow;
        T c00 = T.Zero, c01 = T.Zero, c10 = T.Zero, c11 = T.Zero, c20 = T.Zero, c21 = T.Zero;
        T c30 = T.Zero, c31 = T.Zero, c40 = T.Zero, c41 = T.Zero, c50 = T.Zero, c51 = T.Zero;
        long at = 0;
        for (; k > 0; k--)
        {
            T b0 = T.Load(b), b1 = T.Load(b + T.Width), x;
            x = T.Broadcast(a[at]); c00 = T.MulAdd(x, b0, c00); c01 = T.MulAdd(x, b1, c01);
            x = T.Broadcast(a1[at]); c10 = T.MulAdd(x, b0, c10); c11 = T.MulAdd(x, b1, c11);
            x = T.Broadcast(a2[at]); c20 = T.MulAdd(x, b0, c20); c21 = T.MulAdd(x, b1, c21);
            x = T.Broadcast(a3[at]); c30 = T.MulAdd(x, b0, c30); c31 = T.MulAdd(x, b1, c31);
            x = T.Broadcast(a4[at]); c40 = T.MulAdd(x, b0, c40); c41 = T.MulAdd(x, b1, c41);
            x = T.Broadcast(a5[at]); c50 = T.MulAdd(x, b0, c50); c51 = T.MulAdd(x, b1, c51);
            at += aColumn;
            b += bRow;
        }
        Finish(c00, c01, c, isAdding);
        if (rows > 1) Finish(c10, c11, c + cRow, isAdding);
        if (rows > 2) Finish(c20, c21, c + 2 * cRow, isAdding);
        if (rows > 3) Finish(c30, c31, c + 3 * cRow, isAdding);
        if (rows > 4) Finish(c40, c41, c + 4 * cRow, isAdding);
        if (rows > 5) Finish(c50, c51, c + 5 * cRow, isAdding);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Finish<T>(T c0, T c1, float* c, bool isAdding) where T : struct, IFloats<T>
    {
        if (isAdding) (c0, c1) = (T.Load(c) + c0, T.Load(c + T.Width) + c1);
        c0.Store(c);
        c1.Store(c + T.Width);
    }

    /// <summary>The last columns: one register wide, or part of one. Even and odd steps are summed apart, for enough independent multiply-adds.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Edge<T>(long rows, long columns, long k, float* a, long aRow, long aColumn, float* b, long bRow, float* c, long cRow, bool isAdding) where T : struct, IFloats<T>
    {
        float* a1 = a + Math.Min(1, rows - 1) * aRow, a2 = a + Math.Min(2, rows - 1) * aRow, a3 = a + Math.Min(3, rows - 1) * aRow;
        float* a4 = a + Math.Min(4, rows - 1) * aRow, a5 = a + Math.Min(5, rows - 1) * aRow;
        T c0 = T.Zero, c1 = T.Zero, c2 = T.Zero, c3 = T.Zero, c4 = T.Zero, c5 = T.Zero;
        T d0 = T.Zero, d1 = T.Zero, d2 = T.Zero, d3 = T.Zero, d4 = T.Zero, d5 = T.Zero;
        long at = 0;
        for (; k >= 2; k -= 2)
        {
            T x = T.LoadUpTo(b, columns), y = T.LoadUpTo(b + bRow, columns);
            long next = at + aColumn;
            c0 = T.MulAdd(T.Broadcast(a[at]), x, c0); d0 = T.MulAdd(T.Broadcast(a[next]), y, d0);
            c1 = T.MulAdd(T.Broadcast(a1[at]), x, c1); d1 = T.MulAdd(T.Broadcast(a1[next]), y, d1);
            c2 = T.MulAdd(T.Broadcast(a2[at]), x, c2); d2 = T.MulAdd(T.Broadcast(a2[next]), y, d2);
            c3 = T.MulAdd(T.Broadcast(a3[at]), x, c3); d3 = T.MulAdd(T.Broadcast(a3[next]), y, d3);
            c4 = T.MulAdd(T.Broadcast(a4[at]), x, c4); d4 = T.MulAdd(T.Broadcast(a4[next]), y, d4);
            c5 = T.MulAdd(T.Broadcast(a5[at]), x, c5); d5 = T.MulAdd(T.Broadcast(a5[next]), y, d5);
            at += 2 * aColumn;
            b += 2 * bRow;
        }
        if (k > 0)
        {
            T x = T.LoadUpTo(b, columns);
            c0 = T.MulAdd(T.Broadcast(a[at]), x, c0); c1 = T.MulAdd(T.Broadcast(a1[at]), x, c1); c2 = T.MulAdd(T.Broadcast(a2[at]), x, c2);
            c3 = T.MulAdd(T.Broadcast(a3[at]), x, c3); c4 = T.MulAdd(T.Broadcast(a4[at]), x, c4); c5 = T.MulAdd(T.Broadcast(a5[at]), x, c5);
        }
        FinishEdge(c0 + d0, columns, c, isAdding);
        if (rows > 1) FinishEdge(c1 + d1, columns, c + cRow, isAdding);
        if (rows > 2) FinishEdge(c2 + d2, columns, c + 2 * cRow, isAdding);
        if (rows > 3) FinishEdge(c3 + d3, columns, c + 3 * cRow, isAdding);
        if (rows > 4) FinishEdge(c4 + d4, columns, c + 4 * cRow, isAdding);
        if (rows > 5) FinishEdge(c5 + d5, columns, c + 5 * cRow, isAdding);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void FinishEdge<T>(T sum, long columns, float* c, bool isAdding) where T : struct, IFloats<T>
    {
        if (isAdding) sum = T.LoadUpTo(c, columns) + sum;
        sum.StoreUpTo(c, columns);
    }
}
