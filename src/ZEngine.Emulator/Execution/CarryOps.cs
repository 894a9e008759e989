using System.Numerics;
using System.Runtime.CompilerServices;

namespace ZEngine.Emulator.Execution;

/// <summary>
/// Extended-precision arithmetic: add, sub and mad that write or read the carry of each lane, which is a mask at X[7]. After a subtraction
/// the carry is a borrow. Size is 4 or 8 bytes.
/// </summary>
internal static unsafe class CarryOps
{
    public const int Add = 0, Subtract = 1, MadLow = 2, MadHigh = 3, ReadsCarry = 16, WritesCarry = 32, Signed = 64;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers;
        var carry = (uint*)(r + i->X[7]);
        uint carried = 0;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong a = Read(r, i, 4, lane), b = Read(r, i, 5, lane), c = i->X[6] < 0 ? 0 : Read(r, i, 6, lane);
            UInt128 carryIn = (i->Flags & ReadsCarry) != 0 ? *carry >> lane & 1 : 0;
            int width = 8 * i->Size;
            UInt128 sum = (i->Flags & 15) switch
            {
                Add => (UInt128)a + b + carryIn,
                Subtract => (UInt128)a - b - carryIn,
                _ => Product(i, a, b, width) + c + carryIn,
            };
            if ((sum >> width & 1) != 0) carried |= 1u << lane;
            if (i->Size == 8) ((ulong*)(r + i->X[0]))[lane] = (ulong)sum;
            else ((uint*)(r + i->X[0]))[lane] = (uint)sum;
        }
        if ((i->Flags & WritesCarry) != 0) *carry = *carry & ~mask | carried;
    }

    private static ulong Read(byte* r, Instruction* i, int k, int lane) => i->Size == 8 ? ((ulong*)(r + i->X[k]))[lane] : ((uint*)(r + i->X[k]))[lane];

    private static UInt128 Product(Instruction* i, ulong a, ulong b, int width)
    {
        Int128 x = (i->Flags & Signed) == 0 ? a : width == 64 ? (long)a : (int)a, y = (i->Flags & Signed) == 0 ? b : width == 64 ? (long)b : (int)b;
        UInt128 product = (UInt128)x * (UInt128)y;
        UInt128 mask = ((UInt128)1 << width) - 1;
        return (i->Flags & 15) == MadHigh ? product >> width & mask : product & mask;
    }
}
