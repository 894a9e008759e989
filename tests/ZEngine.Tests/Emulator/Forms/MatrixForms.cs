using System.Text;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Emulator.Forms;

/// <summary>
/// Fragment maps of ldmatrix and mma, written by element and not by register, after the figures of the PTX ISA. For mma one element at a
/// time: a single number in A at (m, k) times a single one in B at (k, n) is a single product at (m, n), beside a single accumulator.
/// </summary>
internal sealed class MatrixForms : IOracleTable
{
    private sealed record Product(string Shape, int K, int Bits, uint A, uint B, uint Unit, uint AB, bool IsHalf = false);

    private const uint F32One = 0x3F800000;

    private static readonly Product[] Products =
    [
        new("m16n8k8.row.col.f32.bf16.bf16.f32", 8, 16, 0x3F80, 0x3F80, F32One, F32One), new("m16n8k16.row.col.f32.bf16.bf16.f32", 16, 16, 0x3F80, 0x4000, F32One, 0x40000000),
        new("m16n8k8.row.col.f32.f16.f16.f32", 8, 16, 0x3C00, 0x3C00, F32One, F32One), new("m16n8k16.row.col.f32.f16.f16.f32", 16, 16, 0x3C00, 0x4000, F32One, 0x40000000),
        new("m16n8k8.row.col.f16.f16.f16.f16", 8, 16, 0x3C00, 0x4000, 0x3C00, 0x4000, true), new("m16n8k16.row.col.f16.f16.f16.f16", 16, 16, 0x3C00, 0x3800, 0x3C00, 0x3800, true),
        new("m16n8k4.row.col.f32.tf32.tf32.f32", 4, 32, F32One, F32One, F32One, F32One), new("m16n8k8.row.col.f32.tf32.tf32.f32", 8, 32, F32One, 0x40000000, F32One, 0x40000000),
        .. from k in (int[])[16, 32]
           from a in (char[])['s', 'u']
           from b in (char[])['s', 'u']
           from sat in (string[])["", "satfinite."]
           // 255 is -1 with a sign.
           select new Product($"m16n8k{k}.row.col.{sat}s32.{a}8.{b}8.s32", k, 8, 255, 254, 1, (uint)((a == 's' ? -1 : 255) * (b == 's' ? -2 : 254))),
    ];

    public IEnumerable<Oracle> Oracles =>
    [
        .. Products.Select(product => new Oracle($"mma.sync.aligned.{product.Shape}", [$"mma.sync.aligned.{product.Shape}"], (options, isQuick) => Multiply(options, product, isQuick))),
        .. from count in (int[])[1, 2, 4]
           from trans in (string[])["", ".trans"]
           from space in (string[])["shared", "shared::cta"]
           let form = $"ldmatrix.sync.aligned.m8n8.x{count}{trans}.{space}.b16"
           select new Oracle(form, [form], (options, _) => LoadMatrix(options, form, count, trans.Length > 0)),
    ];

    // Lane, register and position in the register of A(row, k), B(k, column) and C(row, column).
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

    private static (int Lane, int Register, int Position) C(int row, int column, bool isHalf) =>
        isHalf ? (row % 8 * 4 + column / 2, row / 8, column % 2) : (row % 8 * 4 + column / 2, row / 8 * 2 + column % 2, 0);

    private static void Multiply(EmulatorOptions options, Product p, bool isQuick)
    {
        int registersA = 16 * p.K * p.Bits / 1024, registersB = 8 * p.K * p.Bits / 1024, registersC = p.IsHalf ? 2 : 4;
        int registers = registersA + registersB + registersC, stride = 32 * registers;
        string List(char name, int count) => "{" + string.Join(", ", Enumerable.Range(0, count).Select(k => $"%{name}{k}")) + "}";
        var text = new StringBuilder(".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test(.param .u64 in, .param .u64 out)\n{\n.reg .b32 %a<4>; .reg .b32 %b<4>; .reg .b32 %c<4>; .reg .b32 %r<8>; .reg .b64 %rd<6>;\n");
        text.AppendLine("ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x;");
        text.AppendLine($"mul.lo.u32 %r3, %r1, {4 * stride}; mad.lo.u32 %r3, %r2, 4, %r3; cvt.u64.u32 %rd3, %r3; add.s64 %rd1, %rd1, %rd3; mul.lo.u32 %r3, %r1, 512; mad.lo.u32 %r3, %r2, 16, %r3; cvt.u64.u32 %rd3, %r3; add.s64 %rd2, %rd2, %rd3;");
        int at = 0;
        foreach ((char name, int count) in ((char, int)[])[('a', registersA), ('b', registersB), ('c', registersC)])
            for (int k = 0; k < count; k++) text.AppendLine($"ld.global.u32 %{name}{k}, [%rd1+{128 * at++}];");
        text.AppendLine($"mma.sync.aligned.{p.Shape} {List('c', registersC)}, {List('a', registersA)}, {List('b', registersB)}, {List('c', registersC)};");
        for (int k = 0; k < registersC; k++) text.AppendLine($"st.global.u32 [%rd2+{4 * k}], %c{k};");
        var image = new ModuleImage { Name = "mma.ptx", Architecture = "sm_80", Ptx = text.AppendLine("ret;\n}").ToString() };

        // Every (row, k, column): one block each, so that no block can borrow from another. The accumulator's one stands elsewhere.
        int[] cases = [.. Enumerable.Range(0, 16 * p.K * 8).Where(index => !isQuick || index % 29 == 0)];
        uint[] input = new uint[cases.Length * stride];
        for (int n = 0; n < cases.Length; n++)
        {
            (int row, int k, int column) = (cases[n] / (8 * p.K), cases[n] / 8 % p.K, cases[n] % 8);
            void Put((int Lane, int Register, int Position) place, int first, uint value, int bits) => input[n * stride + 32 * (first + place.Register) + place.Lane] |= value << (bits * place.Position);
            Put(A(row, k, p.Bits), 0, p.A, p.Bits);
            Put(B(k, column, p.Bits), registersA, p.B, p.Bits);
            Put(C((row + 5) % 16, (column + 3) % 8, p.IsHalf), registersA + registersB, p.Unit, p.IsHalf ? 16 : 32);
        }
        foreach (MmaModel model in isQuick ? [MmaModel.Chain] : Enum.GetValues<MmaModel>())
        {
            using var machine = new Machine(image, options with { Mma = model });
            DevicePointer px = machine.Upload(input), py = machine.Empty<uint>(cases.Length * 128);
            machine.Launch("test", new LaunchConfiguration(cases.Length, 32), px, py);
            uint[] got = machine.Download<uint>(py, cases.Length * 128), want = new uint[128];
            for (int n = 0; n < cases.Length; n++)
            {
                (int row, int column) = (cases[n] / (8 * p.K), cases[n] % 8);
                Array.Clear(want);
                void Expect((int Lane, int Register, int Position) place, uint value) => want[4 * place.Lane + place.Register] |= value << (16 * place.Position);
                Expect(C(row, column, p.IsHalf), p.AB);
                Expect(C((row + 5) % 16, (column + 3) % 8, p.IsHalf), p.Unit);
                for (int lane = 0; lane < 32; lane++)
                    for (int register = 0; register < registersC; register++)
                        Assert.True(want[4 * lane + register] == got[n * 128 + 4 * lane + register],
                            $"{p.Shape} {model}, A({row},{cases[n] / 8 % p.K}) B({cases[n] / 8 % p.K},{column}): lane {lane} register {register} is 0x{got[n * 128 + 4 * lane + register]:X}, want 0x{want[4 * lane + register]:X}");
            }
        }
    }

    // Every element has a number of its own, rows lie in any order, and the lanes whose address does not count have none.
    private static void LoadMatrix(EmulatorOptions options, string form, int count, bool isTransposed)
    {
        int[] place = [.. Enumerable.Range(0, 32).Select(row => row * 11 % 32)];
        ushort[] elements = new ushort[256];
        for (int matrix = 0; matrix < 4; matrix++)
            for (int row = 0; row < 8; row++)
                for (int column = 0; column < 8; column++) elements[place[matrix * 8 + row] * 8 + column] = (ushort)Number(matrix, row, column);
        string d = "{" + string.Join(", ", Enumerable.Range(0, count).Select(k => $"%d{k}")) + "}";
        var text = new StringBuilder(".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry test(.param .u64 in, .param .u64 rows, .param .u64 out)\n{\n.reg .b32 %d<4>; .reg .b32 %r<12>; .reg .b64 %rd<8>; .shared .align 16 .b8 sm[512];\n");
        text.AppendLine("ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [rows]; ld.param.u64 %rd3, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd4, %r1, 16; add.s64 %rd1, %rd1, %rd4; add.s64 %rd3, %rd3, %rd4; mul.wide.u32 %rd5, %r1, 4; add.s64 %rd2, %rd2, %rd5;");
        text.AppendLine("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1]; mov.u32 %r6, sm; mad.lo.u32 %r7, %r1, 16, %r6; st.shared.v4.u32 [%r7], {%r2, %r3, %r4, %r5}; bar.warp.sync 0xffffffff; ld.global.u32 %r8, [%rd2]; add.s32 %r9, %r6, %r8;");
        text.AppendLine($"{form} {d}, [%r9];");
        for (int k = 0; k < count; k++) text.AppendLine($"st.global.u32 [%rd3+{4 * k}], %d{k};");
        using var machine = new Machine(new ModuleImage { Name = "ldmatrix.ptx", Architecture = "sm_80", Ptx = text.AppendLine("ret;\n}").ToString() }, options);
        DevicePointer output = machine.Empty<uint>(128);
        machine.Launch("test", new LaunchConfiguration(1, 32), machine.Upload(elements), machine.Upload<uint>([.. Enumerable.Range(0, 32).Select(lane => lane < 8 * count ? (uint)place[lane] * 16 : 0xFFFFFF01)]), output);
        uint[] got = machine.Download<uint>(output, 128);
        for (int lane = 0; lane < 32; lane++)
        {
            for (int matrix = 0; matrix < count; matrix++)
            {
                int a = lane / 4, b = lane % 4 * 2;
                uint want = isTransposed ? Number(matrix, b, a) | Number(matrix, b + 1, a) << 16 : Number(matrix, a, b) | Number(matrix, a, b + 1) << 16;
                Assert.True(want == got[4 * lane + matrix], $"{form}: lane {lane}, matrix {matrix} holds 0x{got[4 * lane + matrix]:X}, want 0x{want:X}");
            }
        }
    }

    private static uint Number(int matrix, int row, int column) => (uint)(0x1000 * (matrix + 1) + 0x100 * row + column);
}
