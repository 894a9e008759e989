using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;
using Xunit;

namespace ZEngine.Tests.Emulator;

/// <summary>Kernels of many styles, compiled in several ways, load, run clean under every check, and agree with each other.</summary>
public sealed class StyleTests
{
    private const int N = 96;

    private static readonly float[] X = [.. Enumerable.Range(0, N).Select(k => (k * 37 % N - 48) / 40f)];

    private static float[] Run(string kernel, string[] options, EmulatorOptions emulator)
    {
        using var machine = new Machine(Sources.Read("Styles.cu"), emulator, options);
        DevicePointer x = machine.Upload(X, "x"), y = machine.Empty<float>(N, "y");
        var configuration = new LaunchConfiguration(3, 32);
        if (kernel == "structures")
        {
            byte[] view = [.. BitConverter.GetBytes(x.Address), .. BitConverter.GetBytes(8L), .. BitConverter.GetBytes(12L)];
            machine.Launch(kernel, configuration, x, y, view, N);
        }
        else
        {
            machine.Launch(kernel, configuration, x, y, N);
        }
        float[] result = machine.Download<float>(y, N);
        Assert.Empty(machine.Faults);
        return result;
    }

    [Theory]
    [InlineData("math", 1e-3)]
    [InlineData("doubles", 1e-5)]
    [InlineData("integers", 0)]
    [InlineData("local_arrays", 0)]
    [InlineData("calls", 0)]
    [InlineData("atomics", 0)]
    [InlineData("halves", 0)]
    [InlineData("structures", 0)]
    public void Debug_and_optimised_code_agree(string kernel, double tolerance)
    {
        float[] plain = Run(kernel, [], new EmulatorOptions { Checks = EmulatorChecks.All });
        float[] debug = Run(kernel, ["-G"], new EmulatorOptions { Checks = EmulatorChecks.Deep });
        float[] adversarial = Run(kernel, [], new EmulatorOptions { Checks = EmulatorChecks.All, Policy = SchedulingPolicy.Adversarial, Seed = 5 });
        Assert.Equal(plain, adversarial);
        float[] fast = Run(kernel, ["-use_fast_math"], new EmulatorOptions());
        for (int k = 0; k < N; k++)
        {
            Assert.Equal(plain[k], debug[k], Math.Max(1e-9, 1e-6 * Math.Abs(plain[k])));
            Assert.InRange(fast[k], plain[k] - tolerance * (1 + Math.Abs(plain[k])), plain[k] + tolerance * (1 + Math.Abs(plain[k])));
        }
    }

    [Fact]
    public void Math_equals_double_precision()
    {
        float[] y = Run("math", [], new EmulatorOptions());
        for (int k = 0; k < N; k++)
        {
            double v = X[k], a = Math.Abs(v);
            double erf = 0;                                                        // by its series, which converges fast here
            for (int n = 0; n < 40; n++) erf += Math.Pow(-1, n) * Math.Pow(v, 2 * n + 1) / (Enumerable.Range(1, n).Aggregate(1.0, (p, q) => p * q) * (2 * n + 1));
            double want = Math.Sin(v) + Math.Cos((float)v * 100f) + Math.Exp(v) + Math.Log(a + 1) + Math.Pow(a + 0.1f, 1.3f) + Math.Tanh(v) + 2 / Math.Sqrt(Math.PI) * erf + Math.Atan2(v, 2) + Math.Sqrt(a)
                + 1 / Math.Sqrt(a + 1) + (X[k] % 0.3f) + Math.Floor(v) + Math.Ceiling(v) + Math.Round(v) + Math.Truncate(v) + Math.Log(1 + a) + Math.Exp(v) - 1 + Math.Cbrt(v) + Math.Exp(v) + v / 3
                + Math.Pow(2, v) + Math.Log2(a + 1) + Math.Sqrt(v * v + 1);
            Assert.Equal(want, y[k], 2e-5);
        }
    }

    [Fact]
    public void Unknown_forms_fail_at_load_and_name_themselves()
    {
        void Refused(string form, string ptx)
        {
            string text = ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k()\n{ .reg .b32 %r<4>; .reg .b64 %rd<4>; .reg .pred %p<2>;\n" + ptx + "\nret; }";
            using var driver = new EmulatedCudaDriver();
            PtxUnsupportedExceptionOf(form, () => driver.LoadModule(new ModuleImage { Name = "m", Architecture = "sm_80", Ptx = text }));
        }
        Refused("mul24.lo.u32", "mul24.lo.u32 %r1, %r2, %r3;");
        Refused("tex.2d.v4.f32.f32", "tex.2d.v4.f32.f32 {%r1,%r1,%r1,%r1}, [%rd1, {%r2, %r3}];");
        Refused("wgmma.fence.sync.aligned", "wgmma.fence.sync.aligned;");
        Refused("ld.global.strange.u32", "ld.global.strange.u32 %r1, [%rd1];");
        Refused("shfl.bfly.b32", "shfl.bfly.b32 %r1, %r2, 1, 31;");
    }

    private static void PtxUnsupportedExceptionOf(string form, Action load)
    {
        Exception e = Assert.ThrowsAny<Exception>(load);
        Assert.IsType<ZEngine.Emulator.Ptx.PtxUnsupportedException>(e);
        Assert.Contains(form.Split('.')[0], e.Message, StringComparison.Ordinal);
        Assert.Contains("PTX line", e.Message, StringComparison.Ordinal);
    }
}
