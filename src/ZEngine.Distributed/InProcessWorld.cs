using System.Runtime.ExceptionServices;

namespace ZEngine.Distributed;

/// <summary>Runs a program once for each rank of a world, on threads of this process.</summary>
public static class InProcessWorld
{
    /// <summary>Runs the ranks and returns what they returned.</summary>
    /// <param name="size">The number of ranks.</param>
    /// <param name="program">Is given the rank's communicator, which goes with the run.</param>
    /// <param name="timeout">How long a rank waits for another; null for the default.</param>
    /// <exception cref="Exception">What the first rank that failed threw: the others are woken and end.</exception>
    public static T[] Run<T>(int size, Func<Communicator, T> program, TimeSpan? timeout = null)
    {
        ArgumentNullException.ThrowIfNull(program);
        IReadOnlyList<InProcessTransport> transports = InProcessTransport.Create(size, timeout);
        return Run([.. transports.Select(transport => new CpuCollectives(transport))], program);
    }

    /// <summary>As above, without results.</summary>
    public static void Run(int size, Action<Communicator> program, TimeSpan? timeout = null) => Run(size, communicator =>
    {
        program(communicator);
        return 0;
    }, timeout);

    /// <summary>Runs a program on communicators that stand, one thread each, and disposes them.</summary>
    internal static T[] Run<T>(IReadOnlyList<Communicator> communicators, Func<Communicator, T> program)
    {
        var results = new T[communicators.Count];
        ExceptionDispatchInfo? failure = null;
        var threads = new Thread[communicators.Count];
        for (int rank = 0; rank < threads.Length; rank++)
        {
            int own = rank;
            threads[rank] = new Thread(() =>
            {
                try
                {
                    results[own] = program(communicators[own]);
                }
#pragma warning disable CA1031 // rethrown below, on the caller's thread
                catch (Exception e)
#pragma warning restore CA1031
                {
                    Interlocked.CompareExchange(ref failure, ExceptionDispatchInfo.Capture(e), null);
                    communicators[own].Abort(1, e.Message);
                }
            }, maxStackSize: 16 << 20) { Name = $"ZEngine rank {rank}" };
            threads[rank].Start();
        }
        foreach (Thread thread in threads) thread.Join();
        foreach (Communicator communicator in communicators) communicator.Dispose();
        failure?.Throw();
        return results;
    }
}
