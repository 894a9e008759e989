using System.Runtime.InteropServices;

namespace ZEngine;

/// <summary>Work on a range of independent indices: any split of the range must give the same bits.</summary>
internal interface IParallelJob
{
    void Run(long begin, long end);
}

/// <summary>Some memory, of which nothing is known but that it will be read: it may be gone by then.</summary>
internal readonly record struct Stretch(nint Address, long Bytes);

/// <summary>Runs jobs on all cores, in pieces of fixed size; no piece depends on another.</summary>
/// <remarks>
/// Every thread has a share of neighbouring pieces, takes them in order and then helps with the others' shares: memory is read in long
/// streams (a tenth faster than pieces taken in turns), a thread meets the same part of a tensor again in the next op, and a slow core holds nobody up.
/// A cache line goes from one core to another in a quarter of a microsecond where they share no cache, and a decoded token has dozens of regions: what a thread
/// polls stands in a line of its own, which the owner of a region writes once to begin and the worker twice, to come in and when it is done.
/// Between two regions the owner works alone and the memory would rest: meanwhile a worker fetches what it is to read next, where that is known.
/// </remarks>
internal static unsafe class CpuThreads
{
    private const int SpinsBeforeSleep = 1600;                 // about 60 µs: longer than the gap between two ops of a step

    /// <summary>What a waiting worker fetches at most, a quarter of a second-level cache, and between two looks for a call: more at once is dropped where the misses of a core are under way.</summary>
    private const long MaxFetchBytes = 256 << 10, FetchBytes = 512;

    public const int MaxThreads = 1024;

    private static readonly Lock s_resize = new();
    private static int s_count = Default();
    private static int s_started;
    private static int s_busy;

    // One region at a time; written by its owner before it calls the workers, read by them after.
    private static delegate*<void*, long, long, void> s_run;
    private static void* s_job;
    private static long s_total, s_grain;
    private static readonly Share* s_shares = Lines<Share>();
    private static int s_shareCount;
    private static Stretch s_next;
    private static Exception? s_failure;

    private static readonly Worker* s_workers = Lines<Worker>();
    private static readonly ManualResetEventSlim[] s_wake = new ManualResetEventSlim[MaxThreads];
    private static long s_region;

    /// <summary>Threads that one op may use, the caller's included.</summary>
    public static int Count { get => s_count; set => s_count = value; }

    /// <summary>Runs <paramref name="job"/> over [0, total) in pieces of <paramref name="grain"/> indices.</summary>
    /// <param name="total">Indices.</param>
    /// <param name="grain">Indices to a piece.</param>
    /// <param name="job">What to do with a piece.</param>
    /// <param name="next">What a later region will read from end to end, divided as this one: empty where that is not known.</param>
    /// <remarks>A call while another thread's job is running works alone: the bits are the same.</remarks>
    public static void For<TJob>(long total, long grain, in TJob job, Stretch next = default) where TJob : struct, IParallelJob
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
            Publish(&RunPiece<TJob>, &shared, total, grain, next);
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

    private static void Publish(delegate*<void*, long, long, void> run, void* job, long total, long grain, Stretch next)
    {
        int helpers = (int)Math.Min(s_count - 1, (total + grain - 1) / grain - 1);
        EnsureWorkers(helpers);
        s_run = run;
        s_job = job;
        (s_total, s_grain, s_next, s_failure) = (total, grain, next, null);
        Deal(helpers + 1);
        long open = 4 * ++s_region + Worker.Open;
        for (int i = 1; i <= helpers; i++)
        {
            Interlocked.Exchange(ref s_workers[i].Call, open);
            if (Volatile.Read(ref s_workers[i].IsAsleep) != 0) s_wake[i].Set();
        }

        try
        {
            TakePieces(0);
        }
        finally
        {
            // The job lives on this stack: the door is closed to those that have not come in, and the others are waited for.
            for (int i = 1; i <= helpers; i++)
            {
                ref long call = ref s_workers[i].Call;
                if (Volatile.Read(ref call) == open && Interlocked.CompareExchange(ref call, open - Worker.Open + Worker.Closed, open) == open) continue;
                for (int spins = 0; Volatile.Read(ref call) != open - Worker.Open + Worker.Done; spins++)
                {
                    if (spins < SpinsBeforeSleep) Thread.SpinWait(1);    // mostly half a piece of work: a core given away would be missed at the next op
                    else Thread.Yield();
                }
            }
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
            while (Volatile.Read(ref share->Next) < share->End)
            {
                long piece = Interlocked.Increment(ref share->Next) - 1;
                if (piece >= share->End) break;
                s_run(s_job, piece * s_grain, Math.Min(s_total, (piece + 1) * s_grain));
            }
        }
    }

    private static void Work(int thread)
    {
        Worker* me = s_workers + thread;
        Stretch own = default;
        while (true)
        {
            long call = Await(me, s_wake[thread], ref own);
            if (Interlocked.CompareExchange(ref me->Call, call - Worker.Open + Worker.Joined, call) != call) continue;
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
            if (s_next.Bytes > 0) own = ShareOf(s_next, thread);
            Volatile.Write(ref me->Call, call - Worker.Open + Worker.Done);
        }
    }

    /// <summary>The beginning of what a thread will read of some memory.</summary>
    private static Stretch ShareOf(Stretch next, int thread) => new(next.Address + (nint)(next.Bytes / s_shareCount * thread), Math.Min(MaxFetchBytes, next.Bytes / s_shareCount));

    /// <summary>Waits for a region to help with, at first without giving up the core; fetches what is left of some memory.</summary>
    private static long Await(Worker* me, ManualResetEventSlim wake, ref Stretch next)
    {
        for (int spins = 0; ; spins++)
        {
            long call = Volatile.Read(ref me->Call);
            if (call % 4 == Worker.Open) return call;
            if (next.Bytes > 0)
            {
                CpuSimd.FetchRow((float*)next.Address, FetchBytes / sizeof(float));
                next = new Stretch(next.Address + (nint)FetchBytes, next.Bytes - FetchBytes);
            }
            if (spins < SpinsBeforeSleep)
            {
                Thread.SpinWait(1);
                continue;
            }
            // The owner calls, then looks whether the worker sleeps; the worker says so, then looks for a call: one of the two sees the other.
            Interlocked.Exchange(ref me->IsAsleep, 1);
            if (Volatile.Read(ref me->Call) % 4 != Worker.Open) wake.Wait();
            wake.Reset();
            Volatile.Write(ref me->IsAsleep, 0);
            spins = 0;
        }
    }

    private static void EnsureWorkers(int count)
    {
        if (s_started >= count) return;
        lock (s_resize)
        {
            while (s_started < count)
            {
                int number = s_started + 1;
                s_wake[number] = new ManualResetEventSlim(false, spinCount: 1);
                new Thread(() => Work(number)) { IsBackground = true, Name = $"ZEngine CPU {number}" }.Start();
                s_started = number;
            }
        }
    }

    /// <summary>A line of zeros for each thread.</summary>
    private static T* Lines<T>() where T : unmanaged
    {
        var lines = (T*)NativeMemory.AlignedAlloc((nuint)(MaxThreads * sizeof(T)), 128);
        NativeMemory.Clear(lines, (nuint)(MaxThreads * sizeof(T)));
        return lines;
    }

    private static int Default()
    {
        string? set = Environment.GetEnvironmentVariable("ZENGINE_THREADS");
        if (string.IsNullOrEmpty(set)) return Environment.ProcessorCount;
        if (int.TryParse(set, System.Globalization.CultureInfo.InvariantCulture, out int count) && count is >= 1 and <= MaxThreads) return count;
        throw new InvalidOperationException($"ZENGINE_THREADS must be a number from 1 to {MaxThreads}, got '{set}'.");
    }

    /// <summary>The pieces of one thread: those from Next on are still to be taken. Lines of its own: the prefetcher works in pairs.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 128)]
    private struct Share
    {
        [FieldOffset(0)] public long Next;
        [FieldOffset(8)] public long End;
    }

    /// <summary>What a worker and the owner of a region tell each other.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 128)]
    private struct Worker
    {
        /// <summary>How far a call has come: the owner calls, the worker comes in and is done, or the owner closes before that.</summary>
        public const long Closed = 0, Open = 1, Joined = 2, Done = 3;

        /// <summary>4 · region + one of these.</summary>
        [FieldOffset(0)] public long Call;
        [FieldOffset(8)] public int IsAsleep;
    }
}
