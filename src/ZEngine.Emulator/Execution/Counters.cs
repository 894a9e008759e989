// One room: the counters of a launch and the classes that they count by.
#pragma warning disable CA1051 // Counters are plain data that the run loop increments in place.

namespace ZEngine.Emulator;

/// <summary>What one instruction did in a launch.</summary>
public struct InstructionCounter
{
    /// <summary>Executions by a warp.</summary>
    public long Executions;
    /// <summary>Executions by a thread.</summary>
    public long Threads;
    /// <summary>Branches that split their lanes.</summary>
    public long Divergent;
    /// <summary>Requests to memory.</summary>
    public long Requests;
    /// <summary>Bytes asked for.</summary>
    public long Bytes;
    /// <summary>32-byte sectors of global memory touched.</summary>
    public long Sectors;
    /// <summary>64-byte half-lines of global memory touched.</summary>
    public long HalfLines;
    /// <summary>Sectors that loads of global memory did not find in the L1 cache; with <see cref="EmulatorChecks.Footprints"/>.</summary>
    public long Misses;
    /// <summary>Passes over the banks of shared memory.</summary>
    public long Wavefronts;

    internal void Add(in InstructionCounter other)
    {
        Executions += other.Executions;
        Threads += other.Threads;
        Divergent += other.Divergent;
        Requests += other.Requests;
        Bytes += other.Bytes;
        Sectors += other.Sectors;
        HalfLines += other.HalfLines;
        Misses += other.Misses;
        Wavefronts += other.Wavefronts;
    }
}

/// <summary>The class of an instruction in a <see cref="LaunchProfile"/>.</summary>
public enum InstructionClass
{
    /// <summary>Integer, logic, moves, predicates.</summary>
    Integer,
    /// <summary>Single and half precision arithmetic.</summary>
    Float,
    /// <summary>Double precision arithmetic.</summary>
    Double,
    /// <summary>Conversions.</summary>
    Convert,
    /// <summary>Approximate functions.</summary>
    Transcendental,
    /// <summary>Branches, calls, returns.</summary>
    Control,
    /// <summary>Loads of global memory.</summary>
    GlobalLoad,
    /// <summary>Stores to global memory.</summary>
    GlobalStore,
    /// <summary>Loads of shared memory.</summary>
    SharedLoad,
    /// <summary>Stores to shared memory.</summary>
    SharedStore,
    /// <summary>Local, constant and parameter memory.</summary>
    OtherMemory,
    /// <summary>Atomic operations.</summary>
    Atomic,
    /// <summary>Shuffles, votes, matches, reductions over a warp.</summary>
    Warp,
    /// <summary>Barriers of warp and block, and fences.</summary>
    Barrier,
    /// <summary>Asynchronous copies from global to shared memory.</summary>
    AsyncCopy,
    /// <summary>Matrix loads of shared memory.</summary>
    MatrixLoad,
    /// <summary>Tensor-core products.</summary>
    Matrix,
}

/// <summary>The counters of one launch.</summary>
public sealed class LaunchProfile
{
    private readonly InstructionInfo[] _infos;
    private readonly InstructionCounter[] _counters;

    internal LaunchProfile(string kernel, InstructionInfo[] infos, InstructionCounter[] counters)
    {
        Kernel = kernel;
        _infos = infos;
        _counters = counters;
    }

    internal readonly record struct InstructionInfo(InstructionClass Class, int SourceLine, string Form, long FlopsPerWarp);

    /// <summary>The kernel.</summary>
    public string Kernel { get; }

    /// <summary>Everything.</summary>
    public InstructionCounter Total => Sum(_ => true);

    /// <summary>One class of instructions.</summary>
    public InstructionCounter this[InstructionClass kind] => Sum(info => info.Class == kind);

    /// <summary>All instructions that come from a line of the source.</summary>
    public InstructionCounter AtLine(int line) => Sum(info => info.SourceLine == line);

    /// <summary>Instructions whose opcode and modifiers begin with <paramref name="form"/>.</summary>
    public InstructionCounter Of(string form) => Sum(info => info.Form.StartsWith(form, StringComparison.Ordinal));

    /// <summary>Source lines with what they did, in order.</summary>
    public IEnumerable<(int Line, InstructionCounter Counter)> Lines =>
        _infos.Select(info => info.SourceLine).Distinct().Order().Select(line => (line, AtLine(line)));

    /// <summary>Bytes that global loads, stores and asynchronous copies asked for, and those of them that instructions of 16 bytes a thread did.</summary>
    public (long Bytes, long Wide) GlobalWidth
    {
        get
        {
            long bytes = 0, wide = 0;
            for (int i = 0; i < _infos.Length; i++)
            {
                if (_infos[i].Class is not (InstructionClass.GlobalLoad or InstructionClass.GlobalStore or InstructionClass.AsyncCopy)) continue;
                bytes += _counters[i].Bytes;
                // Copies past the L1 cache are of 16 bytes alone, of which a thread may have any filled with zeros.
                if (_counters[i].Bytes == 16 * _counters[i].Threads || _infos[i].Form.StartsWith("cp.async.cg", StringComparison.Ordinal)) wide += _counters[i].Bytes;
            }
            return (bytes, wide);
        }
    }

    /// <summary>Bytes that global loads, asynchronous copies and atomics asked for.</summary>
    public long GlobalBytesRead => this[InstructionClass.GlobalLoad].Bytes + this[InstructionClass.AsyncCopy].Bytes;

    /// <summary>Bytes that global stores wrote.</summary>
    public long GlobalBytesWritten => this[InstructionClass.GlobalStore].Bytes;

    /// <summary>Bytes of global memory that were read and bytes that were written, each once however often; null without <see cref="EmulatorChecks.Footprints"/>.</summary>
    public long? DistinctBytes { get; internal init; }

    /// <summary>Floating-point operations of the tensor cores.</summary>
    public long MatrixFlops
    {
        get
        {
            long flops = 0;
            for (int k = 0; k < _infos.Length; k++) flops += _infos[k].FlopsPerWarp * _counters[k].Executions;
            return flops;
        }
    }

    internal long ExecutionsOf(int index) => _counters[index].Executions;

    private InstructionCounter Sum(Func<InstructionInfo, bool> where)
    {
        var sum = default(InstructionCounter);
        for (int k = 0; k < _infos.Length; k++) if (where(_infos[k])) sum.Add(in _counters[k]);
        return sum;
    }
}
