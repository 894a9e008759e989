using System.Diagnostics;
using System.Globalization;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>A CUDA device: memory, one stream on which all its work runs in order, and the engine's kernels.</summary>
/// <remarks>
/// Ops return as soon as their work is queued. The host waits only where it reads values (<see cref="Tensor.ToArray{T}"/>,
/// <see cref="Tensor.Item"/>) or asks to (<see cref="Synchronize"/>); an error of a kernel is thrown there. Any thread may use a device.
/// </remarks>
public sealed class CudaDevice : Device
{
    private static readonly Lazy<(LibCudaDriver? Driver, string Reason)> System = new(OpenSystem);

    private readonly CudaDriver _driver;
    private readonly DevicePool _pool;
    private readonly PinnedStaging _staging;
    private readonly CudaBackend _backend;
    private readonly Lazy<MatMulLibrary> _library;
    private CudaGraph? _capturing;
    private long _launches, _waits, _waitBegan;

    private CudaDevice(int ordinal, CudaDriver driver, CudaOptions options) : base($"cuda:{ordinal}")
    {
        (Ordinal, _driver, Options) = (ordinal, driver, options);
        Enter();
        Description = driver.DeviceName(ordinal);
        Architecture = 10 * driver.GetAttribute(DeviceAttribute.ComputeCapabilityMajor, ordinal) + driver.GetAttribute(DeviceAttribute.ComputeCapabilityMinor, ordinal);
        if (Architecture < 80) throw new NotSupportedException($"{Name} is {Description} with compute capability {Architecture / 10}.{Architecture % 10}; the engine needs 8.0 (Ampere) or newer.");
        Multiprocessors = driver.GetAttribute(DeviceAttribute.MultiprocessorCount, ordinal);
        SharedBytesPerBlock = driver.GetAttribute(DeviceAttribute.MaxSharedMemoryPerBlockOptin, ordinal);
        Stream = driver.CreateStream();
        _pool = new DevicePool(this);
        _staging = new PinnedStaging(this);
        Kernels = new KernelCache(this, options.CacheFolder);
        _backend = new CudaBackend(this);
        _library = new Lazy<MatMulLibrary>(() => new MatMulLibrary(this, driver.ServesLibraries));
    }

    /// <summary>Whether this machine has a CUDA driver with a device; <see cref="UnavailableReason"/> says why not.</summary>
    public static bool IsAvailable => System.Value.Driver is not null;

    /// <summary>Why <see cref="IsAvailable"/> is false; empty when it is true.</summary>
    public static string UnavailableReason => System.Value.Reason;

    /// <summary>The number of CUDA devices of this machine.</summary>
    public static int Count => System.Value.Driver?.DeviceCount ?? 0;

    /// <summary>The device's number.</summary>
    public int Ordinal { get; }

    /// <summary>The device's name, such as <c>NVIDIA H200</c>.</summary>
    public string Description { get; }

    /// <summary>The compute capability as one number: 90 for 9.0.</summary>
    public int Architecture { get; }

    /// <summary>Number of streaming multiprocessors.</summary>
    public int Multiprocessors { get; }

    /// <summary>Kernels launched so far; a graph's replay counts as one.</summary>
    public long Launches => Interlocked.Read(ref _launches);

    /// <summary>How often the host waited for the device so far.</summary>
    public long Waits => Interlocked.Read(ref _waits);

    /// <summary>Bytes that the device's pool has taken from the driver.</summary>
    public long ReservedBytes => _pool.SegmentBytes;

    /// <summary>What multiplies matrices: cuBLASLt with its version and file, or the engine's own kernels and why.</summary>
    public string MatMulSource => _library.Value.Description;

    /// <summary>Where the device is in its machine, such as <c>0000:07:00</c>: two programs that have the same have one device.</summary>
    public string BusAddress
    {
        get
        {
            CudaDriver driver = Enter();
            return string.Create(CultureInfo.InvariantCulture, $"{driver.GetAttribute(DeviceAttribute.PciDomainId, Ordinal):x4}:{driver.GetAttribute(DeviceAttribute.PciBusId, Ordinal):x2}:{driver.GetAttribute(DeviceAttribute.PciDeviceId, Ordinal):x2}");
        }
    }

    internal CudaOptions Options { get; }

    internal MatMulLibrary Library => _library.Value;

    /// <summary>Whether work is recorded for a graph now instead of done.</summary>
    internal bool IsCapturing => _capturing is not null;

    internal CudaStreamHandle Stream { get; }

    internal KernelCache Kernels { get; }

    internal int SharedBytesPerBlock { get; }

    internal bool IsDisposed { get; private set; }

    internal override Backend Backend => _backend;

    /// <summary>Opens a device.</summary>
    /// <param name="ordinal">Its number, from 0.</param>
    /// <param name="driver">The driver; null for libcuda. The caller keeps a driver it gives and disposes it after the device.</param>
    /// <param name="options">Null for the defaults.</param>
    /// <exception cref="NativeLibraryException">There is no CUDA driver.</exception>
    /// <exception cref="NotSupportedException">The device is older than compute capability 8.0.</exception>
    public static CudaDevice Open(int ordinal, CudaDriver? driver = null, CudaOptions? options = null)
    {
        driver ??= System.Value.Driver ?? throw new NativeLibraryException($"There is no CUDA device to open: {UnavailableReason}");
        if (ordinal < 0 || ordinal >= driver.DeviceCount) throw new ArgumentOutOfRangeException(nameof(ordinal), ordinal, $"There are {driver.DeviceCount} CUDA devices.");
        return new CudaDevice(ordinal, driver, options ?? new CudaOptions());
    }

    /// <summary>Compiles CUDA C++ for this device.</summary>
    /// <param name="source">The text. It may include the engine's headers, such as <c>common/Types.cuh</c>.</param>
    /// <param name="name">The name that compile errors and profilers show.</param>
    /// <param name="expressions">Template instances wanted, such as <c>scan&lt;float, 16&gt;</c>; <c>extern "C"</c> kernels need none.</param>
    /// <exception cref="NvrtcException">The source has errors; the message is the compiler's own.</exception>
    public CudaModule Compile(string source, string name, params IReadOnlyList<string> expressions) => Kernels.Compile(new CompileRequest
    {
        Name = name, Source = source, NameExpressions = expressions, Architecture = $"sm_{Architecture}", Includes = KernelSources.Current.Includes,
    });

    /// <summary>Records what an action does on this device, without doing it, as a graph that runs it again with one launch.</summary>
    /// <remarks>
    /// Addresses and host numbers are those of the capture: write new values into the same tensors before each
    /// <see cref="CudaGraph.Launch"/>. The action must not read values back and must have run once before, so that its kernels are compiled.
    /// </remarks>
    public CudaGraph Capture(Action action)
    {
        ArgumentNullException.ThrowIfNull(action);
        if (_capturing is not null) throw new InvalidOperationException($"{Name}: a capture is going on already.");
        var graph = new CudaGraph(this, _pool.BeginCapture());
        try
        {
            _capturing = graph;
            graph.Record(action);
            return graph;
        }
        catch
        {
            graph.Dispose();
            throw;
        }
        finally
        {
            _capturing = null;
            _pool.EndCapture();
        }
    }

    /// <summary>Marks a place in the device's stream.</summary>
    /// <param name="isTimed">Whether <see cref="CudaEvent.ElapsedMs"/> will be asked.</param>
    public CudaEvent Record(bool isTimed = false)
    {
        var mark = new CudaEvent(this, isTimed);
        mark.Record();
        return mark;
    }

    /// <inheritdoc/>
    public override void Trim() => _pool.Trim();

    /// <inheritdoc/>
    public override void Synchronize()
    {
        RefuseInCapture("wait for the device");
        Wait();
    }

    /// <summary>Makes this device the calling thread's and returns the driver.</summary>
    internal CudaDriver Enter()
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        _driver.CurrentDevice = Ordinal;
        return _driver;
    }

    /// <summary>How long the host has been waiting for the device; zero when it does not.</summary>
    internal TimeSpan WaitingFor => Interlocked.Read(ref _waitBegan) is not 0 and var began ? Stopwatch.GetElapsedTime(began) : TimeSpan.Zero;

    internal void Wait()
    {
        Interlocked.Increment(ref _waits);
        CudaDriver driver = Enter();
        Interlocked.Exchange(ref _waitBegan, Stopwatch.GetTimestamp());
        try
        {
            driver.StreamSynchronize(Stream);
        }
        finally
        {
            Interlocked.Exchange(ref _waitBegan, 0);
        }
    }

    /// <summary>Called after each launch.</summary>
    internal void Launched(string name)
    {
        Interlocked.Increment(ref _launches);
        if (!Options.IsSynchronous || _capturing is not null) return;
        try
        {
            Wait();
        }
        catch (CudaException e)
        {
            throw new CudaException($"{Name}: launch of {name}", e.Result, e.ResultName, e.Message);
        }
    }

    /// <summary>Copies a table that a kernel reads; a captured graph copies it again at each replay.</summary>
    internal void UploadTable(ReadOnlySpan<byte> table, nint destination)
    {
        if (_capturing is { } graph) graph.UploadTable(table, destination);
        else _staging.Upload(table, destination);
    }

    internal override void CopyFromHost(ReadOnlySpan<byte> source, nint destination)
    {
        RefuseInCapture("copy from the host");
        _staging.Upload(source, destination);
    }

    internal override void CopyToHost(nint source, Span<byte> destination)
    {
        RefuseInCapture("copy to the host");
        _staging.Download(source, destination);
    }

    internal override void Clear(nint address, long bytes)
    {
        if (bytes == 0) return;
        bool isWords = bytes % 4 == 0 && address % 4 == 0;
        Enter().FillAsync(new DevicePointer((ulong)address), 0, isWords ? 4 : 1, (ulong)(isWords ? bytes / 4 : bytes), Stream);
    }

    private protected override Storage Rent(long bytes) => _pool.Rent(bytes);

    private protected override void Recycle(Storage storage)
    {
        if (!IsDisposed) _pool.Recycle(storage);
    }

    internal void Release(DevicePool.Arena arena)
    {
        if (!IsDisposed) _pool.Release(arena);
    }

    /// <summary>Waits for the device and gives back all its memory; tensors on it are gone.</summary>
    protected override void Dispose(bool disposing)
    {
        if (!disposing || IsDisposed)
        {
            base.Dispose(disposing);
            return;
        }
        try
        {
            Enter().StreamSynchronize(Stream);
        }
        catch (CudaException)
        {
            // A kernel failed earlier, and whoever waited for it was told. The memory goes all the same.
        }
        if (_library.IsValueCreated) _library.Value.Dispose();
        Kernels.Dispose();
        _staging.Dispose();
        _pool.Dispose();
        _driver.DestroyStream(Stream);
        IsDisposed = true;
        base.Dispose(disposing);
    }

    private void RefuseInCapture(string what)
    {
        if (_capturing is not null) throw new InvalidOperationException($"{Name}: a captured action must not {what}: at a replay the host is not there. Do it before the capture.");
    }

    private static (LibCudaDriver?, string) OpenSystem()
    {
        try
        {
            var driver = new LibCudaDriver();
            if (driver.DeviceCount > 0) return (driver, "");
            driver.Dispose();
            return (null, "the CUDA driver finds no device");
        }
        catch (Exception e) when (e is NativeLibraryException or CudaException)
        {
            return (null, e.Message);
        }
    }
}
