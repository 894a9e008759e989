using System.CommandLine;
using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Cli;

/// <summary>What <c>--device</c> can name: the CPU, a CUDA device by its number, or the emulator.</summary>
internal static class DeviceChoice
{
    /// <summary>The name that <c>--device</c> has where it is not given.</summary>
    public const string Cpu = "cpu";

    /// <summary>What the option says of itself.</summary>
    public const string Description = "cpu, cuda (on several ranks each its own), cuda:N, or emulator: the CUDA kernels on the CPU with checks, for who writes them; slow.";

    private const string Cuda = "cuda", Emulator = "emulator";

    /// <summary>Lives as long as the process: a driver outlives its devices.</summary>
    private static readonly Lazy<EmulatedCudaDriver> EmulatedDriver = new(() => new EmulatedCudaDriver(new EmulatorOptions { Workers = Environment.ProcessorCount }));

    /// <summary>The option of the commands that compute.</summary>
    public static Option<string> Option() => new("--device") { Description = Description, DefaultValueFactory = _ => Cpu, HelpName = "NAME" };

    /// <summary>Opens the device. Never another than the one named.</summary>
    /// <exception cref="UserError">There is no such device.</exception>
    public static Device Open(string name)
    {
        if (name == Cpu) return Device.Cpu;
        if (name == Emulator) return CudaDevice.Open(0, EmulatedDriver.Value);
        int ordinal = 0;
        if (name != Cuda && !(name.StartsWith(Cuda + ":", StringComparison.Ordinal) && int.TryParse(name.AsSpan(Cuda.Length + 1), out ordinal)))
            throw new UserError(ExitCode.Usage, $"--device {name}: the devices are cpu, cuda, cuda:N and emulator.");
        if (!CudaDevice.IsAvailable) throw new UserError(ExitCode.BadInput, $"--device {name}: {CudaDevice.UnavailableReason}");
        if (ordinal >= CudaDevice.Count || ordinal < 0) throw new UserError(ExitCode.BadInput, $"--device {name}: this machine has {CudaDevice.Count} CUDA devices.");
        return CudaDevice.Open(ordinal);
    }

    /// <summary>The CUDA devices and the libraries they need, for <c>zengine info</c>: what is there, or what was looked for and the loader's own error.</summary>
    public static IEnumerable<(string Name, string Value)> Describe()
    {
        if (!CudaDevice.IsAvailable) yield return ("CUDA", CudaDevice.UnavailableReason);
        for (int ordinal = 0; ordinal < CudaDevice.Count; ordinal++)
        {
            using CudaDevice device = CudaDevice.Open(ordinal);
            yield return (device.Name, $"{device.Description}, sm_{device.Architecture}, {device.Multiprocessors} multiprocessors; products by {device.MatMulSource}");
        }
        yield return ("NVRTC", Found(() => Nvrtc.Load() is var nvrtc ? $"{nvrtc.Version} at {nvrtc.LibraryPath}" : ""));
        yield return ("cuBLASLt", Found(() => CublasLt.Load() is var library ? $"{library.Version} at {library.LibraryPath}" : ""));
        yield return ("Packed kernels", Found(PackedKernels.Describe));
    }

    private static string Found(Func<string> load)
    {
        try
        {
            return load();
        }
        catch (Exception e) when (e is NativeLibraryException or InvalidDataException)
        {
            return e.Message;
        }
    }
}
