namespace ZEngine.Cuda;

/// <summary>How a decode launch is cut up: a pure function of sizes, and of none that has to do with the number of sequences or how full they are.</summary>
/// <param name="Split">Keys of a block.</param>
/// <param name="Splits">Blocks for each key head and sequence.</param>
/// <param name="Stages">Tiles of keys and values in shared memory.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
internal readonly record struct AttentionDecodePlan(int Split, int Splits, int Stages, int SharedBytes)
{
    /// <summary>Limits of kernels/AttentionDecode.cu: channels of a head, heads of a tile, keys of a split, and the multiple at which splits begin.</summary>
    public const int MostChannels = 256, Heads = 16, MostSplit = 4096, Aligned = 32;

    /// <summary>Positions of a sequence: they and a split beyond fit 32 bits.</summary>
    public const int MostPositions = 1 << 30;

    private const int LeastSplit = 256, RowBytes = 16;

    /// <summary>With a third stage a block has two tiles under way, which pays while several blocks fit a multiprocessor.</summary>
    private const int ThreeStageBytes = 64 << 10;

    /// <param name="heads">Query heads that share a key head.</param>
    /// <param name="p">Channels of a head.</param>
    /// <param name="activations">Type of the activations.</param>
    /// <param name="stored">Type of the cache.</param>
    /// <param name="capacity">Keys of a sequence at most.</param>
    /// <param name="window">Keys that are seen at most; 0 for all.</param>
    public static AttentionDecodePlan For(long heads, long p, DType activations, DType stored, long capacity, long window)
    {
        // Partial results, (P + 2) floats for each head, are at most one hundredth of a split's keys and values.
        long partialBytes = 4 * heads * (p + 2), keyBytes = 2 * p * stored.Size;
        long split = LeastSplit;
        while (split < MostSplit && split * keyBytes < 100 * partialBytes) split *= 2;
        long span = window > 0 ? Math.Min(capacity, window + Aligned - 1) : capacity;
        int stages = SharedBytesOf(p, activations, stored, 3) <= ThreeStageBytes ? 3 : 2;
        return new((int)split, (int)Math.Max(1, (span + split - 1) / split), stages, SharedBytesOf(p, activations, stored, stages));
    }

    private static int SharedBytesOf(long p, DType activations, DType stored, int stages)
    {
        long width = (p + 15) / 16 * 16, pitch = width * activations.Size + RowBytes, keys = activations.Size == 4 ? 16 : 32;
        return (int)(Heads * pitch + (stored == DType.Int8 ? 2 * keys * pitch + stages * 2 * keys * (width + 4) : stages * 2 * keys * pitch));
    }
}
