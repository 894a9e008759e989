using System.Numerics;
using System.Text;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>Instructions in which lanes see each other: shuffles, votes, matches, reductions, from the values of all members.</summary>
internal sealed class WarpForms : IOracleTable
{
    /// <summary>The member mask and the three sources of each lane.</summary>
    private sealed record Lanes(uint Mask, uint[] A, uint[] B, uint[] C)
    {
        public IEnumerable<int> Members => Enumerable.Range(0, 32).Where(lane => (Mask >> lane & 1) != 0);
        public ulong Wide(int lane) => A[lane] | (ulong)B[lane] << 32;
    }

    public IEnumerable<Oracle> Oracles => [.. Shuffles(), .. Votes(), .. Matches(), .. Reductions()];

    // PTX ISA, shfl: b counts lanes, c holds the clamp in bits 0..4 and the segment mask in bits 8..12.
    private static IEnumerable<Oracle> Shuffles()
    {
        foreach (string mode in (string[])["up", "down", "bfly", "idx"])
        {
            (int From, bool IsInside) Source(Lanes w, int lane)
            {
                int b = (int)w.B[lane] & 31, clamp = (int)w.C[lane] & 31, segment = (int)w.C[lane] >> 8 & 31;
                int most = lane & segment | clamp & ~segment, least = lane & segment;
                int j = mode switch { "up" => lane - b, "down" => lane + b, "bfly" => lane ^ b, _ => least | b & ~segment };
                bool inside = mode == "up" ? j >= most : j <= most;
                return (inside ? j : lane, inside);
            }
            // Widths as __shfl_sync makes them, then any clamp and segment.
            Lanes[] Cases(int count)
            {
                var random = new Random(9);
                var cases = new List<Lanes>();
                for (int k = 0; k < count; k++)
                {
                    uint[] Fill(Func<uint> f) => [.. Enumerable.Range(0, 32).Select(_ => f())];
                    uint width = 1u << (k % 6), distance = (uint)random.Next(34);
                    uint c = k % 3 == 2 ? (uint)random.Next(0x2000) & 0x1F1F : (32 - width) << 8 | (mode == "up" ? 0u : 31u);
                    bool isSame = k % 4 != 3;
                    cases.Add(new Lanes(uint.MaxValue, Fill(() => (uint)random.NextInt64(1L << 32)), Fill(() => isSame ? distance : (uint)random.Next(32)), Fill(() => c)));
                }
                // A part of the warp, where every lane reads a member.
                for (int k = 0; k < count; k++)
                {
                    Lanes whole = cases[k];
                    uint mask = k % 2 == 0 ? 0x0000FFFFu : 0x00FF00FFu;
                    var part = whole with { Mask = mask };
                    if (part.Members.All(lane => (mask >> Source(part, lane).From & 1) != 0)) cases.Add(part);
                }
                return [.. cases];
            }
            yield return Of($"shfl.sync.{mode}.b32", "%r0|%p0, %r1, %r2, %r3, %r10", Cases, (w, lane) => (w.A[Source(w, lane).From], Source(w, lane).IsInside));
            yield return Of($"shfl.sync.{mode}.b32", "%r0, %r1, %r2, %r3, %r10", Cases, (w, lane) => (w.A[Source(w, lane).From], false));
        }
    }

    private static Lanes[] Values(int count, int distinct)
    {
        var random = new Random(10 + distinct);
        uint[] masks = [uint.MaxValue, 0x80000001, 0x0F35A901, 0x00000010];
        return [.. Enumerable.Range(0, count).Select(k =>
        {
            uint[] Fill() => [.. Enumerable.Range(0, 32).Select(_ => k % 5 == 4 ? 3u : distinct == 0 ? (uint)random.NextInt64(1L << 32) : (uint)random.Next(distinct))];
            return new Lanes(masks[k % 4], Fill(), Fill(), Fill());
        })];
    }

    private static IEnumerable<Oracle> Votes()
    {
        foreach (bool isNegated in (bool[])[false, true])
        {
            bool Holds(Lanes w, int lane) => (int)w.A[lane] < 2 != isNegated;
            Oracle Vote(string mode, string type, Func<Lanes, uint> f) =>
                Of($"vote.sync.{mode}.{type}", $"{(type == "b32" ? "%r0" : "%p0")}, {(isNegated ? "!" : "")}%p2, %r10", count => Values(count, 4), (w, _) => type == "b32" ? (f(w), false) : (0u, f(w) != 0), "setp.lt.s32 %p2, %r1, 2;");
            yield return Vote("all", "pred", w => w.Members.All(lane => Holds(w, lane)) ? 1u : 0);
            yield return Vote("any", "pred", w => w.Members.Any(lane => Holds(w, lane)) ? 1u : 0);
            yield return Vote("uni", "pred", w => w.Members.Select(lane => Holds(w, lane)).Distinct().Count() == 1 ? 1u : 0);
            yield return Vote("ballot", "b32", w => w.Members.Aggregate(0u, (bits, lane) => bits | (Holds(w, lane) ? 1u << lane : 0)));
        }
    }

    private static IEnumerable<Oracle> Matches()
    {
        foreach (int bits in (int[])[32, 64])
        {
            string value = bits == 64 ? "%rd9" : "%r1", pack = bits == 64 ? "mov.b64 %rd9, {%r1, %r2};" : "";
            ulong Value(Lanes w, int lane) => bits == 64 ? w.Wide(lane) : w.A[lane];
            uint Same(Lanes w, int lane) => w.Members.Aggregate(0u, (mask, other) => mask | (Value(w, other) == Value(w, lane) ? 1u << other : 0));
            yield return Of($"match.any.sync.b{bits}", $"%r0, {value}, %r10", count => Values(count, 3), (w, lane) => (Same(w, lane), false), pack);
            yield return Of($"match.all.sync.b{bits}", $"%r0|%p0, {value}, %r10", count => Values(count, 3), (w, lane) => Same(w, lane) == w.Mask ? (w.Mask, true) : (0, false), pack);
        }
    }

    private static IEnumerable<Oracle> Reductions()
    {
        foreach ((string form, Func<BigInteger, BigInteger, BigInteger> f) in ((string, Func<BigInteger, BigInteger, BigInteger>)[])
            [("add.u32", (a, b) => a + b), ("add.s32", (a, b) => a + b), ("min.u32", BigInteger.Min), ("max.u32", BigInteger.Max), ("min.s32", BigInteger.Min), ("max.s32", BigInteger.Max), ("and.b32", (a, b) => a & b), ("or.b32", (a, b) => a | b), ("xor.b32", (a, b) => a ^ b)])
            yield return Of($"redux.sync.{form}", "%r0, %r1, %r10", count => Values(count, 0),
                (w, _) => ((uint)Definition.Low(w.Members.Select(lane => Definition.Integer(w.A[lane], form[^3], 32)).Aggregate(f), 32), false));
    }

    /// <summary>The result is %r0 and %p0, of the sources %r1, %r2, %r3 and the member mask %r10.</summary>
    private static Oracle Of(string form, string operands, Func<int, Lanes[]> cases, Func<Lanes, int, (uint Value, bool Predicate)> definition, string before = "") =>
        new($"{form} {operands}", [form], (options, isQuick) =>
        {
            Lanes[] warps = cases(isQuick ? 8 : 64);
            var text = new StringBuilder(".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test(.param .u64 in, .param .u64 out)\n{\n.reg .pred %p<5>; .reg .b32 %r<20>; .reg .b64 %rd<10>;\n");
            text.AppendLine("ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; mov.u32 %r11, %ctaid.x; mov.u32 %r12, %tid.x; shl.b32 %r13, %r11, 5; add.s32 %r13, %r13, %r12;");
            text.AppendLine("mul.wide.u32 %rd3, %r13, 16; add.s64 %rd1, %rd1, %rd3; mul.wide.u32 %rd4, %r13, 8; add.s64 %rd2, %rd2, %rd4; ld.global.v4.u32 {%r1, %r2, %r3, %r10}, [%rd1];");
            text.AppendLine("mov.u32 %r0, 0x5A5A5A5A; add.s32 %r0, %r0, 0; setp.ne.u32 %p0, %r0, %r0; shr.u32 %r14, %r10, %r12; and.b32 %r14, %r14, 1; setp.eq.s32 %p1, %r14, 0;");
            text.AppendLine(before).AppendLine("@%p1 bra DONE;").AppendLine($"{form} {operands};").AppendLine("DONE:");
            text.AppendLine("selp.b32 %r15, 1, 0, %p0; st.global.v2.u32 [%rd2], {%r0, %r15}; ret;\n}");
            using var machine = new Machine(new ModuleImage { Name = "warp.ptx", Architecture = "sm_80", Ptx = text.ToString() }, options);
            DevicePointer output = machine.Upload(new uint[64 * warps.Length]);
            machine.Launch("test", new LaunchConfiguration(warps.Length, 32), machine.Upload<uint>([.. warps.SelectMany(w => Enumerable.Range(0, 32).SelectMany(lane => (uint[])[w.A[lane], w.B[lane], w.C[lane], w.Mask]))]), output);
            uint[] got = machine.Download<uint>(output, 64 * warps.Length);
            bool writesValue = operands.StartsWith("%r0", StringComparison.Ordinal), writesPredicate = operands.StartsWith("%p0", StringComparison.Ordinal) || operands.Contains("|%p0", StringComparison.Ordinal);
            for (int k = 0; k < 32 * warps.Length; k++)
            {
                Lanes w = warps[k / 32];
                bool isMember = (w.Mask >> (k % 32) & 1) != 0;
                (uint value, bool predicate) = isMember ? definition(w, k % 32) : (0x5A5A5A5Au, false);
                if (!writesValue) value = 0x5A5A5A5A;
                Assert.True((got[2 * k], got[2 * k + 1]) == (value, predicate && writesPredicate ? 1u : 0), $"{form} {operands}, mask 0x{w.Mask:x8}, lane {k % 32}, a 0x{w.A[k % 32]:X} b 0x{w.B[k % 32]:X} c 0x{w.C[k % 32]:X}: got 0x{got[2 * k]:X} {got[2 * k + 1]}, want 0x{value:X} {predicate}");
            }
            Assert.Empty(machine.Faults);
        });
}
