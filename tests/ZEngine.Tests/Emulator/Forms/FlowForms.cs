using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>
/// What moves no value by itself: branches, calls, barriers, fences, waits, address conversions, special registers. Small programs whose
/// result shows that it took place, run by an adversary too where order matters.
/// </summary>
internal sealed class FlowForms : IOracleTable
{
    private const int Threads = 64;

    private static readonly string[] BlockBarriers =
    [
        "bar.sync 0;", "barrier.sync 0;", "barrier.sync.aligned 0;", "bar.cta.sync 0;", "barrier.cta.sync.aligned 0;", "bar.sync 3, 64;",
        "setp.lt.u32 %p3, %r2, 32; @%p3 bra FIRST; bar.arrive 5, 64; bar.sync 6, 64; bra MET; FIRST: bar.sync 5, 64; bar.arrive 6, 64; bar.sync 7, 32; MET: bar.sync 0;",
    ];

    public IEnumerable<Oracle> Oracles => [.. Branches(), .. Barriers(), .. Reductions(), .. Fences(), .. Copies(), .. Addresses(), .. Others()];

    /// <summary>Each thread's result is %r0; shared memory of a word per thread is s; all policies unless it is quick.</summary>
    private static Oracle Program(string ptx, Func<int, int, uint> want, string name = "", string functions = "", int blocks = 2, bool isAnyOrder = false) =>
        new(name + ptx, OracleTables.FormsOf(ptx + functions), (options, isQuick) =>
        {
            string text = ".version 8.4\n.target sm_80\n.address_size 64\n" + functions + "\n.visible .entry test(.param .u64 in, .param .u64 out)\n{\n.reg .pred %p<8>; .reg .b16 %h<4>; .reg .b32 %r<20>; .reg .b64 %rd<20>; .shared .align 16 .b8 s[1024]; .local .align 16 .b8 l[16];\n"
                + "ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x; mad.lo.u32 %r3, %r1, 64, %r2; mul.wide.u32 %rd3, %r3, 4; add.s64 %rd4, %rd1, %rd3; ld.global.u32 %r4, [%rd4];\n"
                + "mov.u32 %r5, s; mad.lo.u32 %r6, %r2, 4, %r5; xor.b32 %r7, %r2, 63; mad.lo.u32 %r7, %r7, 4, %r5; mov.u32 %r0, 7; add.s32 %r0, %r0, 0;\n" + ptx
                + "\nSTORE: add.s64 %rd5, %rd2, %rd3; st.global.u32 [%rd5], %r0;\nEND: ret;\n}\n";
            foreach (SchedulingPolicy policy in isAnyOrder ? Enum.GetValues<SchedulingPolicy>() : [SchedulingPolicy.Converge])
            {
                using var machine = new Machine(new ModuleImage { Name = "flow.ptx", Architecture = "sm_80", Ptx = text }, options with { Policy = policy, Checks = isAnyOrder ? EmulatorChecks.All : options.Checks, WatchdogInstructions = 100_000 });
                DevicePointer output = machine.Upload([.. Enumerable.Repeat(uint.MaxValue, blocks * Threads)]);
                machine.Launch("test", new LaunchConfiguration(blocks, Threads), machine.Upload<uint>([.. Enumerable.Range(0, 1024).Select(Input)]), output);
                uint[] got = machine.Download<uint>(output, blocks * Threads);
                for (int k = 0; k < got.Length; k++) Assert.True(want(k / Threads, k % Threads) == got[k], $"{ptx} {policy}: block {k / Threads} thread {k % Threads} got 0x{got[k]:X}, want 0x{want(k / Threads, k % Threads):X}");
                Assert.Empty(machine.Faults);
            }
        });

    private static uint Input(int k) => (uint)(k * 2654435761L >> 7);

    private static uint Of(int block, int thread) => Input(block * Threads + thread);

    private static IEnumerable<Oracle> Branches()
    {
        foreach (string bra in (string[])["bra", "bra.uni"])
            yield return Program($"setp.gt.u32 %p3, %r2, 1000; @%p3 {bra} END; {bra} NEXT; mov.u32 %r0, 1; NEXT: mov.u32 %r0, %r4;", Of);
        yield return Program("and.b32 %r8, %r2, 7; mov.u32 %r9, %r4; LOOP: setp.eq.u32 %p3, %r8, 0; @%p3 bra DONE; mad.lo.u32 %r9, %r9, 5, 1; sub.u32 %r8, %r8, 1; bra LOOP; DONE: mov.u32 %r0, %r9;",
            (b, t) => Enumerable.Range(0, t & 7).Aggregate(Of(b, t), (x, _) => x * 5 + 1));
        foreach (string leave in (string[])["ret", "ret.uni", "exit"])
            yield return Program($"and.b32 %r8, %r2, 5; setp.ne.u32 %p3, %r8, 0; @%p3 bra STAY; {leave}; STAY: mov.u32 %r0, %r4;", (b, t) => (t & 5) == 0 ? uint.MaxValue : Of(b, t));
        yield return Program("{ .reg .pred %p3; .reg .b32 %r4; mov.u32 %r4, 3; add.u32 %r0, %r4, 1; } add.u32 %r0, %r0, %r4;", (b, t) => Of(b, t) + 4);
        string function = ".func (.param .b32 result) twice(.param .b32 value, .param .b64 extra)\n{ .reg .b32 %r<4>; .reg .b64 %rd<2>; ld.param.u32 %r1, [value]; ld.param.u64 %rd1, [extra]; cvt.u32.u64 %r2, %rd1; mad.lo.u32 %r3, %r1, 2, %r2; st.param.b32 [result], %r3; ret; }";
        foreach (string call in (string[])["call", "call.uni"])
            yield return Program($"cvt.u64.u32 %rd8, %r2; {{ .param .b32 a; st.param.b32 [a], %r4; .param .b64 b; st.param.b64 [b], %rd8; .param .b32 d; {call} (d), twice, (a, b); ld.param.b32 %r0, [d]; }}", (b, t) => 2 * Of(b, t) + (uint)t, functions: function);
        yield return Program("cvt.u64.u32 %rd8, %r2; and.b32 %r8, %r2, 1; setp.eq.u32 %p3, %r8, 1; { .param .b32 a; st.param.b32 [a], %r4; .param .b64 b; st.param.b64 [b], %rd8; @%p3 bra SKIP; st.param.b32 [a], %r2; st.param.b64 [b], 1000; SKIP: .param .b32 d; call (d), twice, (a, b); ld.param.b32 %r0, [d]; }",
            (b, t) => (t & 1) == 0 ? 2 * (uint)t + 1000 : 2 * Of(b, t) + (uint)t, functions: function);
        string wide = ".func (.param .b32 result) combine(.param .align 16 .b8 values[16], .param .b32 x, .param .b64 y)\n{ .reg .b32 %r<8>; .reg .b64 %rd<4>; ld.param.v4.f32 {%r1, %r2, %r3, %r4}, [values]; ld.param.f32 %r5, [x]; ld.param.f64 %rd1, [y]; cvt.u32.u64 %r6, %rd1;"
            + "xor.b32 %r1, %r1, %r2; sub.u32 %r1, %r1, %r3; xor.b32 %r1, %r1, %r4; add.u32 %r1, %r1, %r5; xor.b32 %r1, %r1, %r6; st.param.f32 [result], %r1; ret; }";
        yield return Program("cvt.u64.u32 %rd8, %r2; and.b32 %r8, %r2, 1; setp.eq.u32 %p3, %r8, 1; add.u32 %r9, %r4, 3; { .param .align 16 .b8 v[16]; .param .b32 x; .param .b64 y; .param .b32 d; st.param.v4.f32 [v], {%r4, %r2, %r9, %r4}; st.param.f32 [x], %r9; st.param.f64 [y], %rd8;"
            + "@%p3 bra SKIP; st.param.v4.f32 [v], {%r9, %r9, %r2, %r4}; st.param.f32 [x], %r2; cvt.u64.u32 %rd9, %r4; st.param.f64 [y], %rd9; SKIP: call.uni (d), combine, (v, x, y); ld.param.b32 %r0, [d]; }",
            (b, t) => Of(b, t) is var v && (t & 1) == 1 ? (((v ^ (uint)t) - (v + 3) ^ v) + (v + 3)) ^ (uint)t : ((0u - (uint)t ^ v) + (uint)t) ^ v, functions: wide);
        yield return new Oracle("trap", ["trap"], (options, _) =>
        {
            const string text = ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test()\n{\n.reg .pred %p<2>; .reg .b32 %r<2>; mov.u32 %r1, %tid.x; setp.ne.u32 %p1, %r1, 31; @%p1 bra END; trap; END: ret;\n}\n";
            using var machine = new Machine(new ModuleImage { Name = "trap.ptx", Architecture = "sm_80", Ptx = text }, options);
            Assert.Equal(FaultKind.Trap, Assert.Single(machine.Run("test", new LaunchConfiguration(1, 32))).Kind);
        });
        yield return Program("setp.gt.u32 %p3, %r2, 1000; @!%p3 bra FINE; trap; FINE: nanosleep.u32 20; mov.u32 %r0, %r4;", Of, isAnyOrder: true);
    }

    // What a thread stored, another reads after the barrier.
    private static IEnumerable<Oracle> Barriers()
    {
        foreach (string barrier in BlockBarriers)
            yield return Program($"st.shared.u32 [%r6], %r4; {barrier} ld.shared.u32 %r0, [%r7];", (b, t) => Of(b, t ^ 63), isAnyOrder: true);
        yield return Program("st.shared.u32 [%r6], %r4; bar.warp.sync 0xffffffff; xor.b32 %r8, %r2, 31; mad.lo.u32 %r8, %r8, 4, %r5; ld.shared.u32 %r0, [%r8];", (b, t) => Of(b, t ^ 31), isAnyOrder: true);
    }

    private static IEnumerable<Oracle> Reductions()
    {
        static int Odd(int b) => Enumerable.Range(0, Threads).Count(t => (Of(b, t) & 1) != 0);
        foreach (string bar in (string[])["bar", "barrier.cta"])
        {
            string set = "and.b32 %r8, %r4, 1; setp.ne.u32 %p3, %r8, 0; setp.eq.u32 %p4, %r8, 0; setp.lt.u32 %p5, %r2, 64;";
            yield return Program($"{set} {bar}.red.popc.u32 %r0, 0, %p3;", (b, _) => (uint)Odd(b), isAnyOrder: true);
            yield return Program($"{set} {bar}.red.popc.u32 %r0, 0, !%p3;", (b, _) => (uint)(Threads - Odd(b)), isAnyOrder: true);
            yield return Program($"{set} {bar}.red.and.pred %p6, 0, %p3; selp.b32 %r0, 1, 0, %p6;", (_, _) => 0, isAnyOrder: true);
            yield return Program($"{set} {bar}.red.and.pred %p6, 0, %p5; selp.b32 %r0, 1, 0, %p6;", (_, _) => 1, isAnyOrder: true);
            yield return Program($"{set} {bar}.red.or.pred %p6, 0, %p4; selp.b32 %r0, 1, 0, %p6;", (_, _) => 1, isAnyOrder: true);
            yield return Program($"{set} {bar}.red.or.pred %p6, 0, !%p5; selp.b32 %r0, 1, 0, %p6;", (_, _) => 0, isAnyOrder: true);
        }
    }

    // Thread 0 of block 0 hands a word to block 1 through a flag; without the fence the check of global races objects.
    private static IEnumerable<Oracle> Fences()
    {
        foreach (string fence in (string[])["membar.gl", "membar.sys", "fence.sc.gpu", "fence.acq_rel.gpu", "fence.acq_rel.sys", "fence.sc.sys", "fence.sc.cluster", "fence.acq_rel.cluster"])
            yield return Program("setp.ne.u32 %p3, %r2, 31; @%p3 bra STORE; setp.eq.u32 %p4, %r1, 1; @%p4 bra WAIT;"
                + $"mov.u32 %r8, 99; st.global.u32 [%rd1+2048], %r8; {fence}; mov.u32 %r9, 1; st.volatile.global.u32 [%rd1+2052], %r9; bra STORE;"
                + $"WAIT: ld.volatile.global.u32 %r9, [%rd1+2052]; setp.ne.u32 %p5, %r9, 1; @%p5 bra WAIT; {fence}; ld.global.u32 %r0, [%rd1+2048];",
                (b, t) => b == 1 && t == 31 ? 99u : 7, isAnyOrder: true);
        foreach (string fence in (string[])["membar.cta", "fence.sc.cta", "fence.acq_rel.cta"])
            yield return Program("mov.u32 %r9, 0; st.shared.u32 [s+512], %r9; bar.sync 0; setp.eq.u32 %p4, %r2, 63; @%p4 bra GIVE; setp.ne.u32 %p3, %r2, 0; @%p3 bra STORE;"
                + $"WAIT: ld.volatile.shared.u32 %r9, [s+512]; setp.ne.u32 %p5, %r9, 1; @%p5 bra WAIT; {fence}; ld.shared.u32 %r0, [s+516]; bra STORE;"
                + $"GIVE: mov.u32 %r8, 99; st.shared.u32 [s+516], %r8; {fence}; mov.u32 %r9, 1; st.volatile.shared.u32 [s+512], %r9;",
                (_, t) => t == 0 ? 99u : 7, isAnyOrder: true);
    }

    private static IEnumerable<Oracle> Copies()
    {
        const string place = "mad.lo.u32 %r8, %r2, 16, %r5; mul.wide.u32 %rd8, %r2, 16; add.s64 %rd9, %rd1, %rd8; ";
        static uint Fourth(int t, int k, int bytes) => 4 * k < bytes ? Input(4 * t + k) : 0;
        foreach ((string form, int bytes) in ((string, int)[])[("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)])
        {
            foreach (string hint in (string[])["", ".L2::128B"])
            {
                string copy = $"cp.async.{form}.shared.global{hint}";
                foreach (string wait in (string[])["cp.async.commit_group; cp.async.wait_group 0;", "cp.async.wait_all;"])
                    yield return Program($"{place}{copy} [%r8], [%rd9], {bytes}; {wait} ld.shared.u32 %r0, [%r8+{bytes - 4}];", (_, t) => Fourth(t, bytes / 4 - 1, bytes), isAnyOrder: true);
                // Only so many bytes of the source, the rest zero.
                yield return Program($"{place}mov.u32 %r9, 4; {copy} [%r8], [%rd9], {bytes}, %r9; cp.async.wait_all; ld.shared.u32 %r9, [%r8]; ld.shared.u32 %r10, [%r8+{bytes - 4}]; add.u32 %r0, %r9, %r10;",
                    (_, t) => Input(4 * t) + (bytes == 4 ? Input(4 * t) : 0), isAnyOrder: true);
                yield return Program($"{place}setp.lt.u32 %p3, %r2, 9; {copy} [%r8], [%rd9], {bytes}, %p3; cp.async.wait_all; ld.shared.u32 %r0, [%r8];", (_, t) => t < 9 ? 0 : Input(4 * t), isAnyOrder: true);
            }
        }
        // Two groups: the first has landed when at most one is pending.
        yield return Program(place + "cp.async.ca.shared.global [%r8], [%rd9], 4; cp.async.commit_group; cp.async.ca.shared.global [%r8+4], [%rd9+4], 4; cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r9, [%r8]; cp.async.wait_group 0; ld.shared.u32 %r10, [%r8+4]; xor.b32 %r0, %r9, %r10;",
            (_, t) => Input(4 * t) ^ Input(4 * t + 1), isAnyOrder: true);
    }

    // Odd threads skip the conversion and keep an address they had; the value behind each is another.
    private static IEnumerable<Oracle> Addresses()
    {
        const string places = "add.u32 %r8, %r4, 1; st.shared.u32 [%r6], %r8; bar.sync 0; add.u32 %r8, %r4, 2; and.b32 %r9, %r2, 3; mul.wide.u32 %rd9, %r9, 4; mov.u64 %rd11, l; add.s64 %rd11, %rd11, %rd9; st.local.u32 [%rd11], %r8;"
            + "mul.wide.u32 %rd9, %r2, 4; mov.u64 %rd10, s; add.s64 %rd10, %rd10, %rd9; and.b32 %r9, %r2, 1; setp.eq.u32 %p3, %r9, 1;";
        static Func<int, int, uint> Even(uint added, uint other = 0) => (b, t) => Of(b, t) + ((t & 1) == 0 ? added : other);
        yield return Program(places + "mov.u64 %rd8, %rd4; @%p3 bra SKIP; cvta.shared.u64 %rd8, %rd10; SKIP: ld.u32 %r0, [%rd8];", Even(1));
        yield return Program(places + "mov.u64 %rd8, %rd4; @%p3 bra SKIP; cvta.local.u64 %rd8, %rd11; SKIP: ld.u32 %r0, [%rd8];", Even(2));
        yield return Program(places + "mov.u64 %rd8, 0; add.s64 %rd8, %rd8, %rd4; @%p3 bra SKIP; add.s64 %rd12, %rd4, 8; cvta.global.u64 %rd8, %rd12; SKIP: ld.global.u32 %r0, [%rd8];", (b, t) => Input(b * Threads + t + 2 * (t & 1 ^ 1)));
        yield return Program(places + "mov.u64 %rd8, 0; add.s64 %rd8, %rd8, %rd4; @%p3 bra SKIP; add.s64 %rd12, %rd4, 8; cvta.to.global.u64 %rd8, %rd12; SKIP: ld.global.u32 %r0, [%rd8];", (b, t) => Input(b * Threads + t + 2 * (t & 1 ^ 1)));
        yield return Program(places + "cvta.shared.u64 %rd12, %rd10; mov.u64 %rd8, s; @%p3 bra SKIP; cvta.to.shared.u64 %rd8, %rd12; SKIP: ld.shared.u32 %r0, [%rd8];", (b, t) => (t & 1) == 0 ? Of(b, t) + 1 : Of(b, 0) + 1);
        yield return Program(places + "cvta.local.u64 %rd12, %rd11; mov.u64 %rd8, l; st.local.u32 [l+12], %r2; add.s64 %rd8, %rd8, 12; @%p3 bra SKIP; cvta.to.local.u64 %rd8, %rd12; SKIP: ld.local.u32 %r0, [%rd8];", (b, t) => (t & 1) == 0 ? Of(b, t) + 2 : (uint)t);
        yield return Program(places + "mov.u64 %rd8, %rd4; mul.wide.u32 %rd9, %r2, 4; mov.u64 %rd12, table; add.s64 %rd12, %rd12, %rd9; @%p3 bra SKIP; cvta.const.u64 %rd8, %rd12; SKIP: ld.u32 %r0, [%rd8];",
            (b, t) => (t & 1) == 0 ? 500u + (uint)t : Of(b, t), functions: $".const .align 4 .b32 table[{Threads}] = {{{string.Join(", ", Enumerable.Range(500, Threads))}}};");
        foreach ((string name, int at) in ((string, int)[])[("shared", 0), ("local", 1), ("global", 2)])
            yield return Program(places + "cvta.shared.u64 %rd8, %rd10; cvta.local.u64 %rd9, %rd11; rem.u32 %r8, %r2, 3; setp.eq.u32 %p4, %r8, 0; selp.b64 %rd12, %rd8, %rd4, %p4; setp.eq.u32 %p4, %r8, 1; selp.b64 %rd12, %rd9, %rd12, %p4;"
                + $"and.b32 %r8, %r2, 4; setp.eq.u32 %p5, %r8, 4; @%p3 bra SKIP; isspacep.{name} %p5, %rd12; SKIP: selp.b32 %r0, 1, 0, %p5;", (_, t) => (t & 1) == 1 ? (uint)(t >> 2 & 1) : t % 3 == at ? 1u : 0);
    }

    private static IEnumerable<Oracle> Others()
    {
        foreach ((string register, Func<int, int, uint> want) in ((string, Func<int, int, uint>)[])
            [("%tid.x", (_, t) => (uint)t), ("%tid.y", (_, _) => 0), ("%ntid.x", (_, _) => Threads), ("%ctaid.x", (b, _) => (uint)b), ("%nctaid.x", (_, _) => 2), ("%laneid", (_, t) => (uint)t % 32), ("%warpid", (_, t) => (uint)t / 32),
             ("%lanemask_eq", (_, t) => 1u << t % 32), ("%lanemask_lt", (_, t) => (1u << t % 32) - 1), ("%lanemask_le", (_, t) => (2u << t % 32) - 1), ("%lanemask_gt", (_, t) => ~((2u << t % 32) - 1)), ("%lanemask_ge", (_, t) => ~((1u << t % 32) - 1))])
            yield return Program($"mov.u32 %r0, {register};", want);
        yield return Program("mov.u64 %rd8, %clock64; mov.u64 %rd9, %clock64; setp.lt.u64 %p3, %rd8, %rd9; mov.u32 %r8, %clock; mov.u64 %rd10, %globaltimer; selp.b32 %r0, 1, 0, %p3;", (_, _) => 1);
        foreach (string prefetch in (string[])["prefetch.global.L1", "prefetch.global.L2", "prefetch.global.L2::evict_last", "prefetch.global.L2::evict_normal"])
            yield return Program($"{prefetch} [%rd4]; ld.global.u32 %r0, [%rd4];", Of);
        yield return Program("activemask.b32 %r0;", (_, _) => uint.MaxValue);
        yield return Program("and.b32 %r8, %r2, 3; setp.eq.u32 %p3, %r8, 1; @!%p3 bra STORE; activemask.b32 %r0;", (_, t) => (t & 3) == 1 ? 0x22222222u : 7);
    }
}
