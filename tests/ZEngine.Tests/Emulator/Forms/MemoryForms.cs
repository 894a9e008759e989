using System.Runtime.InteropServices;
using System.Text;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>
/// Loads and stores of every memory, width and vector length: addresses in sequence, scattered and all the same, into registers as wide as
/// the element and wider, against bytes taken one by one.
/// </summary>
internal sealed class MemoryForms : IOracleTable
{
    private const int Bytes = 2048, LocalBytes = 256, Offset = 16;
    private const uint Pattern = 0x5A5A5A5A;

    private static readonly string[] Types = ["b8", "u8", "s8", "b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64"];

    /// <summary>Memories by the name in the form and the window a generic address points into, with their qualifiers.</summary>
    private static readonly (string Space, string Window, string[] Loads, string[] Stores)[] Memories =
    [
        (".global", "global",
            ["", ".ca", ".cg", ".cs", ".lu", ".cv", ".nc", ".nc.L1::no_allocate", ".nc.L1::no_allocate.L2::128B", ".nc.L2::128B", ".L1::no_allocate", ".volatile", ".relaxed.gpu", ".relaxed.sys", ".relaxed.cta", ".acquire.gpu", ".acquire.sys", ".acquire.cta", ".weak"],
            ["", ".wb", ".cg", ".cs", ".wt", ".L1::no_allocate", ".volatile", ".relaxed.gpu", ".relaxed.sys", ".relaxed.cta", ".release.gpu", ".release.sys", ".release.cta", ".weak"]),
        (".shared", "shared", ["", ".volatile"], ["", ".volatile"]),
        (".shared::cta", "shared", [""], [""]),
        (".local", "local", [""], [""]),
        (".const", "const", [""], []),
        (".param", "param", [""], []),
        ("", "global", ["", ".volatile"], ["", ".volatile"]),
        ("", "shared", ["", ".volatile"], ["", ".volatile"]),
        ("", "local", [""], [""]),
    ];

    public IEnumerable<Oracle> Oracles =>
    [
        .. from memory in Memories
           from load in (bool[])[true, false]
           from qualifier in load ? memory.Loads : memory.Stores
           from type in Types
           from vector in (int[])[1, 2, 4]
           where vector * Size(type) <= 16
           select Of(memory.Space, memory.Window, qualifier, type, vector, load),
    ];

    private static int Size(string type) => int.Parse(type.AsSpan(1), System.Globalization.CultureInfo.InvariantCulture) / 8;

    private static Oracle Of(string space, string window, string qualifier, string type, int vector, bool isLoad)
    {
        // Orders and volatile come before the memory, hints about caches after it.
        string word = qualifier.Split('.', StringSplitOptions.RemoveEmptyEntries).FirstOrDefault("");
        bool isBefore = word is "volatile" or "relaxed" or "acquire" or "release" or "weak";
        string form = (isLoad ? "ld" : "st") + (isBefore ? qualifier + space : space + qualifier) + (vector > 1 ? $".v{vector}" : "") + "." + type;
        return new Oracle($"{form} to {window}", [form], (options, isQuick) =>
        {
            if (isLoad) foreach (int register in Registers(type)) Load(options, form, window, type, vector, register, isQuick);
            else Store(options, form, window, type, vector, isQuick);
        });
    }

    // A destination may be wider than what is loaded.
    private static int[] Registers(string type) => Size(type) switch { 1 => [16, 32], 2 => [16, 32], 4 => [32, 64], _ => [64] };

    private static uint[] Offsets(int kind, int step, int limit) =>
        [.. Enumerable.Range(0, 32).Select(lane => (uint)(kind switch { 0 => lane * step, 1 => (31 - lane) * 7 % 32 * step, _ => step } % (limit - 64) / step * step))];

    private static string Head(string window, string more) =>
        ".version 8.4\n.target sm_80\n.address_size 64\n"
        + (window == "const" ? $".const .align 16 .b8 cm[{Bytes}] = {{{string.Join(", ", Data)}}};\n" : "")
        + $".visible .entry test(.param .u64 in, .param .u64 out, .param .u64 offsets, .param .u32 mask{more})\n{{\n"
        + ".reg .pred %p<4>; .reg .b16 %h<8>; .reg .b32 %r<40>; .reg .b64 %d<8>; .reg .b64 %rd<20>;\n"
        + (window == "shared" ? $".shared .align 16 .b8 sm[{Bytes}];\n" : window == "local" ? $".local .align 16 .b8 lm[{LocalBytes}];\n" : "")
        + "ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; ld.param.u64 %rd3, [offsets]; ld.param.u32 %r1, [mask];\n"
        + "mov.u32 %r2, %tid.x; mul.wide.u32 %rd4, %r2, 4; add.s64 %rd5, %rd3, %rd4; ld.global.u32 %r3, [%rd5]; cvt.u64.u32 %rd6, %r3;\n"
        + "shr.u32 %r4, %r1, %r2; and.b32 %r4, %r4, 1; setp.eq.s32 %p1, %r4, 0;\n";

    private static readonly byte[] Data = MakeData();

    private static byte[] MakeData()
    {
        var data = new byte[Bytes];
        new Random(5).NextBytes(data);
        return data;
    }

    // The memory filled from the input, and the lane's address in %rd8, or %r5 for shared.
    private static string Fill(string window, bool isGeneric)
    {
        var text = new StringBuilder();
        switch (window)
        {
            case "global": return "";
            case "shared":
                text.AppendLine("mul.wide.u32 %rd10, %r2, 64; add.s64 %rd11, %rd1, %rd10; mov.u32 %r6, sm; cvt.u32.u64 %r7, %rd10; add.s32 %r7, %r7, %r6;");
                for (int k = 0; k < 16; k++) text.AppendLine($"ld.global.u32 %r8, [%rd11+{4 * k}]; st.shared.u32 [%r7+{4 * k}], %r8;");
                text.AppendLine("bar.warp.sync 0xffffffff; add.s32 %r5, %r6, %r3;");
                if (isGeneric) text.AppendLine("mov.u64 %rd12, sm; cvta.shared.u64 %rd12, %rd12; add.s64 %rd8, %rd12, %rd6;");
                return text.ToString();
            case "local":
                text.AppendLine("mov.u64 %rd12, lm; add.s64 %rd8, %rd12, %rd6;");
                for (int k = 0; k < LocalBytes / 4; k++) text.AppendLine($"ld.global.u32 %r8, [%rd1+{4 * k}]; st.local.u32 [lm+{4 * k}], %r8;");
                if (isGeneric) text.AppendLine("cvta.local.u64 %rd12, %rd12; add.s64 %rd8, %rd12, %rd6;");
                return text.ToString();
            case "const": return "mov.u64 %rd12, cm; add.s64 %rd8, %rd12, %rd6;\n";
            default: return "";
        }
    }

    private static string Address(string window, bool isGeneric) => window switch { "param" => $"[block+{Offset}]", "shared" when !isGeneric => "[%r5]", "global" => "[%rd9]", _ => "[%rd8]" };

    private static bool IsGeneric(string form, string window) => window is "shared" or "local" && !form.Contains("." + window, StringComparison.Ordinal);

    private static void Load(EmulatorOptions options, string form, string window, string type, int vector, int register, bool isQuick)
    {
        int size = Size(type), limit = window == "local" ? LocalBytes : Bytes;
        char prefix = register == 64 ? 'd' : register == 32 ? 'e' : 'h';
        string names = string.Join(", ", Enumerable.Range(0, vector).Select(k => Name(prefix, k)));
        var text = new StringBuilder(Head(window, window == "param" ? $", .param .align 16 .b8 block[{Bytes}]" : ""));
        text.Append(Fill(window, IsGeneric(form, window))).AppendLine("add.s64 %rd9, %rd1, %rd6; mul.wide.u32 %rd10, %r2, 32; add.s64 %rd11, %rd2, %rd10;");
        for (int k = 0; k < vector; k++) text.AppendLine(register == 64 ? $"mov.u64 %d{k}, 0x5A5A5A5A5A5A5A5A; add.s64 %d{k}, %d{k}, 0;" : register == 32 ? $"mov.u32 {Name(prefix, k)}, {Pattern}; add.s32 {Name(prefix, k)}, {Name(prefix, k)}, 0;" : $"mov.u16 %h{k}, 0x5A5A; and.b16 %h{k}, %h{k}, 0xFFFF;");
        text.AppendLine("@%p1 bra DONE;").AppendLine($"{form} {(vector > 1 ? $"{{{names}}}" : names)}, {Address(window, IsGeneric(form, window))};").AppendLine("DONE:");
        for (int k = 0; k < vector; k++) text.AppendLine($"st.global.b{register} [%rd11+{8 * k}], {Name(prefix, k)};");
        text.AppendLine("ret;\n}");
        using var machine = new Machine(new ModuleImage { Name = "load.ptx", Architecture = "sm_80", Ptx = text.ToString() }, options);
        DevicePointer input = machine.Upload(Data);
        for (int kind = 0; kind < (isQuick ? 2 : 3); kind++)
        {
            uint[] offsets = Offsets(kind, size * vector, limit);
            foreach (uint mask in (uint[])[uint.MaxValue, 0x0F35A901])
            {
                DevicePointer output = machine.Upload(new byte[1024]);
                object[] arguments = [input, output, machine.Upload(offsets), mask, .. window == "param" ? (object[])[Data] : []];
                machine.Launch("test", new LaunchConfiguration(1, 32), arguments);
                byte[] got = machine.Download<byte>(output, 1024);
                for (int lane = 0; lane < 32; lane++)
                {
                    for (int k = 0; k < vector; k++)
                    {
                        int from = (window == "param" ? Offset : (int)offsets[lane]) + k * size;
                        ulong want = (mask >> lane & 1) == 0 ? 0x5A5A5A5A5A5A5A5A : Extended(from, size, type[0] == 's');
                        want &= ulong.MaxValue >> (64 - register);
                        ulong have = MemoryMarshal.Read<ulong>(got.AsSpan(32 * lane + 8 * k)) & ulong.MaxValue >> (64 - register);
                        Assert.True(want == have, $"{form} of {window} into {register} bits, pattern {kind}, mask 0x{mask:x8}, lane {lane} element {k}: got 0x{have:X}, want 0x{want:X}");
                    }
                }
            }
        }
    }

    private static string Name(char prefix, int k) => prefix == 'e' ? $"%r{30 + k}" : $"%{prefix}{k}";

    private static ulong Extended(int from, int size, bool isSigned)
    {
        ulong value = 0;
        for (int b = 0; b < size; b++) value |= (ulong)Data[from + b] << (8 * b);
        bool isNegative = isSigned && (value >> (8 * size - 1) & 1) != 0;
        return isNegative && size < 8 ? value | ulong.MaxValue << (8 * size) : value;
    }

    // What a lane stores is its part of the input; what is in memory then is dumped whole.
    private static void Store(EmulatorOptions options, string form, string window, string type, int vector, bool isQuick)
    {
        int size = Size(type), register = Math.Max(16, 8 * size), limit = window == "local" ? LocalBytes : Bytes;
        char prefix = register == 64 ? 'd' : register == 32 ? 'e' : 'h';
        string names = string.Join(", ", Enumerable.Range(0, vector).Select(k => Name(prefix, k)));
        var text = new StringBuilder(Head(window, ""));
        text.Append(Fill(window, IsGeneric(form, window))).AppendLine("mul.wide.u32 %rd10, %r2, 32; add.s64 %rd11, %rd1, %rd10;");
        for (int k = 0; k < vector; k++) text.AppendLine($"ld.global.b{register} {Name(prefix, k)}, [%rd11+{8 * k}];");
        text.AppendLine("add.s64 %rd9, %rd2, %rd6;").AppendLine("@%p1 bra DONE;").AppendLine($"{form} {Address(window, IsGeneric(form, window))}, {(vector > 1 ? $"{{{names}}}" : names)};").AppendLine("DONE:");
        if (window == "shared")
        {
            text.AppendLine("bar.warp.sync 0xffffffff; mul.wide.u32 %rd10, %r2, 64; add.s64 %rd11, %rd2, %rd10;");
            for (int k = 0; k < 16; k++) text.AppendLine($"ld.shared.u32 %r8, [%r7+{4 * k}]; st.global.u32 [%rd11+{4 * k}], %r8;");
        }
        else if (window == "local")
        {
            text.AppendLine($"mul.wide.u32 %rd10, %r2, {LocalBytes}; add.s64 %rd11, %rd2, %rd10;");
            for (int k = 0; k < LocalBytes / 4; k++) text.AppendLine($"ld.local.u32 %r8, [lm+{4 * k}]; st.global.u32 [%rd11+{4 * k}], %r8;");
        }
        text.AppendLine("ret;\n}");
        using var machine = new Machine(new ModuleImage { Name = "store.ptx", Architecture = "sm_80", Ptx = text.ToString() }, options);
        DevicePointer input = machine.Upload(Data);
        int total = window == "local" ? 32 * LocalBytes : Bytes;
        // All lanes to one place store in an order of their own: only scattered and sequential addresses.
        for (int kind = 0; kind < 2; kind++)
        {
            uint[] offsets = Offsets(kind, size * vector, limit);
            if (window != "local" && offsets.Distinct().Count() != 32) continue;
            foreach (uint mask in (uint[])[uint.MaxValue, 0x0F35A901])
            {
                byte[] want = window == "global" ? [.. Enumerable.Repeat((byte)0x5A, total)] : window == "shared" ? [.. Data] : [.. Enumerable.Range(0, total).Select(k => Data[k % LocalBytes])];
                DevicePointer output = machine.Upload(window == "global" ? want : new byte[total]);
                machine.Launch("test", new LaunchConfiguration(1, 32), input, output, machine.Upload(offsets), mask);
                for (int lane = 0; lane < 32; lane++)
                    for (int k = 0; k < vector && (mask >> lane & 1) != 0; k++)
                        for (int b = 0; b < size; b++) want[(window == "local" ? lane * LocalBytes : 0) + (int)offsets[lane] + k * size + b] = Data[32 * lane + 8 * k + b];
                byte[] got = machine.Download<byte>(output, total);
                int wrong = want.AsSpan().CommonPrefixLength(got);
                Assert.True(wrong == total, $"{form} to {window}, pattern {kind}, mask 0x{mask:x8}: byte {wrong} differs");
            }
        }
    }
}
