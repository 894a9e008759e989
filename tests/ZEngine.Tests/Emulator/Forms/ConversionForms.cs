using System.Numerics;
using static ZEngine.Tests.Emulator.Forms.Definition;
using static ZEngine.Tests.Emulator.Forms.IntegerForms;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>cvt: every pair of types, rounded and saturated by the definition.</summary>
internal sealed class ConversionForms : IOracleTable
{
    private static readonly (string Name, char Kind, int Bits)[] Types =
        [("u8", 'u', 8), ("s8", 's', 8), ("u16", 'u', 16), ("s16", 's', 16), ("u32", 'u', 32), ("s32", 's', 32), ("u64", 'u', 64), ("s64", 's', 64)];

    private static readonly (string Name, int Direction, Func<double, double> ToInteger)[] Roundings =
        [("rn", 2, v => Math.Round(v, MidpointRounding.ToEven)), ("rz", 0, Math.Truncate), ("rm", -1, Math.Floor), ("rp", 1, Math.Ceiling)];

    public IEnumerable<Oracle> Oracles => [.. Integers(), .. FromFloat(), .. ToFloat(), .. Floats(), .. Halves()];

    private static bool AnyNan(ulong want, ulong got) => double.IsNaN(D(want)) && double.IsNaN(D(got));

    // Narrow results fill a register of 32 bits, extended by their type.
    private static int Width(int bits) => bits == 8 ? 32 : bits;

    private static (BigInteger Low, BigInteger High) Range(char kind, int bits) =>
        kind == 's' ? (-(BigInteger.One << (bits - 1)), (BigInteger.One << (bits - 1)) - 1) : (0, (BigInteger.One << bits) - 1);

    private static BigInteger Clamp(BigInteger x, char kind, int bits) => Range(kind, bits) is var (low, high) ? BigInteger.Max(low, BigInteger.Min(high, x)) : 0;

    private static IEnumerable<Oracle> Integers()
    {
        foreach ((string to, char kindTo, int bitsTo) in Types)
            foreach ((string from, char kindFrom, int bitsFrom) in Types)
                foreach (string sat in to == from ? [""] : (string[])["", ".sat"])
                {
                    int d = Width(bitsTo), a = Width(bitsFrom);
                    yield return ScalarForms.Oracle($"cvt{sat}.{to}.{from} {R(d, 0)}, {R(a, 1)};", d, [a], x =>
                    {
                        BigInteger value = Integer(x[0], kindFrom, bitsFrom);
                        value = sat.Length > 0 ? Clamp(value, kindTo, bitsTo) : Integer(Low(value, bitsTo), kindTo, bitsTo);
                        return Low(value, d);
                    });
                }
    }

    private static IEnumerable<Oracle> FromFloat()
    {
        foreach ((string from, int bits) in ((string, int)[])[("f32", 32), ("f64", 64), ("f16", 16)])
            foreach ((string rounding, _, Func<double, double> toInteger) in Roundings)
                foreach ((string to, char kind, int bitsTo) in Types)
                    foreach (string ftz in from == "f32" ? (string[])["", ".ftz"] : [""])
                    {
                        int d = Width(bitsTo);
                        yield return ScalarForms.Oracle($"cvt.{rounding}i{ftz}.{to}.{from} {R(d, 0)}, {R(bits, 1)};", d, [bits], x =>
                        {
                            double value = from == "f64" ? D(x[0]) : from == "f32" ? F(x[0]) : (double)BitConverter.UInt16BitsToHalf((ushort)x[0]);
                            // PTX: zero for a NaN, unless a double or a 64-bit integer is involved: then the highest bit alone.
                            if (double.IsNaN(value)) return from == "f64" || bitsTo == 64 ? Low(Integer(1ul << (bitsTo - 1), kind, bitsTo), d) : 0;
                            if (ftz.Length > 0) value = Ftz((float)value);
                            if (double.IsInfinity(value)) return Low(value > 0 ? Range(kind, bitsTo).High : Range(kind, bitsTo).Low, d);
                            return Low(Clamp(new BigInteger(toInteger(value)), kind, bitsTo), d);
                        });
                    }
    }

    private static IEnumerable<Oracle> ToFloat()
    {
        foreach ((string from, char kind, int bits) in Types)
            foreach ((string rounding, int direction, _) in Roundings)
                foreach ((string to, int digits, int bitsTo) in ((string, int, int)[])[("f32", 24, 32), ("f64", 53, 64)])
                {
                    int a = Width(bits);
                    yield return ScalarForms.Oracle($"cvt.{rounding}.{to}.{from} {R(bitsTo, 0)}, {R(a, 1)};", bitsTo, [a], x =>
                    {
                        double value = Rounded(Integer(x[0], kind, bits), digits, direction);
                        return bitsTo == 64 ? Bits(value) : Bits((float)value);
                    });
                }
    }

    /// <summary>An integer cut to so many binary digits: 2 nearest even, 0 to zero, -1 down, 1 up.</summary>
    private static double Rounded(BigInteger value, int digits, int direction)
    {
        BigInteger magnitude = BigInteger.Abs(value);
        int drop = Math.Max(0, (int)magnitude.GetBitLength() - digits);
        BigInteger kept = magnitude >> drop, rest = magnitude - (kept << drop), half = drop == 0 ? 1 : BigInteger.One << (drop - 1);
        bool up = direction switch { 2 => rest > half || rest == half && !kept.IsEven, 0 => false, _ => !rest.IsZero && value.Sign == direction };
        double result = Math.ScaleB((double)(kept + (up ? 1 : 0)), drop);
        return value.Sign < 0 ? -result : result;
    }

    private static IEnumerable<Oracle> Floats()
    {
        yield return ScalarForms.Oracle("cvt.f64.f32 %rd0, %r1;", 64, [32], x => Bits((double)F(x[0])), AnyNan);
        yield return ScalarForms.Oracle("cvt.ftz.f64.f32 %rd0, %r1;", 64, [32], x => Bits((double)Ftz(F(x[0]))), AnyNan);
        yield return ScalarForms.Oracle("cvt.rn.f32.f64 %r0, %rd1;", 32, [64], x => Bits((float)D(x[0])));
        yield return ScalarForms.Oracle("cvt.rn.ftz.f32.f64 %r0, %rd1;", 32, [64], x => Bits(Ftz((float)D(x[0]))));
        foreach ((string rounding, int direction, Func<double, double> toInteger) in Roundings)
        {
            yield return ScalarForms.Oracle($"cvt.{rounding}i.f32.f32 %r0, %r1;", 32, [32], x => Bits((float)toInteger(F(x[0]))));
            yield return ScalarForms.Oracle($"cvt.{rounding}i.ftz.f32.f32 %r0, %r1;", 32, [32], x => Bits((float)toInteger(Ftz(F(x[0])))));
            yield return ScalarForms.Oracle($"cvt.{rounding}i.f64.f64 %rd0, %rd1;", 64, [64], x => Bits(toInteger(D(x[0]))), AnyNan);
            if (direction != 2) yield return ScalarForms.Oracle($"cvt.{rounding}.f32.f64 %r0, %rd1;", 32, [64], x => Narrowed(D(x[0]), direction));
        }
        yield return ScalarForms.Oracle("cvt.sat.f32.f32 %r0, %r1;", 32, [32], x => float.IsNaN(F(x[0])) || F(x[0]) <= 0 ? 0 : Bits(Math.Min(F(x[0]), 1)));
        yield return ScalarForms.Oracle("cvt.ftz.f32.f32 %r0, %r1;", 32, [32], x => Bits(Ftz(F(x[0]))));
    }

    private static ulong Narrowed(double value, int direction)
    {
        if (!double.IsFinite(value) || value == 0) return Bits((float)value);
        // The neighbours of the nearest float in the direction wanted.
        float nearest = (float)value;
        bool isNegative = value < 0, toZero = direction == 0;
        if (toZero) direction = isNegative ? 1 : -1;
        if (direction < 0 && nearest > value) nearest = MathF.BitDecrement(nearest);
        else if (direction > 0 && nearest < value) nearest = MathF.BitIncrement(nearest);
        return nearest == 0 ? isNegative ? 0x80000000u : 0 : Bits(nearest);
    }

    private static IEnumerable<Oracle> Halves()
    {
        foreach ((string type, int digits, int bias) in ((string, int, int)[])[("f16", 11, 15), ("bf16", 8, 127)])
        {
            float Wide(ulong x) => digits == 8 ? F(x << 16) : (float)BitConverter.UInt16BitsToHalf((ushort)x);
            ulong Nearest(ulong x) => NearestHalf(F(x), digits, bias);
            ulong Relu(ulong h) => h != 0x7FFF && (h & 0x8000) != 0 ? 0 : h;
            yield return ScalarForms.Oracle($"cvt.f32.{type} %r0, %rs1;", 32, [16], x => Bits(Wide(x[0])), (want, got) => float.IsNaN(F(want)) && float.IsNaN(F(got)));
            if (digits == 11) yield return ScalarForms.Oracle("cvt.f64.f16 %rd0, %rs1;", 64, [16], x => Bits((double)Wide(x[0])), AnyNan);
            yield return ScalarForms.Oracle($"cvt.rn.{type}.f32 %rs0, %r1;", 16, [32], x => Nearest(x[0]));
            yield return ScalarForms.Oracle($"cvt.rn.{type}x2.f32 %r0, %r1, %r2;", 32, [32, 32], x => Nearest(x[0]) << 16 | Nearest(x[1]));
            yield return ScalarForms.Oracle($"cvt.rn.relu.{type}x2.f32 %r0, %r1, %r2;", 32, [32, 32], x => Relu(Nearest(x[0])) << 16 | Relu(Nearest(x[1])));
        }
        yield return ScalarForms.Oracle("cvt.rn.f16.f64 %rs0, %rd1;", 16, [64], x => double.IsNaN(D(x[0])) ? 0x7FFFu : BitConverter.HalfToUInt16Bits((Half)D(x[0])));
        yield return ScalarForms.Oracle("cvt.rna.tf32.f32 %r0, %r1;", 32, [32], x => float.IsNaN(F(x[0])) ? 0x7FFFFFFF : float.IsInfinity(F(x[0])) ? x[0] : (x[0] + 0x1000) & 0xFFFFE000);
    }
}
