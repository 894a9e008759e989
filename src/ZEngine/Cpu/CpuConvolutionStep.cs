using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>Channels of a sequence to a piece of work: a few microseconds.</summary>
    private const long ConvStepChannels = 2048;

    /// <summary>The convolution of one step of every sequence, with silu, to y [B, D]; its inputs move up in the states [at least B, K - 1, D]. The bits are those of <see cref="CausalConv1dForward"/>.</summary>
    private static void ConvolveStep(Tensor x, Tensor weight, Tensor? bias, Tensor states, float* y)
    {
        var step = new ConvStepKernel(F32(x), x.Strides[0], F32(weight), F32(bias), F32(states), y, weight.Shape[0], weight.Shape[1]);
        For(x.Shape[0] * step.Pieces, 1, step);
    }

    /// <summary>Taps are read where they lie, [D, K]: to bring them into the order of the channels first would cost more than the step.</summary>
    private readonly struct ConvStepKernel(float* x, long xStride, float* weight, float* bias, float* states, float* y, long channels, long taps) : IKernel
    {
        public long Pieces => (channels + ConvStepChannels - 1) / ConvStepChannels;

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            float* lanes = stackalloc float[64];               // four registers
            for (long piece = begin; piece < end; piece++)
            {
                (long sequence, long part) = Math.DivRem(piece, Pieces);
                float* input = x + sequence * xStride, state = states + sequence * (taps - 1) * channels, to = y + sequence * channels;
                long c = part * ConvStepChannels, last = Math.Min(channels, c + ConvStepChannels);
                if (taps == 4)
                    for (; c + T.Width <= last; c += T.Width)
                    {
                        T x0 = T.Load(state + c), x1 = T.Load(state + channels + c), x2 = T.Load(state + 2 * channels + c), x3 = T.Load(input + c);
                        (T w0, T w1, T w2, T w3) = Taps<T>(weight + 4 * c, lanes);
                        T sum = T.MulAdd(w1, x1, T.MulAdd(w0, x0, bias == null ? T.Zero : T.Load(bias + c)));
                        Silu.Value(T.MulAdd(w3, x3, T.MulAdd(w2, x2, sum))).Store(to + c);
                        x1.Store(state + c);
                        x2.Store(state + channels + c);
                        x3.Store(state + 2 * channels + c);
                    }
                for (; c < last; c += T.Width)
                {
                    long count = Math.Min(T.Width, last - c);
                    T sum = bias == null ? T.Zero : T.LoadUpTo(bias + c, count);
                    for (long k = 0; k < taps; k++)
                    {
                        for (long i = 0; i < count; i++) lanes[i] = weight[(c + i) * taps + k];
                        float* at = k < taps - 1 ? state + k * channels + c : input + c;
                        T value = T.LoadUpTo(at, count);
                        sum = T.MulAdd(T.LoadUpTo(lanes, count), value, sum);
                        if (k > 0) value.StoreUpTo(state + (k - 1) * channels + c, count);
                    }
                    Silu.Value(sum).StoreUpTo(to + c, count);
                }
            }
        }

        /// <summary>The four taps of a register of channels, one tap to a register.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private static (T, T, T, T) Taps<T>(float* weight, float* lanes) where T : struct, IFloats<T>
        {
            (T even0, T odd0) = T.LoadPairs(weight);
            (T even1, T odd1) = T.LoadPairs(weight + 2 * T.Width);
            even0.Store(lanes);
            even1.Store(lanes + T.Width);
            odd0.Store(lanes + 2 * T.Width);
            odd1.Store(lanes + 3 * T.Width);
            (T w0, T w2) = T.LoadPairs(lanes);
            (T w1, T w3) = T.LoadPairs(lanes + 2 * T.Width);
            return (w0, w1, w2, w3);
        }
    }
}
