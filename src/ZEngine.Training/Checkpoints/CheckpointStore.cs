using System.Collections.Concurrent;
using System.Globalization;
using ZEngine.Interop;

namespace ZEngine.Training;

/// <summary>The checkpoints of a run: folders <c>step-N</c> that appear complete or not at all.</summary>
/// <remarks>
/// A checkpoint is written as <c>step-N.tmp</c>: all files, each put on disk, then a manifest with their hashes, then the rename. So a
/// process or machine that stops at any moment leaves the older checkpoints as they are. Only a folder whose manifest verifies is trusted.
/// </remarks>
public sealed class CheckpointStore
{
    private const string Prefix = "step-", Unfinished = ".tmp", Deleted = ".deleted.tmp", Invalid = ".invalid";

    private readonly ConcurrentQueue<string> _notices = new();   // a save in the background adds to them

    /// <summary>The checkpoints in a folder, which need not exist yet.</summary>
    /// <param name="folder">Holds the folders <c>step-N</c>.</param>
    /// <param name="keep">How many of the newest stay when one is saved.</param>
    public CheckpointStore(string folder, int keep = 2)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(folder);
        ArgumentOutOfRangeException.ThrowIfLessThan(keep, 1);
        (Folder, Keep) = (folder, keep);
    }

    /// <summary>Holds the folders <c>step-N</c>.</summary>
    public string Folder { get; }

    /// <summary>How many of the newest stay when one is saved.</summary>
    public int Keep { get; }

    /// <summary>What went wrong without harm, such as an old checkpoint that could not be deleted.</summary>
    public IReadOnlyList<string> Notices => [.. _notices];

    /// <summary>Every folder named like a checkpoint, newest first, trusted or not.</summary>
    public IReadOnlyList<(long Step, string Folder)> All
    {
        get
        {
            if (!Directory.Exists(Folder)) return [];
            var found = new List<(long Step, string Folder)>();
            foreach (string folder in Directory.GetDirectories(Folder, Prefix + "*"))
                if (long.TryParse(Path.GetFileName(folder).AsSpan(Prefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out long step)) found.Add((step, folder));
            found.Sort((a, b) => b.Step.CompareTo(a.Step));
            return found;
        }
    }

    /// <summary>The newest checkpoint whose every file is as its manifest says, or null.</summary>
    /// <param name="invalid">The newer ones that are not.</param>
    public string? FindNewest(out IReadOnlyList<InvalidCheckpoint> invalid)
    {
        var rejected = new List<InvalidCheckpoint>();
        invalid = rejected;
        foreach ((long step, string folder) in All)
        {
            try
            {
                CheckpointManifest.Verify(folder, step);
                return folder;
            }
            catch (Exception e) when (e is InvalidDataException or IOException or UnauthorizedAccessException)
            {
                rejected.Add(new InvalidCheckpoint(folder, step, e.Message.ReplaceLineEndings(" ")));
            }
        }
        return null;
    }

    /// <summary>Publishes a checkpoint, then deletes the oldest beyond <see cref="Keep"/>.</summary>
    /// <param name="step">Names the folder.</param>
    /// <param name="write">Writes the files into the folder that it is given.</param>
    /// <returns>The checkpoint's folder.</returns>
    /// <exception cref="IOException">It could not be written, for example because the disk is full; older checkpoints are as they were.</exception>
    public string Save(long step, Action<string> write) => Save(step, write, Communicator.Single);

    /// <summary>As above, by all ranks of a world into one folder that all see: rank 0 publishes it when every rank's files are on disk.</summary>
    /// <exception cref="IOException">A rank could not write; the same on all ranks.</exception>
    public string Save(long step, Action<string> write, Communicator world)
    {
        using PendingSave save = Begin(step, write, world, isInBackground: false);
        save.Finish();
        return save.Folder;
    }

    /// <summary>Begins to save; all ranks do. One save at a time.</summary>
    /// <param name="step">Names the folder.</param>
    /// <param name="write">Writes this rank's files into the folder that it is given; on another thread where the save is in the background.</param>
    /// <param name="world">All ranks.</param>
    /// <param name="isInBackground">Whether the caller goes on while files are written.</param>
    /// <param name="protectedStep">A checkpoint that stays whatever <see cref="Keep"/> says, or -1.</param>
    /// <param name="copies">Disposed with the save.</param>
    internal PendingSave Begin(long step, Action<string> write, Communicator world, bool isInBackground, long protectedStep = -1, IDisposable? copies = null)
    {
        ArgumentNullException.ThrowIfNull(write);
        ArgumentNullException.ThrowIfNull(world);
        ArgumentOutOfRangeException.ThrowIfNegative(step);
        string folder = FolderOf(step);
        if (world.Rank == 0 && Directory.Exists(folder)) throw new InvalidOperationException($"{folder}: the checkpoint is there already; a checkpoint is never overwritten.");
        var save = new PendingSave(this, step, folder, folder + Unfinished, write, world, protectedStep, copies);
        try
        {
            save.Start(isInBackground);
            return save;
        }
        catch
        {
            save.Dispose();
            throw;
        }
    }

    /// <summary>Gives a folder whose files are all written its manifest and its name, then deletes the oldest beyond <see cref="Keep"/>.</summary>
    internal void Publish(PendingSave save)
    {
        // The manifest hashes and flushes every file: what any rank has written is on disk before the folder gets its name.
        CheckpointManifest.Write(save.TemporaryFolder, save.Step);
        Directory.Move(save.TemporaryFolder, save.Folder);
        DurableFolder.Flush(Folder);
        foreach ((long _, string old) in All.Where(checkpoint => checkpoint.Step <= save.Step).Skip(Keep).Where(checkpoint => checkpoint.Step != save.ProtectedStep)) Delete(old);
    }

    /// <summary>Where the checkpoint of a step is, or would be.</summary>
    internal string FolderOf(long step) => Path.Combine(Folder, Name(step));

    /// <summary>Deletes the checkpoints that are newer than one to which a run has gone back.</summary>
    internal void DeleteAfter(long step)
    {
        foreach ((long _, string folder) in All.Where(checkpoint => checkpoint.Step > step)) Delete(folder);
    }

    /// <summary>What is said of a save that failed.</summary>
    internal IOException Failure(PendingSave save, Exception cause) =>
        new($"{save.Folder}: the checkpoint could not be written ({cause.Message.ReplaceLineEndings(" ")}); {(All is [var newest, ..] ? $"older ones are as they were, the newest is {Path.GetFileName(newest.Folder)}" : "there is no older one")}. Make room or choose another folder, then resume.", cause);

    /// <summary>Removes what a process that was killed left unfinished. Only for the one process that owns the run.</summary>
    public void Clean()
    {
        if (!Directory.Exists(Folder)) return;
        foreach (string folder in Directory.GetDirectories(Folder, Prefix + "*" + Unfinished)) TryDelete(folder);
    }

    /// <summary>Renames checkpoints that are not trusted, so that they neither count nor stand in the way.</summary>
    public static void SetAside(IEnumerable<InvalidCheckpoint> invalid)
    {
        ArgumentNullException.ThrowIfNull(invalid);
        foreach (InvalidCheckpoint checkpoint in invalid)
        {
            string aside = checkpoint.Folder + Invalid;
            for (int number = 2; Directory.Exists(aside); number++) aside = $"{checkpoint.Folder}{Invalid}-{number}";
            Directory.Move(checkpoint.Folder, aside);
        }
    }

    private static string Name(long step) => string.Create(CultureInfo.InvariantCulture, $"{Prefix}{step:D9}");

    /// <summary>Renames first, so that a checkpoint is never seen half deleted.</summary>
    private void Delete(string folder)
    {
        try
        {
            if (Directory.Exists(folder + Deleted)) Directory.Delete(folder + Deleted, recursive: true);
            Directory.Move(folder, folder + Deleted);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _notices.Enqueue($"{folder}: the old checkpoint could not be deleted ({e.Message.ReplaceLineEndings(" ")}).");
            return;
        }
        TryDelete(folder + Deleted);
    }

    internal void TryDelete(string folder)
    {
        try
        {
            if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _notices.Enqueue($"{folder}: what is left of an old or unfinished checkpoint could not be deleted ({e.Message.ReplaceLineEndings(" ")}).");
        }
    }
}
