using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string LayerNormFile = "LayerNorm.cu";

    /// <summary>As in kernels/common/Columns.cuh: columns of a block, and its threads.</summary>
    private const int ColumnsOfBlock = 32, ColumnSumThreads = 256;

    /// <summary>Mirrors LayerNormArgs in kernels/LayerNorm.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct LayerNormArgs
    {
        public ulong X, Weight, Bias, Y, Mean, S;
        public long XStride;
        public int D;
        public float Eps;
    }

    /// <summary>Mirrors LayerNormBackwardArgs in kernels/LayerNorm.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct LayerNormBackwardArgs
    {
        public ulong X, Weight, Dy, Mean, S, Dx, Partial;
        public long R, XStride;
        public int D, HasWeight, HasBias, IsStashed;
    }

    internal override void LayerNormForward(LayerNormInputs x, Tensor y, Tensor mean, Tensor rstd)
    {
        int width = Size32("LayerNorm", "D", x.X.Shape[^1]), elements = WideElements(y.DType);
        bool isWide = IsWide(x.X, width) && IsWide(y, width) && IsAligned(x.Weight, elements) && IsAligned(x.Bias, elements);
        Kernel(LayerNormFile, $"layer_norm_forward<{y.DType}, {isWide}>")
            .Launch(Blocks("LayerNorm", mean.Count), RowThreads(width, isWide ? elements : 1), SharedRow("LayerNorm", 4L * width), new LayerNormArgs
            {
                X = Pointer(x.X), Weight = Pointer(x.Weight), Bias = Pointer(x.Bias), Y = Pointer(y), Mean = Pointer(mean), S = Pointer(rstd),
                XStride = x.X.RowStride(), D = width, Eps = x.Epsilon,
            });
    }

    internal override void LayerNormBackward(LayerNormInputs x, Tensor mean, Tensor rstd, Tensor dy, LayerNormInputs d)
    {
        int width = Size32("LayerNorm", "D", x.X.Shape[^1]), elements = WideElements(dy.DType), sums = (d.Weight is null ? 0 : 1) + (d.Bias is null ? 0 : 1);
        long rows = mean.Count;
        if (rows == 0)
        {
            d.Weight?.Clear();
            d.Bias?.Clear();
            return;
        }
        bool isWide = IsWide(x.X, width) && IsWide(dy, width) && IsWide(d.X, width) && IsAligned(x.Weight, elements);
        long shared = 4L * sums * ((width + 3L) / 4 * 4), stash = 2 * ((width + 7L) / 8 * 8) * dy.DType.Size;
        bool isStashed = shared + stash <= device.SharedBytesPerBlock / 2;     // two blocks of a multiprocessor at least
        int blocks = PersistentBlocks(rows, 1, 2);
        Tensor partial = Tensor.Empty([blocks, sums * (long)width], DType.Float32, dy.Device);
        using var added = new ColumnSums(this);
        added.Add(partial);
        Kernel(LayerNormFile, $"layer_norm_backward<{dy.DType}, {isWide}>")
            .Launch(blocks, RowThreads(width, isWide ? elements : 1), SharedRow("LayerNorm", shared + (isStashed ? stash : 0)), new LayerNormBackwardArgs
            {
                X = Pointer(x.X), Weight = Pointer(x.Weight), Dy = Pointer(dy), Mean = Pointer(mean), S = Pointer(rstd), Dx = Pointer(d.X), Partial = Pointer(partial),
                R = rows, XStride = x.X.RowStride(), D = width, HasWeight = d.Weight is null ? 0 : 1, HasBias = d.Bias is null ? 0 : 1, IsStashed = isStashed ? 1 : 0,
            });
        if (d.Weight is not null) added.To(d.Weight, 0, width, width);
        if (d.Bias is not null) added.To(d.Bias, d.Weight is null ? 0 : width, width, width);
    }
}
