using System.Diagnostics;
using System.Runtime.InteropServices;

namespace ZEngine.Bench;

/// <summary>Wall time, or the CPU time of the calling thread: what others take from a shared machine does not count then.</summary>
internal static unsafe partial class Clock
{
    private const int ThreadCpuTime = 3;                       // CLOCK_THREAD_CPUTIME_ID of Linux

    public static bool CountsCpuTime { get; set; }

    public static double Seconds
    {
        get
        {
            if (!CountsCpuTime) return Stopwatch.GetTimestamp() / (double)Stopwatch.Frequency;
            long* time = stackalloc long[2];
            _ = GetTime(ThreadCpuTime, time);
            return time[0] + 1e-9 * time[1];
        }
    }

    [LibraryImport("libc", EntryPoint = "clock_gettime")]
    private static partial int GetTime(int clock, long* time);
}
