namespace ZEngine.Cuda;

/// <summary>What a plan for attention depends on, besides type and architecture: packed sequences are many of L / Sequences steps.</summary>
internal readonly record struct AttentionSizes(int Sequences, long L, long S, int H, int G, int P, bool IsPacked)
{
    /// <summary>Queries and keys of a sequence, on average.</summary>
    public (long Queries, long Keys) Lengths => IsPacked ? (Math.Max(1, L / Sequences), Math.Max(1, S / Sequences)) : (L, S);
}

/// <summary>Tiles of kernels/AttentionForward.cu and kernels/AttentionBackward.cu: a pure function of sizes, type and architecture.</summary>
/// <param name="Width">The class of head sizes that the instance is for.</param>
/// <param name="Columns">Of a tile in shared memory: P and zeros.</param>
/// <param name="Rows">Of a tile of queries.</param>
/// <param name="Keys">Of a tile of keys.</param>
/// <param name="Slice">Keys that pass through shared memory at a time: a tile, or a part of it.</param>
/// <param name="Threads">Of a block.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
/// <param name="Heads">Query heads of a tile: 1, or all that share a key head.</param>
/// <param name="Together">Pairs of a row and a head whose tiles take turns.</param>
/// <param name="Stages">Tiles of queries that a block of the backward kernel holds at a time.</param>
/// <param name="IsOverKeys">Whether a block owns a tile of keys rather than one of queries.</param>
internal readonly record struct AttentionPlan(int Width, int Columns, int Rows, int Keys, int Slice, int Threads, int SharedBytes, int Heads, int Together, int Stages, bool IsOverKeys)
{
    public const int MaxHeadSize = 256;
    private const int WalkBytes = 144;
    private static readonly int[] Widths = [64, 128, 256];

    /// <summary>Bytes of keys and values that blocks which run at the same time share in the L2 cache: half of the smallest of a data centre's devices.</summary>
    private const long CacheBytes = 20L << 20;

    public static AttentionPlan Forward(AttentionSizes x, DType type, int architecture)
    {
        int width = WidthOf(x.P);
        bool isFloat = type == DType.Float32;
        int columns = isFloat ? width : RoundUp(x.P, width > 128 ? 32 : 16);
        int warps = isFloat && width > 128 ? 2 : 4, rows = warps * (isFloat || width > 128 ? 16 : 32);
        int keys = isFloat ? width > 128 ? 16 : 32 : 64;
        // Two blocks with 128 rows of more than 96 columns fit the 100 KiB of sm_86 and sm_89 where tiles of keys pass in halves.
        int slice = columns is > 96 and <= 128 && !isFloat && architecture is 86 or 89 ? keys / 2 : keys;
        int bytes = isFloat ? 4 * (rows * (width + 4) + 2 * keys * (width + 4) + rows * (keys + 4)) : 2 * columns * (rows + (width <= 64 ? 4 : 2) * slice);
        (long queries, long seen) = x.Lengths;
        int group = x.H / x.G;
        // With the heads of a group in one tile, short sequences fill it: where that saves a tenth of the tiles.
        bool isGrouped = group > 1 && Slices(queries * group, rows) * 10 <= Slices(queries, rows) * group * 9;
        return new(width, columns, rows, keys, slice, warps * 32, bytes, isGrouped ? group : 1, PairsTogether(seen, x.P, type, isGrouped ? 1 : group), Stages: 1, IsOverKeys: false);
    }

    /// <param name="sharedBytes">What a block of the device may have.</param>
    public static AttentionPlan Backward(AttentionSizes x, DType type, int sharedBytes)
    {
        sharedBytes -= WalkBytes;
        int group = x.H / x.G, together = PairsTogether(x.Lengths.Queries * group, x.P, type, 1);
        if (type == DType.Float32)
        {
            int floats = WidthOf(x.P), side = floats > 128 ? 16 : 32, held = FloatBytes(2) <= sharedBytes ? 2 : 1;
            return new(floats, floats, side, side, side, 128, FloatBytes(held), group, together, held, IsOverKeys: true);

            int FloatBytes(int stages) => 4 * side * (2 * (floats + 4) + 2 * (side + 4) + stages * (2 * (floats + 4) + StatsOf(type)));
        }
        int width = WidthOf(x.P), columns = Math.Max(32, RoundUp(x.P, 16)), keys = width <= 128 ? 128 : 64;
        if (BytesOf(keys, 1) > sharedBytes) keys /= 2;
        int stages = BytesOf(keys, 2) <= sharedBytes ? 2 : 1;
        return new(width, columns, Math.Min(keys, 64), keys, keys, keys == 32 ? 128 : 256, BytesOf(keys, stages), group, together, stages, IsOverKeys: true);

        int BytesOf(int keys, int stages)
        {
            int rows = Math.Min(keys, 64);
            return 4 * keys * (columns + rows) + stages * (4 * rows * columns + StatsOf(DType.BFloat16) * rows * 4);
        }
    }

    /// <summary>Numbers that the backward kernel reads of each query: lse, delta, and in Float32 what lse lost.</summary>
    public static int StatsOf(DType type) => type == DType.Float32 ? 3 : 2;

    /// <summary>Floats of a tile's sums of dq, in units of 16 columns of a warp.</summary>
    public long SumsOfTile(DType type)
    {
        int sides = Keys == 16 ? 4 : 2, units = type == DType.Float32 ? Width / 16 / sides : (Columns / 16 + 1) / 2;
        return units * 8L * Threads;
    }

    /// <summary>Tiles of a sequence.</summary>
    public long TilesOf(long length) => Slices(length * (IsOverKeys ? 1 : Heads), IsOverKeys ? Keys : Rows);

    private static int PairsTogether(long keys, int size, DType type, int headsOfKeys) =>
        (int)Math.Clamp(CacheBytes / Math.Max(1, 2 * keys * size * type.Size), 1, int.MaxValue / headsOfKeys) * headsOfKeys;

    private static int WidthOf(int size)
    {
        if (size > MaxHeadSize) throw new NotSupportedException($"Attention: q, k and v have heads of {size} channels, a CUDA device takes at most {MaxHeadSize}.");
        return Widths.First(width => width >= size);
    }

    private static int RoundUp(int size, int multiple) => (size + multiple - 1) / multiple * multiple;

    private static long Slices(long size, long width) => (size + width - 1) / width;
}
