using System.Runtime.InteropServices;
using ZEngine.Interop;

namespace ZEngine;

/// <summary>
/// Native memory for blocks. A matrix of weights is read half as fast again from pages of 2 MiB as from pages of 4 KiB, but few matrices are large beside such a page:
/// those of some hundred KiB and more stand one behind the other in slabs of whole pages, and only what is larger than a part of a slab has pages of its own.
/// </summary>
internal sealed unsafe class CpuMemory(int alignment)
{
    private const int SlabBytes = 32 << 20, MostInSlab = SlabBytes / 4, LeastInSlab = 128 << 10;

    private readonly Lock _lock = new();
    private readonly List<Slab> _slabs = [];                   // blocks are cut from the last

    /// <summary>Memory of so many bytes, not cleared.</summary>
    /// <exception cref="OutOfMemoryException">There is none.</exception>
    public byte* Allocate(long bytes)
    {
        if (bytes < LeastInSlab) return (byte*)NativeMemory.AlignedAlloc((nuint)bytes, (nuint)alignment);
        if (bytes > MostInSlab) return Pages(bytes);
        bytes = (bytes + alignment - 1) / alignment * alignment;
        lock (_lock)
        {
            if (_slabs.Count == 0 || _slabs[^1].Used + bytes > SlabBytes) _slabs.Add(new Slab(Pages(SlabBytes)));
            return _slabs[^1].Cut(bytes);
        }
    }

    /// <summary>Gives back a block of so many bytes; the pages of a slab go with its last block.</summary>
    public void Free(byte* block, long bytes)
    {
        if (bytes is < LeastInSlab or > MostInSlab)
        {
            NativeMemory.AlignedFree(block);
            return;
        }
        lock (_lock)
        {
            Slab slab = _slabs.Find(one => one.Holds(block))!;
            if (--slab.Blocks > 0) return;
            _slabs.Remove(slab);
            NativeMemory.AlignedFree(slab.Start);
        }
    }

    private static byte* Pages(long bytes)
    {
        var pages = (byte*)NativeMemory.AlignedAlloc((nuint)bytes, HugePages.Bytes);
        HugePages.Ask((nint)pages, (nuint)bytes);
        return pages;
    }

    private sealed class Slab(byte* start)
    {
        public byte* Start => start;
        public long Used { get; private set; }
        public int Blocks { get; set; }

        public bool Holds(byte* block) => block >= start && block < start + SlabBytes;

        public byte* Cut(long bytes)
        {
            byte* block = start + Used;
            Used += bytes;
            Blocks++;
            return block;
        }
    }
}
