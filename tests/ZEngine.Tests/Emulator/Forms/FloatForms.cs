using static ZEngine.Tests.Emulator.Forms.Definition;
using static ZEngine.Tests.Emulator.Forms.IntegerForms;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>Arithmetic and comparisons of floats of all widths: one rounding of the exact result, in each direction.</summary>
internal sealed class FloatForms : IOracleTable
{
    private static readonly (string Suffix, bool Ftz, bool Sat)[] Modes = [("", false, false), (".ftz", true, false), (".sat", false, true), (".ftz.sat", true, true)];

    private static readonly (string Name, Func<double, double, bool> Holds)[] Ordered =
    [
        ("eq", (a, b) => a == b), ("ne", (a, b) => a < b || a > b), ("lt", (a, b) => a < b), ("le", (a, b) => a <= b), ("gt", (a, b) => a > b), ("ge", (a, b) => a >= b),
    ];

    public IEnumerable<Oracle> Oracles => [.. Singles(), .. Directed(), .. Doubles(), .. Halves("f16", 11, 15), .. Halves("bf16", 8, 127), .. Comparisons()];

    private static float Flushed(float x, bool ftz) => ftz ? Ftz(x) : x;

    private static ulong Single(float x, bool ftz, bool sat)
    {
        x = Flushed(x, ftz);
        return !sat ? Bits(x) : float.IsNaN(x) || x <= 0 ? 0 : Bits(Math.Min(x, 1));
    }

    private static bool BothNan(ulong want, ulong got) => double.IsNaN(D(want)) && double.IsNaN(D(got));

    private static bool BothNan32(ulong want, ulong got) => float.IsNaN(F(want)) && float.IsNaN(F(got));

    private static IEnumerable<Oracle> Singles()
    {
        Oracle One(string ptx, bool ftz, bool sat, Func<float, float> f) => ScalarForms.Oracle(ptx + " %r0, %r1;", 32, [32], x => Single(f(Flushed(F(x[0]), ftz)), ftz, sat), BothNan32);
        Oracle Two(string ptx, bool ftz, bool sat, Func<float, float, float> f) => ScalarForms.Oracle(ptx + " %r0, %r1, %r2;", 32, [32, 32], x => Single(f(Flushed(F(x[0]), ftz), Flushed(F(x[1]), ftz)), ftz, sat));
        foreach ((string suffix, bool ftz, bool sat) in Modes)
        {
            foreach (string rn in (string[])["", ".rn"])
            {
                yield return Two($"add{rn}{suffix}.f32", ftz, sat, (a, b) => a + b);
                yield return Two($"sub{rn}{suffix}.f32", ftz, sat, (a, b) => a - b);
                yield return Two($"mul{rn}{suffix}.f32", ftz, sat, (a, b) => a * b);
            }
            yield return ScalarForms.Oracle($"fma.rn{suffix}.f32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32],
                x => Single(MathF.FusedMultiplyAdd(Flushed(F(x[0]), ftz), Flushed(F(x[1]), ftz), Flushed(F(x[2]), ftz)), ftz, sat));
            if (sat) continue;
            yield return Two($"div.rn{suffix}.f32", ftz, false, (a, b) => a / b);
            yield return One($"sqrt.rn{suffix}.f32", ftz, false, MathF.Sqrt);
            yield return One($"rcp.rn{suffix}.f32", ftz, false, a => 1 / a);
            yield return One($"neg{suffix}.f32", ftz, false, a => -a);
            yield return One($"abs{suffix}.f32", ftz, false, MathF.Abs);
            foreach (bool isMin in (bool[])[true, false])
            {
                string name = isMin ? "min" : "max";
                yield return Two($"{name}{suffix}.f32", ftz, false, (a, b) => MinMax(a, b, isMin));
                yield return Two($"{name}{suffix}.NaN.f32", ftz, false, (a, b) => float.IsNaN(a) || float.IsNaN(b) ? float.NaN : MinMax(a, b, isMin));
            }
        }
        yield return ScalarForms.Oracle("copysign.f32 %r0, %r1, %r2;", 32, [32, 32], x => x[0] & 0x80000000 | x[1] & 0x7FFFFFFF);
        yield return ScalarForms.Oracle("copysign.f64 %rd0, %rd1, %rd2;", 64, [64, 64], x => x[0] & 1ul << 63 | x[1] & ulong.MaxValue >> 1);
    }

    private static IEnumerable<Oracle> Directed()
    {
        foreach ((string rounding, int direction) in ((string, int)[])[("rz", 0), ("rm", -1), ("rp", 1)])
        {
            foreach (bool ftz in (bool[])[false, true])
            {
                string mode = rounding + (ftz ? ".ftz" : "");
                ulong In(ulong x) => ftz ? BitConverter.SingleToUInt32Bits(Ftz(F(x))) : x;
                ulong Out(ulong x) => ftz ? Bits(Ftz(F(x))) : x;
                yield return ScalarForms.Oracle($"add.{mode}.f32 %r0, %r1, %r2;", 32, [32, 32], x => Out(RoundSum(In(x[0]), In(x[1]), direction)));
                yield return ScalarForms.Oracle($"sub.{mode}.f32 %r0, %r1, %r2;", 32, [32, 32], x => Out(RoundSum(In(x[0]), In(x[1]) ^ 0x80000000, direction)));
                yield return ScalarForms.Oracle($"mul.{mode}.f32 %r0, %r1, %r2;", 32, [32, 32], x => Out(RoundProduct(In(x[0]), In(x[1]), direction)));
                yield return ScalarForms.Oracle($"fma.{mode}.f32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => Out(RoundFma(In(x[0]), In(x[1]), In(x[2]), direction)));
            }
        }
    }

    private static IEnumerable<Oracle> Doubles()
    {
        Oracle One(string opcode, Func<double, double> f) => ScalarForms.Oracle($"{opcode}.f64 %rd0, %rd1;", 64, [64], x => Bits(f(D(x[0]))), BothNan);
        Oracle Two(string opcode, Func<double, double, double> f) => ScalarForms.Oracle($"{opcode}.f64 %rd0, %rd1, %rd2;", 64, [64, 64], x => Bits(f(D(x[0]), D(x[1]))), BothNan);
        foreach (string rn in (string[])["", ".rn"])
        {
            yield return Two("add" + rn, (a, b) => a + b);
            yield return Two("sub" + rn, (a, b) => a - b);
            yield return Two("mul" + rn, (a, b) => a * b);
        }
        yield return Two("div.rn", (a, b) => a / b);
        yield return ScalarForms.Oracle("fma.rn.f64 %rd0, %rd1, %rd2, %rd3;", 64, [64, 64, 64], x => Bits(Math.FusedMultiplyAdd(D(x[0]), D(x[1]), D(x[2]))), BothNan);
        yield return One("sqrt.rn", Math.Sqrt);
        yield return One("rcp.rn", a => 1 / a);
        yield return One("neg", a => -a);
        yield return One("abs", Math.Abs);
        foreach (bool isMin in (bool[])[true, false])
            yield return Two(isMin ? "min" : "max", (a, b) => double.IsNaN(a) ? b : double.IsNaN(b) ? a : a == b ? double.IsNegative(a) == isMin ? a : b : a < b == isMin ? a : b);
    }

    private static IEnumerable<Oracle> Halves(string type, int digits, int bias)
    {
        ulong one = digits == 8 ? 0x3F80u : 0x3C00u;
        ulong Add(ulong a, ulong b) => HalfFma([a, one, b], 0, digits, bias);
        // A product as a sum with a zero of its own sign.
        ulong Multiply(ulong a, ulong b) => HalfFma([a, b, (a ^ b) & 0x8000], 0, digits, bias);
        bool IsNan(ulong a) => (a & 0x7FFF) > (digits == 8 ? 0x7F80u : 0x7C00u);
        // Magnitudes order as integers, signs turn the order.
        int Order(ulong a) => (a & 0x8000) != 0 ? -(int)(a & 0x7FFF) - 1 : (int)a;
        ulong Choose(ulong a, ulong b, bool isMin, bool propagates) =>
            IsNan(a) || IsNan(b) ? propagates || IsNan(a) && IsNan(b) ? 0x7FFF : IsNan(a) ? b : a : Order(a) < Order(b) == isMin ? a : b;
        ulong Relu(ulong a) => IsNan(a) ? 0x7FFFul : (a & 0x8000) != 0 ? 0ul : a;

        foreach (bool isPair in (bool[])[false, true])
        {
            int bits = isPair ? 32 : 16;
            string name = type + (isPair ? "x2" : ""), d = R(bits, 0), a = R(bits, 1), b = R(bits, 2), c = R(bits, 3);
            Func<ulong[], ulong> Both(Func<ulong[], ulong> f) => !isPair ? f : x => f([.. x.Select(v => v & 0xFFFF)]) | f([.. x.Select(v => v >> 16)]) << 16;
            Oracle Two(string opcode, Func<ulong, ulong, ulong> f) => ScalarForms.Oracle($"{opcode}.{name} {d}, {a}, {b};", bits, [bits, bits], Both(x => f(x[0], x[1])));
            yield return Two("add", Add);
            yield return Two("sub", (x, y) => Add(x, y ^ 0x8000));
            yield return Two("mul", Multiply);
            yield return Two("min", (x, y) => Choose(x, y, true, false));
            yield return Two("max", (x, y) => Choose(x, y, false, false));
            yield return Two("min.NaN", (x, y) => Choose(x, y, true, true));
            yield return Two("max.NaN", (x, y) => Choose(x, y, false, true));
            yield return ScalarForms.Oracle($"neg.{name} {d}, {a};", bits, [bits], Both(x => x[0] ^ 0x8000));
            yield return ScalarForms.Oracle($"abs.{name} {d}, {a};", bits, [bits], Both(x => x[0] & 0x7FFF));
            yield return ScalarForms.Oracle($"fma.rn.{name} {d}, {a}, {b}, {c};", bits, [bits, bits, bits], Both(x => HalfFma(x, 0, digits, bias)));
            yield return ScalarForms.Oracle($"fma.rn.relu.{name} {d}, {a}, {b}, {c};", bits, [bits, bits, bits], Both(x => Relu(HalfFma(x, 0, digits, bias))));
        }
    }

    private static IEnumerable<Oracle> Comparisons()
    {
        foreach ((string type, int bits) in ((string, int)[])[("f32", 32), ("ftz.f32", 32), ("f64", 64), ("f16", 16), ("bf16", 16)])
        {
            double Of(ulong x) => type switch
            {
                "f64" => D(x), "f32" => F(x), "ftz.f32" => Ftz(F(x)), "f16" => (double)BitConverter.UInt16BitsToHalf((ushort)x), _ => F(x << 16),
            };
            Oracle Compare(string name, Func<double, double, bool> holds) => ScalarForms.Oracle($"setp.{name}.{type} %p0, {R(bits, 1)}, {R(bits, 2)};", 1, [bits, bits], x => holds(Of(x[0]), Of(x[1])) ? 1u : 0);
            foreach ((string name, Func<double, double, bool> holds) in Ordered)
            {
                yield return Compare(name, holds);
                yield return Compare(name + "u", (a, b) => double.IsNaN(a) || double.IsNaN(b) || holds(a, b));
            }
            if (bits == 16) continue;
            yield return Compare("num", (a, b) => !double.IsNaN(a) && !double.IsNaN(b));
            yield return Compare("nan", (a, b) => double.IsNaN(a) || double.IsNaN(b));
        }
    }
}
