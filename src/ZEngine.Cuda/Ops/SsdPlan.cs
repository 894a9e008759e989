namespace ZEngine.Cuda;

/// <summary>How the kernels of the state-space dual scan divide their work: a pure function of sizes, types and the device. It changes no bit of any result.</summary>
/// <param name="Tiles">Tiles of 64 states that a team of the forward kernel holds in registers.</param>
/// <param name="Width">Channels of a team.</param>
/// <param name="Units">Teams of a block of the forward kernel, which share B, C and their product.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block of the forward kernel.</param>
/// <param name="Segments">Stretches of time that are walked at once.</param>
/// <param name="ChunksOfSegment">Chunks of each stretch but the last.</param>
internal readonly record struct SsdPlan(int Tiles, int Width, int Units, int SharedBytes, int Segments, int ChunksOfSegment)
{
    public const int Threads = 256, Steps = 64, Side = 64, MaxStates = 256, StepChannels = 32, ColumnsOfBlock = 32, ChannelsOfSquares = 32, ChunksOfBorder = 2;
    private const int PadBytes = 16, BlocksOfMultiprocessor = 2, LeastChunks = 8, StaticBytes = 5 << 10, MostTaps = 4;

    public static SsdPlan For(int states, int channels, int heads, int groups, DType type, int sequences, long longest, int chunk, int multiprocessors, int sharedBytesPerBlock)
    {
        int element = ElementBytes(type), tiles = states <= 64 ? 1 : states <= 128 ? 2 : 4, width = element == 2 ? 64 : 32;
        long slices = Slices(channels, width);
        bool isShared = element == 2 && tiles < 4 && heads / groups * slices % 2 == 0 && SharedOf(tiles, width, 2, element) + 2 * StaticBytes <= sharedBytesPerBlock;
        int units = isShared ? 2 : 1;
        long blocks = sequences * (heads * slices / units);
        // Where the blocks of whole sequences leave multiprocessors idle.
        (int segments, int chunks) = SegmentsOf(blocks == 0 || blocks >= multiprocessors ? 1 : Slices((long)multiprocessors * BlocksOfMultiprocessor, blocks), Slices(longest, chunk));
        return new(tiles, width, units, SharedOf(tiles, width, units, element), segments, chunks);
    }

    /// <summary>
    /// Whether x comes to the forward kernel from before a convolution with silu. Every unit has channels of its own, so each value is made once, for an exponential and a reciprocal as
    /// in a launch of its own, and 4 bytes of it in 16 bits are neither written nor read (2 where a gradient is wanted and the backward pass reads the value). Not so B and C: each
    /// block would make them anew, 4·N of both for a step and block. Nor with segments: the kernel before them reads x once more for each 64 states, and would make all of it there too.
    /// </summary>
    public bool Convolves(long taps) => Segments == 1 && taps <= MostTaps;

    /// <summary>As SsdForwardTiles in kernels/SsdScanForward.cu.</summary>
    private static int SharedOf(int tiles, int width, int units, int element)
    {
        int slice = element == 2 && tiles > 1 ? 128 : 64, rowOfStates = slice * element + PadBytes, rowOfChannels = width * element + PadBytes;
        return 2 * Steps * rowOfStates + units * (Steps + Math.Max(2 * Steps, 64 * tiles)) * rowOfChannels;
    }

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
