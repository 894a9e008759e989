using System.Globalization;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>Sees collectives of a device end, and says so when one does not.</summary>
/// <remarks>
/// One thread asks the device and NCCL; either may hang in that. A second, which calls neither, looks at the ages: so a hang is noticed
/// wherever it is. After the first failure both end.
/// </remarks>
internal sealed class NcclWatchdog : IDisposable
{
    private const int PollMilliseconds = 20;

    private static readonly TimeSpan MostAfterFailure = TimeSpan.FromSeconds(5);

    private readonly NcclWorld _world;
    private readonly Action<string> _failed;
    private readonly Queue<(NcclWorld.Work Work, object Record)> _watched = new();
    private readonly Thread _asker, _timekeeper;
    private volatile bool _isClosed;
    private int _hasFailed;

    public NcclWatchdog(NcclWorld world, Action<string> failed)
    {
        (_world, _failed) = (world, failed);
        _asker = new Thread(Ask) { IsBackground = true, Name = "ZEngine NCCL watchdog" };
        _timekeeper = new Thread(KeepTime) { IsBackground = true, Name = "ZEngine NCCL timekeeper" };
        _asker.Start();
        _timekeeper.Start();
    }

    /// <summary>Collectives end in the order in which they are given.</summary>
    public void Watch(NcclWorld.Work work, object record)
    {
        lock (_watched) _watched.Enqueue((work, record));
    }

    public void Dispose()
    {
        _isClosed = true;
        // After a failure one may hang in the device, which the abort was to end.
        TimeSpan most = _hasFailed == 0 ? System.Threading.Timeout.InfiniteTimeSpan : MostAfterFailure;
        foreach (Thread thread in (ReadOnlySpan<Thread>)[_asker, _timekeeper])
            if (thread != Thread.CurrentThread) thread.Join(most);
    }

    private void Ask()
    {
        while (!_isClosed)
        {
            Thread.Sleep(PollMilliseconds);
            try
            {
                while (!_isClosed && Oldest() is var (work, record) && _world.IsReached(work))
                {
                    lock (_watched) _watched.Dequeue();
                    _world.Recorder.End(record);
                    work.Release();
                }
                if (!_isClosed && _world.AsynchronousError() is { } error) Fail(error);
            }
            catch (Exception e) when (e is CudaException or ObjectDisposedException)
            {
                if (!_isClosed) Fail($"the device failed: {e.Message}");
            }
        }
    }

    private void KeepTime()
    {
        while (!_isClosed)
        {
            Thread.Sleep(PollMilliseconds);
            if (_world.Recorder.Current is var (sequence, call, age) && age > _world.Timeout)
                Fail(string.Create(CultureInfo.InvariantCulture, $"{call} (number {sequence} on the device) has been running for {age.TotalSeconds:0.#} s: a rank is stuck, gone or somewhere else in the program"));
            else if (_world.HasCaptured && _world.Device.WaitingFor is var waiting && waiting > _world.Timeout)
                Fail(string.Create(CultureInfo.InvariantCulture, $"the host has been waiting for {_world.Device} for {waiting.TotalSeconds:0.#} s, which runs graphs with collectives: a rank is stuck, gone or somewhere else in the program"));
        }
    }

    private (NcclWorld.Work, object)? Oldest()
    {
        lock (_watched) return _watched.TryPeek(out var oldest) ? oldest : null;
    }

    private void Fail(string reason)
    {
        if (Interlocked.Exchange(ref _hasFailed, 1) != 0) return;
        _isClosed = true;
        _failed(reason);
        _world.Abort();
    }
}
