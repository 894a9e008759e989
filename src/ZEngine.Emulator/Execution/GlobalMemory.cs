using System.Numerics;
using System.Runtime.CompilerServices;
using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Memory;

namespace ZEngine.Emulator.Execution;

/// <summary>Loads and stores of global memory. A full warp with addresses in sequence is checked and moved at once.</summary>
internal static unsafe class GlobalMemory
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Load(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers;
        uint step = (uint)(i->Size * i->Count);
        if (mask == uint.MaxValue && i->X[4] >= 0 && MemoryFlags.AreContiguous((ulong*)(r + i->X[4]), step))
        {
            ulong first = *(ulong*)(r + i->X[4]) + (ulong)i->Immediate;
            if ((first & (step - 1)) == 0 && w.Memory.IsInside(first, 32 * step) && (w.IsPlain || CheckContiguousLoad(w, i, first, (int)step)))
            {
                MemoryFlags.LoadContiguous(r, i, w.Memory.Host(first));
                return;
            }
        }
        LoadLanes(w, i, mask);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Store(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers;
        uint step = (uint)(i->Size * i->Count);
        if (mask == uint.MaxValue && i->X[4] >= 0 && MemoryFlags.AreContiguous((ulong*)(r + i->X[4]), step))
        {
            ulong first = *(ulong*)(r + i->X[4]) + (ulong)i->Immediate;
            if ((first & (step - 1)) == 0 && w.Memory.IsInside(first, 32 * step) && (w.IsPlain || NoteContiguousStore(w, i, first, (int)step)))
            {
                MemoryFlags.StoreContiguous(r, i, w.Memory.Host(first));
                return;
            }
        }
        StoreLanes(w, i, mask);
    }

    // False: the lanes have to be looked at one by one.
    private static bool CheckContiguousLoad(Warp w, Instruction* i, ulong first, int step)
    {
        if (w.ChecksGlobalRaces) return false;
        if (w.ChecksUninitialised && ((first & 7) != 0 || !w.Memory.IsWritten(first, 32 * step))) return false;
        if (w.Profile != null) CountRange(ref w.Profile[i->Index], first, 32 * step);
        if (w.L1 is { } cache)
            for (ulong sector = first >> 5; sector <= first + (ulong)(32 * step) - 1 >> 5; sector++) w.Profile[i->Index].Misses += cache.Read(sector);
        w.Touches?.Read(first, (ulong)(32 * step), i->Index, (i->Flags & MemoryFlags.ReadOnly) != 0);
        return true;
    }

    private static bool NoteContiguousStore(Warp w, Instruction* i, ulong first, int step)
    {
        if (w.ChecksGlobalRaces) return false;
        if (w.ChecksUninitialised) w.Memory.SetInitialised(first, (ulong)(32 * step), true);
        if (w.Profile != null) CountRange(ref w.Profile[i->Index], first, 32 * step);
        if (w.L1 is { } cache)
            for (ulong sector = first >> 5; sector <= first + (ulong)(32 * step) - 1 >> 5; sector++) cache.Drop(sector);
        w.Touches?.Write(first, (ulong)(32 * step), i->Index);
        return true;
    }

    private static void CountRange(ref InstructionCounter counter, ulong first, int bytes)
    {
        ulong last = first + (ulong)bytes - 1;
        counter.Requests++;
        counter.Bytes += bytes;
        counter.Sectors += (long)((last >> 5) - (first >> 5)) + 1;
        counter.HalfLines += (long)((last >> 6) - (first >> 6)) + 1;
    }

    private static void LoadLanes(Warp w, Instruction* i, uint mask)
    {
        int step = i->Size * i->Count;
        if (w.Profile != null) CountLanes(w, i, mask, step);
        AccessKind kind = MemoryFlags.Kind(i);
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong address = MemoryFlags.Address(w.Registers, i, lane);
            DeviceMemory memory = Check(w, i, lane, address, step);
            if (w.ChecksUninitialised) CheckWritten(w, i, lane, memory, address, step);
            w.Touches?.Read(address, (ulong)step, i->Index, (i->Flags & MemoryFlags.ReadOnly) != 0);
            if (w.L1 is { } cache) w.Profile[i->Index].Misses += kind == AccessKind.Plain ? cache.Read(address >> 5) : 1;
            if (w.ChecksGlobalRaces) w.Launch.GlobalRaces!.Record(w, i, lane, address, step, isWrite: false, kind, true, false);
            byte* from = memory.Host(address);
            for (int e = 0; e < i->Count; e++) if (i->X[e] >= 0) MemoryFlags.StoreElement(w.Registers + i->X[e], lane, from + e * i->Size, i);
        }
    }

    private static void StoreLanes(Warp w, Instruction* i, uint mask)
    {
        int step = i->Size * i->Count;
        if (w.Profile != null) CountLanes(w, i, mask, step);
        AccessKind kind = MemoryFlags.Kind(i);
        byte* value = stackalloc byte[32];
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            ulong address = MemoryFlags.Address(w.Registers, i, lane);
            DeviceMemory memory = Check(w, i, lane, address, step);
            for (int e = 0; e < i->Count; e++) MemoryFlags.LoadElement(value + e * i->Size, w.Registers + i->X[e], lane, i);
            if (w.ChecksUninitialised) memory.MarkWritten(address, step);
            w.Touches?.Write(address, (ulong)step, i->Index);
            w.L1?.Drop(address >> 5);
            if (w.ChecksGlobalRaces)
            {
                bool changes = !new ReadOnlySpan<byte>(value, step).SequenceEqual(new ReadOnlySpan<byte>(memory.Host(address), step));
                w.Launch.GlobalRaces!.Record(w, i, lane, address, step, isWrite: true, kind, changes, (i->Flags & MemoryFlags.Release) != 0);
            }
            Buffer.MemoryCopy(value, memory.Host(address), step, step);
        }
    }

    /// <summary>The memory that owns a lane's address; ends the launch when the access is wrong.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static DeviceMemory Check(Warp w, Instruction* i, int lane, ulong address, int bytes, int alignment = 0)
    {
        if ((address & (ulong)((alignment == 0 ? bytes : alignment) - 1)) != 0)
            throw w.Launch.Abort(w, i, 1u << lane, FaultKind.Misaligned, $"global address 0x{address:X} is not a multiple of {(alignment == 0 ? bytes : alignment)}{Named(w, address)}");
        return w.Memory.IsInside(address, (ulong)bytes) ? w.Memory : CheckSlowly(w, i, lane, address, bytes);
    }

    private static DeviceMemory CheckSlowly(Warp w, Instruction* i, int lane, ulong address, int bytes)
    {
        DeviceMemory memory = w.Memory;
        if (!memory.Contains(address))
        {
            if (AddressWindows.Of(address) is { } window)
                throw w.Launch.Abort(w, i, 1u << lane, FaultKind.WrongWindow, $"address 0x{address:X} is a {window} address, but this instruction accesses global memory");
            memory = w.Launch.PeerMemory(address) ?? throw w.Launch.Abort(w, i, 1u << lane, FaultKind.OutOfBounds,
                address < 65536 ? $"address 0x{address:X} is null plus an offset" : $"address 0x{address:X} is not of this device and of no peer it may access");
        }
        if (memory.Examine(address, (ulong)bytes) is { } wrong) throw w.Launch.Abort(w, i, 1u << lane, wrong.Kind, wrong.Message);
        return memory;
    }

    private static string Named(Warp w, ulong address) => w.Memory.Find(address) is { } owner ? $" (offset 0x{address - owner.Address:X} of {owner})" : "";

    public static void CheckWritten(Warp w, Instruction* i, int lane, DeviceMemory memory, ulong address, int bytes)
    {
        uint unwritten = memory.Unwritten(address, bytes) & i->UsedBytes;
        if (unwritten == 0) return;
        int at = BitOperations.TrailingZeroCount(unwritten);
        w.Launch.Report(w, i, 1u << lane, FaultKind.Uninitialised,
            $"read of global byte 0x{address + (ulong)at:X} that was never written{Named(w, address)}");
    }

    /// <summary>Counts the sectors and half-lines that the lanes of one request touch.</summary>
    [SkipLocalsInit]
    public static void CountLanes(Warp w, Instruction* i, uint mask, int bytes)
    {
        ref InstructionCounter counter = ref w.Profile[i->Index];
        counter.Requests++;
        counter.Bytes += (long)bytes * BitOperations.PopCount(mask);
        ulong* addresses = stackalloc ulong[32];
        int n = 0;
        for (uint rest = mask; rest != 0; rest &= rest - 1) addresses[n++] = MemoryFlags.Address(w.Registers, i, BitOperations.TrailingZeroCount(rest));
        counter.Sectors += Distinct(addresses, n, 5);
        counter.HalfLines += Distinct(addresses, n, 6);
    }

    // An aligned access of at most 16 bytes lies in one sector.
    public static int Distinct(ulong* addresses, int n, int shift)
    {
        ulong* seen = stackalloc ulong[32];
        int count = 0;
        for (int k = 0; k < n; k++)
        {
            ulong unit = addresses[k] >> shift;
            int j = count - 1;
            while (j >= 0 && seen[j] != unit) j--;
            if (j < 0) seen[count++] = unit;
        }
        return count;
    }
}

/// <summary>Where the generic address space shows the windows of shared and local memory and of the kernel's parameters.</summary>
internal static class AddressWindows
{
    public const ulong Shared = 0x7A00_0000_0000, Local = 0x7B00_0000_0000, Parameter = 0x7C00_0000_0000, Bytes = 1ul << 32;

    public static bool IsShared(ulong address) => address - Shared < Bytes;

    public static bool IsLocal(ulong address) => address - Local < Bytes;

    public static bool IsParameter(ulong address) => address - Parameter < Bytes;

    public static string? Of(ulong address) => IsShared(address) ? "shared" : IsLocal(address) ? "local" : IsParameter(address) ? "parameter" : null;
}
