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
        public int D, N, Rest, Gate, Parts, Count;
        public float Eps, SquaresEps;
    }

    /// <summary>Blocks of a multiprocessor that walk rows backward; those of one add their shares of dweight to the same row.</summary>
    internal const int RmsNormBlocks = 4;

    /// <summary>A block of kernels/RmsNorm.cu.</summary>
    /// <param name="Threads">Threads.</param>
    /// <param name="Rest">Elements of a row before those that registers hold, in whole rounds of all threads.</param>
    /// <param name="ForwardSharedBytes">Dynamic shared memory forward.</param>
    /// <param name="BackwardSharedBytes">Dynamic shared memory backward.</param>
    internal readonly record struct RmsNormPlan(int Threads, int Rest, long ForwardSharedBytes, long BackwardSharedBytes)
    {
        /// <summary>Accesses of a row that a thread has in registers, kHeld in the kernel; of their sums for dweight it has those of one.</summary>
        private const int Held = 2;

        public static RmsNormPlan For(int width, int perAccess)
        {
            int threads = RowThreads(width, perAccess), once = threads * perAccess, held = Held * once;
            return new(threads, Math.Max(0, width - 1) / held * held, sizeof(float) * Math.Max(0L, width - held), sizeof(float) * Math.Max(0L, width - once));
        }
    }

    /// <summary>Mirrors RmsNormBackwardArgs in kernels/RmsNorm.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct RmsNormBackwardArgs
    {
        public ulong X, Z, Weight, Dy, S, Dsum, Added, Factor, DgateSquares, Dx, Dz, Dadded, Dsquares, Partial, Turns;
        public long XStride, ZStride, DzStride, AddedStride;
        public int R, P, D, N, Groups, Rest, Slots, Count;
    }

    internal override void RmsNormForward(RmsNormInputs x, Tensor y, Tensor rstd, NormSum? sum)
    {
        (int width, int group) = RmsNormWidths(x);
        Tensor? squares = sum?.Scale?.Squares;
        bool isWide = IsRmsNormWide(x, y) && IsWide(sum?.Residual, group) && IsWide(sum?.Sum, group);
        RmsNormPlan plan = RmsNormPlan.For(group, isWide ? WideElements(y.DType) : 1);
        var args = new RmsNormArgs
        {
            X = Pointer(x.X), Z = Pointer(x.Z), Residual = Pointer(sum?.Residual), Weight = Pointer(x.Weight), Squares = Pointer(squares),
            Y = Pointer(y), Sum = Pointer(sum?.Sum), S = Pointer(rstd), Factor = Pointer(sum?.Factor),
            XStride = x.X.RowStride(), ZStride = x.Z?.RowStride() ?? 0, ResidualStride = sum?.Residual.RowStride() ?? 0,
            D = width, N = group, Rest = plan.Rest, Gate = GateOf(x), Parts = squares is null ? 0 : Size32("RmsNorm", "parts of a row", squares.Shape[^1]), Count = SquaresCount(sum?.Scale),
            Eps = x.Epsilon, SquaresEps = sum?.Scale?.Epsilon ?? 0,
        };
        Kernel(RmsNormFile, $"rms_norm_forward<{y.DType}, {isWide}>")
            .Launch(Blocks("RmsNorm", x.X.Count / Math.Max(1, group)), plan.Threads, SharedRow("RmsNorm", plan.ForwardSharedBytes), args);
    }

    internal override void RmsNormBackward(RmsNormInputs x, Tensor? rstd, Tensor dy, RmsNormInputs d, NormSumGradient? sum, Tensor? dGateSquares, PartialSums? sums)
    {
        (int width, int group) = RmsNormWidths(x);
        int most = device.Multiprocessors * RmsNormBlocks, rows = Size32("RmsNorm", "rows and blocks", x.X.Count / Math.Max(1, width) + most) - most;
        if (rows == 0)
        {
            d.Weight.Clear();
            return;
        }
        bool isWide = IsRmsNormWide(x, dy) && IsRmsNormWide(d, d.X) && IsWide(sum?.DSum, group) && IsWide(sum?.Added, group) && IsWide(sum?.DAdded, group);
        RmsNormPlan plan = RmsNormPlan.For(group, isWide ? WideElements(dy.DType) : 1);
        int groups = width / group, blocks = Math.Clamp(most / groups, 1, rows);
        int slots = Math.Min(blocks, (device.Multiprocessors + groups - 1) / groups);
        Tensor partial = Tensor.Empty([slots, width], DType.Float32, dy.Device);
        using Tensor turns = Tensor.Zeros([(long)slots * groups + 1], DType.Int32, dy.Device);
        using ColumnSums? own = sums is null ? new ColumnSums(this) : null;
        ColumnSums added = (ColumnSums?)sums ?? own!;
        added.Add(partial);
        var args = new RmsNormBackwardArgs
        {
            X = Pointer(x.X), Z = Pointer(x.Z), Weight = Pointer(x.Weight), Dy = Pointer(dy), S = Pointer(rstd),
            Dsum = Pointer(sum?.DSum), Added = Pointer(sum?.Added), Factor = Pointer(sum?.Factor), DgateSquares = Pointer(dGateSquares),
            Dx = Pointer(d.X), Dz = Pointer(d.Z), Dadded = Pointer(sum?.DAdded), Dsquares = Pointer(sum?.DSquares), Partial = Pointer(partial), Turns = Pointer(turns),
            XStride = x.X.RowStride(), ZStride = x.Z?.RowStride() ?? 0, DzStride = d.Z?.RowStride() ?? 0, AddedStride = sum?.Added?.RowStride() ?? 0,
            R = rows, P = blocks, D = width, N = group, Groups = groups, Rest = plan.Rest, Slots = slots, Count = SquaresCount(sum?.Scale),
        };
        Kernel(RmsNormFile, $"rms_norm_backward<{dy.DType}, {isWide}, {GateOf(x)}>")
            .Launch(Blocks("RmsNorm", (long)blocks * groups), plan.Threads, SharedRow("RmsNorm", plan.BackwardSharedBytes), args);
        added.To(d.Weight, 0, width, width);
    }

    private static int SquaresCount(RowScale? scale) => scale is null ? 0 : Size32("RmsNorm", "squares of a row", scale.Count);

    private static (int Width, int Group) RmsNormWidths(RmsNormInputs x) => (Size32("RmsNorm", "D", x.X.Shape[^1]), Size32("RmsNorm", "groupSize", x.GroupSize));

    private static int GateOf(RmsNormInputs x) => x.Z is null ? 0 : x.GateOrder == GateOrder.BeforeNorm ? 1 : 2;

    private static bool IsRmsNormWide(RmsNormInputs x, Tensor y) =>
        IsWide(x.X, x.GroupSize) && IsWide(x.Z, x.GroupSize) && IsWide(y, x.GroupSize) && IsAligned(x.Weight, WideElements(y.DType));
}
