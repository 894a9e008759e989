// One room: the operations on whole registers are one line each and read as a table.
using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ZEngine.Emulator.Execution;

// Each structure is one PTX operation on a vector of lanes. Names are those of PTX.

internal struct Add<T> : IBinary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => a + b; }

internal struct Sub<T> : IBinary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => a - b; }

internal struct Mul<T> : IBinary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => a * b; }

internal struct Mad<T> : ITernary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b, Vector512<T> c) => a * b + c; }

internal struct And<T> : IBinary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => a & b; }

internal struct Or<T> : IBinary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => a | b; }

internal struct Xor<T> : IBinary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => a ^ b; }

internal struct Min<T> : IBinary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.Min(a, b); }

internal struct Max<T> : IBinary<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.Max(a, b); }

internal struct Not<T> : IUnary<T> { public static Vector512<T> Invoke(Vector512<T> a) => ~a; }

internal struct Not16 : IUnary<uint> { public static Vector512<uint> Invoke(Vector512<uint> a) => a ^ Vector512.Create(0xFFFFu); }

internal struct Neg<T> : IUnary<T> { public static Vector512<T> Invoke(Vector512<T> a) => -a; }

internal struct Abs<T> : IUnary<T> { public static Vector512<T> Invoke(Vector512<T> a) => Vector512.Abs(a); }

internal struct Mov<T> : IUnary<T> { public static Vector512<T> Invoke(Vector512<T> a) => a; }

// ---- Shifts: an amount of the width or more gives 0, or the sign ---------------------------------------------------------------------

internal struct Shl32 : IBinary<uint>
{
    public static Vector512<uint> Invoke(Vector512<uint> a, Vector512<uint> b) =>
        Avx512F.IsSupported ? Avx512F.ShiftLeftLogicalVariable(a, b)
        : Avx2.IsSupported ? Vector512.Create(Avx2.ShiftLeftLogicalVariable(a.GetLower(), b.GetLower()), Avx2.ShiftLeftLogicalVariable(a.GetUpper(), b.GetUpper()))
        : Shifts.ByLane(a, b, static (x, n) => n > 31 ? 0 : x << (int)n);
}

internal struct ShrU32 : IBinary<uint>
{
    public static Vector512<uint> Invoke(Vector512<uint> a, Vector512<uint> b) =>
        Avx512F.IsSupported ? Avx512F.ShiftRightLogicalVariable(a, b)
        : Avx2.IsSupported ? Vector512.Create(Avx2.ShiftRightLogicalVariable(a.GetLower(), b.GetLower()), Avx2.ShiftRightLogicalVariable(a.GetUpper(), b.GetUpper()))
        : Shifts.ByLane(a, b, static (x, n) => n > 31 ? 0 : x >> (int)n);
}

internal struct ShrS32 : IBinary<uint>
{
    public static Vector512<uint> Invoke(Vector512<uint> a, Vector512<uint> b) =>
        Avx512F.IsSupported ? Avx512F.ShiftRightArithmeticVariable(a.AsInt32(), b).AsUInt32()
        : Avx2.IsSupported ? Vector512.Create(
            Avx2.ShiftRightArithmeticVariable(a.GetLower().AsInt32(), b.GetLower()), Avx2.ShiftRightArithmeticVariable(a.GetUpper().AsInt32(), b.GetUpper())).AsUInt32()
        : Shifts.ByLane(a, b, static (x, n) => (uint)((int)x >> (int)Math.Min(n, 31)));
}

internal static class Shifts
{
    public static Vector512<uint> ByLane(Vector512<uint> a, Vector512<uint> b, Func<uint, uint, uint> shift)
    {
        for (int lane = 0; lane < 16; lane++) a = a.WithElement(lane, shift(a[lane], b[lane]));
        return a;
    }
}

// ---- Floats --------------------------------------------------------------------------------------------------------------------------

internal static class Floats
{
    /// <summary>Single-precision arithmetic of the GPU has one NaN, whatever went in.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Canonical(Vector512<float> x) =>
        Vector512.ConditionalSelect(Vector512.Equals(x, x), x, Vector512.Create(0x7FFFFFFFu).AsSingle());

    public static float Canonical(float x) => float.IsNaN(x) ? BitConverter.UInt32BitsToSingle(0x7FFFFFFF) : x;

    /// <summary>.ftz: subnormal numbers become zero and keep their sign.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Flush(Vector512<float> x)
    {
        Vector512<uint> bits = x.AsUInt32();
        Vector512<uint> isSmall = Vector512.Equals(bits & Vector512.Create(0x7F800000u), Vector512<uint>.Zero);
        return Vector512.ConditionalSelect(isSmall, bits & Vector512.Create(0x80000000u), bits).AsSingle();
    }

    public static float Flush(float x) => float.IsSubnormal(x) ? float.CopySign(0, x) : x;
}

internal struct AddF32 : IBinary<float> { public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Canonical(a + b); }

internal struct SubF32 : IBinary<float> { public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Canonical(a - b); }

internal struct MulF32 : IBinary<float> { public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Canonical(a * b); }

internal struct DivF32 : IBinary<float> { public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Canonical(a / b); }

internal struct FmaF32 : ITernary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b, Vector512<float> c) => Floats.Canonical(Vector512.FusedMultiplyAdd(a, b, c));
}

internal struct FmaF64 : ITernary<double>
{
    public static Vector512<double> Invoke(Vector512<double> a, Vector512<double> b, Vector512<double> c) => Vector512.FusedMultiplyAdd(a, b, c);
}

internal struct DivF64 : IBinary<double> { public static Vector512<double> Invoke(Vector512<double> a, Vector512<double> b) => a / b; }

internal struct SqrtF32 : IUnary<float> { public static Vector512<float> Invoke(Vector512<float> a) => Floats.Canonical(Vector512.Sqrt(a)); }

internal struct SqrtF64 : IUnary<double> { public static Vector512<double> Invoke(Vector512<double> a) => Vector512.Sqrt(a); }

internal struct RcpF32 : IUnary<float> { public static Vector512<float> Invoke(Vector512<float> a) => Floats.Canonical(Vector512<float>.One / a); }

internal struct RcpF64 : IUnary<double> { public static Vector512<double> Invoke(Vector512<double> a) => Vector512<double>.One / a; }

internal struct NegF32 : IUnary<uint> { public static Vector512<uint> Invoke(Vector512<uint> a) => a ^ Vector512.Create(0x80000000u); }

internal struct AbsF32 : IUnary<uint> { public static Vector512<uint> Invoke(Vector512<uint> a) => a & Vector512.Create(0x7FFFFFFFu); }

internal struct NegF64 : IUnary<ulong> { public static Vector512<ulong> Invoke(Vector512<ulong> a) => a ^ Vector512.Create(1ul << 63); }

internal struct AbsF64 : IUnary<ulong> { public static Vector512<ulong> Invoke(Vector512<ulong> a) => a & Vector512.Create(~(1ul << 63)); }

/// <summary>min.f32: a NaN loses against a number, and -0 is less than +0.</summary>
internal struct MinF32 : IBinary<float> { public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Canonical(Vector512.MinNumber(a, b)); }

internal struct MaxF32 : IBinary<float> { public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Canonical(Vector512.MaxNumber(a, b)); }

internal struct MinNanF32 : IBinary<float> { public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Canonical(Vector512.Min(a, b)); }

internal struct MaxNanF32 : IBinary<float> { public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Canonical(Vector512.Max(a, b)); }

internal struct MinF64 : IBinary<double> { public static Vector512<double> Invoke(Vector512<double> a, Vector512<double> b) => Vector512.MinNumber(a, b); }

internal struct MaxF64 : IBinary<double> { public static Vector512<double> Invoke(Vector512<double> a, Vector512<double> b) => Vector512.MaxNumber(a, b); }

/// <summary>.sat: the result is clamped to [0, 1] and a NaN becomes 0.</summary>
internal struct SatUnary<TOp> : IUnary<float> where TOp : struct, IUnary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a) => Saturation.Clamp(TOp.Invoke(a));
}

internal struct SatBinary<TOp> : IBinary<float> where TOp : struct, IBinary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Saturation.Clamp(TOp.Invoke(a, b));
}

internal struct SatTernary<TOp> : ITernary<float> where TOp : struct, ITernary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b, Vector512<float> c) => Saturation.Clamp(TOp.Invoke(a, b, c));
}

internal static class Saturation
{
    public static Vector512<float> Clamp(Vector512<float> x) =>
        Vector512.ConditionalSelect(Vector512.GreaterThan(x, Vector512<float>.Zero), Vector512.Min(x, Vector512<float>.One), Vector512<float>.Zero);
}

internal struct FtzUnary<TOp> : IUnary<float> where TOp : struct, IUnary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a) => Floats.Flush(TOp.Invoke(Floats.Flush(a)));
}

internal struct FtzBinary<TOp> : IBinary<float> where TOp : struct, IBinary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => Floats.Flush(TOp.Invoke(Floats.Flush(a), Floats.Flush(b)));
}

internal struct FtzTernary<TOp> : ITernary<float> where TOp : struct, ITernary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b, Vector512<float> c) =>
        Floats.Flush(TOp.Invoke(Floats.Flush(a), Floats.Flush(b), Floats.Flush(c)));
}

internal struct FtzCompare<TOp> : ICompare<float> where TOp : struct, ICompare<float>
{
    public static Vector512<float> Invoke(Vector512<float> a, Vector512<float> b) => TOp.Invoke(Floats.Flush(a), Floats.Flush(b));
}

/// <summary>2^x, correctly rounded but for the rarest of ties: the hardware's error is larger, see the jitter.</summary>
internal struct Ex2F32 : IUnary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a)
    {
        Vector512<double> ln2 = Vector512.Create(0.6931471805599453);
        (Vector512<double> low, Vector512<double> high) = Vector512.Widen(a);
        return Floats.Canonical(Vector512.Narrow(Vector512.Exp(low * ln2), Vector512.Exp(high * ln2)));
    }
}

internal struct Lg2F32 : IUnary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a)
    {
        (Vector512<double> low, Vector512<double> high) = Vector512.Widen(a);
        return Floats.Canonical(Vector512.Narrow(Vector512.Log2(low), Vector512.Log2(high)));
    }
}

internal struct RsqrtF32 : IUnary<float>
{
    public static Vector512<float> Invoke(Vector512<float> a)
    {
        (Vector512<double> low, Vector512<double> high) = Vector512.Widen(a);
        return Floats.Canonical(Vector512.Narrow(Vector512<double>.One / Vector512.Sqrt(low), Vector512<double>.One / Vector512.Sqrt(high)));
    }
}

// ---- Comparisons: the ordered forms are false when an operand is NaN, the unordered ones (suffix u) true ------------------------------

internal struct Eq<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.Equals(a, b); }

internal struct Ne<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => ~Vector512.Equals(a, b); }

internal struct Lt<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.LessThan(a, b); }

internal struct Le<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.LessThanOrEqual(a, b); }

internal struct Gt<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.GreaterThan(a, b); }

internal struct Ge<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.GreaterThanOrEqual(a, b); }

internal struct NeOrdered<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.LessThan(a, b) | Vector512.GreaterThan(a, b); }

internal struct EqUnordered<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => ~NeOrdered<T>.Invoke(a, b); }

internal struct LtUnordered<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => ~Vector512.GreaterThanOrEqual(a, b); }

internal struct LeUnordered<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => ~Vector512.GreaterThan(a, b); }

internal struct GtUnordered<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => ~Vector512.LessThanOrEqual(a, b); }

internal struct GeUnordered<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => ~Vector512.LessThan(a, b); }

internal struct IsNumber<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => Vector512.Equals(a, a) & Vector512.Equals(b, b); }

internal struct IsNan<T> : ICompare<T> { public static Vector512<T> Invoke(Vector512<T> a, Vector512<T> b) => ~IsNumber<T>.Invoke(a, b); }
