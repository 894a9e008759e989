namespace ZEngine.Emulator.Execution;

/// <summary>What the run loop itself must do; everything else is the handler's.</summary>
internal enum InstructionKind : byte
{
    /// <summary>Runs its handler on the active lanes.</summary>
    Normal,
    Branch,
    /// <summary>Ends the thread, or returns from a function.</summary>
    Return,
    Exit,
    Call,
    /// <summary>Runs its handler once all lanes of the member mask have arrived.</summary>
    Collective,
    /// <summary>A barrier of the block.</summary>
    Barrier,
    /// <summary>Gives other lanes, warps and blocks a turn.</summary>
    Yield,
}

/// <summary>
/// A decoded instruction. Operands are byte offsets into the warp's register file, where immediates, addresses of symbols and special
/// registers are ordinary registers filled in advance; so a handler never asks what kind of operand it has.
/// </summary>
internal unsafe struct Instruction
{
    /// <summary>First index of the source operands in <see cref="X"/>; destinations come before.</summary>
    public const int Sources = 4;

    /// <summary>For all 32 lanes.</summary>
    public delegate*<Warp, Instruction*, uint, void> Full;
    /// <summary>For the lanes of the mask.</summary>
    public delegate*<Warp, Instruction*, uint, void> Partial;
    /// <summary>Offsets of registers: destinations 0..3, sources 4..; -1 where there is none.</summary>
    public fixed int X[16];
    public long Immediate;
    /// <summary>Offset of the predicate that guards it, or -1.</summary>
    public int Guard;
    public bool GuardNegated;
    /// <summary>For a warp instruction, whether every lane of the warp must take part.</summary>
    public bool IsAligned;
    public InstructionKind Kind;
    /// <summary>First instruction of a basic block: where diverged lanes may meet.</summary>
    public bool StartsBlock;
    public int Target;
    public int Index;
    /// <summary>Elements of a vector access.</summary>
    public int Count;
    /// <summary>Bytes of one element.</summary>
    public int Size;
    /// <summary>Meaning private to the handler.</summary>
    public int Flags;
    /// <summary>Offset of the member mask register of a warp instruction, or -1.</summary>
    public int MemberMask;
    /// <summary>Bytes of a load that the program uses, from the pragma of the compiler.</summary>
    public uint UsedBytes;
}
