using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void AdamW(IReadOnlyList<AdamWSlot> slots, AdamWOptions options, LearningRate learningRate, Tensor step, Tensor? gradientNorm, float maxNorm)
    {
        float scale = 1;
        if (gradientNorm is not null)
        {
            float norm = *F32(gradientNorm);
            if (!float.IsFinite(norm)) return;
            if (maxNorm > 0 && norm > maxNorm) scale = maxNorm / norm;
        }
        long taken = ++*(long*)step.Address;
        float rate = learningRate.Tensor is { } stored ? *F32(stored) : learningRate.Number;
        var update = new AdamWUpdate(
            scale, (float)options.Beta1, (float)(1 - options.Beta1), (float)options.Beta2, (float)(1 - options.Beta2), (float)options.Epsilon,
            (float)(rate / (1 - Math.Pow(options.Beta1, taken))), (float)(1 / (1 - Math.Pow(options.Beta2, taken))), (float)(rate * options.WeightDecay));
        foreach (AdamWSlot slot in slots)
        {
            Tensor master = slot.Master ?? slot.Value;
            AdamWUpdate own = slot.IsDecayed ? update : update with { Decay = 0 };
            For(master.Count, PointwiseGrain, new AdamWKernel(own, F32(master), F32(slot.Gradient), F32(slot.FirstMoment), F32(slot.SecondMoment)));
            if (slot.Master is not null) Copy(slot.Master, slot.Value);
        }
    }

    internal override void Norm(IReadOnlyList<Tensor> tensors, Tensor norm)
    {
        double squares = 0;
        foreach (Tensor tensor in tensors)
        {
            long blocks = (tensor.Count + PointwiseGrain - 1) / PointwiseGrain;
            using var partials = new CpuScratch(2 * blocks);
            For(blocks, 4, new SquaresKernel(F32(tensor), tensor.Count, (double*)partials.Data));
            for (long block = 0; block < blocks; block++) squares += ((double*)partials.Data)[block];
        }
        *F32(norm) = (float)Math.Sqrt(squares);
    }

    private readonly record struct AdamWUpdate(float GradientScale, float Beta1, float Rest1, float Beta2, float Rest2, float Epsilon, float Rate, float SecondScale, float Decay);

    private readonly struct AdamWKernel(AdamWUpdate update, float* p, float* g, float* m, float* v) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            T scale = T.Broadcast(update.GradientScale), beta1 = T.Broadcast(update.Beta1), beta2 = T.Broadcast(update.Beta2), epsilon = T.Broadcast(update.Epsilon);
            T rest1 = T.Broadcast(update.Rest1), rest2 = T.Broadcast(update.Rest2);
            T rate = T.Broadcast(update.Rate), secondScale = T.Broadcast(update.SecondScale), decay = T.Broadcast(update.Decay);
            for (long i = begin; i < end; i += T.Width)
            {
                long rest = end - i;
                T gi = T.LoadUpTo(g + i, rest) * scale, pi = T.LoadUpTo(p + i, rest);
                T mi = T.MulAdd(rest1, gi, beta1 * T.LoadUpTo(m + i, rest)), vi = T.MulAdd(rest2 * gi, gi, beta2 * T.LoadUpTo(v + i, rest));
                mi.StoreUpTo(m + i, rest);
                vi.StoreUpTo(v + i, rest);
                pi -= decay * pi;
                (pi - rate * mi / (T.Sqrt(vi * secondScale) + epsilon)).StoreUpTo(p + i, rest);
            }
        }
    }

    private readonly struct SquaresKernel(float* x, long count, double* partials) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long block = begin; block < end; block++)
            {
                // Short float runs, then double. An element beyond 1.8e19 has an infinite square: such a gradient counts as not finite.
                double sum = 0;
                long last = Math.Min(count, (block + 1) * PointwiseGrain);
                for (long run = block * PointwiseGrain; run < last; run += 256)
                {
                    long end1 = Math.Min(last, run + 256);
                    T squares = T.Zero;
                    for (long i = run; i < end1; i += T.Width)
                    {
                        T value = T.LoadUpTo(x + i, end1 - i);
                        squares = T.MulAdd(value, value, squares);
                    }
                    sum += squares.Sum();
                }
                partials[block] = sum;
            }
        }
    }
}
