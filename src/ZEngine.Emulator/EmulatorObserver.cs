using System.Security.Cryptography;
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator;

/// <summary>
/// An instruction that orders threads or waits for a copy: a barrier of block or warp, a fence, the commit or wait of asynchronous copies.
/// </summary>
/// <param name="Kernel">The kernel's name as the PTX has it.</param>
/// <param name="Number">Counts such instructions of the kernel and the functions it calls, from 0.</param>
/// <param name="Form">Opcode and modifiers.</param>
/// <param name="PtxLine">Its line in the PTX.</param>
/// <param name="SourceFile">The file it comes from; empty without line information.</param>
/// <param name="SourceLine">The line it comes from.</param>
public sealed record SyncInstruction(string Kernel, int Number, string Form, int PtxLine, string SourceFile, int SourceLine)
{
    /// <inheritdoc/>
    public override string ToString() => $"{Form} #{Number} of {PtxParser.Demangle(Kernel)}, {SourceFile}:{SourceLine}, PTX line {PtxLine}";
}

/// <summary>
/// Records what drivers load and launch, for tests about kernels: which were run, what instructions they consist of, where they
/// synchronise, and a digest of all results. Several drivers may share one.
/// </summary>
public sealed class EmulatorObserver
{
    private readonly Lock _gate = new();
    private readonly SortedSet<string> _forms = new(StringComparer.Ordinal), _launched = new(StringComparer.Ordinal);
    private readonly Dictionary<(string Kernel, int Number), SyncInstruction> _syncs = [];
    private readonly HashSet<(string Kernel, int Number)> _executed = [];
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    /// <summary>Opcodes with their modifiers of all kernels of the modules loaded.</summary>
    public IReadOnlyList<string> Forms
    {
        get
        {
            lock (_gate) return [.. _forms];
        }
    }

    /// <summary>The names of the kernels launched, as the PTX has them.</summary>
    public IReadOnlyList<string> Launched
    {
        get
        {
            lock (_gate) return [.. _launched];
        }
    }

    /// <summary>The synchronising instructions of the kernels launched.</summary>
    public IReadOnlyList<SyncInstruction> SyncInstructions
    {
        get
        {
            lock (_gate) return [.. _syncs.Values.OrderBy(sync => sync.Kernel, StringComparer.Ordinal).ThenBy(sync => sync.Number)];
        }
    }

    /// <summary>Whether any launch executed the instruction. Needs <see cref="EmulatorChecks.Counters"/>.</summary>
    public bool WasExecuted(SyncInstruction sync)
    {
        lock (_gate) return _executed.Contains((sync.Kernel, sync.Number));
    }

    /// <summary>A hash of everything that was copied to the host so far, in order.</summary>
    public string Digest
    {
        get
        {
            lock (_gate) return Convert.ToHexStringLower(_hash.GetCurrentHash());
        }
    }

    internal void Load(IEnumerable<KernelProgram> programs)
    {
        lock (_gate)
            foreach (KernelProgram program in programs)
                _forms.UnionWith(program.Forms);
    }

    internal void Launch(KernelProgram program, LaunchProfile? profile)
    {
        lock (_gate)
        {
            _launched.Add(program.Name);
            foreach ((SyncInstruction sync, int index) in program.Syncs)
            {
                _syncs.TryAdd((sync.Kernel, sync.Number), sync);
                if (profile is not null && profile.ExecutionsOf(index) > 0) _executed.Add((sync.Kernel, sync.Number));
            }
        }
    }

    internal void Read(ReadOnlySpan<byte> bytes)
    {
        lock (_gate) _hash.AppendData(bytes);
    }
}
