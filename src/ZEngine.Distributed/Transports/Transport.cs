// The seam between collectives and what moves bytes.
using System.Diagnostics;

namespace ZEngine.Distributed;

/// <summary>A piece of this process's memory that goes to or comes from another rank.</summary>
/// <param name="Peer">The other rank.</param>
/// <param name="Address">First byte.</param>
/// <param name="Bytes">How many; at least 1.</param>
public readonly record struct Transfer(int Peer, nint Address, long Bytes);

/// <summary>Moves bytes between the ranks of a world, and knows nothing of what they mean.</summary>
/// <remarks>One thread at a time uses it. Between two ranks messages keep their order.</remarks>
public abstract class Transport : IDisposable
{
    private long _lastTurn = Stopwatch.GetTimestamp();

    /// <summary>This rank.</summary>
    public abstract int Rank { get; }

    /// <summary>The number of ranks.</summary>
    public abstract int Size { get; }

    /// <summary>For people.</summary>
    public abstract string Name { get; }

    /// <summary>How long a rank waits for another without any progress before it gives up.</summary>
    public TimeSpan Timeout { get; set; } = TimeSpan.FromMinutes(2);

    /// <summary>How long ago the loop of an exchange turned: long where it hangs in native code.</summary>
    public TimeSpan SilentFor => Stopwatch.GetElapsedTime(Interlocked.Read(ref _lastTurn));

    /// <summary>Sends and receives at the same time; returns when all of it is done.</summary>
    /// <param name="tag">Names the group; both sides give the same.</param>
    /// <param name="sends">In order for each peer.</param>
    /// <param name="receives">In order for each peer.</param>
    /// <exception cref="CommunicatorException">A rank is gone, stuck or out of step, or ended the job.</exception>
    public abstract void Exchange(int tag, ReadOnlySpan<Transfer> sends, ReadOnlySpan<Transfer> receives);

    /// <summary>Tells the others that this rank cannot go on, and ends the job where there is one; may not return.</summary>
    public abstract void Abort(int exitCode, string reason);

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Leaves the world in peace.</summary>
    protected virtual void Dispose(bool disposing) { }

    /// <summary>The loop of an exchange turns.</summary>
    protected void NoteTurn() => Interlocked.Exchange(ref _lastTurn, Stopwatch.GetTimestamp());

    /// <summary>What a rank says that waited in vain.</summary>
    protected CommunicatorException TimedOut(IEnumerable<int> peers) =>
        new($"waited {Timeout.TotalSeconds:0.#} s in vain for rank {string.Join(", ", peers.Distinct().Order())}, which is stuck or somewhere else in the program");
}
