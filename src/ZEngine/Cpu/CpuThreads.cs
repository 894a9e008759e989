namespace ZEngine;

/// <summary>Work on a range of independent indices: any split of the range must give the same bits.</summary>
internal interface IParallelJob
{
    void Run(long begin, long end);
}

/// <summary>Runs jobs on all cores. Workers take pieces of fixed size from a shared counter; no piece depends on another.</summary>
internal static unsafe class CpuThreads
{
    private const int SpinsBeforeSleep = 200;                  // about 60 µs: longer than the gap between two ops of a step

    private static readonly Lock s_resize = new();
    private static readonly ManualResetEventSlim s_wake = new(false, spinCount: 1);
    private static int s_count = Default();
    private static int s_workers;
    private static int s_busy;

    // One region at a time; written by its owner before the generation is published, read by the workers after.
    private static delegate*<void*, long, long, void> s_run;
    private static void* s_job;
    private static long s_total, s_grain, s_next;
    private static int s_generation, s_wanted, s_joined, s_active;
    private static Exception? s_failure;

    /// <summary>Threads that one op may use, the caller's included.</summary>
    public static int Count { get => s_count; set => s_count = value; }

    /// <summary>Runs <paramref name="job"/> over [0, total) in pieces of <paramref name="grain"/> indices.</summary>
    /// <remarks>A call while another thread's job is running works alone: the bits are the same.</remarks>
    public static void For<TJob>(long total, long grain, in TJob job) where TJob : struct, IParallelJob
    {
        if (total <= 0) return;
        grain = Math.Max(1, grain);
        if (s_count == 1 || total <= grain || Interlocked.CompareExchange(ref s_busy, 1, 0) != 0)
        {
            TJob own = job;
            for (long begin = 0; begin < total; begin += grain) own.Run(begin, Math.Min(total, begin + grain));
            return;
        }
        try
        {
            TJob shared = job;
#pragma warning disable CS8500 // the struct stays on this stack until every worker has left it
            Publish(&RunPiece<TJob>, &shared, total, grain);
#pragma warning restore CS8500
        }
        finally
        {
            Volatile.Write(ref s_busy, 0);
        }
    }

    private static void RunPiece<TJob>(void* job, long begin, long end) where TJob : struct, IParallelJob
    {
#pragma warning disable CS8500
        (*(TJob*)job).Run(begin, end);
#pragma warning restore CS8500
    }

    private static void Publish(delegate*<void*, long, long, void> run, void* job, long total, long grain)
    {
        int helpers = (int)Math.Min(s_count - 1, (total + grain - 1) / grain - 1);
        EnsureWorkers(helpers);
        s_run = run;
        s_job = job;
        (s_total, s_grain, s_next, s_joined, s_failure) = (total, grain, 0, 0, null);
        Volatile.Write(ref s_wanted, helpers);
        Interlocked.Increment(ref s_generation);
        s_wake.Set();

        try
        {
            TakePieces();
        }
        finally
        {
            // Close the door, then wait for those that came in: the job lives on this stack.
            Volatile.Write(ref s_wanted, 0);
            Interlocked.MemoryBarrier();
            var spin = new SpinWait();
            while (Volatile.Read(ref s_active) > 0) spin.SpinOnce(sleep1Threshold: -1);
            s_wake.Reset();
        }
        if (s_failure is { } failure) throw new InvalidOperationException("A kernel failed on a worker thread: " + failure.Message, failure);
    }

    private static void TakePieces()
    {
        while (true)
        {
            long begin = Interlocked.Add(ref s_next, s_grain) - s_grain;
            if (begin >= s_total) return;
            s_run(s_job, begin, Math.Min(s_total, begin + s_grain));
        }
    }

    private static void Work()
    {
        int seen = 0;
        while (true)
        {
            int spins = 0;
            while (Volatile.Read(ref s_generation) == seen || Volatile.Read(ref s_wanted) == 0)
            {
                if (++spins < SpinsBeforeSleep) Thread.SpinWait(8);
                else
                {
                    s_wake.Wait();
                    spins = 0;
                    if (Volatile.Read(ref s_generation) == seen) Thread.Yield();
                }
            }
            seen = Volatile.Read(ref s_generation);
            Interlocked.Increment(ref s_active);
            // Only as many as wanted, and not after the owner has closed the door.
            if (Volatile.Read(ref s_wanted) > 0 && Interlocked.Increment(ref s_joined) <= Volatile.Read(ref s_wanted))
            {
                try
                {
                    TakePieces();
                }
#pragma warning disable CA1031 // the owner rethrows it
                catch (Exception e)
#pragma warning restore CA1031
                {
                    Interlocked.CompareExchange(ref s_failure, e, null);
                }
            }
            Interlocked.Decrement(ref s_active);
        }
    }

    private static void EnsureWorkers(int count)
    {
        if (s_workers >= count) return;
        lock (s_resize)
        {
            for (; s_workers < count; s_workers++)
                new Thread(Work) { IsBackground = true, Name = $"ZEngine CPU {s_workers + 1}" }.Start();
        }
    }

    private static int Default()
    {
        string? set = Environment.GetEnvironmentVariable("ZENGINE_THREADS");
        if (string.IsNullOrEmpty(set)) return Environment.ProcessorCount;
        if (int.TryParse(set, System.Globalization.CultureInfo.InvariantCulture, out int count) && count is >= 1 and <= 1024) return count;
        throw new InvalidOperationException($"ZENGINE_THREADS must be a number from 1 to 1024, got '{set}'.");
    }
}
