using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Net;

namespace ZEngine.Distributed;

/// <summary>Starts a command once for every rank on this machine, connects the ranks over TCP, and ends all when one fails.</summary>
public static class Launcher
{
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(3);

    /// <summary>Runs the ranks until all have ended.</summary>
    /// <param name="command">Program and arguments.</param>
    /// <param name="size">The number of ranks.</param>
    /// <param name="say">Takes one line where a rank failed.</param>
    /// <returns>0 where all ranks returned 0, else the code of the rank that failed first; 128 and the signal's number for one that was killed.</returns>
    public static int Run(IReadOnlyList<string> command, int size, Action<string> say)
    {
        ArgumentNullException.ThrowIfNull(command);
        ArgumentNullException.ThrowIfNull(say);
        ArgumentOutOfRangeException.ThrowIfLessThan(size, 1);
        string job = Guid.NewGuid().ToString("N");
        using var rendezvous = new Rendezvous(new IPEndPoint(IPAddress.Loopback, 0), job, size);
        var ranks = new Process[size];
        try
        {
            for (int rank = 0; rank < size; rank++) ranks[rank] = Start(command, rank, size, rendezvous.Address, job);
            using var forwarding = new SignalForwarding(_ => ranks);
            return Wait(ranks, say);
        }
        catch (Win32Exception e)
        {
            throw new InvalidOperationException($"launch: {command[0]} could not be started: {e.Message}.", e);
        }
        finally
        {
            foreach (Process? rank in ranks)
            {
                if (rank is null) continue;
                if (!rank.HasExited) rank.Kill(entireProcessTree: true);
                rank.Dispose();
            }
        }
    }

    private static Process Start(IReadOnlyList<string> command, int rank, int size, IPEndPoint rendezvous, string job)
    {
        var start = new ProcessStartInfo(command[0]);
        foreach (string argument in command.Skip(1)) start.ArgumentList.Add(argument);
        string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
        start.Environment[LaunchEnvironment.RankVariable] = start.Environment[LaunchEnvironment.LocalRankVariable] = Text(rank);
        start.Environment[LaunchEnvironment.SizeVariable] = Text(size);
        start.Environment[LaunchEnvironment.RendezvousVariable] = rendezvous.ToString();
        start.Environment[LaunchEnvironment.JobVariable] = job;
        start.Environment.TryAdd("ZENGINE_THREADS", Text(Math.Max(1, Environment.ProcessorCount / size)));
        return Process.Start(start)!;
    }

    private static int Wait(Process[] ranks, Action<string> say)
    {
        using var oneEnded = new AutoResetEvent(false);
        foreach (Process process in ranks)
        {
            process.EnableRaisingEvents = true;
            process.Exited += (_, _) => oneEnded.Set();
        }
        int failure = 0;
        long failed = 0;
        bool hasKilled = false;
        do
        {
            oneEnded.WaitOne(100);
            foreach ((int rank, Process process) in ranks.Index().Where(item => item.Item.HasExited && item.Item.ExitCode != 0))
            {
                // A rank that lost another says so with its own code; the cause is the other's, unless it is the launcher.
                if (hasKilled || failure != 0 && (failure != World.LostExitCode || process.ExitCode == World.LostExitCode)) continue;
                if (failure == 0) failed = Stopwatch.GetTimestamp();
                failure = process.ExitCode;
                if (failure > 128) say($"rank {rank} was killed by signal {failure - 128}.");
            }
            if (failure == 0 || Stopwatch.GetElapsedTime(failed) < Grace) continue;
            hasKilled = true;
            foreach (Process process in ranks.Where(rank => !rank.HasExited)) process.Kill(entireProcessTree: true);
        }
        while (ranks.Any(rank => !rank.HasExited));
        return failure != 0 || hasKilled ? failure : ranks.Max(rank => rank.ExitCode);
    }
}
