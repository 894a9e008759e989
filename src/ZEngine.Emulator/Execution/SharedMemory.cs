using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using ZEngine.Emulator.Checks;

namespace ZEngine.Emulator.Execution;

/// <summary>Loads and stores of shared memory. Address registers of 32 and 64 bits both occur; only the low 32 count.</summary>
internal static unsafe class SharedMemory
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization), SkipLocalsInit]
    public static void Load(Warp w, Instruction* i, uint mask)
    {
        uint* offsets = stackalloc uint[32];
        int step = i->Size * i->Count;
        Offsets(w, i, mask, offsets, step);
        bool isContiguous = mask == uint.MaxValue && AreContiguous(offsets, (uint)step);
        if (!w.IsPlain || w.ChecksSharedRaces) CheckLoad(w, i, mask, offsets, step, isContiguous);
        if (isContiguous)
        {
            MemoryFlags.LoadContiguous(w.Registers, i, w.Shared + offsets[0]);
            return;
        }
        if (i->Size == 4 && i->Count == 1 && (i->Flags & MemoryFlags.WideRegister) == 0)
        {
            var d = (uint*)(w.Registers + i->X[0]);
            for (uint rest = mask; rest != 0; rest &= rest - 1)
            {
                int lane = BitOperations.TrailingZeroCount(rest);
                d[lane] = *(uint*)(w.Shared + offsets[lane]);
            }
            return;
        }
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            byte* from = w.Shared + offsets[lane];
            for (int e = 0; e < i->Count; e++) if (i->X[e] >= 0) MemoryFlags.StoreElement(w.Registers + i->X[e], lane, from + e * i->Size, i);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization), SkipLocalsInit]
    public static void Store(Warp w, Instruction* i, uint mask)
    {
        uint* offsets = stackalloc uint[32];
        int step = i->Size * i->Count;
        Offsets(w, i, mask, offsets, step);
        bool isContiguous = mask == uint.MaxValue && AreContiguous(offsets, (uint)step);
        if (w.Profile != null) CountBanks(ref w.Profile[i->Index], offsets, mask, step, isContiguous);
        if (w.ChecksUninitialised && !(isContiguous && (offsets[0] & 7) == 0 && MarkRange(w, offsets[0], 32 * step)))
            for (uint rest = mask; rest != 0; rest &= rest - 1) MarkWritten(w, offsets[BitOperations.TrailingZeroCount(rest)], step);
        AccessKind kind = MemoryFlags.Kind(i);
        if (w.ChecksSharedRaces && step == 4 && i->Size == 4 && kind == AccessKind.Plain && (i->Flags & MemoryFlags.WideRegister) == 0)
        {
            StoreWords(w, i, mask, offsets);
            return;
        }
        if (!w.ChecksSharedRaces && isContiguous)
        {
            MemoryFlags.StoreContiguous(w.Registers, i, w.Shared + offsets[0]);
            return;
        }
        byte* value = stackalloc byte[32];
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            byte* to = w.Shared + offsets[lane];
            for (int e = 0; e < i->Count; e++) MemoryFlags.LoadElement(value + e * i->Size, w.Registers + i->X[e], lane, i);
            if (w.ChecksSharedRaces)
            {
                // Two threads that store the same value do no harm.
                bool changes = !new ReadOnlySpan<byte>(value, step).SequenceEqual(new ReadOnlySpan<byte>(to, step));
                w.Block.Shadow!.Write(w, i, lane, offsets[lane], step, kind, changes, (i->Flags & MemoryFlags.Release) != 0);
            }
            Unsafe.CopyBlockUnaligned(to, value, (uint)step);
        }
    }

    private static void CheckLoad(Warp w, Instruction* i, uint mask, uint* offsets, int step, bool isContiguous)
    {
        if (w.Profile != null) CountBanks(ref w.Profile[i->Index], offsets, mask, step, isContiguous);
        if (w.ChecksUninitialised && !(isContiguous && (offsets[0] & 7) == 0 && IsRangeWritten(w, offsets[0], 32 * step))) CheckWritten(w, i, mask, offsets, step);
        if (!w.ChecksSharedRaces) return;
        SharedShadow shadow = w.Block.Shadow!;
        AccessKind kind = MemoryFlags.Kind(i);
        if (kind == AccessKind.Plain && (i->Flags & MemoryFlags.Spin) == 0 && (step & 3) == 0)
        {
            shadow.ReadWords(w, i, mask, offsets, step);
            return;
        }
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            shadow.Read(w, i, lane, offsets[lane], step, kind);
        }
    }

    // Plain stores of one word, with the check for races.
    private static void StoreWords(Warp w, Instruction* i, uint mask, uint* offsets)
    {
        SharedShadow shadow = w.Block.Shadow!;
        int generation = w.Block.Barriers.Generation;
        var values = (uint*)(w.Registers + i->X[0]);
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            var to = (uint*)(w.Shared + offsets[lane]);
            if (!shadow.TryWriteWord(w, i, lane, offsets[lane], generation))
                shadow.Write(w, i, lane, offsets[lane], 4, AccessKind.Plain, changesValue: *to != values[lane]);      // the same value again does no harm
            *to = values[lane];
        }
    }

    /// <summary>Offsets into the block's shared memory, checked for bounds and alignment.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Offsets(Warp w, Instruction* i, uint mask, uint* offsets, int step)
    {
        int slot = i->X[4];
        Vector512<uint> delta = Vector512.Create((uint)i->Immediate - Block.SharedBase), low, high;
        if (slot < 0)
        {
            low = high = delta;
        }
        else if ((i->Flags & MemoryFlags.WideAddress) != 0)
        {
            var a = (ulong*)(w.Registers + slot);
            low = Vector512.Narrow(Vector512.Load(a), Vector512.Load(a + 8)) + delta;
            high = Vector512.Narrow(Vector512.Load(a + 16), Vector512.Load(a + 24)) + delta;
        }
        else
        {
            var a = (uint*)(w.Registers + slot);
            low = Vector512.Load(a) + delta;
            high = Vector512.Load(a + 16) + delta;
        }
        Vector512.Store(low, offsets);
        Vector512.Store(high, offsets + 16);
        if (mask != uint.MaxValue)
        {
            low = Vector512.ConditionalSelect(LaneOps.Mask32(mask, 0), low, Vector512<uint>.Zero);
            high = Vector512.ConditionalSelect(LaneOps.Mask32(mask, 1), high, Vector512<uint>.Zero);
        }
        Vector512<uint> misaligned = (low | high) & Vector512.Create((uint)step - 1), highest = Vector512.Max(low, high);
        // Aligned offsets that begin inside also end inside, once the size is rounded: check the end of the highest.
        if (misaligned != Vector512<uint>.Zero || w.SharedBytes < step || Vector512.GreaterThanAny(highest, Vector512.Create(w.SharedBytes - (uint)step))) Examine(w, i, mask, offsets, step);
    }

    private static void Examine(Warp w, Instruction* i, uint mask, uint* offsets, int step)
    {
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            Check(w, i, lane, offsets[lane], step, step);
        }
    }

    public static void Check(Warp w, Instruction* i, int lane, uint offset, int bytes, int alignment)
    {
        if (offset > w.SharedBytes || offset + (ulong)bytes > w.SharedBytes)
        {
            bool isBelow = (int)offset < 0;
            throw w.Launch.Abort(w, i, 1u << lane, FaultKind.OutOfBounds, isBelow
                ? $"shared address {(long)(int)offset} bytes before the block's shared memory, or no shared address at all"
                : $"{bytes} bytes at shared offset 0x{offset:X}, but the block has 0x{w.SharedBytes:X} bytes");
        }
        if ((offset & (uint)(alignment - 1)) != 0)
            throw w.Launch.Abort(w, i, 1u << lane, FaultKind.Misaligned, $"{w.Launch.Program.DescribeShared(offset)} is not a multiple of {alignment}");
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool AreContiguous(uint* offsets, uint step)
    {
        Vector512<uint> index = Vector512.Create(0u, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) * step + Vector512.Create(offsets[0]);
        return ((Vector512.Load(offsets) ^ index) | (Vector512.Load(offsets + 16) ^ (index + Vector512.Create(16 * step)))) == Vector512<uint>.Zero;
    }

    // ---- Bytes ever written ----------------------------------------------------------------------------------------------------------

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void MarkWritten(Warp w, uint offset, int bytes)
    {
        byte* shadow = w.Block.SharedWritten + (offset >> 3);
        *(uint*)shadow |= ((1u << bytes) - 1) << (int)(offset & 7);
    }

    // A range that begins at a multiple of 8 and whose length is one: whole bytes of the shadow.
    private static bool IsRangeWritten(Warp w, uint offset, int bytes) =>
        (bytes & 7) == 0 && !new ReadOnlySpan<byte>(w.Block.SharedWritten + (offset >> 3), bytes >> 3).ContainsAnyExcept((byte)0xFF);

    private static bool MarkRange(Warp w, uint offset, int bytes)
    {
        if ((bytes & 7) != 0) return false;
        new Span<byte>(w.Block.SharedWritten + (offset >> 3), bytes >> 3).Fill(0xFF);
        return true;
    }

    private static void CheckWritten(Warp w, Instruction* i, uint mask, uint* offsets, int bytes)
    {
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            CheckWritten(w, i, lane, offsets[lane], bytes);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void CheckWritten(Warp w, Instruction* i, int lane, uint offset, int bytes)
    {
        uint written = *(uint*)(w.Block.SharedWritten + (offset >> 3)) >> (int)(offset & 7);
        uint unwritten = ~written & ((1u << bytes) - 1) & i->UsedBytes;
        if (unwritten != 0)
            w.Launch.Report(w, i, 1u << lane, FaultKind.Uninitialised,
                $"read of {w.Launch.Program.DescribeShared(offset + (uint)BitOperations.TrailingZeroCount(unwritten))}, which was never written in this block");
    }

    // ---- Banks -----------------------------------------------------------------------------------------------------------------------

    /// <summary>
    /// Passes over the 32 banks: lanes conflict when they want different words of one bank. Accesses of 8 bytes go by half warps, of 16 by
    /// quarter warps.
    /// </summary>
    [SkipLocalsInit]
    public static void CountBanks(ref InstructionCounter counter, uint* offsets, uint mask, int bytes, bool isContiguous = false)
    {
        counter.Requests++;
        counter.Bytes += (long)bytes * BitOperations.PopCount(mask);
        if (isContiguous)
        {
            counter.Wavefronts += Math.Max(1, bytes / 4);
            return;
        }
        int group = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8, words = Math.Max(1, bytes / 4);
        uint* wanted = stackalloc uint[32 * 32];
        byte* counts = stackalloc byte[32];
        for (int start = 0; start < 32; start += group)
        {
            uint part = mask >> start & (group == 32 ? uint.MaxValue : (1u << group) - 1);
            if (part == 0) continue;
            new Span<byte>(counts, 32).Clear();
            int most = 1;
            for (; part != 0; part &= part - 1)
            {
                uint word = offsets[start + BitOperations.TrailingZeroCount(part)] >> 2;
                for (int k = 0; k < words; k++, word++)
                {
                    int bank = (int)(word & 31), n = counts[bank], j = 0;
                    uint* list = wanted + bank * 32;
                    while (j < n && list[j] != word) j++;
                    if (j < n) continue;
                    list[n] = word;
                    counts[bank] = (byte)(n + 1);
                    most = Math.Max(most, n + 1);
                }
            }
            counter.Wavefronts += most;
        }
    }
}
