// One room: the operations on halves are one line each and read as a table.
namespace ZEngine.Emulator.Execution;

/// <summary>A 16-bit float format.</summary>
internal interface IHalfFormat
{
    static abstract double ToDouble(ushort bits);

    /// <summary>Rounds to nearest even, once.</summary>
    static abstract ushort FromDouble(double value);
}

internal struct Float16 : IHalfFormat
{
    public static double ToDouble(ushort bits) => (double)BitConverter.UInt16BitsToHalf(bits);

    public static ushort FromDouble(double value) => double.IsNaN(value) ? (ushort)0x7FFF : BitConverter.HalfToUInt16Bits((Half)value);
}

internal struct BFloat : IHalfFormat
{
    public static double ToDouble(ushort bits) => BitConverter.UInt32BitsToSingle((uint)bits << 16);

    public static ushort FromDouble(double value)
    {
        if (double.IsNaN(value)) return 0x7FFF;
        // double -> float rounded to odd -> bfloat16 rounded to nearest: the same as one rounding.
        float f = (float)value;
        if (f != value && float.IsFinite(f))
        {
            if ((double)f > value == value > 0) f = BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(f) - 1);      // toward zero
            f = BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(f) | 1);
        }
        return FromSingle(f);
    }

    public static ushort FromSingle(float value)
    {
        if (float.IsNaN(value)) return 0x7FFF;
        uint bits = BitConverter.SingleToUInt32Bits(value);
        return (ushort)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
}

internal struct HalfAdd<F> : IScalar<ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b) => F.FromDouble(Directed.ToOdd(F.ToDouble(a), F.ToDouble(b)));
}

internal struct HalfSub<F> : IScalar<ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b) => F.FromDouble(Directed.ToOdd(F.ToDouble(a), -F.ToDouble(b)));
}

internal struct HalfMul<F> : IScalar<ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b) => F.FromDouble(F.ToDouble(a) * F.ToDouble(b));
}

internal struct HalfFma<F> : IScalar<ushort, ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b, ushort c) => F.FromDouble(Directed.ToOdd(F.ToDouble(a) * F.ToDouble(b), F.ToDouble(c)));
}

internal struct HalfFmaRelu<F> : IScalar<ushort, ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b, ushort c)
    {
        ushort r = HalfFma<F>.Invoke(a, b, c);
        return F.ToDouble(r) < 0 || r == 0x8000 ? (ushort)0 : r;
    }
}

internal struct HalfMin<F> : IScalar<ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b) => F.FromDouble(double.MinNumber(F.ToDouble(a), F.ToDouble(b)));
}

internal struct HalfMax<F> : IScalar<ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b) => F.FromDouble(double.MaxNumber(F.ToDouble(a), F.ToDouble(b)));
}

internal struct HalfMinNan<F> : IScalar<ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b) => F.FromDouble(Math.Min(F.ToDouble(a), F.ToDouble(b)));
}

internal struct HalfMaxNan<F> : IScalar<ushort, ushort, ushort> where F : struct, IHalfFormat
{
    public static ushort Invoke(ushort a, ushort b) => F.FromDouble(Math.Max(F.ToDouble(a), F.ToDouble(b)));
}

internal struct HalfNeg : IScalar<ushort, ushort> { public static ushort Invoke(ushort a) => (ushort)(a ^ 0x8000); }

internal struct HalfAbs : IScalar<ushort, ushort> { public static ushort Invoke(ushort a) => (ushort)(a & 0x7FFF); }

/// <summary>Applies a 16-bit operation to both halves of a 32-bit register.</summary>
internal struct Both1<TOp> : IScalar<uint, uint> where TOp : struct, IScalar<ushort, ushort>
{
    public static uint Invoke(uint a) => TOp.Invoke((ushort)a) | (uint)TOp.Invoke((ushort)(a >> 16)) << 16;
}

internal struct Both2<TOp> : IScalar<uint, uint, uint> where TOp : struct, IScalar<ushort, ushort, ushort>
{
    public static uint Invoke(uint a, uint b) => TOp.Invoke((ushort)a, (ushort)b) | (uint)TOp.Invoke((ushort)(a >> 16), (ushort)(b >> 16)) << 16;
}

internal struct Both3<TOp> : IScalar<uint, uint, uint, uint> where TOp : struct, IScalar<ushort, ushort, ushort, ushort>
{
    public static uint Invoke(uint a, uint b, uint c) =>
        TOp.Invoke((ushort)a, (ushort)b, (ushort)c) | (uint)TOp.Invoke((ushort)(a >> 16), (ushort)(b >> 16), (ushort)(c >> 16)) << 16;
}

internal struct HalfEq<F> : IScalar<ushort, ushort, bool> where F : struct, IHalfFormat { public static bool Invoke(ushort a, ushort b) => F.ToDouble(a) == F.ToDouble(b); }

internal struct HalfNe<F> : IScalar<ushort, ushort, bool> where F : struct, IHalfFormat
{
    public static bool Invoke(ushort a, ushort b) => F.ToDouble(a) < F.ToDouble(b) || F.ToDouble(a) > F.ToDouble(b);
}

internal struct HalfLt<F> : IScalar<ushort, ushort, bool> where F : struct, IHalfFormat { public static bool Invoke(ushort a, ushort b) => F.ToDouble(a) < F.ToDouble(b); }

internal struct HalfLe<F> : IScalar<ushort, ushort, bool> where F : struct, IHalfFormat { public static bool Invoke(ushort a, ushort b) => F.ToDouble(a) <= F.ToDouble(b); }

internal struct HalfGt<F> : IScalar<ushort, ushort, bool> where F : struct, IHalfFormat { public static bool Invoke(ushort a, ushort b) => F.ToDouble(a) > F.ToDouble(b); }

internal struct HalfGe<F> : IScalar<ushort, ushort, bool> where F : struct, IHalfFormat { public static bool Invoke(ushort a, ushort b) => F.ToDouble(a) >= F.ToDouble(b); }

/// <summary>The unordered form of a comparison: true as well when an operand is NaN.</summary>
internal struct HalfUnordered<F, TOp> : IScalar<ushort, ushort, bool> where F : struct, IHalfFormat where TOp : struct, IScalar<ushort, ushort, bool>
{
    public static bool Invoke(ushort a, ushort b) => double.IsNaN(F.ToDouble(a)) || double.IsNaN(F.ToDouble(b)) || TOp.Invoke(a, b);
}

/// <summary>A comparison of signed or unsigned 16-bit integers.</summary>
internal struct Eq16 : IScalar<ushort, ushort, bool> { public static bool Invoke(ushort a, ushort b) => a == b; }

internal struct Ne16 : IScalar<ushort, ushort, bool> { public static bool Invoke(ushort a, ushort b) => a != b; }

internal struct Lt16<T> : IScalar<T, T, bool> where T : System.Numerics.INumber<T> { public static bool Invoke(T a, T b) => a < b; }

internal struct Le16<T> : IScalar<T, T, bool> where T : System.Numerics.INumber<T> { public static bool Invoke(T a, T b) => a <= b; }

internal struct Gt16<T> : IScalar<T, T, bool> where T : System.Numerics.INumber<T> { public static bool Invoke(T a, T b) => a > b; }

internal struct Ge16<T> : IScalar<T, T, bool> where T : System.Numerics.INumber<T> { public static bool Invoke(T a, T b) => a >= b; }
