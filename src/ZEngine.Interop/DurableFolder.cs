using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>Folders whose names are on the disk, for which .NET has no call.</summary>
public static partial class DurableFolder
{
    private const int ReadOnly = 0;

    /// <summary>Puts the names in a folder on disk. On Windows renames are in the journal of the file system, and there is nothing to do.</summary>
    public static void Flush(string folder)
    {
        if (OperatingSystem.IsWindows()) return;
        int handle = Open(folder, ReadOnly);
        if (handle < 0) throw new IOException($"{folder}: the folder could not be opened to put it on disk: {Marshal.GetLastPInvokeErrorMessage()}.");
        // A file system that cannot flush a folder answers EINVAL; the rename is then as safe as it makes it.
        _ = Synchronise(handle);
        _ = Close(handle);
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync")]
    private static partial int Synchronise(int handle);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int handle);
}
