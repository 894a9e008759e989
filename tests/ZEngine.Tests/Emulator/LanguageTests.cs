using ZEngine.Emulator;
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;
using ZEngine.Interop;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Emulator;

/// <summary>Features of CUDA C beyond arithmetic: printing, parameters behind a pointer, and what is refused at load.</summary>
public sealed class LanguageTests
{
    [Fact]
    public void Kernels_print_what_c_prints()
    {
        const string source = """
            extern "C" __global__ void speak(const int* x)
            {
                int i = blockIdx.x * blockDim.x + threadIdx.x;
                if (i % 16 == 3) printf("%d|%5d|%-5d|%05d|%+d|%x|%#X|%u|%lld|%c|%s|%%\n", x[i], x[i], x[i], x[i], x[i], x[i], 255, 4000000000u, -(1ll << 40), 'q', "text");
                if (i == 33) { int n = printf("%.3f|%10.2e|%g|%g|%G|%08.2f|%*d|%.2s\n", 3.14159, 12345.678, 0.0001, 1e-5, 1e20, -2.5f, 6, 42, "abc"); printf("%d %p\n", n, (void*)0); }
            }
            """;
        using var output = new StringWriter();
        using var machine = new Machine(source, new EmulatorOptions { DeviceOutput = output });
        Assert.Empty(machine.Run("speak", new LaunchConfiguration(2, 32), machine.Upload<int>([.. Enumerable.Range(0, 64).Select(k => k - 20)])));
        string[] lines = output.ToString().Split('\n');
        string Line(int v) => $"{v}|{v,5}|{v,-5}|{(v < 0 ? "-" : "0")}{Math.Abs(v):D4}|{(v < 0 ? "" : "+")}{v}|{(uint)v:x}|0XFF|4000000000|-1099511627776|q|text|%";
        Assert.Equal(Line(-17), lines[0]);
        Assert.Equal(Line(-1), lines[1]);
        Assert.Equal([Line(15), Line(31)], lines.Where(line => line.EndsWith("text|%", StringComparison.Ordinal)).Skip(2));
        Assert.Contains("3.142|  1.23e+04|0.0001|1e-05|1E+20|-0002.50|    42|ab", lines);
        Assert.Contains("9 (nil)", lines);
    }

    /// <summary>By the rules of C, worked out by hand.</summary>
    [Theory]
    [InlineData("%5.1f|%-8.3f|% d|%+.0f", "  2.5|1.250   | 7|+3", 2.5, 1.25, 7, 3.0)]
    [InlineData("%e %.0e %g %g", "1.500000e+00 2e+10 100000 1e+06", 1.5, 2e10, 1e5, 1e6)]
    [InlineData("%hhd %hd %hu", "-1 -2 65535", 255, 65534, -1)]
    [InlineData("%o %#o %08.3d", "17 017      007", 15, 15, 7)]
    [InlineData("100%% %q", "100% %q")]
    public void Formats_as_c(string format, string want, params object[] arguments)
    {
        int at = 0;
        ulong Next(int bytes) => arguments[at++] is double d ? BitConverter.DoubleToUInt64Bits(d) : bytes == 8 ? (ulong)(int)arguments[at - 1] : (uint)(int)arguments[at - 1];
        Assert.Equal(want, DevicePrintf.Format(format, Next, _ => ""));
    }

    [Fact]
    public void Parameters_can_be_read_through_a_pointer()
    {
        const string source = """
            struct Table { int first; int values[20]; };
            __noinline__ __device__ int pick(const int* p, int k) { return p[k]; }
            extern "C" __global__ void look_up(const __grid_constant__ Table table, int* out) { int i = threadIdx.x; out[i] = i % 2 ? pick(table.values, i % 20) : pick(out, 32 + i) + table.values[(i * 7) % 20]; }
            """;
        byte[] table = new byte[84];
        for (int k = 0; k < 21; k++) BitConverter.GetBytes(1000 + k).CopyTo(table, 4 * k);
        foreach (SchedulingPolicy policy in Enum.GetValues<SchedulingPolicy>())
        {
            using var machine = new Machine(source, new EmulatorOptions { Policy = policy });
            Assert.Contains("cvta.param", machine.Image.Ptx, StringComparison.Ordinal);
            DevicePointer output = machine.Upload<int>([.. Enumerable.Range(0, 64)]);
            Assert.Empty(machine.Run("look_up", new LaunchConfiguration(1, 32), table, output));
            int[] got = machine.Download<int>(output, 32);
            for (int i = 0; i < 32; i++) Assert.Equal(i % 2 == 1 ? 1001 + i % 20 : 32 + i + 1001 + i * 7 % 20, got[i]);
        }
    }

    [Fact]
    public void A_store_to_the_parameters_is_a_fault()
    {
        const string ptx = ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 a)\n{ .reg .b64 %rd<3>; mov.b64 %rd1, a; cvta.param.u64 %rd2, %rd1; st.u64 [%rd2], %rd1; ret; }";
        using var machine = new Machine(new ModuleImage { Name = "m", Architecture = "sm_80", Ptx = ptx });
        Assert.Equal(FaultKind.WrongWindow, Assert.Single(machine.Run("k", new LaunchConfiguration(1, 1), 0ul)).Kind);
    }

    [Theory]
    [InlineData("recursion", "calls itself", "__noinline__ __device__ int down(int n) { return n < 2 ? n : down(n - 1) + down(n - 2); } extern \"C\" __global__ void k(int* x) { x[0] = down(x[1]); }")]
    [InlineData("function pointers", "function pointers are not supported", "__noinline__ __device__ int a(int n) { return n * 2; } __noinline__ __device__ int b(int n) { return n + 5; } extern \"C\" __global__ void k(int* x) { int (*f)(int) = x[0] ? a : b; x[1] = f(x[2]); }")]
    [InlineData("malloc", "not supported", "extern \"C\" __global__ void k(int** x) { x[0] = (int*)malloc(8); }")]
    public void What_does_not_run_is_refused_at_load(string what, string reason, string source)
    {
        ModuleImage image = Compiler.Compile(source);
        using var driver = new EmulatedCudaDriver();
        PtxUnsupportedException refused = Assert.Throws<PtxUnsupportedException>(() => driver.LoadModule(image));
        Assert.True(refused.Message.Contains(reason, StringComparison.Ordinal) && refused.Message.Contains("PTX line", StringComparison.Ordinal), $"{what}: {refused.Message}");
    }

    [Fact]
    public void A_stream_race_is_charged_to_its_device()
    {
        const string source = "extern \"C\" __global__ void increment(int* x) { x[threadIdx.x] += 1; }";
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Devices = 2 });
        driver.CurrentDevice = 1;
        ModuleImage image = Compiler.Compile(source);
        CudaFunctionHandle function = driver.GetFunction(driver.LoadModule(image), image.Lowered("increment"));
        DevicePointer x = driver.Allocate(256);
        driver.FillAsync(x, 0, 4, 64, default);
        driver.Synchronize();
        foreach (CudaStreamHandle stream in (CudaStreamHandle[])[driver.CreateStream(), driver.CreateStream()]) driver.Launch(function, new LaunchConfiguration(1, 64, 0, stream), BitConverter.GetBytes(x.Address));
        Assert.Throws<EmulatorFaultException>(driver.Synchronize);
        Assert.Equal(FaultKind.StreamRace, Assert.Single(driver.Faults).Kind);
        driver.CurrentDevice = 0;
        driver.Synchronize();
        driver.Allocate(64);
    }
}
