using System.Globalization;
using System.Numerics;
using System.Text;
using ZEngine.Emulator;
using ZEngine.Interop;
using Xunit;

namespace ZEngine.Tests.Emulator;

/// <summary>
/// Scalar oracles per instruction form, written from the PTX ISA with big integers and exact rationals where rounding matters; run with all
/// lanes and with some, whose neighbours must keep their bits.
/// </summary>
public sealed class OpcodeTests
{
    private static readonly uint[] Edge32 =
    [
        0, 1, 2, 3, 5, 7, 31, 32, 33, 63, 64, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF,
        0x3F800000, 0xBF800000, 0x00800000, 0x00000001 << 22, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0x4B800000, 0x4F000000, 0x5F000000, 0x3EAAAAAB, 0x33800000,
    ];

    private static readonly ulong[] Edge64 =
    [
        0, 1, 2, 31, 32, 63, 64, 65, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFE,
        0x3FF0000000000000, 0xBFF0000000000000, 0x0010000000000000, 0x7FF0000000000000, 0x7FF8000000000000, 0x7FEFFFFFFFFFFFFF, 0x43E0000000000000, 0x3FD5555555555555,
    ];

    private static ulong[] Inputs(int bits, int count, int seed)
    {
        var random = new Random(seed);
        var values = new ulong[count];
        for (int k = 0; k < count; k++)
        {
            ulong any = (ulong)random.NextInt64(long.MinValue, long.MaxValue);
            int choice = random.Next(4);
            values[k] = bits == 64
                ? choice == 0 ? Edge64[random.Next(Edge64.Length)] : choice == 1 ? any >> random.Next(64) : any
                : choice == 0 ? Edge32[random.Next(Edge32.Length)] : choice == 1 ? (uint)any >> random.Next(32) : (uint)any;
            if (bits == 16) values[k] &= 0xFFFF;
        }
        return values;
    }

    private static string Register(string type) => type switch { "16" => "rs", "32" => "r", _ => "rd" };

    /// <summary>
    /// A module with one kernel: loads operands of 8 bytes per lane from consecutive arrays, executes the form where the lane's mask bit is
    /// set, and stores the destination, which began as a pattern.
    /// </summary>
    private static string Kernel(string form, int destinationBits, int[] sourceBits)
    {
        var text = new StringBuilder(".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test(.param .u64 in, .param .u64 out, .param .u32 mask, .param .u32 n)\n{\n");
        text.AppendLine(".reg .pred %p<4>; .reg .b16 %rs<10>; .reg .b32 %r<20>; .reg .b64 %rd<20>;");
        text.AppendLine("ld.param.u64 %rd10, [in]; ld.param.u64 %rd11, [out]; ld.param.u32 %r10, [mask]; ld.param.u32 %r11, [n];");
        text.AppendLine("mov.u32 %r12, %ctaid.x; mov.u32 %r13, %tid.x; shl.b32 %r14, %r12, 5; add.s32 %r14, %r14, %r13; mul.wide.u32 %rd12, %r14, 8; mul.wide.u32 %rd13, %r11, 8;");
        text.AppendLine("add.s64 %rd10, %rd10, %rd12; add.s64 %rd11, %rd11, %rd12; shr.u32 %r15, %r10, %r13; and.b32 %r15, %r15, 1; setp.eq.s32 %p1, %r15, 0;");
        for (int k = 0; k < sourceBits.Length; k++)
        {
            string prefix = Register(sourceBits[k].ToString(CultureInfo.InvariantCulture));
            text.AppendLine(CultureInfo.InvariantCulture, $"ld.global.u{sourceBits[k]} %{prefix}{k + 1}, [%rd10]; add.s64 %rd10, %rd10, %rd13;");
        }
        string d = Register(destinationBits.ToString(CultureInfo.InvariantCulture)) + "0";
        text.AppendLine(destinationBits == 64 ? "mov.u64 %rd0, 0x5A5A5A5A5A5A5A5A; add.s64 %rd0, %rd0, 0;" : destinationBits == 32 ? "mov.u32 %r0, 0x5A5A5A5A; add.s32 %r0, %r0, 0;" : "mov.u16 %rs0, 0x5A5A; and.b16 %rs0, %rs0, 0xFFFF;");
        text.AppendLine("@%p1 bra DONE;").AppendLine(form).AppendLine("DONE:");
        text.AppendLine(CultureInfo.InvariantCulture, $"st.global.u{destinationBits} [%rd11], %{d};").AppendLine("ret;\n}");
        return text.ToString();
    }

    private static void Verify(string form, int destinationBits, int[] sourceBits, Func<ulong[], ulong> oracle, int count = 2048)
    {
        using var machine = new Machine(new ModuleImage { Name = "opcode.ptx", Architecture = "sm_80", Ptx = Kernel(form, destinationBits, sourceBits) }, new EmulatorOptions { Checks = EmulatorChecks.None });
        ulong[][] columns = [.. sourceBits.Select((bits, k) => Inputs(bits, count, 100 + k))];
        DevicePointer input = machine.Upload<ulong>([.. columns.SelectMany(c => c)]);
        ulong pattern = destinationBits == 64 ? 0x5A5A5A5A5A5A5A5A : destinationBits == 32 ? 0x5A5A5A5Aul : 0x5A5Aul;
        foreach (uint mask in (uint[])[uint.MaxValue, 0x0F35A901])
        {
            DevicePointer output = machine.Upload(new ulong[count]);
            machine.Launch("test", new LaunchConfiguration(count / 32, 32), input, output, mask, count);
            ulong[] got = machine.Download<ulong>(output, count);
            for (int k = 0; k < count; k++)
            {
                ulong[] sources = [.. columns.Select(c => c[k])];
                ulong want = (mask >> (k & 31) & 1) != 0 ? oracle(sources) : pattern;
                // PTX leaves the payload of a double's NaN open, and so does the JIT's choice of operand order here.
                bool isSame = want == got[k] || form.Contains("f64 %rd0", StringComparison.Ordinal) && double.IsNaN(D(want)) && double.IsNaN(D(got[k]));
                Assert.True(isSame, $"{form} on {string.Join(", ", sources.Select(s => $"0x{s:X}"))}: got 0x{got[k]:X}, want 0x{want:X}, mask 0x{mask:x8}");
            }
        }
    }

    private static BigInteger S(ulong x, int bits) => bits == 64 ? (long)x : bits == 32 ? (int)(uint)x : (short)(ushort)x;

    private static ulong Low(BigInteger x, int bits) => (ulong)(x & ((BigInteger.One << bits) - 1));

    private static float F(ulong x) => BitConverter.UInt32BitsToSingle((uint)x);

    private static double D(ulong x) => BitConverter.UInt64BitsToDouble(x);

    private static ulong Bits(float x) => float.IsNaN(x) ? 0x7FFFFFFF : BitConverter.SingleToUInt32Bits(x);

    /// <summary>Integer forms: name, destination bits, source bits, and the definition over big integers.</summary>
    public static TheoryData<string> IntegerForms => [.. Integers.Keys];

    private static readonly Dictionary<string, (int Destination, int[] Sources, Func<ulong[], ulong> Oracle)> Integers = new()
    {
        ["add.s32 %r0, %r1, %r2;"] = (32, [32, 32], x => (uint)(x[0] + x[1])),
        ["add.s64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => x[0] + x[1]),
        ["add.u16 %rs0, %rs1, %rs2;"] = (16, [16, 16], x => (ushort)(x[0] + x[1])),
        ["add.cc.u32 %r5, %r1, %r2; addc.u32 %r0, %r3, %r4;"] = (32, [32, 32, 32, 32], x => (uint)(x[2] + x[3] + (x[0] + x[1] >> 32))),
        ["sub.cc.u32 %r5, %r1, %r2; subc.u32 %r0, %r3, %r4;"] = (32, [32, 32, 32, 32], x => (uint)(x[2] - x[3] - (x[0] < x[1] ? 1u : 0))),
        ["mad.lo.cc.u32 %r5, %r1, %r2, %r3; madc.hi.u32 %r0, %r1, %r2, %r4;"] = (32, [32, 32, 32, 32], x => Low((new BigInteger(x[0]) * x[1] + x[2] + (new BigInteger(x[3]) << 32)) >> 32, 32)),
        ["sub.s32 %r0, %r1, %r2;"] = (32, [32, 32], x => Low(S(x[0], 32) - S(x[1], 32), 32)),
        ["sub.s64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => x[0] - x[1]),
        ["mul.lo.s32 %r0, %r1, %r2;"] = (32, [32, 32], x => Low(S(x[0], 32) * S(x[1], 32), 32)),
        ["mul.lo.u64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => Low(new BigInteger(x[0]) * x[1], 64)),
        ["mul.hi.s32 %r0, %r1, %r2;"] = (32, [32, 32], x => Low(S(x[0], 32) * S(x[1], 32) >> 32, 32)),
        ["mul.hi.u32 %r0, %r1, %r2;"] = (32, [32, 32], x => x[0] * x[1] >> 32),
        ["mul.hi.u64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => Low(new BigInteger(x[0]) * x[1] >> 64, 64)),
        ["mul.hi.s64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => Low(S(x[0], 64) * S(x[1], 64) >> 64, 64)),
        ["mul.wide.s32 %rd0, %r1, %r2;"] = (64, [32, 32], x => Low(S(x[0], 32) * S(x[1], 32), 64)),
        ["mul.wide.u32 %rd0, %r1, %r2;"] = (64, [32, 32], x => x[0] * x[1]),
        ["mul.wide.u16 %r0, %rs1, %rs2;"] = (32, [16, 16], x => (uint)(x[0] * x[1])),
        ["mul.wide.s16 %r0, %rs1, %rs2;"] = (32, [16, 16], x => Low(S(x[0], 16) * S(x[1], 16), 32)),
        ["mad.lo.s32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => Low(S(x[0], 32) * S(x[1], 32) + S(x[2], 32), 32)),
        ["mad.lo.u64 %rd0, %rd1, %rd2, %rd3;"] = (64, [64, 64, 64], x => Low(new BigInteger(x[0]) * x[1] + x[2], 64)),
        ["mad.wide.u32 %rd0, %r1, %r2, %rd3;"] = (64, [32, 32, 64], x => x[0] * x[1] + x[2]),
        ["mad.wide.s32 %rd0, %r1, %r2, %rd3;"] = (64, [32, 32, 64], x => Low(S(x[0], 32) * S(x[1], 32) + S(x[2], 64), 64)),
        ["mad.hi.u32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => (uint)((x[0] * x[1] >> 32) + x[2])),
        ["div.s32 %r0, %r1, %r2;"] = (32, [32, 32], x => x[1] == 0 ? 0xFFFFFFFF : Low(BigInteger.Divide(S(x[0], 32), S(x[1], 32)), 32)),
        ["div.u64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => x[1] == 0 ? ulong.MaxValue : x[0] / x[1]),
        ["rem.u32 %r0, %r1, %r2;"] = (32, [32, 32], x => x[1] == 0 ? x[0] : x[0] % x[1]),
        ["rem.s64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => x[1] == 0 ? x[0] : Low(BigInteger.Remainder(S(x[0], 64), S(x[1], 64)), 64)),
        ["and.b32 %r0, %r1, %r2;"] = (32, [32, 32], x => x[0] & x[1]),
        ["or.b64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => x[0] | x[1]),
        ["xor.b16 %rs0, %rs1, %rs2;"] = (16, [16, 16], x => x[0] ^ x[1]),
        ["not.b16 %rs0, %rs1;"] = (16, [16], x => ~x[0] & 0xFFFF),
        ["not.b64 %rd0, %rd1;"] = (64, [64], x => ~x[0]),
        ["cnot.b32 %r0, %r1;"] = (32, [32], x => x[0] == 0 ? 1u : 0),
        ["lop3.b32 %r0, %r1, %r2, %r3, 0x96;"] = (32, [32, 32, 32], x => x[0] ^ x[1] ^ x[2]),
        ["lop3.b32 %r0, %r1, %r2, %r3, 0xCA;"] = (32, [32, 32, 32], x => x[0] & x[1] | ~x[0] & x[2] & 0xFFFFFFFF),
        ["shl.b32 %r0, %r1, %r2;"] = (32, [32, 32], x => x[1] > 31 ? 0 : Low(new BigInteger(x[0]) << (int)x[1], 32)),
        ["shr.u32 %r0, %r1, %r2;"] = (32, [32, 32], x => x[1] > 31 ? 0 : x[0] >> (int)x[1]),
        ["shr.s32 %r0, %r1, %r2;"] = (32, [32, 32], x => Low(S(x[0], 32) >> (int)Math.Min(x[1], 40), 32)),
        ["shl.b64 %rd0, %rd1, %r2;"] = (64, [64, 32], x => x[1] > 63 ? 0 : x[0] << (int)x[1]),
        ["shr.u64 %rd0, %rd1, %r2;"] = (64, [64, 32], x => x[1] > 63 ? 0 : x[0] >> (int)x[1]),
        ["shr.s64 %rd0, %rd1, %r2;"] = (64, [64, 32], x => Low(S(x[0], 64) >> (int)Math.Min(x[1], 70), 64)),
        ["shf.l.wrap.b32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => Low(new BigInteger(x[1] << 32 | x[0]) << (int)(x[2] & 31) >> 32, 32)),
        ["shf.r.wrap.b32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => (uint)((x[1] << 32 | x[0]) >> (int)(x[2] & 31))),
        ["shf.l.clamp.b32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => Low(new BigInteger(x[1] << 32 | x[0]) << (int)Math.Min(x[2], 32) >> 32, 32)),
        ["shf.r.clamp.b32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => (uint)((x[1] << 32 | x[0]) >> (int)Math.Min(x[2], 32))),
        ["min.s32 %r0, %r1, %r2;"] = (32, [32, 32], x => Low(BigInteger.Min(S(x[0], 32), S(x[1], 32)), 32)),
        ["max.u32 %r0, %r1, %r2;"] = (32, [32, 32], x => Math.Max(x[0], x[1])),
        ["max.s64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => Low(BigInteger.Max(S(x[0], 64), S(x[1], 64)), 64)),
        ["min.u64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => Math.Min(x[0], x[1])),
        ["neg.s32 %r0, %r1;"] = (32, [32], x => Low(-S(x[0], 32), 32)),
        ["neg.s64 %rd0, %rd1;"] = (64, [64], x => 0 - x[0]),
        ["abs.s32 %r0, %r1;"] = (32, [32], x => Low(BigInteger.Abs(S(x[0], 32)), 32)),
        ["popc.b32 %r0, %r1;"] = (32, [32], x => (ulong)Enumerable.Range(0, 32).Count(b => (x[0] >> b & 1) != 0)),
        ["popc.b64 %r0, %rd1;"] = (32, [64], x => (ulong)Enumerable.Range(0, 64).Count(b => (x[0] >> b & 1) != 0)),
        ["clz.b32 %r0, %r1;"] = (32, [32], x => (ulong)Enumerable.Range(0, 32).TakeWhile(b => (x[0] >> (31 - b) & 1) == 0).Count()),
        ["clz.b64 %r0, %rd1;"] = (32, [64], x => (ulong)Enumerable.Range(0, 64).TakeWhile(b => (x[0] >> (63 - b) & 1) == 0).Count()),
        ["brev.b32 %r0, %r1;"] = (32, [32], x => Enumerable.Range(0, 32).Aggregate(0ul, (r, b) => r | (x[0] >> b & 1) << (31 - b))),
        ["brev.b64 %rd0, %rd1;"] = (64, [64], x => Enumerable.Range(0, 64).Aggregate(0ul, (r, b) => r | (x[0] >> b & 1) << (63 - b))),
        ["bfind.u32 %r0, %r1;"] = (32, [32], x => x[0] == 0 ? 0xFFFFFFFF : (ulong)Enumerable.Range(0, 32).Last(b => (x[0] >> b & 1) != 0)),
        ["bfind.s32 %r0, %r1;"] = (32, [32], x => (x[0] >> 31 != 0 ? ~x[0] & 0xFFFFFFFF : x[0]) is var y && y == 0 ? 0xFFFFFFFF : (ulong)Enumerable.Range(0, 32).Last(b => (y >> b & 1) != 0)),
        ["bfind.shiftamt.u32 %r0, %r1;"] = (32, [32], x => x[0] == 0 ? 0xFFFFFFFF : (ulong)(31 - Enumerable.Range(0, 32).Last(b => (x[0] >> b & 1) != 0))),
        ["bfe.u32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => (x[1] & 255) is var p && (x[2] & 255) is var l && p < 32 ? Low((new BigInteger(x[0]) >> (int)p) & ((BigInteger.One << (int)l) - 1), 32) : 0),
        ["bfe.s32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => BfeSigned(x[0], (int)(x[1] & 255), (int)(x[2] & 255))),
        ["bfi.b32 %r0, %r1, %r2, %r3, %r4;"] = (32, [32, 32, 32, 32], x => (((BigInteger.One << (int)(x[3] & 255)) - 1) << (int)(x[2] & 255)) is var m ? Low((new BigInteger(x[1]) & ~m) | ((new BigInteger(x[0]) << (int)(x[2] & 255)) & m), 32) : 0),
        ["prmt.b32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => Enumerable.Range(0, 4).Aggregate(0ul, (r, k) => r | Prmt(x[1] << 32 | x[0], (int)(x[2] >> (4 * k)) & 15) << (8 * k))),
        ["sad.s32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => Low(BigInteger.Abs(S(x[0], 32) - S(x[1], 32)) + x[2], 32)),
        ["dp4a.s32.u32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => Low(Enumerable.Range(0, 4).Aggregate(new BigInteger(x[2]), (s, k) => s + (sbyte)(x[0] >> (8 * k)) * (int)(byte)(x[1] >> (8 * k))), 32)),
        ["mov.b32 %r0, {%rs1, %rs2};"] = (32, [16, 16], x => x[0] | x[1] << 16),
        ["mov.b64 %rd0, {%r1, %r2};"] = (64, [32, 32], x => x[0] | x[1] << 32),
        ["mov.b64 {%r5, %r0}, %rd1;"] = (32, [64], x => x[0] >> 32),
        ["mov.b32 {%rs0, %rs5}, %r1;"] = (16, [32], x => x[0] & 0xFFFF),
        ["setp.lt.s32 %p2, %r1, %r2; selp.b32 %r0, 7, 9, %p2;"] = (32, [32, 32], x => S(x[0], 32) < S(x[1], 32) ? 7u : 9),
        ["setp.hs.u32 %p2, %r1, %r2; selp.b32 %r0, %r1, %r2, %p2;"] = (32, [32, 32], x => Math.Max(x[0], x[1])),
        ["setp.gt.s64 %p2|%p3, %rd1, %rd2; selp.b64 %rd0, %rd2, %rd1, %p3;"] = (64, [64, 64], x => S(x[0], 64) > S(x[1], 64) ? x[0] : x[1]),
        ["setp.ne.s16 %p2, %rs1, %rs2; selp.b32 %r0, 1, 0, %p2;"] = (32, [16, 16], x => x[0] != x[1] ? 1u : 0),
        ["setp.lt.s32 %p2, %r1, 5; setp.gt.and.u32 %p3, %r1, %r2, !%p2; selp.b32 %r0, 1, 0, %p3;"] = (32, [32, 32], x => x[0] > x[1] && !(S(x[0], 32) < 5) ? 1u : 0),
        ["cvt.s64.s32 %rd0, %r1;"] = (64, [32], x => Low(S(x[0], 32), 64)),
        ["cvt.u64.u32 %rd0, %r1;"] = (64, [32], x => x[0]),
        ["cvt.u32.u64 %r0, %rd1;"] = (32, [64], x => (uint)x[0]),
        ["cvt.u32.u16 %r0, %rs1;"] = (32, [16], x => x[0]),
        ["cvt.s32.s16 %r0, %rs1;"] = (32, [16], x => Low(S(x[0], 16), 32)),
        ["cvt.s32.s8 %r0, %r1;"] = (32, [32], x => (uint)(sbyte)x[0]),
        ["cvt.u16.u32 %rs0, %r1;"] = (16, [32], x => x[0] & 0xFFFF),
        ["cvt.sat.u8.s32 %r0, %r1;"] = (32, [32], x => (ulong)BigInteger.Min(255, BigInteger.Max(0, S(x[0], 32)))),
        ["cvt.sat.s32.s64 %r0, %rd1;"] = (32, [64], x => Low(BigInteger.Min(int.MaxValue, BigInteger.Max(int.MinValue, S(x[0], 64))), 32)),
    };

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

    [Theory]
    [MemberData(nameof(IntegerForms))]
    public void Integer_form_equals_its_definition(string form) => Verify(form, Integers[form].Destination, Integers[form].Sources, Integers[form].Oracle);

    /// <summary>Float forms with their definitions.</summary>
    public static TheoryData<string> FloatForms => [.. FloatOracles.Keys];

    private static readonly Dictionary<string, (int Destination, int[] Sources, Func<ulong[], ulong> Oracle)> FloatOracles = new()
    {
        ["add.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => Bits(F(x[0]) + F(x[1]))),
        ["sub.rn.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => Bits(F(x[0]) - F(x[1]))),
        ["mul.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => Bits(F(x[0]) * F(x[1]))),
        ["mul.ftz.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => Bits(Ftz(Ftz(F(x[0])) * Ftz(F(x[1]))))),
        ["add.sat.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => (F(x[0]) + F(x[1])) is var s && float.IsNaN(s) || s <= 0 ? 0 : Bits(Math.Min(s, 1))),
        ["fma.rn.f32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => Bits(MathF.FusedMultiplyAdd(F(x[0]), F(x[1]), F(x[2])))),
        ["div.rn.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => Bits(F(x[0]) / F(x[1]))),
        ["sqrt.rn.f32 %r0, %r1;"] = (32, [32], x => Bits(MathF.Sqrt(F(x[0])))),
        ["rcp.rn.f32 %r0, %r1;"] = (32, [32], x => Bits(1 / F(x[0]))),
        ["add.rz.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => RoundSum(x[0], x[1], 0)),
        ["add.rm.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => RoundSum(x[0], x[1], -1)),
        ["add.rp.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => RoundSum(x[0], x[1], 1)),
        ["mul.rz.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => RoundProduct(x[0], x[1], 0)),
        ["fma.rm.f32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => RoundFma(x[0], x[1], x[2], -1)),
        ["fma.rz.f32 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => RoundFma(x[0], x[1], x[2], 0)),
        ["min.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => Bits(MinMax(F(x[0]), F(x[1]), true))),
        ["max.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => Bits(MinMax(F(x[0]), F(x[1]), false))),
        ["max.NaN.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => float.IsNaN(F(x[0])) || float.IsNaN(F(x[1])) ? 0x7FFFFFFF : Bits(MinMax(F(x[0]), F(x[1]), false))),
        ["neg.f32 %r0, %r1;"] = (32, [32], x => x[0] ^ 0x80000000),
        ["abs.f32 %r0, %r1;"] = (32, [32], x => x[0] & 0x7FFFFFFF),
        ["copysign.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => x[0] & 0x80000000 | x[1] & 0x7FFFFFFF),
        ["setp.lt.f32 %p2, %r1, %r2; selp.b32 %r0, 1, 0, %p2;"] = (32, [32, 32], x => F(x[0]) < F(x[1]) ? 1u : 0),
        ["setp.ne.f32 %p2, %r1, %r2; selp.b32 %r0, 1, 0, %p2;"] = (32, [32, 32], x => F(x[0]) < F(x[1]) || F(x[0]) > F(x[1]) ? 1u : 0),
        ["setp.neu.f32 %p2, %r1, %r2; selp.b32 %r0, 1, 0, %p2;"] = (32, [32, 32], x => F(x[0]) == F(x[1]) ? 0u : 1),
        ["setp.geu.f32 %p2, %r1, %r2; selp.b32 %r0, 1, 0, %p2;"] = (32, [32, 32], x => F(x[0]) < F(x[1]) ? 0u : 1),
        ["setp.equ.f32 %p2, %r1, %r2; selp.b32 %r0, 1, 0, %p2;"] = (32, [32, 32], x => F(x[0]) < F(x[1]) || F(x[0]) > F(x[1]) ? 0u : 1),
        ["setp.num.f32 %p2, %r1, %r2; selp.b32 %r0, 1, 0, %p2;"] = (32, [32, 32], x => float.IsNaN(F(x[0])) || float.IsNaN(F(x[1])) ? 0u : 1),
        ["setp.nan.f64 %p2, %rd1, %rd2; selp.b32 %r0, 1, 0, %p2;"] = (32, [64, 64], x => double.IsNaN(D(x[0])) || double.IsNaN(D(x[1])) ? 1u : 0),
        ["setp.le.f64 %p2, %rd1, %rd2; selp.b32 %r0, 1, 0, %p2;"] = (32, [64, 64], x => D(x[0]) <= D(x[1]) ? 1u : 0),
        ["cvt.rn.f32.s32 %r0, %r1;"] = (32, [32], x => Bits((float)(double)(int)x[0])),
        ["cvt.rn.f32.u32 %r0, %r1;"] = (32, [32], x => Bits((float)(double)(uint)x[0])),
        ["cvt.rn.f32.s64 %r0, %rd1;"] = (32, [64], x => Bits(Nearest(S(x[0], 64)))),
        ["cvt.rn.f32.u64 %r0, %rd1;"] = (32, [64], x => Bits(Nearest(x[0]))),
        ["cvt.rn.f64.s32 %rd0, %r1;"] = (64, [32], x => BitConverter.DoubleToUInt64Bits((int)x[0])),
        ["cvt.rzi.s32.f32 %r0, %r1;"] = (32, [32], x => ToInteger(F(x[0]), Math.Truncate, int.MinValue, int.MaxValue)),
        ["cvt.rni.s32.f32 %r0, %r1;"] = (32, [32], x => ToInteger(F(x[0]), v => Math.Round(v, MidpointRounding.ToEven), int.MinValue, int.MaxValue)),
        ["cvt.rmi.s32.f32 %r0, %r1;"] = (32, [32], x => ToInteger(F(x[0]), Math.Floor, int.MinValue, int.MaxValue)),
        ["cvt.rzi.u32.f32 %r0, %r1;"] = (32, [32], x => ToInteger(F(x[0]), Math.Truncate, 0, uint.MaxValue)),
        ["cvt.rmi.f32.f32 %r0, %r1;"] = (32, [32], x => Bits(MathF.Floor(F(x[0])))),
        ["cvt.rpi.f32.f32 %r0, %r1;"] = (32, [32], x => Bits(MathF.Ceiling(F(x[0])))),
        ["cvt.rzi.f32.f32 %r0, %r1;"] = (32, [32], x => Bits(MathF.Truncate(F(x[0])))),
        ["cvt.sat.f32.f32 %r0, %r1;"] = (32, [32], x => float.IsNaN(F(x[0])) || F(x[0]) <= 0 ? 0 : Bits(Math.Min(F(x[0]), 1))),
        ["cvt.rn.f32.f64 %r0, %rd1;"] = (32, [64], x => Bits((float)D(x[0]))),
        ["cvt.f64.f32 %rd0, %r1;"] = (64, [32], x => float.IsNaN(F(x[0])) ? BitConverter.DoubleToUInt64Bits((double)F(x[0])) : BitConverter.DoubleToUInt64Bits(F(x[0]))),
        ["cvt.rn.bf16.f32 %rs0, %r1;"] = (16, [32], x => NearestHalf(F(x[0]), 8, 127)),
        ["cvt.rn.f16.f32 %rs0, %r1;"] = (16, [32], x => NearestHalf(F(x[0]), 11, 15)),
        ["cvt.f32.f16 %r0, %rs1;"] = (32, [16], x => (x[0] & 0x7FFF) > 0x7C00 ? 0x7FFFFFFF : Bits((float)BitConverter.UInt16BitsToHalf((ushort)x[0]))),
        ["cvt.rn.bf16x2.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => NearestHalf(F(x[0]), 8, 127) << 16 | NearestHalf(F(x[1]), 8, 127)),
        ["cvt.rn.f16x2.f32 %r0, %r1, %r2;"] = (32, [32, 32], x => NearestHalf(F(x[0]), 11, 15) << 16 | NearestHalf(F(x[1]), 11, 15)),
        ["cvt.rna.tf32.f32 %r0, %r1;"] = (32, [32], x => float.IsNaN(F(x[0])) ? 0x7FFFFFFF : float.IsInfinity(F(x[0])) ? x[0] : (x[0] + 0x1000) & 0xFFFFE000),
        ["fma.rn.bf16x2 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => HalfFma(x, 0, 8, 127) | HalfFma(x, 16, 8, 127) << 16),
        ["fma.rn.f16x2 %r0, %r1, %r2, %r3;"] = (32, [32, 32, 32], x => HalfFma(x, 0, 11, 15) | HalfFma(x, 16, 11, 15) << 16),
        ["add.f64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => BitConverter.DoubleToUInt64Bits(D(x[0]) + D(x[1]))),
        ["mul.f64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => BitConverter.DoubleToUInt64Bits(D(x[0]) * D(x[1]))),
        ["fma.rn.f64 %rd0, %rd1, %rd2, %rd3;"] = (64, [64, 64, 64], x => BitConverter.DoubleToUInt64Bits(Math.FusedMultiplyAdd(D(x[0]), D(x[1]), D(x[2])))),
        ["div.rn.f64 %rd0, %rd1, %rd2;"] = (64, [64, 64], x => BitConverter.DoubleToUInt64Bits(D(x[0]) / D(x[1]))),
        ["sqrt.rn.f64 %rd0, %rd1;"] = (64, [64], x => BitConverter.DoubleToUInt64Bits(Math.Sqrt(D(x[0])))),
    };

    [Theory]
    [MemberData(nameof(FloatForms))]
    public void Float_form_equals_its_definition(string form) => Verify(form, FloatOracles[form].Destination, FloatOracles[form].Sources, FloatOracles[form].Oracle);

    // ---- Oracles of rounding: exact numbers as integer times a power of two -----------------------------------------------------------------

    private static float Ftz(float x) => float.IsSubnormal(x) ? x < 0 ? -0f : 0f : x;

    private static float MinMax(float a, float b, bool isMin)
    {
        if (float.IsNaN(a)) return b;
        if (float.IsNaN(b)) return a;
        if (a == 0 && b == 0) return float.IsNegative(a) == isMin ? a : b;
        return a < b == isMin ? a : b;
    }

    private const int Scale = 400;

    /// <summary>A finite float times 2^400, exactly.</summary>
    private static BigInteger Exact(ulong bits)
    {
        int exponent = (int)(bits >> 23 & 255);
        BigInteger fraction = bits & 0x7FFFFF;
        BigInteger magnitude = exponent == 0 ? fraction << (Scale - 149) : (fraction | 0x800000) << (Scale - 150 + exponent);
        return (bits >> 31 & 1) != 0 ? -magnitude : magnitude;
    }

    private static bool IsFinite(ulong bits) => (bits & 0x7F800000) != 0x7F800000;

    private static bool IsNegative(ulong bits) => (bits >> 31 & 1) != 0;

    private static ulong RoundSum(ulong a, ulong b, int direction) =>
        IsFinite(a) && IsFinite(b) ? RoundExact(Exact(a) + Exact(b), Scale, direction, IsNegative(a), IsNegative(b)) : Bits(F(a) + F(b));

    private static ulong RoundProduct(ulong a, ulong b, int direction)
    {
        bool isNegative = IsNegative(a) != IsNegative(b);
        return IsFinite(a) && IsFinite(b) ? RoundExact(Exact(a) * Exact(b), 2 * Scale, direction, isNegative, isNegative) : Bits(F(a) * F(b));
    }

    private static ulong RoundFma(ulong a, ulong b, ulong c, int direction) =>
        IsFinite(a) && IsFinite(b) && IsFinite(c)
            ? RoundExact(Exact(a) * Exact(b) + (Exact(c) << Scale), 2 * Scale, direction, IsNegative(a) != IsNegative(b), IsNegative(c))
            : Bits(MathF.FusedMultiplyAdd(F(a), F(b), F(c)));

    /// <summary>
    /// The float next to an exact number toward minus infinity (-1), zero (0) or plus infinity (1). A zero has the sign of its addends when
    /// they agree, else it is negative only when rounding down.
    /// </summary>
    private static ulong RoundExact(BigInteger exact, int scale, int direction, bool firstIsNegative, bool secondIsNegative)
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

    private static float Nearest(BigInteger value)
    {
        BigInteger magnitude = BigInteger.Abs(value);
        int drop = Math.Max(0, (int)magnitude.GetBitLength() - 24);
        BigInteger kept = magnitude >> drop, rest = magnitude - (kept << drop), half = drop == 0 ? 1 : BigInteger.One << (drop - 1);
        if (drop > 0 && (rest > half || rest == half && !kept.IsEven)) kept++;
        double result = Math.ScaleB((double)kept, drop);
        return (float)(value.Sign < 0 ? -result : result);
    }

    private static ulong ToInteger(float value, Func<double, double> round, double low, double high) =>
        float.IsNaN(value) ? 0 : (uint)(long)Math.Clamp(round(value), low, high);

    /// <summary>A float rounded once to a 16-bit format with so many significant bits, ties to even.</summary>
    private static ulong NearestHalf(float value, int digits, int bias) => NearestHalf(Exact(BitConverter.SingleToUInt32Bits(value)), Scale, float.IsNegative(value), value, digits, bias);

    private static ulong NearestHalf(BigInteger exact, int scale, bool isNegative, double special, int digits, int bias)
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

    private static ulong HalfFma(ulong[] x, int shift, int digits, int bias)
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
