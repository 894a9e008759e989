using System.Runtime.InteropServices;

namespace ZEngine.Training;

/// <summary>Files and folders that are on the disk, not on their way to it.</summary>
internal static partial class Durable
{
    private const int ReadOnly = 0;

    /// <summary>Writes a new file and puts it on disk.</summary>
    public static void Write(string path, Action<Stream> write)
    {
        using var stream = new FileStream(path, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 1 << 16);
        write(stream);
        stream.Flush(flushToDisk: true);
    }

    /// <summary>Writes a file beside its place, puts it on disk, and renames it: there is the old one or the complete new one.</summary>
    public static void Replace(string path, Action<Stream> write)
    {
        string temporary = path + ".tmp";
        try
        {
            Write(temporary, write);
        }
        catch
        {
            if (File.Exists(temporary)) File.Delete(temporary);
            throw;
        }
        File.Move(temporary, path, overwrite: true);
        FlushFolder(Path.GetDirectoryName(Path.GetFullPath(path))!);
    }

    /// <summary>Puts the names in a folder on disk. On Windows renames are in the journal of the file system, and there is nothing to do.</summary>
    public static void FlushFolder(string folder)
    {
        if (OperatingSystem.IsWindows()) return;
        int handle = Open(folder, ReadOnly);
        if (handle < 0) throw new IOException($"{folder}: the folder could not be opened to put it on disk: {Marshal.GetLastPInvokeErrorMessage()}.");
        // A file system that cannot flush a folder answers EINVAL; the rename is then as safe as it makes it.
        _ = Flush(handle);
        _ = Close(handle);
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync")]
    private static partial int Flush(int handle);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int handle);
}
