using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Driver;
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Memory;
using ZEngine.Interop;

namespace ZEngine.Emulator;

/// <summary>
/// The CUDA driver without a GPU: executes the PTX that NVRTC produced on the CPU, with checks, and refuses what the driver refuses. What it
/// passes is emulator-clean; that is not a promise about a GPU.
/// </summary>
/// <remarks>
/// Work is queued and runs when something must observe it. A finding surfaces as <see cref="EmulatorFaultException"/> at the next
/// synchronising call and leaves the device unusable, as on a GPU; <see cref="Faults"/> keeps all findings.
/// </remarks>
public sealed partial class EmulatedCudaDriver : CudaDriver
{
    private readonly Lock _gate = new();
    private readonly DeviceLimits _limits;
    private readonly DeviceMemory[] _memories;
    private readonly HashSet<int>[] _peers;
    private readonly CudaException?[] _errors;
    private readonly StreamScheduler _scheduler;
    private readonly List<FaultReport> _faults = [];
    private readonly List<LaunchProfile> _profiles = [];
    private readonly ThreadLocal<int> _device = new();
    private readonly HandleTable<Driver.Stream> _streams = new();
    private readonly HandleTable<EventState> _events = new();
    private readonly HandleTable<LoadedModule> _modules = new();
    private readonly HandleTable<LoadedKernel> _functions = new();
    private readonly HandleTable<Graph> _graphs = new(), _executables = new();
    private readonly Dictionary<nint, nuint> _hostAllocations = [];
    private readonly Driver.Stream[] _defaultStreams;
    /// <summary>How kernels run that have nothing to do with <see cref="EmulatorOptions.Deleted"/>.</summary>
    private readonly EmulatorOptions _besides;

    /// <summary>Creates a driver.</summary>
    public EmulatedCudaDriver(EmulatorOptions? options = null)
    {
        Options = options ?? new EmulatorOptions();
        if (Options.Checks.HasFlag(EmulatorChecks.Footprints) && !Options.Checks.HasFlag(EmulatorChecks.Counters))
            throw new ArgumentException("EmulatorChecks.Footprints counts nothing without EmulatorChecks.Counters.", nameof(options));
        ArgumentOutOfRangeException.ThrowIfLessThan(Options.Multiprocessors ?? 1, 1, nameof(options));
        ArgumentOutOfRangeException.ThrowIfLessThan(Options.BlockInstructions, 1, nameof(options));
        if (Options.OuterBlocks is { } outer)
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(outer.Count, 1, nameof(options));
            if (Options.Workers > 1 || Options.Policy == SchedulingPolicy.Adversarial || Options.Checks.HasFlag(EmulatorChecks.Uninitialised))
                throw new ArgumentException("EmulatorOptions.OuterBlocks needs one worker, blocks in order, and no EmulatorChecks.Uninitialised.", nameof(options));
        }
        _besides = Options with { Checks = Options.Checks & EmulatorChecks.Uninitialised, Policy = SchedulingPolicy.Converge };
        _limits = DeviceLimits.Of(Options.Architecture);
        if (Options.Multiprocessors is { } multiprocessors) _limits = _limits with { Multiprocessors = multiprocessors };
        _memories = [.. Enumerable.Range(0, Options.Devices).Select(d => new DeviceMemory(d, Options.DeviceMemoryBytes, Options.Checks.HasFlag(EmulatorChecks.Uninitialised)))];
        _peers = [.. Enumerable.Range(0, Options.Devices).Select(_ => new HashSet<int>())];
        _errors = new CudaException?[Options.Devices];
        _scheduler = new StreamScheduler(Options, AddStreamFault)
        {
            Describe = (device, address) => _memories[device].Find(address) is { } owner ? $"{owner}, offset 0x{address - owner.Address:X}" : "",
        };
        // The default streams come first, so that a default stream's number is its device's.
        _defaultStreams = [.. Enumerable.Range(0, Options.Devices).Select(d => _scheduler.Create(d, nonBlocking: false))];
    }

    /// <summary>How this driver behaves.</summary>
    public EmulatorOptions Options { get; }

    /// <summary>All findings so far, in order.</summary>
    public IReadOnlyList<FaultReport> Faults
    {
        get
        {
            lock (_gate) return [.. _faults];
        }
    }

    /// <summary>The counters of all launches so far, in order of execution. Empty without <see cref="EmulatorChecks.Counters"/>.</summary>
    public IReadOnlyList<LaunchProfile> Profiles
    {
        get
        {
            lock (_gate) return [.. _profiles];
        }
    }

    /// <summary>Launches executed.</summary>
    public long Launches { get; private set; }

    /// <summary>Warp and thread instructions executed by all launches.</summary>
    public (long Warp, long Thread) Instructions { get; private set; }

    /// <inheritdoc/>
    public override string Description =>
        $"emulator of {_limits.Name}, policy {Options.Policy}, seed 0x{Options.Seed:x}, checks {Options.Checks}";

    /// <inheritdoc/>
    public override int Version => 12040;

    /// <inheritdoc/>
    public override int DeviceCount => Options.Devices;

    /// <inheritdoc/>
    public override int CurrentDevice
    {
        get => _device.Value;
        set
        {
            if ((uint)value >= (uint)Options.Devices) throw Error("cuCtxSetCurrent", CudaResult.InvalidDevice, $"there is no device {value}");
            _device.Value = value;
        }
    }

    /// <inheritdoc/>
    public override string DeviceName(int device) => _limits.Name;

    /// <inheritdoc/>
    public override int GetAttribute(DeviceAttribute attribute, int device) => attribute == DeviceAttribute.PciBusId ? device : _limits.Get(attribute);

    /// <inheritdoc/>
    public override (ulong Free, ulong Total) MemoryInfo() => (Memory.Capacity - Memory.Used, Memory.Capacity);

    /// <inheritdoc/>
    public override void Synchronize()
    {
        lock (_gate)
        {
            Usable("cuCtxSynchronize");
            _scheduler.RunAll(CurrentDevice);
            Usable("cuCtxSynchronize");
        }
    }

    private DeviceMemory Memory => _memories[CurrentDevice];

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!disposing) return;
        foreach (nint pointer in _hostAllocations.Keys) FreeNative(pointer);
        _hostAllocations.Clear();
        foreach (DeviceMemory memory in _memories) memory.Dispose();
        _device.Dispose();
    }

    // ---- Errors ----------------------------------------------------------------------------------------------------------------------

    private static CudaException Error(string call, CudaResult result, string description) => new(call, result, NameOf(result), description);

    internal static string NameOf(CudaResult result) => "CUDA_ERROR_" + result switch
    {
        CudaResult.InvalidValue => "INVALID_VALUE", CudaResult.OutOfMemory => "OUT_OF_MEMORY", CudaResult.InvalidDevice => "INVALID_DEVICE",
        CudaResult.InvalidImage => "INVALID_IMAGE", CudaResult.InvalidContext => "INVALID_CONTEXT", CudaResult.PeerAccessUnsupported => "PEER_ACCESS_UNSUPPORTED",
        CudaResult.InvalidPtx => "INVALID_PTX", CudaResult.InvalidHandle => "INVALID_HANDLE", CudaResult.NotFound => "NOT_FOUND", CudaResult.NotReady => "NOT_READY",
        CudaResult.IllegalAddress => "ILLEGAL_ADDRESS", CudaResult.LaunchOutOfResources => "LAUNCH_OUT_OF_RESOURCES", CudaResult.LaunchTimeout => "LAUNCH_TIMEOUT",
        CudaResult.PeerAccessAlreadyEnabled => "PEER_ACCESS_ALREADY_ENABLED", CudaResult.Assert => "ASSERT", CudaResult.MisalignedAddress => "MISALIGNED_ADDRESS",
        CudaResult.InvalidAddressSpace => "INVALID_ADDRESS_SPACE", CudaResult.LaunchFailed => "LAUNCH_FAILED",
        CudaResult.CooperativeLaunchTooLarge => "COOPERATIVE_LAUNCH_TOO_LARGE", CudaResult.NotSupported => "NOT_SUPPORTED",
        CudaResult.StreamCaptureUnsupported => "STREAM_CAPTURE_UNSUPPORTED", CudaResult.StreamCaptureInvalidated => "STREAM_CAPTURE_INVALIDATED",
        CudaResult.StreamCaptureUnjoined => "STREAM_CAPTURE_UNJOINED", _ => "UNKNOWN",
    };

    /// <summary>Throws a device's error: once a kernel has failed, every call fails.</summary>
    private void Usable(string call)
    {
        if (_errors[CurrentDevice] is { } error)
            throw error is EmulatorFaultException fault ? new EmulatorFaultException(call, fault.Result, fault.ResultName, fault.Faults) : error;
    }

    private void AddStreamFault(int device, FaultReport report)
    {
        _faults.Add(report);
        _errors[device] ??= new EmulatorFaultException("stream work", CudaResult.LaunchFailed, NameOf(CudaResult.LaunchFailed), [report]);
    }

    private void AddLaunchFaults(int device, string kernel, IReadOnlyList<FaultReport> reports)
    {
        if (reports.Count == 0) return;
        _faults.AddRange(reports);
        CudaResult result = reports.Select(report => ResultOf(report.Kind)).FirstOrDefault(code => code != CudaResult.LaunchFailed, CudaResult.LaunchFailed);
        _errors[device] ??= new EmulatorFaultException($"launch of {kernel}", result, NameOf(result), reports);
    }

    private static CudaResult ResultOf(FaultKind kind) => kind switch
    {
        FaultKind.OutOfBounds or FaultKind.UseAfterFree => CudaResult.IllegalAddress,
        FaultKind.Misaligned => CudaResult.MisalignedAddress,
        FaultKind.WrongWindow => CudaResult.InvalidAddressSpace,
        FaultKind.Timeout or FaultKind.Deadlock => CudaResult.LaunchTimeout,
        FaultKind.Trap => CudaResult.Assert,
        _ => CudaResult.LaunchFailed,
    };
}

/// <summary>Numbers for objects, as a driver hands them out. Numbers are never used twice, so a stale one is noticed.</summary>
internal sealed class HandleTable<T> where T : class
{
    private static long s_next = 0x1000;
    private readonly Dictionary<nint, T> _objects = [];

    public nint Add(T value)
    {
        nint handle = (nint)Interlocked.Add(ref s_next, 16);
        lock (_objects) _objects.Add(handle, value);
        return handle;
    }

    public T Get(nint handle, string call)
    {
        lock (_objects)
            return _objects.GetValueOrDefault(handle)
                ?? throw new CudaException(call, CudaResult.InvalidHandle, "CUDA_ERROR_INVALID_HANDLE", $"0x{handle:X} is no handle of this kind, or was destroyed");
    }

    public T Remove(nint handle, string call)
    {
        T value = Get(handle, call);
        lock (_objects) _objects.Remove(handle);
        return value;
    }
}
