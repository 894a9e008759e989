using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace ZEngine.Distributed;

/// <summary>The one order in which a rank's collectives use its transport, whatever thread and group they come from.</summary>
/// <remarks>
/// A call that is waited for runs on its caller's thread when nothing is before it; calls that were begun run on a thread of the queue.
/// After the first failure every further call fails with it: the ranks are no longer in step.
/// </remarks>
internal sealed unsafe class CollectiveQueue(Transport transport) : IDisposable
{
    private readonly object _gate = new();
    private readonly Queue<Work> _waiting = new();
    private Thread? _thread;
    private bool _isClosed, _isBusy;
    private Exception? _failure;
    private nint _scratch;
    private long _scratchBytes;

    public Transport Transport { get; } = transport;

    public FlightRecorder Recorder { get; } = new();

    /// <summary>The number of the last group that was made.</summary>
    public int LastGroup { get; set; }

    /// <summary>Collectives so far.</summary>
    public long Sequence { get; set; }

    /// <summary>Memory for what comes from other ranks, at least so large; the next call may move it.</summary>
    public nint Scratch(long bytes)
    {
        if (bytes > _scratchBytes)
        {
            NativeMemory.AlignedFree((void*)_scratch);
            (_scratch, _scratchBytes) = (0, 0);
            (_scratch, _scratchBytes) = ((nint)NativeMemory.AlignedAlloc((nuint)bytes, 64), bytes);
        }
        return _scratch;
    }

    public void Run(Action action)
    {
        lock (_gate)
        {
            while (_isBusy || _waiting.Count > 0) Monitor.Wait(_gate);
            _isBusy = true;
        }
        try
        {
            Perform(action);
        }
        finally
        {
            Free();
        }
    }

    public CollectiveWork Begin(Action action)
    {
        var work = new Work(action);
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isClosed, this);
            _waiting.Enqueue(work);
            if (_thread is null)
            {
                _thread = new Thread(Serve) { IsBackground = true, Name = $"ZEngine rank {Transport.Rank} exchange" };
                _thread.Start();
            }
            Monitor.PulseAll(_gate);
        }
        return work;
    }

    public void Dispose()
    {
        lock (_gate)
        {
            if (_isClosed) return;
            _isClosed = true;
            Monitor.PulseAll(_gate);
        }
        _thread?.Join();
        NativeMemory.AlignedFree((void*)_scratch);
        (_scratch, _scratchBytes) = (0, 0);
        Transport.Dispose();
    }

    private void Serve()
    {
        while (true)
        {
            Work work;
            lock (_gate)
            {
                while (_isBusy || _waiting.Count == 0)
                {
                    if (_isClosed && _waiting.Count == 0) return;
                    Monitor.Wait(_gate);
                }
                work = _waiting.Dequeue();
                _isBusy = true;
            }
            try
            {
                Perform(work.Action);
                work.End(null);
            }
#pragma warning disable CA1031 // whoever waits for the work gets it
            catch (Exception e)
#pragma warning restore CA1031
            {
                work.End(e);
            }
            Free();
        }
    }

    private void Perform(Action action)
    {
        if (_failure is { } failure) throw new CommunicatorException($"the world failed before: {failure.Message}", failure);
        try
        {
            action();
        }
        catch (Exception e)
        {
            _failure = e;
            throw;
        }
    }

    private void Free()
    {
        lock (_gate)
        {
            _isBusy = false;
            Monitor.PulseAll(_gate);
        }
    }

    private sealed class Work(Action action) : CollectiveWork
    {
        private readonly object _gate = new();
        private ExceptionDispatchInfo? _failure;
        private bool _isDone;

        public Action Action { get; } = action;

        public override void Wait()
        {
            lock (_gate)
                while (!_isDone) Monitor.Wait(_gate);
            _failure?.Throw();
        }

        public void End(Exception? failure)
        {
            lock (_gate)
            {
                (_failure, _isDone) = (failure is null ? null : ExceptionDispatchInfo.Capture(failure), true);
                Monitor.PulseAll(_gate);
            }
        }
    }
}
