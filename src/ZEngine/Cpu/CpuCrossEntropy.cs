using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void CrossEntropyForward(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor loss, Tensor counted)
    {
        long classes = logits.Shape[^1], rows = targets.Count;
        long count = 0;
        for (long i = 0; i < rows; i++)
        {
            long target = TokenAt(targets, i);
            if (target == options.IgnoreIndex) continue;
            if (target < 0 || target >= classes) throw new ArgumentException($"CrossEntropy: target {i} of {Tensor.ShapeText(targets.Shape)} is {target}, but there are {classes} classes.");
            count++;
        }
        using var losses = new CpuScratch(rows);
        For(rows, RowGrain(classes), new CrossEntropyForwardKernel(F32(logits), logits.RowStride(), classes, targets.Address, targets.DType, options, F32(partition), losses.Data));
        double sum = 0;
        for (long i = 0; i < rows; i++) sum += losses.Data[i];
        *F32(loss) = count == 0 ? 0 : (float)(sum / count);
        *F32(counted) = count;
    }

    internal override void CrossEntropyBackward(Tensor logits, Tensor targets, CrossEntropyOptions options, Tensor partition, Tensor counted, Tensor dLoss, Tensor dLogits)
    {
        long classes = logits.Shape[^1];
        float scale = *F32(counted) == 0 ? 0 : *F32(dLoss) / *F32(counted);
        For(targets.Count, RowGrain(classes), new CrossEntropyBackwardKernel(F32(logits), logits.RowStride(), classes, targets.Address, targets.DType, options, F32(partition), scale, F32(dLogits)));
    }

    /// <summary>The largest of n &gt; 0 numbers.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float MaxOf<T>(float* x, long n) where T : struct, IFloats<T>
    {
        T max = T.Broadcast(x[0]);
        long i = 0;
        for (; i + T.Width <= n; i += T.Width) max = T.Max(max, T.Load(x + i));
        float result = max.Max();
        for (; i < n; i++) result = MathF.Max(result, x[i]);
        return result;
    }

    private readonly struct CrossEntropyForwardKernel(float* logits, long stride, long classes, nint targets, DType targetType, CrossEntropyOptions options, float* partition, float* losses) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++)
            {
                float* x = logits + row * stride;
                float max = MaxOf<T>(x, classes);
                T shift = T.Broadcast(max);
                double sum = 0, linear = 0;
                // Short float runs, summed in double: the rounding error does not grow with the number of classes.
                for (long run = 0; run < classes; run += SumBlock)
                {
                    long last = Math.Min(classes, run + SumBlock);
                    T exps = T.Zero, values = T.Zero;
                    long i = run;
                    for (; i + T.Width <= last; i += T.Width)
                    {
                        T value = T.Load(x + i);
                        exps += CpuMath.Exp(value - shift);
                        values += value;
                    }
                    sum += exps.Sum();
                    linear += values.Sum();
                    for (; i < last; i++)
                    {
                        sum += Math.Exp(x[i] - (double)max);
                        linear += x[i];
                    }
                }
                double logPartition = max + Math.Log(sum);
                (partition[2 * row], partition[2 * row + 1]) = (max, (float)Math.Log(sum));
                long target = TokenAt(targets, targetType, row);
                losses[row] = target == options.IgnoreIndex ? 0 : (float)(
                    (1 - (double)options.LabelSmoothing) * (logPartition - x[target])
                    + (options.LabelSmoothing == 0 ? 0 : options.LabelSmoothing * (logPartition - linear / classes))     // a masked class, -∞, must not become NaN
                    + options.ZLoss * logPartition * logPartition);
            }
        }
    }

    private readonly struct CrossEntropyBackwardKernel(
        float* logits, long stride, long classes, nint targets, DType targetType, CrossEntropyOptions options, float* partition, float scale, float* dLogits) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++)
            {
                float* x = logits + row * stride, d = dLogits + row * classes;
                long target = TokenAt(targets, targetType, row);
                if (target == options.IgnoreIndex)
                {
                    for (long i = 0; i < classes; i += T.Width) T.Zero.StoreUpTo(d + i, classes - i);
                    continue;
                }
                // x - max is exact where it matters; x - (max + log) would round with the size of max.
                double max = partition[2 * row], log = partition[2 * row + 1], pull = 2.0 * options.ZLoss * (max + log);
                T shift = T.Broadcast((float)max), logSum = T.Broadcast((float)log), weight = T.Broadcast((float)(scale * (1 + pull))), smooth = T.Broadcast(scale * options.LabelSmoothing / classes);
                for (long i = 0; i < classes; i += T.Width)
                    (CpuMath.Exp(T.LoadUpTo(x + i, classes - i) - shift - logSum) * weight - smooth).StoreUpTo(d + i, classes - i);
                // The target's own p - 1 without the cancellation of two nearly equal numbers.
                double p = Math.Exp(x[target] - max - log);
                d[target] = (float)(scale * ((p - 1) + pull * p + options.LabelSmoothing - options.LabelSmoothing / (double)classes));
            }
        }
    }
}
