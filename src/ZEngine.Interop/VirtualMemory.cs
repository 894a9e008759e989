using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>
/// Address space without owned bytes: pages read as zero and cost memory only once written. Device memory without a GPU stands on it, so a
/// buffer of more than 2^31 elements can be addressed on a small machine.
/// </summary>
public sealed unsafe partial class VirtualMemory : IDisposable
{
    private const int ProtReadWrite = 3, MapPrivate = 2, MapAnonymousLinux = 0x20, MapAnonymousMac = 0x1000, MapNoReserveLinux = 0x4000;
    private const int MadviseDontNeed = 4;
    private const uint MemCommit = 0x1000, MemReserve = 0x2000, MemRelease = 0x8000, PageReadWrite = 4;
    private byte* _base;

    /// <summary>Reserves <paramref name="bytes"/> bytes of zeros.</summary>
    /// <exception cref="InsufficientMemoryException">The operating system refuses.</exception>
    public VirtualMemory(ulong bytes)
    {
        Bytes = bytes;
        if (OperatingSystem.IsWindows())
        {
            // Committed, not backed: Windows counts it against the page file but gives pages only on first touch.
            _base = (byte*)VirtualAlloc(0, (nuint)bytes, MemCommit | MemReserve, PageReadWrite);
            if (_base == null) throw new InsufficientMemoryException($"cannot reserve {bytes} bytes of address space");
            return;
        }
        int flags = MapPrivate | (OperatingSystem.IsMacOS() ? MapAnonymousMac : MapAnonymousLinux | MapNoReserveLinux);
        nint address = MemoryMap(0, (nuint)bytes, ProtReadWrite, flags, -1, 0);
        if (address == -1) throw new InsufficientMemoryException($"cannot reserve {bytes} bytes of address space (is vm.overcommit_memory 2?)");
        _base = (byte*)address;
    }

    /// <summary>The first byte.</summary>
    public byte* Base => _base;

    /// <summary>The size.</summary>
    public ulong Bytes { get; }

    /// <summary>Sets a range to zero, giving whole pages back to the system where it can.</summary>
    public void Zero(ulong offset, ulong bytes)
    {
        const ulong page = 4096;
        ulong first = (offset + page - 1) & ~(page - 1), last = (offset + bytes) & ~(page - 1);
        if (OperatingSystem.IsLinux() && bytes >= 1 << 20 && MemoryAdvise((nint)(_base + first), (nuint)(last - first), MadviseDontNeed) == 0)
        {
            NativeMemory.Clear(_base + offset, (nuint)(first - offset));
            NativeMemory.Clear(_base + last, (nuint)(offset + bytes - last));
            return;
        }
        NativeMemory.Clear(_base + offset, (nuint)bytes);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_base == null) return;
        if (OperatingSystem.IsWindows()) _ = VirtualFree((nint)_base, 0, MemRelease);
        else _ = MemoryUnmap((nint)_base, (nuint)Bytes);
        _base = null;
        GC.SuppressFinalize(this);
    }

    /// <summary>Returns the address space of a region nobody disposed.</summary>
    ~VirtualMemory() => Dispose();

    [LibraryImport("libc", EntryPoint = "mmap")]
    private static partial nint MemoryMap(nint address, nuint bytes, int protection, int flags, int file, long offset);

    [LibraryImport("libc", EntryPoint = "munmap")]
    private static partial int MemoryUnmap(nint address, nuint bytes);

    [LibraryImport("libc", EntryPoint = "madvise")]
    internal static partial int MemoryAdvise(nint address, nuint bytes, int advice);

    [LibraryImport("kernel32", EntryPoint = "VirtualAlloc")]
    private static partial nint VirtualAlloc(nint address, nuint bytes, uint kind, uint protection);

    [LibraryImport("kernel32", EntryPoint = "VirtualFree")]
    private static partial int VirtualFree(nint address, nuint bytes, uint kind);
}
