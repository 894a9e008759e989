using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>Signals of Unix, for which .NET has no call.</summary>
public static unsafe partial class Signals
{
    /// <summary>Numbers of Linux.</summary>
    public const int Interrupt = 2, User1 = 10, Terminate = 15;

    // struct sigaction of glibc and musl is smaller on all of their machines.
    private const int ActionBytes = 512;

    /// <summary>Those by which a runtime finds null references and divisions by zero: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.</summary>
    private static readonly int[] FaultSignals = [4, 6, 7, 8, 11];

    /// <summary>Sends a signal to a process.</summary>
    /// <returns>Whether there was such a process to send it to.</returns>
    public static bool Send(int process, int signal) => Kill(process, signal) == 0;

    /// <summary>Runs something that may replace the handlers of faults, and puts those back that were there.</summary>
    public static T KeepingFaultHandlers<T>(Func<T> action)
    {
        ArgumentNullException.ThrowIfNull(action);
        if (!OperatingSystem.IsLinux()) return action();
        byte* saved = stackalloc byte[FaultSignals.Length * ActionBytes];
        for (int i = 0; i < FaultSignals.Length; i++) _ = SignalAction(FaultSignals[i], null, saved + i * ActionBytes);
        try
        {
            return action();
        }
        finally
        {
            for (int i = 0; i < FaultSignals.Length; i++) _ = SignalAction(FaultSignals[i], saved + i * ActionBytes, null);
        }
    }

    /// <summary>Ends this process at once, with no handler and no finalizer: for a process of which threads are stuck in native code.</summary>
    public static void ExitNow(int exitCode)
    {
        if (OperatingSystem.IsWindows()) Environment.Exit(exitCode);
        Exit(exitCode);
    }

    /// <summary>Sets an environment variable where native libraries look, unless it is set: .NET's own call does not reach them.</summary>
    internal static void SetNativeVariable(string name, string value)
    {
        if (!OperatingSystem.IsWindows()) _ = SetEnvironment(name, value, 0);
    }

    [LibraryImport("libc", EntryPoint = "_exit")]
    private static partial void Exit(int exitCode);

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);

    [LibraryImport("libc", EntryPoint = "sigaction")]
    private static partial int SignalAction(int signal, void* action, void* old);

    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetEnvironment(string name, string value, int overwrite);
}
