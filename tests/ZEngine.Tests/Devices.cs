using System.Runtime.CompilerServices;
using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests;

/// <summary>The devices that every op test runs on: the CPU, the CUDA device over the emulator, and the CUDA device of the machine where there is one.</summary>
internal static class Devices
{
    public static readonly string[] Names = CudaDevice.IsAvailable ? ["cpu", "emulator", "cuda"] : ["cpu", "emulator"];

    /// <summary>The devices of op tests: CUDA devices also with 16-bit activations.</summary>
    public static readonly string[] OpNames = [.. Names, .. Names.Where(name => name != "cpu").Select(name => name + Half)];

    private const string Half = " bf16";

    private static readonly Lazy<EmulatedCudaDriver> Driver = new(() => new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.Uninitialised | EmulatorChecks.SharedRaces, Workers = Environment.ProcessorCount }));
    private static readonly Lazy<EmulatedCudaDriver> ScrambledDriver = new(() => new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.None, Policy = SchedulingPolicy.Adversarial, Workers = Environment.ProcessorCount }));
    private static readonly Lazy<CudaDevice> EmulatorDevice = new(() => OpenEmulated(Driver.Value)), Scrambled = new(() => OpenEmulated(ScrambledDriver.Value)), Gpu = new(() => CudaDevice.Open(0));

    public static Device Open(string name) => name switch
    {
        "cpu" => Device.Cpu,
        "emulator" => EmulatorDevice.Value,
        "scrambled emulator" => Scrambled.Value,
        "cuda" => Gpu.Value,
        _ => throw new ArgumentException($"No device {name}."),
    };

    /// <summary>A device of <see cref="OpNames"/>, and the type that activations have on it.</summary>
    public static (string Device, DType Type) OfOp(string name) => name.EndsWith(Half, StringComparison.Ordinal) ? (name[..^Half.Length], DType.BFloat16) : (name, DType.Float32);

    /// <summary>A CUDA device over an emulator of one's own.</summary>
    public static CudaDevice OpenEmulated(EmulatedCudaDriver driver, CudaOptions? options = null, int ordinal = 0)
    {
        _ = Compiler.Nvrtc;                                    // fetched where the machine has none
        return CudaDevice.Open(ordinal, driver, options);
    }

    /// <summary>Buffers that are held now. What an earlier test dropped on purpose is collected first, or it would go while a later test counts.</summary>
    public static long LiveBuffers(Device device)
    {
        if (device.LiveBuffers > 0)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        return device.LiveBuffers;
    }

    /// <summary>Fresh memory reads as NaN and blocks are checked for writes beyond their ends, in every test.</summary>
    [ModuleInitializer]
    internal static void Guard() => CpuDevice.Instance.Guards = true;
}
