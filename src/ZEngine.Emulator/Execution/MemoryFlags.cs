using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using ZEngine.Emulator.Checks;

namespace ZEngine.Emulator.Execution;

/// <summary>
/// What loads and stores share. X[0..3] are the elements' registers, X[4] the address register or -1, Immediate the offset; Size is the
/// bytes of an element, Count their number.
/// </summary>
internal static unsafe class MemoryFlags
{
    /// <summary>The address register has 64 bits.</summary>
    public const int WideAddress = 1;
    /// <summary>The value is sign-extended.</summary>
    public const int Signed = 2;
    /// <summary>The register has 64 bits though the element has fewer.</summary>
    public const int WideRegister = 4;
    /// <summary>The register has 16 bits.</summary>
    public const int NarrowRegister = 8;
    /// <summary>A load through the read-only path.</summary>
    public const int ReadOnly = 16;
    /// <summary>A volatile, relaxed, acquiring or releasing access.</summary>
    public const int Strong = 32;
    public const int Release = 64;
    /// <summary>An access whose strength is that of an atomic.</summary>
    public const int AtomicStrength = 128;
    /// <summary>A strong load in a loop that does nothing but wait for it: a flag, and no data.</summary>
    public const int Spin = 256;

    public static AccessKind Kind(Instruction* i) =>
        (i->Flags & Strong) == 0 ? AccessKind.Plain : (i->Flags & AtomicStrength) != 0 ? AccessKind.Atomic : AccessKind.Volatile;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ulong Address(byte* registers, Instruction* i, int lane)
    {
        int slot = i->X[4];
        if (slot < 0) return (ulong)i->Immediate;
        return (i->Flags & WideAddress) != 0
            ? ((ulong*)(registers + slot))[lane] + (ulong)i->Immediate
            : ((uint*)(registers + slot))[lane] + (ulong)i->Immediate;
    }

    /// <summary>Whether the 32 lanes' addresses follow each other at a distance.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool AreContiguous(ulong* lanes, ulong step)
    {
        Vector512<ulong> first = Vector512.Create(lanes[0]), index = Vector512.Create(0ul, 1, 2, 3, 4, 5, 6, 7) * step, eight = Vector512.Create(8 * step);
        Vector512<ulong> expected = first + index;
        Vector512<ulong> difference = Vector512.Load(lanes) ^ expected;
        expected += eight;
        difference |= Vector512.Load(lanes + 8) ^ expected;
        expected += eight;
        difference |= Vector512.Load(lanes + 16) ^ expected;
        expected += eight;
        difference |= Vector512.Load(lanes + 24) ^ expected;
        return difference == Vector512<ulong>.Zero;
    }

    /// <summary>Puts the element of a lane into its register, extended as the instruction says.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreElement(byte* register, int lane, byte* from, Instruction* i)
    {
        int flags = i->Flags;
        if (i->Size == 4 && (flags & WideRegister) == 0)
        {
            ((uint*)register)[lane] = Unsafe.ReadUnaligned<uint>(from);
            return;
        }
        if (i->Size == 8)
        {
            ((ulong*)register)[lane] = Unsafe.ReadUnaligned<ulong>(from);
            return;
        }
        ulong value = (i->Size, (flags & Signed) != 0) switch
        {
            (1, false) => *from, (1, true) => (ulong)*(sbyte*)from,
            (2, false) => Unsafe.ReadUnaligned<ushort>(from), (2, true) => (ulong)Unsafe.ReadUnaligned<short>(from),
            (_, false) => Unsafe.ReadUnaligned<uint>(from), _ => (ulong)Unsafe.ReadUnaligned<int>(from),
        };
        if ((flags & WideRegister) != 0) ((ulong*)register)[lane] = value;
        else ((uint*)register)[lane] = (flags & NarrowRegister) != 0 ? (ushort)value : (uint)value;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void LoadElement(byte* to, byte* register, int lane, Instruction* i)
    {
        bool isWide = i->Size == 8 || (i->Flags & WideRegister) != 0;
        ulong value = isWide ? ((ulong*)register)[lane] : ((uint*)register)[lane];
        switch (i->Size)
        {
            case 4: Unsafe.WriteUnaligned(to, (uint)value); break;
            case 8: Unsafe.WriteUnaligned(to, value); break;
            case 2: Unsafe.WriteUnaligned(to, (ushort)value); break;
            default: *to = (byte)value; break;
        }
    }

    /// <summary>All lanes' elements from memory that begins at <paramref name="from"/>, one lane after the other.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void LoadContiguous(byte* registers, Instruction* i, byte* from)
    {
        int size = i->Size, count = i->Count;
        if (size == 4 && count == 1 && (i->Flags & WideRegister) == 0)
        {
            Unsafe.CopyBlockUnaligned(registers + i->X[0], from, 128);
        }
        else if (size == 8 && count == 1)
        {
            Unsafe.CopyBlockUnaligned(registers + i->X[0], from, 256);
        }
        else if (size == 2 && count == 1 && (i->Flags & (Signed | WideRegister)) == 0)
        {
            (Vector512<uint> low, Vector512<uint> high) = Vector512.Widen(Vector512.Load((ushort*)from));
            Vector512.Store(low, (uint*)(registers + i->X[0]));
            Vector512.Store(high, (uint*)(registers + i->X[0] + 64));
        }
        else if (size == 4 && count == 4 && (i->Flags & WideRegister) == 0)
        {
            byte* d0 = registers + i->X[0], d1 = registers + i->X[1], d2 = registers + i->X[2], d3 = registers + i->X[3];
            for (int lane = 0; lane < 32; lane += 4, from += 64)
            {
                Vector128<uint> a = Vector128.Load((uint*)from), b = Vector128.Load((uint*)from + 4), c = Vector128.Load((uint*)from + 8), d = Vector128.Load((uint*)from + 12);
                Transpose(ref a, ref b, ref c, ref d);
                Vector128.Store(a, (uint*)d0 + lane);
                Vector128.Store(b, (uint*)d1 + lane);
                Vector128.Store(c, (uint*)d2 + lane);
                Vector128.Store(d, (uint*)d3 + lane);
            }
        }
        else
        {
            for (int lane = 0; lane < 32; lane++, from += size * count)
                for (int e = 0; e < count; e++)
                    if (i->X[e] >= 0) StoreElement(registers + i->X[e], lane, from + e * size, i);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreContiguous(byte* registers, Instruction* i, byte* to)
    {
        int size = i->Size, count = i->Count;
        if (size == 4 && count == 1 && (i->Flags & WideRegister) == 0)
        {
            Unsafe.CopyBlockUnaligned(to, registers + i->X[0], 128);
        }
        else if (size == 8 && count == 1)
        {
            Unsafe.CopyBlockUnaligned(to, registers + i->X[0], 256);
        }
        else if (size == 2 && count == 1 && (i->Flags & WideRegister) == 0)
        {
            byte* r = registers + i->X[0];
            Vector512.Store(Vector512.Narrow(Vector512.Load((uint*)r), Vector512.Load((uint*)(r + 64))), (ushort*)to);
        }
        else if (size == 4 && count == 4 && (i->Flags & WideRegister) == 0)
        {
            byte* r0 = registers + i->X[0], r1 = registers + i->X[1], r2 = registers + i->X[2], r3 = registers + i->X[3];
            for (int lane = 0; lane < 32; lane += 4, to += 64)
            {
                Vector128<uint> a = Vector128.Load((uint*)r0 + lane), b = Vector128.Load((uint*)r1 + lane), c = Vector128.Load((uint*)r2 + lane), d = Vector128.Load((uint*)r3 + lane);
                Transpose(ref a, ref b, ref c, ref d);
                Vector128.Store(a, (uint*)to);
                Vector128.Store(b, (uint*)to + 4);
                Vector128.Store(c, (uint*)to + 8);
                Vector128.Store(d, (uint*)to + 12);
            }
        }
        else
        {
            for (int lane = 0; lane < 32; lane++, to += size * count)
                for (int e = 0; e < count; e++) LoadElement(to + e * size, registers + i->X[e], lane, i);
        }
    }

    // Rows of four lanes become columns: four registers of one lane each, and back.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose(ref Vector128<uint> a, ref Vector128<uint> b, ref Vector128<uint> c, ref Vector128<uint> d)
    {
        Vector128<uint> ab0 = UnpackLow(a, b), ab1 = UnpackHigh(a, b), cd0 = UnpackLow(c, d), cd1 = UnpackHigh(c, d);
        a = UnpackLow(ab0.AsUInt64(), cd0.AsUInt64()).AsUInt32();
        b = UnpackHigh(ab0.AsUInt64(), cd0.AsUInt64()).AsUInt32();
        c = UnpackLow(ab1.AsUInt64(), cd1.AsUInt64()).AsUInt32();
        d = UnpackHigh(ab1.AsUInt64(), cd1.AsUInt64()).AsUInt32();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<uint> UnpackLow(Vector128<uint> a, Vector128<uint> b) =>
        System.Runtime.Intrinsics.X86.Sse2.IsSupported ? System.Runtime.Intrinsics.X86.Sse2.UnpackLow(a, b)
        : Vector128.Create(a[0], b[0], a[1], b[1]);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<uint> UnpackHigh(Vector128<uint> a, Vector128<uint> b) =>
        System.Runtime.Intrinsics.X86.Sse2.IsSupported ? System.Runtime.Intrinsics.X86.Sse2.UnpackHigh(a, b)
        : Vector128.Create(a[2], b[2], a[3], b[3]);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<ulong> UnpackLow(Vector128<ulong> a, Vector128<ulong> b) => Vector128.Create(a.GetLower(), b.GetLower());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<ulong> UnpackHigh(Vector128<ulong> a, Vector128<ulong> b) => Vector128.Create(a.GetUpper(), b.GetUpper());
}
