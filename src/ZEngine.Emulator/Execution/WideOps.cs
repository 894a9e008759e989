using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ZEngine.Emulator.Execution;

/// <summary>Operations on 64-bit lanes whose other operand has 32 bits.</summary>
internal static unsafe class WideOps
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void ShiftLeft(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4], b = w.Registers + i->X[5], d = w.Registers + i->X[0];
        for (int k = 0; k < 4; k++) Store(d, k, Left(Vector512.Load((ulong*)(a + 64 * k)), Amounts(b, k)), mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void ShiftRight(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4], b = w.Registers + i->X[5], d = w.Registers + i->X[0];
        for (int k = 0; k < 4; k++) Store(d, k, Right(Vector512.Load((ulong*)(a + 64 * k)), Amounts(b, k)), mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void MultiplyS32(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4], b = w.Registers + i->X[5], d = w.Registers + i->X[0];
        for (int k = 0; k < 4; k++)
        {
            Vector512<long> x = Avx512F.IsSupported ? Avx512F.ConvertToVector512Int64(Vector256.Load((int*)(a + 32 * k))) : Wide(Vector256.Load((int*)(a + 32 * k)));
            Vector512<long> y = Avx512F.IsSupported ? Avx512F.ConvertToVector512Int64(Vector256.Load((int*)(b + 32 * k))) : Wide(Vector256.Load((int*)(b + 32 * k)));
            Vector512<long> product = Avx512F.IsSupported ? Avx512F.Multiply(x.AsInt32(), y.AsInt32())
                : Avx2.IsSupported ? Vector512.Create(Avx2.Multiply(x.GetLower().AsInt32(), y.GetLower().AsInt32()), Avx2.Multiply(x.GetUpper().AsInt32(), y.GetUpper().AsInt32()))
                : x * y;
            Store(d, k, product.AsUInt64(), mask);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void MultiplyU32(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4], b = w.Registers + i->X[5], d = w.Registers + i->X[0];
        for (int k = 0; k < 4; k++)
        {
            Vector512<ulong> x = Amounts(a, k), y = Amounts(b, k);
            Vector512<ulong> product = Avx512F.IsSupported ? Avx512F.Multiply(x.AsUInt32(), y.AsUInt32())
                : Avx2.IsSupported ? Vector512.Create(Avx2.Multiply(x.GetLower().AsUInt32(), y.GetLower().AsUInt32()), Avx2.Multiply(x.GetUpper().AsUInt32(), y.GetUpper().AsUInt32()))
                : x * y;
            Store(d, k, product, mask);
        }
    }

    private static Vector512<long> Wide(Vector256<int> x)
    {
        (Vector256<long> low, Vector256<long> high) = Vector256.Widen(x);
        return Vector512.Create(low, high);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<ulong> Amounts(byte* b, int k)
    {
        Vector256<uint> narrow = Vector256.Load((uint*)(b + 32 * k));
        if (Avx512F.IsSupported) return Avx512F.ConvertToVector512UInt64(narrow);
        (Vector256<ulong> low, Vector256<ulong> high) = Vector256.Widen(narrow);
        return Vector512.Create(low, high);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<ulong> Left(Vector512<ulong> x, Vector512<ulong> n)
    {
        if (Avx512F.IsSupported) return Avx512F.ShiftLeftLogicalVariable(x, n);
        if (Avx2.IsSupported) return Vector512.Create(Avx2.ShiftLeftLogicalVariable(x.GetLower(), n.GetLower()), Avx2.ShiftLeftLogicalVariable(x.GetUpper(), n.GetUpper()));
        for (int lane = 0; lane < 8; lane++) x = x.WithElement(lane, n[lane] > 63 ? 0 : x[lane] << (int)n[lane]);
        return x;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<ulong> Right(Vector512<ulong> x, Vector512<ulong> n)
    {
        if (Avx512F.IsSupported) return Avx512F.ShiftRightLogicalVariable(x, n);
        if (Avx2.IsSupported) return Vector512.Create(Avx2.ShiftRightLogicalVariable(x.GetLower(), n.GetLower()), Avx2.ShiftRightLogicalVariable(x.GetUpper(), n.GetUpper()));
        for (int lane = 0; lane < 8; lane++) x = x.WithElement(lane, n[lane] > 63 ? 0 : x[lane] >> (int)n[lane]);
        return x;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(byte* d, int k, Vector512<ulong> value, uint mask)
    {
        if (mask == uint.MaxValue) Vector512.Store(value, (ulong*)(d + 64 * k));
        else LaneOps.Blend(d, k, value, mask);
    }
}

/// <summary>mov.b32 d, {low, high} of 16-bit registers.</summary>
internal struct PackHalves : IBinary<uint>
{
    public static Vector512<uint> Invoke(Vector512<uint> low, Vector512<uint> high) => low & Vector512.Create(0xFFFFu) | high << 16;
}

internal struct F32FromU32 : IUnary<uint> { public static Vector512<uint> Invoke(Vector512<uint> a) => Vector512.ConvertToSingle(a).AsUInt32(); }

internal struct F32FromF16 : IUnary<uint>
{
    public static Vector512<uint> Invoke(Vector512<uint> a)
    {
        // Scale the half's exponent and fraction into place; the multiplication also makes subnormals right.
        Vector512<uint> magnitude = (a & Vector512.Create(0x7FFFu)) << 13;
        Vector512<float> scaled = magnitude.AsSingle() * Vector512.Create(BitConverter.UInt32BitsToSingle(0x77800000));         // 2^112
        Vector512<uint> isSpecial = Vector512.GreaterThanOrEqual(magnitude, Vector512.Create(0x7C00u << 13));
        Vector512<uint> bits = Vector512.ConditionalSelect(isSpecial, magnitude | Vector512.Create(0x7F800000u), scaled.AsUInt32());
        Vector512<uint> isNan = Vector512.GreaterThan(magnitude, Vector512.Create(0x7C00u << 13));
        return Vector512.ConditionalSelect(isNan, Vector512.Create(0x7FFFFFFFu), bits | (a & Vector512.Create(0x8000u)) << 16);
    }
}
