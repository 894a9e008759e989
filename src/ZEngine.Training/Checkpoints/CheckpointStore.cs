using System.Globalization;
using System.Runtime.ExceptionServices;
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

    private readonly List<string> _notices = [];

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
    public IReadOnlyList<string> Notices => _notices;

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
        ArgumentNullException.ThrowIfNull(write);
        ArgumentNullException.ThrowIfNull(world);
        ArgumentOutOfRangeException.ThrowIfNegative(step);
        string folder = Path.Combine(Folder, Name(step)), temporary = folder + Unfinished;
        if (world.Rank == 0 && Directory.Exists(folder)) throw new InvalidOperationException($"{folder}: the checkpoint is there already; a checkpoint is never overwritten.");
        try
        {
            Together(world, () =>
            {
                if (world.Rank != 0) return;
                if (Directory.Exists(temporary)) Directory.Delete(temporary, recursive: true);
                Directory.CreateDirectory(temporary);
            });
            // The manifest hashes and flushes every file: what a rank has written is on disk before the folder gets its name.
            Together(world, () => write(temporary));
            Together(world, () =>
            {
                if (world.Rank != 0) return;
                CheckpointManifest.Write(temporary, step);
                Directory.Move(temporary, folder);
                DurableFolder.Flush(Folder);
            });
        }
        catch (Exception e) when (e is (IOException or UnauthorizedAccessException) and not CommunicatorException)
        {
            if (world.Rank == 0) TryDelete(temporary);
            throw new IOException($"{folder}: the checkpoint could not be written ({e.Message.ReplaceLineEndings(" ")}); {(All is [var newest, ..] ? $"older ones are as they were, the newest is {Path.GetFileName(newest.Folder)}" : "there is no older one")}. Make room or choose another folder, then resume.", e);
        }
        catch
        {
            if (world.Rank == 0) TryDelete(temporary);
            throw;
        }
        if (world.Rank == 0)
            foreach ((long _, string old) in All.Where(checkpoint => checkpoint.Step <= step).Skip(Keep)) Delete(old);
        return folder;
    }

    /// <summary>Does something on every rank; where it fails on one, it fails on all.</summary>
    private static void Together(Communicator world, Action action)
    {
        Exception? failure = null;
        try
        {
            action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            failure = e;
        }
        if (world.Size == 1)
        {
            if (failure is not null) ExceptionDispatchInfo.Throw(failure);
            return;
        }
        string[] complaints = world.GatherText(failure?.Message ?? "");
        if (failure is not null) ExceptionDispatchInfo.Throw(failure);
        foreach ((int rank, string complaint) in complaints.Index())
            if (complaint.Length > 0) throw new IOException($"rank {rank}: {complaint}");
    }

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
            _notices.Add($"{folder}: the old checkpoint could not be deleted ({e.Message.ReplaceLineEndings(" ")}).");
            return;
        }
        TryDelete(folder + Deleted);
    }

    private void TryDelete(string folder)
    {
        try
        {
            if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _notices.Add($"{folder}: what is left of an old or unfinished checkpoint could not be deleted ({e.Message.ReplaceLineEndings(" ")}).");
        }
    }
}
