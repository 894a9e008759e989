using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string RmsNormFile = "RmsNorm.cu";

    /// <summary>Mirrors RmsNormArgs in kernels/RmsNorm.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RmsNormArgs
    {
        public ulong X, Z, Weight, Y, S;
        public long XStride, ZStride;
        public int D, N, Gate;
        public float Eps;
    }

    /// <summary>Blocks of a multiprocessor that walk rows backward, each with a share of dweight: as few as keep 32 KiB of rows under way.</summary>
    internal const int RmsNormBlocks = 2, RmsNormGatedBlocks = 3;

    /// <summary>Mirrors RmsNormBackwardArgs in kernels/RmsNorm.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RmsNormBackwardArgs
    {
        public ulong X, Z, Weight, Dy, S, Dx, Dz, Partial;
        public long R, XStride, ZStride;
        public int D, N, Gate, IsStashed;
    }

    /// <summary>Mirrors RmsNormWeightArgs in kernels/RmsNorm.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RmsNormWeightArgs
    {
        public ulong Partial, Dweight;
        public int P, D;
    }

    internal override void RmsNormForward(RmsNormInputs x, Tensor y, Tensor rstd)
    {
        (int width, int group) = RmsNormWidths(x);
        bool isWide = IsRmsNormWide(x, y);
        var args = new RmsNormArgs
        {
            X = Pointer(x.X), Z = Pointer(x.Z), Weight = Pointer(x.Weight), Y = Pointer(y), S = Pointer(rstd),
            XStride = x.X.RowStride(), ZStride = x.Z?.RowStride() ?? 0, D = width, N = group, Gate = GateOf(x), Eps = x.Epsilon,
        };
        Kernel(RmsNormFile, $"rms_norm_forward<{y.DType}, {isWide}>")
            .Launch(Blocks("RmsNorm", x.X.Count / Math.Max(1, group)), RowThreads(group, isWide ? WideElements(y.DType) : 1), SharedRow("RmsNorm", 4L * group), args);
    }

    internal override void RmsNormBackward(RmsNormInputs x, Tensor rstd, Tensor dy, RmsNormInputs d)
    {
        (int width, int group) = RmsNormWidths(x);
        long rows = x.X.Count / Math.Max(1, width);
        if (rows == 0)
        {
            d.Weight.Clear();
            return;
        }
        bool isWide = IsRmsNormWide(x, dy) && IsRmsNormWide(d, d.X);
        long shared = 4L * ((width + 3) / 4 * 4), stash = (x.Z is null ? 2 : 3) * ((group + 7L) / 8 * 8) * dy.DType.Size;
        bool isStashed = shared + stash <= device.SharedBytesPerBlock / 2;     // two blocks of a multiprocessor at least
        int blocks = PersistentBlocks(rows, 1, x.Z is null ? RmsNormBlocks : RmsNormGatedBlocks);
        using Tensor partial = Tensor.Empty([blocks, width], DType.Float32, dy.Device);
        var args = new RmsNormBackwardArgs
        {
            X = Pointer(x.X), Z = Pointer(x.Z), Weight = Pointer(x.Weight), Dy = Pointer(dy), S = Pointer(rstd), Dx = Pointer(d.X), Dz = Pointer(d.Z), Partial = Pointer(partial),
            R = rows, XStride = x.X.RowStride(), ZStride = x.Z?.RowStride() ?? 0, D = width, N = group, Gate = GateOf(x), IsStashed = isStashed ? 1 : 0,
        };
        Kernel(RmsNormFile, $"rms_norm_backward<{dy.DType}, {isWide}, {x.Z is not null}>")
            .Launch(blocks, RowThreads(group, isWide ? WideElements(dy.DType) : 1), SharedRow("RmsNorm", shared + (isStashed ? stash : 0)), args);
        Kernel(RmsNormFile, $"rms_norm_weight_backward")
            .Launch(Blocks("RmsNorm", width, ColumnsOfBlock), ColumnSumThreads, 0, new RmsNormWeightArgs { Partial = Pointer(partial), Dweight = Pointer(d.Weight), P = blocks, D = width });
    }

    private static (int Width, int Group) RmsNormWidths(RmsNormInputs x) => (Size32("RmsNorm", "D", x.X.Shape[^1]), Size32("RmsNorm", "groupSize", x.GroupSize));

    private static int GateOf(RmsNormInputs x) => x.Z is null ? 0 : x.GateOrder == GateOrder.BeforeNorm ? 1 : 2;

    private static bool IsRmsNormWide(RmsNormInputs x, Tensor y) =>
        IsWide(x.X, x.GroupSize) && IsWide(x.Z, x.GroupSize) && IsWide(y, x.GroupSize) && IsAligned(x.Weight, WideElements(y.DType));
}
