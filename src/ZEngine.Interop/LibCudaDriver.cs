using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>The driver seam over libcuda: each member is the CUDA driver call of its name, on the primary context of the current device.</summary>
public sealed unsafe class LibCudaDriver : CudaDriver
{
    private readonly LibCudaApi _api;
    private readonly nint[] _contexts;
    private readonly Lock _gate = new();
    private readonly ThreadLocal<int> _device = new(() => -1);

    /// <summary>Opens the driver of this machine.</summary>
    /// <param name="path">The library's file; null to look for it.</param>
    /// <exception cref="NativeLibraryException">There is no driver, or it is too old.</exception>
    /// <exception cref="CudaException">The driver finds no device.</exception>
    public LibCudaDriver(string? path = null)
    {
        var failures = new List<string>();
        (nint library, string found) = NativeLibraries.LoadFirst(path is null ? NativeLibraries.CudaCandidates() : [path], failures: failures);
        if (library == 0)
            throw new NativeLibraryException($"The CUDA driver library was not found ({string.Join("; ", failures)}). It comes with the GPU's driver; {NativeLibraries.CudaVariable} may name its file.");
        _api = new LibCudaApi(library, found);
        Check(_api.cuInit(0));
        int count, version;
        Check(_api.cuDeviceGetCount(&count));
        Check(_api.cuDriverGetVersion(&version));
        Version = version;
        _contexts = new nint[count];
    }

    /// <summary>Whether this machine has a CUDA driver with at least one device.</summary>
    public static bool IsAvailable(out string reason)
    {
        try
        {
            using var driver = new LibCudaDriver();
            reason = driver.DeviceCount > 0 ? "" : "the CUDA driver finds no device";
            return driver.DeviceCount > 0;
        }
        catch (Exception e) when (e is NativeLibraryException or CudaException)
        {
            reason = e.Message;
            return false;
        }
    }

    /// <inheritdoc/>
    public override string Description => $"libcuda {Version / 1000}.{Version % 1000 / 10} at {_api.Path}";

    /// <inheritdoc/>
    public override bool ServesLibraries => true;

    /// <inheritdoc/>
    public override int Version { get; }

    /// <inheritdoc/>
    public override int DeviceCount => _contexts.Length;

    /// <inheritdoc/>
    public override int CurrentDevice
    {
        get => Math.Max(0, _device.Value);
        set
        {
            if ((uint)value >= (uint)_contexts.Length) throw new CudaException("CurrentDevice", CudaResult.InvalidDevice, "CUDA_ERROR_INVALID_DEVICE", $"there is no device {value}");
            Check(_api.cuCtxSetCurrent(Context(value)));
            _device.Value = value;
        }
    }

    /// <inheritdoc/>
    public override string DeviceName(int device)
    {
        byte* name = stackalloc byte[256];
        Check(_api.cuDeviceGetName(name, 256, Ordinal(device)));
        return Marshal.PtrToStringUTF8((nint)name)!;
    }

    /// <inheritdoc/>
    public override int GetAttribute(DeviceAttribute attribute, int device)
    {
        int value;
        Check(_api.cuDeviceGetAttribute(&value, (int)attribute, Ordinal(device)));
        return value;
    }

    /// <inheritdoc/>
    public override (ulong Free, ulong Total) MemoryInfo()
    {
        Enter();
        nuint free, total;
        Check(_api.cuMemGetInfo(&free, &total));
        return (free, total);
    }

    /// <inheritdoc/>
    public override void Synchronize()
    {
        Enter();
        Check(_api.cuCtxSynchronize());
    }

    private int Ordinal(int device)
    {
        int handle;
        Check(_api.cuDeviceGet(&handle, device));
        return handle;
    }

    private nint Context(int device)
    {
        lock (_gate)
        {
            if (_contexts[device] != 0) return _contexts[device];
            nint context;
            Check(_api.cuDevicePrimaryCtxRetain(&context, Ordinal(device)));
            return _contexts[device] = context;
        }
    }

    /// <summary>Makes device 0 current on a thread that has not chosen one.</summary>
    private void Enter()
    {
        if (_device.Value < 0) CurrentDevice = 0;
    }

    private void Check(int result, [CallerArgumentExpression(nameof(result))] string call = "")
    {
        if (result == 0) return;
        byte* name = null, description = null;
        _ = _api.cuGetErrorName(result, &name);
        _ = _api.cuGetErrorString(result, &description);
        throw new CudaException(call.Replace("_api.", "", StringComparison.Ordinal), (CudaResult)result,
            Marshal.PtrToStringUTF8((nint)name) ?? "unknown error", Marshal.PtrToStringUTF8((nint)description) ?? "the driver has no description");
    }

    // ---- Memory ----------------------------------------------------------------------------------------------------------------------

    /// <inheritdoc/>
    public override DevicePointer Allocate(ulong bytes)
    {
        Enter();
        ulong pointer;
        Check(_api.cuMemAlloc(&pointer, (nuint)bytes));
        return new DevicePointer(pointer);
    }

    /// <inheritdoc/>
    public override void Free(DevicePointer pointer)
    {
        Enter();
        Check(_api.cuMemFree(pointer.Address));
    }

    /// <inheritdoc/>
    public override DevicePointer AllocateAsync(ulong bytes, CudaStreamHandle stream)
    {
        Enter();
        ulong pointer;
        Check(_api.cuMemAllocAsync(&pointer, (nuint)bytes, stream.Value));
        return new DevicePointer(pointer);
    }

    /// <inheritdoc/>
    public override void FreeAsync(DevicePointer pointer, CudaStreamHandle stream)
    {
        Enter();
        Check(_api.cuMemFreeAsync(pointer.Address, stream.Value));
    }

    /// <inheritdoc/>
    public override nint AllocateHost(nuint bytes)
    {
        Enter();
        nint pointer;
        Check(_api.cuMemHostAlloc(&pointer, bytes, 0));
        return pointer;
    }

    /// <inheritdoc/>
    public override void FreeHost(nint pointer)
    {
        Enter();
        Check(_api.cuMemFreeHost(pointer));
    }

    /// <inheritdoc/>
    public override void CopyToDeviceAsync(DevicePointer destination, nint source, ulong bytes, CudaStreamHandle stream)
    {
        Enter();
        Check(_api.cuMemcpyHtoDAsync(destination.Address, source, (nuint)bytes, stream.Value));
    }

    /// <inheritdoc/>
    public override void CopyToHostAsync(nint destination, DevicePointer source, ulong bytes, CudaStreamHandle stream)
    {
        Enter();
        Check(_api.cuMemcpyDtoHAsync(destination, source.Address, (nuint)bytes, stream.Value));
    }

    /// <inheritdoc/>
    public override void CopyOnDeviceAsync(DevicePointer destination, DevicePointer source, ulong bytes, CudaStreamHandle stream)
    {
        Enter();
        Check(_api.cuMemcpyAsync(destination.Address, source.Address, (nuint)bytes, stream.Value));
    }

    /// <inheritdoc/>
    public override void FillAsync(DevicePointer destination, uint value, int elementBytes, ulong count, CudaStreamHandle stream)
    {
        Enter();
        switch (elementBytes)
        {
            case 1: Check(_api.cuMemsetD8Async(destination.Address, (byte)value, (nuint)count, stream.Value)); break;
            case 2: Check(_api.cuMemsetD16Async(destination.Address, (ushort)value, (nuint)count, stream.Value)); break;
            case 4: Check(_api.cuMemsetD32Async(destination.Address, value, (nuint)count, stream.Value)); break;
            default: throw new CudaException("FillAsync", CudaResult.InvalidValue, "CUDA_ERROR_INVALID_VALUE", $"elements have 1, 2 or 4 bytes, not {elementBytes}");
        }
    }

    /// <inheritdoc/>
    public override bool CanAccessPeer(int device, int peer)
    {
        int can;
        Check(_api.cuDeviceCanAccessPeer(&can, Ordinal(device), Ordinal(peer)));
        return can != 0;
    }

    /// <inheritdoc/>
    public override void EnablePeerAccess(int peer)
    {
        Enter();
        Check(_api.cuCtxEnablePeerAccess(Context(peer), 0));
    }

    // ---- Modules and launches --------------------------------------------------------------------------------------------------------

    /// <inheritdoc/>
    public override CudaModuleHandle LoadModule(ModuleImage image)
    {
        Enter();
        using var strings = new NativeStrings();
        nint module;
        if (image.Cubin.Length > 0) fixed (byte* cubin = image.Cubin) Check(_api.cuModuleLoadData(&module, cubin));
        else Check(_api.cuModuleLoadData(&module, strings.Add(image.Ptx)));
        return new CudaModuleHandle(module);
    }

    /// <inheritdoc/>
    public override void UnloadModule(CudaModuleHandle module)
    {
        Enter();
        Check(_api.cuModuleUnload(module.Value));
    }

    /// <inheritdoc/>
    public override CudaFunctionHandle GetFunction(CudaModuleHandle module, string name)
    {
        Enter();
        using var strings = new NativeStrings();
        nint function;
        Check(_api.cuModuleGetFunction(&function, module.Value, strings.Add(name)), $"cuModuleGetFunction({name})");
        return new CudaFunctionHandle(function);
    }

    /// <inheritdoc/>
    public override (DevicePointer Pointer, ulong Bytes) GetGlobal(CudaModuleHandle module, string name)
    {
        Enter();
        using var strings = new NativeStrings();
        ulong pointer;
        nuint bytes;
        Check(_api.cuModuleGetGlobal(&pointer, &bytes, module.Value, strings.Add(name)), $"cuModuleGetGlobal({name})");
        return (new DevicePointer(pointer), bytes);
    }

    /// <inheritdoc/>
    public override int GetAttribute(FunctionAttribute attribute, CudaFunctionHandle function)
    {
        Enter();
        int value;
        Check(_api.cuFuncGetAttribute(&value, (int)attribute, function.Value));
        return value;
    }

    /// <inheritdoc/>
    public override void SetAttribute(FunctionAttribute attribute, CudaFunctionHandle function, int value)
    {
        Enter();
        Check(_api.cuFuncSetAttribute(function.Value, (int)attribute, value));
    }

    /// <inheritdoc/>
    public override IReadOnlyList<(int Offset, int Bytes)> GetParameters(CudaFunctionHandle function)
    {
        Enter();
        if (_api.cuFuncGetParamInfo == null) throw new NativeLibraryException($"{_api.Path} has no function cuFuncGetParamInfo; it came with CUDA 12.4.");
        var parameters = new List<(int, int)>();
        nuint offset, bytes;
        // The driver tells the end of the list by refusing the next index.
        for (nuint k = 0; ; k++)
        {
            int result = _api.cuFuncGetParamInfo(function.Value, k, &offset, &bytes);
            if (result == (int)CudaResult.InvalidValue) return parameters;
            Check(result, "cuFuncGetParamInfo");
            parameters.Add(((int)offset, (int)bytes));
        }
    }

    /// <inheritdoc/>
    public override int MaxActiveBlocks(CudaFunctionHandle function, int blockThreads, int dynamicSharedBytes)
    {
        Enter();
        int blocks;
        Check(_api.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function.Value, blockThreads, (nuint)dynamicSharedBytes));
        return blocks;
    }

    /// <inheritdoc/>
    public override void Launch(CudaFunctionHandle function, in LaunchConfiguration configuration, ReadOnlySpan<byte> arguments)
    {
        Enter();
        CUlaunchAttribute* attributes = stackalloc CUlaunchAttribute[2];
        uint count = 0;
        if (configuration.Cooperative) attributes[count++] = new CUlaunchAttribute { Id = CUlaunchAttribute.CooperativeId, X = 1 };
        if (configuration.Cluster is { } cluster)
            attributes[count++] = new CUlaunchAttribute { Id = CUlaunchAttribute.ClusterDimensionId, X = (uint)cluster.X, Y = (uint)cluster.Y, Z = (uint)cluster.Z };
        Dim3 grid = configuration.Grid, block = configuration.Block;
        var config = new CUlaunchConfig
        {
            GridX = (uint)grid.X, GridY = (uint)grid.Y, GridZ = (uint)grid.Z, BlockX = (uint)block.X, BlockY = (uint)block.Y, BlockZ = (uint)block.Z,
            SharedBytes = (uint)configuration.DynamicSharedBytes, Stream = configuration.Stream.Value, Attributes = count == 0 ? null : attributes, AttributeCount = count,
        };
        fixed (byte* buffer = arguments)
        {
            nuint bytes = (nuint)arguments.Length;
            // CU_LAUNCH_PARAM_BUFFER_POINTER, its value, CU_LAUNCH_PARAM_BUFFER_SIZE, its address, CU_LAUNCH_PARAM_END
            void** extra = stackalloc void*[5] { (void*)1, buffer, (void*)2, &bytes, null };
            Check(_api.cuLaunchKernelEx(&config, function.Value, null, arguments.Length == 0 ? null : extra), $"cuLaunchKernelEx(grid {grid}, block {block})");
        }
    }

    // ---- Streams, events, graphs -----------------------------------------------------------------------------------------------------

    /// <inheritdoc/>
    public override CudaStreamHandle CreateStream(bool nonBlocking = true)
    {
        Enter();
        nint stream;
        Check(_api.cuStreamCreate(&stream, nonBlocking ? 1u : 0));
        return new CudaStreamHandle(stream);
    }

    /// <inheritdoc/>
    public override void DestroyStream(CudaStreamHandle stream) => Check(_api.cuStreamDestroy(stream.Value));

    /// <inheritdoc/>
    public override void StreamSynchronize(CudaStreamHandle stream)
    {
        Enter();
        Check(_api.cuStreamSynchronize(stream.Value));
    }

    /// <inheritdoc/>
    public override bool StreamQuery(CudaStreamHandle stream)
    {
        Enter();
        return IsReady(_api.cuStreamQuery(stream.Value), "cuStreamQuery");
    }

    private bool IsReady(int result, string call)
    {
        if (result == (int)CudaResult.NotReady) return false;
        Check(result, call);
        return true;
    }

    /// <inheritdoc/>
    public override void StreamWaitEvent(CudaStreamHandle stream, CudaEventHandle waited) => Check(_api.cuStreamWaitEvent(stream.Value, waited.Value, 0));

    /// <inheritdoc/>
    public override void LaunchHostFunction(CudaStreamHandle stream, Action action)
    {
        Enter();
        GCHandle handle = GCHandle.Alloc(action);
        int result = _api.cuLaunchHostFunc(stream.Value, (nint)(delegate* unmanaged<nint, void>)&CallBack, GCHandle.ToIntPtr(handle));
        if (result != 0) handle.Free();
        Check(result, "cuLaunchHostFunc");
    }

    [UnmanagedCallersOnly]
    private static void CallBack(nint data)
    {
        GCHandle handle = GCHandle.FromIntPtr(data);
        var action = (Action)handle.Target!;
        handle.Free();
        action();
    }

    /// <inheritdoc/>
    public override CudaEventHandle CreateEvent(bool timing = false)
    {
        Enter();
        nint handle;
        Check(_api.cuEventCreate(&handle, timing ? 0u : 2));                                  // CU_EVENT_DISABLE_TIMING
        return new CudaEventHandle(handle);
    }

    /// <inheritdoc/>
    public override void DestroyEvent(CudaEventHandle handle) => Check(_api.cuEventDestroy(handle.Value));

    /// <inheritdoc/>
    public override void RecordEvent(CudaEventHandle handle, CudaStreamHandle stream)
    {
        Enter();
        Check(_api.cuEventRecord(handle.Value, stream.Value));
    }

    /// <inheritdoc/>
    public override void EventSynchronize(CudaEventHandle handle) => Check(_api.cuEventSynchronize(handle.Value));

    /// <inheritdoc/>
    public override bool EventQuery(CudaEventHandle handle) => IsReady(_api.cuEventQuery(handle.Value), "cuEventQuery");

    /// <inheritdoc/>
    public override float EventElapsedMs(CudaEventHandle start, CudaEventHandle end)
    {
        float ms;
        Check(_api.cuEventElapsedTime(&ms, start.Value, end.Value));
        return ms;
    }

    /// <inheritdoc/>
    // CU_STREAM_CAPTURE_MODE_RELAXED: memory may be allocated meanwhile, here and on other threads.
    public override void BeginCapture(CudaStreamHandle stream) => Check(_api.cuStreamBeginCapture(stream.Value, 2));

    /// <inheritdoc/>
    public override CudaGraphHandle EndCapture(CudaStreamHandle stream)
    {
        nint graph;
        Check(_api.cuStreamEndCapture(stream.Value, &graph));
        return new CudaGraphHandle(graph);
    }

    /// <inheritdoc/>
    public override CudaGraphExecHandle InstantiateGraph(CudaGraphHandle graph)
    {
        nint executable;
        Check(_api.cuGraphInstantiate(&executable, graph.Value, 0));
        return new CudaGraphExecHandle(executable);
    }

    /// <inheritdoc/>
    public override void LaunchGraph(CudaGraphExecHandle graph, CudaStreamHandle stream) => Check(_api.cuGraphLaunch(graph.Value, stream.Value));

    /// <inheritdoc/>
    public override void DestroyGraph(CudaGraphHandle graph) => Check(_api.cuGraphDestroy(graph.Value));

    /// <inheritdoc/>
    public override void DestroyGraphExec(CudaGraphExecHandle graph) => Check(_api.cuGraphExecDestroy(graph.Value));

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        for (int device = 0; device < _contexts.Length; device++)
        {
            if (_contexts[device] != 0) _ = _api.cuDevicePrimaryCtxRelease(Ordinal(device));
            _contexts[device] = 0;
        }
        if (disposing) _device.Dispose();
    }
}
