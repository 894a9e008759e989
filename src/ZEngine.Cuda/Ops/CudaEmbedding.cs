using System.Numerics;
using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string EmbeddingFile = "Embedding.cu";

    /// <summary>As in kernels/Embedding.cu: columns of a thread, rows of dy of a block, bits of the sort's digits, warps and threads of its blocks.</summary>
    private const int EmbeddingColumns = 4, EmbeddingRun = 64, SortBits = 9, SortWarps = 8, ScanThreads = 1024;

    /// <summary>Keys that a warp sorts at least, and the most warps that share the keys: their counts are scanned by one block.</summary>
    private const long SortTile = 1024, SortTiles = 4096;

    /// <summary>Mirrors EmbeddingArgs in kernels/Embedding.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingArgs
    {
        public ulong Table, Tokens, Y;
        public long N, V, D;
        public int IsLong, IsWide;
    }

    /// <summary>Mirrors EmbeddingSortArgs in kernels/Embedding.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingSortArgs
    {
        public ulong Tokens, From, To, Counts;
        public long N, V, Tile, Tiles;
        public int IsLong, Shift, Bits;
    }

    /// <summary>Mirrors EmbeddingScanArgs in kernels/Embedding.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingScanArgs
    {
        public ulong Counts;
        public long Length;
    }

    /// <summary>Mirrors EmbeddingBackwardArgs in kernels/Embedding.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingBackwardArgs
    {
        public ulong Pairs, Dy, Heads, Dtable;
        public long N, D;
        public int Slices, IsWide;
    }

    internal override void EmbeddingForward(Tensor table, Tensor tokens, Tensor y)
    {
        long width = table.Shape[1];
        int columns = WideElements(table.DType);
        bool isWide = width % columns == 0 && IsAligned(table, columns) && IsAligned(y, columns);
        LaunchElements(Kernel(EmbeddingFile, $"embedding_forward<{table.DType}>"), y.Count, isWide ? columns : 1, new EmbeddingArgs
        {
            Table = Pointer(table), Tokens = Pointer(tokens), Y = Pointer(y), N = tokens.Count, V = table.Shape[0], D = width, IsLong = IsLong(tokens), IsWide = isWide ? 1 : 0,
        });
    }

    internal override void EmbeddingBackward(Tensor tokens, Tensor dy, Tensor dTable)
    {
        (long count, long width) = (tokens.Count, dTable.Shape[1]);
        if (count == 0 || width == 0) return;
        using Tensor pairs = SortTokens(tokens, dTable.Shape[0]);
        long chunks = (count + EmbeddingRun - 1) / EmbeddingRun;
        using Tensor heads = Tensor.Empty([chunks, width], DType.Float32, dy.Device);
        int threads = RowThreads(width, EmbeddingColumns), slices = Blocks("Embedding", width, (long)threads * EmbeddingColumns);
        var args = new EmbeddingBackwardArgs
        {
            Pairs = Pointer(pairs), Dy = Pointer(dy), Heads = Pointer(heads), Dtable = Pointer(dTable), N = count, D = width, Slices = slices,
            IsWide = IsWide(dy, width) && IsWide(dTable, width) && IsWide(heads, width) ? 1 : 0,
        };
        Kernel(EmbeddingFile, $"embedding_runs<{dy.DType}>").Launch(Blocks("Embedding", chunks * slices), threads, 0, args);
        Kernel(EmbeddingFile, $"embedding_heads").Launch(Blocks("Embedding", (chunks - 1) * slices), threads, 0, args);
    }

    /// <summary>Pairs of a token and its place, token·2³² + i, sorted by token; places of the same token stay in order.</summary>
    private Tensor SortTokens(Tensor tokens, long vocabulary)
    {
        long count = Size32("Embedding", "the number of tokens", tokens.Count);
        int keyBits = 64 - BitOperations.LeadingZeroCount((ulong)Math.Max(0, Size32("Embedding", "V", vocabulary) - 1));
        int passes = Math.Max(1, (keyBits + SortBits - 1) / SortBits), bits = Math.Max(2, (keyBits + passes - 1) / passes);    // the scan reads 4 counts at a time
        long tile = Math.Max(SortTile, (count + SortTiles - 1) / SortTiles), tiles = (count + tile - 1) / tile;
        using Tensor counts = Tensor.Empty([1L << bits, tiles], DType.Int32, tokens.Device);
        Tensor from = Tensor.Empty([count], DType.Int64, tokens.Device), to = Tensor.Empty([count], DType.Int64, tokens.Device);
        for (int pass = 0; pass < passes; pass++)
        {
            var args = new EmbeddingSortArgs
            {
                Tokens = Pointer(tokens), From = pass == 0 ? 0 : Pointer(from), To = Pointer(to), Counts = Pointer(counts),
                N = count, V = vocabulary, Tile = tile, Tiles = tiles, IsLong = IsLong(tokens), Shift = pass * bits, Bits = bits,
            };
            int blocks = Blocks("Embedding", tiles, SortWarps);
            Kernel(EmbeddingFile, $"embedding_count").Launch(blocks, SortWarps * 32, 0, args);
            Kernel(EmbeddingFile, $"embedding_scan").Launch(1, ScanThreads, 0, new EmbeddingScanArgs { Counts = Pointer(counts), Length = counts.Count });
            Kernel(EmbeddingFile, $"embedding_scatter").Launch(blocks, SortWarps * 32, 0, args);
            (from, to) = (to, from);
        }
        to.Dispose();
        return from;
    }

    private static int IsLong(Tensor indices) => indices.DType == DType.Int64 ? 1 : 0;
}
