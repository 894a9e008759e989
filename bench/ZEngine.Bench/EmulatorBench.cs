using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Runtime.InteropServices;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Bench;

/// <summary>
/// Throughput of the emulator on the kernels of its tests: thread instructions per second, light (bounds and alignment) and deep (all but
/// global races), one worker. CPU time, and the best of several repetitions, because the machine may be shared.
/// </summary>
internal static class EmulatorBench
{
    private sealed record Case(string Name, string File, Action<EmulatedCudaDriver, Func<string, CudaFunctionHandle>> Run);

    public static void Run(string? filter)
    {
        string root = typeof(EmulatorBench).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(a => a.Key == "RepositoryRoot").Value!;
        string kernels = Path.Combine(root, "tests", "ZEngine.Tests", "Emulator", "kernels");
        Nvrtc nvrtc = Nvrtc.Load();
        var cache = new CompileCache();
        Console.WriteLine($"{"kernel",-16} {"checks",-6} {"best ms",9} {"Mthread-inst",13} {"G/s",7}");
        foreach (Case c in Cases())
        {
            if (filter is not null && !c.Name.Contains(filter, StringComparison.OrdinalIgnoreCase)) continue;
            ModuleImage image = cache.Compile(nvrtc, new CompileRequest { Name = c.File, Source = File.ReadAllText(Path.Combine(kernels, c.File)) });
            foreach ((string label, EmulatorChecks checks) in (ReadOnlySpan<(string, EmulatorChecks)>)[("light", EmulatorChecks.None), ("deep", EmulatorChecks.Deep)])
            {
                using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = checks });
                CudaModuleHandle module = driver.LoadModule(image);
                double best = double.MaxValue;
                var total = Stopwatch.StartNew();
                long before = 0, instructions = 0;
                c.Run(driver, name => driver.GetFunction(module, name));              // allocates, uploads, and compiles the handlers
                for (int k = 0; k < 30 && (total.Elapsed.TotalSeconds < 4 || k < 5); k++)
                {
                    before = driver.Instructions.Thread;
                    TimeSpan start = Environment.CpuUsage.TotalTime;
                    s_launch!();
                    driver.Synchronize();
                    best = Math.Min(best, (Environment.CpuUsage.TotalTime - start).TotalMilliseconds);
                    instructions = driver.Instructions.Thread - before;
                }
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{c.Name,-16} {label,-6} {best,9:F2} {instructions / 1e6,13:F2} {instructions / best / 1e6,7:F2}"));
                if (driver.Faults.Count > 0) Console.WriteLine(driver.Faults[0]);
            }
        }
    }

    private static Action? s_launch;

    private static IEnumerable<Case> Cases()
    {
        yield return new("alu", "RmsNormProbe.cu", (driver, get) =>
        {
            DevicePointer a = driver.Allocate(4 * 65536), b = driver.Allocate(4 * 65536);
            Set(driver, get("alu"), new(256, 256), Pack(a.Address, b.Address, 100));
        });
        yield return new("rmsnorm_f32", "RmsNormProbe.cu", (driver, get) => Norm(driver, get("rmsnorm_f32"), 4));
        yield return new("rmsnorm_bf16", "RmsNormProbe.cu", (driver, get) => Norm(driver, get("rmsnorm_bf16"), 2));
        yield return new("scan_shared", "Scan.cu", (driver, get) =>
        {
            DevicePointer x = Filled(driver, 2000 * 256 * 4), y = driver.Allocate(2000 * 256 * 4);
            Set(driver, get("scan_shared"), new(2000, 256), Pack(x.Address, y.Address));
        });
        yield return new("gemm_bf16_256", "Gemm.cu", (driver, get) =>
        {
            DevicePointer a = Filled(driver, 256 * 256 * 2), b = Filled(driver, 256 * 256 * 2), c = driver.Allocate(256 * 256 * 4);
            Set(driver, get("gemm_bf16"), new(new Dim3(4, 4), 128), Pack(a.Address, b.Address, c.Address, 256, 256, 256));
        });
        yield return new("attention_256", "Attention.cu", (driver, get) =>
        {
            const ulong bytes = 2 * 256 * 64 * 2;
            DevicePointer q = Filled(driver, bytes), k = Filled(driver, bytes), v = Filled(driver, bytes), o = driver.Allocate(bytes);
            Set(driver, get("attention_forward"), new(new Dim3(4, 2), 128), Pack(q.Address, k.Address, v.Address, o.Address, 256, 0.125f));
        });
    }

    private static void Norm(EmulatedCudaDriver driver, CudaFunctionHandle function, int elementBytes)
    {
        ulong bytes = 512ul * 2048 * (ulong)elementBytes;
        DevicePointer x = Filled(driver, bytes), w = Filled(driver, 2048ul * (ulong)elementBytes), y = driver.Allocate(bytes);
        Set(driver, function, new(512, 256), Pack(x.Address, w.Address, y.Address, 2048));
    }

    private static void Set(EmulatedCudaDriver driver, CudaFunctionHandle function, LaunchConfiguration configuration, byte[] arguments)
    {
        s_launch = () => driver.Launch(function, configuration, arguments);
        s_launch();
        driver.Synchronize();
    }

    // 1.0 in bf16, and a number near 1 in float.
    private static DevicePointer Filled(EmulatedCudaDriver driver, ulong bytes)
    {
        DevicePointer pointer = driver.Allocate(bytes);
        driver.FillAsync(pointer, 0x3F80, 2, bytes / 2, default);
        return pointer;
    }

    private static byte[] Pack(params object[] values)
    {
        var bytes = new List<byte>();
        foreach (object value in values)
        {
            int size = Marshal.SizeOf(value);
            while (bytes.Count % size != 0) bytes.Add(0);
            bytes.AddRange(value switch { ulong x => BitConverter.GetBytes(x), int x => BitConverter.GetBytes(x), float x => BitConverter.GetBytes(x), _ => throw new ArgumentException("unknown argument") });
        }
        return [.. bytes];
    }
}
