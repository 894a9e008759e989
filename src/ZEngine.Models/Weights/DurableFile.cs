namespace ZEngine.Models;

/// <summary>Files that are either the old one or the complete new one, whenever the machine stops.</summary>
internal static class DurableFile
{
    /// <summary>What a file is called until it is complete and on disk.</summary>
    public static string Temporary(string path) => path + ".tmp";

    /// <summary>Writes <c>path.tmp</c>, puts it on disk, and renames it over <paramref name="path"/>.</summary>
    /// <remarks>When <paramref name="write"/> throws, the temporary file is removed and <paramref name="path"/> is untouched.</remarks>
    public static void Write(string path, Action<Stream> write)
    {
        Prepare(path, write);
        Commit(path);
    }

    /// <summary>Writes the temporary file and puts it on disk.</summary>
    public static void Prepare(string path, Action<Stream> write)
    {
        // Opened outside the try: where another writer holds the temporary file, it is not ours to remove.
        FileStream stream = new(Temporary(path), FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 1 << 16);
        try
        {
            using (stream)
            {
                write(stream);
                stream.Flush(flushToDisk: true);
            }
        }
        catch
        {
            Abandon(path);
            throw;
        }
    }

    /// <summary>Renames the temporary file over its final name.</summary>
    public static void Commit(string path) => File.Move(Temporary(path), path, overwrite: true);

    /// <summary>Removes the temporary file.</summary>
    public static void Abandon(string path) => File.Delete(Temporary(path));
}
