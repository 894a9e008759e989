using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine.Emulator.Execution;

internal interface IUnary<T> { static abstract Vector512<T> Invoke(Vector512<T> a); }

internal interface IBinary<T> { static abstract Vector512<T> Invoke(Vector512<T> a, Vector512<T> b); }

internal interface ITernary<T> { static abstract Vector512<T> Invoke(Vector512<T> a, Vector512<T> b, Vector512<T> c); }

/// <summary>A comparison; all bits set where it holds.</summary>
internal interface ICompare<T> { static abstract Vector512<T> Invoke(Vector512<T> a, Vector512<T> b); }

internal interface IScalar<TA, TD> { static abstract TD Invoke(TA a); }

internal interface IScalar<TA, TB, TD> { static abstract TD Invoke(TA a, TB b); }

internal interface IScalar<TA, TB, TC, TD> { static abstract TD Invoke(TA a, TB b, TC c); }

/// <summary>
/// Runs an operation over the 32 lanes of a warp. A 32-bit register is 128 bytes, a 64-bit one 256; 16-bit values sit in 32-bit lanes with
/// the upper half zero. On machines without 512-bit vectors the runtime splits each into two halves, with the same bits as result.
/// </summary>
/// <remarks>AggressiveOptimization, because handlers are reached through function pointers, where tiering would leave them unoptimised.</remarks>
internal static unsafe class LaneOps
{
    private static Vector512<uint> Bits16 => Vector512.Create(1u, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768);

    private static Vector512<ulong> Bits8 => Vector512.Create(1ul, 2, 4, 8, 16, 32, 64, 128);

    /// <summary>Lanes 16k..16k+15 of a mask as a vector of 32-bit elements.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<uint> Mask32(uint mask, int k) => Vector512.Equals(Vector512.Create(mask >> (16 * k)) & Bits16, Bits16);

    /// <summary>Lanes 8k..8k+7 of a mask as a vector of 64-bit elements.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<ulong> Mask64(uint mask, int k) => Vector512.Equals(Vector512.Create((ulong)(mask >> (8 * k))) & Bits8, Bits8);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Blend<T>(byte* destination, int k, Vector512<T> value, uint mask) where T : unmanaged
    {
        Vector512<byte> select = sizeof(T) == 8 ? Mask64(mask, k).AsByte() : Mask32(mask, k).AsByte();
        var old = Vector512.Load(destination + 64 * k);
        Vector512.Store(Vector512.ConditionalSelect(select, value.AsByte(), old), destination + 64 * k);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Unary<TOp, T>(Warp w, Instruction* i, uint mask) where TOp : struct, IUnary<T> where T : unmanaged
    {
        byte* r = w.Registers, a = r + i->X[4], d = r + i->X[0];
        for (int k = 0; k < sizeof(T) / 2; k++) Vector512.Store(TOp.Invoke(Vector512.Load((T*)(a + 64 * k))), (T*)(d + 64 * k));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void UnaryPartial<TOp, T>(Warp w, Instruction* i, uint mask) where TOp : struct, IUnary<T> where T : unmanaged
    {
        byte* r = w.Registers, a = r + i->X[4], d = r + i->X[0];
        for (int k = 0; k < sizeof(T) / 2; k++) Blend(d, k, TOp.Invoke(Vector512.Load((T*)(a + 64 * k))), mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Binary<TOp, T>(Warp w, Instruction* i, uint mask) where TOp : struct, IBinary<T> where T : unmanaged
    {
        byte* r = w.Registers, a = r + i->X[4], b = r + i->X[5], d = r + i->X[0];
        for (int k = 0; k < sizeof(T) / 2; k++)
            Vector512.Store(TOp.Invoke(Vector512.Load((T*)(a + 64 * k)), Vector512.Load((T*)(b + 64 * k))), (T*)(d + 64 * k));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void BinaryPartial<TOp, T>(Warp w, Instruction* i, uint mask) where TOp : struct, IBinary<T> where T : unmanaged
    {
        byte* r = w.Registers, a = r + i->X[4], b = r + i->X[5], d = r + i->X[0];
        for (int k = 0; k < sizeof(T) / 2; k++)
            Blend(d, k, TOp.Invoke(Vector512.Load((T*)(a + 64 * k)), Vector512.Load((T*)(b + 64 * k))), mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Ternary<TOp, T>(Warp w, Instruction* i, uint mask) where TOp : struct, ITernary<T> where T : unmanaged
    {
        byte* r = w.Registers, a = r + i->X[4], b = r + i->X[5], c = r + i->X[6], d = r + i->X[0];
        for (int k = 0; k < sizeof(T) / 2; k++)
            Vector512.Store(TOp.Invoke(Vector512.Load((T*)(a + 64 * k)), Vector512.Load((T*)(b + 64 * k)), Vector512.Load((T*)(c + 64 * k))), (T*)(d + 64 * k));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void TernaryPartial<TOp, T>(Warp w, Instruction* i, uint mask) where TOp : struct, ITernary<T> where T : unmanaged
    {
        byte* r = w.Registers, a = r + i->X[4], b = r + i->X[5], c = r + i->X[6], d = r + i->X[0];
        for (int k = 0; k < sizeof(T) / 2; k++)
            Blend(d, k, TOp.Invoke(Vector512.Load((T*)(a + 64 * k)), Vector512.Load((T*)(b + 64 * k)), Vector512.Load((T*)(c + 64 * k))), mask);
    }

    /// <summary>The lanes for which a comparison of registers <paramref name="a"/> and <paramref name="b"/> holds.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint Compare<TOp, T>(byte* a, byte* b) where TOp : struct, ICompare<T> where T : unmanaged
    {
        uint result = 0;
        for (int k = 0; k < sizeof(T) / 2; k++)
        {
            ulong bits = TOp.Invoke(Vector512.Load((T*)(a + 64 * k)), Vector512.Load((T*)(b + 64 * k))).ExtractMostSignificantBits();
            result |= (uint)bits << (k * 64 / sizeof(T));
        }
        return result;
    }

    /// <summary>setp: destination 0 takes the comparison, destination 1 its complement; Flags combine it with the predicate X[6].</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void SetPredicate<TOp, T>(Warp w, Instruction* i, uint mask) where TOp : struct, ICompare<T> where T : unmanaged
    {
        uint result = Compare<TOp, T>(w.Registers + i->X[4], w.Registers + i->X[5]);
        StorePredicates(w, i, mask, result);
    }

    /// <summary>setp of a type that has no vector form.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void SetPredicateScalar<TOp, T>(Warp w, Instruction* i, uint mask) where TOp : struct, IScalar<T, T, bool> where T : unmanaged
    {
        byte* a = w.Registers + i->X[4], b = w.Registers + i->X[5];
        uint result = 0;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            if (TOp.Invoke(Read<T>(a, lane), Read<T>(b, lane))) result |= 1u << lane;
        }
        StorePredicates(w, i, mask, result);
    }

    public const int CombineAnd = 1, CombineOr = 2, CombineXor = 3, CombineNegated = 4;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StorePredicates(Warp w, Instruction* i, uint mask, uint result)
    {
        uint inverse = ~result;
        if (i->Flags != 0)
        {
            uint c = *(uint*)(w.Registers + i->X[6]);
            if ((i->Flags & CombineNegated) != 0) c = ~c;
            (result, inverse) = (i->Flags & 3) switch
            {
                CombineAnd => (result & c, inverse & c),
                CombineOr => (result | c, inverse | c),
                _ => (result ^ c, inverse ^ c),
            };
        }
        if (i->X[0] >= 0) StorePredicate(w, i->X[0], mask, result);
        if (i->X[1] >= 0) StorePredicate(w, i->X[1], mask, inverse);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StorePredicate(Warp w, int slot, uint mask, uint value)
    {
        var p = (uint*)(w.Registers + slot);
        *p = *p & ~mask | value & mask;
    }

    /// <summary>One lane of a register. 8- and 16-bit types are the low part of a 32-bit lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Read<T>(byte* register, int lane) where T : unmanaged =>
        sizeof(T) == 8 ? ((T*)register)[lane] : *(T*)(register + 4 * lane);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Write<T>(byte* register, int lane, T value) where T : unmanaged
    {
        if (sizeof(T) == 8) ((T*)register)[lane] = value;
        else if (sizeof(T) == 4) *(T*)(register + 4 * lane) = value;
        else *(uint*)(register + 4 * lane) = sizeof(T) == 2 ? *(ushort*)&value : *(byte*)&value;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Scalar<TOp, TA, TD>(Warp w, Instruction* i, uint mask)
        where TOp : struct, IScalar<TA, TD> where TA : unmanaged where TD : unmanaged
    {
        byte* a = w.Registers + i->X[4], d = w.Registers + i->X[0];
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            Write(d, lane, TOp.Invoke(Read<TA>(a, lane)));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Scalar<TOp, TA, TB, TD>(Warp w, Instruction* i, uint mask)
        where TOp : struct, IScalar<TA, TB, TD> where TA : unmanaged where TB : unmanaged where TD : unmanaged
    {
        byte* a = w.Registers + i->X[4], b = w.Registers + i->X[5], d = w.Registers + i->X[0];
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            Write(d, lane, TOp.Invoke(Read<TA>(a, lane), Read<TB>(b, lane)));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Scalar<TOp, TA, TB, TC, TD>(Warp w, Instruction* i, uint mask)
        where TOp : struct, IScalar<TA, TB, TC, TD> where TA : unmanaged where TB : unmanaged where TC : unmanaged where TD : unmanaged
    {
        byte* a = w.Registers + i->X[4], b = w.Registers + i->X[5], c = w.Registers + i->X[6], d = w.Registers + i->X[0];
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            Write(d, lane, TOp.Invoke(Read<TA>(a, lane), Read<TB>(b, lane), Read<TC>(c, lane)));
        }
    }
}
