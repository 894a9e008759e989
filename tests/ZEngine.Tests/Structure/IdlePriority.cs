using System.Runtime.InteropServices;

namespace ZEngine.Tests.Structure;

/// <summary>A thread that runs when no other wants the core.</summary>
internal static partial class IdlePriority
{
    private const int OfThread = 0, Least = 19;

    /// <summary>Lowers that of the calling thread.</summary>
    public static void Take()
    {
        Thread.CurrentThread.Priority = ThreadPriority.Lowest;
        if (OperatingSystem.IsLinux()) _ = SetPriority(OfThread, 0, Least);     // where the runtime's priorities mean nothing
    }

    [LibraryImport("libc", EntryPoint = "setpriority")]
    private static partial int SetPriority(int which, uint who, int priority);
}
