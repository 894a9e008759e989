using System.Numerics;
using System.Runtime.CompilerServices;
using ZEngine.Emulator.Memory;

namespace ZEngine.Emulator.Execution;

/// <summary>
/// cp.async of a warp. Data moves at the latest moment the program allows, which is when its lane waits, so that a missing wait shows; until
/// then the destination belongs to the copy. Groups are counted per lane.
/// </summary>
internal sealed unsafe class AsyncCopies(Warp warp)
{
    private struct Copy
    {
        public ulong Source;
        public uint Destination;
        public int Lane, Bytes, SourceBytes, Group;
        public DeviceMemory? Memory;
    }

    private readonly List<Copy> _pending = [];
    private readonly int[] _groups = new int[32];

    public void Clear()
    {
        _pending.Clear();
        Array.Clear(_groups);
    }

    /// <summary>Lanes exit without waiting: their copies may land or not; nobody can rely on them.</summary>
    public void DropUnwaited(uint lanes)
    {
        if (_pending.Count > 0) _pending.RemoveAll(copy => (lanes >> copy.Lane & 1) != 0);
    }

    /// <summary>X[4] shared destination, X[5] global source, X[6] source bytes or -1; Immediate and Target their offsets; Size the bytes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization), SkipLocalsInit]
    public static void Issue(Warp w, Instruction* i, uint mask)
    {
        byte* r = w.Registers;
        int bytes = i->Size;
        ulong* sources = stackalloc ulong[32];
        uint* offsets = stackalloc uint[32];
        int n = 0;
        for (uint rest = mask; rest != 0; rest &= rest - 1)
        {
            int lane = BitOperations.TrailingZeroCount(rest);
            uint offset = (uint)MemoryFlags.Address(r, i, lane) - Block.SharedBase;
            ulong source = ((ulong*)(r + i->X[5]))[lane] + (ulong)(long)i->Target;
            int sourceBytes = i->X[6] < 0 ? bytes : (int)((uint*)(r + i->X[6]))[lane];
            if (i->X[7] >= 0 && (*(uint*)(r + i->X[7]) >> lane & 1) != 0) sourceBytes = 0;
            if ((uint)sourceBytes > (uint)bytes) throw w.Launch.Abort(w, i, 1u << lane, FaultKind.Undefined, $"source size {sourceBytes} exceeds the {bytes} bytes of the copy");
            SharedMemory.Check(w, i, lane, offset, bytes, bytes);
            if ((source & (ulong)(bytes - 1)) != 0)
                throw w.Launch.Abort(w, i, 1u << lane, FaultKind.Misaligned, $"global address 0x{source:X} of an asynchronous copy is not a multiple of {bytes}");
            DeviceMemory? memory = null;
            if (sourceBytes > 0)
            {
                memory = GlobalMemory.Check(w, i, lane, source, sourceBytes, alignment: 1);
                if (w.ChecksUninitialised) GlobalMemory.CheckWritten(w, i, lane, memory, source, sourceBytes);
                w.Touches?.Read(source, (ulong)sourceBytes, i->Index);
                if (w.ChecksGlobalRaces) w.Launch.GlobalRaces!.Record(w, i, lane, source, sourceBytes, false, Checks.AccessKind.Plain, true, false);
                sources[n++] = source;
                if (w.Profile != null) w.Profile[i->Index].Bytes += sourceBytes;
            }
            offsets[lane] = offset;
            if (w.ChecksSharedRaces) w.Block.Shadow!.BeginCopy(w, i, lane, offset, bytes);
            w.Copies._pending.Add(new Copy { Source = source, Destination = offset, Lane = lane, Bytes = bytes, SourceBytes = sourceBytes, Group = w.Copies._groups[lane], Memory = memory });
        }
        if (w.Profile != null)
        {
            ref InstructionCounter counter = ref w.Profile[i->Index];
            counter.Requests++;
            counter.Sectors += GlobalMemory.Distinct(sources, n, 5);
            counter.HalfLines += GlobalMemory.Distinct(sources, n, 6);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Commit(Warp w, Instruction* i, uint mask)
    {
        for (uint rest = mask; rest != 0; rest &= rest - 1) w.Copies._groups[BitOperations.TrailingZeroCount(rest)]++;
    }

    /// <summary>Waits until at most Immediate groups of each lane are pending; -1 also for copies not yet committed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Wait(Warp w, Instruction* i, uint mask)
    {
        AsyncCopies copies = w.Copies;
        int kept = 0;
        List<Copy> pending = copies._pending;
        for (int k = 0; k < pending.Count; k++)
        {
            Copy copy = pending[k];
            bool isMine = (mask >> copy.Lane & 1) != 0;
            if (isMine && (i->Immediate < 0 || copy.Group < copies._groups[copy.Lane] - (int)i->Immediate)) copies.Land(in copy);
            else pending[kept++] = copy;
        }
        pending.RemoveRange(kept, pending.Count - kept);
    }

    private void Land(in Copy copy)
    {
        byte* to = warp.Shared + copy.Destination;
        if (copy.SourceBytes == 16)
        {
            Unsafe.CopyBlockUnaligned(to, copy.Memory!.Host(copy.Source), 16);
        }
        else
        {
            if (copy.SourceBytes > 0) Unsafe.CopyBlockUnaligned(to, copy.Memory!.Host(copy.Source), (uint)copy.SourceBytes);
            Unsafe.InitBlockUnaligned(to + copy.SourceBytes, 0, (uint)(copy.Bytes - copy.SourceBytes));
        }
        if (warp.ChecksUninitialised) SharedMemory.MarkWritten(warp, copy.Destination, copy.Bytes);
        if (warp.ChecksSharedRaces) warp.Block.Shadow!.EndCopy(warp, copy.Lane, copy.Destination, copy.Bytes);
    }
}
