using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void MergeAttentionForward(Tensor[] inputs, MergeSteps steps, Tensor o, Tensor lse)
    {
        using var scratch = new CpuScratch(2 * inputs.Length);
        var merge = new MergeView(inputs, (float**)scratch.Data, o.Shape[^1], steps);
        For(lse.Count, RowGrain(merge.Width * merge.Parts), new MergeForwardKernel(merge, F32(o), F32(lse)));
    }

    internal override void MergeAttentionBackward(Tensor[] inputs, MergeSteps steps, Tensor o, Tensor lse, Tensor dO, Tensor? dLse, Tensor[] d)
    {
        using var scratch = new CpuScratch(4 * inputs.Length);
        long width = o.Shape[^1];
        var merge = new MergeView(inputs, (float**)scratch.Data, width, steps);
        var gradients = new MergeView(d, (float**)scratch.Data + inputs.Length, width, new MergeSteps(width, 1));
        For(lse.Count, RowGrain(width * merge.Parts), new MergeBackwardKernel(merge, gradients, F32(o), F32(lse), F32(dO), F32(dLse)));
    }

    /// <summary>Addresses of every o, then of every lse.</summary>
    private readonly struct MergeView
    {
        private readonly float** _addresses;
        private readonly MergeSteps _steps;

        public MergeView(Tensor[] tensors, float** addresses, long width, MergeSteps steps)
        {
            for (int i = 0; i < tensors.Length; i++) addresses[i] = F32(tensors[i]);
            _addresses = addresses;
            _steps = steps;
            (Parts, Width) = (tensors.Length / 2, width);
        }

        public readonly long Parts, Width;

        public float* O(long part, long row) => _addresses[part] + row * _steps.O;

        public float* Lse(long part, long row) => _addresses[Parts + part] + row * _steps.Lse;

        /// <summary>The share of a part; none where it, or everything, is empty.</summary>
        public float Share(long part, long row, float total)
        {
            float own = *Lse(part, row);
            return float.IsNegativeInfinity(own) ? 0 : (float)Math.Exp((double)own - total);
        }
    }

    private readonly struct MergeForwardKernel(MergeView merge, float* o, float* lse) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            using var scratch = new CpuScratch(merge.Parts);
            float* shares = scratch.Data;
            for (long row = begin; row < end; row++)
            {
                float max = float.NegativeInfinity;
                for (long i = 0; i < merge.Parts; i++) max = MathF.Max(max, *merge.Lse(i, row));
                double sum = 0;
                for (long i = 0; i < merge.Parts; i++) sum += shares[i] = merge.Share(i, row, max);
                lse[row] = float.IsNegativeInfinity(max) ? max : (float)(max + Math.Log(sum));
                T scale = T.Broadcast(sum == 0 ? 0 : (float)(1 / sum));
                for (long p = 0; p < merge.Width; p += T.Width)
                {
                    T value = T.Zero;
                    for (long i = 0; i < merge.Parts; i++)
                        if (shares[i] != 0) value = T.MulAdd(T.Broadcast(shares[i]), T.LoadUpTo(merge.O(i, row) + p, merge.Width - p), value);
                    (value * scale).StoreUpTo(o + row * merge.Width + p, merge.Width - p);
                }
            }
        }
    }

    private readonly struct MergeBackwardKernel(MergeView merge, MergeView gradients, float* o, float* lse, float* dO, float* dLse) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++)
            for (long i = 0; i < merge.Parts; i++)
            {
                float share = merge.Share(i, row, lse[row]);
                float* own = merge.O(i, row), all = o + row * merge.Width, d = dO + row * merge.Width, to = gradients.O(i, row);
                T dot = T.Zero;
                for (long p = 0; p < merge.Width; p += T.Width)
                {
                    long rest = merge.Width - p;
                    T g = T.LoadUpTo(d + p, rest);
                    (g * T.Broadcast(share)).StoreUpTo(to + p, rest);
                    dot = T.MulAdd(g, T.LoadUpTo(own + p, rest) - T.LoadUpTo(all + p, rest), dot);
                }
                *gradients.Lse(i, row) = share * (dot.Sum() + (dLse == null ? 0 : dLse[row]));
            }
        }
    }
}
