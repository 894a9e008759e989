namespace ZEngine.Interop;

/// <summary>Pages of 2 MiB: fewer translations of addresses where memory is read from end to end.</summary>
public static class HugePages
{
    private const int MadviseHugePage = 14;

    /// <summary>Size and alignment of a page.</summary>
    public const int Bytes = 2 << 20;

    /// <summary>Asks for huge pages under memory that has not been touched yet. The system may refuse, or know none: the memory is the same.</summary>
    public static void Ask(nint address, nuint bytes)
    {
        if (OperatingSystem.IsLinux()) _ = VirtualMemory.MemoryAdvise(address, bytes, MadviseHugePage);
    }
}
