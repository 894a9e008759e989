using System.Runtime.CompilerServices;
using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests;

/// <summary>
/// The devices that every op test runs on: the CPU, the CUDA device over the emulator, and the CUDA device of the machine where there is one; or those that
/// <c>ZENGINE_TEST_DEVICES</c> names, with commas between.
/// </summary>
internal static class Devices
{
    private const string Variable = "ZENGINE_TEST_DEVICES";

    public static readonly string[] Names = Chosen();

    /// <summary>The CUDA device without cuBLASLt, so that the engine's own products run on a GPU too.</summary>
    public const string OwnProducts = "cuda own products";

    /// <summary>The devices of op tests: CUDA devices also with 16-bit activations.</summary>
    public static readonly string[] OpNames = [.. from name in (string[])[.. Names, .. Names.Contains("cuda") ? [OwnProducts] : Array.Empty<string>()] from type in name == "cpu" ? [""] : (string[])["", Half] select name + type];

    private const string Half = " bf16";

    private static readonly Emulated Checked = new(new EmulatorOptions { Checks = EmulatorChecks.Uninitialised | EmulatorChecks.SharedRaces, Workers = Environment.ProcessorCount });
    private static readonly Emulated Scrambled = new(new EmulatorOptions { Checks = EmulatorChecks.None, Policy = SchedulingPolicy.Adversarial, Workers = Environment.ProcessorCount });
    private static readonly Lazy<CudaDevice> Gpu = new(() => CudaDevice.Open(0)), GpuAlone = new(() => CudaDevice.Open(0, options: new CudaOptions { UsesCublasLt = false }));

    private static string[] Chosen()
    {
        string[] all = CudaDevice.IsAvailable ? ["cpu", "emulator", "cuda"] : ["cpu", "emulator"];
        if (Environment.GetEnvironmentVariable(Variable) is not { Length: > 0 } text) return all;
        string[] chosen = text.Split(',', StringSplitOptions.TrimEntries);
        return chosen.All(all.Contains) ? chosen : throw new InvalidOperationException($"{Variable}={text}: the devices here are {string.Join(", ", all)}. {CudaDevice.UnavailableReason}");
    }

    public static Device Open(string name) => name switch
    {
        "cpu" => Device.Cpu,
        "emulator" => Checked.Device,
        "scrambled emulator" => Scrambled.Device,
        "cuda" => Gpu.Value,
        OwnProducts => GpuAlone.Value,
        _ => throw new ArgumentException($"No device {name}."),
    };

    /// <summary>A device of <see cref="OpNames"/>, and the type that activations have on it.</summary>
    public static (string Device, DType Type) OfOp(string name) => name.EndsWith(Half, StringComparison.Ordinal) ? (name[..^Half.Length], DType.BFloat16) : (name, DType.Float32);

    /// <summary>A CUDA device over an emulator of one's own.</summary>
    public static CudaDevice OpenEmulated(EmulatedCudaDriver driver, CudaOptions? options = null, int ordinal = 0)
    {
        if (PackedKernels.Own.Count == 0) _ = Compiler.Nvrtc;  // fetched where the machine has none
        return CudaDevice.Open(ordinal, driver, options);
    }

    private static readonly ConditionalWeakTable<Device, StrongBox<long>> Kept = [];

    /// <summary>
    /// Buffers that are held now. What an earlier test dropped on purpose is collected first, or it would go while a later test counts; but those that a collection left
    /// before, caches for one, are not looked at again.
    /// </summary>
    public static long LiveBuffers(Device device)
    {
        StrongBox<long> kept = Kept.GetOrCreateValue(device);
        if (device.LiveBuffers != kept.Value)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            kept.Value = device.LiveBuffers;
        }
        return device.LiveBuffers;
    }

    /// <summary>Fresh memory reads as NaN and blocks are checked for writes beyond their ends, in every test.</summary>
    [ModuleInitializer]
    internal static void Guard() => CpuDevice.Instance.Guards = true;

    /// <summary>A device over an emulator that tests share. One with a finding refuses every call from then on, so the next test gets another.</summary>
    private sealed class Emulated(EmulatorOptions options)
    {
        private readonly Lock _gate = new();
        private Func<int> _findings = () => 0;
        private CudaDevice? _device;

        public CudaDevice Device
        {
            get
            {
                lock (_gate)
                {
                    if (_device is not null && _findings() == 0) return _device;
                    var driver = new EmulatedCudaDriver(options);
                    _findings = () => driver.Faults.Count;
                    return _device = OpenEmulated(driver);
                }
            }
        }
    }
}
