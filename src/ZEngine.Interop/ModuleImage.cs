namespace ZEngine.Interop;

/// <summary>What ptxas reports about one kernel on one architecture.</summary>
/// <param name="Registers">32-bit registers per thread.</param>
/// <param name="StackBytes">Stack frame per thread.</param>
/// <param name="SpillStoreBytes">Bytes of spill stores per thread.</param>
/// <param name="SpillLoadBytes">Bytes of spill loads per thread.</param>
/// <param name="SharedBytes">Static shared memory per block.</param>
/// <param name="Barriers">Named barriers used.</param>
public readonly record struct KernelResources(
    int Registers, int StackBytes, int SpillStoreBytes, int SpillLoadBytes, int SharedBytes, int Barriers);

/// <summary>A compiled module: the same source as PTX and, where it was assembled, as machine code.</summary>
public sealed record ModuleImage
{
    /// <summary>The name of the source, for messages.</summary>
    public required string Name { get; init; }

    /// <summary>The architecture it was compiled for, such as <c>sm_80</c>.</summary>
    public required string Architecture { get; init; }

    /// <summary>The PTX text.</summary>
    public required string Ptx { get; init; }

    /// <summary>The machine code, or empty when only PTX was asked for.</summary>
    public byte[] Cubin { get; init; } = [];

    /// <summary>The mangled name of every name expression that was asked for.</summary>
    public IReadOnlyDictionary<string, string> LoweredNames { get; init; } = new Dictionary<string, string>();

    /// <summary>What ptxas reports per kernel, by mangled name; empty when only PTX was asked for.</summary>
    public IReadOnlyDictionary<string, KernelResources> Resources { get; init; } = new Dictionary<string, KernelResources>();

    /// <summary>NVRTC's log: warnings and the lines of ptxas.</summary>
    public string Log { get; init; } = "";

    /// <summary>The mangled name of a kernel asked for by name expression, or the name itself when it is <c>extern "C"</c>.</summary>
    public string Lowered(string nameExpression) => LoweredNames.TryGetValue(nameExpression, out string? name) ? name : nameExpression;
}
