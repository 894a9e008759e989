using System.Numerics;
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Ptx;

namespace ZEngine.Emulator.Checks;

/// <summary>Which bytes of global memory an operation read and wrote: exact to the byte, kept per 512-byte granule.</summary>
internal sealed class Touches
{
    private const int Words = 512 / 64;

    internal sealed class Granule
    {
        public readonly ulong[] Written = new ulong[Words], Read = new ulong[Words], Atomic = new ulong[Words];
        public ulong[]? ReadOnly;
        public int WriteInstruction = -1, ReadInstruction = -1, ReadOnlyInstruction = -1;
    }

    private readonly Dictionary<ulong, Granule> _granules = [];
    // A kernel walks a few arrays at once: remember one granule of each.
    private readonly (ulong Key, Granule? Granule)[] _recent = new (ulong, Granule?)[256];

    public IEnumerable<ulong> Keys => _granules.Keys;

    public Granule? Find(ulong key) => _granules.GetValueOrDefault(key);

    /// <summary>Bytes that were read, and those that were written; each of both once.</summary>
    public long Bytes
    {
        get
        {
            long bytes = 0;
            foreach (Granule g in _granules.Values)
                for (int k = 0; k < Words; k++) bytes += BitOperations.PopCount(g.Read[k] | g.Atomic[k]) + BitOperations.PopCount(g.Written[k] | g.Atomic[k]);
            return bytes;
        }
    }

    private Granule At(ulong key)
    {
        ref (ulong Key, Granule? Granule) slot = ref _recent[(key ^ key >> 8) & 255];
        if (slot.Key == key && slot.Granule is not null) return slot.Granule;
        if (!_granules.TryGetValue(key, out Granule? granule)) _granules[key] = granule = new Granule();
        slot = (key, granule);
        return granule;
    }

    public void Write(ulong address, ulong bytes, int instruction = -1)
    {
        for (ulong end = address + bytes; address < end;)
        {
            Granule g = At(address >> 9);
            g.WriteInstruction = instruction;
            address = Mark(g.Written, address, end);
        }
    }

    /// <summary>Atomic operations do not disturb one another, but they do disturb plain accesses.</summary>
    public void Atomic(ulong address, ulong bytes, int instruction)
    {
        Granule g = At(address >> 9);
        g.WriteInstruction = instruction;
        Mark(g.Atomic, address, address + bytes);
    }

    public void Read(ulong address, ulong bytes, int instruction = -1, bool isReadOnlyPath = false)
    {
        for (ulong end = address + bytes; address < end;)
        {
            Granule g = At(address >> 9);
            g.ReadInstruction = instruction;
            if (isReadOnlyPath)
            {
                g.ReadOnlyInstruction = instruction;
                Mark(g.ReadOnly ??= new ulong[Words], address, end);
            }
            address = Mark(g.Read, address, end);
        }
    }

    private static ulong Mark(ulong[] bits, ulong address, ulong end)
    {
        ulong stop = Math.Min(end, (address | 511) + 1);
        while (address < stop)
        {
            int bit = (int)(address & 63);
            int count = (int)Math.Min(64 - (ulong)bit, stop - address);
            bits[(address & 511) >> 6] |= (count == 64 ? ulong.MaxValue : (1ul << count) - 1) << bit;
            address += (ulong)count;
        }
        return stop;
    }

    public void Merge(Touches other)
    {
        foreach ((ulong key, Granule theirs) in other._granules)
        {
            Granule mine = At(key);
            for (int k = 0; k < Words; k++)
            {
                mine.Written[k] |= theirs.Written[k];
                mine.Read[k] |= theirs.Read[k];
                mine.Atomic[k] |= theirs.Atomic[k];
                if (theirs.ReadOnly is not null) (mine.ReadOnly ??= new ulong[Words])[k] |= theirs.ReadOnly[k];
            }
            if (theirs.WriteInstruction >= 0) mine.WriteInstruction = theirs.WriteInstruction;
            if (theirs.ReadInstruction >= 0) mine.ReadInstruction = theirs.ReadInstruction;
            if (theirs.ReadOnlyInstruction >= 0) mine.ReadOnlyInstruction = theirs.ReadOnlyInstruction;
        }
    }

    /// <summary>First byte that one operation writes and the other touches.</summary>
    public static (ulong Address, bool FirstWrites, bool SecondWrites, Granule First, Granule Second)? Conflict(Touches first, Touches second)
    {
        if (first._granules.Count > second._granules.Count)
        {
            if (Conflict(second, first) is not { } swapped) return null;
            return (swapped.Address, swapped.SecondWrites, swapped.FirstWrites, swapped.Second, swapped.First);
        }
        foreach ((ulong key, Granule a) in first._granules)
        {
            if (!second._granules.TryGetValue(key, out Granule? b)) continue;
            for (int k = 0; k < Words; k++)
            {
                ulong aWrites = a.Written[k] | a.Atomic[k], bWrites = b.Written[k] | b.Atomic[k];
                ulong clash = aWrites & (b.Read[k] | b.Written[k]) | bWrites & (a.Read[k] | a.Written[k]);
                if (clash == 0) continue;
                int bit = BitOperations.TrailingZeroCount(clash);
                return ((key << 9) + (ulong)(64 * k + bit), (aWrites >> bit & 1) != 0, (bWrites >> bit & 1) != 0, a, b);
            }
        }
        return null;
    }

    /// <summary>Reports bytes that the launch both wrote and loaded through the read-only path.</summary>
    public void CheckReadOnly(KernelLaunch launch)
    {
        foreach ((ulong key, Granule g) in _granules)
        {
            if (g.ReadOnly is null) continue;
            for (int k = 0; k < Words; k++)
            {
                ulong clash = g.ReadOnly[k] & (g.Written[k] | g.Atomic[k]);
                if (clash == 0) continue;
                ulong address = (key << 9) + (ulong)(64 * k + BitOperations.TrailingZeroCount(clash));
                PtxInstruction load = launch.Program.Source[g.ReadOnlyInstruction], store = launch.Program.Source[g.WriteInstruction];
                launch.ReportAt(load, FaultKind.ReadOnlyWritten,
                    $"loaded through the read-only path, but this launch also writes it: {launch.Memory.Find(address)?.ToString() ?? $"0x{address:X}"} at 0x{address:X}", store);
                break;
            }
        }
    }
}
