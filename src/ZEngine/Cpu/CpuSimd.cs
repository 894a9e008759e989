using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ZEngine;

/// <summary>A register of floats. Kernels are written once over this interface; the JIT makes a version for the machine's width.</summary>
internal unsafe interface IFloats<T> where T : struct, IFloats<T>
{
    static abstract int Width { get; }
    static abstract T Zero { get; }

    static abstract T Load(float* p);
    static abstract T LoadBFloat16(ushort* p);

    /// <summary>Loads two registers of floats: those at even places, and those at odd ones.</summary>
    static abstract (T Even, T Odd) LoadPairs(float* p);

    /// <summary>As <see cref="LoadPairs"/>: a shift and a mask where <see cref="LoadBFloat16"/> has to widen.</summary>
    static abstract (T Even, T Odd) LoadBFloat16Pairs(ushort* p);
    static abstract T Broadcast(float x);
    void Store(float* p);

    /// <summary>Loads the first <paramref name="count"/> lanes, or all; the others are zero and their memory is not touched.</summary>
    static abstract T LoadUpTo(float* p, long count);

    /// <summary>Stores the first <paramref name="count"/> lanes, or all.</summary>
    void StoreUpTo(float* p, long count);

    static abstract T operator +(T a, T b);
    static abstract T operator -(T a, T b);
    static abstract T operator *(T a, T b);
    static abstract T operator /(T a, T b);
    static abstract T operator -(T a);

    /// <summary>a·b + c, rounded once.</summary>
    static abstract T MulAdd(T a, T b, T c);

    /// <summary>The larger; b where b is NaN.</summary>
    static abstract T Max(T a, T b);

    /// <summary>The smaller; b where b is NaN.</summary>
    static abstract T Min(T a, T b);
    static abstract T Abs(T a);
    static abstract T Sqrt(T a);

    /// <summary>To the nearest integer, ties to even.</summary>
    static abstract T Round(T a);

    /// <summary>Per lane: a &gt; b ? then : otherwise.</summary>
    static abstract T SelectGreater(T a, T b, T then, T otherwise);

    /// <summary>Per lane: a is NaN ? then : otherwise.</summary>
    static abstract T SelectNaN(T a, T then, T otherwise);

    /// <summary>2^n for whole n in -126..127.</summary>
    static abstract T Power2(T n);

    /// <summary>a·2^n for whole n in -252..254, rounded once.</summary>
    static abstract T Scale(T a, T n);

    /// <summary>e with a = m·2^e, m in [0.5, 1), for normal positive a.</summary>
    static abstract T Exponent(T a);

    /// <summary>m with a = m·2^e, m in [0.5, 1), for normal positive a.</summary>
    static abstract T Mantissa(T a);
    static abstract T CopySign(T a, T sign);

    /// <summary>Sum of the lanes, in a fixed tree order.</summary>
    float Sum();

    /// <summary>The largest lane.</summary>
    float Max();

    /// <summary>Stores the sums of the lanes of four registers, in a fixed tree order.</summary>
    static abstract void SumEach(T a, T b, T c, T d, float* sums);
}

/// <summary>The width of this machine's vector unit, as kernels see it.</summary>
internal static class CpuSimd
{
    /// <summary>Brings the cache line some bytes behind an address closer. One behind the end of the memory is harmless.</summary>
    /// <remarks>Into the second-level cache: on a Zen 4, a stream from memory that is fetched into the first runs at two thirds of the rate that it has without any fetching.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe void FetchAhead(void* address, int bytes)
    {
        if (Sse.IsSupported) Sse.Prefetch1((byte*)address + bytes);
    }

    /// <summary>Brings all cache lines of some floats closer.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe void FetchRow(float* row, long count)
    {
        for (long i = 0; i < count; i += 64 / sizeof(float)) FetchAhead(row, (int)i * sizeof(float));
    }

    public static int Width => Vector512.IsHardwareAccelerated ? 16 : Vector256.IsHardwareAccelerated ? 8 : 4;
}

/// <summary>16 floats in a 512-bit register.</summary>
internal readonly unsafe struct Floats16(Vector512<float> value) : IFloats<Floats16>
{
    private readonly Vector512<float> _v = value;

    public static int Width
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 16;
    }

    public static Floats16 Zero
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => new(Vector512<float>.Zero);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Load(float* p) => new(Vector512.Load(p));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 LoadBFloat16(ushort* p) => new((Vector512.WidenLower(Vector256.Load(p).ToVector512Unsafe()) << 16).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Floats16 Even, Floats16 Odd) LoadPairs(float* p)
    {
        Vector512<ulong> low = Vector512.Load((ulong*)p), high = Vector512.Load((ulong*)p + 8);
        return (new(Vector512.Narrow(low, high).AsSingle()), new(Vector512.Narrow(low >>> 32, high >>> 32).AsSingle()));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Floats16 Even, Floats16 Odd) LoadBFloat16Pairs(ushort* p)
    {
        Vector512<uint> pairs = Vector512.Load((uint*)p);
        return (new((pairs << 16).AsSingle()), new((pairs & Vector512.Create(0xFFFF0000)).AsSingle()));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 LoadUpTo(float* p, long count)
    {
        if (count >= 16) return Load(p);
        if (Avx512F.IsSupported) return new(Avx512F.MaskLoad(p, First((int)count), Vector512<float>.Zero));
        float* lanes = stackalloc float[16];
        Vector512<float>.Zero.Store(lanes);
        for (long i = 0; i < count; i++) lanes[i] = p[i];
        return Load(lanes);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void StoreUpTo(float* p, long count)
    {
        if (count >= 16)
        {
            Store(p);
            return;
        }
        if (Avx512F.IsSupported)
        {
            Avx512F.MaskStore(p, First((int)count), _v);
            return;
        }
        float* lanes = stackalloc float[16];
        Store(lanes);
        for (long i = 0; i < count; i++) p[i] = lanes[i];
    }

    /// <summary>All ones in the first lanes; none where the count is negative.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> First(int count) => Vector512.LessThan(Vector512<int>.Indices, Vector512.Create(count)).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Broadcast(float x) => new(Vector512.Create(x));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Store(float* p) => _v.Store(p);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator +(Floats16 a, Floats16 b) => new(a._v + b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator -(Floats16 a, Floats16 b) => new(a._v - b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator *(Floats16 a, Floats16 b) => new(a._v * b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator /(Floats16 a, Floats16 b) => new(a._v / b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator -(Floats16 a) => new(-a._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 MulAdd(Floats16 a, Floats16 b, Floats16 c) => new(Vector512.FusedMultiplyAdd(a._v, b._v, c._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Max(Floats16 a, Floats16 b) => new(Vector512.MaxNative(a._v, b._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Min(Floats16 a, Floats16 b) => new(Vector512.MinNative(a._v, b._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Abs(Floats16 a) => new(Vector512.Abs(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Sqrt(Floats16 a) => new(Vector512.Sqrt(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Round(Floats16 a) => new(Vector512.Round(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 SelectGreater(Floats16 a, Floats16 b, Floats16 then, Floats16 otherwise) => new(Vector512.ConditionalSelect(Vector512.GreaterThan(a._v, b._v), then._v, otherwise._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 SelectNaN(Floats16 a, Floats16 then, Floats16 otherwise) => new(Vector512.ConditionalSelect(Vector512.Equals(a._v, a._v), otherwise._v, then._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Power2(Floats16 n) => new((Vector512.ConvertToInt32Native(n._v) + Vector512.Create(127) << 23).AsSingle());
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Scale(Floats16 a, Floats16 n) => Avx512F.IsSupported ? new(Avx512F.Scale(a._v, n._v)) : CpuMath.Scale(a, n);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Exponent(Floats16 a) => new(Vector512.ConvertToSingle((Vector512.ShiftRightLogical(a._v.AsInt32(), 23) & Vector512.Create(255)) - Vector512.Create(126)));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Mantissa(Floats16 a) => new((a._v.AsInt32() & Vector512.Create(0x007FFFFF) | Vector512.Create(0x3F000000)).AsSingle());
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 CopySign(Floats16 a, Floats16 sign) => new(Vector512.ConditionalSelect(Vector512.Create(-0f), sign._v, a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public float Sum() => Vector512.Sum(_v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public float Max()
    {
        return new Floats8(Vector256.Max(_v.GetLower(), _v.GetUpper())).Max();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void SumEach(Floats16 a, Floats16 b, Floats16 c, Floats16 d, float* sums) => Floats8.SumEach(a.Halved(), b.Halved(), c.Halved(), d.Halved(), sums);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Floats8 Halved() => new(_v.GetLower() + _v.GetUpper());
}

/// <summary>8 floats in a 256-bit register.</summary>
internal readonly unsafe struct Floats8(Vector256<float> value) : IFloats<Floats8>
{
    private readonly Vector256<float> _v = value;

    public static int Width
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 8;
    }

    public static Floats8 Zero
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => new(Vector256<float>.Zero);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Load(float* p) => new(Vector256.Load(p));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 LoadBFloat16(ushort* p) => new((Vector256.WidenLower(Vector128.Load(p).ToVector256Unsafe()) << 16).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Floats8 Even, Floats8 Odd) LoadPairs(float* p)
    {
        Vector256<ulong> low = Vector256.Load((ulong*)p), high = Vector256.Load((ulong*)p + 4);
        return (new(Vector256.Narrow(low, high).AsSingle()), new(Vector256.Narrow(low >>> 32, high >>> 32).AsSingle()));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Floats8 Even, Floats8 Odd) LoadBFloat16Pairs(ushort* p)
    {
        Vector256<uint> pairs = Vector256.Load((uint*)p);
        return (new((pairs << 16).AsSingle()), new((pairs & Vector256.Create(0xFFFF0000)).AsSingle()));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 LoadUpTo(float* p, long count)
    {
        if (count >= 8) return Load(p);
        if (Avx.IsSupported) return new(Avx.MaskLoad(p, First((int)count)));
        float* lanes = stackalloc float[8];
        Vector256<float>.Zero.Store(lanes);
        for (long i = 0; i < count; i++) lanes[i] = p[i];
        return Load(lanes);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void StoreUpTo(float* p, long count)
    {
        if (count >= 8)
        {
            Store(p);
            return;
        }
        if (Avx.IsSupported)
        {
            Avx.MaskStore(p, First((int)count), _v);
            return;
        }
        float* lanes = stackalloc float[8];
        Store(lanes);
        for (long i = 0; i < count; i++) p[i] = lanes[i];
    }

    /// <summary>All ones in the first lanes; none where the count is negative.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> First(int count) => Vector256.LessThan(Vector256<int>.Indices, Vector256.Create(count)).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Broadcast(float x) => new(Vector256.Create(x));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Store(float* p) => _v.Store(p);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator +(Floats8 a, Floats8 b) => new(a._v + b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator -(Floats8 a, Floats8 b) => new(a._v - b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator *(Floats8 a, Floats8 b) => new(a._v * b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator /(Floats8 a, Floats8 b) => new(a._v / b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator -(Floats8 a) => new(-a._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 MulAdd(Floats8 a, Floats8 b, Floats8 c) => new(Vector256.FusedMultiplyAdd(a._v, b._v, c._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Max(Floats8 a, Floats8 b) => new(Vector256.MaxNative(a._v, b._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Min(Floats8 a, Floats8 b) => new(Vector256.MinNative(a._v, b._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Abs(Floats8 a) => new(Vector256.Abs(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Sqrt(Floats8 a) => new(Vector256.Sqrt(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Round(Floats8 a) => new(Vector256.Round(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 SelectGreater(Floats8 a, Floats8 b, Floats8 then, Floats8 otherwise) => new(Vector256.ConditionalSelect(Vector256.GreaterThan(a._v, b._v), then._v, otherwise._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 SelectNaN(Floats8 a, Floats8 then, Floats8 otherwise) => new(Vector256.ConditionalSelect(Vector256.Equals(a._v, a._v), otherwise._v, then._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Power2(Floats8 n) => new((Vector256.ConvertToInt32Native(n._v) + Vector256.Create(127) << 23).AsSingle());
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Scale(Floats8 a, Floats8 n) => Avx512F.VL.IsSupported ? new(Avx512F.VL.Scale(a._v, n._v)) : CpuMath.Scale(a, n);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Exponent(Floats8 a) => new(Vector256.ConvertToSingle((Vector256.ShiftRightLogical(a._v.AsInt32(), 23) & Vector256.Create(255)) - Vector256.Create(126)));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Mantissa(Floats8 a) => new((a._v.AsInt32() & Vector256.Create(0x007FFFFF) | Vector256.Create(0x3F000000)).AsSingle());
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 CopySign(Floats8 a, Floats8 sign) => new(Vector256.ConditionalSelect(Vector256.Create(-0f), sign._v, a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public float Sum() => Vector256.Sum(_v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public float Max()
    {
        return new Floats4(Vector128.Max(_v.GetLower(), _v.GetUpper())).Max();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void SumEach(Floats8 a, Floats8 b, Floats8 c, Floats8 d, float* sums) => Floats4.SumEach(a.Halved(), b.Halved(), c.Halved(), d.Halved(), sums);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Floats4 Halved() => new(_v.GetLower() + _v.GetUpper());
}

/// <summary>4 floats in a 128-bit register.</summary>
internal readonly unsafe struct Floats4(Vector128<float> value) : IFloats<Floats4>
{
    private readonly Vector128<float> _v = value;

    public static int Width
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 4;
    }

    public static Floats4 Zero
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => new(Vector128<float>.Zero);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Load(float* p) => new(Vector128.Load(p));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 LoadBFloat16(ushort* p) => new((Vector128.WidenLower(Vector64.Load(p).ToVector128Unsafe()) << 16).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Floats4 Even, Floats4 Odd) LoadPairs(float* p)
    {
        Vector128<ulong> low = Vector128.Load((ulong*)p), high = Vector128.Load((ulong*)p + 2);
        return (new(Vector128.Narrow(low, high).AsSingle()), new(Vector128.Narrow(low >>> 32, high >>> 32).AsSingle()));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Floats4 Even, Floats4 Odd) LoadBFloat16Pairs(ushort* p)
    {
        Vector128<uint> pairs = Vector128.Load((uint*)p);
        return (new((pairs << 16).AsSingle()), new((pairs & Vector128.Create(0xFFFF0000)).AsSingle()));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 LoadUpTo(float* p, long count)
    {
        if (count >= 4) return Load(p);
        float* lanes = stackalloc float[4];
        Vector128<float>.Zero.Store(lanes);
        for (long i = 0; i < count; i++) lanes[i] = p[i];
        return Load(lanes);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void StoreUpTo(float* p, long count)
    {
        if (count >= 4)
        {
            Store(p);
            return;
        }
        float* lanes = stackalloc float[4];
        Store(lanes);
        for (long i = 0; i < count; i++) p[i] = lanes[i];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Broadcast(float x) => new(Vector128.Create(x));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Store(float* p) => _v.Store(p);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 operator +(Floats4 a, Floats4 b) => new(a._v + b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 operator -(Floats4 a, Floats4 b) => new(a._v - b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 operator *(Floats4 a, Floats4 b) => new(a._v * b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 operator /(Floats4 a, Floats4 b) => new(a._v / b._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 operator -(Floats4 a) => new(-a._v);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 MulAdd(Floats4 a, Floats4 b, Floats4 c) => new(Vector128.FusedMultiplyAdd(a._v, b._v, c._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Max(Floats4 a, Floats4 b) => new(Vector128.MaxNative(a._v, b._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Min(Floats4 a, Floats4 b) => new(Vector128.MinNative(a._v, b._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Abs(Floats4 a) => new(Vector128.Abs(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Sqrt(Floats4 a) => new(Vector128.Sqrt(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Round(Floats4 a) => new(Vector128.Round(a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 SelectGreater(Floats4 a, Floats4 b, Floats4 then, Floats4 otherwise) => new(Vector128.ConditionalSelect(Vector128.GreaterThan(a._v, b._v), then._v, otherwise._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 SelectNaN(Floats4 a, Floats4 then, Floats4 otherwise) => new(Vector128.ConditionalSelect(Vector128.Equals(a._v, a._v), otherwise._v, then._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Power2(Floats4 n) => new((Vector128.ConvertToInt32Native(n._v) + Vector128.Create(127) << 23).AsSingle());
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Scale(Floats4 a, Floats4 n) => Avx512F.VL.IsSupported ? new(Avx512F.VL.Scale(a._v, n._v)) : CpuMath.Scale(a, n);
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Exponent(Floats4 a) => new(Vector128.ConvertToSingle((Vector128.ShiftRightLogical(a._v.AsInt32(), 23) & Vector128.Create(255)) - Vector128.Create(126)));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 Mantissa(Floats4 a) => new((a._v.AsInt32() & Vector128.Create(0x007FFFFF) | Vector128.Create(0x3F000000)).AsSingle());
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats4 CopySign(Floats4 a, Floats4 sign) => new(Vector128.ConditionalSelect(Vector128.Create(-0f), sign._v, a._v));
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public float Sum() => Vector128.Sum(_v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public float Max()
    {
        Vector128<float> pairs = Vector128.Max(_v, Vector128.Shuffle(_v, Vector128.Create(2, 3, 0, 1)));
        return MathF.Max(pairs[0], pairs[1]);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void SumEach(Floats4 a, Floats4 b, Floats4 c, Floats4 d, float* sums)
    {
        if (!Sse.IsSupported)
        {
            (sums[0], sums[1], sums[2], sums[3]) = (a.Sum(), b.Sum(), c.Sum(), d.Sum());
            return;
        }
        Vector128<float> ab = Sse.UnpackLow(a._v, b._v) + Sse.UnpackHigh(a._v, b._v), cd = Sse.UnpackLow(c._v, d._v) + Sse.UnpackHigh(c._v, d._v);
        (Sse.MoveLowToHigh(ab, cd) + Sse.MoveHighToLow(cd, ab)).Store(sums);
    }
}
