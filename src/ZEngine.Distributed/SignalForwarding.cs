using System.Diagnostics;
using System.Runtime.InteropServices;
using ZEngine.Interop;

namespace ZEngine.Distributed;

/// <summary>While it lives, gives signals to this process on to others: SIGINT, SIGTERM and SIGUSR1. A terminal tells its processes of Ctrl+C itself.</summary>
internal sealed class SignalForwarding : IDisposable
{
    private readonly List<PosixSignalRegistration> _registrations = [];

    /// <param name="receivers">Is asked with every signal.</param>
    public SignalForwarding(Func<int, IEnumerable<Process>> receivers)
    {
        foreach (int signal in (int[])[Signals.Interrupt, Signals.Terminate, Signals.User1])
        {
            if (OperatingSystem.IsWindows() && signal == Signals.User1) continue;
            PosixSignal posix = signal switch { Signals.Interrupt => PosixSignal.SIGINT, Signals.Terminate => PosixSignal.SIGTERM, _ => (PosixSignal)signal };
            _registrations.Add(PosixSignalRegistration.Create(posix, context =>
            {
                context.Cancel = true;
                IEnumerable<Process> processes = receivers(signal);
                if (OperatingSystem.IsWindows() || signal == Signals.Interrupt && !Console.IsInputRedirected) return;
                foreach (Process process in processes)
                    if (!process.HasExited) Signals.Send(process.Id, signal);
            }));
        }
    }

    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations) registration.Dispose();
    }
}
