namespace ZEngine;

/// <summary>Names this machine among all, also where two have the same host name or one host name stands for many containers.</summary>
internal static class HostIdentity
{
    private const string BootFile = "/proc/sys/kernel/random/boot_id";

    /// <summary>Host name and boot.</summary>
    public static string Value { get; } = File.Exists(BootFile) ? $"{Environment.MachineName}/{File.ReadAllText(BootFile).Trim()[..8]}" : Environment.MachineName;
}
