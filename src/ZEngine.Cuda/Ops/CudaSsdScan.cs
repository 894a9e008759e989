using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    /// <summary>Mirrors SsdShape in kernels/common/Ssd.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct SsdShape
    {
        public ulong X, Dt, B, C, Z, A, D, DtBias, Starts, FirstChunks;
        public long XBatch, XStep, XHead, DtBatch, DtStep, BBatch, BStep, BGroup, CBatch, CStep, CGroup, ZBatch, ZStep, ZHead, L;
        public int H, P, G, N, Q, Sequences, ChunksPerRow, HasSoftplus, HasLogA, IsSkipPerChannel, IsXWide, IsBcWide, IsYWide, IsStateWide;
        public float MinDelta, MaxDelta;
    }

    /// <summary>Mirrors SsdConvolution in kernels/common/SsdConvolution.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdConvolution
    {
        public ulong Weight, Bias, Initial, Final;
        public long StateStep;
        public int K;
    }

    /// <summary>Mirrors SsdForwardArgs in kernels/common/SsdForward.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdForwardArgs
    {
        public ulong Y, Ungated, Final, States, Initial, Carried, Norm, Squares, Convolved;
        public SsdConvolution Convolution;
        public SsdShape Shape;
        public int Segments, ChunksOfSegment, Units;
    }

    /// <summary>Mirrors SsdStateForwardArgs in kernels/SsdScanForward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdStateForwardArgs
    {
        public ulong Initial, Carried;
        public SsdShape Shape;
        public int Segments, ChunksOfSegment;
    }

    /// <summary>Mirrors SsdStepArgs in kernels/SsdScanStep.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdStepArgs
    {
        public ulong Y, Final, Initial, Singles;
        public SsdShape Shape;
    }

    /// <summary>Mirrors SsdStateBackwardArgs in kernels/SsdScanStateBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdStateBackwardArgs
    {
        public ulong Dy, Dfinal, Carried;
        public SsdShape Shape;
        public int Segments, ChunksOfSegment;
    }

    /// <summary>Mirrors SsdChunkArgs in kernels/common/SsdChunk.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct SsdChunkArgs
    {
        public ulong Dy, States, Dx, Ddt, Sums;
        public SsdShape Shape;
        public long DxStep, DdtStep;
        public int Shares, HeadsOfShare, SumsOfHead, IsDyWide;
    }

    /// <summary>Mirrors SsdBackwardArgs in kernels/SsdScanBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct SsdBackwardArgs
    {
        public ulong Ungated, Dfinal, Carried, Dz, Dinitial, DB, DC, Slots, Handed, TurnSums, Turns;
        public SsdChunkArgs Chunk;
        public long Chunks, DBStep, DCStep;
        public int Segments, ChunksOfSegment, Passes, SharedSlots, SlotsOfBlock, IsBeforeKept, IsGroupWide;
    }

    /// <summary>Mirrors SsdSumArgs in kernels/SsdScanSumBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SsdSumArgs
    {
        public ulong Sums, LogA, DA, DBias, DD;
        public long Chunks;
        public int H, SumsOfHead;
    }

    internal override long SsdChunkLength(long wanted, long length, long headDimension, long states) => SsdPlan.ChunkLength(wanted, length);

    internal override Tensor SsdStates(SsdScanInputs x)
    {
        long every = SsdPlan.ChunksOfBorder, sequences = x.Options.Layout?.Count ?? x.X.Shape[0];
        // As SsdSequence in kernels/common/Ssd.cuh counts them.
        return Tensor.Empty([(x.Chunks() + (sequences * (every - 1))) / every, x.X.Shape[2], x.B.Shape[3], x.X.Shape[3]], x.X.DType == DType.BFloat16 ? DType.BFloat16 : DType.Float32, x.X.Device);
    }

    internal override long SsdSquares(SsdScanInputs x) => x.X.Shape[2] * SsdPlan.Slices(x.X.Shape[3], SsdPlan.WidthOf((int)x.B.Shape[3], x.X.DType));

    internal override bool SsdConvolves(SsdScanInputs x, long taps) => x.X.Count > 0 && x.X.Shape[1] > 1 && PlanOf(x, ShapeOf(x, null, x.X)).Convolves(taps);

    private SsdPlan PlanOf(SsdScanInputs x, in SsdShape shape) => SsdPlan.For(
        shape.N, shape.P, shape.H, shape.G, x.X.DType, shape.Sequences, LongestSequence(x), shape.Q, device.Multiprocessors, device.SharedBytesPerBlock);

    internal override void SsdScanForward(SsdScanInputs x, Tensor y, Tensor finalState, Tensor? states, Tensor? ungated, SsdGate? gate, SsdInput? input)
    {
        using Tensor? table = UploadSsdTable(x);
        SsdShape shape = ShapeOf(x, table, y);
        // A step by itself leaves nothing for others. Packed sequences of one step are worked out so too, as they would be alone.
        bool areSteps = states is null && ungated is null && gate is null && input is null;
        long[]? singles = areSteps ? x.Options.Layout?.Singles() : null;
        if (areSteps && shape.L == 1 || singles?.Length == shape.Sequences)
        {
            SsdScanSteps(x, shape, y, finalState, singles);
            return;
        }
        SsdPlan plan = PlanOf(x, shape);
        using Tensor? carried = plan.Segments == 1 ? null : Tensor.Empty([shape.Sequences, plan.Segments - 1, shape.H, shape.P, shape.N], DType.Float32, y.Device);
        if (carried is not null)
        {
            long blocks = shape.Sequences * (long)shape.H * SsdPlan.Slices(shape.P, SsdPlan.Side) * SsdPlan.Slices(shape.N, SsdPlan.Side);
            Kernel("SsdScanForward.cu", $"ssd_scan_state_forward<{y.DType}>").Launch(Blocks("SsdScan", blocks), SsdPlan.Threads, 2 * SsdPlan.TileBytes(y.DType), new SsdStateForwardArgs
            {
                Initial = Pointer(x.InitialState), Carried = Pointer(carried), Shape = shape, Segments = plan.Segments, ChunksOfSegment = plan.ChunksOfSegment,
            });
        }
        (string file, string name, int threads) = SsdPlan.ElementBytes(y.DType) == 2 ? ("SsdScanForward.cu", "ssd_scan_forward", SsdPlan.WarpThreads) : ("SsdScanForwardFloat.cu", "ssd_scan_forward_float", SsdPlan.Threads);
        Kernel(file, $"{name}<{y.DType}, {plan.Tiles}>").Launch(Blocks("SsdScan", shape.Sequences * (long)plan.Segments * shape.G * plan.Blocks), threads, plan.SharedBytes, new SsdForwardArgs
        {
            Y = Pointer(y), Ungated = Pointer(ungated), Final = Pointer(finalState), States = Pointer(states), Initial = Pointer(x.InitialState), Carried = Pointer(carried),
            Norm = Pointer(gate?.Weight), Squares = Pointer(gate?.Squares), Convolved = Pointer(input?.Convolved), Convolution = ConvolutionOf(input),
            Shape = shape, Segments = plan.Segments, ChunksOfSegment = plan.ChunksOfSegment, Units = plan.Units,
        });
        if (singles is { Length: > 0 }) SsdScanSteps(x, shape, y, finalState, singles);
    }

    /// <summary>Of packed sequences those of one step; without, all of them.</summary>
    private void SsdScanSteps(SsdScanInputs x, in SsdShape shape, Tensor y, Tensor finalState, long[]? singles)
    {
        using Tensor? numbers = singles is null ? null : Upload<long>(singles);
        long blocks = (singles?.Length ?? shape.Sequences) * (long)shape.H * SsdPlan.Slices(shape.P, SsdPlan.StepChannels);
        Kernel("SsdScanStep.cu", $"ssd_scan_step<{y.DType}>").Launch(Blocks("SsdScan", blocks), SsdPlan.Threads, 0, new SsdStepArgs
        {
            Y = Pointer(y), Final = Pointer(finalState), Initial = Pointer(x.InitialState), Singles = Pointer(numbers), Shape = shape with { IsStateWide = IsSsdStepWide(x, finalState) ? 1 : 0 },
        });
    }

    private static SsdConvolution ConvolutionOf(SsdInput? input) => input is null ? default : new SsdConvolution
    {
        Weight = Pointer(input.Convolution.Weight), Bias = Pointer(input.Convolution.Bias), Initial = Pointer(input.Convolution.InitialState), Final = Pointer(input.FinalState),
        StateStep = input.FinalState.Strides[1], K = (int)input.Convolution.Weight.Shape[1],
    };

    private static long LongestSequence(SsdScanInputs x)
    {
        if (x.Options.Layout is not { } layout) return x.X.Shape[1];
        long longest = 0;
        for (int i = 0; i < layout.Count; i++) longest = Math.Max(longest, layout.End(i) - layout.Start(i));
        return longest;
    }

    /// <summary>
    /// One kernel that walks the chunks backward; before it, where there are segments, one that makes the gradients of the states behind them; and one that adds up what chunks leave.
    /// </summary>
    internal override void SsdScanBackward(SsdScanInputs x, Tensor states, Tensor? ungated, Tensor dy, Tensor? dFinalState, SsdScanInputs d)
    {
        using Tensor? table = UploadSsdTable(x);
        SsdShape shape = ShapeOf(x, table, dy);
        (DType type, Device of) = (dy.DType, dy.Device);
        long chunks = Size32("SsdScan", "chunks", x.Chunks());
        int sumsOfHead = 2 + (x.D is null ? 0 : shape.IsSkipPerChannel != 0 ? shape.P : 1), slotFloats = SsdPlan.SlotFloats(type);
        _ = Size32("SsdScan", "H·(2 + skips)", shape.H * (long)sumsOfHead);
        SsdSweepPlan plan = SsdSweepPlan.For(shape.N, shape.P, shape.H, shape.G, type, shape.Sequences, LongestSequence(x), shape.Q, device.Multiprocessors, device.SharedBytesPerBlock, x.Options.Layout is not null);
        long blocks = (long)shape.Sequences * plan.Segments * shape.G * plan.Shares, slices = SsdPlan.Slices(shape.N, SsdPlan.Side), pieces = SsdPlan.Slices(shape.P, SsdPlan.Piece(type));
        using Tensor sums = Tensor.Empty([chunks, shape.H, sumsOfHead], DType.Float32, of);
        using Tensor? carried = plan.Segments == 1 ? null : Tensor.Empty([shape.Sequences, plan.Segments - 1, shape.H, pieces, slices, slotFloats], DType.Float32, of);
        using Tensor? slots = plan.SlotsOfBlock == 0 ? null : Tensor.Empty([blocks, plan.SlotsOfBlock, slotFloats], DType.Float32, of);
        using Tensor? handed = plan.Passes == 1 ? null : Tensor.Empty([blocks, plan.Heads, pieces * slotFloats + SsdSweepPlan.HandedSums], DType.Float32, of);
        using Tensor? turnSums = plan.Shares == 1 ? null : Tensor.Empty([chunks, shape.G, 2, slices, SsdPlan.Side * SsdPlan.Side], DType.Float32, of);
        using Tensor turns = Tensor.Zeros([chunks * shape.G * plan.Passes + 1], DType.Int32, of);
        if (carried is not null)
        {
            (int tiles, int units) = SsdPlan.StateTiles(shape.N, shape.P, shape.H, shape.G, type, shape.Sequences, device.Multiprocessors);
            long teams = shape.Sequences * (shape.H * pieces * SsdPlan.Slices(shape.N, SsdPlan.Side * tiles));
            Kernel("SsdScanStateBackward.cu", $"ssd_scan_state_backward<{type}, {tiles}, {units}>").Launch(Blocks("SsdScan", teams / units), SsdPlan.Threads * units, SsdPlan.StateShared(tiles, units, type), new SsdStateBackwardArgs
            {
                Dy = Pointer(dy), Dfinal = Pointer(dFinalState), Carried = Pointer(carried), Shape = shape, Segments = plan.Segments, ChunksOfSegment = plan.ChunksOfSegment,
            });
        }
        Kernel("SsdScanBackward.cu", $"ssd_scan_backward<{type}, {plan.Slices}, {plan.Passes == 1}>").Launch(Blocks("SsdScan", blocks), SsdPlan.Threads, plan.SharedBytes, new SsdBackwardArgs
        {
            Ungated = Pointer(ungated), Dfinal = Pointer(dFinalState), Carried = Pointer(carried), Dz = Pointer(d.Z), Dinitial = Pointer(d.InitialState), DB = Pointer(d.B), DC = Pointer(d.C),
            Slots = Pointer(slots), Handed = Pointer(handed), TurnSums = Pointer(turnSums), Turns = Pointer(turns), Chunks = chunks, DBStep = StepStride(d.B), DCStep = StepStride(d.C),
            Chunk = new SsdChunkArgs
            {
                Dy = Pointer(dy), States = Pointer(states), Dx = Pointer(d.X), Ddt = Pointer(d.Dt), Sums = Pointer(sums), Shape = shape, DxStep = StepStride(d.X), DdtStep = StepStride(d.Dt),
                Shares = plan.Shares, HeadsOfShare = plan.Heads, SumsOfHead = sumsOfHead, IsDyWide = IsWide(dy, shape.P) && HasWideRows(d.X) ? 1 : 0,
            },
            Segments = plan.Segments, ChunksOfSegment = plan.ChunksOfSegment, Passes = plan.Passes, SharedSlots = plan.SharedSlots, SlotsOfBlock = plan.SlotsOfBlock,
            IsBeforeKept = plan.IsBeforeKept ? 1 : 0, IsGroupWide = HasWideRows(d.B) && HasWideRows(d.C) && shape.N % WideElements(type) == 0 ? 1 : 0,
        });
        Kernel("SsdScanSumBackward.cu", $"ssd_scan_sum_backward").Launch(Blocks("SsdScan", (long)shape.H * sumsOfHead, SsdPlan.ColumnsOfBlock), SsdPlan.Threads, 0, new SsdSumArgs
        {
            Sums = Pointer(sums), LogA = x.Options.HasLogA ? Pointer(x.A) : 0, DA = Pointer(d.A), DBias = Pointer(d.DtBias), DD = Pointer(d.D), Chunks = chunks, H = shape.H, SumsOfHead = sumsOfHead,
        });
    }

    /// <summary>Elements from a step of a tensor [B, L, ...] to the next: its batches follow one another.</summary>
    private static long StepStride(Tensor tensor) => tensor.Shape[1] == 1 ? tensor.Strides[0] : tensor.Strides[1];

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
        _ = Size32("SsdScan", "H·P", heads * (long)channels);
        int sequences = x.Options.Layout?.Count ?? Size32("SsdScan", "B", x.X.Shape[0]);
        return new SsdShape
        {
            X = Pointer(x.X), Dt = Pointer(x.Dt), B = Pointer(x.B), C = Pointer(x.C), Z = Pointer(x.Z), A = Pointer(x.A), D = Pointer(x.D), DtBias = Pointer(x.DtBias),
            Starts = Pointer(table), FirstChunks = table is null ? 0 : Pointer(table) + (ulong)(sequences + 1) * sizeof(long),
            XBatch = x.X.Strides[0], XStep = StepOf(x.X), XHead = x.X.Strides[2], DtBatch = x.Dt.Strides[0], DtStep = x.Dt.Strides[1],
            BBatch = x.B.Strides[0], BStep = StepOf(x.B), BGroup = x.B.Strides[2], CBatch = x.C.Strides[0], CStep = StepOf(x.C), CGroup = x.C.Strides[2],
            ZBatch = x.Z?.Strides[0] ?? 0, ZStep = x.Z?.Strides[1] ?? 0, ZHead = x.Z?.Strides[2] ?? 0,
            L = x.X.Shape[1], H = heads, P = channels, G = Size32("SsdScan", "G", x.B.Shape[2]), N = states, Q = (int)x.Options.ChunkLength, Sequences = sequences,
            ChunksPerRow = Size32("SsdScan", "chunks of a sequence", SsdPlan.Slices(x.X.Shape[1], x.Options.ChunkLength)),
            HasSoftplus = x.Options.HasSoftplus ? 1 : 0, HasLogA = x.Options.HasLogA ? 1 : 0, IsSkipPerChannel = x.D is { Rank: 2 } ? 1 : 0, MinDelta = x.Options.MinDelta, MaxDelta = x.Options.MaxDelta,
            IsXWide = HasWideRows(x.X) ? 1 : 0, IsBcWide = HasWideRows(x.B) && HasWideRows(x.C) ? 1 : 0,
            IsYWide = IsWide(y, channels) && (x.Z is null || HasWideRows(x.Z)) ? 1 : 0, IsStateWide = channels * SsdPlan.ElementBytes(y.DType) % WideBytes == 0 ? 1 : 0,
        };
    }

    /// <summary>Elements from a step of an input to the next; 0 where there is one: copies of steps that there are not must begin at a multiple of 16 bytes too.</summary>
    private static long StepOf(Tensor tensor) => tensor.Shape[1] == 1 ? 0 : tensor.Strides[1];

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
