using System.Numerics;
using static ZEngine.Tests.Emulator.Forms.Definition;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>Integer arithmetic, logic, bits, moves and comparisons, over big integers.</summary>
internal sealed class IntegerForms : IOracleTable
{
    private static readonly (string Name, char Kind, int Bits)[] Types = [("u16", 'u', 16), ("s16", 's', 16), ("u32", 'u', 32), ("s32", 's', 32), ("u64", 'u', 64), ("s64", 's', 64)];

    public IEnumerable<Oracle> Oracles => [.. Arithmetic(), .. Logic(), .. Counts(), .. Comparisons(), .. Predicates(), .. Others()];

    internal static string R(int bits, int k) => $"%{(bits == 64 ? "rd" : bits == 32 ? "r" : "rs")}{k}";

    private static IEnumerable<Oracle> Arithmetic()
    {
        foreach ((string type, char kind, int bits) in Types)
        {
            BigInteger Of(ulong x) => Integer(x, kind, bits);
            ulong Fit(BigInteger x) => Low(x, bits);
            string d = R(bits, 0), a = R(bits, 1), b = R(bits, 2), c = R(bits, 3);
            Oracle Two(string opcode, Func<BigInteger, BigInteger, BigInteger> f) => ScalarForms.Oracle($"{opcode}.{type} {d}, {a}, {b};", bits, [bits, bits], x => Fit(f(Of(x[0]), Of(x[1]))));
            Oracle Three(string opcode, Func<BigInteger, BigInteger, BigInteger, BigInteger> f) => ScalarForms.Oracle($"{opcode}.{type} {d}, {a}, {b}, {c};", bits, [bits, bits, bits], x => Fit(f(Of(x[0]), Of(x[1]), Of(x[2]))));
            yield return Two("add", (x, y) => x + y);
            yield return Two("sub", (x, y) => x - y);
            yield return Two("mul.lo", (x, y) => x * y);
            yield return Two("mul.hi", (x, y) => x * y >> bits);
            yield return Two("min", BigInteger.Min);
            yield return Two("max", BigInteger.Max);
            // What division by zero gives is not defined; the emulator gives all ones, and the dividend as remainder.
            yield return Two("div", (x, y) => y.IsZero ? -1 : BigInteger.Divide(x, y));
            yield return Two("rem", (x, y) => y.IsZero ? x : BigInteger.Remainder(x, y));
            yield return Three("mad.lo", (x, y, z) => x * y + z);
            if (bits > 16) yield return Three("mad.hi", (x, y, z) => (x * y >> bits) + z);
            if (bits > 16) yield return Three("sad", (x, y, z) => BigInteger.Abs(x - y) + z);
            if (bits < 64)
            {
                string wide = R(2 * bits, 0), sum = R(2 * bits, 3);
                yield return ScalarForms.Oracle($"mul.wide.{type} {wide}, {a}, {b};", 2 * bits, [bits, bits], x => Low(Of(x[0]) * Of(x[1]), 2 * bits));
                yield return ScalarForms.Oracle($"mad.wide.{type} {wide}, {a}, {b}, {sum};", 2 * bits, [bits, bits, 2 * bits], x => Low(Of(x[0]) * Of(x[1]) + x[2], 2 * bits));
            }
            yield return ScalarForms.Oracle($"shr.{type} {d}, {a}, %r2;", bits, [bits, 32], x => Fit(Of(x[0]) >> (int)Math.Min(x[1], 80)));
            if (kind == 's') yield return ScalarForms.Oracle($"neg.{type} {d}, {a};", bits, [bits], x => Fit(-Of(x[0])));
            if (kind == 's' && bits > 16) yield return ScalarForms.Oracle($"abs.{type} {d}, {a};", bits, [bits], x => Fit(BigInteger.Abs(Of(x[0]))));
            if (kind == 'u') yield return ScalarForms.Oracle($"shl.b{bits} {d}, {a}, %r2;", bits, [bits, 32], x => Fit((BigInteger)x[0] << (int)Math.Min(x[1], 80)));
        }
        foreach ((string name, char kindA, char kindB) in ((string, char, char)[])[("s32.s32", 's', 's'), ("s32.u32", 's', 'u'), ("u32.s32", 'u', 's'), ("u32.u32", 'u', 'u')])
            yield return ScalarForms.Oracle($"dp4a.{name} %r0, %r1, %r2, %r3;", 32, [32, 32, 32],
                x => Low(Enumerable.Range(0, 4).Aggregate((BigInteger)x[2], (sum, k) => sum + Integer(x[0] >> (8 * k), kindA, 8) * Integer(x[1] >> (8 * k), kindB, 8)), 32));
    }

    private static IEnumerable<Oracle> Logic()
    {
        foreach (int bits in (int[])[16, 32, 64])
        {
            ulong all = ulong.MaxValue >> (64 - bits);
            string d = R(bits, 0), a = R(bits, 1), b = R(bits, 2);
            yield return ScalarForms.Oracle($"and.b{bits} {d}, {a}, {b};", bits, [bits, bits], x => x[0] & x[1]);
            yield return ScalarForms.Oracle($"or.b{bits} {d}, {a}, {b};", bits, [bits, bits], x => x[0] | x[1]);
            yield return ScalarForms.Oracle($"xor.b{bits} {d}, {a}, {b};", bits, [bits, bits], x => x[0] ^ x[1]);
            yield return ScalarForms.Oracle($"not.b{bits} {d}, {a};", bits, [bits], x => ~x[0] & all);
            foreach (char kind in bits == 16 ? "bus" : "busf")
            {
                yield return ScalarForms.Oracle($"mov.{kind}{bits} {d}, {a};", bits, [bits], x => x[0]);
                yield return ScalarForms.Oracle($"setp.lt.s32 %p2, %r3, 77; selp.{kind}{bits} {d}, {a}, {b}, %p2;", bits, [bits, bits, 32], x => S(x[2], 32) < 77 ? x[0] : x[1]);
            }
        }
    }

    // Positions of bits, counted from the lowest.
    private static IEnumerable<Oracle> Counts()
    {
        foreach (int bits in (int[])[32, 64])
        {
            string a = R(bits, 1);
            static int Highest(ulong x) => Enumerable.Range(0, 64).Aggregate(-1, (last, b) => (x >> b & 1) != 0 ? b : last);
            ulong Magnitude(ulong x, bool isSigned) => isSigned && (x >> (bits - 1) & 1) != 0 ? ~x & ulong.MaxValue >> (64 - bits) : x;
            yield return ScalarForms.Oracle($"popc.b{bits} %r0, {a};", 32, [bits], x => (ulong)Enumerable.Range(0, bits).Count(b => (x[0] >> b & 1) != 0));
            yield return ScalarForms.Oracle($"clz.b{bits} %r0, {a};", 32, [bits], x => (ulong)(bits - 1 - Highest(x[0])));
            yield return ScalarForms.Oracle($"brev.b{bits} {R(bits, 0)}, {a};", bits, [bits], x => Enumerable.Range(0, bits).Aggregate(0ul, (r, b) => r | (x[0] >> b & 1) << (bits - 1 - b)));
            foreach (bool isSigned in (bool[])[false, true])
            {
                string type = (isSigned ? "s" : "u") + bits;
                yield return ScalarForms.Oracle($"bfind.{type} %r0, {a};", 32, [bits], x => (uint)Highest(Magnitude(x[0], isSigned)));
                yield return ScalarForms.Oracle($"bfind.shiftamt.{type} %r0, {a};", 32, [bits], x => Highest(Magnitude(x[0], isSigned)) is var h && h < 0 ? uint.MaxValue : (uint)(bits - 1 - h));
            }
        }
    }

    private static readonly (string Name, Func<int, bool> Holds)[] Orders =
        [("eq", c => c == 0), ("ne", c => c != 0), ("lt", c => c < 0), ("le", c => c <= 0), ("gt", c => c > 0), ("ge", c => c >= 0)];

    private static IEnumerable<Oracle> Comparisons()
    {
        foreach ((string type, char kind, int bits) in Types.Concat([("b16", 'u', 16), ("b32", 'u', 32), ("b64", 'u', 64)]))
            foreach ((string name, Func<int, bool> holds) in Orders.Concat(type[0] == 'u' ? [("lo", Orders[2].Holds), ("ls", Orders[3].Holds), ("hi", Orders[4].Holds), ("hs", Orders[5].Holds)] : []))
            {
                if (type[0] == 'b' && name is not ("eq" or "ne")) continue;
                yield return ScalarForms.Oracle($"setp.{name}.{type} %p0, {R(bits, 1)}, {R(bits, 2)};", 1, [bits, bits],
                    x => holds(Integer(x[0], kind, bits).CompareTo(Integer(x[1], kind, bits))) ? 1u : 0);
            }
    }

    private static IEnumerable<Oracle> Predicates()
    {
        const string given = "setp.lt.s32 %p2, %r1, 0; setp.lt.s32 %p3, %r2, 0; ";
        Oracle Of(string ptx, Func<bool, bool, bool> f) => ScalarForms.Oracle(given + ptx, 1, [32, 32], x => f(S(x[0], 32) < 0, S(x[1], 32) < 0) ? 1u : 0);
        yield return Of("and.pred %p0, %p2, %p3;", (a, b) => a && b);
        yield return Of("or.pred %p0, %p2, %p3;", (a, b) => a || b);
        yield return Of("xor.pred %p0, %p2, %p3;", (a, b) => a != b);
        yield return Of("not.pred %p0, %p2;", (a, _) => !a);
        yield return Of("mov.pred %p0, %p3;", (_, b) => b);
        yield return Of("mov.pred %p0, 0; @%p2 mov.pred %p0, 1;", (a, _) => a);
        foreach ((string name, Func<bool, bool, bool> f) in ((string, Func<bool, bool, bool>)[])[("and", (a, b) => a && b), ("or", (a, b) => a || b), ("xor", (a, b) => a != b)])
        {
            yield return Of($"setp.lt.{name}.s32 %p0, %r1, 0, %p3;", f);
            yield return Of($"setp.lt.{name}.s32 %p0, %r1, 0, !%p3;", (a, b) => f(a, !b));
            yield return Of($"setp.ge.{name}.s32 %p2|%p0, %r1, 0, %p3;", f);
        }
        yield return ScalarForms.Oracle("setp.gt.s32 %p2, %r1, 0; @%p2 add.s32 %r2, %r2, 1; @!%p2 sub.s32 %r2, %r2, 1; mov.u32 %r0, %r2;", 32, [32, 32], x => S(x[0], 32) > 0 ? (uint)(x[1] + 1) : (uint)(x[1] - 1));
    }

    private static IEnumerable<Oracle> Others()
    {
        yield return ScalarForms.Oracle("add.cc.u32 %r5, %r1, %r2; addc.u32 %r0, %r3, %r4;", 32, [32, 32, 32, 32], x => (uint)(x[2] + x[3] + (x[0] + x[1] >> 32)));
        yield return ScalarForms.Oracle("sub.cc.u32 %r5, %r1, %r2; subc.u32 %r0, %r3, %r4;", 32, [32, 32, 32, 32], x => (uint)(x[2] - x[3] - (x[0] < x[1] ? 1u : 0)));
        yield return ScalarForms.Oracle("mad.lo.cc.u32 %r5, %r1, %r2, %r3; madc.hi.u32 %r0, %r1, %r2, %r4;", 32, [32, 32, 32, 32], x => Low((new BigInteger(x[0]) * x[1] + x[2] + (new BigInteger(x[3]) << 32)) >> 32, 32));
        yield return ScalarForms.Oracle("cnot.b32 %r0, %r1;", 32, [32], x => x[0] == 0 ? 1u : 0);
        yield return ScalarForms.Oracle("lop3.b32 %r0, %r1, %r2, %r3, 0x96;", 32, [32, 32, 32], x => x[0] ^ x[1] ^ x[2]);
        yield return ScalarForms.Oracle("lop3.b32 %r0, %r1, %r2, %r3, 0xCA;", 32, [32, 32, 32], x => x[0] & x[1] | ~x[0] & x[2] & 0xFFFFFFFF);
        yield return ScalarForms.Oracle("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => Low(new BigInteger(x[1] << 32 | x[0]) << (int)(x[2] & 31) >> 32, 32));
        yield return ScalarForms.Oracle("shf.r.wrap.b32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => (uint)((x[1] << 32 | x[0]) >> (int)(x[2] & 31)));
        yield return ScalarForms.Oracle("shf.l.clamp.b32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => Low(new BigInteger(x[1] << 32 | x[0]) << (int)Math.Min(x[2], 32) >> 32, 32));
        yield return ScalarForms.Oracle("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => (uint)((x[1] << 32 | x[0]) >> (int)Math.Min(x[2], 32)));
        yield return ScalarForms.Oracle("bfe.u32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => (x[1] & 255) is var p && (x[2] & 255) is var l && p < 32 ? Low((new BigInteger(x[0]) >> (int)p) & ((BigInteger.One << (int)l) - 1), 32) : 0);
        yield return ScalarForms.Oracle("bfe.s32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => BfeSigned(x[0], (int)(x[1] & 255), (int)(x[2] & 255)));
        yield return ScalarForms.Oracle("bfi.b32 %r0, %r1, %r2, %r3, %r4;", 32, [32, 32, 32, 32], x => (((BigInteger.One << (int)(x[3] & 255)) - 1) << (int)(x[2] & 255)) is var m ? Low((new BigInteger(x[1]) & ~m) | ((new BigInteger(x[0]) << (int)(x[2] & 255)) & m), 32) : 0);
        yield return ScalarForms.Oracle("prmt.b32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => Enumerable.Range(0, 4).Aggregate(0ul, (r, k) => r | Prmt(x[1] << 32 | x[0], (int)(x[2] >> (4 * k)) & 15) << (8 * k)));
        yield return ScalarForms.Oracle("mov.b32 %r0, {%rs1, %rs2};", 32, [16, 16], x => x[0] | x[1] << 16);
        yield return ScalarForms.Oracle("mov.b64 %rd0, {%r1, %r2};", 64, [32, 32], x => x[0] | x[1] << 32);
        yield return ScalarForms.Oracle("mov.b64 {%r5, %r0}, %rd1;", 32, [64], x => x[0] >> 32);
        yield return ScalarForms.Oracle("mov.b32 {%rs0, %rs5}, %r1;", 16, [32], x => x[0] & 0xFFFF);
        yield return ScalarForms.Oracle("setp.gt.s64 %p2|%p3, %rd1, %rd2; selp.b64 %rd0, %rd2, %rd1, %p3;", 64, [64, 64], x => S(x[0], 64) > S(x[1], 64) ? x[0] : x[1]);
        yield return ScalarForms.Oracle("setp.lt.s32 %p2, %r1, 5; setp.gt.and.u32 %p0, %r1, %r2, !%p2;", 1, [32, 32], x => x[0] > x[1] && !(S(x[0], 32) < 5) ? 1u : 0);
        foreach ((string opcode, int sign) in ((string, int)[])[("add", 1), ("sub", -1)])
        {
            // Numbers of 96 bits: each word takes the carry of the one below.
            BigInteger Sum(ulong[] x) => x[0] + ((BigInteger)x[1] << 32) + ((BigInteger)x[2] << 64) + sign * (x[1] + ((BigInteger)x[2] << 32) + ((BigInteger)x[3] << 64));
            yield return ScalarForms.Oracle($"{opcode}.cc.u32 %r5, %r1, %r2; {opcode}c.cc.u32 %r0, %r2, %r3;", 32, [32, 32, 32, 32], x => Low(Sum(x) >> 32, 32));
            yield return ScalarForms.Oracle($"{opcode}.cc.u32 %r5, %r1, %r2; {opcode}c.cc.u32 %r6, %r2, %r3; {opcode}c.u32 %r0, %r3, %r4;", 32, [32, 32, 32, 32], x => Low(Sum(x) >> 64, 32));
        }
        foreach (string half in (string[])["lo", "hi"])
        {
            BigInteger Term(ulong[] x) => half == "lo" ? x[1] * x[2] & 0xFFFFFFFF : x[1] * x[2] >> 32;
            BigInteger Sum(ulong[] x) => x[0] + x[1] + ((Term(x) + x[3]) << 32);
            yield return ScalarForms.Oracle($"add.cc.u32 %r5, %r1, %r2; madc.{half}.cc.u32 %r0, %r2, %r3, %r4;", 32, [32, 32, 32, 32], x => Low(Sum(x) >> 32, 32));
            yield return ScalarForms.Oracle($"add.cc.u32 %r5, %r1, %r2; madc.{half}.cc.u32 %r6, %r2, %r3, %r4; addc.u32 %r0, %r1, %r4;", 32, [32, 32, 32, 32], x => Low((Sum(x) + ((BigInteger)(x[0] + x[3]) << 64)) >> 64, 32));
            yield return ScalarForms.Oracle($"add.cc.u32 %r5, %r1, %r2; madc.{half}.u32 %r0, %r2, %r3, %r4;", 32, [32, 32, 32, 32], x => Low(Sum(x) >> 32, 32));
        }
        yield return ScalarForms.Oracle("add.cc.u32 %r0, %r1, %r2;", 32, [32, 32], x => (uint)(x[0] + x[1]));
        yield return ScalarForms.Oracle("sub.cc.u32 %r0, %r1, %r2;", 32, [32, 32], x => (uint)(x[0] - x[1]));
        yield return ScalarForms.Oracle("mad.lo.cc.u32 %r0, %r1, %r2, %r3;", 32, [32, 32, 32], x => (uint)(x[0] * x[1] + x[2]));

        yield return ScalarForms.Oracle("bfi.b64 %rd0, %rd1, %rd2, %r3, %r4;", 64, [64, 64, 32, 32], x => (((BigInteger.One << (int)(x[3] & 255)) - 1) << (int)(x[2] & 255)) is var m ? Low((new BigInteger(x[1]) & ~m) | ((new BigInteger(x[0]) << (int)(x[2] & 255)) & m), 64) : 0);
        yield return ScalarForms.Oracle("mov.b64 {%r0, %r5}, %rd1;", 32, [64], x => (uint)x[0]);
        yield return ScalarForms.Oracle("mov.b32 {%rs5, %rs0}, %r1;", 16, [32], x => x[0] >> 16);
        yield return ScalarForms.Oracle("mov.b64 %rd0, {%rs1, %rs2, %rs3, %rs4};", 64, [16, 16, 16, 16], x => x[0] | x[1] << 16 | x[2] << 32 | x[3] << 48);
        yield return ScalarForms.Oracle("mov.b64 {%rs5, %rs6, %rs0, %rs7}, %rd1;", 16, [64], x => x[0] >> 32 & 0xFFFF);
    }

    private static ulong BfeSigned(ulong a, int position, int length)
    {
        // The field, then the bit at its top (or the sign, if it reaches past the end) in all higher places.
        ulong sign = length == 0 ? 0 : a >> Math.Min(position + length - 1, 31) & 1, result = 0;
        for (int b = 0; b < 32; b++) result |= (b < length && position + b < 32 ? a >> (position + b) & 1 : sign) << b;
        return result;
    }

    private static ulong Prmt(ulong bytes, int selector)
    {
        ulong value = bytes >> (8 * (selector & 7)) & 255;
        return (selector & 8) == 0 ? value : value >= 128 ? 255u : 0;
    }
}
