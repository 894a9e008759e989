using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine.Emulator.Execution;

/// <summary>Instructions in which the lanes of a warp see each other. The run loop has gathered the lanes of the member mask.</summary>
internal static unsafe class WarpOps
{
    public const int ShuffleUp = 0, ShuffleDown = 1, ShuffleXor = 2, ShuffleIndex = 3;

    /// <summary>shfl.sync: X[0] result, X[1] predicate or -1, X[4] value, X[5] lane, X[6] clamp and segment mask; Flags the mode.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization), SkipLocalsInit]
    public static void Shuffle(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers;
        uint* source = stackalloc uint[32];
        Unsafe.CopyBlock(source, r + i->X[4], 128);
        uint* b = (uint*)(r + i->X[5]), c = (uint*)(r + i->X[6]), d = (uint*)(r + i->X[0]);
        uint predicate = 0;
        int mode = i->Flags;
        if (mask == uint.MaxValue && mode == ShuffleXor && IsUniform(b, out uint distance) && IsUniform(c, out uint full) && full == 31 && distance < 32)
        {
            // The butterfly of a whole warp, by far the most frequent: nothing can go wrong.
            for (int lane = 0; lane < 32; lane++) d[lane] = source[lane ^ (int)distance];
            if (i->X[1] >= 0) *(uint*)(r + i->X[1]) = uint.MaxValue;
            return;
        }
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            int offset = (int)(b[lane] & 31), clamp = (int)(c[lane] & 31), segment = (int)(c[lane] >> 8 & 31);
            int highest = lane & segment | clamp & ~segment, lowest = lane & segment;
            int from = mode switch { ShuffleUp => lane - offset, ShuffleDown => lane + offset, ShuffleXor => lane ^ offset, _ => lowest | offset & ~segment };
            bool isInside = mode == ShuffleUp ? from >= highest : from <= highest;
            if (isInside) predicate |= 1u << lane;
            else from = lane;
            if ((mask >> from & 1) == 0)
            {
                string why = (w.Live >> from & 1) == 0 ? "has exited" : "does not take part";
                w.Launch.Report(w, i, 1u << lane, FaultKind.ShuffleSource, $"lane {lane} reads lane {from}, which {why} (participants 0x{mask:x8})");
            }
            d[lane] = source[from];
        }
        if (i->X[1] >= 0) LaneOps.StorePredicate(w, i->X[1], mask, predicate);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool IsUniform(uint* register, out uint value)
    {
        value = register[0];
        Vector512<uint> all = Vector512.Create(value);
        return ((Vector512.Load(register) ^ all) | (Vector512.Load(register + 16) ^ all)) == Vector512<uint>.Zero;
    }

    public const int VoteAll = 0, VoteAny = 1, VoteUniform = 2, VoteBallot = 3, Negated = 16;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Vote(Warp w, Instruction* i, uint mask)
    {
        uint p = *(uint*)(w.Registers + i->X[4]);
        if ((i->Flags & Negated) != 0) p = ~p;
        p &= mask;
        switch (i->Flags & 3)
        {
            case VoteBallot: Broadcast(w, i->X[0], mask, p); break;
            case VoteAll: LaneOps.StorePredicate(w, i->X[0], mask, p == mask ? uint.MaxValue : 0); break;
            case VoteAny: LaneOps.StorePredicate(w, i->X[0], mask, p != 0 ? uint.MaxValue : 0); break;
            default: LaneOps.StorePredicate(w, i->X[0], mask, p == 0 || p == mask ? uint.MaxValue : 0); break;
        }
    }

    private static void Broadcast(Warp w, int slot, uint mask, uint value)
    {
        var d = (uint*)(w.Registers + slot);
        for (uint rest = mask; rest != 0; rest &= rest - 1) d[BitOperations.TrailingZeroCount(rest)] = value;
    }

    /// <summary>match: Flags 1 for .all, whose predicate is X[1]; Size 4 or 8.</summary>
    public static void Match(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4];
        var d = (uint*)(w.Registers + i->X[0]);
        ulong Value(int lane) => i->Size == 8 ? ((ulong*)a)[lane] : ((uint*)a)[lane];
        uint* result = stackalloc uint[32];
        bool allEqual = true;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            uint same = 0;
            for (uint others = mask; others != 0; others &= others - 1)
            {
                int other = BitOperations.TrailingZeroCount(others);
                if (Value(other) == Value(lane)) same |= 1u << other;
            }
            result[lane] = same;
            allEqual &= same == mask;
        }
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            d[lane] = i->Flags == 1 ? allEqual ? mask : 0 : result[lane];
        }
        if (i->X[1] >= 0) LaneOps.StorePredicate(w, i->X[1], mask, allEqual ? uint.MaxValue : 0);
    }

    public const int ReduceAdd = 0, ReduceMinU = 1, ReduceMaxU = 2, ReduceMinS = 3, ReduceMaxS = 4, ReduceAnd = 5, ReduceOr = 6, ReduceXor = 7;

    public static void Reduce(Warp w, Instruction* i, uint mask)
    {
        var a = (uint*)(w.Registers + i->X[4]);
        uint result = a[BitOperations.TrailingZeroCount(mask)];
        for (uint rest = mask & (mask - 1); rest != 0; rest &= rest - 1)
        {
            uint x = a[BitOperations.TrailingZeroCount(rest)];
            result = i->Flags switch
            {
                ReduceAdd => result + x, ReduceMinU => Math.Min(result, x), ReduceMaxU => Math.Max(result, x),
                ReduceMinS => (uint)Math.Min((int)result, (int)x), ReduceMaxS => (uint)Math.Max((int)result, (int)x),
                ReduceAnd => result & x, ReduceOr => result | x, _ => result ^ x,
            };
        }
        Broadcast(w, i->X[0], mask, result);
    }

    public static void WarpBarrier(Warp w, Instruction* i, uint mask)
    {
        if (w.ChecksSharedRaces || w.ChecksGlobalRaces) w.Block.Clocks.MeetLanes(w.Index, mask);
    }

    /// <summary>activemask: the lanes that happen to be together, which is all that it promises.</summary>
    public static void ActiveMask(Warp w, Instruction* i, uint mask) => Broadcast(w, i->X[0], mask, mask);

    /// <summary>membar and fence: Flags 1 when other blocks are to see it.</summary>
    public static void Fence(Warp w, Instruction* i, uint mask)
    {
        if (!w.ChecksSharedRaces && !w.ChecksGlobalRaces) return;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int thread = w.Index * 32 + BitOperations.TrailingZeroCount(rest);
            w.Block.Clocks.Fence(thread);
            if (i->Flags == 1) w.Launch.GlobalRaces?.Fence(w.Block, thread);
        }
    }

    /// <summary>Virtual time: the instructions executed, so that runs repeat. Size 4 or 8; Flags 1 for the upper half.</summary>
    public static void ReadClock(Warp w, Instruction* i, uint mask)
    {
        ulong time = w.Launch.Clock;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            if (i->Size == 8) ((ulong*)(w.Registers + i->X[0]))[lane] = time;
            else ((uint*)(w.Registers + i->X[0]))[lane] = (uint)(i->Flags == 1 ? time >> 32 : time);
        }
    }

    public static void Trap(Warp w, Instruction* i, uint mask) => throw w.Launch.Abort(w, i, mask, FaultKind.Trap, "the kernel executed trap");

    public static void Nothing(Warp w, Instruction* i, uint mask) { }
}
