using System.Text;
using ZEngine.Emulator;
using ZEngine.Interop;
using Xunit;

namespace ZEngine.Tests.Emulator;

/// <summary>
/// Fragment maps of mma, one element at a time: a single one in A at (m, k) times a single one in B at (k, n) gives a single one at (m, n).
/// The maps are those of the PTX ISA's figures, written by element and not by register.
/// </summary>
public sealed class MatrixTests
{
    // Bits of an element, and the lane, register and position in the register of A(row, k), B(k, column) and C(row, column).
    private static (int Lane, int Register, int Position) A(int row, int k, int bits)
    {
        int perRegister = 32 / bits, group = k / (4 * perRegister), inside = k % (4 * perRegister);
        return (row % 8 * 4 + inside / perRegister, 2 * group + row / 8, inside % perRegister);
    }

    private static (int Lane, int Register, int Position) B(int k, int column, int bits)
    {
        int perRegister = 32 / bits, group = k / (4 * perRegister), inside = k % (4 * perRegister);
        return (column * 4 + inside / perRegister, group, inside % perRegister);
    }

    private static (int Lane, int Register) C(int row, int column) => (row % 8 * 4 + column / 2, row / 8 * 2 + column % 2);

    [Theory]
    [InlineData("m16n8k8.row.col.f32.bf16.bf16.f32", 8, 16, 0x3F80)]
    [InlineData("m16n8k16.row.col.f32.bf16.bf16.f32", 16, 16, 0x3F80)]
    [InlineData("m16n8k8.row.col.f32.f16.f16.f32", 8, 16, 0x3C00)]
    [InlineData("m16n8k16.row.col.f32.f16.f16.f32", 16, 16, 0x3C00)]
    [InlineData("m16n8k4.row.col.f32.tf32.tf32.f32", 4, 32, 0x3F800000)]
    [InlineData("m16n8k8.row.col.f32.tf32.tf32.f32", 8, 32, 0x3F800000)]
    [InlineData("m16n8k16.row.col.s32.s8.s8.s32", 16, 8, 1)]
    [InlineData("m16n8k32.row.col.s32.s8.s8.s32", 32, 8, 1)]
    [InlineData("m16n8k32.row.col.s32.u8.u8.s32", 32, 8, 1)]
    public void One_hot_operands_give_one_hot_products(string shape, int K, int bits, int one)
    {
        int registersA = 16 * K * bits / 1024, registersB = 8 * K * bits / 1024;
        bool isFloat = shape.Contains("f32", StringComparison.Ordinal);
        var text = new StringBuilder(".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test(.param .u64 in, .param .u64 out)\n{\n.reg .b32 %a<4>; .reg .b32 %b<4>; .reg .b32 %r<8>; .reg .f32 %f<4>; .reg .s32 %s<4>; .reg .b64 %rd<6>;\n");
        text.AppendLine("ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x;");
        text.AppendLine($"mul.lo.u32 %r3, %r1, {128 * (registersA + registersB)}; mad.lo.u32 %r3, %r2, 4, %r3; cvt.u64.u32 %rd3, %r3; add.s64 %rd1, %rd1, %rd3; mul.lo.u32 %r3, %r1, 512; mad.lo.u32 %r3, %r2, 16, %r3; cvt.u64.u32 %rd3, %r3; add.s64 %rd2, %rd2, %rd3;");
        for (int k = 0; k < registersA; k++) text.AppendLine($"ld.global.u32 %a{k}, [%rd1+{128 * k}];");
        for (int k = 0; k < registersB; k++) text.AppendLine($"ld.global.u32 %b{k}, [%rd1+{128 * (registersA + k)}];");
        string c = isFloat ? "f" : "s";
        for (int k = 0; k < 4; k++) text.AppendLine(isFloat ? $"mov.f32 %f{k}, 0f00000000; add.f32 %f{k}, %f{k}, 0f00000000;" : $"mov.u32 %s{k}, 0; add.s32 %s{k}, %s{k}, 0;");
        string acc = $"{{%{c}0, %{c}1, %{c}2, %{c}3}}";
        text.AppendLine($"mma.sync.aligned.{shape} {acc}, {{{string.Join(", ", Enumerable.Range(0, registersA).Select(k => $"%a{k}"))}}}, {{{string.Join(", ", Enumerable.Range(0, registersB).Select(k => $"%b{k}"))}}}, {acc};");
        for (int k = 0; k < 4; k++) text.AppendLine($"st.global.{(isFloat ? "f32" : "u32")} [%rd2+{4 * k}], %{c}{k};");
        text.AppendLine("ret;\n}");
        var image = new ModuleImage { Name = "mma.ptx", Architecture = "sm_80", Ptx = text.ToString() };

        // Every (row, k, column): one block each, so that no block can borrow from another.
        int stride = 32 * (registersA + registersB), cases = 16 * K * 8;
        uint[] input = new uint[cases * stride];
        for (int index = 0; index < cases; index++)
        {
            (int row, int k, int column) = (index / (8 * K), index / 8 % K, index % 8);
            (int laneA, int registerA, int positionA) = A(row, k, bits);
            (int laneB, int registerB, int positionB) = B(k, column, bits);
            input[index * stride + 32 * registerA + laneA] |= (uint)one << (bits * positionA);
            input[index * stride + 32 * (registersA + registerB) + laneB] |= (uint)one << (bits * positionB);
        }
        foreach (MmaModel model in Enum.GetValues<MmaModel>())
        {
            using var machine = new Machine(image, new EmulatorOptions { Mma = model, Checks = EmulatorChecks.None });
            DevicePointer px = machine.Upload(input), py = machine.Empty<uint>(cases * 128);
            machine.Launch("test", new LaunchConfiguration(cases, 32), px, py);
            uint[] got = machine.Download<uint>(py, cases * 128);
            for (int index = 0; index < cases; index++)
            {
                (int lane, int register) = C(index / (8 * K), index % 8);
                for (int at = 0; at < 128; at++)
                {
                    uint want = at != 4 * lane + register ? 0 : isFloat ? 0x3F800000u : 1u;
                    Assert.True(want == got[index * 128 + at], $"{shape} {model}, A({index / (8 * K)},{index / 8 % K}) B({index / 8 % K},{index % 8}): lane {at / 4} register {at % 4} is 0x{got[index * 128 + at]:X}");
                }
            }
        }
    }
}
