using System.Numerics;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>The numbers that definitions are written in: big integers, and exact binary fractions as integers times a power of two.</summary>
internal static class Definition
{
    public static BigInteger S(ulong x, int bits) => bits == 64 ? (long)x : bits == 32 ? (int)(uint)x : bits == 16 ? (short)(ushort)x : (sbyte)(byte)x;

    /// <summary>The value of the low bits of a register as an integer of a type.</summary>
    public static BigInteger Integer(ulong x, char kind, int bits) => kind == 's' ? S(x, bits) : x & (ulong.MaxValue >> (64 - bits));

    public static ulong Low(BigInteger x, int bits) => (ulong)(x & ((BigInteger.One << bits) - 1));

    public static float F(ulong x) => BitConverter.UInt32BitsToSingle((uint)x);

    public static double D(ulong x) => BitConverter.UInt64BitsToDouble(x);

    public static ulong Bits(double x) => BitConverter.DoubleToUInt64Bits(x);

    public static ulong Bits(float x) => float.IsNaN(x) ? 0x7FFFFFFF : BitConverter.SingleToUInt32Bits(x);

    // ---- Oracles of rounding: exact numbers as integer times a power of two -----------------------------------------------------------------

    public static float Ftz(float x) => float.IsSubnormal(x) ? x < 0 ? -0f : 0f : x;

    public static float MinMax(float a, float b, bool isMin)
    {
        if (float.IsNaN(a)) return b;
        if (float.IsNaN(b)) return a;
        if (a == 0 && b == 0) return float.IsNegative(a) == isMin ? a : b;
        return a < b == isMin ? a : b;
    }

    public const int Scale = 400;

    /// <summary>A finite float times 2^400, exactly.</summary>
    public static BigInteger Exact(ulong bits)
    {
        int exponent = (int)(bits >> 23 & 255);
        BigInteger fraction = bits & 0x7FFFFF;
        BigInteger magnitude = exponent == 0 ? fraction << (Scale - 149) : (fraction | 0x800000) << (Scale - 150 + exponent);
        return (bits >> 31 & 1) != 0 ? -magnitude : magnitude;
    }

    public static bool IsFinite(ulong bits) => (bits & 0x7F800000) != 0x7F800000;

    public static bool IsNegative(ulong bits) => (bits >> 31 & 1) != 0;

    public static ulong RoundSum(ulong a, ulong b, int direction) =>
        IsFinite(a) && IsFinite(b) ? RoundExact(Exact(a) + Exact(b), Scale, direction, IsNegative(a), IsNegative(b)) : Bits(F(a) + F(b));

    public static ulong RoundProduct(ulong a, ulong b, int direction)
    {
        bool isNegative = IsNegative(a) != IsNegative(b);
        return IsFinite(a) && IsFinite(b) ? RoundExact(Exact(a) * Exact(b), 2 * Scale, direction, isNegative, isNegative) : Bits(F(a) * F(b));
    }

    public static ulong RoundFma(ulong a, ulong b, ulong c, int direction) =>
        IsFinite(a) && IsFinite(b) && IsFinite(c)
            ? RoundExact(Exact(a) * Exact(b) + (Exact(c) << Scale), 2 * Scale, direction, IsNegative(a) != IsNegative(b), IsNegative(c))
            : Bits(MathF.FusedMultiplyAdd(F(a), F(b), F(c)));

    /// <summary>
    /// The float next to an exact number toward minus infinity (-1), zero (0) or plus infinity (1). A zero has the sign of its addends when
    /// they agree, else it is negative only when rounding down.
    /// </summary>
    public static ulong RoundExact(BigInteger exact, int scale, int direction, bool firstIsNegative, bool secondIsNegative)
    {
        if (exact.IsZero) return (firstIsNegative == secondIsNegative ? firstIsNegative : direction < 0) ? 0x80000000u : 0;
        bool isNegative = exact.Sign < 0, away = direction < 0 == isNegative && direction != 0;
        BigInteger magnitude = BigInteger.Abs(exact);
        // Bits below the last place: 2^-149 for small numbers, else 24 significant bits stay.
        int drop = Math.Max(scale - 149, (int)magnitude.GetBitLength() - 24);
        BigInteger kept = magnitude >> drop;
        if (away && kept << drop != magnitude) kept++;
        double value = Math.ScaleB((double)kept, drop - scale);
        float result = value <= float.MaxValue ? (float)value : away ? float.PositiveInfinity : float.MaxValue;
        return Bits(isNegative ? -result : result);
    }

    public static float Nearest(BigInteger value)
    {
        BigInteger magnitude = BigInteger.Abs(value);
        int drop = Math.Max(0, (int)magnitude.GetBitLength() - 24);
        BigInteger kept = magnitude >> drop, rest = magnitude - (kept << drop), half = drop == 0 ? 1 : BigInteger.One << (drop - 1);
        if (drop > 0 && (rest > half || rest == half && !kept.IsEven)) kept++;
        double result = Math.ScaleB((double)kept, drop);
        return (float)(value.Sign < 0 ? -result : result);
    }

    public static ulong ToInteger(float value, Func<double, double> round, double low, double high) =>
        float.IsNaN(value) ? 0 : (uint)(long)Math.Clamp(round(value), low, high);

    /// <summary>A float rounded once to a 16-bit format with so many significant bits, ties to even.</summary>
    public static ulong NearestHalf(float value, int digits, int bias) => NearestHalf(Exact(BitConverter.SingleToUInt32Bits(value)), Scale, float.IsNegative(value), value, digits, bias);

    public static ulong NearestHalf(BigInteger exact, int scale, bool isNegative, double special, int digits, int bias)
    {
        ulong sign = isNegative ? 0x8000u : 0, infinity = digits == 8 ? 0x7F80u : 0x7C00u;
        if (double.IsNaN(special)) return 0x7FFF;
        if (double.IsInfinity(special)) return sign | infinity;
        BigInteger magnitude = BigInteger.Abs(exact);
        if (magnitude.IsZero) return sign;
        int exponent = Math.Max((int)magnitude.GetBitLength() - 1 - scale, 1 - bias);
        int drop = exponent - (digits - 1) + scale;
        BigInteger kept = magnitude >> drop, rest = magnitude - (kept << drop), half = BigInteger.One << (drop - 1);
        if (rest > half || rest == half && !kept.IsEven) kept++;
        BigInteger bits = kept.GetBitLength() < digits && exponent == 1 - bias ? kept : (BigInteger)(exponent + bias - 1) * (BigInteger.One << (digits - 1)) + kept;
        return sign | (ulong)BigInteger.Min(bits, infinity);
    }

    public static ulong HalfFma(ulong[] x, int shift, int digits, int bias)
    {
        float Of(int k)
        {
            ushort h = (ushort)(x[k] >> shift);
            return digits == 8 ? BitConverter.UInt32BitsToSingle((uint)h << 16) : (float)BitConverter.UInt16BitsToHalf(h);
        }
        float a = Of(0), b = Of(1), c = Of(2);
        double special = Math.FusedMultiplyAdd(a, b, c);
        if (!float.IsFinite(a) || !float.IsFinite(b) || !float.IsFinite(c)) return NearestHalf(0, Scale, special < 0, special, digits, bias);
        BigInteger exact = Exact(BitConverter.SingleToUInt32Bits(a)) * Exact(BitConverter.SingleToUInt32Bits(b)) + (Exact(BitConverter.SingleToUInt32Bits(c)) << Scale);
        return NearestHalf(exact, 2 * Scale, exact.IsZero ? double.IsNegative(special) : exact.Sign < 0, 0, digits, bias);
    }
}
