using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

/// <summary>How channels and states of a selective scan are dealt out: by sizes alone, and never so that a sequence's numbers depend on what else is computed.</summary>
/// <param name="States">States of one thread of the forward kernel.</param>
/// <param name="Parts">Threads that share a channel.</param>
/// <param name="Width">Channels of a block.</param>
internal readonly record struct SelectiveScanPlan(int States, int Parts, int Width)
{
    /// <summary>As in kernels/SelectiveScanState.cu.</summary>
    private const int Steps = 8;

    private const int FewStates = 8, ManyStates = 16, MaxStates = 256, MinWidth = 32, MaxWidth = 128;

    /// <summary>Channels of a backward block, and blocks that add to the same sums for B and C; as in kernels/common/SelectiveScanWalk.cuh.</summary>
    public const int BackwardWidth = 64, BackwardChain = 16;

    /// <summary>Chains of backward blocks, of which each waits for the one before it.</summary>
    public static int BackwardChains(long blocks) => (int)((blocks + BackwardChain - 1) / BackwardChain);

    public int Threads => Width * Parts;

    /// <summary>The forward kernel's plan: as many channels share B and C as leave each multiprocessor a block.</summary>
    public static SelectiveScanPlan For(long n, long channelsPerGroup, long groupsOfSequences, int multiprocessors)
    {
        if (n > MaxStates) throw new NotSupportedException($"SelectiveScan: N is {n:N0}, the kernels take at most {MaxStates} states.");
        int states = n <= FewStates ? FewStates : ManyStates, parts = Math.Max(1, (int)((n + states - 1) / states));
        int width = MaxWidth;
        while (width > MinWidth && (width * parts > MaxWidth || width / 2 >= channelsPerGroup || groupsOfSequences * ((channelsPerGroup + width - 1) / width) < multiprocessors)) width /= 2;
        return new SelectiveScanPlan(states, parts, width);
    }

    /// <summary>Dynamic shared memory of a forward block, whose tiles have as many steps as 16 bytes have elements.</summary>
    public int SharedBytes(int n, int elementSize)
    {
        int steps = 16 / elementSize, rows = Parts == 1 ? 1 : 1 + Parts;
        return 2 * steps * (3 * Width + 2 * n) * elementSize + steps * (2 * States * Parts + 9 * Width / 8 * rows) * sizeof(float);
    }

    /// <summary>Of a backward block: BackwardTile in kernels/common/SelectiveScanWalk.cuh, an interval of u and dt, and half of one of z and dy.</summary>
    public static int BackwardSharedBytes(int elementSize) => 70_608 + 3 * ScanSegments.Interval * BackwardWidth * elementSize;

    /// <summary>The same of a block that walks a segment for its end alone.</summary>
    public int SegmentSharedBytes(int n, int elementSize) => 2 * Steps * (3 * Width + n) * elementSize + Steps * (2 * Width + States * Parts) * sizeof(float);
}

/// <summary>
/// Segments of time that are walked at once, where there are too few sequences and channels to occupy a GPU and the sequences are long. They are other roundings than a walk in one,
/// and cannot be the same: a segment's end takes what came before it times one decay, exp(A·ΣΔ), where the walk rounds a product at every step; only walking every sequence both ways at
/// once, whatever its length, would be. So they change bits, and are a function of sizes alone: every device gives the same bits, and a packed sequence is walked in those that it would
/// have alone, whatever the others are. Of a batch the rows are counted, which occupy a GPU as channels do: a row alone may have more segments. The error against float64 is at most twice
/// that of the walk (SelectiveScanTests).
/// </summary>
/// <param name="Count">Segments of a sequence; 1 where it is walked whole.</param>
/// <param name="Steps">Steps of a segment, whole intervals; of the last what is left.</param>
internal readonly record struct ScanSegments(int Count, long Steps)
{
    /// <summary>As kInterval in kernels/common/SelectiveScan.cuh.</summary>
    public const int Interval = 32;

    /// <summary>Warps that occupy the largest GPUs; the least segments that make up for the work that is done twice; the most, as each joins the ends of all before it, and a lane of a warp waits for each; and their least length.</summary>
    private const long Warps = 512, Least = 4, Most = 32, LeastSteps = 256;

    /// <param name="n">States of a channel.</param>
    /// <param name="channels">Channels of a group.</param>
    /// <param name="groups">Groups.</param>
    /// <param name="rows">Rows of the batch; of packed sequences 1.</param>
    /// <param name="steps">Steps of a sequence.</param>
    public static ScanSegments For(long n, long channels, long groups, long rows, long steps)
    {
        if (steps < Least * LeastSteps) return new(1, steps);
        long warps = rows * groups * ((channels + 31) / 32) * ((n + 15) / 16);
        long count = Math.Min(Math.Min(Most, steps / LeastSteps), Warps / Math.Max(1, warps));
        if (count < Least) return new(1, steps);
        long length = ((steps + count - 1) / count + Interval - 1) / Interval * Interval;
        return new((int)((steps + length - 1) / length), length);
    }

    public static ScanSegments For(SelectiveScanInputs x, long rows, long steps) => For(x.A.Shape[1], x.U.Shape[2] / x.B.Shape[2], x.B.Shape[2], rows, steps);
}

internal sealed partial class CudaBackend
{
    private const string SelectiveScanStateFile = "SelectiveScanState.cu", SelectiveScanForwardFile = "SelectiveScanForward.cu", SelectiveScanBackwardFile = "SelectiveScanBackward.cu";

    /// <summary>As in kernels/SelectiveScanBackward.cu: channels and threads of a block, and states of a band.</summary>
    private const int ScanBackWidth = SelectiveScanPlan.BackwardWidth, ScanBackThreads = 128, ScanBand = 16;

    /// <summary>Mirrors ScanSegment in kernels/common/SelectiveScan.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ScanSegment
    {
        public long Begin, End, Kept, Sequence;
        public int Segment, Segments;
    }

    /// <summary>What a call walks: so many sequences in so many segments, of a row or, where they are packed, as the table on the device has them.</summary>
    private sealed record ScanWork(long Sequences, long Segments, ScanSegments OfRow, Tensor? Packed)
    {
        public bool HasSegments => Segments > Sequences;
    }

    /// <summary>Mirrors SelectiveScanShape in kernels/common/SelectiveScan.cuh, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct SelectiveScanShape
    {
        public ulong A, D, DtBias, Packed, Ends, Deltas;
        public long L, Channels, UBatch, UStep, DtBatch, DtStep, ZBatch, ZStep, BBatch, BStep, BGroup, CBatch, CStep, CGroup, SegmentSteps;
        public int N, G, ChannelsPerGroup, BlocksPerGroup, Width, Segments, HasSoftplus, AreStatesWide;
    }

    /// <summary>Mirrors SelectiveScanArgs in kernels/SelectiveScanForward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SelectiveScanArgs
    {
        public ulong U, Dt, B, C, Z, Initial, Y, FinalState, States, Ends, Deltas, Turns;
        public SelectiveScanShape Shape;
    }

    /// <summary>Mirrors SelectiveScanStateArgs in kernels/SelectiveScanState.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SelectiveScanStateArgs
    {
        public ulong Dy, Dt, Z, C, Dfinal, Ends, Deltas;
        public long DyBatch, DyStep;
        public SelectiveScanShape Shape;
    }

    /// <summary>Mirrors SelectiveScanBackwardArgs in kernels/SelectiveScanBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct SelectiveScanBackwardArgs
    {
        public ulong U, Dt, B, C, Z, Dy, States, Dfinal, Du, Ddt, Dz, DB, DC, Dinitial, Partial, Sums, Carry, Turns;
        public long Rows, Words;
        public SelectiveScanShape Shape;
    }

    /// <summary>Mirrors SelectiveScanSumArgs in kernels/SelectiveScanBackward.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SelectiveScanSumArgs
    {
        public ulong Sums, DA, DD, Dbias;
        public long Channels, Segments;
        public int N;
    }

    /// <summary>What the backward kernel walks with everything in shared memory.</summary>
    internal override long SelectiveScanStretch => ScanSegments.Interval;

    internal override void SelectiveScanForward(SelectiveScanInputs x, Tensor y, Tensor finalState, Tensor? states)
    {
        using TensorScope scope = TensorScope.Enter();
        ScanWork work = WorkOf(x);
        SelectiveScanPlan plan = ScanPlan(x, work);
        SelectiveScanShape shape = ScanShape(x, work, plan.Width, IsAligned(finalState, 4));
        if (work.HasSegments) MakeEnds(x, work, ref shape);
        int blocks = ScanBlocks(work, shape);
        Tensor? turns = work.HasSegments ? Tensor.Zeros([blocks + 1L], DType.Int32, y.Device) : null;
        Kernel(SelectiveScanForwardFile, $"selective_scan_forward<{y.DType}, {plan.States}, {IsScanWide(x, y)}, {work.HasSegments}>").Launch(blocks, plan.Threads, plan.SharedBytes(shape.N, y.DType.Size), new SelectiveScanArgs
        {
            U = Pointer(x.U), Dt = Pointer(x.Dt), B = Pointer(x.B), C = Pointer(x.C), Z = Pointer(x.Z), Initial = Pointer(x.InitialState),
            Y = Pointer(y), FinalState = Pointer(finalState), States = Pointer(states),
            Ends = shape.Ends, Deltas = shape.Deltas, Turns = Pointer(turns), Shape = shape,
        });
    }

    internal override void SelectiveScanBackward(SelectiveScanInputs x, Tensor states, Tensor dy, Tensor? dFinalState, SelectiveScanInputs d)
    {
        if (x.U.Shape[0] * x.U.Shape[1] == 0)
        {
            if (d.InitialState is not null) CarryState(dFinalState, d.InitialState);
            foreach (Tensor? parameter in (ReadOnlySpan<Tensor?>)[d.A, d.D, d.DtBias]) parameter?.Clear();
            return;
        }
        using TensorScope scope = TensorScope.Enter();
        ScanWork work = WorkOf(x);
        SelectiveScanShape shape = ScanShape(x, work, ScanBackWidth, IsAligned(dFinalState, 4) && IsAligned(d.InitialState, 4));
        if (work.HasSegments) WalkSegmentsBack(x, work, ScanPlan(x, work), ref shape, dy, dFinalState);
        long n = shape.N;
        int bands = (int)Math.Max(1, (n + ScanBand - 1) / ScanBand), blocks = ScanBlocks(work, shape);
        // One block's sums for B and C wait for the next block's.
        int chains = SelectiveScanPlan.BackwardChains(shape.BlocksPerGroup);
        Tensor? partial = shape.BlocksPerGroup == 1 ? null : Tensor.Empty([2, chains, x.B.Count], DType.Float32, dy.Device);
        Tensor sums = Tensor.Empty([work.Segments, n + 2, shape.Channels], DType.Float32, dy.Device);
        Tensor? carry = bands > 1 ? Tensor.Empty([blocks, bands, ScanBackThreads, 16], DType.Float32, dy.Device) : null;
        long words = checked(2 * x.Stretches(SelectiveScanStretch) * shape.G * bands * chains);
        Tensor turns = Tensor.Zeros([words + 1], DType.Int32, dy.Device);
        Kernel(SelectiveScanBackwardFile, $"selective_scan_backward<{dy.DType}, {IsScanWide(x, dy)}>").Launch(blocks, ScanBackThreads, SelectiveScanPlan.BackwardSharedBytes(dy.DType.Size), new SelectiveScanBackwardArgs
        {
            U = Pointer(x.U), Dt = Pointer(x.Dt), B = Pointer(x.B), C = Pointer(x.C), Z = Pointer(x.Z), Dy = Pointer(dy), States = Pointer(states), Dfinal = Pointer(dFinalState),
            Du = Pointer(d.U), Ddt = Pointer(d.Dt), Dz = Pointer(d.Z), DB = Pointer(d.B), DC = Pointer(d.C), Dinitial = Pointer(d.InitialState),
            Partial = Pointer(partial), Sums = Pointer(sums), Carry = Pointer(carry), Turns = Pointer(turns), Rows = x.U.Shape[0] * shape.L, Words = words, Shape = shape,
        });
        Kernel(SelectiveScanBackwardFile, $"selective_scan_sum_backward").Launch(Blocks("SelectiveScan", (n + 2) * shape.Channels, ColumnsOfBlock), ColumnSumThreads, 0, new SelectiveScanSumArgs
        {
            Sums = Pointer(sums), DA = Pointer(d.A), DD = Pointer(d.D), Dbias = Pointer(d.DtBias), Channels = shape.Channels, Segments = work.Segments, N = shape.N,
        });
    }

    private SelectiveScanPlan ScanPlan(SelectiveScanInputs x, ScanWork work)
    {
        long groups = x.B.Shape[2];
        return SelectiveScanPlan.For(x.A.Shape[1], x.U.Shape[2] / groups, work.Segments * groups, device.Multiprocessors);
    }

    /// <summary>Where segments leave what the others need of them.</summary>
    private static void MakeEnds(SelectiveScanInputs x, ScanWork work, ref SelectiveScanShape shape)
    {
        long borders = work.Segments - work.Sequences;
        Tensor ends = Tensor.Empty([borders, shape.Channels, shape.N], DType.Float32, x.U.Device), deltas = Tensor.Empty([borders, shape.Channels], DType.Float32, x.U.Device);
        (shape.Ends, shape.Deltas) = (Pointer(ends), Pointer(deltas));
    }

    /// <summary>Walks segments back at once for what the others need of them, and gives it to the shape of the launch that follows.</summary>
    private void WalkSegmentsBack(SelectiveScanInputs x, ScanWork work, SelectiveScanPlan plan, ref SelectiveScanShape shape, Tensor dy, Tensor? dFinalState)
    {
        MakeEnds(x, work, ref shape);
        SelectiveScanShape own = shape;
        (own.Width, own.BlocksPerGroup) = (plan.Width, ScanBlocksPerGroup(shape.ChannelsPerGroup, plan.Width));
        Kernel(SelectiveScanStateFile, $"selective_scan_state<{dy.DType}, {plan.States}, {IsScanWide(x, dy)}>").Launch(ScanBlocks(work, own), plan.Threads, plan.SegmentSharedBytes(own.N, dy.DType.Size), new SelectiveScanStateArgs
        {
            Dy = Pointer(dy), Dt = Pointer(x.Dt), Z = Pointer(x.Z), C = Pointer(x.C), Dfinal = Pointer(dFinalState), Ends = shape.Ends, Deltas = shape.Deltas,
            DyBatch = dy.Strides[0], DyStep = dy.Strides[1], Shape = own,
        });
    }

    private ScanWork WorkOf(SelectiveScanInputs x)
    {
        if (x.Layout is not { } layout)
        {
            long rows = x.U.Shape[0];
            var ofRow = ScanSegments.For(x, rows, x.U.Shape[1]);
            return new ScanWork(rows, checked(rows * ofRow.Count), ofRow, null);
        }
        var table = new List<ScanSegment>(layout.Count);
        long kept = 0;
        for (int i = 0; i < layout.Count; i++)
        {
            long start = layout.Start(i), stop = layout.End(i);
            var own = ScanSegments.For(x, 1, stop - start);
            for (int k = 0; k < own.Count; k++)
            {
                long begin = start + k * own.Steps, end = Math.Min(begin + own.Steps, stop);
                table.Add(new ScanSegment { Begin = begin, End = end, Kept = kept, Sequence = i, Segment = k, Segments = own.Count });
                kept += (end - begin + SelectiveScanStretch - 1) / SelectiveScanStretch;
            }
        }
        return new ScanWork(layout.Count, table.Count, default, Upload<ScanSegment>(CollectionsMarshal.AsSpan(table)));
    }

    private static SelectiveScanShape ScanShape(SelectiveScanInputs x, ScanWork work, int width, bool areOtherStatesAligned)
    {
        long channels = x.U.Shape[2], groups = x.B.Shape[2], n = x.A.Shape[1];
        int perGroup = Size32("SelectiveScan", "D / G", channels / groups);
        return new SelectiveScanShape
        {
            A = Pointer(x.A), D = Pointer(x.D), DtBias = Pointer(x.DtBias), Packed = Pointer(work.Packed), L = x.U.Shape[1], Channels = channels,
            UBatch = x.U.Strides[0], UStep = x.U.Strides[1], DtBatch = x.Dt.Strides[0], DtStep = x.Dt.Strides[1], ZBatch = x.Z?.Strides[0] ?? 0, ZStep = x.Z?.Strides[1] ?? 0,
            BBatch = x.B.Strides[0], BStep = x.B.Strides[1], BGroup = x.B.Strides[2], CBatch = x.C.Strides[0], CStep = x.C.Strides[1], CGroup = x.C.Strides[2],
            N = (int)n, G = Size32("SelectiveScan", "G", groups), ChannelsPerGroup = perGroup, BlocksPerGroup = ScanBlocksPerGroup(perGroup, width), Width = width,
            Segments = work.OfRow.Count, SegmentSteps = work.OfRow.Steps, HasSoftplus = x.HasSoftplus ? 1 : 0,
            AreStatesWide = n % 4 == 0 && areOtherStatesAligned && IsAligned(x.A, 4) && IsAligned(x.InitialState, 4) ? 1 : 0,
        };
    }

    private static int ScanBlocksPerGroup(int channels, int width) => (int)(((long)channels + width - 1) / width);

    private static int ScanBlocks(ScanWork work, in SelectiveScanShape shape) => Blocks("SelectiveScan", checked(work.Segments * shape.G * shape.BlocksPerGroup));

    private static bool IsScanWide(SelectiveScanInputs x, Tensor y)
    {
        int elements = WideElements(y.DType);
        if (x.U.Shape[2] / x.B.Shape[2] % elements != 0 || x.B.Shape[3] % elements != 0) return false;
        foreach (Tensor? tensor in (ReadOnlySpan<Tensor?>)[x.U, x.Dt, x.B, x.C, x.Z, y])
        {
            if (!IsAligned(tensor, elements)) return false;
            for (int axis = 0; axis < tensor?.Rank - 1; axis++)
                if (tensor!.Shape[axis] > 1 && tensor.Strides[axis] % elements != 0) return false;
        }
        return true;
    }
}
