using System.Runtime.InteropServices;
using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;
using Xunit;

namespace ZEngine.Tests.Emulator;

/// <summary>kernels/RmsNorm.cu through the seam: against golden cases and plain loops, with the traffic its header states.</summary>
public sealed class RmsNormKernelTests
{
    private const int Threads = 128;

    [StructLayout(LayoutKind.Sequential)]
    private struct ForwardArgs
    {
        public DevicePointer X, Weight, Y, S;
        public float Eps;
        public int D;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct BackwardArgs
    {
        public DevicePointer X, Weight, Dy, S, Dx, Partial;
        public int R, D;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct WeightArgs
    {
        public DevicePointer Partial, DWeight;
        public int P, D;
    }

    private sealed record Norm(float[] Y, float[] Dx, float[] DWeight, IReadOnlyList<LaunchProfile> Profiles);

    private static string[] Names(int V, int C) => [$"rms_norm_forward<f32, {V}, {C}>", $"rms_norm_backward<f32, {V}, {C}>", "rms_norm_weight_backward<f32>"];

    private static (int V, int C) Plan(int D)
    {
        int v = D % 4 == 0 ? 4 : D % 2 == 0 ? 2 : 1;
        return (v, (D + Threads * v - 1) / (Threads * v));
    }

    private static Norm Run(float[] x, float[] weight, float[] dy, float eps, int D, int blocks, EmulatorOptions options)
    {
        int R = x.Length / D;
        (int V, int C) = Plan(D);
        string[] names = Names(V, C);
        ModuleImage image = Compiler.CompileKernel("RmsNorm.cu", $"sm_{options.Architecture}", names);
        using var machine = new Machine(image, options);
        EmulatedCudaDriver driver = machine.Driver;
        CudaModuleHandle module = driver.LoadModule(image);
        CudaFunctionHandle forward = driver.GetFunction(module, image.Lowered(names[0])), backward = driver.GetFunction(module, image.Lowered(names[1])), reduce = driver.GetFunction(module, image.Lowered(names[2]));
        DevicePointer px = machine.Upload(x, "x"), pw = machine.Upload(weight, "weight"), pdy = machine.Upload(dy, "dy");
        DevicePointer y = machine.Empty<float>(x.Length, "y"), s = machine.Empty<float>(R, "s"), dx = machine.Empty<float>(x.Length, "dx");
        DevicePointer partial = machine.Empty<float>(blocks * D, "partial"), dWeight = machine.Empty<float>(D, "dweight");
        driver.Launch(forward, new LaunchConfiguration(R, Threads), new ForwardArgs { X = px, Weight = pw, Y = y, S = s, Eps = eps, D = D });
        driver.Launch(backward, new LaunchConfiguration(blocks, Threads, 4 * D), new BackwardArgs { X = px, Weight = pw, Dy = pdy, S = s, Dx = dx, Partial = partial, R = R, D = D });
        driver.Launch(reduce, new LaunchConfiguration((D + Threads - 1) / Threads, Threads), new WeightArgs { Partial = partial, DWeight = dWeight, P = blocks, D = D });
        var result = new Norm(machine.Download<float>(y, x.Length), machine.Download<float>(dx, x.Length), machine.Download<float>(dWeight, D), driver.Profiles);
        Assert.Empty(machine.Faults);
        return result;
    }

    /// <summary>The recorded cases, and the 16-bit types against the same kernel in float.</summary>
    internal static void Scenario(EmulatorOptions options)
    {
        foreach (string name in (string[])["rms_norm", "rms_norm_odd"])
        {
            Dictionary<string, (int[] Shape, float[] Data)> golden = Safetensors.Read(Path.Combine(AppContext.BaseDirectory, "golden", "ops", name, "tensors.safetensors"));
            Norm norm = Run(golden["in.x"].Data, golden["in.weight"].Data, golden["gout.y"].Data, 1e-5f, golden["in.x"].Shape[^1], 4, options);
            Close(golden["out.y"].Data, norm.Y);
            Close(golden["grad.x"].Data, norm.Dx);
            Close(golden["grad.weight"].Data, norm.DWeight);
        }
        Half(options, "bf16", x => (ushort)(BitConverter.SingleToUInt32Bits(x) >> 16), x => BitConverter.UInt32BitsToSingle((uint)x << 16), 1 / 256f);
        Half(options, "f16", x => BitConverter.HalfToUInt16Bits((Half)x), x => (float)BitConverter.UInt16BitsToHalf(x), 1 / 2048f);
    }

    private static void Half(EmulatorOptions options, string type, Func<float, ushort> narrow, Func<ushort, float> widen, float rounding)
    {
        const int R = 7, D = 256, P = 2;
        var random = new Random(D);
        ushort[] Some(int n) => [.. Enumerable.Range(0, n).Select(_ => narrow((float)(random.NextDouble() * 2 - 1)))];
        float[] Wide(ushort[] values) => [.. values.Select(widen)];
        ushort[] x = Some(R * D), weight = Some(D), dy = Some(R * D);
        Norm want = Run(Wide(x), Wide(weight), Wide(dy), 1e-5f, D, P, options);
        string[] names = [$"rms_norm_forward<{type}, 8, 1>", $"rms_norm_backward<{type}, 8, 1>", $"rms_norm_weight_backward<{type}>"];
        using var machine = new Machine(Compiler.CompileKernel("RmsNorm.cu", $"sm_{options.Architecture}", names), options);
        DevicePointer px = machine.Upload(x, "x"), pw = machine.Upload(weight, "weight"), pdy = machine.Upload(dy, "dy"), y = machine.Empty<ushort>(R * D, "y"), s = machine.Empty<float>(R, "s");
        DevicePointer dx = machine.Empty<ushort>(R * D, "dx"), partial = machine.Empty<float>(P * D, "partial"), dWeight = machine.Empty<ushort>(D, "dweight");
        machine.Launch(names[0], new LaunchConfiguration(R, Threads), Bytes(new ForwardArgs { X = px, Weight = pw, Y = y, S = s, Eps = 1e-5f, D = D }));
        machine.Launch(names[1], new LaunchConfiguration(P, Threads, 4 * D), Bytes(new BackwardArgs { X = px, Weight = pw, Dy = pdy, S = s, Dx = dx, Partial = partial, R = R, D = D }));
        machine.Launch(names[2], new LaunchConfiguration((D + Threads - 1) / Threads, Threads), Bytes(new WeightArgs { Partial = partial, DWeight = dWeight, P = P, D = D }));
        Near(want.Y, Wide(machine.Download<ushort>(y, R * D)));
        Near(want.Dx, Wide(machine.Download<ushort>(dx, R * D)));
        Near(want.DWeight, Wide(machine.Download<ushort>(dWeight, D)));
        Assert.Empty(machine.Faults);
        void Near(float[] a, float[] b)
        {
            for (int k = 0; k < a.Length; k++) Assert.True(Math.Abs(a[k] - b[k]) <= rounding * Math.Abs(a[k]) + 1e-5, $"{type} [{k}]: got {b[k]:R}, want {a[k]:R}");
        }
    }

    private static byte[] Bytes<T>(T value) where T : unmanaged => MemoryMarshal.AsBytes<T>(new Span<T>(ref value)).ToArray();

    private static void Close(float[] want, float[] got)
    {
        double scale = Math.Sqrt(want.Average(w => (double)w * w));
        for (int k = 0; k < want.Length; k++) Assert.True(Math.Abs(want[k] - got[k]) <= 3e-6 * (scale + Math.Abs(want[k])), $"[{k}]: got {got[k]:R}, want {want[k]:R}");
    }

    [Theory]
    [InlineData(6, 512, 3)]
    [InlineData(5, 70, 2)]
    [InlineData(3, 33, 3)]
    public void Traffic_equals_the_header(int R, int D, int P)
    {
        var random = new Random(R);
        float[] Some(int n) => [.. Enumerable.Range(0, n).Select(_ => (float)random.NextDouble())];
        Norm norm = Run(Some(R * D), Some(D), Some(R * D), 1e-5f, D, P, new EmulatorOptions());
        LaunchProfile forward = norm.Profiles[0], backward = norm.Profiles[1], reduce = norm.Profiles[2];
        Assert.Equal(4L * 2 * R * D, forward.GlobalBytesRead);
        Assert.Equal(4L * (R * D + R), forward.GlobalBytesWritten);
        // The row's scale is one float, but every thread asks for it.
        Assert.Equal(4L * (3 * R * D + R * Threads), backward.GlobalBytesRead);
        Assert.Equal(4L * (R * D + P * D), backward.GlobalBytesWritten);
        Assert.Equal(4L * P * D, reduce.GlobalBytesRead);
        Assert.Equal(4L * D, reduce.GlobalBytesWritten);
        if (D != 512) return;
        // Whole rows of 16-byte accesses: 32-byte sectors are full, and a warp asks for four at a time.
        Assert.Equal(4L * 2 * R * D / 32, forward[InstructionClass.GlobalLoad].Sectors);
        Assert.Equal(R * 2 * 4L, forward[InstructionClass.GlobalLoad].Requests);
        Assert.Equal(R * 2 * 4L, forward[InstructionClass.Barrier].Executions);
    }

    [Theory]
    [InlineData("sm_80")]
    [InlineData("sm_86")]
    [InlineData("sm_89")]
    [InlineData("sm_90a")]
    public void Assembles_without_spills(string architecture)
    {
        ModuleImage image = Compiler.CompileKernel("RmsNorm.cu", architecture, [.. Names(4, 2), "rms_norm_forward<bf16, 8, 1>", "rms_norm_backward<bf16, 8, 1>", "rms_norm_forward<f16, 8, 1>"]);
        Assert.NotEmpty(image.Cubin);
        Assert.Equal(6, image.Resources.Count);
        Assert.All(image.Resources.Values, r =>
        {
            Assert.Equal(0, r.SpillLoadBytes + r.SpillStoreBytes + r.StackBytes);
            Assert.InRange(r.Registers, 8, 64);
        });
    }
}
