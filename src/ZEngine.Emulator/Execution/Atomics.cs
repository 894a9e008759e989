using System.Numerics;
using System.Runtime.CompilerServices;
using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Memory;

namespace ZEngine.Emulator.Execution;

internal enum AtomicOperation { Add, Min, Max, And, Or, Xor, Exchange, CompareExchange, Increment, Decrement }

/// <summary>
/// atom and red. Lanes of a warp act one after the other, in an order that follows from the seed. X[0] result or -1, X[4] address, X[5]
/// operand, X[6] second operand of cas. Flags hold the type besides the usual bits.
/// </summary>
internal static unsafe class Atomics
{
    public const int TypeShift = 16, OperationShift = 24, SpaceShift = 12;
    public const int TypeU32 = 0, TypeS32 = 1, TypeU64 = 2, TypeS64 = 3, TypeF32 = 4, TypeF64 = 5, TypeF16x2 = 6, TypeBf16x2 = 7, TypeF16 = 8, TypeBf16 = 9;
    public const int SpaceGlobal = 0, SpaceShared = 1, SpaceGeneric = 2;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(Warp w, Instruction* i, uint mask)
    {
        int space = i->Flags >> SpaceShift & 3;
        if (w.Profile != null)
        {
            if (space == SpaceGlobal) GlobalMemory.CountLanes(w, i, mask, i->Size);
            else w.Profile[i->Index].Requests++;
        }
        byte* order = stackalloc byte[32];
        int n = 0;
        for (uint rest = mask; rest != 0; rest &= rest - 1) order[n++] = (byte)BitOperations.TrailingZeroCount(rest);
        if (w.Launch.Policy == SchedulingPolicy.Adversarial)
            for (int k = n - 1; k > 0; k--)
            {
                int j = w.Block.Random.Below(k + 1);
                (order[k], order[j]) = (order[j], order[k]);
            }
        for (int k = 0; k < n; k++) RunLane(w, i, order[k], space);
    }

    private static void RunLane(Warp w, Instruction* i, int lane, int space)
    {
        byte* r = w.Registers;
        ulong address = MemoryFlags.Address(r, i, lane);
        int bytes = i->Size;
        bool isRelease = (i->Flags & MemoryFlags.Release) != 0;
        bool isShared = space == SpaceShared || space == SpaceGeneric && AddressWindows.IsShared(address);
        byte* at;
        if (isShared)
        {
            uint offset = (uint)address - Block.SharedBase;
            SharedMemory.Check(w, i, lane, offset, bytes, bytes);
            if (w.ChecksUninitialised) SharedMemory.CheckWritten(w, i, lane, offset, bytes);
            if (w.ChecksSharedRaces) w.Block.Shadow!.Write(w, i, lane, offset, bytes, AccessKind.Atomic, true, isRelease);
            if (w.ChecksUninitialised) SharedMemory.MarkWritten(w, offset, bytes);
            at = w.Shared + offset;
        }
        else
        {
            DeviceMemory memory = GlobalMemory.Check(w, i, lane, address, bytes);
            if (w.ChecksUninitialised)
            {
                GlobalMemory.CheckWritten(w, i, lane, memory, address, bytes);
                memory.MarkWritten(address, bytes);
            }
            w.Touches?.Atomic(address, (ulong)bytes, i->Index);
            if (w.ChecksGlobalRaces) w.Launch.GlobalRaces!.Record(w, i, lane, address, bytes, true, AccessKind.Atomic, true, isRelease);
            at = memory.Host(address);
        }
        bool isWide = bytes == 8;
        ulong b = isWide ? ((ulong*)(r + i->X[5]))[lane] : ((uint*)(r + i->X[5]))[lane];
        ulong c = i->X[6] < 0 ? 0 : isWide ? ((ulong*)(r + i->X[6]))[lane] : ((uint*)(r + i->X[6]))[lane];
        ulong old = bytes switch { 8 => Apply64(i, isShared, (ulong*)at, b, c), 4 => Apply32(i, isShared, (uint*)at, (uint)b, (uint)c), _ => Apply16(i, isShared, (ushort*)at, (ushort)b, (ushort)c) };
        if (i->X[0] < 0) return;
        if (isWide) ((ulong*)(r + i->X[0]))[lane] = old;
        else ((uint*)(r + i->X[0]))[lane] = (uint)old;
    }

    // Other workers may hit the same word, so even the emulator's atomics are atomic.
    private static ulong Apply64(Instruction* i, bool isShared, ulong* at, ulong b, ulong c)
    {
        while (true)
        {
            ulong old = Volatile.Read(ref *at), next = Compute(i, isShared, old, b, c);
            if (Interlocked.CompareExchange(ref *at, next, old) == old) return old;
        }
    }

    private static ulong Apply32(Instruction* i, bool isShared, uint* at, uint b, uint c)
    {
        while (true)
        {
            uint old = Volatile.Read(ref *at), next = (uint)Compute(i, isShared, old, b, c);
            if (Interlocked.CompareExchange(ref *at, next, old) == old) return old;
        }
    }

    private static ulong Apply16(Instruction* i, bool isShared, ushort* at, ushort b, ushort c)
    {
        while (true)
        {
            ushort old = Volatile.Read(ref *at), next = (ushort)Compute(i, isShared, old, b, c);
            if (Interlocked.CompareExchange(ref *at, next, old) == old) return old;
        }
    }

    private static ulong Compute(Instruction* i, bool isShared, ulong old, ulong b, ulong c)
    {
        var operation = (AtomicOperation)(i->Flags >> OperationShift & 15);
        int type = i->Flags >> TypeShift & 15;
        switch (operation)
        {
            case AtomicOperation.Exchange: return b;
            case AtomicOperation.CompareExchange: return old == b ? c : old;
            case AtomicOperation.And: return old & b;
            case AtomicOperation.Or: return old | b;
            case AtomicOperation.Xor: return old ^ b;
            case AtomicOperation.Increment: return (uint)old >= (uint)b ? 0 : old + 1;
            case AtomicOperation.Decrement: return (uint)old == 0 || (uint)old > (uint)b ? b : old - 1;
            case AtomicOperation.Add: return Add(type, isShared, old, b);
        }
        bool isMin = operation == AtomicOperation.Min;
        return type switch
        {
            TypeS32 => (uint)(isMin ? Math.Min((int)old, (int)b) : Math.Max((int)old, (int)b)),
            TypeS64 => (ulong)(isMin ? Math.Min((long)old, (long)b) : Math.Max((long)old, (long)b)),
            TypeF16x2 => Both(isMin, Both2<HalfMin<Float16>>.Invoke((uint)old, (uint)b), Both2<HalfMax<Float16>>.Invoke((uint)old, (uint)b)),
            TypeBf16x2 => Both(isMin, Both2<HalfMin<BFloat>>.Invoke((uint)old, (uint)b), Both2<HalfMax<BFloat>>.Invoke((uint)old, (uint)b)),
            _ => isMin ? Math.Min(old, b) : Math.Max(old, b),
        };
    }

    private static ulong Both(bool isMin, uint min, uint max) => isMin ? min : max;

    // PTX: on global memory subnormal operands and results become zero, on shared memory they do not.
    private static uint AddF32(bool isShared, uint old, uint b)
    {
        float x = BitConverter.UInt32BitsToSingle(old), y = BitConverter.UInt32BitsToSingle(b);
        float sum = isShared ? x + y : Floats.Flush(Floats.Flush(x) + Floats.Flush(y));
        return BitConverter.SingleToUInt32Bits(Floats.Canonical(sum));
    }

    private static ulong Add(int type, bool isShared, ulong old, ulong b) => type switch
    {
        TypeF32 => AddF32(isShared, (uint)old, (uint)b),
        TypeF64 => BitConverter.DoubleToUInt64Bits(BitConverter.UInt64BitsToDouble(old) + BitConverter.UInt64BitsToDouble(b)),
        TypeF16x2 => Both2<HalfAdd<Float16>>.Invoke((uint)old, (uint)b),
        TypeBf16x2 => Both2<HalfAdd<BFloat>>.Invoke((uint)old, (uint)b),
        TypeF16 => HalfAdd<Float16>.Invoke((ushort)old, (ushort)b),
        TypeBf16 => HalfAdd<BFloat>.Invoke((ushort)old, (ushort)b),
        _ => old + b,
    };
}
