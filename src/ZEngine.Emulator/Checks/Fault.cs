// One room: what a fault is, its report and the two exceptions that carry it.
using System.Text;

namespace ZEngine.Emulator;

/// <summary>What a kernel, or the host code around it, did wrong.</summary>
public enum FaultKind
{
    /// <summary>An access outside every allocation, or across the end of one.</summary>
    OutOfBounds,
    /// <summary>An access of freed memory.</summary>
    UseAfterFree,
    /// <summary>An address that is not a multiple of the access size.</summary>
    Misaligned,
    /// <summary>An address of another window than the instruction's.</summary>
    WrongWindow,
    /// <summary>A read of bytes never written.</summary>
    Uninitialised,
    /// <summary>Conflicting accesses of shared memory without a barrier between.</summary>
    SharedRace,
    /// <summary>Conflicting accesses of global memory within a launch, without synchronisation between.</summary>
    GlobalRace,
    /// <summary>Work of two streams on the same bytes without an event between.</summary>
    StreamRace,
    /// <summary>A read or write of bytes that an asynchronous copy still owns.</summary>
    AsyncInFlight,
    /// <summary>A load through the read-only path of bytes written in the same launch.</summary>
    ReadOnlyWritten,
    /// <summary>A barrier that some threads of the block do not reach.</summary>
    DivergentBarrier,
    /// <summary>Participants of a barrier disagree about it, or its thread count is impossible.</summary>
    BarrierCount,
    /// <summary>A lane executes a warp instruction without being in its member mask, or lanes name different masks.</summary>
    MemberMask,
    /// <summary>A shuffle reads a lane that does not take part.</summary>
    ShuffleSource,
    /// <summary>An operand that the instruction leaves undefined.</summary>
    Undefined,
    /// <summary>Nothing can run any more.</summary>
    Deadlock,
    /// <summary>A block executed more instructions than the watchdog allows.</summary>
    Timeout,
    /// <summary>A trap or failed assertion.</summary>
    Trap,
}

/// <summary>One finding: the first of its kind at its instruction, with the number of its repetitions.</summary>
public sealed class FaultReport
{
    /// <summary>What went wrong.</summary>
    public required FaultKind Kind { get; init; }

    /// <summary>What went wrong, in words.</summary>
    public required string Message { get; init; }

    /// <summary>The kernel's mangled name; empty when no kernel is involved.</summary>
    public string Kernel { get; init; } = "";

    /// <summary>The module.</summary>
    public string Module { get; init; } = "";

    /// <summary>The line of the PTX text.</summary>
    public int PtxLine { get; init; }

    /// <summary>The instruction with its modifiers.</summary>
    public string Instruction { get; init; } = "";

    /// <summary>The source file; empty without line information.</summary>
    public string SourceFile { get; init; } = "";

    /// <summary>The source line.</summary>
    public int SourceLine { get; init; }

    /// <summary>Source file and line with the chain of inlined functions.</summary>
    public string Source { get; init; } = "";

    /// <summary>For a conflict, the source line of the other access.</summary>
    public int OtherSourceLine { get; init; }

    /// <summary>For a conflict, who and where the other access was.</summary>
    public string Other { get; init; } = "";

    /// <summary>Grid, block, thread, warp and lane.</summary>
    public string Where { get; init; } = "";

    /// <summary>Names and values of what the instruction worked on.</summary>
    public string Operands { get; init; } = "";

    /// <summary>The order of execution.</summary>
    public SchedulingPolicy Policy { get; init; }

    /// <summary>The seed that repeats the finding.</summary>
    public ulong Seed { get; init; }

    /// <summary>How often it was found at this instruction.</summary>
    public long Count { get; internal set; } = 1;

    /// <inheritdoc/>
    public override string ToString()
    {
        var text = new StringBuilder();
        text.AppendLine($"CUDA-EMU  {Kind}: {Message}" + (Count > 1 ? $"  ({Count} times)" : ""));
        if (Kernel.Length > 0) text.AppendLine($"kernel    {Ptx.PtxParser.Demangle(Kernel)}  module {Module}  {Where}");
        if (Instruction.Length > 0) text.AppendLine($"here      {Instruction}  {(Source.Length > 0 ? Source : "no line information")}  PTX line {PtxLine}");
        if (Other.Length > 0) text.AppendLine($"other     {Other}");
        if (Operands.Length > 0) text.AppendLine($"operands  {Operands}");
        text.Append($"replay    {EmulatorOptions.SeedVariable}=0x{Seed:x} with policy {Policy} and one worker");
        return text.ToString();
    }
}

/// <summary>The emulator found faults in a launch. It is what a synchronising call throws.</summary>
public sealed class EmulatorFaultException : Interop.CudaException
{
    internal EmulatorFaultException(string call, Interop.CudaResult result, string name, IReadOnlyList<FaultReport> faults)
        : base(call, result, name, string.Join(Environment.NewLine, faults.Select(f => f.ToString()).Prepend($"{faults.Count} finding(s)")))
        => Faults = faults;

    /// <summary>What was found.</summary>
    public IReadOnlyList<FaultReport> Faults { get; }
}

/// <summary>Ends a launch at a fault that leaves nothing to go on with.</summary>
internal sealed class LaunchAbortedException(FaultReport report) : Exception(report.Message)
{
    public FaultReport Report => report;
}
