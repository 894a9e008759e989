using System.Numerics;
using System.Runtime.CompilerServices;

namespace ZEngine.Emulator.Execution;

/// <summary>Local, parameter and generic memory.</summary>
internal static unsafe class OtherMemory
{
    // ---- Parameters of the kernel: the same for all lanes -------------------------------------------------------------------------------

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void LoadParameter(Warp w, Instruction* i, uint mask)
    {
        int step = i->Size * i->Count;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong offset = MemoryFlags.Address(w.Registers, i, lane);
            if (offset + (ulong)step > (ulong)w.Launch.Program.ParameterBytes)
                throw w.Launch.Abort(w, i, 1u << lane, FaultKind.OutOfBounds, $"parameter offset 0x{offset:X}, but the kernel has {w.Launch.Program.ParameterBytes} bytes of parameters");
            for (int e = 0; e < i->Count; e++) if (i->X[e] >= 0) MemoryFlags.StoreElement(w.Registers + i->X[e], lane, w.Parameters + offset + (ulong)(e * i->Size), i);
        }
    }

    private static void LoadParameterLane(Warp w, Instruction* i, int lane, ulong address)
    {
        ulong offset = address - AddressWindows.Parameter;
        int step = i->Size * i->Count;
        if (offset + (ulong)step > (ulong)w.Launch.Program.ParameterBytes)
            throw w.Launch.Abort(w, i, 1u << lane, FaultKind.OutOfBounds, $"parameter offset 0x{offset:X}, but the kernel has {w.Launch.Program.ParameterBytes} bytes of parameters");
        if ((offset & (uint)(step - 1)) != 0) throw w.Launch.Abort(w, i, 1u << lane, FaultKind.Misaligned, $"parameter offset 0x{offset:X} is not a multiple of {step}");
        for (int e = 0; e < i->Count; e++) if (i->X[e] >= 0) MemoryFlags.StoreElement(w.Registers + i->X[e], lane, w.Parameters + offset + (ulong)(e * i->Size), i);
    }

    // ---- Local memory: words of the 32 lanes interleaved, and each thread bound to its own depot ------------------------------------------

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void LoadLocal(Warp w, Instruction* i, uint mask)
    {
        if (w.Profile != null) Count(w, i, mask);
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            LoadLocalLane(w, i, lane, (uint)MemoryFlags.Address(w.Registers, i, lane));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void StoreLocal(Warp w, Instruction* i, uint mask)
    {
        if (w.Profile != null) Count(w, i, mask);
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            StoreLocalLane(w, i, lane, (uint)MemoryFlags.Address(w.Registers, i, lane));
        }
    }

    private static void Count(Warp w, Instruction* i, uint mask)
    {
        w.Profile[i->Index].Requests++;
        w.Profile[i->Index].Bytes += (long)i->Size * i->Count * BitOperations.PopCount(mask);
    }

    /// <summary>A word of a thread's local memory, written from outside the program.</summary>
    public static void WriteLocal(Warp w, int lane, uint offset, uint value)
    {
        for (uint k = 0; k < 4; k++)
        {
            *LocalByte(w, lane, offset + k) = (byte)(value >> (int)(8 * k));
            w.LocalWritten[offset + k] |= 1u << lane;
        }
    }

    /// <summary>A byte at a generic address, checked as a load of one byte would be.</summary>
    public static byte GenericByte(Warp w, Instruction* i, int lane, ulong address)
    {
        if (AddressWindows.IsShared(address))
        {
            uint offset = (uint)address - Block.SharedBase;
            SharedMemory.Check(w, i, lane, offset, 1, 1);
            return w.Shared[offset];
        }
        if (!AddressWindows.IsLocal(address)) return *GlobalMemory.Check(w, i, lane, address, 1).Host(address);
        uint at = (uint)(address - AddressWindows.Local);
        if (at >= (uint)w.Launch.Program.LocalBytes) throw w.Launch.Abort(w, i, 1u << lane, FaultKind.OutOfBounds, $"local offset 0x{at:X}, but a thread has {w.Launch.Program.LocalBytes} bytes");
        return *LocalByte(w, lane, at);
    }

    private static byte* LocalByte(Warp w, int lane, uint offset) => w.Local + (offset >> 2) * 128 + 4 * lane + (offset & 3);

    private static void CheckLocal(Warp w, Instruction* i, int lane, uint offset)
    {
        int step = i->Size * i->Count;
        if (offset + (ulong)step > (ulong)w.Launch.Program.LocalBytes)
            throw w.Launch.Abort(w, i, 1u << lane, FaultKind.OutOfBounds, $"{step} bytes at local offset {(long)(int)offset}, but a thread has {w.Launch.Program.LocalBytes} bytes");
        if ((offset & (uint)(step - 1)) != 0)
            throw w.Launch.Abort(w, i, 1u << lane, FaultKind.Misaligned, $"local offset 0x{offset:X} is not a multiple of {step}");
    }

    private static void LoadLocalLane(Warp w, Instruction* i, int lane, uint offset)
    {
        CheckLocal(w, i, lane, offset);
        int step = i->Size * i->Count;
        byte* value = stackalloc byte[32];
        for (int k = 0; k < step; k++)
        {
            uint at = offset + (uint)k;
            if (w.ChecksUninitialised && (w.LocalWritten[at] >> lane & 1) == 0 && (i->UsedBytes >> k & 1) != 0)
                w.Launch.Report(w, i, 1u << lane, FaultKind.Uninitialised, $"read of local byte 0x{at:X} that the thread never wrote");
            value[k] = *LocalByte(w, lane, at);
        }
        for (int e = 0; e < i->Count; e++) if (i->X[e] >= 0) MemoryFlags.StoreElement(w.Registers + i->X[e], lane, value + e * i->Size, i);
    }

    private static void StoreLocalLane(Warp w, Instruction* i, int lane, uint offset)
    {
        CheckLocal(w, i, lane, offset);
        int step = i->Size * i->Count;
        byte* value = stackalloc byte[32];
        for (int e = 0; e < i->Count; e++) MemoryFlags.LoadElement(value + e * i->Size, w.Registers + i->X[e], lane, i);
        for (int k = 0; k < step; k++)
        {
            uint at = offset + (uint)k;
            *LocalByte(w, lane, at) = value[k];
            w.LocalWritten[at] |= 1u << lane;
        }
    }

    /// <summary>A call: copies the arguments' words to the parameters, or results back. X[4] from, X[0] to, Size bytes.</summary>
    public static void CopyLocal(Warp w, uint mask, int from, int to, int bytes)
    {
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            for (int k = 0; k < bytes; k++)
            {
                *LocalByte(w, lane, (uint)(to + k)) = *LocalByte(w, lane, (uint)(from + k));
                uint bit = 1u << lane;
                w.LocalWritten[to + k] = w.LocalWritten[to + k] & ~bit | w.LocalWritten[from + k] & bit;
            }
        }
    }

    // ---- Generic addresses: each lane goes to the window its address lies in ---------------------------------------------------------------

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void LoadGeneric(Warp w, Instruction* i, uint mask) => Generic(w, i, mask, isStore: false);

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void StoreGeneric(Warp w, Instruction* i, uint mask) => Generic(w, i, mask, isStore: true);

    private static void Generic(Warp w, Instruction* i, uint mask, bool isStore)
    {
        (uint shared, uint local, uint parameter) = Windows(w, i, mask);
        // Parameters are read-only: a store to their window fails as one to global memory, which names the window.
        if (isStore) parameter = 0;
        uint global = mask & ~(shared | local | parameter);
        if (global != 0)
        {
            if (isStore) GlobalMemory.Store(w, i, global);
            else GlobalMemory.Load(w, i, global);
        }
        if (shared != 0)
        {
            if (isStore) SharedMemory.Store(w, i, shared);
            else SharedMemory.Load(w, i, shared);
        }
        for (uint rest = local; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            uint offset = (uint)(MemoryFlags.Address(w.Registers, i, lane) - AddressWindows.Local);
            if (isStore) StoreLocalLane(w, i, lane, offset);
            else LoadLocalLane(w, i, lane, offset);
        }
        for (uint rest = parameter; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            LoadParameterLane(w, i, lane, MemoryFlags.Address(w.Registers, i, lane));
        }
    }

    /// <summary>The lanes whose generic address lies in the window of shared memory, of local memory and of parameters.</summary>
    private static (uint Shared, uint Local, uint Parameter) Windows(Warp w, Instruction* i, uint mask)
    {
        uint shared = 0, local = 0, parameter = 0;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong address = MemoryFlags.Address(w.Registers, i, lane);
            if (AddressWindows.IsShared(address)) shared |= 1u << lane;
            else if (AddressWindows.IsLocal(address)) local |= 1u << lane;
            else if (AddressWindows.IsParameter(address)) parameter |= 1u << lane;
        }
        return (shared, local, parameter);
    }

    // ---- Address conversions: Immediate is the window's base, 0 for global ---------------------------------------------------------------

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void ToGeneric(Warp w, Instruction* i, uint mask)
    {
        byte* a = w.Registers + i->X[4];
        var d = (ulong*)(w.Registers + i->X[0]);
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong address = (i->Flags & MemoryFlags.WideAddress) != 0 ? ((ulong*)a)[lane] : ((uint*)a)[lane];
            d[lane] = (uint)address + (ulong)i->Immediate;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void FromGeneric(Warp w, Instruction* i, uint mask)
    {
        var a = (ulong*)(w.Registers + i->X[4]);
        byte* d = w.Registers + i->X[0];
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong offset = a[lane] - (ulong)i->Immediate;
            if (offset >= AddressWindows.Bytes)
                w.Launch.Report(w, i, 1u << lane, FaultKind.WrongWindow, $"0x{a[lane]:X} is converted to a {AddressWindows.Of((ulong)i->Immediate)} address but is none");
            if ((i->Flags & MemoryFlags.WideRegister) != 0) ((ulong*)d)[lane] = (uint)offset;
            else ((uint*)d)[lane] = (uint)offset;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void IsSpace(Warp w, Instruction* i, uint mask)
    {
        var a = (ulong*)(w.Registers + i->X[4]);
        uint result = 0;
        for (int lane = 0; lane < 32; lane++)
        {
            bool isShared = AddressWindows.IsShared(a[lane]), isLocal = AddressWindows.IsLocal(a[lane]);
            if (i->Immediate == 1 ? isShared : i->Immediate == 2 ? isLocal : !isShared && !isLocal && !AddressWindows.IsParameter(a[lane])) result |= 1u << lane;
        }
        LaneOps.StorePredicate(w, i->X[0], mask, result);
    }
}
