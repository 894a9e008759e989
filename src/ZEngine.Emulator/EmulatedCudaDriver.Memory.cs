using System.Runtime.InteropServices;
using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Driver;
using ZEngine.Emulator.Memory;
using ZEngine.Interop;

namespace ZEngine.Emulator;

public sealed unsafe partial class EmulatedCudaDriver
{
    /// <inheritdoc/>
    public override DevicePointer Allocate(ulong bytes)
    {
        lock (_gate)
        {
            Usable("cuMemAlloc");
            return new DevicePointer(AllocateNow("cuMemAlloc", bytes).Address);
        }
    }

    private Allocation AllocateNow(string call, ulong bytes)
    {
        if (bytes == 0) throw Error(call, CudaResult.InvalidValue, "an allocation of 0 bytes");
        return Memory.Allocate(bytes, $"allocation of {bytes:N0} bytes")
            ?? throw Error(call, CudaResult.OutOfMemory, $"{bytes} bytes asked for, {Memory.Capacity - Memory.Used} of {Memory.Capacity} free");
    }

    /// <inheritdoc/>
    public override void Free(DevicePointer pointer)
    {
        lock (_gate)
        {
            Allocation allocation = Freeable("cuMemFree", pointer);
            // A GPU waits for its work here; its error does not keep the memory from being freed.
            _scheduler.RunAll(CurrentDevice);
            Memory.Free(allocation);
        }
    }

    private Allocation Freeable(string call, DevicePointer pointer) =>
        Memory.LiveAt(pointer.Address) ?? throw Error(call, CudaResult.InvalidValue, Memory.Find(pointer.Address) is { } owner
            ? $"{pointer} is {(owner.IsFreed ? "already freed" : "not the start")}: {owner}"
            : $"{pointer} was never allocated on this device");

    /// <inheritdoc/>
    public override DevicePointer AllocateAsync(ulong bytes, CudaStreamHandle stream)
    {
        lock (_gate)
        {
            Usable("cuMemAllocAsync");
            Allocation allocation = AllocateNow("cuMemAllocAsync", bytes);
            Enqueue("cuMemAllocAsync", stream, "allocation", () => Whole(allocation));
            return new DevicePointer(allocation.Address);
        }
    }

    /// <inheritdoc/>
    public override void FreeAsync(DevicePointer pointer, CudaStreamHandle stream)
    {
        lock (_gate)
        {
            Usable("cuMemFreeAsync");
            Allocation allocation = Freeable("cuMemFreeAsync", pointer);
            DeviceMemory memory = Memory;
            Enqueue("cuMemFreeAsync", stream, "free", () =>
            {
                Touches? touches = Whole(allocation);
                memory.Free(allocation);
                return touches;
            });
        }
    }

    // An allocation changing hands counts as a write of all its bytes: any work not ordered with it is in conflict. Huge ones are not
    // followed, for the sake of host memory.
    private Touches? Whole(Allocation allocation)
    {
        if (!TracksStreams(CurrentDevice) || allocation.Bytes > 64 << 20) return null;
        var touches = new Touches();
        touches.Write(allocation.Address, allocation.Bytes);
        return touches;
    }

    private bool TracksStreams(int device) => Options.Checks.HasFlag(EmulatorChecks.StreamRaces) && _scheduler.HasSeveralStreams(device);

    /// <inheritdoc/>
    public override nint AllocateHost(nuint bytes)
    {
        nint pointer = (nint)NativeMemory.AlignedAlloc(Math.Max(bytes, 1), 4096);
        lock (_gate) _hostAllocations.Add(pointer, bytes);
        return pointer;
    }

    /// <inheritdoc/>
    public override void FreeHost(nint pointer)
    {
        lock (_gate)
        {
            if (!_hostAllocations.ContainsKey(pointer)) throw Error("cuMemFreeHost", CudaResult.InvalidValue, "this is no page-locked memory of this driver");
            // Queued copies may still read it.
            _scheduler.RunAll(CurrentDevice);
            _hostAllocations.Remove(pointer);
        }
        FreeNative(pointer);
    }

    private static void FreeNative(nint pointer) => NativeMemory.AlignedFree((void*)pointer);

    /// <inheritdoc/>
    public override void SubAllocate(DevicePointer pointer, ulong bytes, string name, CudaStreamHandle stream = default)
    {
        lock (_gate)
        {
            DeviceMemory memory = Memory;
            // In stream order, so that work queued before on a buffer that lay here still finds it.
            Enqueue("SubAllocate", stream, "buffer", () =>
            {
                if (memory.AddBuffer(pointer.Address, bytes, name) is { } wrong) throw Error("SubAllocate", CudaResult.InvalidValue, wrong);
                return null;
            });
        }
    }

    /// <inheritdoc/>
    public override void SubFree(DevicePointer pointer, CudaStreamHandle stream = default)
    {
        lock (_gate)
        {
            DeviceMemory memory = Memory;
            Enqueue("SubFree", stream, "buffer", () =>
            {
                if (memory.RemoveBuffer(pointer.Address) is { } wrong) throw Error("SubFree", CudaResult.InvalidValue, wrong);
                return null;
            });
        }
    }

    /// <inheritdoc/>
    public override void NameAllocation(DevicePointer pointer, string name)
    {
        lock (_gate) Memory.Rename(pointer.Address, name);
    }

    // ---- Copies ------------------------------------------------------------------------------------------------------------------------

    /// <summary>The memory of a range that a copy names; the driver refuses ranges nobody owns. Buffers of a pool change hands in stream order, so they are looked at when the copy runs.</summary>
    private DeviceMemory RangeOf(string call, DevicePointer pointer, ulong bytes, bool isRunning = false)
    {
        DeviceMemory memory = Array.Find(_memories, m => m.Contains(pointer.Address)) ?? throw Error(call, CudaResult.InvalidValue, $"{pointer} is no device address");
        if (memory.Examine(pointer.Address, bytes, isRunning) is { } wrong) throw Error(call, CudaResult.InvalidValue, wrong.Message);
        return memory;
    }

    /// <inheritdoc/>
    public override void CopyToDeviceAsync(DevicePointer destination, nint source, ulong bytes, CudaStreamHandle stream) =>
        Transfer("cuMemcpyHtoDAsync", "copy to device", destination, bytes, isWrite: true, stream, memory => memory.Copy(destination.Address, (byte*)source, bytes));

    /// <inheritdoc/>
    public override void CopyToHostAsync(nint destination, DevicePointer source, ulong bytes, CudaStreamHandle stream) =>
        Transfer("cuMemcpyDtoHAsync", "copy to host", source, bytes, isWrite: false, stream, memory =>
        {
            Buffer.MemoryCopy(memory.Host(source.Address), (void*)destination, bytes, bytes);
            Options.Observer?.Read(new ReadOnlySpan<byte>((void*)destination, checked((int)bytes)));
        });

    /// <summary>Queues what reads or writes one range of device memory.</summary>
    private void Transfer(string call, string kind, DevicePointer range, ulong bytes, bool isWrite, CudaStreamHandle stream, Action<DeviceMemory> run)
    {
        lock (_gate)
        {
            Usable(call);
            if (bytes == 0) return;
            DeviceMemory memory = RangeOf(call, range, bytes);
            Enqueue(call, stream, kind, () =>
            {
                RangeOf(call, range, bytes, isRunning: true);
                run(memory);
                return Touch(memory, range, bytes, isWrite);
            });
        }
    }

    /// <inheritdoc/>
    public override void CopyOnDeviceAsync(DevicePointer destination, DevicePointer source, ulong bytes, CudaStreamHandle stream)
    {
        const string call = "cuMemcpyAsync";
        lock (_gate)
        {
            Usable(call);
            if (bytes == 0) return;
            DeviceMemory to = RangeOf(call, destination, bytes), from = RangeOf(call, source, bytes);
            Enqueue(call, stream, "copy on device", () =>
            {
                RangeOf(call, destination, bytes, isRunning: true);
                RangeOf(call, source, bytes, isRunning: true);
                Buffer.MemoryCopy(from.Host(source.Address), to.Host(destination.Address), bytes, bytes);
                DeviceMemory.CopyInitialised(from, source.Address, to, destination.Address, bytes);
                Touches? touches = Touch(from, source, bytes, isWrite: false);
                touches?.Write(destination.Address, bytes);
                return touches;
            });
        }
    }

    /// <inheritdoc/>
    public override void FillAsync(DevicePointer destination, uint value, int elementBytes, ulong count, CudaStreamHandle stream)
    {
        string call = $"cuMemsetD{8 * elementBytes}Async";
        if (elementBytes is not (1 or 2 or 4)) throw Error(call, CudaResult.InvalidValue, "elements have 1, 2 or 4 bytes");
        if (destination.Address % (ulong)elementBytes != 0) throw Error(call, CudaResult.InvalidValue, $"{destination} is not a multiple of {elementBytes}");
        Transfer(call, "fill", destination, count * (ulong)elementBytes, isWrite: true, stream, memory => Fill(memory, destination.Address, value, elementBytes, count));
    }

    private static void Fill(DeviceMemory memory, ulong address, uint value, int elementBytes, ulong count)
    {
        if (value == 0)
        {
            memory.Zero(address, count * (ulong)elementBytes);
            return;
        }
        byte* at = memory.Host(address);
        for (ulong k = 0; k < count; k++, at += elementBytes)
        {
            if (elementBytes == 4) *(uint*)at = value;
            else if (elementBytes == 2) *(ushort*)at = (ushort)value;
            else *at = (byte)value;
        }
        memory.SetInitialised(address, count * (ulong)elementBytes, true);
    }

    private Touches? Touch(DeviceMemory memory, DevicePointer pointer, ulong bytes, bool isWrite)
    {
        if (!TracksStreams(memory.Device)) return null;
        var touches = new Touches();
        if (isWrite) touches.Write(pointer.Address, bytes);
        else touches.Read(pointer.Address, bytes);
        return touches;
    }

    /// <inheritdoc/>
    public override bool CanAccessPeer(int device, int peer) => device != peer && (uint)device < (uint)DeviceCount && (uint)peer < (uint)DeviceCount;

    /// <inheritdoc/>
    public override void EnablePeerAccess(int peer)
    {
        if (!CanAccessPeer(CurrentDevice, peer)) throw Error("cuCtxEnablePeerAccess", CudaResult.PeerAccessUnsupported, $"device {CurrentDevice} cannot access device {peer}");
        lock (_gate)
            if (!_peers[CurrentDevice].Add(peer)) throw Error("cuCtxEnablePeerAccess", CudaResult.PeerAccessAlreadyEnabled, $"device {CurrentDevice} already accesses device {peer}");
    }

    private DeviceMemory? Peer(int device, ulong address)
    {
        foreach (int peer in _peers[device]) if (_memories[peer].Contains(address)) return _memories[peer];
        return null;
    }
}
