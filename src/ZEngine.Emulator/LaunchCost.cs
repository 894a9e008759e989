namespace ZEngine.Emulator;

/// <summary>What launches ask of the units of a GPU: counts from which a time can be estimated where there is no GPU.</summary>
/// <param name="MemoryBytes">Distinct bytes that each launch reads and writes: what device memory must move where a cache holds what a launch touches again.</param>
/// <param name="L2Bytes">Whole sectors between the L2 cache and the multiprocessors.</param>
/// <param name="Wavefronts">Passes over the banks of shared memory; a shuffle is one, and 128 bytes that an asynchronous copy leaves there.</param>
/// <param name="Specials">Approximate functions, each of a thread.</param>
/// <param name="Floats">Operations in single and half precision, each of a thread.</param>
/// <param name="Instructions">Instructions of the PTX, each of a warp, but for moves and parameters, which the assembler makes operands of others.</param>
/// <param name="MatrixFlops">Operations of the tensor cores.</param>
/// <param name="Launches">Launches.</param>
/// <param name="GlobalBytes">Bytes of global memory that were asked for.</param>
/// <param name="WideBytes">Those of them that were asked for by 16.</param>
/// <param name="SharedPasses">Passes over the banks that loads and stores of shared memory took.</param>
/// <param name="SharedBytes">Bytes that they asked for.</param>
public readonly record struct LaunchCost(
    double MemoryBytes, double L2Bytes, double Wavefronts, double Specials, double Floats, double Instructions, double MatrixFlops, double Launches, double GlobalBytes = 0, double WideBytes = 0,
    double SharedPasses = 0, double SharedBytes = 0)
{
    private const int SectorBytes = 32, WavefrontBytes = 128;

    /// <summary>The cost of one launch, counted with <see cref="EmulatorChecks.Counters"/> and <see cref="EmulatorChecks.Footprints"/>.</summary>
    public static LaunchCost Of(LaunchProfile launch)
    {
        InstructionCounter copies = launch[InstructionClass.AsyncCopy];
        long sectors = launch[InstructionClass.GlobalLoad].Misses + launch[InstructionClass.GlobalStore].Sectors + launch[InstructionClass.Atomic].Sectors + copies.Sectors;
        InstructionCounter loads = launch[InstructionClass.SharedLoad], stores = launch[InstructionClass.SharedStore], matrices = launch[InstructionClass.MatrixLoad];
        (long global, long wide) = launch.GlobalWidth;
        long passes = loads.Wavefronts + stores.Wavefronts + matrices.Wavefronts, wavefronts = passes + launch.Of("shfl").Executions;
        long bytes = launch.DistinctBytes ?? throw new ArgumentException("The launch was counted without EmulatorChecks.Footprints.", nameof(launch));
        long operands = launch.Of("mov.").Executions + launch.Of("ld.param").Executions + launch.Of("cvta.").Executions;
        return new(bytes, SectorBytes * sectors, wavefronts + (double)copies.Bytes / WavefrontBytes, launch[InstructionClass.Transcendental].Threads, launch[InstructionClass.Float].Threads, launch.Total.Executions - operands, launch.MatrixFlops, 1, global, wide, passes, loads.Bytes + stores.Bytes + matrices.Bytes);
    }

    /// <summary>The share of the bytes of global memory that were asked for by 16, and passes over shared memory beside those of whole rows of banks.</summary>
    public (double Wide, double Passes) Widths => (WideBytes / GlobalBytes, SharedPasses / (SharedBytes / WavefrontBytes));

    /// <summary>One after the other.</summary>
    public static LaunchCost operator +(LaunchCost a, LaunchCost b) => new(a.MemoryBytes + b.MemoryBytes, a.L2Bytes + b.L2Bytes, a.Wavefronts + b.Wavefronts, a.Specials + b.Specials, a.Floats + b.Floats,
        a.Instructions + b.Instructions, a.MatrixFlops + b.MatrixFlops, a.Launches + b.Launches, a.GlobalBytes + b.GlobalBytes, a.WideBytes + b.WideBytes, a.SharedPasses + b.SharedPasses, a.SharedBytes + b.SharedBytes);

    /// <summary>Every count times a factor.</summary>
    public static LaunchCost operator *(LaunchCost a, double factor) => new(a.MemoryBytes * factor, a.L2Bytes * factor, a.Wavefronts * factor, a.Specials * factor, a.Floats * factor, a.Instructions * factor, a.MatrixFlops * factor, a.Launches * factor,
        a.GlobalBytes * factor, a.WideBytes * factor, a.SharedPasses * factor, a.SharedBytes * factor);

    /// <inheritdoc cref="op_Addition"/>
    public static LaunchCost Add(LaunchCost a, LaunchCost b) => a + b;

    /// <inheritdoc cref="op_Multiply"/>
    public static LaunchCost Multiply(LaunchCost a, double factor) => a * factor;
}
