using System.Diagnostics;
using ZEngine.Interop;

namespace ZEngine.Distributed;

/// <summary>Ranks that an MPI launcher started; MPI moves bytes and computes nothing.</summary>
public sealed class MpiTransport : Transport
{
    /// <summary>Longer pieces are sent in several: counts of MPI have 32 bits.</summary>
    private const long MostBytes = 1 << 30;

    private const int SpinsBeforeYield = 1000;

    private readonly Mpi _mpi;
    private bool _isClosed;

    private MpiTransport(Mpi mpi, int rank, int size) => (_mpi, Rank, Size) = (mpi, rank, size);

    /// <inheritdoc/>
    public override int Rank { get; }

    /// <inheritdoc/>
    public override int Size { get; }

    /// <inheritdoc/>
    public override string Name => $"mpi ({_mpi.Version})";

    /// <summary>Joins the world of this process's launcher.</summary>
    /// <exception cref="CommunicatorException">The library is not the launcher's: it sees another world than the launcher made.</exception>
    /// <exception cref="NativeLibraryException">There is no MPI library.</exception>
    public static MpiTransport Join(LaunchEnvironment environment)
    {
        ArgumentNullException.ThrowIfNull(environment);
        Mpi mpi = Mpi.Load(environment.Launcher.StartsWith("Open MPI", StringComparison.Ordinal));
        (int rank, int size) = mpi.Initialize();
        if (rank != environment.Rank || size != environment.Size)
            throw new CommunicatorException($"{environment.Launcher} started rank {environment.Rank} of {environment.Size}, but {mpi.Version} ({mpi.Path}) sees rank {rank} of {size}: the launcher belongs to another MPI. Start with the mpirun of that library, or name the launcher's library with {Mpi.LibraryVariable}.");
        return new MpiTransport(mpi, rank, size);
    }

    /// <inheritdoc/>
    public override void Exchange(int tag, ReadOnlySpan<Transfer> sends, ReadOnlySpan<Transfer> receives)
    {
        if (_isClosed) throw new CommunicatorException("the world was left");
        var pending = new List<(nint Request, int Peer)>(sends.Length + receives.Length);
        try
        {
            foreach (Transfer receive in receives)
                for (long at = 0; at < receive.Bytes; at += MostBytes)
                    pending.Add((_mpi.Receive(receive.Address + (nint)at, (int)Math.Min(MostBytes, receive.Bytes - at), receive.Peer, tag), receive.Peer));
            foreach (Transfer send in sends)
                for (long at = 0; at < send.Bytes; at += MostBytes)
                    pending.Add((_mpi.Send(send.Address + (nint)at, (int)Math.Min(MostBytes, send.Bytes - at), send.Peer, tag), send.Peer));
            Await(pending);
        }
        catch (MpiException e)
        {
            throw new CommunicatorException(e.Message, e);
        }
    }

    /// <summary>Ends all ranks.</summary>
    public override void Abort(int exitCode, string reason) => _mpi.Abort(exitCode);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!_isClosed)
        {
            _isClosed = true;
            _mpi.Leave();
        }
        base.Dispose(disposing);
    }

    /// <summary>Asks again and again, so that a rank that waits in vain notices; gives its core away when nothing moves.</summary>
    private void Await(List<(nint Request, int Peer)> pending)
    {
        long lastProgress = Stopwatch.GetTimestamp();
        for (int spins = 0; pending.Count > 0; spins++)
        {
            NoteTurn();
            bool hasMoved = false;
            for (int i = pending.Count - 1; i >= 0; i--)
            {
                nint request = pending[i].Request;
                if (!_mpi.Test(ref request)) continue;
                pending.RemoveAt(i);
                hasMoved = true;
            }
            if (hasMoved)
            {
                (lastProgress, spins) = (Stopwatch.GetTimestamp(), 0);
                continue;
            }
            if (spins < SpinsBeforeYield) continue;
            Thread.Yield();
            if (Stopwatch.GetElapsedTime(lastProgress) > Timeout) throw TimedOut(pending.Select(transfer => transfer.Peer));
        }
    }
}
