namespace ZEngine.Cuda;

/// <summary>How ssd_scan_backward divides its work: a pure function of sizes and the device.</summary>
/// <param name="Slices">Of 64 states.</param>
/// <param name="Heads">Of a block, but the last of a group; they share B, C and the sums of their gradients.</param>
/// <param name="Shares">Blocks that the heads of a group are shared out to.</param>
/// <param name="SharedSlots">Pieces of dS, 64 states by 64 channels of a head, that wait in a block's shared memory.</param>
/// <param name="SlotsOfBlock">Those that wait in global memory.</param>
/// <param name="IsBeforeKept">Whether B of the chunk before has tiles of its own, where each head needs it for the state between two borders.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
/// <param name="Segments">Stretches of time that are walked at once.</param>
/// <param name="ChunksOfSegment">Chunks of each stretch but the last.</param>
internal readonly record struct SsdSweepPlan(int Slices, int Heads, int Shares, int SharedSlots, int SlotsOfBlock, bool IsBeforeKept, int SharedBytes, int Segments, int ChunksOfSegment)
{
    /// <summary>
    /// Heads of a block. B, C and the sums of their gradients that pass between blocks are read for each block, 1.5 KB a step with 128 states; the more heads share them, the more dS
    /// stands in global memory, and the L2 cache is to hold that of all blocks that run.
    /// </summary>
    private const int LeastHeads = 4, MostHeads = 8, MostSlices = 2;

    /// <summary>Decays and sums of a block, which are no part of its dynamic shared memory.</summary>
    public const int StaticBytes = 12 << 10;

    /// <summary>Whether the kernel takes these inputs: operands of 16 bits, and sums of dB and dC that fit into registers.</summary>
    public static bool Has(long states, DType type) => SsdPlan.ElementBytes(type) == 2 && states <= MostSlices * SsdPlan.Side;

    public static SsdSweepPlan For(int states, int channels, int heads, int groups, int sequences, long longest, int chunk, int multiprocessors, int sharedBytesPerBlock)
    {
        int slices = (int)SsdPlan.Slices(states, SsdPlan.Side), ofGroup = heads / groups;
        // As few heads as leave each multiprocessor one block at most; segments of time where that leaves them idle.
        long sweeps = Math.Max(1, (long)sequences * groups), wanted = SsdPlan.Slices(ofGroup, Math.Max(1, multiprocessors / sweeps));
        int own = (int)Math.Min(Math.Clamp(wanted, LeastHeads, MostHeads), Math.Max(1, ofGroup)), shares = (int)SsdPlan.Slices(ofGroup, own);
        (int segments, int chunks) = SsdPlan.SegmentsOf(multiprocessors / (sweeps * shares), SsdPlan.Slices(longest, chunk));

        int tile = SsdPlan.TileBytes(DType.BFloat16), slot = SsdPlan.Side * SsdPlan.Side * sizeof(float), slots = own * (int)SsdPlan.Slices(channels, SsdPlan.Side) * slices, tiles = 5 + (2 * slices);
        int SlotsBeside(int tiles) => Math.Clamp((sharedBytesPerBlock - StaticBytes - (tiles * tile)) / slot, 0, slots);
        // In two chunks a slot in global memory is read twice, a tile of B, half as large, once; or where it has no place of its own once for each of the block's slots.
        bool fits = ((tiles + slices) * tile) + StaticBytes <= sharedBytesPerBlock, isKept = fits && slots - slices > 4 * (SlotsBeside(tiles) - SlotsBeside(tiles + slices));
        if (isKept) tiles += slices;
        int shared = SlotsBeside(tiles);
        return new(slices, own, shares, shared, slots - shared, isKept, (tiles * tile) + (shared * slot), segments, chunks);
    }
}
