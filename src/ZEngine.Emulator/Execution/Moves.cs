using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine.Emulator.Execution;

internal struct NegAsFloat : IUnary<float> { public static Vector512<float> Invoke(Vector512<float> a) => NegF32.Invoke(a.AsUInt32()).AsSingle(); }

internal struct AbsAsFloat : IUnary<float> { public static Vector512<float> Invoke(Vector512<float> a) => AbsF32.Invoke(a.AsUInt32()).AsSingle(); }

/// <summary>Selection, packing, and logic on predicates.</summary>
internal static unsafe class Moves
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Select32(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers, a = r + i->X[4], b = r + i->X[5], d = r + i->X[0];
        uint p = *(uint*)(r + i->X[6]);
        for (int k = 0; k < 2; k++)
        {
            Vector512<uint> value = Vector512.ConditionalSelect(LaneOps.Mask32(p, k), Vector512.Load((uint*)(a + 64 * k)), Vector512.Load((uint*)(b + 64 * k)));
            if (mask == uint.MaxValue) Vector512.Store(value, (uint*)(d + 64 * k));
            else LaneOps.Blend(d, k, value, mask);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Select64(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers, a = r + i->X[4], b = r + i->X[5], d = r + i->X[0];
        uint p = *(uint*)(r + i->X[6]);
        for (int k = 0; k < 4; k++)
        {
            Vector512<ulong> value = Vector512.ConditionalSelect(LaneOps.Mask64(p, k), Vector512.Load((ulong*)(a + 64 * k)), Vector512.Load((ulong*)(b + 64 * k)));
            LaneOps.Blend(d, k, value, mask);
        }
    }

    public static void Predicate(Warp w, Instruction* i, uint mask) =>
        LaneOps.StorePredicate(w, i->X[0], mask, i->X[4] >= 0 ? *(uint*)(w.Registers + i->X[4]) : (uint)i->Immediate);

    public static void PredicateAnd(Warp w, Instruction* i, uint mask) =>
        LaneOps.StorePredicate(w, i->X[0], mask, *(uint*)(w.Registers + i->X[4]) & *(uint*)(w.Registers + i->X[5]));

    public static void PredicateOr(Warp w, Instruction* i, uint mask) =>
        LaneOps.StorePredicate(w, i->X[0], mask, *(uint*)(w.Registers + i->X[4]) | *(uint*)(w.Registers + i->X[5]));

    public static void PredicateXor(Warp w, Instruction* i, uint mask) =>
        LaneOps.StorePredicate(w, i->X[0], mask, *(uint*)(w.Registers + i->X[4]) ^ *(uint*)(w.Registers + i->X[5]));

    public static void PredicateNot(Warp w, Instruction* i, uint mask) =>
        LaneOps.StorePredicate(w, i->X[0], mask, ~*(uint*)(w.Registers + i->X[4]));

    /// <summary>mov {a, b}, x: Count parts of Size bytes, the lowest first; Flags 1 when x has 64 bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Unpack(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers, a = r + i->X[4];
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong value = i->Flags == 1 ? ((ulong*)a)[lane] : ((uint*)a)[lane];
            for (int k = 0; k < i->Count; k++)
            {
                if (i->X[k] >= 0) ((uint*)(r + i->X[k]))[lane] = i->Size == 4 ? (uint)value : i->Size == 2 ? (ushort)value : (byte)value;
                value >>= 8 * i->Size;
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Pack(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers, d = r + i->X[0];
        ulong part = (1ul << (8 * i->Size)) - 1;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong value = 0;
            for (int k = i->Count - 1; k >= 0; k--) value = value << (8 * i->Size) | ((uint*)(r + i->X[4 + k]))[lane] & part;
            if (i->Flags == 1) ((ulong*)d)[lane] = value;
            else ((uint*)d)[lane] = (uint)value;
        }
    }

    /// <summary>lop3: any function of three inputs; Immediate holds its truth table.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Lop3(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers, d = r + i->X[0];
        for (int k = 0; k < 2; k++)
        {
            Vector512<uint> a = Vector512.Load((uint*)(r + i->X[4] + 64 * k)), b = Vector512.Load((uint*)(r + i->X[5] + 64 * k)), c = Vector512.Load((uint*)(r + i->X[6] + 64 * k));
            Vector512<uint> result = Vector512<uint>.Zero;
            for (int row = 0; row < 8; row++)
                if ((i->Immediate >> row & 1) != 0) result |= ((row & 4) != 0 ? a : ~a) & ((row & 2) != 0 ? b : ~b) & ((row & 1) != 0 ? c : ~c);
            LaneOps.Blend(d, k, result, mask);
        }
    }

    /// <summary>bfi: X[4] the field, X[5] what it goes into, X[6] position, X[7] length; Size 4 or 8.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void BitFieldInsert(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            uint position = ((uint*)(r + i->X[6]))[lane], length = ((uint*)(r + i->X[7]))[lane];
            if (i->Size == 8) ((ulong*)(r + i->X[0]))[lane] = BitFields.Insert(((ulong*)(r + i->X[4]))[lane], ((ulong*)(r + i->X[5]))[lane], position, length, 64);
            else ((uint*)(r + i->X[0]))[lane] = (uint)BitFields.Insert(((uint*)(r + i->X[4]))[lane], ((uint*)(r + i->X[5]))[lane], position, length, 32);
        }
    }
}
