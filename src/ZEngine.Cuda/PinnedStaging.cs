using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>Page-locked memory through which host values pass: the caller's memory is free at once, and the copy runs in stream order.</summary>
/// <remarks>A ring of slots: one is written again only when the copies out of it have run. Uploads wait for the device only when they are a whole ring ahead.</remarks>
internal sealed unsafe class PinnedStaging(CudaDevice device) : IDisposable
{
    private const int Slots = 4, SlotBytes = 4 << 20, Alignment = 16;
    private readonly Lock _gate = new();
    private readonly CudaEventHandle[] _isFree = new CudaEventHandle[Slots];
    private nint _memory;
    private int _slot, _used;

    /// <summary>Copies host bytes to the device.</summary>
    public void Upload(ReadOnlySpan<byte> source, nint destination)
    {
        lock (_gate)
        {
            CudaDriver driver = device.Enter();
            while (!source.IsEmpty)
            {
                (nint at, int room) = Room(driver, Math.Min(source.Length, SlotBytes));
                int bytes = Math.Min(source.Length, room);
                source[..bytes].CopyTo(new Span<byte>((void*)at, bytes));
                driver.CopyToDeviceAsync(new DevicePointer((ulong)destination), at, (ulong)bytes, device.Stream);
                source = source[bytes..];
                destination += bytes;
            }
        }
    }

    /// <summary>Copies device bytes to the host, and waits for the stream.</summary>
    public void Download(nint source, Span<byte> destination)
    {
        lock (_gate)
        {
            CudaDriver driver = device.Enter();
            for (int done = 0; done < destination.Length;)
            {
                (nint at, int room) = Room(driver, Math.Min(destination.Length - done, SlotBytes));
                int bytes = Math.Min(destination.Length - done, room);
                driver.CopyToHostAsync(at, new DevicePointer((ulong)(source + done)), (ulong)bytes, device.Stream);
                device.Wait();
                new ReadOnlySpan<byte>((void*)at, bytes).CopyTo(destination[done..]);
                done += bytes;
            }
        }
    }

    public void Dispose()
    {
        if (_memory == 0) return;
        CudaDriver driver = device.Enter();
        driver.FreeHost(_memory);
        foreach (CudaEventHandle isFree in _isFree) driver.DestroyEvent(isFree);
        _memory = 0;
    }

    /// <summary>Where the next bytes go, and how many fit.</summary>
    private (nint At, int Room) Room(CudaDriver driver, int wanted)
    {
        if (_memory == 0)
        {
            _memory = driver.AllocateHost(Slots * (nuint)SlotBytes);
            for (int slot = 0; slot < Slots; slot++) _isFree[slot] = driver.CreateEvent();
            for (int slot = 0; slot < Slots; slot++) driver.RecordEvent(_isFree[slot], device.Stream);
        }
        if (SlotBytes - _used < wanted)
        {
            driver.RecordEvent(_isFree[_slot], device.Stream);
            (_slot, _used) = ((_slot + 1) % Slots, 0);
            driver.EventSynchronize(_isFree[_slot]);
        }
        nint at = _memory + (nint)_slot * SlotBytes + _used;
        _used += (wanted + Alignment - 1) / Alignment * Alignment;
        return (at, wanted);
    }
}
