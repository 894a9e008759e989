namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void MatMul(MatMulInputs x, Tensor y, bool isAdding)
    {
        (long rows, long columns) = (y.Shape[^2], y.Shape[^1]);
        long inner = x.TransposeA ? x.A.Shape[^2] : x.A.Shape[^1];
        Tensor sums = x.Kept ?? y;
        long batch = y.Count / Math.Max(1, rows * columns);
        long rowA = x.A.RowStride(), rowB = x.B.RowStride();
        long stepA = x.A.Shape[^2] * rowA, stepB = x.B.Shape[^2] * rowB;
        for (long i = 0; i < batch; i++)
        {
            var a = new CpuMatrix(F32(x.A) + i * stepA, rowA, 1);
            var b = new CpuMatrix((byte*)x.B.Address + i * stepB * x.B.DType.Size, x.B.DType, rowB, 1);
            CpuGemm.Multiply(rows, columns, inner, x.TransposeA ? a.Transposed : a, x.TransposeB ? b.Transposed : b,
                F32(sums) + i * rows * columns, columns, F32(x.Bias), isAdding);
        }
        if (x.Activation is { } function) PointwiseForward(function, sums, y);
    }
}
