using System.CommandLine;
using ZEngine.Cuda;
using ZEngine.Interop;

namespace ZEngine.Cli;

/// <summary>What <c>--device</c> can name: the CPU, or a CUDA device by its number.</summary>
internal static class DeviceChoice
{
    private const string Cuda = "cuda";

    /// <summary>The option of the commands that compute.</summary>
    public static Option<string> Option() => new("--device") { Description = "cpu, cuda, or cuda:N.", DefaultValueFactory = _ => "cpu", HelpName = "NAME" };

    /// <summary>Opens the device. Never another than the one named.</summary>
    /// <exception cref="UserError">There is no such device.</exception>
    public static Device Open(string name)
    {
        if (name == "cpu") return Device.Cpu;
        int ordinal = 0;
        if (name != Cuda && !(name.StartsWith(Cuda + ":", StringComparison.Ordinal) && int.TryParse(name.AsSpan(Cuda.Length + 1), out ordinal)))
            throw new UserError(ExitCode.Usage, $"--device {name}: the devices are cpu, cuda and cuda:N.");
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
        yield return ("Packed kernels", PackedKernels.Describe());
    }

    private static string Found(Func<string> load)
    {
        try
        {
            return load();
        }
        catch (NativeLibraryException e)
        {
            return e.Message;
        }
    }
}
