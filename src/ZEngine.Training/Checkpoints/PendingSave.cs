using System.Globalization;
using System.Runtime.ExceptionServices;

namespace ZEngine.Training;

/// <summary>How far a rank is with a save; ranks tell each other the number.</summary>
internal enum SavePhase
{
    /// <summary>There is no save.</summary>
    None,
    /// <summary>This rank's files are being written.</summary>
    Writing,
    /// <summary>They are written; rank 0 may publish when all ranks say so.</summary>
    Written,
    /// <summary>The checkpoint has its name. Only rank 0 comes to know by itself.</summary>
    Published,
    /// <summary>This rank could not write.</summary>
    Failed,
}

/// <summary>A checkpoint on its way to the disk, beside the training that goes on.</summary>
/// <remarks>
/// Threads of their own write files, and rank 0's publishes; none of them talks to other ranks. That all have written is learnt on the training
/// threads, at a step's exchange (<see cref="Phase"/> of all ranks to <see cref="Advance"/>) or in <see cref="Finish"/>.
/// </remarks>
internal sealed class PendingSave(CheckpointStore store, long step, string folder, string temporaryFolder, Action<string> write, Communicator world, long protectedStep, IDisposable? copies) : IDisposable
{
    private volatile SavePhase _phase = SavePhase.Writing;
    private Exception? _failure;
    private Thread? _thread;
    private bool _isPublishing = world.Size == 1;              // a rank alone publishes as soon as it has written

    public long Step => step;

    public string Folder => folder;

    public string TemporaryFolder => temporaryFolder;

    public long ProtectedStep => protectedStep;

    /// <summary>How far this rank is.</summary>
    public SavePhase Phase => _phase;

    /// <summary>Makes the folder, then writes or begins to; all ranks do.</summary>
    /// <exception cref="IOException">The folder cannot be made; the same on all ranks.</exception>
    public void Start(bool isInBackground)
    {
        if (world.Rank == 0) Guard(() =>
        {
            if (Directory.Exists(temporaryFolder)) Directory.Delete(temporaryFolder, recursive: true);
            Directory.CreateDirectory(temporaryFolder);
        });
        ThrowTogether();
        Run(isInBackground, () =>
        {
            write(temporaryFolder);
            if (world.Size == 1) PublishNow();
            else _phase = SavePhase.Written;
        });
    }

    /// <summary>Takes in how far every rank is, the same numbers on all; rank 0 publishes when all have written.</summary>
    /// <returns>Whether the save is at its end; <see cref="Finish"/> is to be called then, on all ranks.</returns>
    public bool Advance(IReadOnlyList<SavePhase> phases)
    {
        if (phases.Contains(SavePhase.Failed) || phases[0] == SavePhase.Published) return true;
        if (world.Rank != 0 || _isPublishing || phases.Any(phase => phase != SavePhase.Written)) return false;
        _isPublishing = true;
        Run(isInBackground: true, PublishNow);
        return false;
    }

    /// <summary>Waits until the checkpoint is published; all ranks do.</summary>
    /// <exception cref="IOException">A rank could not write; the same on all ranks.</exception>
    public void Finish()
    {
        _thread?.Join();
        ThrowTogether();
        if (world.Rank == 0 && !_isPublishing) Run(isInBackground: false, PublishNow);
        ThrowTogether();
    }

    /// <summary>Waits for the threads; what is not published by then goes.</summary>
    public void Dispose()
    {
        _thread?.Join();
        if (world.Rank == 0 && _phase != SavePhase.Published) store.TryDelete(temporaryFolder);
        copies?.Dispose();
    }

    private void PublishNow()
    {
        store.Publish(this);
        _phase = SavePhase.Published;
    }

    private void Run(bool isInBackground, Action action)
    {
        if (!isInBackground)
        {
            Guard(action);
            return;
        }
        _thread?.Join();
        _thread = new Thread(() => Guard(action)) { IsBackground = true, Name = string.Create(CultureInfo.InvariantCulture, $"ZEngine checkpoint {step}") };
        _thread.Start();
    }

#pragma warning disable CA1031 // rethrown on the training thread
    private void Guard(Action action)
    {
        try
        {
            action();
        }
        catch (Exception e)
        {
            _failure = e;
            _phase = SavePhase.Failed;
        }
    }
#pragma warning restore CA1031

    /// <summary>Where a rank has failed, all do.</summary>
    private void ThrowTogether()
    {
        string[] complaints = world.GatherText(_failure is null ? "" : _failure.Message.Length > 0 ? _failure.Message : _failure.GetType().Name);
        int first = Array.FindIndex(complaints, complaint => complaint.Length > 0);
        if (first < 0) return;
        if (_failure is not null and not (IOException or UnauthorizedAccessException)) ExceptionDispatchInfo.Throw(_failure);
        throw store.Failure(this, _failure ?? new IOException($"rank {first}: {complaints[first]}"));
    }
}
