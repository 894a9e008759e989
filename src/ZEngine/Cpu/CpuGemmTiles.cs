using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;

namespace ZEngine;

/// <content>The innermost tiles: all accumulators in registers, one rank-1 update per step of k.</content>
/// <remarks>
/// A tile is 12 rows by two registers on machines with 32 vector registers and 6 rows by two on those with 16: 24 or 12
/// accumulators, enough to hide the latency of the multiply-add. The rows are written out because the JIT keeps named locals in
/// registers, not arrays. The tile of C is fetched while the products run, and A, which comes from the second-level cache, some steps ahead.
/// </remarks>
internal static unsafe partial class CpuGemm
{
    private const int PrefetchSteps = 32;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile12<T>(long k, float* a, float* b, float* c, long rowStride, float* bias, bool isAdding) where T : struct, IFloats<T>
    {
        T b0 = bias != null ? T.Load(bias) : T.Zero, b1 = bias != null ? T.Load(bias + T.Width) : T.Zero, x;
        T c00 = b0, c01 = b1;
        T c10 = b0, c11 = b1;
        T c20 = b0, c21 = b1;
        T c30 = b0, c31 = b1;
        T c40 = b0, c41 = b1;
        T c50 = b0, c51 = b1;
        T c60 = b0, c61 = b1;
        T c70 = b0, c71 = b1;
        T c80 = b0, c81 = b1;
        T c90 = b0, c91 = b1;
        T c100 = b0, c101 = b1;
        T c110 = b0, c111 = b1;
        for (int i = 0; i < 12; i++) Prefetch(c + i * rowStride, c + i * rowStride + T.Width);
        for (; k > 0; k--)
        {
            Prefetch(a + PrefetchSteps * 12);
            (b0, b1) = (T.Load(b), T.Load(b + T.Width));
            x = T.Broadcast(a[0]); c00 = T.MulAdd(x, b0, c00); c01 = T.MulAdd(x, b1, c01);
            x = T.Broadcast(a[1]); c10 = T.MulAdd(x, b0, c10); c11 = T.MulAdd(x, b1, c11);
            x = T.Broadcast(a[2]); c20 = T.MulAdd(x, b0, c20); c21 = T.MulAdd(x, b1, c21);
            x = T.Broadcast(a[3]); c30 = T.MulAdd(x, b0, c30); c31 = T.MulAdd(x, b1, c31);
            x = T.Broadcast(a[4]); c40 = T.MulAdd(x, b0, c40); c41 = T.MulAdd(x, b1, c41);
            x = T.Broadcast(a[5]); c50 = T.MulAdd(x, b0, c50); c51 = T.MulAdd(x, b1, c51);
            x = T.Broadcast(a[6]); c60 = T.MulAdd(x, b0, c60); c61 = T.MulAdd(x, b1, c61);
            x = T.Broadcast(a[7]); c70 = T.MulAdd(x, b0, c70); c71 = T.MulAdd(x, b1, c71);
            x = T.Broadcast(a[8]); c80 = T.MulAdd(x, b0, c80); c81 = T.MulAdd(x, b1, c81);
            x = T.Broadcast(a[9]); c90 = T.MulAdd(x, b0, c90); c91 = T.MulAdd(x, b1, c91);
            x = T.Broadcast(a[10]); c100 = T.MulAdd(x, b0, c100); c101 = T.MulAdd(x, b1, c101);
            x = T.Broadcast(a[11]); c110 = T.MulAdd(x, b0, c110); c111 = T.MulAdd(x, b1, c111);
            a += 12;
            b += 2 * T.Width;
        }
        Finish(c00, c01, c + 0 * rowStride, isAdding);
        Finish(c10, c11, c + 1 * rowStride, isAdding);
        Finish(c20, c21, c + 2 * rowStride, isAdding);
        Finish(c30, c31, c + 3 * rowStride, isAdding);
        Finish(c40, c41, c + 4 * rowStride, isAdding);
        Finish(c50, c51, c + 5 * rowStride, isAdding);
        Finish(c60, c61, c + 6 * rowStride, isAdding);
        Finish(c70, c71, c + 7 * rowStride, isAdding);
        Finish(c80, c81, c + 8 * rowStride, isAdding);
        Finish(c90, c91, c + 9 * rowStride, isAdding);
        Finish(c100, c101, c + 10 * rowStride, isAdding);
        Finish(c110, c111, c + 11 * rowStride, isAdding);
    }

    /// <param name="aStep">Floats from one step of A to the next: the rows of its panel.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile6<T>(long k, float* a, long aStep, float* b, float* c, long rowStride, float* bias, bool isAdding) where T : struct, IFloats<T>
    {
        T b0 = bias != null ? T.Load(bias) : T.Zero, b1 = bias != null ? T.Load(bias + T.Width) : T.Zero, x;
        T c00 = b0, c01 = b1;
        T c10 = b0, c11 = b1;
        T c20 = b0, c21 = b1;
        T c30 = b0, c31 = b1;
        T c40 = b0, c41 = b1;
        T c50 = b0, c51 = b1;
        for (int i = 0; i < 6; i++) Prefetch(c + i * rowStride, c + i * rowStride + T.Width);
        for (; k > 0; k--)
        {
            (b0, b1) = (T.Load(b), T.Load(b + T.Width));
            x = T.Broadcast(a[0]); c00 = T.MulAdd(x, b0, c00); c01 = T.MulAdd(x, b1, c01);
            x = T.Broadcast(a[1]); c10 = T.MulAdd(x, b0, c10); c11 = T.MulAdd(x, b1, c11);
            x = T.Broadcast(a[2]); c20 = T.MulAdd(x, b0, c20); c21 = T.MulAdd(x, b1, c21);
            x = T.Broadcast(a[3]); c30 = T.MulAdd(x, b0, c30); c31 = T.MulAdd(x, b1, c31);
            x = T.Broadcast(a[4]); c40 = T.MulAdd(x, b0, c40); c41 = T.MulAdd(x, b1, c41);
            x = T.Broadcast(a[5]); c50 = T.MulAdd(x, b0, c50); c51 = T.MulAdd(x, b1, c51);
            a += aStep;
            b += 2 * T.Width;
        }
        Finish(c00, c01, c + 0 * rowStride, isAdding);
        Finish(c10, c11, c + 1 * rowStride, isAdding);
        Finish(c20, c21, c + 2 * rowStride, isAdding);
        Finish(c30, c31, c + 3 * rowStride, isAdding);
        Finish(c40, c41, c + 4 * rowStride, isAdding);
        Finish(c50, c51, c + 5 * rowStride, isAdding);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Prefetch(float* p)
    {
        if (Sse.IsSupported) Sse.Prefetch0(p);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Prefetch(float* p, float* q)
    {
        Prefetch(p);
        Prefetch(q);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Finish<T>(T c0, T c1, float* c, bool isAdding) where T : struct, IFloats<T>
    {
        if (isAdding) (c0, c1) = (T.Load(c) + c0, T.Load(c + T.Width) + c1);
        c0.Store(c);
        c1.Store(c + T.Width);
    }
}
