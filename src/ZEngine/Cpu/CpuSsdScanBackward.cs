using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void SsdScanBackward(SsdScanInputs x, Tensor states, Tensor? ungated, Tensor dy, Tensor? dFinalState, SsdScanInputs d)
    {
        var scan = new SsdView(x);
        long rows = x.X.Shape[0] * scan.Length, sums = SsdBackwardKernel.Sums(scan.P);
        using var scratch = new CpuScratch(2 * scan.HeadBlocks * rows * scan.N + 2 * scan.Sequences * scan.Heads * sums);
        float* dB = scratch.Data, dC = dB + scan.HeadBlocks * rows * scan.N;
        var perHead = (double*)(dC + scan.HeadBlocks * rows * scan.N);
        For(scan.Units, 1, new SsdBackwardKernel(scan, rows, F32(states), F32(ungated), F32(dy), F32(dFinalState), F32(d.X), StepStride(d.X), F32(d.Dt), StepStride(d.Dt), F32(d.Z), F32(d.InitialState), dB, dC, perHead));
        SumGroupBlocks(scan.Groups, scan.BlocksPerGroup, scan.N, rows, dB, F32(d.B), StepStride(d.B));
        SumGroupBlocks(scan.Groups, scan.BlocksPerGroup, scan.N, rows, dC, F32(d.C), StepStride(d.C));
        for (long head = 0; head < scan.Heads; head++)
        {
            (double dA, double dBias) = (0, 0);
            for (long sequence = 0; sequence < scan.Sequences; sequence++)
            {
                double* own = perHead + (sequence * scan.Heads + head) * sums;
                (dA, dBias) = (dA + own[0], dBias + own[1]);
            }
            F32(d.A)[head] = (float)(scan.HasLogA ? dA * scan.Rate(head) : dA);
            if (d.DtBias is not null) F32(d.DtBias)[head] = (float)dBias;
            if (d.D is not null) SumSkip(scan, perHead, sums, head, F32(d.D));
        }
    }

    /// <summary>Elements from a step of a tensor [B, L, ...] to the next: its batches follow one another.</summary>
    private static long StepStride(Tensor tensor) => tensor.Shape[1] == 1 ? tensor.Strides[0] : tensor.Strides[1];

    private static void SumSkip(in SsdView scan, double* perHead, long sums, long head, float* dD)
    {
        double all = 0;
        for (long p = 0; p < scan.P; p++)
        {
            double sum = 0;
            for (long sequence = 0; sequence < scan.Sequences; sequence++) sum += perHead[(sequence * scan.Heads + head) * sums + 2 + p];
            if (scan.IsSkipPerChannel) dD[head * scan.P + p] = (float)sum;
            all += sum;
        }
        if (!scan.IsSkipPerChannel) dD[head] = (float)all;
    }

    /// <summary>Walks the chunks of a sequence backwards with the gradient of the state, for a few heads of one group.</summary>
    private readonly struct SsdBackwardKernel(
        SsdView scan, long rows, float* states, float* ungated, float* dy, float* dFinal, float* dx, long strideDx, float* dDt, long strideDt, float* dz, float* dInitial, float* dBBlocks, float* dCBlocks, double* perHead) : IKernel
    {
        /// <summary>Per sequence and head: dA, d bias, and P sums for the skip.</summary>
        public static long Sums(long p) => 2 + p;

        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long unit = begin; unit < end; unit++) Chunks<T>(unit);
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Chunks<T>(long unit) where T : struct, IFloats<T>
        {
            (long sequence, long block, long group, long firstHead, long lastHead) = scan.Unit(unit);
            (long row, long begin, long end) = scan.Sequence(sequence);
            (long n, long p, long heads) = (scan.N, scan.P, lastHead - firstHead);
            using var scratch = new CpuScratch(SsdBackwardTiles.Floats(Math.Min(scan.Q, end - begin), n, p) + heads * n * p);
            var tiles = new SsdBackwardTiles(scratch.Data, Math.Min(scan.Q, end - begin), n, p);
            float* dState = scratch.Data + SsdBackwardTiles.Floats(Math.Min(scan.Q, end - begin), n, p);         // per head [N, P]

            for (long head = firstHead; head < lastHead; head++)
            {
                float* own = dState + (head - firstHead) * n * p;
                if (dFinal == null) new Span<float>(own, checked((int)(n * p))).Clear();
                else CpuTiles.Transpose(dFinal + scan.State(sequence, head), n, p, n, own, p);
                new Span<double>(perHead + (sequence * scan.Heads + head) * Sums(p), checked((int)Sums(p))).Clear();
            }
            long chunk = scan.ChunksBefore(sequence) + scan.ChunksOf(sequence);
            for (long start = begin + (scan.ChunksOf(sequence) - 1) * scan.Q; start >= begin; start -= scan.Q)
            {
                chunk--;
                long q = Math.Min(scan.Q, end - start);
                float* B = scan.B.At(row, start, group), C = scan.C.At(row, start, group);
                long at = (block * rows + row * scan.Length + start) * n;
                float* dB = dBBlocks + at, dC = dCBlocks + at;
                new Span<float>(dB, checked((int)(q * n))).Clear();
                new Span<float>(dC, checked((int)(q * n))).Clear();
                new Span<float>(tiles.DProducts, checked((int)(q * q))).Clear();
                CpuTiles.Transpose(B, scan.B.Step, q, n, tiles.TransposedB, q);
                CpuTiles.Multiply<T>(q, q, n, C, scan.C.Step, 1, tiles.TransposedB, q, tiles.Products, q, false, Triangle.LowerC);
                for (long head = firstHead; head < lastHead; head++)
                {
                    float* state = states + (chunk * scan.Heads + head) * n * p, own = dState + (head - firstHead) * n * p;
                    Head<T>(tiles, row, start, q, head, B, C, state, own, dB, dC, perHead + (sequence * scan.Heads + head) * Sums(p));
                }
                // d(C·Bᵀ) of all heads at once.
                CpuTiles.Multiply<T>(q, n, q, tiles.DProducts, q, 1, B, scan.B.Step, dC, n, true, Triangle.LowerA);
                CpuTiles.Multiply<T>(q, n, q, tiles.DProducts, 1, q, C, scan.C.Step, dB, n, true, Triangle.UpperA);
            }
            if (dInitial == null) return;
            for (long head = firstHead; head < lastHead; head++)
                CpuTiles.Transpose(dState + (head - firstHead) * n * p, p, n, p, dInitial + scan.State(sequence, head), n);
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Head<T>(in SsdBackwardTiles t, long row, long start, long q, long head, float* B, float* C, float* state, float* dState, float* dB, float* dC, double* sums) where T : struct, IFloats<T>
        {
            (long n, long p) = (scan.N, scan.P);
            SsdDecay decay = t.Decay;
            decay.Load<T>(scan, row, start, head, q);
            decay.Matrix<T>(q, t.Decays);
            new Span<float>(t.DExponent, checked((int)q)).Clear();
            for (long i = 0; i < q; i++) LoadStep<T>(t, row, start, i, head, sums);

            // Within the chunk: y = (C·Bᵀ ∘ decay)·(Δx).
            CpuTiles.Transpose(t.DeltaX, p, q, p, t.TransposedX, q);
            CpuTiles.Multiply<T>(q, q, p, t.DOutput, p, 1, t.TransposedX, q, t.DDecayed, q, false, Triangle.LowerC);
            WithinChunk<T>(t, q);
            CpuTiles.Multiply<T>(q, p, q, t.Decayed, 1, q, t.DOutput, p, t.DDeltaX, p, false, Triangle.UpperA);

            // From the state before the chunk: y_i += exp(Σ_{k≤i} a_k)·C_i·Sᵀ.
            CpuTiles.Transpose(state, p, n, p, t.Square, n);
            CpuTiles.Multiply<T>(q, n, p, t.DOutput, p, 1, t.Square, n, t.Rows, n, false);
            double suffix = 0;
            for (long i = q - 1; i >= 0; i--)
            {
                CpuTiles.AddScaled<T>(t.Rows + i * n, decay.FromStart[i], dC + i * n, n);
                suffix += decay.FromStart[i] * (double)CpuTiles.Dot<T>(t.Rows + i * n, C + i * scan.C.Step, n);
                t.DExponent[i] += (float)suffix;
            }

            // Into the state after the chunk: S' = exp(Σ a)·S + Σ_j exp(Σ_{k>j} a_k)·Δ_j x_j B_jᵀ.
            CpuTiles.Transpose(dState, p, n, p, t.Square, n);
            CpuTiles.Multiply<T>(q, n, p, t.DeltaX, p, 1, t.Square, n, t.Rows, n, false);
            double prefix = decay.FromStart[q - 1] * (double)CpuTiles.Dot<T>(dState, state, n * p);
            for (long j = 0; j < q; j++)
            {
                t.DExponent[j] += (float)prefix;
                CpuTiles.AddScaled<T>(t.Rows + j * n, decay.ToEnd[j], dB + j * n, n);
                prefix += decay.ToEnd[j] * (double)CpuTiles.Dot<T>(t.Rows + j * n, B + j * scan.B.Step, n);
            }
            CpuTiles.Multiply<T>(q, p, n, B, scan.B.Step, 1, dState, p, t.Output, p, false);
            for (long j = 0; j < q; j++)
            {
                CpuTiles.AddScaled<T>(t.Output + j * p, decay.ToEnd[j], t.DDeltaX + j * p, p);
                FinishStep<T>(t, row, start, j, head, sums);
                CpuTiles.Scale<T>(t.DOutput + j * p, decay.FromStart[j], t.DOutput + j * p, p);
            }
            CpuTiles.Scale<T>(dState, decay.FromStart[q - 1], dState, n * p);
            CpuTiles.Multiply<T>(n, p, q, C, 1, scan.C.Step, t.DOutput, p, dState, p, true);
        }

        /// <summary>Δx, and dy behind the gate, of one step; the gradients of gate and skip.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private void LoadStep<T>(in SsdBackwardTiles t, long row, long start, long i, long head, double* sums) where T : struct, IFloats<T>
        {
            long p = scan.P, at = scan.Dense(row, start + i, head);
            float* x = scan.X.At(row, start + i, head), z = scan.Z.IsPresent ? scan.Z.At(row, start + i, head) : null, to = t.DOutput + i * p;
            CpuTiles.Scale<T>(x, t.Decay.Delta[i], t.DeltaX + i * p, p);
            for (long c = 0; c < p; c += T.Width)
            {
                T d = T.LoadUpTo(dy + at + c, p - c);
                if (z != null)
                {
                    T gate = T.LoadUpTo(z + c, p - c);
                    (d * T.LoadUpTo(ungated + at + c, p - c) * Silu.Derivative(gate)).StoreUpTo(dz + at + c, p - c);
                    d *= Silu.Value(gate);
                }
                d.StoreUpTo(to + c, p - c);
            }
            if (scan.D == null) return;
            for (long c = 0; c < p; c++) sums[2 + c] += (double)to[c] * x[c];
        }

        /// <summary>From d(C·Bᵀ ∘ decay): adds to d(C·Bᵀ), and to the gradient of each a_k the pairs j &lt; k ≤ i that its decay stands between.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void WithinChunk<T>(in SsdBackwardTiles t, long q) where T : struct, IFloats<T>
        {
            new Span<float>(t.Below, checked((int)q)).Clear();
            for (long i = q - 1; i >= 0; i--)
            {
                float* decays = t.Decays + i * q, d = t.DDecayed + i * q, products = t.Products + i * q, decayed = t.Decayed + i * q, dProducts = t.DProducts + i * q;
                T sum = T.Zero;
                for (long j = 0; j < q; j += T.Width)
                {
                    long rest = q - j, used = i - j;
                    if (used < 0)
                    {
                        T.Zero.StoreUpTo(decayed + j, rest);
                        continue;
                    }
                    // Lanes j ≤ i hold pairs; on the diagonal the exponent is empty, so lane i does not count for a.
                    T pairs = T.LoadUpTo(d + j, Math.Min(rest, used + 1)) * T.LoadUpTo(decays + j, rest);
                    T.LoadUpTo(products + j, Math.Min(rest, used + 1)).StoreUpTo(decayed + j, rest);
                    (T.LoadUpTo(decayed + j, rest) * T.LoadUpTo(decays + j, rest)).StoreUpTo(decayed + j, rest);
                    (T.LoadUpTo(dProducts + j, rest) + pairs).StoreUpTo(dProducts + j, rest);
                    pairs *= T.LoadUpTo(products + j, Math.Min(rest, used + 1));
                    pairs.StoreUpTo(t.Pairs, T.Width);
                    T below = T.LoadUpTo(t.Below + j, rest) + T.LoadUpTo(t.Pairs, Math.Min(rest, used));
                    below.StoreUpTo(t.Below + j, rest);
                    T.LoadUpTo(t.Below + j, Math.Min(rest, used)).StoreUpTo(t.Pairs, T.Width);
                    sum += T.Load(t.Pairs);
                }
                t.DExponent[i] += sum.Sum();
            }
        }

        /// <summary>dx, d dt and the sums for A and the bias, from d(Δx) and the gradient of a = Δ·A.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private void FinishStep<T>(in SsdBackwardTiles t, long row, long start, long i, long head, double* sums) where T : struct, IFloats<T>
        {
            long p = scan.P, at = row * scan.Length + start + i;
            float* x = scan.X.At(row, start + i, head), dDeltaX = t.DDeltaX + i * p, to = dx + at * strideDx + head * p;
            (float delta, float raw, float dA) = (t.Decay.Delta[i], t.Decay.Raw[i], t.DExponent[i]);
            T scale = T.Broadcast(delta);
            for (long c = 0; c < p; c += T.Width)
            {
                T d = T.LoadUpTo(dDeltaX + c, p - c) * scale;
                if (scan.D != null)
                    d = T.MulAdd(scan.IsSkipPerChannel ? T.LoadUpTo(scan.D + head * p + c, p - c) : T.Broadcast(scan.D[head]), T.LoadUpTo(t.DOutput + i * p + c, p - c), d);
                d.StoreUpTo(to + c, p - c);
            }
            sums[0] += (double)dA * delta;
            double dDelta = (double)dA * scan.Rate(head) + CpuTiles.Dot<T>(dDeltaX, x, p);
            double unlimited = scan.HasSoftplus ? Math.Max(raw, 0) + Math.Log(1 + Math.Exp(-Math.Abs((double)raw))) : raw;
            if (unlimited < scan.MinDelta || unlimited > scan.MaxDelta) dDelta = 0;
            if (scan.HasSoftplus) dDelta /= 1 + Math.Exp(-(double)raw);
            dDt[at * strideDt + head] = (float)dDelta;
            sums[1] += dDelta;
        }
    }

    /// <summary>Scratch of one piece of backward work.</summary>
    private readonly struct SsdBackwardTiles
    {
        public SsdBackwardTiles(float* scratch, long q, long n, long p)
        {
            TransposedB = scratch;
            Products = TransposedB + n * q;
            DProducts = Products + q * q;
            Decays = DProducts + q * q;
            Decayed = Decays + q * q;
            DDecayed = Decayed + q * q;
            DeltaX = DDecayed + q * q;
            TransposedX = DeltaX + q * p;
            DOutput = TransposedX + q * p;
            DDeltaX = DOutput + q * p;
            Output = DDeltaX + q * p;
            Rows = Output + q * p;
            Square = Rows + q * n;
            DExponent = Square + n * p;
            Below = DExponent + q;
            Pairs = Below + q;
            Decay = new SsdDecay(Pairs + 16, q);
        }

        public static long Floats(long q, long n, long p) => 2 * n * q + 5 * q * q + 5 * q * p + n * p + 2 * q + 16 + SsdDecay.Floats(q);

        /// <summary>[N, q]; C·Bᵀ and its gradient, the decays, their product and its gradient, all [q, q].</summary>
        public readonly float* TransposedB, Products, DProducts, Decays, Decayed, DDecayed;

        /// <summary>Δx [q, P] and [P, q]; dy, d(Δx) and a product [q, P]; a product [q, N]; a transposed state [P, N].</summary>
        public readonly float* DeltaX, TransposedX, DOutput, DDeltaX, Output, Rows, Square;

        /// <summary>[q] gradient of each a_k; [q] sums of pairs below a row; one register.</summary>
        public readonly float* DExponent, Below, Pairs;

        public readonly SsdDecay Decay;
    }
}
