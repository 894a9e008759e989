using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>How the devices of ranks exchange: over NCCL, or, where that is asked for, over the host.</summary>
public static class DeviceRanks
{
    /// <summary>Environment variable: <c>nccl</c>, or <c>host</c>, slowly and with the sums of CPU ranks.</summary>
    public const string Variable = "ZENGINE_DEVICE_COMM";

    private const string OverNccl = "nccl", OverHost = "host";

    /// <summary>The ranks with their devices connected; all call, each with a device of its own.</summary>
    /// <param name="host">The ranks.</param>
    /// <param name="device">This rank's.</param>
    /// <param name="timeout">How long a collective may take.</param>
    /// <param name="failed">Is told, on another thread, why the devices cannot go on; is to end the job.</param>
    /// <returns><paramref name="host"/> itself where nothing is to be connected.</returns>
    /// <exception cref="WorldMismatchException">Ranks differ in what they compute on, share a device, or lack NCCL: a table of who. The same on every rank.</exception>
    /// <exception cref="CommunicatorException">The devices could not be connected.</exception>
    public static Communicator Connect(Communicator host, Device device, TimeSpan timeout, Action<string> failed)
    {
        string choice = Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } set ? set : OverNccl;
        if (choice is not (OverNccl or OverHost)) throw new InvalidDataException($"{Variable} must be {OverNccl} or {OverHost}, got '{choice}'.");
        WorldAgreement.RequireSame(host, ("device", device is CudaDevice ? "cuda" : "cpu"), (Variable, choice));
        if (device is not CudaDevice cuda || choice == OverHost) return host;
        Nccl library = WorldAgreement.Together(host, $"have a CUDA device but no NCCL ({Variable}={OverHost} exchanges over the host instead)", Nccl.Load);
        return NcclCommunicator.Join(host, cuda, library, timeout, failed);
    }
}
