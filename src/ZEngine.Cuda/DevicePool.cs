using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>
/// Device memory in stream order: segments from the driver, cut into blocks by best fit and joined again when neighbours are free.
/// </summary>
/// <remarks>
/// All work of a device runs on one stream, so a block that is given back may be handed out at once: the kernel that writes it next runs after
/// the kernel that read it last. Freeing to the driver waits for the device, so segments stay until <see cref="Trim"/>.
/// </remarks>
internal sealed class DevicePool(CudaDevice device)
{
    private const long Unit = 512, SmallLimit = 1 << 20, SmallSegment = 2 << 20, LargeSegment = 20 << 20;

    /// <summary>Bytes between buffers that nobody owns, so that a checking driver sees an overrun.</summary>
    private const long Gap = 16;

    private readonly Lock _gate = new();
    private readonly Dictionary<nint, Block> _rented = [];
    private readonly Arena _common = new(isReported: true);
    private readonly List<Arena> _graphs = [];
    private Arena? _capturing;

    /// <summary>Bytes taken from the driver.</summary>
    public long SegmentBytes { get; private set; }

    /// <summary>A storage of at least <paramref name="bytes"/> bytes.</summary>
    public Storage Rent(long bytes)
    {
        if (bytes > long.MaxValue / 4) throw NoMemory(bytes);
        long size = (Math.Max(bytes, 1) + Gap + Unit - 1) / Unit * Unit;
        lock (_gate)
        {
            Arena arena = _capturing ?? _common;
            Block block = arena.Take(size, size <= SmallLimit) ?? Grow(arena, size, bytes);
            block.Rest(arena, size);
            if (arena.IsReported) device.Enter().SubAllocate(new DevicePointer((ulong)block.Address), (ulong)Math.Max(bytes, 1), $"tensor of {bytes:N0} bytes", device.Stream);
            _rented.Add(block.Address, block);
            if (block.Storage is { } known && known.Bytes == size)
            {
                known.Revive();
                return known;
            }
            block.Storage?.Forget();
            return block.Storage = new Storage(device, block.Address, size, isPooled: true);
        }
    }

    /// <summary>Takes a block back.</summary>
    public void Recycle(Storage storage)
    {
        lock (_gate)
        {
            if (!_rented.Remove(storage.Address, out Block? block)) return;    // the device is gone, and its memory with it
            if (block.Storage != storage)
            {
                block.Storage?.Forget();                                       // the finalizer found the old object dead
                block.Storage = storage;
            }
            if (_capturing is not null && block.Arena == _common)
            {
                // The graph that is being captured reads or writes it at every replay.
                _capturing.Held.Add(block);
                return;
            }
            Return(block);
        }
    }

    /// <summary>Gives segments of which nothing is in use back to the driver; waits for the device.</summary>
    public void Trim()
    {
        lock (_gate) SegmentBytes -= _common.ReleaseIdle(device.Enter());
    }

    /// <summary>From now on blocks come from memory that belongs to a graph and is not handed out to others.</summary>
    public Arena BeginCapture()
    {
        lock (_gate)
        {
            if (_capturing is not null) throw new InvalidOperationException($"{device}: a capture is going on already.");
            _graphs.Add(_capturing = new Arena(isReported: false));
            return _capturing;
        }
    }

    public void EndCapture()
    {
        lock (_gate) _capturing = null;
    }

    /// <summary>The graph is gone: what it held goes back, and its own memory to the driver unless a tensor still lies in it.</summary>
    public void Release(Arena arena)
    {
        lock (_gate)
        {
            foreach (Block block in arena.Held) Return(block);
            arena.Held.Clear();
            arena.IsReleased = true;
            SegmentBytes -= arena.ReleaseIdle(device.Enter());
            _graphs.Remove(arena);
        }
    }

    public void Dispose()
    {
        lock (_gate)
        {
            foreach (Block block in _rented.Values) block.Storage?.Forget();
            IEnumerable<Segment> segments = _rented.Values.Select(block => block.Segment).Concat(_graphs.Append(_common).SelectMany(arena => arena.Segments)).Distinct();
            foreach (Segment segment in segments.ToArray()) device.Enter().Free(segment.Base);
            _rented.Clear();
            SegmentBytes = 0;
        }
    }

    private void Return(Block block)
    {
        if (block.Arena.IsReported) device.Enter().SubFree(new DevicePointer((ulong)block.Address), device.Stream);
        block.Arena.Put(block);
        if (block.Arena.IsReleased) SegmentBytes -= block.Arena.ReleaseIdle(device.Enter());
    }

    private Block Grow(Arena arena, long size, long asked)
    {
        bool isSmall = size <= SmallLimit;
        long bytes = isSmall ? SmallSegment : size < LargeSegment / 2 ? LargeSegment : (size + SmallSegment - 1) / SmallSegment * SmallSegment;
        CudaDriver driver = device.Enter();
        DevicePointer start;
        try
        {
            start = driver.Allocate((ulong)bytes);
        }
        catch (CudaException e) when (e.Result == CudaResult.OutOfMemory)
        {
            // What the pool holds idle may be in the way; and a segment no larger than needed may still fit.
            SegmentBytes -= _common.ReleaseIdle(driver);
            bytes = (size + SmallSegment - 1) / SmallSegment * SmallSegment;
            try
            {
                start = driver.Allocate((ulong)bytes);
            }
            catch (CudaException again) when (again.Result == CudaResult.OutOfMemory)
            {
                throw NoMemory(asked);
            }
        }
        SegmentBytes += bytes;
        var segment = new Segment(start, bytes);
        arena.Segments.Add(segment);
        return new Block(arena, segment, (nint)start.Address, bytes, isSmall);
    }

    private InsufficientMemoryException NoMemory(long bytes)
    {
        (ulong free, ulong total) = device.Enter().MemoryInfo();
        var largest = _rented.Values.GroupBy(block => block.Bytes).OrderByDescending(group => group.Key * group.Count()).Take(5).Select(group => $"{group.Count()} of {group.Key:N0}");
        long graphs = _rented.Values.Where(block => block.Arena != _common).Sum(block => block.Bytes);
        return new InsufficientMemoryException(
            $"{device} ({device.Description}): no memory for a tensor of {bytes:N0} bytes. Tensors hold {device.LiveBytes:N0} bytes in {device.LiveBuffers:N0} buffers"
            + $"{(_rented.Count > 0 ? $" (most in {string.Join(", ", largest)} bytes)" : "")}, captured graphs {graphs:N0} of them; the pool has {SegmentBytes:N0} bytes from the driver; "
            + $"the device has {free:N0} of {total:N0} bytes free, other processes and the driver hold {Math.Max(0, (long)(total - free) - SegmentBytes):N0}.");
    }

    /// <summary>Memory of the driver.</summary>
    internal sealed record Segment(DevicePointer Base, long Bytes);

    /// <summary>A part of a segment, in use or idle; the parts of a segment form a chain.</summary>
    internal sealed class Block(Arena arena, Segment segment, nint address, long bytes, bool isSmall)
    {
        public Arena Arena { get; } = arena;
        public Segment Segment { get; } = segment;
        public nint Address { get; } = address;
        public long Bytes { get; set; } = bytes;
        public bool IsSmall { get; } = isSmall;
        public bool IsIdle { get; set; }
        public Block? Before { get; set; }
        public Block? Behind { get; set; }
        public Storage? Storage { get; set; }

        /// <summary>Cuts off what is more than <paramref name="size"/> bytes.</summary>
        public void Rest(Arena arena, long size)
        {
            if (Bytes == size) return;
            var rest = new Block(arena, Segment, Address + (nint)size, Bytes - size, IsSmall) { Before = this, Behind = Behind };
            if (Behind is not null) Behind.Before = rest;
            (Behind, Bytes) = (rest, size);
            arena.Put(rest);
        }
    }

    /// <summary>Segments whose blocks are handed out together: the device's, or those of one graph.</summary>
    internal sealed class Arena(bool isReported)
    {
        private static readonly Comparer<Block> ByBytes = Comparer<Block>.Create((a, b) => a.Bytes != b.Bytes ? a.Bytes.CompareTo(b.Bytes) : a.Address.CompareTo(b.Address));
        private readonly SortedSet<Block> _idleSmall = new(ByBytes), _idleLarge = new(ByBytes);

        /// <summary>Whether the driver hears of each buffer. Buffers of a graph stay where they are from replay to replay.</summary>
        public bool IsReported { get; } = isReported;

        public List<Segment> Segments { get; } = [];

        /// <summary>Blocks of the device's arena that the graph uses though their tensors are gone.</summary>
        public List<Block> Held { get; } = [];

        public bool IsReleased { get; set; }

        /// <summary>The smallest idle block that is large enough.</summary>
        public Block? Take(long size, bool isSmall)
        {
            SortedSet<Block> idle = isSmall ? _idleSmall : _idleLarge;
            using SortedSet<Block>.Enumerator first = idle.GetViewBetween(new Block(this, null!, 0, size, isSmall), new Block(this, null!, nint.MaxValue, long.MaxValue, isSmall)).GetEnumerator();
            if (!first.MoveNext()) return null;
            Block block = first.Current;
            idle.Remove(block);
            block.IsIdle = false;
            return block;
        }

        /// <summary>Makes a block idle, joined with idle neighbours.</summary>
        public void Put(Block block)
        {
            SortedSet<Block> idle = block.IsSmall ? _idleSmall : _idleLarge;
            if (block.Behind is { IsIdle: true } behind)
            {
                idle.Remove(behind);
                behind.Storage?.Forget();
                (block.Bytes, block.Behind) = (block.Bytes + behind.Bytes, behind.Behind);
                if (block.Behind is not null) block.Behind.Before = block;
            }
            if (block.Before is { IsIdle: true } before)
            {
                idle.Remove(before);
                block.Storage?.Forget();
                (before.Bytes, before.Behind) = (before.Bytes + block.Bytes, block.Behind);
                if (before.Behind is not null) before.Behind.Before = before;
                block = before;
            }
            block.IsIdle = true;
            idle.Add(block);
        }

        /// <summary>Frees the segments that are one idle block; returns their bytes.</summary>
        public long ReleaseIdle(CudaDriver driver)
        {
            long bytes = 0;
            foreach (SortedSet<Block> idle in (ReadOnlySpan<SortedSet<Block>>)[_idleSmall, _idleLarge])
            foreach (Block block in idle.Where(block => block.Bytes == block.Segment.Bytes).ToArray())
            {
                idle.Remove(block);
                block.Storage?.Forget();
                Segments.Remove(block.Segment);
                driver.Free(block.Segment.Base);
                bytes += block.Bytes;
            }
            return bytes;
        }
    }
}
