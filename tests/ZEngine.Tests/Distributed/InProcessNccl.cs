using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using ZEngine.Cuda;
using ZEngine.Distributed;
using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Distributed;

/// <summary>Ranks on threads, each with an emulated device of its own and a driver of its own, as processes have; connected by a small NCCL in C.</summary>
internal static unsafe class InProcessNccl
{
    private static readonly NativeStub Stub = new("nccl_in_process.c");

    private static readonly Lazy<Nccl> Loaded = new(() =>
    {
        ((delegate* unmanaged<nint, nint, void>)Stub.Symbol("inproc_hooks"))((nint)(delegate* unmanaged<nint, nint, nint, nuint, int, void>)&Copy, (nint)(delegate* unmanaged<nint, nint, void>)&Launch);
        return Nccl.Load([Stub.Path]);
    });

    /// <summary>As CUDA has a current device for every thread.</summary>
    [ThreadStatic]
    private static CudaDriver? s_driver;

    public static Nccl Library => Stub.IsBuilt ? Loaded.Value : throw new InvalidOperationException(Stub.Path);

    /// <summary>Skips the test where there is no C compiler; on the test's own thread.</summary>
    public static void Require() => _ = Stub.Path;

    /// <summary>Runs ranks; the reasons for which worlds failed are kept in <paramref name="failures"/>.</summary>
    public static T[] Run<T>(int size, Func<NcclCommunicator, CudaDevice, T> program, TimeSpan? timeout = null, Func<int, int>? ordinalOf = null, EmulatorChecks checks = EmulatorChecks.Deep & ~EmulatorChecks.Counters, ConcurrentQueue<string>? failures = null)
    {
        Require();
        return InProcessWorld.Run(size, host =>
        {
            using var driver = new EmulatedCudaDriver(new EmulatorOptions { Devices = size, Checks = checks });
            using CudaDevice device = Devices.OpenEmulated(driver, ordinal: ordinalOf?.Invoke(host.Rank) ?? host.Rank);
            s_driver = driver;
            T result;
            using (NcclCommunicator world = NcclCommunicator.Join(host, device, Library, timeout ?? Worlds.Timeout, reason =>
            {
                failures?.Enqueue(reason);
                host.Abort(World.LostExitCode, reason);
            }))
                result = program(world, device);
            Assert.Empty(driver.Faults);
            return result;
        }, Worlds.Timeout);
    }

    public static void Run(int size, Action<NcclCommunicator, CudaDevice> program, TimeSpan? timeout = null, Func<int, int>? ordinalOf = null, ConcurrentQueue<string>? failures = null) => Run(size, (world, device) =>
    {
        program(world, device);
        return 0;
    }, timeout, ordinalOf, failures: failures);

    /// <summary>Makes a communicator report an error, as one does whose peer is gone.</summary>
    public static void Break(NcclCommunicator world, int error) => ((delegate* unmanaged<nint, int, void>)Stub.Symbol("inproc_break"))(world.Handle, error);

    [UnmanagedCallersOnly]
    private static void Copy(nint stream, nint host, nint device, nuint bytes, int toHost)
    {
        if (toHost != 0) s_driver!.CopyToHostAsync(host, new DevicePointer((ulong)device), bytes, new CudaStreamHandle(stream));
        else s_driver!.CopyToDeviceAsync(new DevicePointer((ulong)device), host, bytes, new CudaStreamHandle(stream));
    }

    [UnmanagedCallersOnly]
    private static void Launch(nint stream, nint operation)
    {
        var run = (delegate* unmanaged<nint, void>)Stub.Symbol("inproc_run");
        s_driver!.LaunchHostFunction(new CudaStreamHandle(stream), () => run(operation));
    }
}
