using System.Numerics;
using System.Text;
using ZEngine.Emulator;
using ZEngine.Interop;
using static ZEngine.Tests.Emulator.Forms.Definition;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>
/// atom and red, of every operation, type, memory and order: each lane on a word of its own, and many lanes on few words, where the results
/// must be those of the lanes one after the other in ascending order, as they act without an adversary.
/// </summary>
internal sealed class AtomicForms : IOracleTable
{
    private delegate ulong Operation(ulong old, ulong b, ulong c, bool isShared);

    private static readonly string[] Orders = ["", ".relaxed.gpu", ".acquire.gpu", ".release.gpu", ".acq_rel.gpu", ".relaxed.cta", ".acq_rel.cta", ".relaxed.sys", ".acq_rel.sys", ".release.sys", ".acquire.cta", ".release.cta", ".acquire.sys"];

    public IEnumerable<Oracle> Oracles
    {
        get
        {
            foreach ((string name, int bits, Operation operation) in Operations())
            {
                foreach ((string space, string window) in ((string, string)[])[(".global", "global"), (".shared", "shared"), (".shared::cta", "shared"), ("", "global"), ("", "shared")])
                {
                    foreach (string order in space == ".global" || space == "" && window == "global" ? Orders : [""])
                    {
                        yield return Of($"atom{order}{space}.{name}", window, bits, operation, true);
                        bool isReduction = !name.StartsWith("cas", StringComparison.Ordinal) && !name.StartsWith("exch", StringComparison.Ordinal) && !order.Contains("acq", StringComparison.Ordinal);
                        if (isReduction) yield return Of($"red{order}{space}.{name}", window, bits, operation, false);
                    }
                }
            }
        }
    }

    private static IEnumerable<(string, int, Operation)> Operations()
    {
        foreach ((string type, char kind, int bits) in ((string, char, int)[])[("u32", 'u', 32), ("s32", 's', 32), ("u64", 'u', 64), ("s64", 's', 64)])
        {
            if (type != "s64") yield return ($"add.{type}", bits, (old, b, _, _) => Low((BigInteger)old + b, bits));
            yield return ($"min.{type}", bits, (old, b, _, _) => Low(BigInteger.Min(Integer(old, kind, bits), Integer(b, kind, bits)), bits));
            yield return ($"max.{type}", bits, (old, b, _, _) => Low(BigInteger.Max(Integer(old, kind, bits), Integer(b, kind, bits)), bits));
        }
        foreach (int bits in (int[])[32, 64])
        {
            yield return ($"and.b{bits}", bits, (old, b, _, _) => old & b);
            yield return ($"or.b{bits}", bits, (old, b, _, _) => old | b);
            yield return ($"xor.b{bits}", bits, (old, b, _, _) => old ^ b);
            yield return ($"exch.b{bits}", bits, (_, b, _, _) => b);
            yield return ($"cas.b{bits}", bits, (old, b, c, _) => old == b ? c : old);
        }
        yield return ("cas.b16", 16, (old, b, c, _) => old == b ? c : old);
        yield return ("inc.u32", 32, (old, b, _, _) => old >= b ? 0 : old + 1);
        yield return ("dec.u32", 32, (old, b, _, _) => old == 0 || old > b ? b : old - 1);
        // Subnormals become zero in global memory, and stay in shared memory.
        yield return ("add.f32", 32, (old, b, _, isShared) => isShared ? Bits(F(old) + F(b)) : Bits(Ftz(Ftz(F(old)) + Ftz(F(b)))));
        yield return ("add.f64", 64, (old, b, _, _) => Bits(D(old) + D(b)));
        foreach ((string type, int digits, int bias, ulong one) in ((string, int, int, ulong)[])[("f16", 11, 15, 0x3C00), ("bf16", 8, 127, 0x3F80)])
        {
            ulong Add(ulong x, ulong y) => HalfFma([x & 0xFFFF, one, y & 0xFFFF], 0, digits, bias);
            yield return ($"add.noftz.{type}", 16, (old, b, _, _) => Add(old, b));
            yield return ($"add.noftz.{type}x2", 32, (old, b, _, _) => Add(old, b) | Add(old >> 16, b >> 16) << 16);
        }
    }

    private static Oracle Of(string form, string window, int bits, Operation operation, bool hasResult)
    {
        return new Oracle($"{form} to {window}", [form], (options, isQuick) =>
        {
            bool isGeneric = !form.Contains(".global", StringComparison.Ordinal) && !form.Contains(".shared", StringComparison.Ordinal), isShared = window == "shared", isCas = form.Contains(".cas.", StringComparison.Ordinal);
            char r = bits == 64 ? 'd' : bits == 32 ? 'r' : 'h';
            string address = isShared && !isGeneric ? "%a5" : "%rd9";
            var text = new StringBuilder(".version 8.4\n.target sm_90\n.address_size 64\n.visible .entry test(.param .u64 mem, .param .u64 in, .param .u64 out, .param .u64 offsets, .param .u32 mask)\n{\n");
            text.AppendLine(".reg .pred %p<3>; .reg .b16 %h<8>; .reg .b32 %r<8>; .reg .b32 %a<10>; .reg .b64 %d<8>; .reg .b64 %rd<20>; .shared .align 16 .b8 sm[256];");
            text.AppendLine("ld.param.u64 %rd1, [mem]; ld.param.u64 %rd2, [in]; ld.param.u64 %rd3, [out]; ld.param.u64 %rd4, [offsets]; ld.param.u32 %a1, [mask]; mov.u32 %a2, %tid.x; mul.wide.u32 %rd5, %a2, 16; add.s64 %rd2, %rd2, %rd5;");
            text.AppendLine($"ld.global.b{bits} %{r}1, [%rd2]; ld.global.b{bits} %{r}2, [%rd2+8]; mul.wide.u32 %rd6, %a2, 8; add.s64 %rd3, %rd3, %rd6; mul.wide.u32 %rd7, %a2, 4; add.s64 %rd4, %rd4, %rd7; ld.global.u32 %a3, [%rd4]; cvt.u64.u32 %rd8, %a3; add.s64 %rd9, %rd1, %rd8;");
            if (isShared) text.AppendLine("add.s64 %rd10, %rd1, %rd6; ld.global.u64 %rd11, [%rd10]; mov.u32 %a4, sm; shl.b32 %a6, %a2, 3; add.s32 %a6, %a6, %a4; st.shared.u64 [%a6], %rd11; bar.warp.sync 0xffffffff; add.s32 %a5, %a4, %a3; mov.u64 %rd12, sm; cvta.shared.u64 %rd12, %rd12; add.s64 %rd9, %rd12, %rd8;");
            text.AppendLine(bits == 64 ? "mov.u64 %d0, 77; add.s64 %d0, %d0, 0;" : bits == 32 ? "mov.u32 %r0, 77; add.s32 %r0, %r0, 0;" : "mov.u16 %h0, 77; and.b16 %h0, %h0, 0xFFFF;");
            text.AppendLine("shr.u32 %a7, %a1, %a2; and.b32 %a7, %a7, 1; setp.eq.s32 %p1, %a7, 0;").AppendLine("@%p1 bra DONE;");
            text.AppendLine($"{form} {(hasResult ? $"%{r}0, " : "")}[{address}], %{r}1{(isCas ? $", %{r}2" : "")};").AppendLine("DONE:").AppendLine($"st.global.b{bits} [%rd3], %{r}0;");
            if (isShared) text.AppendLine("bar.warp.sync 0xffffffff; ld.shared.u64 %rd11, [%a6]; st.global.u64 [%rd10], %rd11;");
            text.AppendLine("ret;\n}");
            using var machine = new Machine(new ModuleImage { Name = "atomic.ptx", Architecture = "sm_90", Ptx = text.ToString() }, options with { Architecture = 90 });
            int bytes = bits / 8;
            ulong all = ulong.MaxValue >> (64 - bits);
            foreach (int words in isQuick ? (int[])[32, 3] : [32, 3, 1])
            {
                foreach ((uint mask, int seed) in ((uint, int)[])[(uint.MaxValue, 3), (uint.MaxValue, 4), (0x0F35A901, 5)])
                {
                    ulong[] memory = Operands(form, bits, 32, seed), b = Operands(form, bits, 32, 7 - seed), c = Operands(form, bits, 32, 9);
                    if (isCas) for (int lane = 0; lane < 32; lane += 2) b[lane] = memory[lane % words];
                    byte[] image = new byte[256];
                    for (int k = 0; k < 32; k++) BitConverter.GetBytes(memory[k]).AsSpan(0, bytes).CopyTo(image.AsSpan(k * bytes));
                    DevicePointer pm = machine.Upload(image), po = machine.Upload(new ulong[32]);
                    machine.Launch("test", new LaunchConfiguration(1, 32), pm, machine.Upload<ulong>([.. Enumerable.Range(0, 32).SelectMany(k => (ulong[])[b[k], c[k]])]), po, machine.Upload<uint>([.. Enumerable.Range(0, 32).Select(k => (uint)(k % words * bytes))]), mask);
                    byte[] after = machine.Download<byte>(pm, 256);
                    ulong[] results = machine.Download<ulong>(po, 32);
                    for (int lane = 0; lane < 32; lane++)
                    {
                        ulong want = 77, at = memory[lane % words];
                        if ((mask >> lane & 1) != 0)
                        {
                            if (hasResult) want = at;
                            memory[lane % words] = operation(at, b[lane], c[lane], isShared) & all;
                        }
                        Assert.True(Same(form, bits, want, results[lane] & all), $"{form} to {window}, {words} words, mask 0x{mask:x8}, lane {lane}: returned 0x{results[lane]:X}, want 0x{want:X}");
                    }
                    for (int k = 0; k < 32; k++)
                    {
                        ulong got = 0;
                        for (int i = 0; i < bytes; i++) got |= (ulong)after[k * bytes + i] << (8 * i);
                        Assert.True(Same(form, bits, memory[k], got), $"{form} to {window}, {words} words, mask 0x{mask:x8}, word {k}: 0x{got:X}, want 0x{memory[k]:X}");
                    }
                }
            }
        });
    }

    private static bool Same(string form, int bits, ulong want, ulong got) =>
        want == got || form.EndsWith("f64", StringComparison.Ordinal) && bits == 64 && double.IsNaN(D(want)) && double.IsNaN(D(got));

    // Small numbers for counting; floats of one size, subnormal ones and others; any bits else.
    private static ulong[] Operands(string form, int bits, int count, int seed)
    {
        var random = new Random(seed);
        bool isCount = form.Contains(".inc.", StringComparison.Ordinal) || form.Contains(".dec.", StringComparison.Ordinal);
        bool isSingle = form.EndsWith(".f32", StringComparison.Ordinal);
        ulong Any(int k) =>
            isCount ? k % 4 == 3 ? 2ul : (ulong)random.Next(5) : isSingle && k % 4 == 0 ? (ulong)random.Next(0x800000) : isSingle && k % 4 == 3 ? (uint)random.Next(0x800000) | (seed == 3 ? 0x3F000000u : 0xBF800000u)
            : (ulong)random.NextInt64(long.MinValue, long.MaxValue);
        return [.. Enumerable.Range(0, count).Select(k => Any(k) & ulong.MaxValue >> (64 - bits))];
    }
}
