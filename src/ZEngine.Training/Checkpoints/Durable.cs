using ZEngine.Interop;

namespace ZEngine.Training;

/// <summary>Files and folders that are on the disk, not on their way to it.</summary>
internal static class Durable
{
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
        DurableFolder.Flush(Path.GetDirectoryName(Path.GetFullPath(path))!);
    }
}
