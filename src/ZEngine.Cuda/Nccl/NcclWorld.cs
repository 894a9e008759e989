using System.Diagnostics;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>What the communicators of one device share: the stream on which all their collectives run in order, the record of them, and the watchdog.</summary>
internal sealed class NcclWorld : IDisposable
{
    private const int PollMilliseconds = 1;

    /// <summary>An abort that takes longer is left alone: the process is about to end.</summary>
    private static readonly TimeSpan MostForAbort = TimeSpan.FromSeconds(3);

    private readonly Lock _gate = new();
    private readonly List<nint> _handles = [];                 // locked for every call on one: an abort frees it
    private readonly Stack<CudaEventHandle> _marks = new();
    private readonly NcclWatchdog _watchdog;
    private volatile string? _failure;
    private long _sequence;
    private int _lastGroup;
    private bool _isAborted, _isDisposed;

    public NcclWorld(Nccl library, CudaDevice device, TimeSpan timeout, Action<string> failed)
    {
        (Library, Device, Timeout) = (library, device, timeout);
        Stream = device.Enter().CreateStream();
        _watchdog = new NcclWatchdog(this, reason =>
        {
            _failure = reason;
            failed(reason);
        });
    }

    public Nccl Library { get; }

    public CudaDevice Device { get; }

    /// <summary>Where all collectives of all groups run: one order on all ranks.</summary>
    public CudaStreamHandle Stream { get; }

    public FlightRecorder Recorder { get; } = new();

    public string? Failure => _failure;

    /// <summary>How long a collective may take.</summary>
    public TimeSpan Timeout { get; set; }

    /// <summary>Whether collectives may run that are in graphs, where nothing watches them but the host that waits for the device.</summary>
    public bool HasCaptured { get; private set; }

    public nint Initialize(NcclUniqueId id, int rank, int size)
    {
        _ = Device.Enter();                                    // NCCL takes the thread's current device
        return Settled(Added(Library.Initialize(id, rank, size)), "ncclCommInitRankConfig");
    }

    /// <summary>Parts a communicator; all its ranks call.</summary>
    /// <returns>This rank's group, 0 for none, and its number in records.</returns>
    public (nint Handle, int Number) Split(nint handle, int color, int key)
    {
        lock (_gate)
        {
            ThrowIfUnusable();
            _ = Device.Enter();
            nint part = Library.Split(handle, color, key);
            Settled(handle, "ncclCommSplit");
            _lastGroup++;
            return (part == 0 ? 0 : Settled(Added(part), "ncclCommSplit"), _lastGroup);
        }
    }

    /// <summary>Puts a collective behind all that the device was given so far.</summary>
    /// <param name="group">Its number in records.</param>
    /// <param name="call">The collective.</param>
    /// <param name="issue">Calls NCCL.</param>
    /// <param name="handle">The communicator.</param>
    public CollectiveWork Enqueue(int group, Collective call, Action issue, nint handle)
    {
        lock (_gate)
        {
            ThrowIfUnusable();
            if (call.Count == 0) return Work.Nothing;
            CudaDriver driver = Device.Enter();
            long sequence = ++_sequence;
            object record = Recorder.Begin(sequence, group, call);
            try
            {
                CudaEventHandle ready = Mark(driver);
                driver.RecordEvent(ready, Device.Stream);
                driver.StreamWaitEvent(Stream, ready);
                _marks.Push(ready);
                issue();
                Settled(handle, call.ToString());
                CudaEventHandle done = Mark(driver);
                driver.RecordEvent(done, Stream);
                // What is captured runs later, as often as the graph does: there is nothing to watch now.
                bool isWatched = !Device.IsCapturing;
                HasCaptured |= !isWatched;
                var work = new Work(this, done, isWatched ? 2 : 1);
                if (isWatched) _watchdog.Watch(work, record);
                else Recorder.End(record);
                return work;
            }
            catch (Exception e) when (e is NcclException or TimeoutException)
            {
                _failure ??= $"{call} (number {sequence}) failed: {e.Message}";
                throw new CommunicatorException(_failure, e);
            }
        }
    }

    /// <summary>What NCCL says of its communicators that is neither success nor progress; null for nothing.</summary>
    public string? AsynchronousError()
    {
        lock (_handles)
        {
            if (_isAborted || _isDisposed) return null;
            foreach (nint handle in _handles)
                if (Library.AsyncResult(handle) is not (NcclResult.Success or NcclResult.InProgress) and var result) return $"NCCL reports error {(int)result} ({Library.Describe(result)})";
            return null;
        }
    }

    /// <summary>Ends what the devices are at, from any thread; nothing can be used afterwards.</summary>
    public void Abort()
    {
        nint[] handles;
        lock (_handles)
        {
            if (_isAborted || _isDisposed) return;
            _isAborted = true;
            handles = [.. _handles];
        }
        _failure ??= "the world was aborted";
        var abort = new Thread(() =>
        {
            foreach (nint handle in handles) Library.Abort(handle);
        }) { IsBackground = true, Name = "ZEngine NCCL abort" };
        abort.Start();
        abort.Join(MostForAbort);
    }

    /// <summary>Ends the communicators well, or leaves them where they were aborted; the watchdog sees to it that neither takes for ever.</summary>
    public void Dispose()
    {
        if (_isDisposed) return;
        try
        {
            if (_failure is null) Close();
        }
        finally
        {
            _isDisposed = true;
            _watchdog.Dispose();
        }
        if (_failure is not null) return;
        CudaDriver driver = Device.Enter();
        foreach (CudaEventHandle mark in _marks) driver.DestroyEvent(mark);
        driver.DestroyStream(Stream);
    }

    private void Close()
    {
        Device.Enter().StreamSynchronize(Stream);
        while (true)
        {
            nint handle;
            lock (_handles)
            {
                if (_isAborted || _handles.Count == 0) return;
                handle = _handles[^1];                         // groups before the world they came from
                _handles.RemoveAt(_handles.Count - 1);
            }
            Library.Close(handle, Timeout);
        }
    }

    /// <summary>Whether the device has come to a mark.</summary>
    public bool IsReached(Work work) => Device.Enter().EventQuery(work.Done);

    private nint Added(nint handle)
    {
        lock (_handles) _handles.Add(handle);
        return handle;
    }

    /// <summary>Waits until NCCL has taken in what it was given: communicators are non-blocking, the only kind that can be aborted.</summary>
    private nint Settled(nint handle, string what)
    {
        long begin = Stopwatch.GetTimestamp();
        while (true)
        {
            lock (_handles)
            {
                if (_isAborted) throw new CommunicatorException($"{what}: {_failure}");
                NcclResult result = Library.AsyncResult(handle);
                if (result == NcclResult.Success) return handle;
                if (result != NcclResult.InProgress) throw new NcclException($"{what}: NCCL reports error {(int)result} ({Library.Describe(result)})");
            }
            if (Stopwatch.GetElapsedTime(begin) > Timeout) throw new TimeoutException($"{what}: not all ranks have come within {Timeout.TotalSeconds:0.#} s");
            Thread.Sleep(PollMilliseconds);
        }
    }

    private void ThrowIfUnusable()
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (_failure is { } failure) throw new CommunicatorException($"the world failed before: {failure}");
    }

    private CudaEventHandle Mark(CudaDriver driver) => _marks.TryPop(out CudaEventHandle mark) ? mark : driver.CreateEvent();

    /// <summary>A collective on its way; its mark is used again when whoever waits and the watchdog are both done with it.</summary>
    internal sealed class Work(NcclWorld? world, CudaEventHandle done, int users) : CollectiveWork
    {
        private bool _isWaited;

        public static Work Nothing { get; } = new(null, default, 0);

        public CudaEventHandle Done => done;

        public override void Wait()
        {
            if (world is null || _isWaited) return;
            _isWaited = true;
            world.Device.Enter().StreamWaitEvent(world.Device.Stream, done);
            Release();
            if (world._failure is { } failure) throw new CommunicatorException($"the world failed: {failure}");
        }

        public void Release()
        {
            if (Interlocked.Decrement(ref users) > 0) return;
            lock (world!._gate) world._marks.Push(done);
        }
    }
}
