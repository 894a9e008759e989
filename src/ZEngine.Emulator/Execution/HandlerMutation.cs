using System.Numerics;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Execution;

/// <summary>What a broken handler does wrong.</summary>
internal enum HandlerFault
{
    /// <summary>One bit of the result is wrong in the highest active lane; for a store, of what it stores.</summary>
    WrongBit,
    /// <summary>Each lane gets the result of the lane above it.</summary>
    WrongLane,
    /// <summary>The first two sources are exchanged.</summary>
    SwappedSources,
    /// <summary>The highest active lane is left out.</summary>
    SkippedLane,
    /// <summary>Lanes that are not active take part.</summary>
    IgnoredMask,
    /// <summary>An access goes one element too far.</summary>
    WrongOffset,
}

/// <summary>
/// Breaks the handlers of one instruction form, in one way: whether some test notices is a test of the emulator's tests. The instructions it
/// has broken are known by a number in the last of their operands, which no form uses.
/// </summary>
internal sealed unsafe class HandlerMutation(string form, HandlerFault fault, int bit = 0)
{
    private const int Mark = 15;

    private readonly struct Original
    {
        public required nint Full { get; init; }
        public required nint Partial { get; init; }
        public required (int Slot, PtxType Type)[] Results { get; init; }
        public required bool IsBefore { get; init; }
    }

    private readonly List<Original> _originals = [];

    /// <summary>How many instructions it has broken; with none it says nothing.</summary>
    public int Applied { get; private set; }

    public void Apply(PtxInstruction source, ref Instruction d)
    {
        if (source.Form != form || d.Full == null || d.Kind is InstructionKind.Barrier or InstructionKind.Call || source.Opcode.StartsWith("prefetch", StringComparison.Ordinal)) return;
        // Memory is what these change: the fault is in what they are given.
        bool isBefore = source.Opcode is "st" or "red";
        (int, PtxType)[] results = isBefore ? Registers(source.Operands[1]) : source.Operands.Length == 0 ? [] : Registers(source.Operands[0]);
        switch (fault)
        {
            case HandlerFault.WrongBit or HandlerFault.WrongLane when results.Length == 0: return;
            case HandlerFault.SwappedSources:
                if (d.X[4] < 0 || d.X[5] < 0 || d.X[4] == d.X[5] || source.Opcode is "ld" or "st" or "atom" or "red" or "cp" or "ldmatrix") return;
                (d.X[4], d.X[5]) = (d.X[5], d.X[4]);
                Applied++;
                return;
            case HandlerFault.IgnoredMask when d.Kind != InstructionKind.Normal || source.Opcode is "membar" or "fence": return;
            case HandlerFault.WrongOffset:
                if (source.Opcode is not ("ld" or "st" or "atom" or "red" or "cp" or "ldmatrix") || d.Size * d.Count == 0) return;
                d.Immediate += d.Size * d.Count;
                Applied++;
                return;
        }
        d.X[Mark] = _originals.Count;
        _originals.Add(new Original { Full = (nint)d.Full, Partial = (nint)d.Partial, Results = results, IsBefore = isBefore });
        d.Full = d.Partial = &Run;
        Applied++;
    }

    private static (int, PtxType)[] Registers(PtxOperand operand)
    {
        PtxOperand[] items = operand.Kind == OperandKind.Vector ? operand.Items : operand.Second is null ? [operand] : [operand, operand.Second];
        return [.. from item in items where item.Register is { Slot: >= 0 } select (item.Register!.Slot, item.Register.Type)];
    }

    private static void Run(Warp w, Instruction* i, uint mask) => w.Launch.Options.Mutation!.RunBroken(w, i, mask);

    private void RunBroken(Warp w, Instruction* i, uint mask)
    {
        Original original = _originals[i->X[Mark]];
        int highest = 31 - BitOperations.LeadingZeroCount(mask);
        if (fault == HandlerFault.SkippedLane) mask &= ~(1u << highest);
        if (fault == HandlerFault.IgnoredMask) mask = uint.MaxValue;
        if (mask == 0) return;
        if (original.IsBefore) Change(w, original, mask, highest);
        ((delegate*<Warp, Instruction*, uint, void>)(mask == uint.MaxValue ? original.Full : original.Partial))(w, i, mask);
        Change(w, original, mask, highest);
    }

    // Done twice it is undone, for one bit; rotated sources of a store stay rotated, which is as wrong.
    private void Change(Warp w, in Original original, uint mask, int highest)
    {
        foreach ((int slot, PtxType type) in original.Results)
        {
            byte* register = w.Registers + slot;
            if (fault == HandlerFault.WrongBit)
            {
                if (type.Kind == 'p') *(uint*)register ^= 1u << highest;
                else if (type.TotalBits == 64) ((ulong*)register)[highest] ^= 1ul << bit;
                else ((uint*)register)[highest] ^= 1u << bit;
            }
            else if (fault == HandlerFault.WrongLane)
            {
                if (type.Kind == 'p') LaneOps.StorePredicate(w, slot, mask, BitOperations.RotateRight(*(uint*)register, 1));
                else if (type.TotalBits == 64) Rotate((ulong*)register, mask);
                else Rotate((uint*)register, mask);
            }
        }
    }

    private static void Rotate<T>(T* register, uint mask) where T : unmanaged
    {
        T first = register[0];
        for (int lane = 0; lane < 32; lane++) if ((mask >> lane & 1) != 0) register[lane] = lane == 31 ? first : register[lane + 1];
    }
}
