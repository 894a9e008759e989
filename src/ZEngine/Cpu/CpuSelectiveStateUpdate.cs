namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void SelectiveStateUpdate(Tensor x, SelectiveStateLayer layer, SelectiveStateCache cache, Tensor? z, Tensor? slots, Tensor y) =>
        InSlots(nameof(SelectiveStateUpdate), slots, x.Shape[0], cache.Convolution, cache.Scan, y, (convolution, scan) => Advance(x, layer, convolution, scan, z, y));

    /// <summary>A step of every sequence; the states, of which there may be more, are read and overwritten element by element.</summary>
    private static void Advance(Tensor x, SelectiveStateLayer layer, Tensor convolution, Tensor scan, Tensor? z, Tensor y)
    {
        (long batch, long channels, long n, long rank, long groups) = (x.Shape[0], x.Shape[1], layer.LogA.Shape[1], layer.DtProjection.Shape[1], layer.Projection.Shape[0]);
        long own = channels / groups, rows = rank + 2 * n;
        using var scratch = new CpuScratch(batch * (2 * channels + 2 * groups * rows));
        float* u = scratch.Data, dt = u + batch * channels, projected = dt + batch * channels, ordered = projected + batch * groups * rows;
        ConvolveStep(x, layer.Weight, layer.Bias, convolution, u);
        // Products of one row each: one of many rows adds in another order, and a sequence's numbers must not depend on the others.
        for (long i = 0; i < batch * groups; i++)
            CpuRowDots.Multiply(1, rows, own, u + i * own, own, Rows(layer.Projection, i % groups * rows, own), projected + i * rows, rows, null, isAdding: false);
        if (layer.NormEpsilon is { } epsilon) For(batch * groups, batch * groups, new StepNormsKernel(projected, rank, n, epsilon));
        for (long i = 0; i < batch * groups; i++) CpuRowDots.Order(rank, projected + i * rows, layer.DtProjection.DType, ordered + i * rows);
        var view = new ScanView(batch, groups, layer, u, dt, projected + rank, z, scan);
        For(batch * view.Blocks, 1, new SelectiveStepKernel(view, new ScanForwardKernel(view, F32(y), F32(scan), null), ordered, rows, Rows(layer.DtProjection, 0, rank), dt));
    }

    /// <summary>The rows of a weight from <paramref name="first"/> on, each of <paramref name="width"/> numbers.</summary>
    private static CpuMatrix Rows(Tensor weight, long first, long width) => new((byte*)weight.Address + first * width * weight.DType.Size, weight.DType, width, 1);

    /// <summary>RMSNorm without a weight on dt, B and C of every sequence and group.</summary>
    private readonly struct StepNormsKernel(float* projected, long rank, long n, float epsilon) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = begin; i < end; i++)
            {
                float* row = projected + i * (rank + 2 * n);
                Normalize<T>(row, rank);
                Normalize<T>(row + rank, n);
                Normalize<T>(row + rank + n, n);
            }
        }

        private void Normalize<T>(float* row, long width) where T : struct, IFloats<T>
        {
            T squares = T.Zero;
            for (long i = 0; i < width; i += T.Width)
            {
                T value = T.LoadUpTo(row + i, width - i);
                squares = T.MulAdd(value, value, squares);
            }
            T scale = T.Broadcast(1 / MathF.Sqrt(squares.Sum() / width + epsilon));
            for (long i = 0; i < width; i += T.Width) (T.LoadUpTo(row + i, width - i) * scale).StoreUpTo(row + i, width - i);
        }
    }

    /// <summary>Δ of a block of channels, whose weights are read once, then their step of the scan: one region of parallel work for both.</summary>
    /// <param name="scan">The sizes.</param>
    /// <param name="step">The scan.</param>
    /// <param name="ordered">What the rows of the weights meet, <paramref name="stride"/> floats from one sequence and group to the next.</param>
    /// <param name="stride">See there.</param>
    /// <param name="weight">[D, R].</param>
    /// <param name="dt">[B, D].</param>
    private readonly struct SelectiveStepKernel(ScanView scan, ScanForwardKernel step, float* ordered, long stride, CpuMatrix weight, float* dt) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long unit = begin; unit < end; unit++)
            {
                (long sequence, long block) = Math.DivRem(unit, scan.Blocks);
                (long group, long first, long count) = scan.Block(block);
                CpuRowDots.MultiplyOrdered<T>(weight.RowStride, ordered + (sequence * scan.Groups + group) * stride, weight, dt + sequence * scan.Channels, first, first + count);
                step.Step<T>(sequence, block);
            }
        }
    }
}
