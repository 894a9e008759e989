using System.ComponentModel;
using System.Diagnostics;
using ZEngine.Interop;

namespace ZEngine.Distributed;

/// <summary>Starts a job again when it was lost, stopped or killed, until it is done or no longer gets on.</summary>
/// <param name="Command">Program and arguments; asked before every start.</param>
/// <param name="Progress">How far the job is; a restart counts against <paramref name="MostFailures"/> where this has not grown.</param>
/// <param name="MostFailures">Restarts in a row without progress before it gives up.</param>
/// <param name="FirstWait">Before the first restart without progress; doubled with each further one, up to 64 times as long.</param>
public sealed record Supervisor(Func<IReadOnlyList<string>> Command, Func<long> Progress, int MostFailures, TimeSpan FirstWait)
{
    /// <summary>A job that says this wants to be started again: preempted after a save.</summary>
    public const int PreemptedExitCode = 75;

    private const int MostDoublings = 6, KilledExitCode = 128;

    /// <summary>Whether a job that ended so is worth another start: it was not its input that was wrong.</summary>
    public static bool IsWorthRestart(int exitCode) => exitCode is PreemptedExitCode or World.LostExitCode or > KilledExitCode and < KilledExitCode + 64 and not KilledExitCode + Signals.Interrupt;

    /// <summary>Runs the job.</summary>
    /// <param name="say">Takes one line for every restart.</param>
    /// <returns>The exit code of the last start.</returns>
    public int Run(Action<string> say)
    {
        ArgumentNullException.ThrowIfNull(say);
        using var stop = new CancellationTokenSource();
        Process? running = null;
        using var forwarding = new SignalForwarding(signal =>
        {
            // A request to stop is for the supervisor too: the job is not started again.
            stop.Cancel();
            return running is { HasExited: false } process ? [process] : [];
        });
        int failures = 0;
        while (true)
        {
            long before = Progress();
            using Process process = running = Start(Command());
            process.WaitForExit();
            if (process.ExitCode == 0 || stop.IsCancellationRequested || !IsWorthRestart(process.ExitCode)) return process.ExitCode;
            long now = Progress();
            failures = now > before ? 0 : failures + 1;
            if (failures > MostFailures)
            {
                say($"ended with code {process.ExitCode} without progress, for the {failures}th time in a row; giving up.");
                return process.ExitCode;
            }
            TimeSpan wait = failures == 0 ? TimeSpan.Zero : FirstWait * (1 << Math.Min(failures - 1, MostDoublings));
            say($"ended with code {process.ExitCode} at step {now}; starting again{(wait > TimeSpan.Zero ? $" in {wait.TotalSeconds:0.#} s" : "")}.");
            if (stop.Token.WaitHandle.WaitOne(wait)) return process.ExitCode;
        }
    }

    private static Process Start(IReadOnlyList<string> command)
    {
        var start = new ProcessStartInfo(command[0]);
        foreach (string argument in command.Skip(1)) start.ArgumentList.Add(argument);
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception e)
        {
            throw new InvalidOperationException($"supervise: {command[0]} could not be started: {e.Message}.", e);
        }
    }
}
