using System.Runtime.InteropServices;

namespace ZEngine;

/// <summary>Work on a range of independent indices: any split of the range must give the same bits.</summary>
internal interface IParallelJob
{
    void Run(long begin, long end);
}

/// <summary>Runs jobs on all cores, in pieces of fixed size; no piece depends on another.</summary>
/// <remarks>
/// Every thread has a share of neighbouring pieces, takes them in order and then helps with the others' shares: memory is read in long
/// streams (a tenth faster than pieces taken in turns), a thread meets the same part of a tensor again in the next op, and a slow core holds nobody up.
/// </remarks>
internal static unsafe class CpuThreads
{
    private const int SpinsBeforeSleep = 1600;                 // about 60 µs: longer than the gap between two ops of a step

    public const int MaxThreads = 1024;

    private static readonly Lock s_resize = new();
    private static readonly ManualResetEventSlim s_wake = new(false, spinCount: 1);
    private static int s_count = Default();
    private static int s_workers;
    private static int s_busy;

    // One region at a time; written by its owner before the generation is published, read by the workers after.
    private static delegate*<void*, long, long, void> s_run;
    private static void* s_job;
    private static long s_total, s_grain;
    private static readonly Share* s_shares = (Share*)NativeMemory.AlignedAlloc((nuint)(MaxThreads * sizeof(Share)), (nuint)sizeof(Share));
    private static int s_shareCount;
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
        (s_total, s_grain, s_joined, s_failure) = (total, grain, 0, null);
        Deal(helpers + 1);
        Volatile.Write(ref s_wanted, helpers);
        Interlocked.Increment(ref s_generation);
        s_wake.Set();

        try
        {
            TakePieces(0);
        }
        finally
        {
            // Close the door, then wait for those that came in: the job lives on this stack.
            Volatile.Write(ref s_wanted, 0);
            Interlocked.MemoryBarrier();
            for (int spins = 0; Volatile.Read(ref s_active) > 0; spins++)
            {
                if (spins < SpinsBeforeSleep) Thread.SpinWait(1);        // mostly half a piece of work: a core given away would be missed at the next op
                else Thread.Yield();
            }
            s_wake.Reset();
        }
        if (s_failure is { } failure) throw new InvalidOperationException("A kernel failed on a worker thread: " + failure.Message, failure);
    }

    /// <summary>Divides the pieces among so many threads.</summary>
    private static void Deal(int shares)
    {
        s_shareCount = shares;
        long pieces = (s_total + s_grain - 1) / s_grain;
        for (int i = 0; i < shares; i++) (s_shares[i].Next, s_shares[i].End) = (pieces * i / shares, pieces * (i + 1) / shares);
    }

    /// <summary>Takes the pieces of a thread's own share, then what is left of the others'.</summary>
    private static void TakePieces(int thread)
    {
        for (int i = 0; i < s_shareCount; i++)
        {
            Share* share = s_shares + (thread + i) % s_shareCount;
            while (true)
            {
                long piece = Interlocked.Increment(ref share->Next) - 1;
                if (piece >= share->End) break;
                s_run(s_job, piece * s_grain, Math.Min(s_total, (piece + 1) * s_grain));
            }
        }
    }

    private static void Work(int thread)
    {
        int seen = 0;
        while (true)
        {
            int spins = 0;
            while (Volatile.Read(ref s_generation) == seen || Volatile.Read(ref s_wanted) == 0)
            {
                if (++spins < SpinsBeforeSleep) Thread.SpinWait(1);
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
                    TakePieces(thread);
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
            while (s_workers < count)
            {
                int number = ++s_workers;
                new Thread(() => Work(number)) { IsBackground = true, Name = $"ZEngine CPU {number}" }.Start();
            }
        }
    }

    private static int Default()
    {
        string? set = Environment.GetEnvironmentVariable("ZENGINE_THREADS");
        if (string.IsNullOrEmpty(set)) return Environment.ProcessorCount;
        if (int.TryParse(set, System.Globalization.CultureInfo.InvariantCulture, out int count) && count is >= 1 and <= MaxThreads) return count;
        throw new InvalidOperationException($"ZENGINE_THREADS must be a number from 1 to {MaxThreads}, got '{set}'.");
    }

    /// <summary>The pieces of one thread: those from Next on are still to be taken. A cache line of its own.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 64)]
    private struct Share
    {
        [FieldOffset(0)] public long Next;
        [FieldOffset(8)] public long End;
    }
}
