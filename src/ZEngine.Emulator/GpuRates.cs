namespace ZEngine.Emulator;

/// <summary>What a GPU does in a second, of each kind of <see cref="LaunchCost"/>.</summary>
/// <param name="Name">The GPU.</param>
/// <param name="MemoryBytes">Bytes of device memory, as a copy reaches them.</param>
/// <param name="L2Bytes">Bytes from the L2 cache to the multiprocessors.</param>
/// <param name="Wavefronts">Passes over shared memory: one a clock and multiprocessor.</param>
/// <param name="Specials">Approximate functions: 16 a clock and multiprocessor.</param>
/// <param name="Floats">Operations in single precision.</param>
/// <param name="Instructions">Instructions of warps: four a clock and multiprocessor.</param>
/// <param name="MatrixFlops">Operations of the tensor cores by mma.sync, as attention reaches them.</param>
/// <param name="DenseFlops">Operations of the tensor cores by whichever instruction does most.</param>
public sealed record GpuRates(string Name, double MemoryBytes, double L2Bytes, double Wavefronts, double Specials, double Floats, double Instructions, double MatrixFlops, double DenseFlops)
{
    /// <summary>What a launch takes beside its work, and what a block waits for another's word through the L2 cache.</summary>
    private const double LaunchSeconds = 3e-6, StepSeconds = 1e-6;

    /// <summary>132 multiprocessors; the clock is that of the rate in single precision, 128 operations a clock and multiprocessor.</summary>
    public static GpuRates H200 { get; } = new("H200", 4.3e12, 5.5e12, 29.6e12 / 128, 3.9e12, 29.6e12, 29.6e12 / 32, 370e12, 790e12);

    /// <summary>
    /// The time of the unit that is busiest, if all work at once, and what launches and waiting add. No time that was measured, but it weighs counts against each other:
    /// waves of blocks, latencies and what the assembler makes of the PTX are not in it.
    /// </summary>
    /// <param name="cost">What was counted.</param>
    /// <param name="serialSteps">How often in a row a block waits for the word of another.</param>
    public double Seconds(LaunchCost cost, double serialSteps = 0) => Busiest(cost).Seconds + cost.Launches * LaunchSeconds + serialSteps * StepSeconds;

    /// <summary>The unit that is busiest, and its time.</summary>
    public (string Unit, double Seconds) Busiest(LaunchCost cost)
    {
        ReadOnlySpan<(string, double)> units =
        [
            ("memory", cost.MemoryBytes / MemoryBytes), ("L2", cost.L2Bytes / L2Bytes), ("shared memory", cost.Wavefronts / Wavefronts), ("special functions", cost.Specials / Specials),
            ("floats", cost.Floats / Floats), ("issue", cost.Instructions / Instructions), ("tensor cores", cost.MatrixFlops / MatrixFlops),
        ];
        (string Unit, double Seconds) busiest = units[0];
        foreach ((string unit, double seconds) in units) if (seconds > busiest.Seconds) busiest = (unit, seconds);
        return busiest;
    }

    /// <summary>The least time of any kernel that moves, multiplies and computes no more than the definition asks for: the longest of each alone.</summary>
    public double LeastSeconds(double bytes, double flops = 0, double specials = 0, double floats = 0) =>
        Math.Max(Math.Max(bytes / MemoryBytes, flops / DenseFlops), Math.Max(specials / Specials, floats / Floats));
}
