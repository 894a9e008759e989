using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string GroupedExpertsFile = "GroupedExperts.cu", GroupedExpertsOp = "GroupedExperts";
    private const int ExpertsSortThreads = 1024, ExpertsTile = 64, ExpertsTileThreads = 128;

    /// <summary>Mirrors ExpertsSortArgs in kernels/GroupedExperts.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ExpertsSortArgs
    {
        public ulong Experts, Begin, Pairs, Places;
        public int Count, E, Skipped, Unused;
    }

    /// <summary>Mirrors ExpertsMultiplyArgs in kernels/GroupedExperts.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ExpertsMultiplyArgs
    {
        public ulong A, B, C, Activated, Begin, Pairs;
        public long Depth, BExpert, BStride;
        public int N, F, E, Slots, IsGathered, IsGated, BType, IsAWide, IsBWide, Function;
    }

    /// <summary>Mirrors ExpertsWeightsArgs in kernels/GroupedExperts.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ExpertsWeightsArgs
    {
        public ulong A, B, C, Begin, Pairs;
        public int M, N, Slots, IsAGathered, IsBGathered, IsAWide, IsBWide, Unused;
    }

    /// <summary>Mirrors ExpertsActivationArgs in kernels/GroupedExperts.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ExpertsActivationArgs
    {
        public ulong Hidden, DActivated, Weights, Places, Activated, DHidden, DWeights;
        public int F, IsGated, Function, Unused;
    }

    /// <summary>Mirrors ExpertsCombineArgs in kernels/GroupedExperts.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ExpertsCombineArgs
    {
        public ulong Rows, Weights, Places, Y;
        public long N;
        public int D, Slots, IsWide, Unused;
    }

    internal override void GroupedExpertsForward(GroupedExpertsInputs x, Tensor hidden, Tensor y)
    {
        var sizes = new ExpertSizes(x);
        using ExpertRows rows = SortExperts(x, sizes);
        using Tensor activated = sizes.NewRows(sizes.F, y), outputs = sizes.NewRows(sizes.D, y);
        MultiplyExperts(sizes, rows, x.X, x.Up, isBAcross: false, hidden, sizes.J, isGathered: true, x, activated);
        MultiplyExperts(sizes, rows, activated, x.Down, isBAcross: false, outputs, sizes.D, isGathered: false);
        CombineExperts(sizes, rows, outputs, x.Weights, y);
    }

    internal override void GroupedExpertsBackward(GroupedExpertsInputs x, Tensor hidden, Tensor dy, Tensor dX, Tensor dWeights, Tensor dUp, Tensor dDown)
    {
        var sizes = new ExpertSizes(x);
        using ExpertRows rows = SortExperts(x, sizes);
        using Tensor activated = sizes.NewRows(sizes.F, dy), dActivated = sizes.NewRows(sizes.F, dy), dHidden = sizes.NewRows(sizes.J, dy), dRows = sizes.NewRows(sizes.D, dy);
        MultiplyExperts(sizes, rows, dy, x.Down, isBAcross: true, dActivated, sizes.F, isGathered: true);
        Kernel(GroupedExpertsFile, $"experts_activation_backward<{dy.DType}>").Launch(sizes.Pairs, ExpertsTileThreads, 0, new ExpertsActivationArgs
        {
            Hidden = Pointer(hidden), DActivated = Pointer(dActivated), Weights = Pointer(x.Weights), Places = Pointer(rows.Places), Activated = Pointer(activated),
            DHidden = Pointer(dHidden), DWeights = Pointer(dWeights), F = sizes.F, IsGated = x.IsGated ? 1 : 0, Function = (int)x.Function,
        });
        MultiplyExpertWeights(sizes, rows, dy, sizes.D, isAGathered: true, activated, sizes.F, isBGathered: false, dDown);
        MultiplyExpertWeights(sizes, rows, dHidden, sizes.J, isAGathered: false, x.X, sizes.D, isBGathered: true, dUp);
        MultiplyExperts(sizes, rows, dHidden, x.Up, isBAcross: true, dRows, sizes.D, isGathered: false);
        CombineExperts(sizes, rows, dRows, null, dX);
    }

    private ExpertRows SortExperts(GroupedExpertsInputs x, in ExpertSizes sizes)
    {
        Device on = x.X.Device;
        var rows = new ExpertRows(Tensor.Empty([sizes.E + 1], DType.Int32, on), Tensor.Empty([sizes.Pairs], DType.Int32, on), Tensor.Empty([sizes.Pairs], DType.Int32, on));
        Kernel(GroupedExpertsFile, $"experts_sort").Launch(sizes.E + 1, ExpertsSortThreads, 0, new ExpertsSortArgs
        {
            Experts = Pointer(x.Experts), Begin = Pointer(rows.Begin), Pairs = Pointer(rows.Pairs), Places = Pointer(rows.Places), Count = sizes.Pairs, E = sizes.E, Skipped = sizes.Skipped,
        });
        return rows;
    }

    /// <summary>c = a·bᵀ for each row with its expert's b [N, K], or a·b with b [K, N] across; with <paramref name="activated"/> also the activation of c.</summary>
    private void MultiplyExperts(in ExpertSizes sizes, ExpertRows rows, Tensor a, Tensor b, bool isBAcross, Tensor c, int width, bool isGathered, GroupedExpertsInputs? activation = null, Tensor? activated = null)
    {
        int depth = (int)(isBAcross ? b.Shape[1] : b.Shape[2]), stride = (int)b.Shape[2];
        bool isGated = activation is { IsGated: true }, isTensorCore = a.DType == b.DType && a.DType != DType.Float32;
        int columns = isGated ? sizes.F : width, span = isGated ? ExpertsTile / 2 : ExpertsTile;
        long tiles = sizes.Pairs == 0 ? 0 : sizes.Pairs / ExpertsTile + sizes.E, columnTiles = (columns + span - 1) / span;
        Kernel(GroupedExpertsFile, $"experts_multiply<{a.DType}, {(isTensorCore ? a.DType : DType.Float32)}, {isBAcross}>").Launch(Blocks(GroupedExpertsOp, tiles * columnTiles), ExpertsTileThreads, 0, new ExpertsMultiplyArgs
        {
            A = Pointer(a), B = Pointer(b), C = Pointer(c), Activated = Pointer(activated), Begin = Pointer(rows.Begin), Pairs = Pointer(rows.Pairs),
            Depth = depth, BExpert = b.Shape[1] * b.Shape[2], BStride = stride, N = width, F = columns, E = sizes.E, Slots = sizes.Slots,
            IsGathered = isGathered ? 1 : 0, IsGated = isGated ? 1 : 0, BType = (int)b.DType, IsAWide = AreRowsWide(a, depth), IsBWide = AreRowsWide(b, stride), Function = (int)(activation?.Function ?? 0),
        });
    }

    /// <summary>c[e] [M, N] = Σ over the rows of an expert of a's row times b's row.</summary>
    private void MultiplyExpertWeights(in ExpertSizes sizes, ExpertRows rows, Tensor a, int m, bool isAGathered, Tensor b, int n, bool isBGathered, Tensor c)
    {
        long tiles = (m + ExpertsTile - 1L) / ExpertsTile * ((n + ExpertsTile - 1L) / ExpertsTile);
        Kernel(GroupedExpertsFile, $"experts_weights<{a.DType}>").Launch(Blocks(GroupedExpertsOp, sizes.E * tiles), ExpertsTileThreads, 0, new ExpertsWeightsArgs
        {
            A = Pointer(a), B = Pointer(b), C = Pointer(c), Begin = Pointer(rows.Begin), Pairs = Pointer(rows.Pairs), M = m, N = n, Slots = sizes.Slots,
            IsAGathered = isAGathered ? 1 : 0, IsBGathered = isBGathered ? 1 : 0, IsAWide = AreRowsWide(a, m), IsBWide = AreRowsWide(b, n),
        });
    }

    private void CombineExperts(in ExpertSizes sizes, ExpertRows rows, Tensor outputs, Tensor? weights, Tensor y)
    {
        bool isWide = AreRowsWide(outputs, sizes.D) == 1 && AreAligned(y) == 1;
        LaunchElements(Kernel(GroupedExpertsFile, $"experts_combine<{y.DType}>"), y.Count, isWide ? WideElements(y.DType) : 1, new ExpertsCombineArgs
        {
            Rows = Pointer(outputs), Weights = Pointer(weights), Places = Pointer(rows.Places), Y = Pointer(y), N = y.Count, D = sizes.D, Slots = sizes.Slots, IsWide = isWide ? 1 : 0,
        });
    }

    /// <summary>Whether dense rows of a width begin at multiples of 16 bytes.</summary>
    private static int AreRowsWide(Tensor tensor, long width) => width % WideElements(tensor.DType) == 0 ? AreAligned(tensor) : 0;

    /// <summary>The first row of each expert; the pair of token and slot of each row; the row of each pair.</summary>
    private sealed record ExpertRows(Tensor Begin, Tensor Pairs, Tensor Places) : IDisposable
    {
        public void Dispose()
        {
            Begin.Dispose();
            Pairs.Dispose();
            Places.Dispose();
        }
    }

    /// <summary>Sizes of a call, which the kernels take as 32-bit numbers.</summary>
    private readonly struct ExpertSizes
    {
        public ExpertSizes(GroupedExpertsInputs x)
        {
            E = Size32(GroupedExpertsOp, "E", x.Up.Shape[0]);
            J = Size32(GroupedExpertsOp, "the rows of up", x.Up.Shape[1]);
            D = Size32(GroupedExpertsOp, "D", x.Up.Shape[2]);
            F = Size32(GroupedExpertsOp, "hidden", x.Down.Shape[2]);
            Slots = Size32(GroupedExpertsOp, "slots", x.Experts.Shape[1]);
            Skipped = Size32(GroupedExpertsOp, "skipped", x.Skipped);
            Pairs = Size32(GroupedExpertsOp, "tokens times slots and 64 times the experts", x.Experts.Count + (long)ExpertsTile * E) - ExpertsTile * E;
        }

        public readonly int E, J, D, F, Slots, Skipped, Pairs;

        public Tensor NewRows(int width, Tensor like) => Tensor.Empty([Pairs, width], like.DType, like.Device);
    }
}
