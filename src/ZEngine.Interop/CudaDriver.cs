namespace ZEngine.Interop;

/// <summary>
/// The seam to the GPU: what the engine asks of a CUDA driver. Two drivers stand behind it, libcuda and one that needs no GPU; code above never
/// asks which.
/// </summary>
/// <remarks>
/// As in the CUDA runtime, a thread has a current device and most calls act on it. Calls are asynchronous where CUDA's are: the error of a
/// kernel is thrown by a later call, usually a synchronisation, and the device is unusable from then on. Every failing call throws
/// <see cref="CudaException"/>.
/// </remarks>
public abstract class CudaDriver : IDisposable
{
    /// <summary>What stands behind the seam, for logs: never for decisions.</summary>
    public abstract string Description { get; }

    /// <summary>Whether memory and streams of this driver may be handed to NVIDIA's libraries, such as cuBLASLt.</summary>
    public virtual bool ServesLibraries => false;

    /// <summary>The CUDA version, 1000 * major + 10 * minor.</summary>
    public abstract int Version { get; }

    /// <summary>The number of devices.</summary>
    public abstract int DeviceCount { get; }

    /// <summary>The device of the calling thread; 0 until set.</summary>
    public abstract int CurrentDevice { get; set; }

    /// <summary>The name of a device.</summary>
    public abstract string DeviceName(int device);

    /// <summary>An attribute of a device.</summary>
    public abstract int GetAttribute(DeviceAttribute attribute, int device);

    /// <summary>Free and total memory of the current device in bytes.</summary>
    public abstract (ulong Free, ulong Total) MemoryInfo();

    /// <summary>Waits for all work of the current device and throws its error, if any.</summary>
    public abstract void Synchronize();

    // ---- Memory --------------------------------------------------------------------------------------------------------------------

    /// <summary>Allocates device memory, at least 256-byte aligned.</summary>
    public abstract DevicePointer Allocate(ulong bytes);

    /// <summary>Frees memory of <see cref="Allocate"/>; waits for the device.</summary>
    public abstract void Free(DevicePointer pointer);

    /// <summary>Allocates in stream order.</summary>
    public abstract DevicePointer AllocateAsync(ulong bytes, CudaStreamHandle stream);

    /// <summary>Frees in stream order; the memory may be handed out again once the stream has come this far.</summary>
    public abstract void FreeAsync(DevicePointer pointer, CudaStreamHandle stream);

    /// <summary>Allocates page-locked host memory.</summary>
    public abstract nint AllocateHost(nuint bytes);

    /// <summary>Frees memory of <see cref="AllocateHost"/>.</summary>
    public abstract void FreeHost(nint pointer);

    /// <summary>
    /// Tells a checking driver that <paramref name="bytes"/> bytes of a larger allocation are now a buffer of their own. Pools call this for
    /// every buffer they hand out and leave unowned bytes between buffers, so that an overrun is seen; drivers that do not check ignore it.
    /// </summary>
    /// <param name="pointer">Start of the buffer inside an allocation.</param>
    /// <param name="bytes">Its size.</param>
    /// <param name="name">Its name in reports.</param>
    /// <param name="stream">The stream in whose order the buffer changes hands.</param>
    public virtual void SubAllocate(DevicePointer pointer, ulong bytes, string name, CudaStreamHandle stream = default) { }

    /// <summary>Ends a buffer begun with <see cref="SubAllocate"/>, in stream order.</summary>
    public virtual void SubFree(DevicePointer pointer, CudaStreamHandle stream = default) { }

    /// <summary>Names an allocation for reports; drivers that make none ignore it.</summary>
    public virtual void NameAllocation(DevicePointer pointer, string name) { }

    /// <summary>Copies host memory to the device in stream order. The source may be read any time until the stream has come this far.</summary>
    public abstract void CopyToDeviceAsync(DevicePointer destination, nint source, ulong bytes, CudaStreamHandle stream);

    /// <summary>Copies device memory to the host in stream order.</summary>
    public abstract void CopyToHostAsync(nint destination, DevicePointer source, ulong bytes, CudaStreamHandle stream);

    /// <summary>Copies within or between devices in stream order.</summary>
    public abstract void CopyOnDeviceAsync(DevicePointer destination, DevicePointer source, ulong bytes, CudaStreamHandle stream);

    /// <summary>Fills <paramref name="count"/> elements of 1, 2 or 4 bytes with a value, in stream order.</summary>
    public abstract void FillAsync(DevicePointer destination, uint value, int elementBytes, ulong count, CudaStreamHandle stream);

    /// <summary>Copies to the device and waits.</summary>
    public unsafe void CopyToDevice<T>(DevicePointer destination, ReadOnlySpan<T> source, CudaStreamHandle stream = default) where T : unmanaged
    {
        fixed (T* pointer = source)
        {
            CopyToDeviceAsync(destination, (nint)pointer, (ulong)source.Length * (ulong)sizeof(T), stream);
            StreamSynchronize(stream);
        }
    }

    /// <summary>Copies to the host and waits.</summary>
    public unsafe void CopyToHost<T>(Span<T> destination, DevicePointer source, CudaStreamHandle stream = default) where T : unmanaged
    {
        fixed (T* pointer = destination)
        {
            CopyToHostAsync((nint)pointer, source, (ulong)destination.Length * (ulong)sizeof(T), stream);
            StreamSynchronize(stream);
        }
    }

    /// <summary>Whether <paramref name="device"/> can reach the memory of <paramref name="peer"/>.</summary>
    public abstract bool CanAccessPeer(int device, int peer);

    /// <summary>Lets kernels of the current device reach the memory of <paramref name="peer"/>.</summary>
    public abstract void EnablePeerAccess(int peer);

    // ---- Modules and launches ------------------------------------------------------------------------------------------------------

    /// <summary>Loads a module into the current device.</summary>
    public abstract CudaModuleHandle LoadModule(ModuleImage image);

    /// <summary>Unloads a module.</summary>
    public abstract void UnloadModule(CudaModuleHandle module);

    /// <summary>A kernel by its mangled name.</summary>
    public abstract CudaFunctionHandle GetFunction(CudaModuleHandle module, string name);

    /// <summary>Address and size of a global variable of a module.</summary>
    public abstract (DevicePointer Pointer, ulong Bytes) GetGlobal(CudaModuleHandle module, string name);

    /// <summary>An attribute of a kernel.</summary>
    public abstract int GetAttribute(FunctionAttribute attribute, CudaFunctionHandle function);

    /// <summary>Sets an attribute of a kernel.</summary>
    public abstract void SetAttribute(FunctionAttribute attribute, CudaFunctionHandle function, int value);

    /// <summary>Offset and size of a kernel's parameters in its argument buffer.</summary>
    public abstract IReadOnlyList<(int Offset, int Bytes)> GetParameters(CudaFunctionHandle function);

    /// <summary>Blocks of a kernel that fit on one multiprocessor at once.</summary>
    public abstract int MaxActiveBlocks(CudaFunctionHandle function, int blockThreads, int dynamicSharedBytes);

    /// <summary>Launches a kernel.</summary>
    /// <param name="function">The kernel.</param>
    /// <param name="configuration">Grid, block, shared memory, stream and options.</param>
    /// <param name="arguments">All parameters in one buffer, laid out as the kernel declares them.</param>
    public abstract void Launch(CudaFunctionHandle function, in LaunchConfiguration configuration, ReadOnlySpan<byte> arguments);

    /// <summary>Launches a kernel whose only parameter is a structure.</summary>
    public unsafe void Launch<T>(CudaFunctionHandle function, in LaunchConfiguration configuration, in T arguments) where T : unmanaged
    {
        fixed (T* pointer = &arguments) Launch(function, in configuration, new ReadOnlySpan<byte>(pointer, sizeof(T)));
    }

    // ---- Streams, events, graphs ---------------------------------------------------------------------------------------------------

    /// <summary>Creates a stream.</summary>
    /// <param name="nonBlocking">True: it does not synchronise with the legacy default stream.</param>
    public abstract CudaStreamHandle CreateStream(bool nonBlocking = true);

    /// <summary>Destroys a stream; its work still completes.</summary>
    public abstract void DestroyStream(CudaStreamHandle stream);

    /// <summary>Waits for a stream and throws its error, if any.</summary>
    public abstract void StreamSynchronize(CudaStreamHandle stream);

    /// <summary>Whether all work of a stream has finished.</summary>
    public abstract bool StreamQuery(CudaStreamHandle stream);

    /// <summary>Makes later work of a stream wait for an event.</summary>
    public abstract void StreamWaitEvent(CudaStreamHandle stream, CudaEventHandle waited);

    /// <summary>Calls a function on the host in stream order. It must not call CUDA.</summary>
    public abstract void LaunchHostFunction(CudaStreamHandle stream, Action action);

    /// <summary>Creates an event.</summary>
    public abstract CudaEventHandle CreateEvent(bool timing = false);

    /// <summary>Destroys an event.</summary>
    public abstract void DestroyEvent(CudaEventHandle handle);

    /// <summary>Records an event in stream order.</summary>
    public abstract void RecordEvent(CudaEventHandle handle, CudaStreamHandle stream);

    /// <summary>Waits until an event's last record has been reached.</summary>
    public abstract void EventSynchronize(CudaEventHandle handle);

    /// <summary>Whether an event's last record has been reached.</summary>
    public abstract bool EventQuery(CudaEventHandle handle);

    /// <summary>Milliseconds between two recorded events.</summary>
    public abstract float EventElapsedMs(CudaEventHandle start, CudaEventHandle end);

    /// <summary>Begins to record the work of a stream instead of running it.</summary>
    public abstract void BeginCapture(CudaStreamHandle stream);

    /// <summary>Ends a capture.</summary>
    public abstract CudaGraphHandle EndCapture(CudaStreamHandle stream);

    /// <summary>Makes a graph ready to launch.</summary>
    public abstract CudaGraphExecHandle InstantiateGraph(CudaGraphHandle graph);

    /// <summary>Launches a graph in stream order.</summary>
    public abstract void LaunchGraph(CudaGraphExecHandle graph, CudaStreamHandle stream);

    /// <summary>Destroys a graph.</summary>
    public abstract void DestroyGraph(CudaGraphHandle graph);

    /// <summary>Destroys an instantiated graph.</summary>
    public abstract void DestroyGraphExec(CudaGraphExecHandle graph);

    /// <summary>Releases what the driver holds.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases what the driver holds.</summary>
    protected abstract void Dispose(bool disposing);
}
