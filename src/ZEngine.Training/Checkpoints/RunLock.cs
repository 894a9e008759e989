using System.Globalization;

namespace ZEngine.Training;

/// <summary>Holds a run folder for one process: <c>run.lock</c> is open exclusively, <c>run.pid</c> says by whom.</summary>
/// <remarks>The system frees the lock when the process ends, however it ends. Network file systems without locks do not protect.</remarks>
internal sealed class RunLock : IDisposable
{
    private readonly FileStream _stream;
    private readonly string _pidPath;

    private RunLock(FileStream stream, string pidPath) => (_stream, _pidPath) = (stream, pidPath);

    public static RunLock Take(string folder)
    {
        try
        {
            Directory.CreateDirectory(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new IOException($"{folder}: the run folder cannot be made ({e.Message.ReplaceLineEndings(" ")}); choose another.", e);
        }
        string pidPath = Path.Combine(folder, "run.pid");
        FileStream stream;
        try
        {
            stream = new FileStream(Path.Combine(folder, "run.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, bufferSize: 0);
        }
        catch (UnauthorizedAccessException e)
        {
            throw new IOException($"{folder}: the run folder cannot be written to ({e.Message.ReplaceLineEndings(" ")}); choose another.", e);
        }
        catch (IOException e) when (IsHeld(e))
        {
            throw new IOException($"{folder}: another process{Owner(pidPath)} is training in this run folder; wait for it, stop it, or choose another folder.", e);
        }
        catch (IOException e)
        {
            throw new IOException($"{folder}: the run folder cannot be written to ({e.Message.ReplaceLineEndings(" ")}); choose another.", e);
        }
        try
        {
            File.WriteAllText(pidPath, Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
            return new RunLock(stream, pidPath);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            stream.Dispose();
            throw new IOException($"{folder}: the run folder cannot be written to ({e.Message.ReplaceLineEndings(" ")}); choose another.", e);
        }
    }

    public void Dispose()
    {
        try
        {
            File.Delete(_pidPath);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The number is for error messages only; the lock below is what counts.
        }
        _stream.Dispose();
    }

    // EWOULDBLOCK has its errno as HResult on Unix; Windows says ERROR_SHARING_VIOLATION.
    private static bool IsHeld(IOException e) => OperatingSystem.IsWindows() ? (e.HResult & 0xFFFF) == 32 : e.HResult is 11 or 35;

    private static string Owner(string pidPath)
    {
        try
        {
            return File.Exists(pidPath) ? $" ({File.ReadAllText(pidPath).Trim()})" : "";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
