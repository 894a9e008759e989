using System.Runtime.InteropServices;
using System.Text;
using ZEngine.Distributed;
using ZEngine.Interop;

namespace ZEngine.Cli;

internal static class Program
{
    private static int Main(string[] args)
    {
        bool isMpi = IsMpi();
        // Launchers of MPI give ranks a terminal of their own, to which .NET would write escape sequences.
        if (isMpi) Environment.SetEnvironmentVariable("TERM", "dumb");
        Console.OutputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        using var interruption = new CancellationTokenSource();
        void Interrupt(PosixSignalContext signal)
        {
            // The second signal ends the process at once.
            signal.Cancel = !interruption.IsCancellationRequested;
            interruption.Cancel();
        }
        bool isPreempted = false;
        using PosixSignalRegistration? preempt = OperatingSystem.IsWindows() ? null : PosixSignalRegistration.Create((PosixSignal)Signals.User1, signal =>
        {
            signal.Cancel = isPreempted = true;
            interruption.Cancel();
        });
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Interrupt), terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Interrupt);
        return CommandLine.Run(args, new Terminal(Console.In, Console.Out, Console.Error, interruption.Token)
        {
            IsPreempted = () => isPreempted,
            IsInputRedirected = Console.IsInputRedirected,
            IsOutputRedirected = Console.IsOutputRedirected || isMpi,
        });
    }

    private static bool IsMpi()
    {
        try
        {
            return LaunchEnvironment.Detect().IsMpi;
        }
        catch (InvalidDataException)
        {
            return false;                                      // whoever joins the world says what is wrong
        }
    }
}
