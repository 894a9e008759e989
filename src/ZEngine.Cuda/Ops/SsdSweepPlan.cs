namespace ZEngine.Cuda;

/// <summary>How ssd_scan_backward divides its work: a pure function of sizes, type and the device. Heads of a block and passes change roundings, nothing else does.</summary>
/// <param name="Slices">Of 64 states, of a pass: 1, 2 or 4.</param>
/// <param name="Passes">Over the heads of a block for each chunk, where shared memory holds B and C of some states only.</param>
/// <param name="Heads">Of a block, but the last of a group; they share B, C and the sums of their gradients.</param>
/// <param name="Shares">Blocks that the heads of a group are shared out to.</param>
/// <param name="SharedSlots">Pieces of dS, 64 states by a piece of the channels of a head, that wait in a block's shared memory.</param>
/// <param name="SlotsOfBlock">Those that wait in global memory.</param>
/// <param name="IsBeforeKept">Whether B of the chunk before has tiles of its own, where each head needs it for the state between two borders.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
/// <param name="Segments">Stretches of time that are walked at once.</param>
/// <param name="ChunksOfSegment">Chunks of each stretch but the last.</param>
internal readonly record struct SsdSweepPlan(
    int Slices, int Passes, int Heads, int Shares, int SharedSlots, int SlotsOfBlock, bool IsBeforeKept, int SharedBytes, int Segments, int ChunksOfSegment)
{
    /// <summary>
    /// Heads of a block. B, C and the sums of their gradients that pass between blocks are read for each block, 1.5 KB a step with 128 states; the more heads share them, the more dS
    /// stands in global memory, and the L2 cache is to hold that of all blocks that run.
    /// </summary>
    private const int LeastHeads = 4, MostHeads = 8, MostSlices = 4;

    /// <summary>Tiles of pieces: dy, x, both states and x of the chunk before.</summary>
    private const int PieceTiles = 5;

    /// <summary>Decays and sums of a block, which are no part of its dynamic shared memory.</summary>
    public const int StaticBytes = 14 << 10;

    /// <summary>Floats of sums that a pass hands to the next of a head, besides the gradient of its steps.</summary>
    public const int HandedSums = SsdPlan.Steps + (SsdPlan.Threads / 64);

    public static SsdSweepPlan For(int states, int channels, int heads, int groups, DType type, int sequences, long longest, int chunk, int multiprocessors, int sharedBytesPerBlock, bool isPacked = false)
    {
        int slices = (int)SsdPlan.Slices(states, SsdPlan.Side), ofGroup = heads / groups, pieces = (int)SsdPlan.Slices(channels, SsdPlan.Piece(type));
        // As few heads as leave each multiprocessor one block at most; segments of time where that leaves them idle. How heads share blocks is how their sums for B and C round, so packed
        // sequences share them as each alone does.
        long sweeps = Math.Max(1, (long)sequences * groups), wanted = SsdPlan.Slices(ofGroup, Math.Max(1, multiprocessors / (isPacked ? groups : sweeps)));
        int own = (int)Math.Min(Math.Clamp(wanted, LeastHeads, MostHeads), Math.Max(1, ofGroup)), shares = (int)SsdPlan.Slices(ofGroup, own);
        (int segments, int chunks) = SsdPlan.SegmentsOf(multiprocessors / (sweeps * shares), SsdPlan.Slices(longest, chunk));

        int room = sharedBytesPerBlock - StaticBytes, tile = SsdPlan.TileBytes(type), slot = SsdPlan.SlotFloats(type) * sizeof(float), slots = own * pieces * slices;
        int TilesOf(int ofPass) => (PieceTiles * SsdPlan.PieceBytes(type)) + (2 * ofPass * tile);
        int SlotsBeside(int bytes) => Math.Clamp((room - bytes) / slot, 0, slots);
        int pass = slices <= 2 ? Math.Max(1, slices) : MostSlices;
        while (pass > 1 && TilesOf(pass) > room) pass /= 2;
        int tiles = TilesOf(pass), kept = tiles + (pass * tile);
        // In two chunks a slot in global memory is read twice, a tile of B once; or where it has no place of its own once for each of the block's pieces.
        long saved = (((long)own * pieces) - 1) * slices * SsdPlan.Side * SsdPlan.Side * type.Size;
        bool isKept = kept <= room && saved > 2L * slot * (SlotsBeside(tiles) - SlotsBeside(kept));
        if (isKept) tiles = kept;
        int shared = SlotsBeside(tiles);
        return new(pass, (int)SsdPlan.Slices(slices, pass), own, shares, shared, slots - shared, isKept, tiles + (shared * slot), segments, chunks);
    }
}
