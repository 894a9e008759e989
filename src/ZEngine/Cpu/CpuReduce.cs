using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>Elements summed in one float register before the sum goes on in double: bounds the rounding error of long sums.</summary>
    private const long SumBlock = 256;

    internal override void ReduceForward(Reduction reduction, Tensor x, long outer, long count, long inner, Tensor y)
    {
        if (inner == 1) CpuThreads.For(outer, RowGrain(count), new ReduceRowsJob(reduction, F32(x), count, F32(y)));
        else For(outer * inner, RowGrain(count), new ReduceColumnsKernel(reduction, F32(x), count, inner, F32(y)));
    }

    internal override void ReduceBackward(Reduction reduction, Tensor? x, Tensor dy, long outer, long count, long inner, Tensor dx) =>
        CpuThreads.For(outer, RowGrain(count * inner), new ReduceBackwardJob(reduction, F32(x), F32(dy), count, inner, F32(dx)));

    /// <summary>Σ x, in blocks; the same order always.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static double SumOf<T>(float* x, long count) where T : struct, IFloats<T>
    {
        double sum = 0;
        for (long block = 0; block < count; block += SumBlock)
        {
            long end = Math.Min(count, block + SumBlock);
            T partial = T.Zero;
            for (long i = block; i < end; i += T.Width) partial += T.LoadUpTo(x + i, end - i);
            sum += partial.Sum();
        }
        return sum;
    }

    private readonly struct ReduceRowsJob(Reduction reduction, float* x, long count, float* y) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            for (long row = begin; row < end; row++)
            {
                float* values = x + row * count;
                if (reduction == Reduction.Max)
                {
                    float max = values[0];
                    for (long i = 1; i < count; i++) max = MathF.Max(max, values[i]);
                    y[row] = max;
                    continue;
                }
                double sum = CpuSimd.Width == 16 ? SumOf<Floats16>(values, count) : CpuSimd.Width == 8 ? SumOf<Floats8>(values, count) : SumOf<Floats4>(values, count);
                y[row] = (float)(reduction == Reduction.Mean ? sum / count : sum);
            }
        }
    }

    private readonly struct ReduceColumnsKernel(Reduction reduction, float* x, long count, long inner, float* y) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long at = begin; at < end;)
            {
                (long row, long column) = Math.DivRem(at, inner);
                long columns = Math.Min(inner - column, end - at);
                for (long i = 0; i < columns; i += T.Width) Column<T>(x + row * count * inner + column + i, columns - i).StoreUpTo(y + at + i, columns - i);
                at += columns;
            }
        }

        private T Column<T>(float* first, long lanes) where T : struct, IFloats<T>
        {
            T result = T.LoadUpTo(first, lanes);
            if (reduction == Reduction.Max)
            {
                for (long i = 1; i < count; i++) result = T.SelectNaN(result, result, T.Max(result, T.LoadUpTo(first + i * inner, lanes)));   // NaN stays
                return result;
            }
            if (count == 0) return T.Zero;
            for (long i = 1; i < count; i++) result += T.LoadUpTo(first + i * inner, lanes);
            return reduction == Reduction.Mean ? result / T.Broadcast(count) : result;
        }
    }

    private readonly struct ReduceBackwardJob(Reduction reduction, float* x, float* dy, long count, long inner, float* dx) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            for (long row = begin; row < end; row++)
            for (long column = 0; column < inner; column++)
            {
                float gradient = dy[row * inner + column];
                float* to = dx + row * count * inner + column;
                if (reduction == Reduction.Max)
                {
                    float* from = x + row * count * inner + column;
                    long best = 0;
                    for (long i = 1; i < count; i++) if (from[i * inner] > from[best * inner]) best = i;
                    for (long i = 0; i < count; i++) to[i * inner] = i == best ? gradient : 0;
                }
                else
                {
                    if (reduction == Reduction.Mean) gradient /= count;
                    for (long i = 0; i < count; i++) to[i * inner] = gradient;
                }
            }
        }
    }
}
