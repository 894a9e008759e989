// One room: the operations that work lane by lane are one line each and read as a table.
using System.Numerics;

namespace ZEngine.Emulator.Execution;

// Operations without a vector form, one lane at a time. Names are those of PTX.

// ---- Integers ------------------------------------------------------------------------------------------------------------------------

internal struct MulHi<T, TWide> : IScalar<T, T, T> where T : unmanaged, IBinaryInteger<T> where TWide : unmanaged, IBinaryInteger<TWide>
{
    public static T Invoke(T a, T b) => T.CreateTruncating((TWide.CreateTruncating(a) * TWide.CreateTruncating(b)) >> (8 * System.Runtime.CompilerServices.Unsafe.SizeOf<T>()));
}

internal struct MadHi<T, TWide> : IScalar<T, T, T, T> where T : unmanaged, IBinaryInteger<T> where TWide : unmanaged, IBinaryInteger<TWide>
{
    public static T Invoke(T a, T b, T c) => MulHi<T, TWide>.Invoke(a, b) + c;
}

internal struct MulWide<T, TWide> : IScalar<T, T, TWide> where T : unmanaged, IBinaryInteger<T> where TWide : unmanaged, IBinaryInteger<TWide>
{
    public static TWide Invoke(T a, T b) => TWide.CreateTruncating(a) * TWide.CreateTruncating(b);
}

internal struct MadWide<T, TWide> : IScalar<T, T, TWide, TWide> where T : unmanaged, IBinaryInteger<T> where TWide : unmanaged, IBinaryInteger<TWide>
{
    public static TWide Invoke(T a, T b, TWide c) => TWide.CreateTruncating(a) * TWide.CreateTruncating(b) + c;
}

/// <summary>Addition, subtraction, multiplication of 16-bit values, which sit in 32-bit lanes.</summary>
internal struct Add16 : IScalar<ushort, ushort, ushort> { public static ushort Invoke(ushort a, ushort b) => (ushort)(a + b); }

internal struct Sub16 : IScalar<ushort, ushort, ushort> { public static ushort Invoke(ushort a, ushort b) => (ushort)(a - b); }

internal struct Mul16 : IScalar<ushort, ushort, ushort> { public static ushort Invoke(ushort a, ushort b) => (ushort)(a * b); }

internal struct Mad16 : IScalar<ushort, ushort, ushort, ushort> { public static ushort Invoke(ushort a, ushort b, ushort c) => (ushort)(a * b + c); }

internal struct Neg16 : IScalar<ushort, ushort> { public static ushort Invoke(ushort a) => (ushort)-a; }

internal struct MinInt<T> : IScalar<T, T, T> where T : INumber<T> { public static T Invoke(T a, T b) => T.Min(a, b); }

internal struct MaxInt<T> : IScalar<T, T, T> where T : INumber<T> { public static T Invoke(T a, T b) => T.Max(a, b); }

/// <summary>Division by zero gives all ones, as the hardware's sequence does; PTX leaves it unspecified.</summary>
internal struct DivInt<T> : IScalar<T, T, T> where T : IBinaryInteger<T>
{
    public static T Invoke(T a, T b) => T.IsZero(b) ? ~T.Zero : b == ~T.Zero && T.IsNegative(b) ? T.Zero - a : a / b;
}

internal struct RemInt<T> : IScalar<T, T, T> where T : IBinaryInteger<T>
{
    public static T Invoke(T a, T b) => T.IsZero(b) ? a : b == ~T.Zero && T.IsNegative(b) ? T.Zero : a % b;
}

internal struct Sad<T, TUnsigned> : IScalar<T, T, TUnsigned, TUnsigned> where T : unmanaged, IBinaryInteger<T> where TUnsigned : unmanaged, IBinaryInteger<TUnsigned>
{
    public static TUnsigned Invoke(T a, T b, TUnsigned c) => c + (a > b ? TUnsigned.CreateTruncating(a) - TUnsigned.CreateTruncating(b) : TUnsigned.CreateTruncating(b) - TUnsigned.CreateTruncating(a));
}

internal struct Shl<T> : IScalar<T, uint, T> where T : IBinaryInteger<T> { public static T Invoke(T a, uint n) => n >= Width ? T.Zero : a << (int)n; private static uint Width => (uint)System.Runtime.CompilerServices.Unsafe.SizeOf<T>() * 8; }

internal struct Shr<T> : IScalar<T, uint, T> where T : IBinaryInteger<T>
{
    public static T Invoke(T a, uint n) => n < Width ? a >> (int)n : T.IsNegative(a) ? ~T.Zero : T.Zero;
    private static uint Width => (uint)System.Runtime.CompilerServices.Unsafe.SizeOf<T>() * 8;
}

internal struct Popc32 : IScalar<uint, uint> { public static uint Invoke(uint a) => (uint)BitOperations.PopCount(a); }

internal struct Popc64 : IScalar<ulong, uint> { public static uint Invoke(ulong a) => (uint)BitOperations.PopCount(a); }

internal struct Clz32 : IScalar<uint, uint> { public static uint Invoke(uint a) => (uint)BitOperations.LeadingZeroCount(a); }

internal struct Clz64 : IScalar<ulong, uint> { public static uint Invoke(ulong a) => (uint)BitOperations.LeadingZeroCount(a); }

internal struct Brev32 : IScalar<uint, uint>
{
    public static uint Invoke(uint a)
    {
        uint r = 0;
        for (int bit = 0; bit < 32; bit++) r |= (a >> bit & 1) << (31 - bit);
        return r;
    }
}

internal struct Brev64 : IScalar<ulong, ulong>
{
    public static ulong Invoke(ulong a) => (ulong)Brev32.Invoke((uint)a) << 32 | Brev32.Invoke((uint)(a >> 32));
}

/// <summary>Position of the highest bit that differs from the sign, or all ones when there is none.</summary>
internal struct BfindU32 : IScalar<uint, uint> { public static uint Invoke(uint a) => a == 0 ? uint.MaxValue : 31u - (uint)BitOperations.LeadingZeroCount(a); }

internal struct BfindS32 : IScalar<int, uint> { public static uint Invoke(int a) => BfindU32.Invoke((uint)(a < 0 ? ~a : a)); }

internal struct BfindU64 : IScalar<ulong, uint> { public static uint Invoke(ulong a) => a == 0 ? uint.MaxValue : 63u - (uint)BitOperations.LeadingZeroCount(a); }

internal struct BfindS64 : IScalar<long, uint> { public static uint Invoke(long a) => BfindU64.Invoke((ulong)(a < 0 ? ~a : a)); }

/// <summary>.shiftamt: the left shift that brings that bit to the top.</summary>
internal struct BfindShiftU32 : IScalar<uint, uint> { public static uint Invoke(uint a) => a == 0 ? uint.MaxValue : (uint)BitOperations.LeadingZeroCount(a); }

internal struct BfindShiftS32 : IScalar<int, uint> { public static uint Invoke(int a) => BfindShiftU32.Invoke((uint)(a < 0 ? ~a : a)); }

internal struct BfindShiftU64 : IScalar<ulong, uint> { public static uint Invoke(ulong a) => a == 0 ? uint.MaxValue : (uint)BitOperations.LeadingZeroCount(a); }

internal struct BfindShiftS64 : IScalar<long, uint> { public static uint Invoke(long a) => BfindShiftU64.Invoke((ulong)(a < 0 ? ~a : a)); }

internal static class BitFields
{
    public static ulong Extract(ulong a, uint position, uint length, int width, bool isSigned)
    {
        position &= 255;
        length &= 255;
        // Bits beyond the value read as its sign, or as zero; so does the sign when the field reaches past the end.
        ulong sign = !isSigned || length == 0 ? 0 : a >> (int)Math.Min(position + length - 1, (uint)width - 1) & 1;
        ulong result = 0;
        for (int bit = 0; bit < width; bit++)
        {
            bool inField = bit < length && position + bit < width;
            result |= (inField ? a >> (int)(position + bit) & 1 : sign) << bit;
        }
        return result;
    }

    public static ulong Insert(ulong a, ulong b, uint position, uint length, int width)
    {
        position &= 255;
        length &= 255;
        for (uint bit = 0; bit < length && position + bit < width; bit++)
        {
            ulong at = 1ul << (int)(position + bit);
            b = (a >> (int)bit & 1) != 0 ? b | at : b & ~at;
        }
        return b;
    }
}

internal struct BfeU32 : IScalar<uint, uint, uint, uint> { public static uint Invoke(uint a, uint p, uint l) => (uint)BitFields.Extract(a, p, l, 32, false); }

internal struct BfeS32 : IScalar<uint, uint, uint, uint> { public static uint Invoke(uint a, uint p, uint l) => (uint)BitFields.Extract(a, p, l, 32, true); }

internal struct BfeU64 : IScalar<ulong, uint, uint, ulong> { public static ulong Invoke(ulong a, uint p, uint l) => BitFields.Extract(a, p, l, 64, false); }

internal struct BfeS64 : IScalar<ulong, uint, uint, ulong> { public static ulong Invoke(ulong a, uint p, uint l) => BitFields.Extract(a, p, l, 64, true); }

internal struct ShfLeftWrap : IScalar<uint, uint, uint, uint> { public static uint Invoke(uint low, uint high, uint n) => (uint)(((ulong)high << 32 | low) << (int)(n & 31) >> 32); }

internal struct ShfLeftClamp : IScalar<uint, uint, uint, uint> { public static uint Invoke(uint low, uint high, uint n) => n >= 32 ? low : (uint)(((ulong)high << 32 | low) << (int)n >> 32); }

internal struct ShfRightWrap : IScalar<uint, uint, uint, uint> { public static uint Invoke(uint low, uint high, uint n) => (uint)(((ulong)high << 32 | low) >> (int)(n & 31)); }

internal struct ShfRightClamp : IScalar<uint, uint, uint, uint> { public static uint Invoke(uint low, uint high, uint n) => n >= 32 ? high : (uint)(((ulong)high << 32 | low) >> (int)n); }

/// <summary>Picks four of the eight bytes of b:a; bit 3 of a selector replicates the byte's sign.</summary>
internal struct Prmt : IScalar<uint, uint, uint, uint>
{
    public static uint Invoke(uint a, uint b, uint selector)
    {
        ulong bytes = (ulong)b << 32 | a;
        uint result = 0;
        for (int k = 0; k < 4; k++)
        {
            uint s = selector >> (4 * k);
            uint value = (uint)(bytes >> (int)((s & 7) * 8)) & 0xFF;
            if ((s & 8) != 0) value = (value & 0x80) != 0 ? 0xFFu : 0;
            result |= value << (8 * k);
        }
        return result;
    }
}

internal struct Dp4a<TA, TB> : IScalar<uint, uint, uint, uint> where TA : IMinMaxValue<TA>, INumber<TA> where TB : IMinMaxValue<TB>, INumber<TB>
{
    public static uint Invoke(uint a, uint b, uint c)
    {
        for (int k = 0; k < 32; k += 8) c += (uint)(Part<TA>(a >> k) * Part<TB>(b >> k));
        return c;
    }

    private static int Part<T>(uint x) where T : IMinMaxValue<T>, INumber<T> => T.IsNegative(T.MinValue) ? (sbyte)x : (byte)x;
}

internal struct Copysign32 : IScalar<uint, uint, uint> { public static uint Invoke(uint a, uint b) => a & 0x80000000u | b & 0x7FFFFFFFu; }

internal struct Copysign64 : IScalar<ulong, ulong, ulong> { public static ulong Invoke(ulong a, ulong b) => a & 1ul << 63 | b & ~(1ul << 63); }

internal struct CnotU32 : IScalar<uint, uint> { public static uint Invoke(uint a) => a == 0 ? 1u : 0; }

// ---- Approximate functions: the best value; the hardware's error is added by the jitter where it is asked for -----------------------------

internal struct SinF32 : IScalar<float, float> { public static float Invoke(float a) => Floats.Canonical((float)Math.Sin(a)); }

internal struct CosF32 : IScalar<float, float> { public static float Invoke(float a) => Floats.Canonical((float)Math.Cos(a)); }

internal struct TanhF32 : IScalar<float, float> { public static float Invoke(float a) => Floats.Canonical((float)Math.Tanh(a)); }

internal struct FtzScalar<TOp> : IScalar<float, float> where TOp : struct, IScalar<float, float>
{
    public static float Invoke(float a) => Floats.Flush(TOp.Invoke(Floats.Flush(a)));
}

/// <summary>rcp.approx.ftz.f64 keeps the upper 32 bits only.</summary>
internal struct RcpApproxF64 : IScalar<double, double>
{
    public static double Invoke(double a)
    {
        double x = double.IsSubnormal(a) ? double.CopySign(0, a) : a, r = 1 / x;
        return BitConverter.UInt64BitsToDouble(BitConverter.DoubleToUInt64Bits(double.IsSubnormal(r) ? double.CopySign(0, r) : r) & 0xFFFFFFFF00000000);
    }
}

internal struct RsqrtApproxF64 : IScalar<double, double> { public static double Invoke(double a) => 1 / Math.Sqrt(a); }

internal struct RsqrtApproxFtzF64 : IScalar<double, double>
{
    public static double Invoke(double a)
    {
        double x = double.IsSubnormal(a) ? double.CopySign(0, a) : a, r = 1 / Math.Sqrt(x);
        return BitConverter.UInt64BitsToDouble(BitConverter.DoubleToUInt64Bits(r) & 0xFFFFFFFF00000000);
    }
}

// ---- Directed rounding ---------------------------------------------------------------------------------------------------------------

internal enum Rounding : byte { Nearest, Zero, Down, Up, NearestAway }

/// <summary>Rounds an exact sum of two doubles to float, without touching the processor's rounding mode.</summary>
internal static class Directed
{
    /// <summary>a + b as a double and its exact error.</summary>
    public static (double Sum, double Error) TwoSum(double a, double b)
    {
        double s = a + b, bb = s - a;
        return (s, (a - (s - bb)) + (b - bb));
    }

    /// <summary>The double nearest to a + b whose last bit is set when it is inexact: rounding it once more is safe.</summary>
    public static double ToOdd(double a, double b)
    {
        (double s, double e) = TwoSum(a, b);
        if (e == 0 || !double.IsFinite(s)) return s;
        ulong bits = BitConverter.DoubleToUInt64Bits(s);
        if ((bits & 1) != 0) return s;
        // The exact value lies between s and its neighbour on the side of e; the neighbour is the odd one.
        return e > 0 == s > 0 ? BitConverter.UInt64BitsToDouble(bits + 1) : BitConverter.UInt64BitsToDouble(bits - 1);
    }

    public static float ToSingle(double x, Rounding rounding)
    {
        float r = (float)x;
        if (double.IsNaN(x)) return BitConverter.UInt32BitsToSingle(0x7FFFFFFF);
        if (rounding == Rounding.Nearest || r == x) return r;
        bool tooHigh = r > x, tooLow = r < x;
        return rounding switch
        {
            Rounding.Zero => x > 0 && tooHigh || x < 0 && tooLow ? Toward(r, 0) : r,
            Rounding.Down => tooHigh ? Toward(r, float.NegativeInfinity) : r,
            _ => tooLow ? Toward(r, float.PositiveInfinity) : r,
        };
    }

    /// <summary>The zero that a sum cancels to: addends of one sign keep it, else it is -0 only when rounding down.</summary>
    public static float Zero(double a, double b, Rounding rounding) =>
        double.IsNegative(a) == double.IsNegative(b) ? (double.IsNegative(a) ? -0.0f : 0.0f) : rounding == Rounding.Down ? -0.0f : 0.0f;

    private static float Toward(float x, float target) => target > x || x < 0 && target == 0 ? float.BitIncrement(x) : float.BitDecrement(x);
}

internal interface IRounding { static abstract Rounding Mode { get; } }

internal struct ToZero : IRounding { public static Rounding Mode => Rounding.Zero; }

internal struct ToMinus : IRounding { public static Rounding Mode => Rounding.Down; }

internal struct ToPlus : IRounding { public static Rounding Mode => Rounding.Up; }

internal struct AddDirected<TMode> : IScalar<float, float, float> where TMode : struct, IRounding
{
    public static float Invoke(float a, float b)
    {
        double s = Directed.ToOdd(a, b);
        return s == 0 ? Directed.Zero(a, b, TMode.Mode) : Directed.ToSingle(s, TMode.Mode);
    }
}

internal struct SubDirected<TMode> : IScalar<float, float, float> where TMode : struct, IRounding
{
    public static float Invoke(float a, float b) => AddDirected<TMode>.Invoke(a, -b);
}

internal struct MulDirected<TMode> : IScalar<float, float, float> where TMode : struct, IRounding
{
    public static float Invoke(float a, float b) => Directed.ToSingle((double)a * b, TMode.Mode);
}

internal struct FmaDirected<TMode> : IScalar<float, float, float, float> where TMode : struct, IRounding
{
    public static float Invoke(float a, float b, float c)
    {
        double s = Directed.ToOdd((double)a * b, c);
        return s == 0 ? Directed.Zero((double)a * b, c, TMode.Mode) : Directed.ToSingle(s, TMode.Mode);
    }
}

internal struct FtzScalar2<TOp> : IScalar<float, float, float> where TOp : struct, IScalar<float, float, float>
{
    public static float Invoke(float a, float b) => Floats.Flush(TOp.Invoke(Floats.Flush(a), Floats.Flush(b)));
}

internal struct FtzScalar3<TOp> : IScalar<float, float, float, float> where TOp : struct, IScalar<float, float, float, float>
{
    public static float Invoke(float a, float b, float c) => Floats.Flush(TOp.Invoke(Floats.Flush(a), Floats.Flush(b), Floats.Flush(c)));
}
