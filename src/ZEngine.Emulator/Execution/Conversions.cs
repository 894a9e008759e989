using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Execution;

/// <summary>cvt. The common pairs have vector forms; every other pair goes through <see cref="Convert"/>, one lane at a time.</summary>
internal static unsafe class Conversions
{
    /// <summary>What a general conversion does, as a number that fits an instruction.</summary>
    public static long Specification(PtxType to, PtxType from, Rounding rounding, bool toInteger, bool ftz, bool saturate) =>
        Encode(to) | Encode(from) << 16 | (long)rounding << 32 | (toInteger ? 1L << 40 : 0) | (ftz ? 1L << 41 : 0) | (saturate ? 1L << 42 : 0);

    private static long Encode(PtxType type) => type.Kind | (long)type.Bits << 8;

    private static PtxType Decode(long code) => new((char)(code & 0xFF), (int)(code >> 8 & 0xFF));

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void General(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4], d = w.Registers + i->X[0];
        long spec = i->Immediate;
        PtxType to = Decode(spec), from = Decode(spec >> 16);
        var rounding = (Rounding)(spec >> 32 & 0xFF);
        bool isWideSource = (i->Flags & 1) != 0, isWideDestination = (i->Flags & 2) != 0;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong bits = isWideSource ? ((ulong*)a)[lane] : ((uint*)a)[lane];
            ulong result = Convert(bits, to, from, rounding, (spec & 1L << 40) != 0, (spec & 1L << 41) != 0, (spec & 1L << 42) != 0);
            if (isWideDestination) ((ulong*)d)[lane] = result;
            else ((uint*)d)[lane] = (uint)result;
        }
    }

    /// <summary>One conversion from the definition. Narrow integers come back extended to the register by their type.</summary>
    public static ulong Convert(ulong bits, PtxType to, PtxType from, Rounding rounding, bool toInteger, bool ftz, bool saturate)
    {
        if (!from.IsFloat && !to.IsFloat) return IntegerToInteger(Integer(bits, from), to, saturate);
        if (!from.IsFloat) return IntegerToFloat(Integer(bits, from), to, rounding, saturate);
        double value = ToDouble(bits, from);
        if (ftz && from.Bits == 32 && float.IsSubnormal((float)value)) value = double.CopySign(0, value);
        if (to.IsFloat)
        {
            if (toInteger) value = RoundToInteger(value, rounding);
            return FromDouble(value, to, toInteger ? Rounding.Nearest : rounding, ftz, saturate);
        }
        return FloatToInteger(value, to, from, rounding);
    }

    private static Int128 Integer(ulong bits, PtxType type) => (type.Bits, type.IsSigned) switch
    {
        (8, true) => (sbyte)bits, (16, true) => (short)bits, (32, true) => (int)bits, (64, true) => (long)bits,
        (8, false) => (byte)bits, (16, false) => (ushort)bits, (32, false) => (uint)bits, _ => bits,
    };

    private static (Int128 Low, Int128 High) Range(PtxType type) =>
        type.IsSigned ? (-(Int128.One << (type.Bits - 1)), (Int128.One << (type.Bits - 1)) - 1) : (0, (Int128.One << type.Bits) - 1);

    private static ulong IntegerToInteger(Int128 value, PtxType to, bool saturate)
    {
        if (saturate)
        {
            (Int128 low, Int128 high) = Range(to);
            value = Int128.Clamp(value, low, high);
        }
        // Truncate to the type, then extend to whatever register receives it.
        return (ulong)Integer((ulong)value, to);
    }

    private static ulong FloatToInteger(double value, PtxType to, PtxType from, Rounding rounding)
    {
        (Int128 low, Int128 high) = Range(to);
        // PTX: zero, unless a double or a 64-bit integer is involved.
        if (double.IsNaN(value)) return from.Bits == 64 || to.Bits == 64 ? (ulong)Integer(1ul << (to.Bits - 1), to) : 0;
        double rounded = RoundToInteger(value, rounding);
        if (rounded >= (double)high) return (ulong)high;
        return rounded <= (double)low ? (ulong)low : (ulong)(Int128)rounded;
    }

    private static double RoundToInteger(double value, Rounding rounding) => rounding switch
    {
        Rounding.Zero => Math.Truncate(value),
        Rounding.Down => Math.Floor(value),
        Rounding.Up => Math.Ceiling(value),
        _ => Math.Round(value, MidpointRounding.ToEven),
    };

    private static ulong IntegerToFloat(Int128 value, PtxType to, Rounding rounding, bool saturate)
    {
        bool isNegative = value < 0;
        UInt128 magnitude = (UInt128)(isNegative ? -value : value);
        if (to.Bits == 64)
        {
            double d = RoundMagnitude(magnitude, 53, isNegative, rounding);
            return BitConverter.DoubleToUInt64Bits(saturate ? Math.Clamp(d, 0, 1) : d);
        }
        int digits = to.Bits == 32 ? 24 : to.Kind == 'h' ? 8 : 11;
        double r = RoundMagnitude(magnitude, digits, isNegative, rounding);
        if (saturate) r = Math.Clamp(r, 0, 1);
        return to.Bits == 32 ? BitConverter.SingleToUInt32Bits((float)r) : to.Kind == 'h' ? BFloat.FromDouble(r) : Float16.FromDouble(r);
    }

    // An integer of up to 64 bits rounded to so many binary digits; exact as a double afterwards.
    private static double RoundMagnitude(UInt128 magnitude, int digits, bool isNegative, Rounding rounding)
    {
        int drop = Math.Max(0, 128 - (int)UInt128.LeadingZeroCount(magnitude) - digits);
        UInt128 kept = magnitude >> drop, rest = magnitude - (kept << drop), half = drop == 0 ? 0 : UInt128.One << (drop - 1);
        bool up = rounding switch
        {
            Rounding.Nearest => drop > 0 && (rest > half || rest == half && (kept & 1) != 0),
            Rounding.Up => rest != 0 && !isNegative,
            Rounding.Down => rest != 0 && isNegative,
            _ => false,
        };
        if (up) kept++;
        double value = Math.ScaleB((double)(ulong)kept, drop);
        return isNegative ? -value : value;
    }

    private static double ToDouble(ulong bits, PtxType type) => (type.Kind, type.Bits) switch
    {
        ('f', 64) => BitConverter.UInt64BitsToDouble(bits),
        ('f', 16) => Float16.ToDouble((ushort)bits),
        ('h', 16) => BFloat.ToDouble((ushort)bits),
        _ => BitConverter.UInt32BitsToSingle((uint)bits),
    };

    private static ulong FromDouble(double value, PtxType to, Rounding rounding, bool ftz, bool saturate)
    {
        if (saturate && to.Kind != 't') value = value > 0 ? Math.Min(value, 1) : 0;                 // NaN and -0 become +0
        switch (to.Kind, to.Bits)
        {
            case ('f', 64): return BitConverter.DoubleToUInt64Bits(value);
            case ('f', 32):
                float single = Directed.ToSingle(value, rounding);
                return BitConverter.SingleToUInt32Bits(ftz ? Floats.Flush(single) : single);
            case ('t', _): return ToTf32(BitConverter.SingleToUInt32Bits((float)value), rounding);
            case ('f', 16):
                return rounding == Rounding.Nearest ? Float16.FromDouble(value) : ToHalfTowardZero(value);
            default:
                return rounding == Rounding.Nearest ? BFloat.FromDouble(value) : BFloatTowardZero(value);
        }
    }

    // Ties away from zero (.rna): add half of the last kept place to the magnitude. 13 of the 23 fraction bits go.
    private static uint ToTf32(uint bits, Rounding rounding)
    {
        if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFFFFFF;
        if ((bits & 0x7F800000) == 0x7F800000) return bits;
        uint rounded = rounding switch
        {
            Rounding.NearestAway => bits + 0x1000,
            Rounding.Nearest => bits + 0xFFF + (bits >> 13 & 1),
            _ => bits,
        };
        return rounded & 0xFFFFE000;
    }

    private static ushort ToHalfTowardZero(double value)
    {
        ushort nearest = Float16.FromDouble(value);
        return Math.Abs(Float16.ToDouble(nearest)) > Math.Abs(value) ? (ushort)(nearest - 1) : nearest;
    }

    private static ushort BFloatTowardZero(double value)
    {
        ushort nearest = BFloat.FromDouble(value);
        return Math.Abs(BFloat.ToDouble(nearest)) > Math.Abs(value) ? (ushort)(nearest - 1) : nearest;
    }

    /// <summary>cvt.rn.f16x2.f32 and its kin: the first source becomes the high half.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void PackPair(Warp w, Instruction* i, uint mask)
    {
        var a = (uint*)(w.Registers + i->X[4]);
        var b = (uint*)(w.Registers + i->X[5]);
        var d = (uint*)(w.Registers + i->X[0]);
        PtxType to = Decode(i->Immediate);
        var rounding = (Rounding)(i->Immediate >> 32 & 0xFF);
        bool relu = (i->Flags & 4) != 0;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            d[lane] = (Half(a[lane]) << 16) | Half(b[lane]);
        }
        uint Half(uint bits)
        {
            uint half = (uint)Convert(bits, to, new PtxType('f', 32), rounding, false, false, false);
            return relu && (half & 0x8000) != 0 ? 0 : half;
        }
    }

    // ---- Vector forms of the common pairs ----------------------------------------------------------------------------------------------

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void S64FromS32(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4], d = w.Registers + i->X[0];
        Vector512<int> a0 = Vector512.Load((int*)a), a1 = Vector512.Load((int*)(a + 64));
        StoreWide(d, Vector512.WidenLower(a0), Vector512.WidenUpper(a0), Vector512.WidenLower(a1), Vector512.WidenUpper(a1), mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void U64FromU32(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4], d = w.Registers + i->X[0];
        Vector512<uint> a0 = Vector512.Load((uint*)a), a1 = Vector512.Load((uint*)(a + 64));
        StoreWide(d, Vector512.WidenLower(a0).AsInt64(), Vector512.WidenUpper(a0).AsInt64(), Vector512.WidenLower(a1).AsInt64(), Vector512.WidenUpper(a1).AsInt64(), mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void U32FromU64(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4], d = w.Registers + i->X[0];
        Vector512<uint> low = Vector512.Narrow(Vector512.Load((ulong*)a), Vector512.Load((ulong*)(a + 64)));
        Vector512<uint> high = Vector512.Narrow(Vector512.Load((ulong*)(a + 128)), Vector512.Load((ulong*)(a + 192)));
        LaneOps.Blend(d, 0, low, mask);
        LaneOps.Blend(d, 1, high, mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreWide(byte* d, Vector512<long> v0, Vector512<long> v1, Vector512<long> v2, Vector512<long> v3, uint mask)
    {
        if (mask == uint.MaxValue)
        {
            Vector512.Store(v0, (long*)d);
            Vector512.Store(v1, (long*)(d + 64));
            Vector512.Store(v2, (long*)(d + 128));
            Vector512.Store(v3, (long*)(d + 192));
            return;
        }
        LaneOps.Blend(d, 0, v0, mask);
        LaneOps.Blend(d, 1, v1, mask);
        LaneOps.Blend(d, 2, v2, mask);
        LaneOps.Blend(d, 3, v3, mask);
    }
}

internal struct F32FromS32 : IUnary<int> { public static Vector512<int> Invoke(Vector512<int> a) => Vector512.ConvertToSingle(a).AsInt32(); }

internal struct F32FromBf16 : IUnary<uint> { public static Vector512<uint> Invoke(Vector512<uint> a) => a << 16; }

internal struct Bf16FromF32 : IUnary<uint>
{
    public static Vector512<uint> Invoke(Vector512<uint> a)
    {
        Vector512<uint> rounded = (a + Vector512.Create(0x7FFFu) + ((a >>> 16) & Vector512<uint>.One)) >>> 16;
        Vector512<uint> isNan = Vector512.GreaterThan(a & Vector512.Create(0x7FFFFFFFu), Vector512.Create(0x7F800000u));
        return Vector512.ConditionalSelect(isNan, Vector512.Create(0x7FFFu), rounded);
    }
}

internal struct Bf16PairFromF32 : IBinary<uint>
{
    public static Vector512<uint> Invoke(Vector512<uint> high, Vector512<uint> low) => Bf16FromF32.Invoke(high) << 16 | Bf16FromF32.Invoke(low);
}

internal struct LowHalf : IUnary<uint> { public static Vector512<uint> Invoke(Vector512<uint> a) => a & Vector512.Create(0xFFFFu); }
