using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>The saves of a run, one at a time: what is to be saved is copied at once, and written while training goes on.</summary>
/// <param name="store">Where.</param>
/// <param name="world">All ranks; every call is made on all of them, in step.</param>
/// <param name="isInBackground">False: a save is at its end when <see cref="Save"/> returns.</param>
/// <param name="published">Is told the folder of every checkpoint that was published.</param>
/// <param name="noticed">Is told what went wrong without harm.</param>
internal sealed class CheckpointSaver(CheckpointStore store, Communicator world, bool isInBackground, Action<string> published, Action<string> noticed) : IDisposable
{
    private PendingSave? _pending;
    private int _noticed;

    /// <summary>How far this rank's save is.</summary>
    public SavePhase Phase => _pending?.Phase ?? SavePhase.None;

    /// <summary>Copies and begins to write; waits for the save before.</summary>
    /// <param name="step">Names the checkpoint.</param>
    /// <param name="prepare">Copies, and gives what writes the copies.</param>
    /// <param name="protectedStep">A checkpoint that is not to be deleted, or -1.</param>
    /// <exception cref="IOException">This save or the one before could not be written; the same on all ranks.</exception>
    public void Save(long step, Func<TensorCopies, Action<string>> prepare, long protectedStep)
    {
        Finish();
        var copies = new TensorCopies();
        Action<string> write;
        try
        {
            write = prepare(copies);
        }
        catch
        {
            copies.Dispose();
            throw;
        }
        _pending = store.Begin(step, write, world, isInBackground, protectedStep, copies);
        if (!isInBackground) Finish();
    }

    /// <summary>Takes in how far the ranks are; ends a save that is published or has failed.</summary>
    /// <exception cref="IOException">It could not be written; the same on all ranks.</exception>
    public void Advance(IReadOnlyList<SavePhase> phases)
    {
        if (_pending is not null && _pending.Advance(phases)) Finish();
    }

    /// <summary>Waits for the save that is under way, if there is one.</summary>
    /// <exception cref="IOException">It could not be written; the same on all ranks.</exception>
    public void Finish()
    {
        if (_pending is not { } save) return;
        _pending = null;
        using (save) save.Finish();
        foreach (string notice in store.Notices.Skip(_noticed)) noticed(notice);
        _noticed = store.Notices.Count;
        published(save.Folder);
    }

    /// <summary>Waits for the threads of a save that nobody will end.</summary>
    public void Dispose() => _pending?.Dispose();
}
