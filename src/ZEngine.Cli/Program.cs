using System.Runtime.InteropServices;
using System.Text;

namespace ZEngine.Cli;

internal static class Program
{
    private static int Main(string[] args)
    {
        Console.OutputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        using var interruption = new CancellationTokenSource();
        void Interrupt(PosixSignalContext signal)
        {
            // The second signal ends the process at once.
            signal.Cancel = !interruption.IsCancellationRequested;
            interruption.Cancel();
        }
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Interrupt), terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Interrupt);
        return CommandLine.Run(args, new Terminal(Console.In, Console.Out, Console.Error, interruption.Token)
        {
            IsInputRedirected = Console.IsInputRedirected,
            IsOutputRedirected = Console.IsOutputRedirected,
        });
    }
}
