using System.Text;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Emulator;

/// <summary>Counters of micro-kernels, one access by one warp each, against counts made by hand.</summary>
public sealed class CounterTests
{
    // Form, bytes of one lane, its offset by lane, active lanes; then bytes, sectors and half-lines of global memory.
    private static readonly (string Form, int Bytes, Func<int, int> Offset, uint Mask, long Asked, long Sectors, long HalfLines)[] Global =
    [
        ("ld.global.u32", 4, lane => 4 * lane, uint.MaxValue, 128, 4, 2),                      // in sequence
        ("ld.global.u32", 4, lane => 4 * lane + 4, uint.MaxValue, 128, 5, 3),                  // across a sector's end
        ("ld.global.u32", 4, lane => 4 * (31 - lane), uint.MaxValue, 128, 4, 2),               // backwards
        ("ld.global.u32", 4, _ => 64, uint.MaxValue, 128, 1, 1),                               // all the same
        ("ld.global.u32", 4, lane => 8 * lane, uint.MaxValue, 128, 8, 4),                      // every second word
        ("ld.global.u32", 4, lane => 32 * lane, uint.MaxValue, 128, 32, 16),                   // a sector each
        ("ld.global.u32", 4, lane => 128 * lane, uint.MaxValue, 128, 32, 32),                  // a line each
        ("ld.global.u32", 4, lane => 4 * lane, 0x0000FFFF, 64, 2, 1),                          // half a warp
        ("ld.global.u32", 4, lane => 4 * lane, 0x80000001, 8, 2, 2),                           // the first lane and the last
        ("ld.global.u8", 1, lane => lane, uint.MaxValue, 32, 1, 1),
        ("ld.global.u16", 2, lane => 2 * lane, uint.MaxValue, 64, 2, 1),
        ("ld.global.u64", 8, lane => 8 * lane, uint.MaxValue, 256, 8, 4),
        ("ld.global.v2.u32", 8, lane => 16 * lane, uint.MaxValue, 256, 16, 8),
        ("ld.global.v4.u32", 16, lane => 16 * lane, uint.MaxValue, 512, 16, 8),
        ("ld.global.v4.u32", 16, lane => 48 * lane, uint.MaxValue, 512, 32, 24),               // rows of 48 bytes, one sector each
        ("st.global.u32", 4, lane => 4 * lane, uint.MaxValue, 128, 4, 2),
        ("st.global.u8", 1, lane => 64 * lane, uint.MaxValue, 32, 32, 32),
        ("st.global.v4.u32", 16, lane => 16 * lane, uint.MaxValue, 512, 16, 8),
        ("atom.global.add.u32", 4, _ => 0, uint.MaxValue, 128, 1, 1),
        ("cp.async.cg.shared.global", 16, lane => 16 * lane, uint.MaxValue, 512, 16, 8),
        ("cp.async.ca.shared.global", 4, lane => 64 * lane, uint.MaxValue, 128, 32, 32),
    ];

    // The same for shared memory, with passes over the banks.
    private static readonly (string Form, int Bytes, Func<int, int> Offset, uint Mask, long Asked, long Wavefronts)[] Shared =
    [
        ("ld.shared.u32", 4, lane => 4 * lane, uint.MaxValue, 128, 1),
        ("ld.shared.u32", 4, _ => 12, uint.MaxValue, 128, 1),                                  // one word for all
        ("ld.shared.u32", 4, lane => 8 * lane, uint.MaxValue, 128, 2),
        ("ld.shared.u32", 4, lane => 12 * lane, uint.MaxValue, 128, 1),                        // an odd stride meets every bank once
        ("ld.shared.u32", 4, lane => 16 * lane, uint.MaxValue, 128, 4),
        ("ld.shared.u32", 4, lane => 128 * lane, uint.MaxValue, 128, 32),                      // a column
        ("ld.shared.u32", 4, lane => 132 * lane, uint.MaxValue, 128, 1),                       // a column of padded rows
        ("ld.shared.u32", 4, lane => 128 * (lane / 2), uint.MaxValue, 128, 16),                // pairs share a word
        ("ld.shared.u32", 4, lane => 128 * lane, 0x000000FF, 32, 8),
        ("ld.shared.u8", 1, lane => lane, uint.MaxValue, 32, 1),
        ("ld.shared.u16", 2, lane => 2 * lane, uint.MaxValue, 64, 1),
        ("ld.shared.u64", 8, lane => 8 * lane, uint.MaxValue, 256, 2),                         // half warps
        ("ld.shared.u64", 8, lane => 16 * lane, uint.MaxValue, 256, 4),
        ("ld.shared.v4.u32", 16, lane => 16 * lane, uint.MaxValue, 512, 4),                    // quarter warps
        ("ld.shared.v4.u32", 16, lane => 128 * lane, uint.MaxValue, 512, 32),
        ("st.shared.u32", 4, lane => 4 * lane, uint.MaxValue, 128, 1),
        ("st.shared.u32", 4, lane => 4 * (lane % 4 * 32 + lane / 4), uint.MaxValue, 128, 4),
        ("st.shared.v4.u32", 16, lane => 16 * lane, uint.MaxValue, 512, 4),
    ];

    // Rows of 8x8 matrices: matrices and the offset of a row; passes over the banks, one at least for each matrix.
    private static readonly (int Matrices, Func<int, int> Offset, long Wavefronts)[] Matrices =
    [
        (1, row => 16 * row, 1), (2, row => 16 * row, 2), (4, row => 16 * row, 4), (4, row => 32 * row, 8), (4, row => 64 * row, 16), (4, row => 128 * row, 32),
        (4, row => 128 * row + 16 * (row % 8), 4),                                             // swizzled
        (4, row => 144 * row, 4),                                                              // padded by 16 bytes
    ];

    public static TheoryData<int> GlobalCases => [.. Enumerable.Range(0, Global.Length)];

    public static TheoryData<int> SharedCases => [.. Enumerable.Range(0, Shared.Length)];

    public static TheoryData<int> MatrixCases => [.. Enumerable.Range(0, Matrices.Length)];

    [Theory]
    [MemberData(nameof(GlobalCases))]
    public void Global_access(int k)
    {
        var c = Global[k];
        InstructionCounter counter = Run(c.Form, c.Bytes, c.Offset, c.Mask, 0).Of(c.Form);
        Assert.Equal((1, c.Asked, c.Sectors, c.HalfLines), (counter.Requests, counter.Bytes, counter.Sectors, counter.HalfLines));
        Assert.Equal((1, (long)System.Numerics.BitOperations.PopCount(c.Mask)), (counter.Executions, counter.Threads));
    }

    [Theory]
    [MemberData(nameof(SharedCases))]
    public void Shared_access(int k)
    {
        var c = Shared[k];
        InstructionCounter counter = Run(c.Form, c.Bytes, c.Offset, c.Mask, 0).Of(c.Form);
        Assert.Equal((1, c.Asked, c.Wavefronts), (counter.Requests, counter.Bytes, counter.Wavefronts));
    }

    [Theory]
    [MemberData(nameof(MatrixCases))]
    public void Matrix_load(int k)
    {
        var c = Matrices[k];
        InstructionCounter counter = Run("ldmatrix", 16, c.Offset, uint.MaxValue, c.Matrices).Of("ldmatrix");
        Assert.Equal((1, 128L * c.Matrices, c.Wavefronts), (counter.Requests, counter.Bytes, counter.Wavefronts));
    }

    [Fact]
    public void A_divergent_branch_and_a_product_are_counted()
    {
        const string ptx = ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test()\n{\n.reg .pred %p<3>; .reg .b32 %r<4>; .reg .f32 %f<4>; .reg .b32 %a<4>;\n"
            + "mov.u32 %r1, %tid.x; setp.gt.u32 %p1, %r1, 9; @%p1 bra SKIP; add.u32 %r2, %r1, 1; SKIP: setp.gt.u32 %p2, %r1, 99; @%p2 bra END;"
            + "mov.b32 %a0, %r1; mov.b32 %a1, %r1; mov.b32 %a2, %r1; mov.b32 %a3, %r1; mov.b32 %f0, %r1; mov.b32 %f1, %r1; mov.b32 %f2, %r1; mov.b32 %f3, %r1;"
            + "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0,%f1,%f2,%f3}, {%a0,%a1,%a2,%a3}, {%a0,%a1}, {%f0,%f1,%f2,%f3}; END: ret;\n}";
        using var machine = new Machine(new ModuleImage { Name = "count.ptx", Architecture = "sm_80", Ptx = ptx }, new EmulatorOptions());
        Assert.Empty(machine.Run("test", new LaunchConfiguration(3, 64)));
        LaunchProfile profile = machine.Profile;
        // Six warps; in three of them lanes 0 to 9 go one way and the rest the other.
        Assert.Equal((12, 3), (profile.Of("bra").Executions, profile.Of("bra").Divergent));
        Assert.Equal((3, 30), (profile.Of("add.u32").Executions, profile.Of("add.u32").Threads));
        Assert.Equal(6 * 2 * 16 * 8 * 16, profile.MatrixFlops);
        Assert.Equal(6, profile[InstructionClass.Matrix].Executions);
    }

    /// <summary>Blocks load the same line twice, store one of their own and load it back: each byte counts once, and an L1 cache has what a block of its multiprocessor has loaded before.</summary>
    [Theory]
    [InlineData(1, 4, 4)]
    [InlineData(2, 4, 8)]
    [InlineData(3, 4, 12)]
    public void Distinct_bytes_and_misses_of_the_L1_cache_are_counted(int multiprocessors, long sectors, long misses)
    {
        const string ptx = ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test(.param .u64 x, .param .u64 y)\n{\n.reg .b32 %r<6>; .reg .b64 %rd<8>;\n"
            + "ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mul.wide.u32 %rd3, %r1, 4; mul.wide.u32 %rd4, %r2, 128; add.s64 %rd1, %rd1, %rd3; add.s64 %rd2, %rd2, %rd3; add.s64 %rd2, %rd2, %rd4;"
            + "ld.global.u32 %r3, [%rd1]; ld.global.u32 %r3, [%rd1]; st.global.u32 [%rd2], %r3; ld.global.s32 %r4, [%rd2]; ret;\n}";
        const int blocks = 3;
        using var machine = new Machine(new ModuleImage { Name = "again.ptx", Architecture = "sm_80", Ptx = ptx }, new EmulatorOptions { Multiprocessors = multiprocessors, Checks = EmulatorChecks.Counters | EmulatorChecks.Footprints });
        Assert.Empty(machine.Run("test", new LaunchConfiguration(blocks, 32), machine.Upload(new byte[128]), machine.Empty<byte>(blocks * 128)));
        Assert.Equal(128 + 2 * blocks * 128, machine.Profile.DistinctBytes);
        Assert.Equal((2 * blocks * sectors, misses), (machine.Profile.Of("ld.global.u32").Sectors, machine.Profile.Of("ld.global.u32").Misses));
        Assert.Equal(blocks * sectors, machine.Profile.Of("ld.global.s32").Misses);        // stores leave nothing
    }

    /// <summary>A line that was longest not used makes room.</summary>
    [Fact]
    public void A_full_L1_cache_forgets()
    {
        var cache = new ZEngine.Emulator.Execution.L1Cache(8192);
        for (ulong sector = 0; sector < 256; sector++) Assert.Equal(1, cache.Read(sector));
        for (ulong sector = 0; sector < 256; sector++) Assert.Equal(0, cache.Read(sector));
        for (ulong sector = 256; sector < 512; sector++) Assert.Equal(1, cache.Read(sector));
        Assert.Equal(1, cache.Read(0));
        cache.Drop(0);
        Assert.Equal(1, cache.Read(0));
    }

    private static LaunchProfile Run(string form, int bytes, Func<int, int> offset, uint mask, int matrices)
    {
        string value = form.Contains("v4", StringComparison.Ordinal) ? "{%r20, %r21, %r22, %r23}" : form.Contains("v2", StringComparison.Ordinal) ? "{%r20, %r21}" : form.EndsWith("64", StringComparison.Ordinal) ? "%rd9" : "%r20";
        string instruction = form switch
        {
            "ldmatrix" => $"ldmatrix.sync.aligned.m8n8.x{matrices}.shared.b16 {{{string.Join(", ", Enumerable.Range(20, matrices).Select(k => $"%r{k}"))}}}, [%r6];",
            _ when form.StartsWith("cp", StringComparison.Ordinal) => $"{form} [%r7], [%rd8], {bytes}; cp.async.wait_all;",
            _ when form.StartsWith("atom", StringComparison.Ordinal) => $"{form} %r20, [%rd8], 1;",
            _ when form.StartsWith("st", StringComparison.Ordinal) => $"{form} [{(form.Contains("shared", StringComparison.Ordinal) ? "%r6" : "%rd8")}], {value};",
            _ => $"{form} {value}, [{(form.Contains("shared", StringComparison.Ordinal) ? "%r6" : "%rd8")}];",
        };
        var text = new StringBuilder(".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test(.param .u64 data, .param .u64 offsets, .param .u32 mask)\n{\n.reg .pred %p<2>; .reg .b32 %r<30>; .reg .b64 %rd<12>; .shared .align 128 .b8 s[8192];\n");
        text.AppendLine("ld.param.u64 %rd1, [data]; ld.param.u64 %rd2, [offsets]; ld.param.u32 %r1, [mask]; mov.u32 %r2, %tid.x; mul.wide.u32 %rd3, %r2, 4; add.s64 %rd2, %rd2, %rd3; ld.global.nc.s32 %r3, [%rd2]; cvt.s64.s32 %rd4, %r3; add.s64 %rd8, %rd1, %rd4;");
        text.AppendLine("mov.u32 %r5, s; add.s32 %r6, %r5, %r3; mad.lo.u32 %r7, %r2, 16, %r5; mov.u32 %r20, %r2; mov.u32 %r21, %r2; mov.u32 %r22, %r2; mov.u32 %r23, %r2; cvt.u64.u32 %rd9, %r2; shr.u32 %r8, %r1, %r2; and.b32 %r8, %r8, 1; setp.eq.u32 %p1, %r8, 0; @%p1 bra END;");
        text.AppendLine(instruction).AppendLine("END: ret;\n}");
        using var machine = new Machine(new ModuleImage { Name = "access.ptx", Architecture = "sm_80", Ptx = text.ToString() }, new EmulatorOptions { Checks = EmulatorChecks.Counters });
        // An allocation begins at a multiple of 512.
        Assert.Empty(machine.Run("test", new LaunchConfiguration(1, 32), machine.Upload(new byte[8192]), machine.Upload<int>([.. Enumerable.Range(0, 32).Select(offset)]), mask));
        return machine.Profile;
    }

    [Fact]
    public void Footprints_without_counters_are_refused() =>
        Assert.StartsWith("EmulatorChecks.Footprints counts nothing without EmulatorChecks.Counters.",
            Assert.Throws<ArgumentException>(() => new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.Footprints })).Message, StringComparison.Ordinal);
}
