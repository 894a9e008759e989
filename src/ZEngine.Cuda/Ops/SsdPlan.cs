namespace ZEngine.Cuda;

/// <summary>How the kernels of the state-space dual scan divide their work: a pure function of sizes, types and the device. It changes no bit of any result.</summary>
/// <param name="Tiles">Tiles of 64 states that the forward kernel holds in registers.</param>
/// <param name="Width">Channels of a unit: of a warp on the tensor cores, of a block in floats.</param>
/// <param name="Units">Units of a block of the forward kernel, which share B, C and their product.</param>
/// <param name="Blocks">Blocks that the units of a group's heads are shared out to.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block of the forward kernel.</param>
/// <param name="Segments">Stretches of time that are walked at once.</param>
/// <param name="ChunksOfSegment">Chunks of each stretch but the last.</param>
internal readonly record struct SsdPlan(int Tiles, int Width, int Units, int Blocks, int SharedBytes, int Segments, int ChunksOfSegment)
{
    public const int Threads = 256, WarpThreads = MostUnits * 32, Steps = 64, Side = 64, MaxStates = 256, StepChannels = 32, ColumnsOfBlock = 32, ChunksOfBorder = 2;
    private const int PadBytes = 16, BlocksOfMultiprocessor = 2, LeastChunks = 8, MostTaps = 4, MostUnits = 4, DecayBytes = 2128, NearBytes = 4096 + 512, PairBytes = 10 << 10, UnitBytes = 32, PlaceBytes = 64, Alignment = 128;

    public static SsdPlan For(int states, int channels, int heads, int groups, DType type, int sequences, long longest, int chunk, int multiprocessors, int sharedBytesPerBlock)
    {
        int tiles = states <= 64 ? 1 : states <= 128 ? 2 : 4, width = WidthOf(states, type), slices = (int)Slices(channels, width), ofGroup = heads / Math.Max(1, groups) * slices;
        bool isTensor = ElementBytes(type) == 2;
        int units = isTensor ? MostUnits : 1;
        while (units > 1 && SharedOf(tiles, width, HeadsOf(units, slices)) > sharedBytesPerBlock) units--;
        int ofBlock = (int)Slices(ofGroup, units);
        long blocks = sequences * ((long)groups * ofBlock);
        // Where the blocks of whole sequences leave multiprocessors idle.
        (int segments, int chunks) = SegmentsOf(blocks == 0 || blocks >= multiprocessors ? 1 : Slices((long)multiprocessors * BlocksOfMultiprocessor, blocks), Slices(longest, chunk));
        return new(tiles, width, units, ofBlock, isTensor ? SharedOf(tiles, width, HeadsOf(units, slices)) : FloatSharedOf(tiles, width), segments, chunks);
    }

    /// <summary>Channels of a unit of the forward kernel, and of a sum of squares.</summary>
    public static int WidthOf(int states, DType type) => states > 128 && ElementBytes(type) == 2 ? 16 : 32;

    /// <summary>Heads of a block at most, where each has so many units.</summary>
    private static int HeadsOf(int units, int slices) => units % slices == 0 ? units / slices : slices % units == 0 ? 1 : (units + slices - 2) / slices + 1;

    /// <summary>
    /// Whether x comes to the forward kernel from before a convolution with silu. Every unit has channels of its own, so each value is made once, for an exponential and a reciprocal as
    /// in a launch of its own, and 4 bytes of it in 16 bits are neither written nor read (2 where a gradient is wanted and the backward pass reads the value). Not so B and C: each
    /// block would make them anew, 4·N of both for a step and block. Nor with segments: the kernel before them reads x once more for each 64 states, and would make all of it there too.
    /// </summary>
    public bool Convolves(long taps) => Segments == 1 && taps <= MostTaps;

    /// <summary>As SsdForwardBlock and SsdForwardHead in kernels/SsdScanForward.cu: B and C; C·Bᵀ; of each warp x, D, the norm's weight and a convolution's window; of each head its decays.</summary>
    private static int SharedOf(int tiles, int width, int heads) =>
        (int)Slices(2 * Steps * (64 * tiles * 2 + PadBytes) + PairBytes + MostUnits * (width * (Steps * 2 + 2 * sizeof(float) + 2 * MostTaps * sizeof(float)) + UnitBytes) + PlaceBytes, Alignment) * Alignment
        + heads * (DecayBytes + NearBytes);

    /// <summary>As SsdForwardTiles in kernels/SsdScanForwardFloat.cu.</summary>
    private static int FloatSharedOf(int tiles, int width) =>
        2 * Steps * (64 * sizeof(float) + PadBytes) + (Steps + Math.Max(2 * Steps, 64 * tiles)) * (width * sizeof(float) + PadBytes);

    /// <summary>As many segments as wanted, but none of so few chunks that making its first state costs more.</summary>
    internal static (int Segments, int Chunks) SegmentsOf(long wanted, long chunks)
    {
        wanted = Math.Min(wanted, chunks / LeastChunks);
        if (wanted <= 1) return (1, (int)Math.Max(1, chunks));
        long length = Slices(chunks, wanted);
        return ((int)Slices(chunks, length), (int)length);
    }

    public static long ChunkLength(long wanted, long length) => wanted > 0 ? Math.Min(wanted, Steps) : Math.Clamp(length, 1, Steps);

    /// <summary>Bytes of a tile of the backward kernels, 64 × 64.</summary>
    public static int TileBytes(DType type) => Side * (Side * ElementBytes(type) + PadBytes);

    /// <summary>Channels of a piece of a head in the backward kernels, bytes of its tile, and floats of dS of 64 states.</summary>
    public static int Piece(DType type) => 128 / ElementBytes(type);
    public static int PieceBytes(DType type) => Steps * (Piece(type) * ElementBytes(type) + PadBytes);
    public static int SlotFloats(DType type) => Side * Piece(type);

    public static long Slices(long size, long width) => (size + width - 1) / width;

    /// <summary>Tiles of 64 states of a team of ssd_scan_state_backward, and teams of a block: those that read dy and C least, as long as every multiprocessor has a block.</summary>
    public static (int Tiles, int Units) StateTiles(int states, int channels, int heads, int groups, DType type, int sequences, int multiprocessors)
    {
        int tiles = states > Side ? 2 : 1;
        long pieces = Slices(channels, Piece(type)), blocks = sequences * (heads * pieces / 2) * Slices(states, Side * tiles);
        return ElementBytes(type) == 2 && heads / groups * pieces % 2 == 0 && blocks >= multiprocessors ? (tiles, 2) : (1, 1);
    }

    /// <summary>Dynamic shared memory of a block of ssd_scan_state_backward.</summary>
    public static int StateShared(int tiles, int units, DType type) => Steps * (Side * tiles * ElementBytes(type) + PadBytes) + units * PieceBytes(type);

    // Float16 becomes Float32 in tiles: its range is too small for intermediate results.
    public static int ElementBytes(DType type) => type == DType.BFloat16 ? 2 : 4;
}
