using System.Numerics;
using System.Runtime.InteropServices;

namespace ZEngine;

/// <summary>Aligned native memory in size classes, kept for reuse: a training step asks for the same sizes again and again.</summary>
internal sealed unsafe class CpuPool(Device device)
{
    private const int Alignment = 128;                         // two cache lines: the adjacent-line prefetcher works in pairs
    private const byte GuardByte = 0xA5, PoisonByte = 0xFF;    // 0xFFFFFFFF is a NaN in every float type

    private readonly Lock _lock = new();
    private readonly CpuMemory _memory = new(Alignment);
    private readonly Dictionary<long, Stack<Storage>> _idle = [];

    public bool Guards { get; set; }

    public Storage Rent(long bytes)
    {
        if (bytes > nint.MaxValue / 2) throw NoMemory(bytes);  // so that no rounding up overflows
        long size = SizeClass(bytes);
        Storage? storage = null;
        lock (_lock)
        {
            if (_idle.TryGetValue(size, out Stack<Storage>? stack)) stack.TryPop(out storage);
        }
        if (storage is null)
        {
            // The guards stand outside the block, whether they are checked or not: the switch may change while blocks live.
            byte* block = Allocate(size + 2 * Alignment);
            new Span<byte>(block, Alignment).Fill(GuardByte);
            new Span<byte>(block + Alignment + size, Alignment).Fill(GuardByte);
            storage = new Storage(device, (nint)(block + Alignment), size, isPooled: true);
        }
        else storage.Revive();
        if (Guards) NativeMemory.Fill((void*)storage.Address, (nuint)size, PoisonByte);
        return storage;
    }

    public void Recycle(Storage storage)
    {
        if (Guards) CheckGuards(storage);
        lock (_lock)
        {
            if (!_idle.TryGetValue(storage.Bytes, out Stack<Storage>? stack)) _idle[storage.Bytes] = stack = new Stack<Storage>();
            stack.Push(storage);
        }
    }

    public void Trim()
    {
        lock (_lock)
        {
            foreach (Stack<Storage> stack in _idle.Values)
            foreach (Storage storage in stack)
            {
                storage.Forget();
                _memory.Free((byte*)storage.Address - Alignment, storage.Bytes + 2 * Alignment);
            }
            _idle.Clear();
        }
    }

    /// <summary>Rounds up to four steps per power of two, so at most a fifth of a block is spare.</summary>
    internal static long SizeClass(long bytes)
    {
        if (bytes <= 512) return 512;
        long step = 1L << Math.Max(9, BitOperations.Log2((ulong)bytes - 1) - 2);
        return checked(bytes + step - 1) / step * step;
    }

    private byte* Allocate(long bytes)
    {
        try
        {
            return _memory.Allocate(bytes);
        }
        catch (OutOfMemoryException)
        {
            Trim();
        }
        try
        {
            return _memory.Allocate(bytes);
        }
        catch (OutOfMemoryException)
        {
            throw NoMemory(bytes);
        }
    }

    private InsufficientMemoryException NoMemory(long bytes) =>
        new($"cpu: no memory for a block of {bytes:N0} bytes; tensors hold {device.LiveBytes:N0} bytes in {device.LiveBuffers:N0} buffers.");

    private static void CheckGuards(Storage storage)
    {
        var block = (byte*)storage.Address;
        bool before = new ReadOnlySpan<byte>(block - Alignment, Alignment).ContainsAnyExcept(GuardByte);
        bool after = new ReadOnlySpan<byte>(block + storage.Bytes, Alignment).ContainsAnyExcept(GuardByte);
        if (before || after)
            throw new InvalidOperationException($"A kernel wrote {(before ? "before" : "behind")} a block of {storage.Bytes} bytes.");
    }
}
