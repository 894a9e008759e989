using System.Runtime.CompilerServices;

namespace ZEngine.Tests;

/// <summary>The devices that every op test runs on.</summary>
internal static class Devices
{
    public static string[] Names => ["cpu"];

    public static Device Open(string name) => name == "cpu" ? Device.Cpu : throw new ArgumentException($"No device {name}.");

    /// <summary>Buffers that are held now. What an earlier test dropped on purpose is collected first, or it would go while a later test counts.</summary>
    public static long LiveBuffers(Device device)
    {
        if (device.LiveBuffers > 0)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        return device.LiveBuffers;
    }

    /// <summary>Fresh memory reads as NaN and blocks are checked for writes beyond their ends, in every test.</summary>
    [ModuleInitializer]
    internal static void Guard() => CpuDevice.Instance.Guards = true;
}
