using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ZEngine.Emulator.Execution;

namespace ZEngine.Emulator.Checks;

/// <summary>How an access takes part in races.</summary>
internal enum AccessKind : byte { Plain, Volatile, Atomic }

/// <summary>
/// Finds conflicting accesses of shared memory that no barrier orders. Each 4-byte word has one cell, or one per byte once accesses of
/// single bytes come; a cell knows its last write and, per warp, the lanes that have read it since.
/// </summary>
internal sealed unsafe class SharedShadow : IDisposable
{
    private struct Cell
    {
        public int WriteGeneration, WriteClock, WriteInstruction;
        public short WriteThread;
        public AccessKind WriteKind;
        public byte InFlight;                     // bytes an asynchronous copy owns; the writer is then its issuer
        public int ReadGeneration, ReadInstruction;
        public uint ReadWarps;
    }

    private readonly int _words, _count;
    private readonly Cell* _cells;                // one per word, then one per byte for words that are split
    private readonly ulong* _readers;             // [warp][cell]: lanes << 32 | clock
    private readonly byte* _isSplit;

    public SharedShadow(uint bytes, int warps)
    {
        _words = (int)(bytes + 3) / 4 + 4;
        _count = _words * 5;
        _warps = warps;
        _cells = (Cell*)NativeMemory.AllocZeroed((nuint)_count, (nuint)sizeof(Cell));
        _readers = (ulong*)NativeMemory.AllocZeroed((nuint)_count * (nuint)warps, sizeof(ulong));
        _isSplit = (byte*)NativeMemory.AllocZeroed((nuint)_words);
    }

    private readonly int _warps;

    /// <summary>Begins a block. Generations go on counting, so what is left of the last block is older than anything.</summary>
    public void Reset()
    {
        // In-flight marks do not age: clear them by hand. They are rare enough to be worth a scan only where copies are used.
        if (!_hadCopies) return;
        for (int k = 0; k < _count; k++) _cells[k].InFlight = 0;
        _hadCopies = false;
    }

    private bool _hadCopies;

    public void Read(Warp w, Instruction* i, int lane, uint offset, int bytes, AccessKind kind)
    {
        int thread = w.Index * 32 + lane, generation = w.Block.Barriers.Generation;
        BlockClocks clocks = w.Block.Clocks;
        if (kind != AccessKind.Plain) clocks.Acquire(thread, offset);
        int clock = clocks.Clock(thread);
        for ((int cell, int last) = Range(offset, bytes); cell <= last; cell++)
        {
            Cell* c = _cells + cell;
            if (c->InFlight != 0) ReportInFlight(w, i, lane, offset, c, "read");
            else if (c->WriteGeneration == generation && Conflicts(w, kind, thread, c->WriteKind, c->WriteThread) && !clocks.Knows(thread, c->WriteThread, c->WriteClock))
                Report(w, i, lane, offset, "read after write", c->WriteThread, c->WriteInstruction);
            if ((i->Flags & MemoryFlags.Spin) != 0) continue;
            NoteRead(c, cell, w.Index, lane, generation, clock, i->Index);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void NoteRead(Cell* c, int cell, int warp, int lane, int generation, int clock, int instruction)
    {
        if (c->ReadGeneration != generation)
        {
            c->ReadGeneration = generation;
            c->ReadWarps = 0;
        }
        c->ReadInstruction = instruction;
        ulong* reader = _readers + (long)warp * _count + cell;
        uint bit = 1u << warp;
        *reader = (c->ReadWarps & bit) != 0 && (int)(uint)*reader == clock ? *reader | 1ul << (32 + lane) : 1ul << (32 + lane) | (uint)clock;
        c->ReadWarps |= bit;
    }

    /// <summary>
    /// Plain reads of whole words by the lanes of a warp. Words that nobody wrote since the block last met, by far the most, need no more
    /// than a note.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void ReadWords(Warp w, Instruction* i, uint mask, uint* offsets, int bytes)
    {
        int generation = w.Block.Barriers.Generation, instruction = i->Index, first = w.Index * 32;
        BlockClocks clocks = w.Block.Clocks;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest), cell = (int)(offsets[lane] >> 2), end = cell + (bytes >> 2);
            bool isQuiet = true;
            for (int k = cell; k < end; k++) isQuiet &= _cells[k].WriteGeneration != generation && (_cells[k].InFlight | _isSplit[k]) == 0;
            if (!isQuiet)
            {
                Read(w, i, lane, offsets[lane], bytes, AccessKind.Plain);
                continue;
            }
            int clock = clocks.Clock(first + lane);
            for (int k = cell; k < end; k++) NoteRead(_cells + k, k, w.Index, lane, generation, clock, instruction);
        }
    }

    /// <summary>Plain writes of single words by the lanes of a warp; true for those that nobody else touched since the block last met.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool TryWriteWord(Warp w, Instruction* i, int lane, uint offset, int generation)
    {
        Cell* c = _cells + (offset >> 2);
        if (c->WriteGeneration == generation || c->ReadGeneration == generation || (c->InFlight | _isSplit[offset >> 2]) != 0) return false;
        c->WriteGeneration = generation;
        c->WriteThread = (short)(w.Index * 32 + lane);
        c->WriteClock = w.Block.Clocks.Clock(w.Index * 32 + lane);
        c->WriteKind = AccessKind.Plain;
        c->WriteInstruction = i->Index;
        c->ReadGeneration = 0;
        return true;
    }

    public void Write(Warp w, Instruction* i, int lane, uint offset, int bytes, AccessKind kind, bool changesValue, bool isRelease = false)
    {
        int thread = w.Index * 32 + lane, generation = w.Block.Barriers.Generation;
        BlockClocks clocks = w.Block.Clocks;
        if (kind == AccessKind.Atomic) clocks.Acquire(thread, offset);
        for ((int cell, int last) = Range(offset, bytes); cell <= last; cell++)
        {
            Cell* c = _cells + cell;
            if (c->InFlight != 0) ReportInFlight(w, i, lane, offset, c, "write");
            else if (c->WriteGeneration == generation && changesValue && Conflicts(w, kind, thread, c->WriteKind, c->WriteThread) && !clocks.Knows(thread, c->WriteThread, c->WriteClock))
                Report(w, i, lane, offset, "write after write", c->WriteThread, c->WriteInstruction);
            if (c->ReadGeneration == generation) CheckReaders(w, i, lane, offset, cell, thread, kind);
            c->WriteGeneration = generation;
            c->WriteThread = (short)thread;
            c->WriteClock = clocks.Clock(thread);
            c->WriteKind = kind;
            c->WriteInstruction = i->Index;
            c->ReadGeneration = 0;
            c->InFlight = 0;
        }
        if (kind != AccessKind.Plain) clocks.Publish(thread, offset, isRelease);
    }

    /// <summary>An asynchronous copy takes its destination: from now on nobody else may touch it until its issuer has waited.</summary>
    public void BeginCopy(Warp w, Instruction* i, int lane, uint offset, int bytes)
    {
        Write(w, i, lane, offset, bytes, AccessKind.Plain, changesValue: true);
        _hadCopies = true;
        for ((int cell, int last) = Range(offset, bytes); cell <= last; cell++) _cells[cell].InFlight = 1;
    }

    /// <summary>The issuer has waited: the bytes are as if it had written them just now.</summary>
    public void EndCopy(Warp w, int lane, uint offset, int bytes)
    {
        int thread = w.Index * 32 + lane;
        for ((int cell, int last) = Range(offset, bytes); cell <= last; cell++)
        {
            Cell* c = _cells + cell;
            c->InFlight = 0;
            c->WriteGeneration = w.Block.Barriers.Generation;
            c->WriteThread = (short)thread;
            c->WriteClock = w.Block.Clocks.Clock(thread);
        }
    }

    // Volatile accesses of different warps are how blocks pass flags; between lanes of one warp they are the old warp-synchronous idiom,
    // which is wrong since lanes schedule independently.
    private static bool Conflicts(Warp w, AccessKind kind, int thread, AccessKind otherKind, int other)
    {
        if (kind == AccessKind.Plain || otherKind == AccessKind.Plain) return true;
        return kind == AccessKind.Volatile && otherKind == AccessKind.Volatile && thread >> 5 == other >> 5;
    }

    private void CheckReaders(Warp w, Instruction* i, int lane, uint offset, int cell, int thread, AccessKind kind)
    {
        // A strong write after plain reads still conflicts; strong readers are not told apart from plain ones within a cell, so an
        // atomic is checked against reads only when the last write was plain.
        if (kind != AccessKind.Plain && _cells[cell].WriteKind != AccessKind.Plain && kind != AccessKind.Volatile) return;
        Cell* c = _cells + cell;
        for (uint warps = c->ReadWarps; warps != 0; warps &= warps - 1)
        {
            int warp = BitOperations.TrailingZeroCount(warps);
            if (kind == AccessKind.Volatile && warp != w.Index) continue;
            ulong reader = _readers[(long)warp * _count + cell];
            for (uint lanes = (uint)(reader >> 32); lanes != 0; lanes &= lanes - 1)
            {
                int other = warp * 32 + BitOperations.TrailingZeroCount(lanes);
                if (w.Block.Clocks.Knows(thread, other, (int)(uint)reader)) continue;
                Report(w, i, lane, offset, "write after read", other, c->ReadInstruction);
                return;
            }
        }
    }

    // The cells of an access: one per word for whole words, else one per byte.
    private (int First, int Last) Range(uint offset, int bytes)
    {
        int first = (int)(offset >> 2), last = (int)((offset + (uint)bytes - 1) >> 2);
        if ((offset & 3) == 0 && (bytes & 3) == 0)
        {
            bool anySplit = false;
            for (int word = first; word <= last; word++) anySplit |= _isSplit[word] != 0;
            if (!anySplit) return (first, last);
        }
        for (int word = first; word <= last; word++)
        {
            if (_isSplit[word] != 0) continue;
            _isSplit[word] = 1;
            for (int k = 0; k < 4; k++)
            {
                int cell = _words + word * 4 + k;
                _cells[cell] = _cells[word];
                for (int warp = 0; warp < _warps; warp++) _readers[(long)warp * _count + cell] = _readers[(long)warp * _count + word];
            }
        }
        return (_words + (int)offset, _words + (int)offset + bytes - 1);
    }

    private static void Report(Warp w, Instruction* i, int lane, uint offset, string what, int otherThread, int otherInstruction)
    {
        (int x, int y, int z) = w.Block.ThreadCoordinates(otherThread);
        string within = otherThread >> 5 == w.Index ? ", another lane of the same warp with no __syncwarp between" : ", no barrier between";
        w.Launch.Report(w, i, 1u << lane, FaultKind.SharedRace, $"{what} of {w.Launch.Program.DescribeShared(offset)}",
            otherInstruction, $"thread ({x},{y},{z}) warp {otherThread >> 5} lane {otherThread & 31}{within}");
    }

    private static void ReportInFlight(Warp w, Instruction* i, int lane, uint offset, Cell* cell, string what)
    {
        (int x, int y, int z) = w.Block.ThreadCoordinates(cell->WriteThread);
        w.Launch.Report(w, i, 1u << lane, FaultKind.AsyncInFlight,
            $"{what} of {w.Launch.Program.DescribeShared(offset)}, which an asynchronous copy may still be filling", cell->WriteInstruction,
            $"issued by thread ({x},{y},{z}), which has not waited for it");
    }

    public void Dispose()
    {
        NativeMemory.Free(_cells);
        NativeMemory.Free(_readers);
        NativeMemory.Free(_isSplit);
    }
}
