using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void LayerNormForward(LayerNormInputs x, Tensor y, Tensor mean, Tensor rstd)
    {
        long width = x.X.Shape[^1];
        For(mean.Count, RowGrain(width), new LayerNormForwardKernel(F32(x.X), x.X.RowStride(), width, F32(x.Weight), F32(x.Bias), x.Epsilon, F32(y), F32(mean), F32(rstd)));
    }

    internal override void LayerNormBackward(LayerNormInputs x, Tensor mean, Tensor rstd, Tensor dy, LayerNormInputs d)
    {
        long width = x.X.Shape[^1], rows = mean.Count, block = WeightBlock(rows), blocks = (rows + block - 1) / block;
        using var partials = new CpuScratch(2 * blocks * width);
        For(blocks, 1, new LayerNormBackwardKernel(F32(x.X), x.X.RowStride(), width, F32(x.Weight), F32(mean), F32(rstd), F32(dy), F32(d.X), partials.Data, partials.Data + blocks * width, rows, block));
        if (d.Weight is not null) SumPartials(partials.Data, blocks, width, F32(d.Weight));
        if (d.Bias is not null) SumPartials(partials.Data + blocks * width, blocks, width, F32(d.Bias));
    }

    private readonly struct LayerNormForwardKernel(float* x, long stride, long width, float* weight, float* bias, float epsilon, float* y, float* means, float* rstds) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++)
            {
                float* from = x + row * stride, to = y + row * width;
                T sum = T.Zero, squares = T.Zero;
                for (long i = 0; i < width; i += T.Width) sum += T.LoadUpTo(from + i, width - i);
                T mean = T.Broadcast(means[row] = sum.Sum() / width);
                long whole = width - width % T.Width;
                for (long i = 0; i < whole; i += T.Width)
                {
                    T deviation = T.Load(from + i) - mean;
                    squares = T.MulAdd(deviation, deviation, squares);
                }
                float variance = squares.Sum();
                for (long i = whole; i < width; i++) variance += (from[i] - means[row]) * (from[i] - means[row]);
                T scale = T.Broadcast(rstds[row] = 1 / MathF.Sqrt(variance / width + epsilon));
                for (long i = 0; i < width; i += T.Width)
                {
                    long rest = width - i;
                    T value = (T.LoadUpTo(from + i, rest) - mean) * scale;
                    if (weight != null) value *= T.LoadUpTo(weight + i, rest);
                    if (bias != null) value += T.LoadUpTo(bias + i, rest);
                    value.StoreUpTo(to + i, rest);
                }
            }
        }
    }

    private readonly struct LayerNormBackwardKernel(float* x, long stride, long width, float* weight, float* means, float* rstds, float* dy, float* dx, float* dWeights, float* dBiases, long rows, long block) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long at = begin; at < end; at++)
            {
                float* dWeight = dWeights + at * width, dBias = dBiases + at * width;
                new Span<float>(dWeight, checked((int)width)).Clear();
                new Span<float>(dBias, checked((int)width)).Clear();
                for (long row = at * block; row < Math.Min(rows, (at + 1) * block); row++) Differentiate<T>(row, dWeight, dBias);
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Differentiate<T>(long row, float* dWeight, float* dBias) where T : struct, IFloats<T>
        {
            float* from = x + row * stride, d = dy + row * width, to = dx + row * width;
            T mean = T.Broadcast(means[row]), scale = T.Broadcast(rstds[row]), sum = T.Zero, dot = T.Zero;
            for (long i = 0; i < width; i += T.Width)
            {
                long rest = width - i;
                T g = T.LoadUpTo(d + i, rest), n = (T.LoadUpTo(from + i, rest) - mean) * scale;
                T.MulAdd(g, n, T.LoadUpTo(dWeight + i, rest)).StoreUpTo(dWeight + i, rest);
                (T.LoadUpTo(dBias + i, rest) + g).StoreUpTo(dBias + i, rest);
                if (weight != null) g *= T.LoadUpTo(weight + i, rest);
                sum += g;
                dot = T.MulAdd(g, n, dot);
            }
            // What acts through the mean and through the variance.
            T shift = T.Broadcast(sum.Sum() / width), slope = T.Broadcast(dot.Sum() / width);
            for (long i = 0; i < width; i += T.Width)
            {
                long rest = width - i;
                T g = T.LoadUpTo(d + i, rest), n = (T.LoadUpTo(from + i, rest) - mean) * scale;
                if (weight != null) g *= T.LoadUpTo(weight + i, rest);
                ((g - shift - n * slope) * scale).StoreUpTo(to + i, rest);
            }
        }
    }
}
