using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>Sequences are dealt to this many pieces of work per block of channels at most: each has sums of its own for A, D and the bias.</summary>
    private const long ScanParts = 16;

    internal override void SelectiveScanBackward(SelectiveScanInputs x, Tensor states, Tensor dy, Tensor? dFinalState, SelectiveScanInputs d)
    {
        var scan = new ScanView(x, SelectiveScanStretch);
        long rows = x.U.Shape[0] * scan.Length, perPart = Math.Max(1, (scan.Sequences + ScanParts - 1) / ScanParts), parts = (scan.Sequences + perPart - 1) / perPart;
        using var scratch = new CpuScratch(2 * scan.Blocks * rows * scan.N + 2 * parts * scan.Channels * (scan.N + 2));
        float* dB = scratch.Data, dC = dB + scan.Blocks * rows * scan.N;
        var sums = (double*)(dC + scan.Blocks * rows * scan.N);                     // per part and channel: N of dA, then dD and d bias
        For(parts * scan.Blocks, 1, new ScanBackwardKernel(scan, rows, perPart, F32(states), F32(dy), F32(dFinalState), F32(d.U), F32(d.Dt), F32(d.Z), F32(d.InitialState), dB, dC, sums));
        SumGroupBlocks(scan.Groups, scan.BlocksPerGroup, scan.N, rows, dB, F32(d.B), scan.Groups * scan.N);
        SumGroupBlocks(scan.Groups, scan.BlocksPerGroup, scan.N, rows, dC, F32(d.C), scan.Groups * scan.N);
        For(scan.Channels, RowGrain(scan.N * parts), new ScanSumPartsKernel(scan, parts, sums, F32(d.A), F32(d.D), F32(d.DtBias)));
    }

    /// <summary>Adds up dA, dD and the gradient of the bias in the order of the sequences.</summary>
    private readonly struct ScanSumPartsKernel(ScanView scan, long parts, double* sums, float* dA, float* dD, float* dBias) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long channel = begin; channel < end; channel++)
            for (long i = 0; i < scan.N + 2; i++)
            {
                double sum = 0;
                for (long part = 0; part < parts; part++) sum += sums[(part * scan.Channels + channel) * (scan.N + 2) + i];
                if (i < scan.N) dA[channel * scan.N + i] = (float)sum;
                else if (i == scan.N && dD != null) dD[channel] = (float)sum;
                else if (i > scan.N && dBias != null) dBias[channel] = (float)sum;
            }
        }
    }

    /// <summary>Scratch of one piece of backward work: values of one stretch, and what belongs to each state.</summary>
    private readonly struct ScanBackwardTile
    {
        public ScanBackwardTile(float* scratch, in ScanView scan)
        {
            long steps = scan.Stretch * ScanView.Lanes, width = ScanView.Lanes;
            Forward = new ScanTile(scratch, scan);
            DOutput = scratch + ScanTile.Floats(scan);
            DInput = DOutput + steps;
            DDelta = DInput + steps;
            States = DDelta + steps;
            Decays = States + (scan.Stretch + 1) * width;
            SumB = Decays + scan.Stretch * width;
            SumC = SumB + scan.Stretch * width;
            DState = SumC + scan.Stretch * width;
        }

        public readonly ScanTile Forward;

        /// <summary>[step, Lanes]: dy behind the gate, and the gradients of Δ·u and, times log2 e, of Δ through the decay.</summary>
        public readonly float* DOutput, DInput, DDelta;

        /// <summary>[step, register] of one state: before each step and after the last, its decay, and what each lane adds to dB and dC.</summary>
        public readonly float* States, Decays, SumB, SumC;

        /// <summary>[N, Lanes].</summary>
        public readonly float* DState;

        public static long Floats(in ScanView scan) => ScanTile.Floats(scan) + (7 * scan.Stretch + 1 + scan.N) * ScanView.Lanes;
    }

    /// <summary>Walks the stretches of some sequences backwards with the gradient of the state, for one block of channels.</summary>
    private readonly struct ScanBackwardKernel(
        ScanView scan, long rows, long sequencesPerPart, float* states, float* dy, float* dFinal, float* du, float* dDt, float* dz, float* dInitial, float* dBBlocks, float* dCBlocks, double* allSums) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            using var scratch = new CpuScratch(ScanBackwardTile.Floats(scan));
            var tile = new ScanBackwardTile(scratch.Data, scan);
            for (long unit = begin; unit < end; unit++)
            {
                (long part, long block) = Math.DivRem(unit, scan.Blocks);
                (_, long first, long count) = scan.Block(block);
                double* sums = allSums + (part * scan.Channels + first) * (scan.N + 2);
                new Span<double>(sums, checked((int)(count * (scan.N + 2)))).Clear();
                scan.ToRates<T>(first, count, tile.Forward.Rate);
                for (long sequence = part * sequencesPerPart; sequence < Math.Min(scan.Sequences, (part + 1) * sequencesPerPart); sequence++)
                    Stretches<T>(tile, sequence, block, sums);
            }
        }

        private void Stretches<T>(in ScanBackwardTile tile, long sequence, long block, double* sums) where T : struct, IFloats<T>
        {
            (long row, long begin, long end) = scan.Sequence(sequence);
            (long group, long first, long count) = scan.Block(block);
            scan.ToLanes(dFinal == null ? null : dFinal + scan.State(sequence, first), count, tile.DState);
            long before = scan.StretchesBefore(sequence);
            for (long stretch = scan.StretchesOf(sequence) - 1; stretch >= 0; stretch--)
            {
                long start = begin + stretch * scan.Stretch, q = Math.Min(scan.Stretch, end - start);
                tile.Forward.Load<T>(scan, row, start, q, first, count);
                LoadOutput<T>(tile, row, start, q, first, count);
                long at = (block * rows + row * scan.Length + start) * scan.N;
                for (long n = 0; n < scan.N; n++)
                {
                    float* B = scan.B.At(row, start, group) + n, C = scan.C.At(row, start, group) + n;
                    float* kept = states + ((before + stretch) * scan.N + n) * scan.Channels + first;
                    for (long v = 0; v < count; v += T.Width)
                    {
                        Again<T>(tile, n, v, q, T.LoadUpTo(kept + v, count - v), B, C);
                        Differentiate<T>(tile, n, v, q, B, C, count - v, sums + v * (scan.N + 2) + n);
                    }
                    for (long t = 0; t < q; t++)
                    {
                        dBBlocks[at + t * scan.N + n] = T.Load(tile.SumB + t * T.Width).Sum();
                        dCBlocks[at + t * scan.N + n] = T.Load(tile.SumC + t * T.Width).Sum();
                    }
                }
                for (long v = 0; v < count; v += T.Width) Finish<T>(tile, row, start, q, first, v, count - v, sums + v * (scan.N + 2) + scan.N);
            }
            if (dInitial != null) CpuTiles.Transpose(tile.DState, ScanView.Lanes, scan.N, count, dInitial + scan.State(sequence, first), scan.N);
        }

        /// <summary>dy behind the gate; clears what the states add to.</summary>
        private void LoadOutput<T>(in ScanBackwardTile tile, long row, long start, long q, long first, long count) where T : struct, IFloats<T>
        {
            for (long t = 0; t < q; t++)
            for (long v = 0; v < count; v += T.Width)
            {
                long at = t * ScanView.Lanes + v;
                T d = T.LoadUpTo(dy + scan.Dense(row, start + t, first + v), count - v);
                if (scan.Z.IsPresent) d *= Silu.Value(T.LoadUpTo(scan.Z.At(row, start + t, first + v), count - v));
                d.Store(tile.DOutput + at);
                T.Zero.Store(tile.DInput + at);
                T.Zero.Store(tile.DDelta + at);
            }
        }

        /// <summary>One state of one register of channels through a stretch again, from the kept value.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Again<T>(in ScanBackwardTile tile, long n, long v, long q, T h, float* B, float* C) where T : struct, IFloats<T>
        {
            long lanes = ScanView.Lanes;
            T rate = T.Load(tile.Forward.Rate + n * lanes + v);
            for (long t = 0; t < q; t++)
            {
                T decay = ScanDecay(T.Load(tile.Forward.Delta + t * lanes + v), rate);
                h.Store(tile.States + t * T.Width);
                decay.Store(tile.Decays + t * T.Width);
                h = T.MulAdd(decay, h, T.Load(tile.Forward.Input + t * lanes + v) * T.Broadcast(B[t * scan.B.Step]));
                if (!scan.Z.IsPresent) continue;                       // y before the gate is needed for the gate's gradient alone
                float* output = tile.Forward.Output + t * lanes + v;
                T.MulAdd(h, T.Broadcast(C[t * scan.C.Step]), T.Load(output)).Store(output);
            }
            h.Store(tile.States + q * T.Width);
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Differentiate<T>(in ScanBackwardTile tile, long n, long v, long q, float* B, float* C, long count, double* sums) where T : struct, IFloats<T>
        {
            long lanes = ScanView.Lanes;
            T rate = T.Load(tile.Forward.Rate + n * lanes + v), dState = T.Load(tile.DState + n * lanes + v), dA = T.Zero;
            for (long t = q - 1; t >= 0; t--)
            {
                long at = t * lanes + v, own = t * T.Width;
                T d = T.Load(tile.DOutput + at);
                dState = T.MulAdd(d, T.Broadcast(C[t * scan.C.Step]), dState);
                T sumC = d * T.Load(tile.States + own + T.Width), sumB = dState * T.Load(tile.Forward.Input + at);
                if (v > 0) (sumB, sumC) = (sumB + T.Load(tile.SumB + own), sumC + T.Load(tile.SumC + own));
                sumB.Store(tile.SumB + own);
                sumC.Store(tile.SumC + own);
                T.MulAdd(dState, T.Broadcast(B[t * scan.B.Step]), T.Load(tile.DInput + at)).Store(tile.DInput + at);
                dState *= T.Load(tile.Decays + own);
                T dExponent = dState * T.Load(tile.States + own);      // of Δ·A
                T.MulAdd(dExponent, rate, T.Load(tile.DDelta + at)).Store(tile.DDelta + at);
                dA = T.MulAdd(dExponent, T.Load(tile.Forward.Delta + at), dA);
            }
            dState.Store(tile.DState + n * lanes + v);
            AddLanes(dA, count, sums);
        }

        /// <summary>du, d dt and dz, and the sums for D and the bias.</summary>
        private void Finish<T>(in ScanBackwardTile tile, long row, long start, long q, long first, long v, long count, double* sums) where T : struct, IFloats<T>
        {
            T dSkip = T.Zero, dBias = T.Zero;
            for (long t = 0; t < q; t++)
            {
                long at = t * ScanView.Lanes + v, dense = scan.Dense(row, start + t, first + v);
                T u = T.LoadUpTo(scan.U.At(row, start + t, first + v), count), dInput = T.Load(tile.DInput + at), dOutput = T.Load(tile.DOutput + at);
                T result = dInput * T.Load(tile.Forward.Delta + at);
                if (scan.D != null) result = T.MulAdd(T.LoadUpTo(scan.D + first + v, count), dOutput, result);
                result.StoreUpTo(du + dense, count);

                T dRaw = T.MulAdd(dInput, u, T.Load(tile.DDelta + at) * T.Broadcast(Ln2));
                if (scan.HasSoftplus) dRaw *= CpuMath.Sigmoid(scan.Raw<T>(row, start + t, first + v, count));
                dRaw.StoreUpTo(dDt + dense, count);
                dBias += dRaw;
                dSkip = T.MulAdd(dOutput, u, dSkip);
                if (scan.Z.IsPresent)
                    (T.LoadUpTo(dy + dense, count) * T.Load(tile.Forward.Output + at) * Silu.Derivative(T.LoadUpTo(scan.Z.At(row, start + t, first + v), count))).StoreUpTo(dz + dense, count);
            }
            AddLanes(dSkip, count, sums);
            AddLanes(dBias, count, sums + 1);
        }

        /// <summary>Adds each lane to the sum of its channel.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private void AddLanes<T>(T value, long count, double* sums) where T : struct, IFloats<T>
        {
            float* lanes = stackalloc float[16];
            value.Store(lanes);
            for (long i = 0; i < Math.Min(T.Width, count); i++) sums[i * (scan.N + 2)] += lanes[i];
        }
    }
}
