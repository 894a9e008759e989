using ZEngine.Emulator.Execution;

namespace ZEngine.Emulator;

/// <summary>In which order the emulator runs what the hardware may run in any order.</summary>
public enum SchedulingPolicy
{
    /// <summary>Lanes stay together where they can, warps and blocks in ascending order. Fast; hides what lockstep hides.</summary>
    Converge,

    /// <summary>
    /// Warps are split at random between synchronisation points, and parts of warps, warps, blocks and streams run in random order, all from
    /// one seed. Finds code that relies on lockstep.
    /// </summary>
    Adversarial,

    /// <summary>Everything advances in short equal slices.</summary>
    Fair,
}

/// <summary>What is checked beyond bounds, alignment, masks and barriers, which always are.</summary>
[Flags]
public enum EmulatorChecks
{
    /// <summary>Bounds, alignment, windows, member masks, barriers.</summary>
    None = 0,

    /// <summary>Reads of bytes never written, in global, shared and local memory.</summary>
    Uninitialised = 1,

    /// <summary>Conflicting accesses of shared memory that no barrier orders, and bytes an asynchronous copy still owns.</summary>
    SharedRaces = 2,

    /// <summary>Work of different streams that touches the same bytes without an event between.</summary>
    StreamRaces = 4,

    /// <summary>Conflicting accesses of global memory within one launch. On request: it is slow.</summary>
    GlobalRaces = 8,

    /// <summary>Counts instructions, sectors, wavefronts and bytes, per launch and per source line.</summary>
    Counters = 16,

    /// <summary>Counts the distinct bytes that a launch reads and writes, and the sectors that an L1 cache does not have; needs <see cref="Counters"/>. On request: it takes memory and time.</summary>
    Footprints = 32,

    /// <summary>All checks but <see cref="GlobalRaces"/>.</summary>
    Deep = Uninitialised | SharedRaces | StreamRaces | Counters,

    /// <summary>All checks.</summary>
    All = Deep | GlobalRaces,
}

/// <summary>How tensor-core sums are rounded; no document defines it.</summary>
public enum MmaModel
{
    /// <summary>A chain of float fused multiply-adds in ascending k.</summary>
    Chain,

    /// <summary>One rounding of the exact sum.</summary>
    Exact,

    /// <summary>As reverse-engineered on Ampere: blocks of 8 products aligned to the largest exponent, truncated to 24 fractional bits.</summary>
    Ampere,

    /// <summary>As reverse-engineered on Hopper: one block of 16 products, truncated to 25 fractional bits.</summary>
    Hopper,
}

/// <summary>How an <see cref="EmulatedCudaDriver"/> behaves.</summary>
public sealed record EmulatorOptions
{
    /// <summary>Environment variable that overrides <see cref="Seed"/>, to replay a report.</summary>
    public const string SeedVariable = "ZENGINE_EMU_SEED";

    /// <summary>The order of execution.</summary>
    public SchedulingPolicy Policy { get; init; } = SchedulingPolicy.Converge;

    /// <summary>From which every random choice follows.</summary>
    public ulong Seed { get; init; } = DefaultSeed();

    /// <summary>What is checked.</summary>
    public EmulatorChecks Checks { get; init; } = EmulatorChecks.Deep;

    /// <summary>Threads that execute the blocks of a launch. Float atomics may differ in order with more than one.</summary>
    public int Workers { get; init; } = 1;

    /// <summary>Number of devices.</summary>
    public int Devices { get; init; } = 1;

    /// <summary>The devices' architecture, as 80 for <c>sm_80</c>.</summary>
    public int Architecture { get; init; } = 80;

    /// <summary>The devices' multiprocessors; null for as many as GPUs of the architecture have. Plans that fill a device fill a small one with little work.</summary>
    public int? Multiprocessors { get; init; }

    /// <summary>Warp instructions of a block before another has its turn, where the order is <see cref="SchedulingPolicy.Converge"/>.</summary>
    public long BlockInstructions { get; init; } = 200_000;

    /// <summary>
    /// Runs of each grid only the first and last blocks; null for all. Needs one of <see cref="Workers"/>, an order that is not <see cref="SchedulingPolicy.Adversarial"/>, and no
    /// <see cref="EmulatorChecks.Uninitialised"/>, as what other blocks would have written is read.
    /// </summary>
    public OuterBlocks? OuterBlocks { get; init; }

    /// <summary>Memory of a device; bytes cost host memory only once written.</summary>
    public ulong DeviceMemoryBytes { get; init; } = 80ul << 30;

    /// <summary>How tensor-core sums are rounded.</summary>
    public MmaModel Mma { get; init; } = MmaModel.Chain;

    /// <summary>
    /// Perturbs approximate functions inside their documented bound, so that a tolerance which only a perfect <c>exp</c> meets fails.
    /// </summary>
    public bool JitterApproximations { get; init; }

    /// <summary>Where kernels print to with <c>printf</c>, once they have run; the console by default.</summary>
    public TextWriter? DeviceOutput { get; init; }

    /// <summary>Records what the driver loads and launches; none by default.</summary>
    public EmulatorObserver? Observer { get; init; }

    /// <summary>Ends a launch with its first finding; else it goes on and reports what more there is.</summary>
    public bool StopsAtFinding { get; init; }

    /// <summary>
    /// Runs the kernel without this instruction, as if its author had forgotten it: the test of a kernel's tests. Modules loaded elsewhere
    /// keep theirs. Launches of other kernels run in plain order, and of <see cref="Checks"/> with that of bytes never written alone.
    /// </summary>
    public SyncInstruction? Deleted { get; init; }

    /// <summary>Breaks the handlers of the emulator itself: the test of the emulator's tests.</summary>
    internal HandlerMutation? Mutation { get; init; }

    /// <summary>Warp instructions a block may execute before the launch is stopped as hung.</summary>
    public long WatchdogInstructions { get; init; } = 500_000_000;

    private static ulong DefaultSeed()
    {
        string? text = Environment.GetEnvironmentVariable(SeedVariable);
        if (string.IsNullOrEmpty(text)) return 0x5EED;
        return text.StartsWith("0x", StringComparison.OrdinalIgnoreCase) ? Convert.ToUInt64(text[2..], 16) : ulong.Parse(text, System.Globalization.CultureInfo.InvariantCulture);
    }
}
