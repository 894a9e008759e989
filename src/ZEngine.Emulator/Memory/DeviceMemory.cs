using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ZEngine.Interop;

namespace ZEngine.Emulator.Memory;

/// <summary>An allocation of device memory, or a buffer a pool cut out of one.</summary>
internal sealed class Allocation
{
    public required int Id;
    public required ulong Address;
    public required ulong Bytes;
    public required string Name { get; set; }
    /// <summary>Its row of the table of ranges; 0 where it has none.</summary>
    public int Slot;
    public bool IsFreed;
    /// <summary>Buffers a pool handed out of this allocation, by address. Null while none was ever announced.</summary>
    public SortedList<ulong, Allocation>? Buffers;

    public ulong End => Address + Bytes;

    public override string ToString() => $"#{Id} \"{Name}\" {Bytes:N0} B at 0x{Address:X}{(IsFreed ? ", freed" : "")}";
}

/// <summary>
/// The memory of one device: an address window of its own, an allocation table with unowned space between allocations, and one bit per byte
/// that says whether the byte was ever written. Nothing costs host memory before it is touched.
/// </summary>
internal sealed unsafe class DeviceMemory : IDisposable
{
    /// <summary>Allocations begin at multiples of this, so the owner of an address is one table look-up away.</summary>
    public const int Granule = 512;
    private const int GranuleShift = 9;
    /// <summary>Of larger allocations and buffers the owners are noted by parts of this size, when an access comes to one.</summary>
    private const ulong Part = 1 << 20;
    /// <summary>
    /// Before an allocation of 2³¹ bytes or more so much stays free, as long as the window has room: an offset in elements of up to eight bytes that was cut off at 32 bits, and is below 0, is
    /// then in nobody's memory.
    /// </summary>
    private const ulong Long = 1ul << 31, Apart = Long * 8;
    private const int MaxSlots = 1 << 22, MaxReturned = 4096;

    private readonly VirtualMemory _data, _initialised, _owners, _ranges;
    private readonly List<Allocation> _allocations = [];
    /// <summary>By slot, the allocation; of a pool's buffer, the pool.</summary>
    private readonly List<Allocation> _slots = [];
    /// <summary>Slots of buffers that their pool took back.</summary>
    private readonly Stack<int> _idleSlots = [];
    private readonly Dictionary<ulong, Allocation> _live = [];
    /// <summary>Allocations larger than a part, by address, freed ones as long as nobody else has the address.</summary>
    private readonly SortedList<ulong, Allocation> _large = [];
    private readonly bool _isTracked;
    private readonly Queue<Allocation> _quarantine = [];
    /// <summary>The last buffers that pools took back, for reports.</summary>
    private readonly Queue<Allocation> _returned = [];
    private readonly int* _owner;
    private readonly ulong* _range;
    private ulong _next = Granule;

    /// <param name="device">The device's number.</param>
    /// <param name="capacity">Its bytes.</param>
    /// <param name="isTracked">Whether anybody asks which bytes were written.</param>
    public DeviceMemory(int device, ulong capacity, bool isTracked)
    {
        _isTracked = isTracked;
        Device = device;
        Capacity = capacity;
        // Fixed addresses make results and reports repeatable, and a host pointer or one of another device is never mistaken for ours.
        Base = 0x0007_0000_0000_0000ul | (ulong)device << 44;
        // Room beyond the capacity, so that freed addresses stay unused for long and a stale pointer is caught.
        ulong window = Math.Min(capacity * 8, 1ul << 43);
        Window = window;
        _data = new VirtualMemory(window);
        _initialised = new VirtualMemory(window / 8);
        _owners = new VirtualMemory(window / Granule * sizeof(int));
        _ranges = new VirtualMemory((ulong)MaxSlots * 16);
        Data = _data.Base;
        Initialised = _initialised.Base;
        _owner = (int*)_owners.Base;
        _range = (ulong*)_ranges.Base;
        _allocations.Add(new Allocation { Id = 0, Address = 0, Bytes = 0, Name = "nothing" });
        _slots.Add(_allocations[0]);
    }

    public int Device { get; }
    public ulong Capacity { get; }
    public ulong Used { get; private set; }
    public ulong Base { get; }
    public ulong Window { get; }
    public byte* Data { get; }
    /// <summary>One bit per byte.</summary>
    public byte* Initialised { get; }

    public IEnumerable<Allocation> Live => _live.Values;

    public bool Contains(ulong address) => address - Base < Window;

    /// <summary>The host's view of a device address that was checked.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public byte* Host(ulong address) => Data + (address - Base);

    /// <summary>Whether a range lies inside one live allocation, or one buffer of a pool; false also when only the slow path can tell.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool IsInside(ulong address, ulong bytes)
    {
        ulong offset = address - Base;
        if (offset >= Window) return false;
        ulong* range = _range + 2 * _owner[offset >> GranuleShift];
        return address >= range[0] && address + bytes <= range[1];
    }

    /// <summary>The full check: null when the access is right, else what is wrong with it.</summary>
    /// <param name="address">Where the range begins.</param>
    /// <param name="bytes">Its size.</param>
    /// <param name="examinesBuffers">Whether the buffers of a pool count as they are now. Those of queued work are not there yet.</param>
    public (FaultKind Kind, string Message)? Examine(ulong address, ulong bytes, bool examinesBuffers = true)
    {
        if (IsInside(address, bytes)) return null;
        ulong offset = address - Base;
        if (offset >= Window) return (FaultKind.OutOfBounds, $"address 0x{address:X} is in no allocation of device {Device}");
        lock (_allocations)
        {
            Allocation owner = OwnerOf(address);
            if (owner.Id == 0) return (FaultKind.OutOfBounds, $"address 0x{address:X} is in no allocation{Neighbour(address)}");
            if (owner.IsFreed) return (FaultKind.UseAfterFree, $"address 0x{address:X} lies in allocation {owner}");
            if (address < owner.Address || address + bytes > owner.End)
                return (FaultKind.OutOfBounds, $"{bytes} bytes at offset 0x{address - owner.Address:X} of allocation {owner}, {Beyond(address, bytes, owner)}");
            if (owner.Buffers is null || !examinesBuffers) return null;
            Allocation? buffer = BufferAt(owner, address);
            if (buffer is null)
                return _returned.LastOrDefault(gone => address >= gone.Address && address < gone.End) is { } returned
                    ? (FaultKind.UseAfterFree, $"address 0x{address:X} lies in pool {owner}, in buffer {returned}")
                    : (FaultKind.OutOfBounds, $"address 0x{address:X} lies in pool {owner} but in no buffer handed out from it{BufferNeighbour(owner, address)}");
            return address + bytes <= buffer.End ? null
                : (FaultKind.OutOfBounds, $"{bytes} bytes at offset 0x{address - buffer.Address:X} of buffer {buffer}, {Beyond(address, bytes, buffer)}");
        }
    }

    private Allocation OwnerOf(ulong address)
    {
        int slot = _owner[(address - Base) >> GranuleShift];
        if (slot == 0 && LastBefore(_large, address + 1) is { } large && address < large.End) slot = FillPart(large, address);
        return _slots[slot];
    }

    // The part of an allocation, or of a buffer, that an access came to; of what lies between a pool's buffers one granule, as the next may be a buffer's.
    private int FillPart(Allocation owner, ulong address)
    {
        Allocation? buffer = owner.Buffers is null ? null : BufferAt(owner, address);
        bool hasSlot = buffer is { Slot: > 0 };
        int slot = hasSlot ? buffer!.Slot : owner.Slot;
        Allocation whole = hasSlot ? buffer! : owner;
        ulong part = hasSlot || owner.Buffers is null ? Part : Granule, begin = Base + (address - Base) / part * part;
        FillOwners(Math.Max(begin, whole.Address), Math.Min(begin + part, whole.End), slot);
        return slot;
    }

    private static string Beyond(ulong address, ulong bytes, Allocation owner) => $"{address + bytes - owner.End} bytes past its end";

    private string Neighbour(ulong address)
    {
        Allocation? before = null;
        foreach (Allocation candidate in _allocations)
            if (candidate.Id != 0 && candidate.End <= address && (before is null || candidate.Address > before.Address)) before = candidate;
        return before is null || address - before.End > 1 << 20 ? "" : $", {address - before.End} bytes past the end of allocation {before}";
    }

    private static string BufferNeighbour(Allocation pool, ulong address)
    {
        Allocation? before = pool.Buffers!.Values.LastOrDefault(buffer => buffer.End <= address);
        return before is null ? "" : $", {address - before.End} bytes past the end of {before}";
    }

    private static Allocation? BufferAt(Allocation pool, ulong address) =>
        LastBefore(pool.Buffers!, address + 1) is { } candidate && (address < candidate.End || candidate.Bytes == 0 && address == candidate.Address) ? candidate : null;

    /// <summary>The last allocation or buffer that begins before an address.</summary>
    private static Allocation? LastBefore(SortedList<ulong, Allocation> all, ulong address)
    {
        IList<ulong> starts = all.Keys;
        int low = 0, high = starts.Count - 1;
        while (low <= high)
        {
            int middle = (low + high) / 2;
            if (starts[middle] < address) low = middle + 1;
            else high = middle - 1;
        }
        return high < 0 ? null : all.Values[high];
    }

    /// <summary>The allocation, or the buffer of a pool, that holds an address.</summary>
    public Allocation? Find(ulong address)
    {
        if (!Contains(address)) return null;
        lock (_allocations)
        {
            Allocation owner = OwnerOf(address);
            if (owner.Id == 0) return null;
            return owner.Buffers is null ? owner : BufferAt(owner, address) ?? owner;
        }
    }

    public void Rename(ulong address, string name)
    {
        lock (_allocations) if (_live.TryGetValue(address, out Allocation? allocation)) allocation.Name = name;
    }

    public Allocation? LiveAt(ulong address) => _live.GetValueOrDefault(address);

    // ---- Allocation ----------------------------------------------------------------------------------------------------------------

    public Allocation? Allocate(ulong bytes, string name)
    {
        lock (_allocations)
        {
            if (bytes > Capacity - Used || _slots.Count == MaxSlots) return null;
            ulong span = (bytes + 2 * Granule - 1) / Granule * Granule;                     // at least one unowned granule... of red zone
            ulong start = bytes >= Long && _next + Apart + span <= Window ? _next + Apart : _next;
            if (start + span > Window)
            {
                Allocation? old = TakeFromQuarantine(span);
                if (old is null) return null;
                start = old.Address - Base;
            }
            else
            {
                _next = start + span + Granule;
            }
            var allocation = new Allocation { Id = _allocations.Count, Address = Base + start, Bytes = bytes, Name = name };
            _allocations.Add(allocation);
            _live.Add(allocation.Address, allocation);
            Used += bytes;
            allocation.Slot = _slots.Count;
            _slots.Add(allocation);
            _large.Remove(allocation.Address);
            if (bytes > Part) _large.Add(allocation.Address, allocation);
            SetRange(allocation);
            SetOwner(allocation, allocation.Slot);
            return allocation;
        }
    }

    public void Free(Allocation allocation)
    {
        lock (_allocations)
        {
            allocation.IsFreed = true;
            foreach (Allocation buffer in allocation.Buffers?.Values ?? []) TakeSlot(allocation, buffer);
            allocation.Buffers = null;
            _live.Remove(allocation.Address);
            _quarantine.Enqueue(allocation);
            Used -= allocation.Bytes;
            _range[2 * allocation.Slot] = ulong.MaxValue;
            _data.Zero(allocation.Address - Base, allocation.Bytes);
            _initialised.Zero((allocation.Address - Base) / 8, (allocation.Bytes + 7) / 8);
        }
    }

    private Allocation? TakeFromQuarantine(ulong span)
    {
        for (int tries = _quarantine.Count; tries > 0; tries--)
        {
            Allocation candidate = _quarantine.Dequeue();
            if ((candidate.Bytes + 2 * Granule - 1) / Granule * Granule >= span) return candidate;
            _quarantine.Enqueue(candidate);
        }
        return null;
    }

    private void SetRange(Allocation allocation)
    {
        // What lies between the buffers of a pool takes the slow path.
        bool isPool = allocation.Buffers is not null;
        _range[2 * allocation.Slot] = isPool ? ulong.MaxValue : allocation.Address;
        _range[2 * allocation.Slot + 1] = isPool ? 0 : allocation.End;
    }

    private void SetOwner(Allocation allocation, int slot)
    {
        ulong end = allocation.Address + Math.Max(allocation.Bytes, 1);
        if (allocation.Bytes <= Part)
        {
            FillOwners(allocation.Address, end, slot);
            return;
        }
        (ulong first, ulong count) = Granules(allocation.Address, end);
        _owners.Zero(first * sizeof(int), count * sizeof(int));
    }

    private void FillOwners(ulong address, ulong end, int slot)
    {
        (ulong first, ulong count) = Granules(address, end);
        new Span<int>(_owner + first, (int)count).Fill(slot);
    }

    private (ulong First, ulong Count) Granules(ulong address, ulong end)
    {
        ulong first = (address - Base) >> GranuleShift;
        return (first, ((end - Base - 1) >> GranuleShift) - first + 1);
    }

    // A buffer that begins with a granule is found as fast as an allocation. Of what lies behind its end in its last granule only the slow path knows.
    private void GiveSlot(Allocation pool, Allocation buffer)
    {
        if ((buffer.Address - Base) % Granule != 0 || _idleSlots.Count == 0 && _slots.Count == MaxSlots) return;
        if (!_idleSlots.TryPop(out buffer.Slot))
        {
            buffer.Slot = _slots.Count;
            _slots.Add(pool);
        }
        _slots[buffer.Slot] = pool;
        SetRange(buffer);
        SetOwner(buffer, buffer.Slot);
    }

    private void TakeSlot(Allocation pool, Allocation buffer)
    {
        if (buffer.Slot == 0) return;
        SetOwner(buffer, pool.Slot);
        _idleSlots.Push(buffer.Slot);
    }

    /// <summary>A pool hands out part of an allocation. What lay there before counts as never written.</summary>
    public string? AddBuffer(ulong address, ulong bytes, string name)
    {
        lock (_allocations)
        {
            Allocation? pool = Contains(address) ? OwnerOf(address) : null;
            if (pool is null || pool.Id == 0 || pool.IsFreed || address + bytes > pool.End) return $"0x{address:X} + {bytes} is not inside a live allocation";
            pool.Buffers ??= [];
            if (LastBefore(pool.Buffers, address + bytes) is { } other && address < other.End) return $"buffer \"{name}\" overlaps {other}";
            var buffer = new Allocation { Id = pool.Id, Address = address, Bytes = bytes, Name = name };
            pool.Buffers[address] = buffer;
            SetRange(pool);
            GiveSlot(pool, buffer);
            SetInitialised(address, bytes, false);
            return null;
        }
    }

    public string? RemoveBuffer(ulong address)
    {
        lock (_allocations)
        {
            Allocation? pool = Contains(address) ? OwnerOf(address) : null;
            if (pool?.Buffers is null || !pool.Buffers.Remove(address, out Allocation? buffer)) return $"no buffer begins at 0x{address:X}";
            buffer.IsFreed = true;
            TakeSlot(pool, buffer);
            _returned.Enqueue(buffer);
            if (_returned.Count > MaxReturned) _returned.Dequeue();
            return null;
        }
    }

    // ---- Initialised bits -----------------------------------------------------------------------------------------------------------

    public void SetInitialised(ulong address, ulong bytes, bool value)
    {
        if (!_isTracked) return;
        ulong bit = address - Base, end = bit + bytes;
        while (bit < end && (bit & 7) != 0) SetBit(bit++, value);
        ulong whole = (end - bit) / 8;
        if (end > bit)
        {
            if (value) NativeMemory.Fill(Initialised + bit / 8, (nuint)whole, 0xFF);
            else _initialised.Zero(bit / 8, whole);
            for (bit += whole * 8; bit < end; bit++) SetBit(bit, value);
        }
    }

    private void SetBit(ulong bit, bool value)
    {
        // Blocks on other workers may own neighbouring bytes of the same eight.
        ref byte shadow = ref Initialised[bit >> 3];
        byte flag = (byte)(1 << (int)(bit & 7));
        if (value) AtomicByte.Or(ref shadow, flag);
        else AtomicByte.And(ref shadow, (byte)~flag);
    }

    /// <summary>Marks up to 16 bytes of one access.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void MarkWritten(ulong address, int bytes)
    {
        ulong bit = address - Base;
        int shift = (int)(bit & 7);
        uint flags = ((1u << bytes) - 1) << shift;
        byte* shadow = Initialised + (bit >> 3);
        for (; flags != 0; flags >>= 8, shadow++)
            if ((byte)(*shadow & flags) != (byte)flags) AtomicByte.Or(ref *shadow, (byte)flags);
    }

    /// <summary>Which of up to 16 bytes were never written, as a mask.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public uint Unwritten(ulong address, int bytes)
    {
        ulong bit = address - Base;
        uint written = *(uint*)(Initialised + (bit >> 3)) >> (int)(bit & 7);
        return ~written & ((1u << bytes) - 1);
    }

    /// <summary>Whether a whole range was written; the address is a multiple of 8.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool IsWritten(ulong address, int bytes)
    {
        byte* shadow = Initialised + ((address - Base) >> 3);
        int whole = bytes / 8;
        for (; whole >= 8; whole -= 8, shadow += 8) if (*(ulong*)shadow != ulong.MaxValue) return false;
        for (; whole > 0; whole--, shadow++) if (*shadow != 0xFF) return false;
        return (bytes & 7) == 0 || (*shadow & (1 << (bytes & 7)) - 1) == (1 << (bytes & 7)) - 1;
    }

    public void Copy(ulong destination, byte* source, ulong bytes)
    {
        Buffer.MemoryCopy(source, Host(destination), bytes, bytes);
        SetInitialised(destination, bytes, true);
    }

    /// <summary>Copies initialised bits with the data, so that a copy of unwritten bytes is still unwritten.</summary>
    public static void CopyInitialised(DeviceMemory from, ulong source, DeviceMemory to, ulong destination, ulong bytes)
    {
        if (!to._isTracked) return;
        if (((source | destination | bytes) & 7) == 0)
        {
            Buffer.MemoryCopy(from.Initialised + (source - from.Base) / 8, to.Initialised + (destination - to.Base) / 8, bytes / 8, bytes / 8);
            return;
        }
        for (ulong k = 0; k < bytes; k++)
        {
            ulong bit = source + k - from.Base;
            to.SetBit(destination + k - to.Base, (from.Initialised[bit >> 3] >> (int)(bit & 7) & 1) != 0);
        }
    }

    public void Zero(ulong address, ulong bytes)
    {
        _data.Zero(address - Base, bytes);
        SetInitialised(address, bytes, true);
    }

    public void Dispose()
    {
        _data.Dispose();
        _initialised.Dispose();
        _owners.Dispose();
        _ranges.Dispose();
    }
}

/// <summary>Atomic bit operations on a byte, by way of the aligned 32-bit word that holds it.</summary>
internal static unsafe class AtomicByte
{
    public static void Or(ref byte target, byte bits)
    {
        nuint address = (nuint)Unsafe.AsPointer(ref target);
        int shift = (int)(address & 3) * 8;
        Interlocked.Or(ref *(int*)(address & ~(nuint)3), bits << shift);
    }

    public static void And(ref byte target, byte bits)
    {
        nuint address = (nuint)Unsafe.AsPointer(ref target);
        int shift = (int)(address & 3) * 8;
        Interlocked.And(ref *(int*)(address & ~(nuint)3), bits << shift | ~(0xFF << shift));
    }
}
