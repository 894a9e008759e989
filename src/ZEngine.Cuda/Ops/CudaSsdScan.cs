using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string SsdForwardFile = "SsdScanForward.cu", SsdBackwardFile = "SsdScanBackward.cu";

    /// <summary>Mirrors SsdShape in kernels/common/Ssd.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdShape
    {
        public ulong X, Dt, B, C, Z, A, D, DtBias, Starts, FirstChunks;
        public long XBatch, XStep, XHead, DtBatch, DtStep, BBatch, BStep, BGroup, CBatch, CStep, CGroup, ZBatch, ZStep, ZHead, L;
        public int H, P, G, N, Q, Sequences, ChunksPerRow, HasSoftplus, IsSkipPerChannel, IsXWide, IsBcWide, IsYWide, IsStateWide;
        public float MinDelta, MaxDelta;
    }

    /// <summary>Mirrors SsdForwardArgs in kernels/SsdScanForward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdForwardArgs
    {
        public ulong Y, Ungated, Final, States, Initial;
        public SsdShape Shape;
    }

    /// <summary>Mirrors SsdStateBackwardArgs in kernels/SsdScanBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdStateBackwardArgs
    {
        public ulong Dy, Ungated, Dfinal, Dz, Gated, Dstates, Dinitial;
        public SsdShape Shape;
    }

    /// <summary>Mirrors SsdChunkBackwardArgs in kernels/SsdScanBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdChunkBackwardArgs
    {
        public ulong Dy, States, Dstates, Dx, Ddt, DB, DC, Sums;
        public SsdShape Shape;
        public long Rows;
        public int Shares, HeadsOfShare, SumsOfHead, IsDyWide;
    }

    /// <summary>Mirrors SsdSumArgs in kernels/SsdScanBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdSumArgs
    {
        public ulong DBShares, DCShares, Sums, DB, DC, DA, DBias, DD;
        public long Chunks, Count;
        public int H, Shares, SumsOfHead, ColumnBlocks;
    }

    internal override long SsdChunkLength(long wanted, long length, long headDimension, long states) => SsdPlan.ChunkLength(wanted, length);

    internal override void SsdScanForward(SsdScanInputs x, Tensor y, Tensor finalState, Tensor? states, Tensor? ungated)
    {
        using Tensor? table = UploadSsdTable(x);
        var args = new SsdForwardArgs
        {
            Y = Pointer(y), Ungated = Pointer(ungated), Final = Pointer(finalState), States = Pointer(states), Initial = Pointer(x.InitialState), Shape = ShapeOf(x, table, y),
        };
        long heads = args.Shape.Sequences * (long)args.Shape.H;
        if (args.Shape.L == 1 && states is null)
        {
            args.Shape.IsStateWide = IsSsdStepWide(x, finalState) ? 1 : 0;
            Kernel(SsdForwardFile, $"ssd_scan_step<{y.DType}>").Launch(Blocks("SsdScan", heads * SsdPlan.Slices(args.Shape.P, SsdPlan.StepChannels)), SsdPlan.Threads, 0, args);
            return;
        }
        SsdPlan plan = SsdPlan.For(args.Shape.N, y.DType);
        Kernel(SsdForwardFile, $"ssd_scan_forward<{y.DType}, {plan.Tiles}>").Launch(Blocks("SsdScan", heads * SsdPlan.Slices(args.Shape.P, plan.Width)), SsdPlan.Threads, plan.SharedBytes, args);
    }

    internal override void SsdScanBackward(SsdScanInputs x, Tensor states, Tensor? ungated, Tensor dy, Tensor? dFinalState, SsdScanInputs d)
    {
        using Tensor? table = UploadSsdTable(x);
        SsdShape shape = ShapeOf(x, table, dy);
        using Tensor dStates = Tensor.EmptyLike(states);
        using Tensor? gated = x.Z is null ? null : Tensor.EmptyLike(dy);
        int tile = SsdPlan.TileBytes(dy.DType);
        long borders = (long)shape.H * SsdPlan.Slices(shape.P, SsdPlan.Side) * SsdPlan.Slices(shape.N, SsdPlan.Side);
        Kernel(SsdBackwardFile, $"ssd_scan_state_backward<{dy.DType}>").Launch(Blocks("SsdScan", shape.Sequences * borders), SsdPlan.Threads, 2 * tile, new SsdStateBackwardArgs
        {
            Dy = Pointer(dy), Ungated = Pointer(ungated), Dfinal = Pointer(dFinalState), Dz = Pointer(d.Z), Gated = Pointer(gated), Dstates = Pointer(dStates), Dinitial = Pointer(d.InitialState), Shape = shape,
        });

        long chunks = x.Chunks();
        (int shares, int headsOfShare) = SsdPlan.Shares(chunks * shape.G, shape.H / shape.G, dy.DType, device.Multiprocessors);
        int sumsOfHead = 2 + (x.D is null ? 0 : shape.IsSkipPerChannel != 0 ? shape.P : 1);
        using Tensor dB = Tensor.Empty([shares, x.B.Count], DType.Float32, dy.Device), dC = Tensor.Empty([shares, x.C.Count], DType.Float32, dy.Device);
        using Tensor sums = Tensor.Empty([chunks, shape.H, sumsOfHead], DType.Float32, dy.Device);
        Kernel(SsdBackwardFile, $"ssd_scan_chunk_backward<{dy.DType}>").Launch(Blocks("SsdScan", chunks * shape.G * shares), SsdPlan.Threads, 5 * tile, new SsdChunkBackwardArgs
        {
            Dy = Pointer(gated ?? dy), States = Pointer(states), Dstates = Pointer(dStates), Dx = Pointer(d.X), Ddt = Pointer(d.Dt), DB = Pointer(dB), DC = Pointer(dC), Sums = Pointer(sums),
            Shape = shape, Rows = x.X.Shape[0] * shape.L, Shares = shares, HeadsOfShare = headsOfShare, SumsOfHead = sumsOfHead, IsDyWide = IsWide(gated ?? dy, shape.P) ? 1 : 0,
        });
        int columnBlocks = Blocks("SsdScan", (long)shape.H * sumsOfHead, SsdPlan.ColumnsOfBlock);
        Kernel(SsdBackwardFile, $"ssd_scan_sum_backward<{dy.DType}>").Launch(Blocks("SsdScan", columnBlocks + SsdPlan.Slices(x.B.Count, SsdPlan.Threads)), SsdPlan.Threads, 0, new SsdSumArgs
        {
            DBShares = Pointer(dB), DCShares = Pointer(dC), Sums = Pointer(sums), DB = Pointer(d.B), DC = Pointer(d.C), DA = Pointer(d.A), DBias = Pointer(d.DtBias), DD = Pointer(d.D),
            Chunks = chunks, Count = x.B.Count, H = shape.H, Shares = shares, SumsOfHead = sumsOfHead, ColumnBlocks = columnBlocks,
        });
    }

    /// <summary>Of packed sequences: where each begins, then the number of its first chunk; one more of both than there are sequences.</summary>
    private Tensor? UploadSsdTable(SsdScanInputs x)
    {
        if (x.Options.Layout is not { } layout) return null;
        var table = new long[2 * (layout.Count + 1)];
        layout.CuSeqlens.CopyTo(table);
        for (int i = 0; i < layout.Count; i++)
            table[layout.Count + 2 + i] = table[layout.Count + 1 + i] + SsdPlan.Slices(layout.End(i) - layout.Start(i), x.Options.ChunkLength);
        return Upload<long>(table);
    }

    private static SsdShape ShapeOf(SsdScanInputs x, Tensor? table, Tensor y)
    {
        int heads = Size32("SsdScan", "H", x.X.Shape[2]), channels = Size32("SsdScan", "P", x.X.Shape[3]), states = Size32("SsdScan", "N", x.B.Shape[3]);
        if (states > SsdPlan.MaxStates) throw new NotSupportedException($"SsdScan: N is {states}, the kernels take at most {SsdPlan.MaxStates} states.");
        int sequences = x.Options.Layout?.Count ?? Size32("SsdScan", "B", x.X.Shape[0]);
        return new SsdShape
        {
            X = Pointer(x.X), Dt = Pointer(x.Dt), B = Pointer(x.B), C = Pointer(x.C), Z = Pointer(x.Z), A = Pointer(x.A), D = Pointer(x.D), DtBias = Pointer(x.DtBias),
            Starts = Pointer(table), FirstChunks = table is null ? 0 : Pointer(table) + (ulong)(sequences + 1) * sizeof(long),
            XBatch = x.X.Strides[0], XStep = x.X.Strides[1], XHead = x.X.Strides[2], DtBatch = x.Dt.Strides[0], DtStep = x.Dt.Strides[1],
            BBatch = x.B.Strides[0], BStep = x.B.Strides[1], BGroup = x.B.Strides[2], CBatch = x.C.Strides[0], CStep = x.C.Strides[1], CGroup = x.C.Strides[2],
            ZBatch = x.Z?.Strides[0] ?? 0, ZStep = x.Z?.Strides[1] ?? 0, ZHead = x.Z?.Strides[2] ?? 0,
            L = x.X.Shape[1], H = heads, P = channels, G = Size32("SsdScan", "G", x.B.Shape[2]), N = states, Q = (int)x.Options.ChunkLength, Sequences = sequences,
            ChunksPerRow = Size32("SsdScan", "chunks of a sequence", SsdPlan.Slices(x.X.Shape[1], x.Options.ChunkLength)),
            HasSoftplus = x.Options.HasSoftplus ? 1 : 0, IsSkipPerChannel = x.D is { Rank: 2 } ? 1 : 0, MinDelta = x.Options.MinDelta, MaxDelta = x.Options.MaxDelta,
            IsXWide = HasWideRows(x.X) ? 1 : 0, IsBcWide = HasWideRows(x.B) && HasWideRows(x.C) ? 1 : 0,
            IsYWide = IsWide(y, channels) && (x.Z is null || HasWideRows(x.Z)) ? 1 : 0, IsStateWide = channels % 4 == 0 ? 1 : 0,
        };
    }

    /// <summary>Whether every row of the last axis begins at a multiple of 16 bytes.</summary>
    private static bool HasWideRows(Tensor tensor)
    {
        int elements = WideElements(tensor.DType);
        bool isWide = tensor.Address % WideBytes == 0;
        for (int axis = 0; axis < tensor.Rank - 1; axis++) isWide &= tensor.Shape[axis] == 1 || tensor.Strides[axis] % elements == 0;
        return isWide;
    }

    private static bool IsSsdStepWide(SsdScanInputs x, Tensor finalState) =>
        x.B.Shape[3] % 4 == 0 && HasWideRows(x.B) && HasWideRows(x.C) && IsAligned(x.InitialState, 4) && IsAligned(finalState, 4);
}

/// <summary>Tiles of kernels/SsdScanForward.cu and kernels/SsdScanBackward.cu: a pure function of sizes and types.</summary>
/// <param name="Tiles">Tiles of 64 states that a block holds in registers.</param>
/// <param name="Width">Channels of a block.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block of the forward kernel.</param>
internal readonly record struct SsdPlan(int Tiles, int Width, int SharedBytes)
{
    public const int Threads = 256, Steps = 64, Side = 64, MaxStates = 256, StepChannels = 32, ColumnsOfBlock = 32;
    private const int PadBytes = 16, HalfHeads = 16, FloatHeads = 8, LeastHeads = 2, BlocksOfMultiprocessor = 2;

    public static SsdPlan For(int states, DType type)
    {
        int element = ElementBytes(type), tiles = states <= 64 ? 1 : states <= 128 ? 2 : 4, width = element == 2 ? 64 : 32, slice = element == 2 && tiles > 1 ? 128 : 64;
        int rowOfStates = slice * element + PadBytes, rowOfChannels = width * element + PadBytes;
        return new(tiles, width, 2 * Steps * rowOfStates + (2 * Steps + 64 * tiles) * rowOfChannels);
    }

    public static long ChunkLength(long wanted, long length) => wanted > 0 ? Math.Min(wanted, Steps) : Math.Clamp(length, 1, Steps);

    /// <summary>Bytes of a tile of the backward kernels.</summary>
    public static int TileBytes(DType type) => Side * (Side * ElementBytes(type) + PadBytes);

    public static long Slices(long size, long width) => (size + width - 1) / width;

    /// <summary>
    /// How the heads of a group are shared out among blocks: as few shares as fill the device, each of no more heads than a block's shared memory holds sums of, and
    /// of two at least, which share C·Bᵀ and halve what the shares leave to add up.
    /// </summary>
    public static (int Shares, int Heads) Shares(long blocks, int headsOfGroup, DType type, int multiprocessors)
    {
        int most = ElementBytes(type) == 2 ? HalfHeads : FloatHeads;
        long wanted = Math.Clamp(Slices((long)multiprocessors * BlocksOfMultiprocessor, Math.Max(1, blocks)), 1, Math.Max(1, headsOfGroup));
        int heads = (int)Math.Clamp(headsOfGroup / wanted, Math.Clamp(headsOfGroup, 1, LeastHeads), most);
        return ((int)Slices(headsOfGroup, heads), heads);
    }

    // Float16 becomes Float32 in tiles: its range is too small for intermediate results.
    private static int ElementBytes(DType type) => type == DType.BFloat16 ? 2 : 4;
}
