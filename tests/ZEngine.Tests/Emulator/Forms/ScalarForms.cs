using System.Globalization;
using System.Numerics;
using System.Text;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>
/// Forms that compute one register from others: run on edge cases and random bits, with all lanes and with some, whose neighbours must keep
/// their bits.
/// </summary>
internal static class ScalarForms
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

    private static string Register(string type) => type switch { "1" => "p", "16" => "rs", "32" => "r", _ => "rd" };

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
        text.AppendLine(destinationBits == 1 ? "add.u32 %r16, %r12, %r13; and.b32 %r16, %r16, 1; setp.eq.u32 %p0, %r16, 1;" : destinationBits == 64 ? "mov.u64 %rd0, 0x5A5A5A5A5A5A5A5A; add.s64 %rd0, %rd0, 0;" : destinationBits == 32 ? "mov.u32 %r0, 0x5A5A5A5A; add.s32 %r0, %r0, 0;" : "mov.u16 %rs0, 0x5A5A; and.b16 %rs0, %rs0, 0xFFFF;");
        text.AppendLine("@%p1 bra DONE;").AppendLine(form).AppendLine("DONE:");
        text.AppendLine(destinationBits == 1 ? "selp.b32 %r17, 1, 0, %p0; st.global.u32 [%rd11], %r17;" : $"st.global.u{destinationBits} [%rd11], %{d};").AppendLine("ret;\n}");
        return text.ToString();
    }

    /// <summary>The oracle of a piece of PTX that computes %p0, %rs0, %r0 or %rd0 from %rs1.., %r1.. or %rd1...</summary>
    /// <param name="ptx">The instruction, or a few.</param>
    /// <param name="destinationBits">Width of the result; 1 for a predicate.</param>
    /// <param name="sourceBits">Widths of the sources.</param>
    /// <param name="definition">The result's bits from the sources' bits.</param>
    /// <param name="accepts">Whether a result may stand for the defined one, where the definition leaves room.</param>
    public static Oracle Oracle(string ptx, int destinationBits, int[] sourceBits, Func<ulong[], ulong> definition, Func<ulong, ulong, bool>? accepts = null) =>
        new(ptx, OracleTables.FormsOf(ptx), (options, isQuick) => Verify(options, ptx, destinationBits, sourceBits, definition, accepts, isQuick ? 256 : 1024));

    private static void Verify(EmulatorOptions options, string ptx, int destinationBits, int[] sourceBits, Func<ulong[], ulong> definition, Func<ulong, ulong, bool>? accepts, int count)
    {
        using var machine = new Machine(new ModuleImage { Name = "form.ptx", Architecture = "sm_80", Ptx = Kernel(ptx, destinationBits, sourceBits) }, options);
        ulong[][] columns = [.. sourceBits.Select((bits, k) => Inputs(bits, count, 100 + k))];
        DevicePointer input = machine.Upload<ulong>([.. columns.SelectMany(c => c)]);
        ulong pattern = destinationBits == 1 ? 0 : destinationBits == 64 ? 0x5A5A5A5A5A5A5A5A : destinationBits == 32 ? 0x5A5A5A5Aul : 0x5A5Aul;
        ulong[] sources = new ulong[columns.Length];
        foreach (uint mask in (uint[])[uint.MaxValue, 0x0F35A901])
        {
            DevicePointer output = machine.Upload(new ulong[count]);
            machine.Launch("test", new LaunchConfiguration(count / 32, 32), input, output, mask, count);
            ulong[] got = machine.Download<ulong>(output, count);
            for (int k = 0; k < count; k++)
            {
                for (int c = 0; c < columns.Length; c++) sources[c] = columns[c][k];
                ulong want = (mask >> (k & 31) & 1) != 0 ? definition(sources) : destinationBits == 1 ? (ulong)(k / 32 + k % 32 & 1) : pattern;
                if (want == got[k] || accepts is not null && accepts(want, got[k])) continue;
                Assert.Fail($"{ptx} on {string.Join(", ", sources.Select(s => $"0x{s:X}"))}: got 0x{got[k]:X}, want 0x{want:X}, mask 0x{mask:x8}");
            }
        }
    }
}
