using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>Elements summed in one float register before the sum goes on in double: bounds the rounding error of long sums.</summary>
    private const long SumBlock = 256;

    /// <summary>Columns to a piece at least: four of the widest registers.</summary>
    private const long MinColumns = 64;

    internal override void ReduceForward(Reduction reduction, Tensor x, long outer, long count, long inner, Tensor y)
    {
        if (inner == 1) For(outer, RowGrain(count), new ReduceRowsKernel(reduction, F32(x), count, F32(y)));
        else For(outer * inner, Math.Max(MinColumns, RowGrain(count)), new ReduceColumnsKernel(reduction, F32(x), count, inner, F32(y)));
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
            long end = Math.Min(count, block + SumBlock), i = block;
            T a = T.Zero, b = T.Zero, c = T.Zero, d = T.Zero;
            for (; i + 4 * T.Width <= end; i += 4 * T.Width)
            {
                a += T.Load(x + i);
                b += T.Load(x + i + T.Width);
                c += T.Load(x + i + 2 * T.Width);
                d += T.Load(x + i + 3 * T.Width);
            }
            for (; i < end; i += T.Width) a += T.LoadUpTo(x + i, end - i);
            sum += (a + b + (c + d)).Sum();
        }
        return sum;
    }

    /// <summary>The larger; NaN where one of them is NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Larger<T>(T a, T b) where T : struct, IFloats<T> => T.SelectNaN(a, a, T.Max(a, b));

    private readonly struct ReduceRowsKernel(Reduction reduction, float* x, long count, float* y) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++)
            {
                float* values = x + row * count;
                y[row] = reduction switch
                {
                    Reduction.Max => Largest<T>(values),
                    Reduction.Mean => (float)(SumOf<T>(values, count) / count),
                    _ => (float)SumOf<T>(values, count),
                };
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private float Largest<T>(float* values) where T : struct, IFloats<T>
        {
            T lanes = T.Broadcast(values[0]);
            long i = 0;
            for (; i + T.Width <= count; i += T.Width) lanes = Larger(lanes, T.Load(values + i));
            float* each = stackalloc float[16];
            lanes.Store(each);
            float max = each[0];
            for (int lane = 1; lane < T.Width; lane++) max = MathF.Max(max, each[lane]);
            for (; i < count; i++) max = MathF.Max(max, values[i]);
            return max;
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
                long columns = Math.Min(inner - column, end - at), i = 0;
                float* first = x + row * count * inner + column;
                for (; i + 4 * T.Width <= columns; i += 4 * T.Width) FourColumns<T>(first + i, y + at + i);
                for (; i < columns; i += T.Width) Column<T>(first + i, columns - i).StoreUpTo(y + at + i, columns - i);
                at += columns;
            }
        }

        /// <summary>Four registers side by side: whole cache lines of every row.</summary>
        private void FourColumns<T>(float* first, float* to) where T : struct, IFloats<T>
        {
            if (count == 0)
            {
                for (int i = 0; i < 4; i++) T.Zero.Store(to + i * T.Width);
                return;
            }
            (T a, T b, T c, T d) = (T.Load(first), T.Load(first + T.Width), T.Load(first + 2 * T.Width), T.Load(first + 3 * T.Width));
            for (long i = 1; i < count; i++)
            {
                float* row = first + i * inner;
                a = With(a, T.Load(row));
                b = With(b, T.Load(row + T.Width));
                c = With(c, T.Load(row + 2 * T.Width));
                d = With(d, T.Load(row + 3 * T.Width));
            }
            Finish(a).Store(to);
            Finish(b).Store(to + T.Width);
            Finish(c).Store(to + 2 * T.Width);
            Finish(d).Store(to + 3 * T.Width);
        }

        private T Column<T>(float* first, long lanes) where T : struct, IFloats<T>
        {
            if (count == 0) return T.Zero;
            T result = T.LoadUpTo(first, lanes);
            for (long i = 1; i < count; i++) result = With(result, T.LoadUpTo(first + i * inner, lanes));
            return Finish(result);
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private T With<T>(T result, T next) where T : struct, IFloats<T> => reduction == Reduction.Max ? Larger(result, next) : result + next;

        private T Finish<T>(T result) where T : struct, IFloats<T> => reduction == Reduction.Mean ? result / T.Broadcast(count) : result;
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
