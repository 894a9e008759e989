using System.Runtime.InteropServices;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Execution;

/// <summary>A kernel decoded: its instructions with those of all functions it calls, and the layout of registers and memory.</summary>
internal sealed unsafe class KernelProgram
{
    public required string Name;
    public required string ModuleName;
    public required PtxFunction Entry;
    public required PtxInstruction[] Source;
    public required LaunchProfile.InstructionInfo[] Infos;
    public Instruction* Code;
    public int Count => Source.Length;
    public int RegisterBytes;
    /// <summary>Registers that hold immediates and addresses, filled once per warp.</summary>
    public readonly List<(int Slot, ulong Value, bool IsWide)> Constants = [];
    /// <summary>Registers that hold special registers, filled once per block.</summary>
    public readonly List<(int Slot, string Name)> Specials = [];
    public int StaticSharedBytes;
    public int DynamicSharedOffset;
    public bool UsesDynamicShared;
    public bool UsesReadOnlyPath;
    public int LocalBytes;
    public int ParameterBytes;
    public readonly List<(string Name, ulong Offset, long Bytes)> SharedVariables = [];
    /// <summary>Where it synchronises: the instruction and its index.</summary>
    public readonly List<(SyncInstruction Sync, int Index)> Syncs = [];
    /// <summary>For calls: what is copied from where to where in local memory.</summary>
    public readonly List<(int From, int To, int Bytes)[]> Copies = [];

    public void SetCode(ReadOnlySpan<Instruction> code)
    {
        Code = (Instruction*)NativeMemory.AlignedAlloc((nuint)(code.Length * sizeof(Instruction)), 64);
        code.CopyTo(new Span<Instruction>(Code, code.Length));
    }

    /// <summary>The program with an instruction that does nothing in the place of one that synchronises.</summary>
    public KernelProgram Without(SyncInstruction sync)
    {
        if (sync.Number >= Syncs.Count) return this;
        int index = Syncs[sync.Number].Index;
        var program = (KernelProgram)MemberwiseClone();
        program.SetCode(new ReadOnlySpan<Instruction>(Code, Count));
        Instruction* code = program.Code;
        code[index].Kind = InstructionKind.Normal;
        code[index].Full = code[index].Partial = &WarpOps.Nothing;
        // What follows began a block because lanes met before it; unless they come there from elsewhere too.
        bool isTarget = false;
        for (int i = 0; i < Count; i++) isTarget |= code[i].Kind is InstructionKind.Branch or InstructionKind.Call && code[i].Target == index + 1;
        code[index + 1].StartsBlock = isTarget;
        return program;
    }

    /// <summary>The opcodes with their modifiers that occur in it.</summary>
    public string[] Forms => _forms ??= [.. Infos.Select(info => info.Form).Distinct()];

    private string[]? _forms;

    ~KernelProgram() => NativeMemory.AlignedFree(Code);

    /// <summary>The shared variable at an offset, for reports.</summary>
    public string DescribeShared(uint offset)
    {
        foreach ((string name, ulong start, long bytes) in SharedVariables)
            if (offset >= start && offset < start + (ulong)bytes) return $"{PtxParser.Demangle(name)} + 0x{offset - start:X}";
        return offset >= DynamicSharedOffset && UsesDynamicShared ? $"dynamic shared + 0x{offset - DynamicSharedOffset:X}" : $"shared + 0x{offset:X}";
    }
}

/// <summary>A return address and those below it; null is the kernel itself.</summary>
internal sealed record CallFrame(int ReturnTo, CallFrame? Caller)
{
    public int Depth { get; } = Caller is null ? 1 : Caller.Depth + 1;
}

internal enum FragmentState : byte { Ready, WaitsForLanes, WaitsForBlock }

/// <summary>Lanes of a warp that are at the same place.</summary>
internal struct Fragment
{
    public int Pc;
    public uint Mask;
    public FragmentState State;
    /// <summary>While it waits for lanes: those that must arrive.</summary>
    public uint Members;
    public CallFrame? Frame;
}

/// <summary>A small generator whose sequence is a function of its seed on every machine.</summary>
internal struct SeededRandom(ulong seed)
{
    private ulong _state = seed;

    public ulong Next()
    {
        _state += 0x9E3779B97F4A7C15;
        ulong z = _state;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
        z = (z ^ z >> 27) * 0x94D049BB133111EB;
        return z ^ z >> 31;
    }

    public int Below(int bound) => (int)(Next() % (ulong)bound);

    public static ulong Mix(ulong a, ulong b) => new SeededRandom(a ^ b * 0xD6E8FEB86659FD93).Next();
}
