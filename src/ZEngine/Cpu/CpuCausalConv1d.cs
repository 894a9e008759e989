using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>Time steps to a piece of work.</summary>
    private const long ConvBlock = 64;

    internal override void CausalConv1dForward(CausalConv1dInputs x, Tensor y, Tensor finalState)
    {
        using var taps = new ConvTaps(x);
        var rows = new ConvRows(x, taps, F32(x.X), F32(x.InitialState));
        For(rows.Blocks, 1, new ConvForwardKernel(rows, F32(y), x.HasSilu));
        rows.CopyFinalState(F32(finalState));
    }

    internal override void CausalConv1dBackward(CausalConv1dInputs x, Tensor dy, Tensor? dFinalState, CausalConv1dInputs d, PartialSums? sums)
    {
        using var taps = new ConvTaps(x);
        var rows = new ConvRows(x, taps, F32(x.X), F32(x.InitialState));
        long width = rows.Channels, all = (rows.Taps + 1) * width, stride = d.X.RowStride();
        using var scratch = new CpuScratch(dy.Count + rows.Blocks * all + all);
        float* dPre = scratch.Data, partials = dPre + dy.Count, total = partials + rows.Blocks * all;
        For(rows.Blocks, 1, new ConvBackwardWeightKernel(rows, F32(dy), dPre, partials, x.HasSilu));
        For(rows.Blocks, 1, new ConvBackwardInputKernel(rows, dPre, F32(d.X), stride));
        SumPartials(partials, rows.Blocks, all, total);
        for (long c = 0; c < width; c++)
        {
            for (long k = 0; k < rows.Taps; k++) F32(d.Weight)[c * rows.Taps + k] = total[k * width + c];
            if (d.Bias is not null) F32(d.Bias)[c] = total[rows.Taps * width + c];
        }
        rows.StateGradients(dPre, F32(dFinalState), F32(d.X), stride, F32(d.InitialState));
    }

    /// <summary>The weight transposed to [K, D], so that a tap of neighbouring channels is one register.</summary>
    private readonly ref struct ConvTaps : IDisposable
    {
        private readonly CpuScratch _scratch;

        public ConvTaps(CausalConv1dInputs x)
        {
            (long channels, long taps) = (x.Weight.Shape[0], x.Weight.Shape[1]);
            _scratch = new CpuScratch((taps + 2) * channels);
            Weight = _scratch.Data;
            Bias = Weight + taps * channels;
            Zeros = Bias + channels;
            CpuTiles.Transpose(F32(x.Weight), taps, channels, taps, Weight, channels);
            new Span<float>(Bias, checked((int)(2 * channels))).Clear();
            if (x.Bias is not null) Buffer.MemoryCopy(F32(x.Bias), Bias, channels * sizeof(float), channels * sizeof(float));
        }

        public readonly float* Weight, Bias, Zeros;

        public void Dispose() => _scratch.Dispose();
    }

    /// <summary>The time steps of all sequences, cut into blocks; steps before a sequence are its initial state.</summary>
    private readonly struct ConvRows
    {
        private readonly CpuSequences _sequences;
        private readonly long _blocksPerSequence, _rowStride, _batchStride, _length;
        private readonly float* _x, _state, _zeros;

        public ConvRows(CausalConv1dInputs x, ConvTaps taps, float* data, float* state)
        {
            _length = x.X.Shape[1];
            _sequences = new CpuSequences(x.X.Shape[0], _length, x.Layout);
            _blocksPerSequence = (_sequences.LongestLength + ConvBlock - 1) / ConvBlock;
            (_batchStride, _rowStride) = (x.X.Strides[0], x.X.Strides[1]);
            _x = data;
            _state = state;
            _zeros = taps.Zeros;
            Weight = taps.Weight;
            Bias = taps.Bias;
            (Channels, Taps) = (x.Weight.Shape[0], x.Weight.Shape[1]);
        }

        public readonly float* Weight, Bias;
        public readonly long Channels, Taps;

        public long Blocks => _sequences.Count * _blocksPerSequence;

        /// <summary>The steps of a block: empty where the sequence is shorter than the longest.</summary>
        public (long Sequence, long Begin, long End) Block(long block)
        {
            (long sequence, long part) = Math.DivRem(block, _blocksPerSequence);
            (_, long begin, long end) = _sequences[sequence];
            return (sequence, Math.Min(end, begin + part * ConvBlock), Math.Min(end, begin + (part + 1) * ConvBlock));
        }

        public (long Begin, long End) Range(long sequence) => (_sequences[sequence].Begin, _sequences[sequence].End);

        /// <summary>Input of a step, which may stand before the sequence's first.</summary>
        public float* Input(long sequence, long step)
        {
            (long row, long begin, _) = _sequences[sequence];
            if (step >= begin) return _x + row * _batchStride + step * _rowStride;
            return _state == null ? _zeros : _state + (sequence * (Taps - 1) + Taps - 1 + step - begin) * Channels;
        }

        /// <summary>A step's row in a contiguous [B, L, D].</summary>
        public long DenseRow(long sequence, long step) => Row(sequence, step) * Channels;

        public long Row(long sequence, long step) => _sequences[sequence].Row * _length + step;

        public void CopyFinalState(float* finalState)
        {
            for (long sequence = 0; sequence < _sequences.Count; sequence++)
            for (long j = 0; j < Taps - 1; j++)
                Buffer.MemoryCopy(Input(sequence, Range(sequence).End - (Taps - 1) + j), finalState + (sequence * (Taps - 1) + j) * Channels, Channels * sizeof(float), Channels * sizeof(float));
        }

        /// <summary>The share of the final state's gradient that goes to inputs, and the gradient of the initial state.</summary>
        public void StateGradients(float* dPre, float* dFinal, float* dx, long stride, float* dInitial)
        {
            for (long sequence = 0; sequence < _sequences.Count; sequence++)
            {
                (long begin, long end) = Range(sequence);
                for (long j = 0; j < Taps - 1; j++)
                {
                    long before = begin - (Taps - 1) + j, last = end - (Taps - 1) + j;
                    if (dInitial != null)
                        for (long c = 0; c < Channels; c++)
                        {
                            double sum = dFinal != null && before >= end - (Taps - 1) ? dFinal[(sequence * (Taps - 1) + before - end + Taps - 1) * Channels + c] : 0;
                            for (long k = 0; k < Taps; k++)
                            {
                                long step = before + Taps - 1 - k;
                                if (step >= begin && step < end) sum += (double)Weight[k * Channels + c] * dPre[DenseRow(sequence, step) + c];
                            }
                            dInitial[(sequence * (Taps - 1) + j) * Channels + c] = (float)sum;
                        }
                    if (dFinal != null && last >= begin)
                        for (long c = 0; c < Channels; c++) dx[Row(sequence, last) * stride + c] += dFinal[(sequence * (Taps - 1) + j) * Channels + c];
                }
            }
        }

        /// <summary>The inputs under the taps of one step.</summary>
        public void Inputs(long sequence, long step, float** inputs)
        {
            for (long k = 0; k < Taps; k++) inputs[k] = Input(sequence, step - Taps + 1 + k);
        }

        /// <summary>bias + Σₖ weight·x of one step, for the channels from c on.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public T Convolve<T>(float** inputs, long c) where T : struct, IFloats<T>
        {
            float* w = Weight + c;
            long d = Channels, rest = d - c;
            if (Taps == 4 && rest >= T.Width)
            {
                T low = T.MulAdd(T.Load(w + d), T.Load(inputs[1] + c), T.MulAdd(T.Load(w), T.Load(inputs[0] + c), T.Load(Bias + c)));
                return T.MulAdd(T.Load(w + 3 * d), T.Load(inputs[3] + c), T.MulAdd(T.Load(w + 2 * d), T.Load(inputs[2] + c), low));
            }
            T sum = T.LoadUpTo(Bias + c, rest);
            for (long k = 0; k < Taps; k++) sum = T.MulAdd(T.LoadUpTo(w + k * d, rest), T.LoadUpTo(inputs[k] + c, rest), sum);
            return sum;
        }
    }

    private readonly struct ConvForwardKernel(ConvRows rows, float* y, bool hasSilu) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            float** inputs = stackalloc float*[checked((int)rows.Taps)];
            for (long block = begin; block < end; block++)
            {
                (long sequence, long first, long last) = rows.Block(block);
                for (long step = first; step < last; step++)
                {
                    rows.Inputs(sequence, step, inputs);
                    float* to = y + rows.DenseRow(sequence, step);
                    for (long c = 0; c < rows.Channels; c += T.Width)
                    {
                        T sum = rows.Convolve<T>(inputs, c);
                        (hasSilu ? Silu.Value(sum) : sum).StoreUpTo(to + c, rows.Channels - c);
                    }
                }
            }
        }
    }

    /// <summary>The gradient before the activation, and each block's share of the gradients of taps and bias.</summary>
    private readonly struct ConvBackwardWeightKernel(ConvRows rows, float* dy, float* dPre, float* partials, bool hasSilu) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            float** inputs = stackalloc float*[checked((int)rows.Taps)];
            for (long block = begin; block < end; block++)
            {
                (long sequence, long first, long last) = rows.Block(block);
                float* sums = partials + block * (rows.Taps + 1) * rows.Channels;
                new Span<float>(sums, checked((int)((rows.Taps + 1) * rows.Channels))).Clear();
                for (long step = first; step < last; step++)
                {
                    long row = rows.DenseRow(sequence, step);
                    rows.Inputs(sequence, step, inputs);
                    for (long c = 0; c < rows.Channels; c += T.Width)
                    {
                        long rest = rows.Channels - c;
                        T d = T.LoadUpTo(dy + row + c, rest);
                        if (hasSilu) d *= Silu.Derivative(rows.Convolve<T>(inputs, c));
                        d.StoreUpTo(dPre + row + c, rest);
                        for (long k = 0; k < rows.Taps; k++)
                        {
                            float* sum = sums + k * rows.Channels + c;
                            T.MulAdd(d, T.LoadUpTo(inputs[k] + c, rest), T.LoadUpTo(sum, rest)).StoreUpTo(sum, rest);
                        }
                        float* biasSum = sums + rows.Taps * rows.Channels + c;
                        (T.LoadUpTo(biasSum, rest) + d).StoreUpTo(biasSum, rest);
                    }
                }
            }
        }
    }

    private readonly struct ConvBackwardInputKernel(ConvRows rows, float* dPre, float* dx, long stride) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long block = begin; block < end; block++)
            {
                (long sequence, long first, long last) = rows.Block(block);
                long sequenceEnd = rows.Range(sequence).End;
                for (long step = first; step < last; step++)
                {
                    // Tap k of step + K - 1 - k read this step; rows of dPre are neighbours. Steps behind the sequence's last do not count.
                    float* to = dx + rows.Row(sequence, step) * stride;
                    long row = rows.DenseRow(sequence, step), firstTap = Math.Max(0, step + rows.Taps - sequenceEnd), width = rows.Channels;
                    for (long c = 0; c < width; c += T.Width)
                    {
                        long rest = width - c;
                        T sum = T.Zero;
                        float* w = rows.Weight + (rows.Taps - 1) * width + c, d = dPre + row + c;
                        for (long k = rows.Taps - 1; k >= firstTap; k--, w -= width, d += width) sum = T.MulAdd(T.LoadUpTo(w, rest), T.LoadUpTo(d, rest), sum);
                        sum.StoreUpTo(to + c, rest);
                    }
                }
            }
        }
    }
}
