using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string RmsNormFile = "RmsNorm.cu";

    /// <summary>Mirrors RmsNormArgs in kernels/RmsNorm.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RmsNormArgs
    {
        public ulong X, Z, Residual, Weight, Squares, Y, Sum, S, Factor;
        public long XStride, ZStride, ResidualStride;
        public int D, N, Gate, Parts, Count;
        public float Eps, SquaresEps;
    }

    /// <summary>Blocks of a multiprocessor that walk rows backward, each with a share of dweight: as few as keep 32 KiB of rows under way.</summary>
    internal const int RmsNormBlocks = 2, RmsNormGatedBlocks = 3;

    /// <summary>Mirrors RmsNormBackwardArgs in kernels/RmsNorm.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RmsNormBackwardArgs
    {
        public ulong X, Z, Weight, Dy, S, Dsum, Added, Factor, DgateSquares, Dx, Dz, Dadded, Dsquares, Partial;
        public long R, XStride, ZStride, DzStride, AddedStride;
        public int D, N, IsStashed, Count;
    }

    internal override void RmsNormForward(RmsNormInputs x, Tensor y, Tensor rstd, NormSum? sum)
    {
        (int width, int group) = RmsNormWidths(x);
        Tensor? squares = sum?.Scale?.Squares;
        bool isWide = IsRmsNormWide(x, y) && IsWide(sum?.Residual, group) && IsWide(sum?.Sum, group);
        var args = new RmsNormArgs
        {
            X = Pointer(x.X), Z = Pointer(x.Z), Residual = Pointer(sum?.Residual), Weight = Pointer(x.Weight), Squares = Pointer(squares),
            Y = Pointer(y), Sum = Pointer(sum?.Sum), S = Pointer(rstd), Factor = Pointer(sum?.Factor),
            XStride = x.X.RowStride(), ZStride = x.Z?.RowStride() ?? 0, ResidualStride = sum?.Residual.RowStride() ?? 0,
            D = width, N = group, Gate = GateOf(x), Parts = squares is null ? 0 : Size32("RmsNorm", "parts of a row", squares.Shape[^1]), Count = SquaresCount(sum?.Scale),
            Eps = x.Epsilon, SquaresEps = sum?.Scale?.Epsilon ?? 0,
        };
        Kernel(RmsNormFile, $"rms_norm_forward<{y.DType}, {isWide}>")
            .Launch(Blocks("RmsNorm", x.X.Count / Math.Max(1, group)), RowThreads(group, isWide ? WideElements(y.DType) : 1), SharedRow("RmsNorm", 4L * group), args);
    }

    internal override void RmsNormBackward(RmsNormInputs x, Tensor? rstd, Tensor dy, RmsNormInputs d, NormSumGradient? sum, Tensor? dGateSquares, PartialSums? sums)
    {
        (int width, int group) = RmsNormWidths(x);
        long rows = x.X.Count / Math.Max(1, width);
        if (rows == 0)
        {
            d.Weight.Clear();
            return;
        }
        bool isWide = IsRmsNormWide(x, dy) && IsRmsNormWide(d, d.X) && IsWide(sum?.DSum, group) && IsWide(sum?.Added, group) && IsWide(sum?.DAdded, group);
        long shared = 4L * ((width + 3) / 4 * 4), stash = (x.Z is null ? 2 : 3) * ((group + 7L) / 8 * 8) * dy.DType.Size;
        bool isStashed = shared + stash <= device.SharedBytesPerBlock / 2;     // two blocks of a multiprocessor at least
        int blocks = PersistentBlocks(rows, 1, x.Z is null ? RmsNormBlocks : RmsNormGatedBlocks);
        Tensor partial = Tensor.Empty([blocks, width], DType.Float32, dy.Device);
        using ColumnSums? own = sums is null ? new ColumnSums(this) : null;
        ColumnSums added = (ColumnSums?)sums ?? own!;
        added.Add(partial);
        var args = new RmsNormBackwardArgs
        {
            X = Pointer(x.X), Z = Pointer(x.Z), Weight = Pointer(x.Weight), Dy = Pointer(dy), S = Pointer(rstd),
            Dsum = Pointer(sum?.DSum), Added = Pointer(sum?.Added), Factor = Pointer(sum?.Factor), DgateSquares = Pointer(dGateSquares),
            Dx = Pointer(d.X), Dz = Pointer(d.Z), Dadded = Pointer(sum?.DAdded), Dsquares = Pointer(sum?.DSquares), Partial = Pointer(partial),
            R = rows, XStride = x.X.RowStride(), ZStride = x.Z?.RowStride() ?? 0, DzStride = d.Z?.RowStride() ?? 0, AddedStride = sum?.Added?.RowStride() ?? 0,
            D = width, N = group, IsStashed = isStashed ? 1 : 0, Count = SquaresCount(sum?.Scale),
        };
        Kernel(RmsNormFile, $"rms_norm_backward<{dy.DType}, {isWide}, {GateOf(x)}>")
            .Launch(blocks, RowThreads(group, isWide ? WideElements(dy.DType) : 1), SharedRow("RmsNorm", shared + (isStashed ? stash : 0)), args);
        added.To(d.Weight, 0, width, width);
    }

    private static int SquaresCount(RowScale? scale) => scale is null ? 0 : Size32("RmsNorm", "squares of a row", scale.Count);

    private static (int Width, int Group) RmsNormWidths(RmsNormInputs x) => (Size32("RmsNorm", "D", x.X.Shape[^1]), Size32("RmsNorm", "groupSize", x.GroupSize));

    private static int GateOf(RmsNormInputs x) => x.Z is null ? 0 : x.GateOrder == GateOrder.BeforeNorm ? 1 : 2;

    private static bool IsRmsNormWide(RmsNormInputs x, Tensor y) =>
        IsWide(x.X, x.GroupSize) && IsWide(x.Z, x.GroupSize) && IsWide(y, x.GroupSize) && IsAligned(x.Weight, WideElements(y.DType));
}
