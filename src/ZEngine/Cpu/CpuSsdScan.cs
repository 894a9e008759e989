using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>Heads of one group that one piece of work covers: they share C·Bᵀ.</summary>
    private const long SsdHeadBlock = 4;

    /// <summary>How far a state is fetched ahead of its use: it has lain in memory since the token before.</summary>
    private const int StateAhead = 8 << 10;

    internal override long SsdChunkLength(long wanted, long length, long headDimension, long states) => wanted > 0 ? wanted : Math.Clamp(length, 1, 64);

    internal override long SsdSquares(SsdScanInputs x) => x.X.Shape[2];

    internal override void SsdScanForward(SsdScanInputs x, Tensor y, Tensor finalState, Tensor? states, Tensor? ungated, SsdGate? gate, SsdInput? input)
    {
        var scan = new SsdView(x);
        For(scan.Units, 1, new SsdForwardKernel(scan, F32(y), F32(finalState), F32(states), F32(ungated), F32(gate?.Weight), F32(gate?.Squares)));
    }

    /// <summary>Sizes, addresses and the division into pieces of work of one call.</summary>
    private readonly struct SsdView
    {
        private readonly CpuSequences _sequences;
        private readonly long _blocksPerGroup;
        private readonly float* _a;

        public SsdView(SsdScanInputs x)
        {
            (Length, Heads, P) = (x.X.Shape[1], x.X.Shape[2], x.X.Shape[3]);
            (Groups, N, Q) = (x.B.Shape[2], x.B.Shape[3], x.Options.ChunkLength);
            _sequences = new CpuSequences(x.X.Shape[0], Length, x.Options.Layout);
            HeadsPerGroup = Heads / Groups;
            _blocksPerGroup = (HeadsPerGroup + SsdHeadBlock - 1) / SsdHeadBlock;
            (X, Dt, B, C, Z) = (new SsdOperand(x.X), new SsdOperand(x.Dt), new SsdOperand(x.B), new SsdOperand(x.C), new SsdOperand(x.Z));
            _a = F32(x.A);
            D = F32(x.D);
            DtBias = F32(x.DtBias);
            InitialState = F32(x.InitialState);
            IsSkipPerChannel = x.D is { Rank: 2 };
            (HasSoftplus, HasLogA, MinDelta, MaxDelta) = (x.Options.HasSoftplus, x.Options.HasLogA, x.Options.MinDelta, x.Options.MaxDelta);
        }

        /// <summary>One step of every sequence.</summary>
        /// <param name="x">The step.</param>
        /// <param name="channels">[B, H·P + 2·G·N], rows [x; B; C] as the convolution leaves them.</param>
        /// <param name="states">[at least B, H, P, N].</param>
        public SsdView(StateUpdateInputs x, float* channels, Tensor states)
        {
            long batch = x.X.Shape[0], width = x.X.Shape[1];
            (Length, Heads, P, N) = (1, states.Shape[1], states.Shape[2], states.Shape[3]);
            (Groups, Q) = (x.Cache.Tickets.Shape[1], 1);
            _sequences = new CpuSequences(batch, 1, null);
            HeadsPerGroup = Heads / Groups;
            _blocksPerGroup = (HeadsPerGroup + SsdHeadBlock - 1) / SsdHeadBlock;
            float* b = channels + Heads * P;
            (X, B, C) = (new SsdOperand(channels, width, P), new SsdOperand(b, width, N), new SsdOperand(b + Groups * N, width, N));
            (Dt, Z) = (new SsdOperand(F32(x.Dt), x.Dt.Strides[0], 1), x.Z is null ? default : new SsdOperand(F32(x.Z), x.Z.Strides[0], P));
            _a = F32(x.A);
            D = F32(x.D);
            DtBias = F32(x.DtBias);
            InitialState = F32(states);
            (HasSoftplus, HasLogA, MinDelta, MaxDelta) = (x.Options.HasSoftplus, x.Options.HasLogA, x.Options.MinDelta, x.Options.MaxDelta);
        }

        public readonly SsdOperand X, Dt, B, C, Z;
        public readonly float* D, DtBias, InitialState;
        public readonly long Length, Heads, P, Groups, N, Q, HeadsPerGroup;
        public readonly bool IsSkipPerChannel, HasSoftplus, HasLogA;
        public readonly float MinDelta, MaxDelta;

        /// <summary>A of a head.</summary>
        public float Rate(long head) => HasLogA ? -(float)Math.Exp(_a[head]) : _a[head];

        public long Sequences => _sequences.Count;

        public long HeadBlocks => Groups * _blocksPerGroup;

        public long BlocksPerGroup => _blocksPerGroup;

        public long Units => Sequences * HeadBlocks;

        public (long Row, long Begin, long End) Sequence(long index) => _sequences[index];

        /// <summary>The sequence, group and heads of a piece of work.</summary>
        public (long Sequence, long Block, long Group, long FirstHead, long LastHead) Unit(long unit)
        {
            (long sequence, long block) = Math.DivRem(unit, HeadBlocks);
            (long group, long part) = Math.DivRem(block, _blocksPerGroup);
            long first = group * HeadsPerGroup + part * SsdHeadBlock;
            return (sequence, block, group, first, Math.Min((group + 1) * HeadsPerGroup, first + SsdHeadBlock));
        }

        /// <summary>Chunks before those of a sequence.</summary>
        public long ChunksBefore(long sequence)
        {
            long chunks = 0;
            for (long i = 0; i < sequence; i++) chunks += ChunksOf(i);
            return chunks;
        }

        public long ChunksOf(long sequence) => (_sequences[sequence].End - _sequences[sequence].Begin + Q - 1) / Q;

        /// <summary>Index of (row, step, head, 0) in a contiguous [B, L, H, P].</summary>
        public long Dense(long row, long step, long head) => ((row * Length + step) * Heads + head) * P;

        /// <summary>Index of (sequence, head, 0, 0) in contiguous states [n, H, P, N].</summary>
        public long State(long sequence, long head) => (sequence * Heads + head) * P * N;
    }

    /// <summary>An operand [B, L, head or group, ...] of any strides, its last axis dense.</summary>
    private readonly struct SsdOperand(Tensor? tensor)
    {
        private readonly float* _data = F32(tensor);
        private readonly long _batch = tensor?.Strides[0] ?? 0, _head = tensor?.Strides[2] ?? 0;
        public readonly long Step = tensor?.Strides[1] ?? 0;

        /// <summary>Rows of one step that stand at <paramref name="data"/>.</summary>
        public SsdOperand(float* data, long batch, long head) : this(null)
        {
            _data = data;
            (_batch, _head) = (batch, head);
        }

        public bool IsPresent => _data != null;

        public float* At(long row, long step, long head) => _data + row * _batch + step * Step + head * _head;
    }

    /// <summary>Δ and the decays of one chunk of one head. Prefix sums are kept as a float and its rounding error, so that their differences are accurate however large they grow.</summary>
    private readonly struct SsdDecay
    {
        private readonly float* _high, _low;

        public SsdDecay(float* scratch, long q)
        {
            _high = scratch;
            _low = scratch + q;
            Delta = scratch + 2 * q;
            Raw = scratch + 3 * q;
            FromStart = scratch + 4 * q;
            ToEnd = scratch + 5 * q;
        }

        public static long Floats(long q) => 6 * q;

        /// <summary>[q] Δ; dt + bias before softplus; exp(Σ_{k≤i} a_k); exp(Σ_{k&gt;j} a_k).</summary>
        public readonly float* Delta, Raw, FromStart, ToEnd;

        public void Load<T>(in SsdView scan, long row, long begin, long head, long q) where T : struct, IFloats<T>
        {
            float bias = scan.DtBias == null ? 0 : scan.DtBias[head];
            for (long i = 0; i < q; i++) Raw[i] = *scan.Dt.At(row, begin + i, head) + bias;
            T least = T.Broadcast(scan.MinDelta), most = T.Broadcast(scan.MaxDelta);
            for (long i = 0; i < q; i += T.Width)
            {
                T value = T.LoadUpTo(Raw + i, q - i);
                if (scan.HasSoftplus) value = CpuMath.Softplus(value);
                T.Max(least, T.Min(most, value)).StoreUpTo(Delta + i, q - i);
            }
            double sum = 0, a = scan.Rate(head);
            for (long i = 0; i < q; i++)
            {
                sum += Delta[i] * a;
                _high[i] = (float)sum;
                _low[i] = (float)(sum - _high[i]);
                FromStart[i] = _high[i];
            }
            T high = T.Broadcast(_high[q - 1]), low = T.Broadcast(_low[q - 1]);
            for (long i = 0; i < q; i += T.Width)
            {
                CpuMath.Exp(T.LoadUpTo(FromStart + i, q - i)).StoreUpTo(FromStart + i, q - i);
                CpuMath.Exp((high - T.LoadUpTo(_high + i, q - i)) + (low - T.LoadUpTo(_low + i, q - i))).StoreUpTo(ToEnd + i, q - i);
            }
        }

        /// <summary>decay[i, j] = exp(Σ_{j&lt;k≤i} a_k) for j ≤ i, zero beyond.</summary>
        public void Matrix<T>(long q, float* decay) where T : struct, IFloats<T>
        {
            for (long i = 0; i < q; i++)
            {
                T high = T.Broadcast(_high[i]), low = T.Broadcast(_low[i]);
                float* to = decay + i * q;
                for (long j = 0; j <= i; j += T.Width)
                    CpuMath.Exp((high - T.LoadUpTo(_high + j, q - j)) + (low - T.LoadUpTo(_low + j, q - j))).StoreUpTo(to + j, q - j);
                new Span<float>(to + i + 1, (int)(q - i - 1)).Clear();
            }
        }
    }

    private readonly struct SsdForwardKernel(SsdView scan, float* y, float* finalState, float* states, float* ungated, float* norm, float* squares) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long unit = begin; unit < end; unit++)
            {
                (long sequence, _, long group, long firstHead, long lastHead) = scan.Unit(unit);
                (_, long first, long last) = scan.Sequence(sequence);
                if (last - first == 1 && states == null)
                    for (long head = firstHead; head < lastHead; head++) Step<T>(sequence, group, head);
                else Chunks<T>(sequence, group, firstHead, lastHead);
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Chunks<T>(long sequence, long group, long firstHead, long lastHead) where T : struct, IFloats<T>
        {
            (long row, long begin, long end) = scan.Sequence(sequence);
            (long n, long p) = (scan.N, scan.P);
            long longest = Math.Min(scan.Q, end - begin);
            using var scratch = new CpuScratch(n * longest + 2 * longest * longest + 2 * longest * p + longest * n + SsdDecay.Floats(longest) + (lastHead - firstHead) * n * p);
            float* transposedB = scratch.Data, products = transposedB + n * longest, decayed = products + longest * longest;
            float* deltaX = decayed + longest * longest, output = deltaX + longest * p, scaledC = output + longest * p;
            var decay = new SsdDecay(scaledC + longest * n, longest);
            float* state = scaledC + longest * n + SsdDecay.Floats(longest);              // per head [N, P]

            for (long head = firstHead; head < lastHead; head++)
            {
                float* own = state + (head - firstHead) * n * p;
                if (scan.InitialState == null) new Span<float>(own, checked((int)(n * p))).Clear();
                else CpuTiles.Transpose(scan.InitialState + scan.State(sequence, head), n, p, n, own, p);
            }
            long chunk = scan.ChunksBefore(sequence);
            for (long start = begin; start < end; start += scan.Q, chunk++)
            {
                long q = Math.Min(scan.Q, end - start);
                float* B = scan.B.At(row, start, group), C = scan.C.At(row, start, group);
                CpuTiles.Transpose(B, scan.B.Step, q, n, transposedB, q);
                CpuTiles.Multiply<T>(q, q, n, C, scan.C.Step, 1, transposedB, q, products, q, false, Triangle.LowerC);
                for (long head = firstHead; head < lastHead; head++)
                {
                    float* own = state + (head - firstHead) * n * p;
                    if (states != null) Buffer.MemoryCopy(own, states + (chunk * scan.Heads + head) * n * p, n * p * sizeof(float), n * p * sizeof(float));
                    decay.Load<T>(scan, row, start, head, q);
                    decay.Matrix<T>(q, decayed);
                    for (long i = 0; i < q; i++)
                    {
                        Multiply<T>(products + i * q, decayed + i * q, i + 1);
                        CpuTiles.Scale<T>(scan.X.At(row, start + i, head), decay.Delta[i], deltaX + i * p, p);
                        CpuTiles.Scale<T>(C + i * scan.C.Step, decay.FromStart[i], scaledC + i * n, n);
                    }
                    CpuTiles.Multiply<T>(q, p, q, decayed, q, 1, deltaX, p, output, p, false, Triangle.LowerA);
                    CpuTiles.Multiply<T>(q, p, n, scaledC, n, 1, own, p, output, p, true);
                    for (long i = 0; i < q; i++)
                    {
                        Finish<T>(row, start + i, head, output + i * p);
                        CpuTiles.Scale<T>(deltaX + i * p, decay.ToEnd[i], deltaX + i * p, p);
                    }
                    CpuTiles.Scale<T>(own, decay.FromStart[q - 1], own, n * p);
                    CpuTiles.Multiply<T>(n, p, q, B, 1, scan.B.Step, deltaX, p, own, p, true);
                }
            }
            for (long head = firstHead; head < lastHead; head++)
                CpuTiles.Transpose(state + (head - firstHead) * n * p, p, n, p, finalState + scan.State(sequence, head), n);
        }

        /// <summary>One step of one head in one pass over the state: decoding.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Step<T>(long sequence, long group, long head) where T : struct, IFloats<T>
        {
            (long row, long step, _) = scan.Sequence(sequence);
            float* scratch = stackalloc float[6], x = scan.X.At(row, step, head), B = scan.B.At(row, step, group), C = scan.C.At(row, step, group);
            var decay = new SsdDecay(scratch, 1);
            decay.Load<T>(scan, row, step, head, 1);
            long state = scan.State(sequence, head), n = scan.N;
            float* output = y + scan.Dense(row, step, head), to = finalState + state, from = to;
            if (scan.InitialState != null) from = scan.InitialState + state;
            else new Span<float>(to, checked((int)(scan.P * n))).Clear();
            T kept = T.Broadcast(scan.InitialState == null ? 0 : decay.FromStart[0]);
            for (long p = 0; p < scan.P; p += 2)
            {
                long next = p + 1 < scan.P ? 1 : 0;            // where there is no second row, the first again
                (output[p], output[p + next]) = StepRows<T>(n, from + p * n, to + p * n, next * n, kept, T.Broadcast(decay.Delta[0] * x[p]), T.Broadcast(decay.Delta[0] * x[p + next]), B, C);
            }
            Finish<T>(row, step, head, output);
        }

        /// <summary>Takes two rows of a state one step further; their products with C.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private static (float, float) StepRows<T>(long n, float* from, float* to, long next, T kept, T input0, T input1, float* B, float* C) where T : struct, IFloats<T>
        {
            T sum0 = T.Zero, sum1 = T.Zero;
            long i = 0;
            for (; i + T.Width <= n; i += T.Width)
            {
                CpuSimd.FetchAhead(from + i, StateAhead);
                CpuSimd.FetchAhead(from + next + i, StateAhead);
                T b = T.Load(B + i), c = T.Load(C + i);
                T value0 = T.MulAdd(kept, T.Load(from + i), input0 * b), value1 = T.MulAdd(kept, T.Load(from + next + i), input1 * b);
                value0.Store(to + i);
                value1.Store(to + next + i);
                (sum0, sum1) = (T.MulAdd(value0, c, sum0), T.MulAdd(value1, c, sum1));
            }
            if (i < n)
            {
                long rest = n - i;
                T b = T.LoadUpTo(B + i, rest), c = T.LoadUpTo(C + i, rest);
                T value0 = T.MulAdd(kept, T.LoadUpTo(from + i, rest), input0 * b), value1 = T.MulAdd(kept, T.LoadUpTo(from + next + i, rest), input1 * b);
                value0.StoreUpTo(to + i, rest);
                value1.StoreUpTo(to + next + i, rest);
                (sum0, sum1) = (T.MulAdd(value0, c, sum0), T.MulAdd(value1, c, sum1));
            }
            return (sum0.Sum(), sum1.Sum());
        }

        /// <summary>Adds the skip, applies the gate and stores.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private void Finish<T>(long row, long step, long head, float* output) where T : struct, IFloats<T>
        {
            long at = scan.Dense(row, step, head), n = scan.P;
            float* x = scan.X.At(row, step, head), z = scan.Z.IsPresent ? scan.Z.At(row, step, head) : null;
            T sum = T.Zero;
            for (long i = 0; i < n; i += T.Width)
            {
                T value = T.LoadUpTo(output + i, n - i);
                if (scan.D != null)
                    value = T.MulAdd(scan.IsSkipPerChannel ? T.LoadUpTo(scan.D + head * n + i, n - i) : T.Broadcast(scan.D[head]), T.LoadUpTo(x + i, n - i), value);
                if (z != null)
                {
                    if (ungated != null) value.StoreUpTo(ungated + at + i, n - i);
                    value *= Silu.Value(T.LoadUpTo(z + i, n - i));
                    if (norm != null)
                    {
                        sum = T.MulAdd(value, value, sum);
                        value *= T.LoadUpTo(norm + head * n + i, n - i);
                    }
                }
                value.StoreUpTo(y + at + i, n - i);
            }
            if (norm != null) squares[(row * scan.Length + step) * scan.Heads + head] = sum.Sum();
        }

        /// <summary>y *= x.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private static void Multiply<T>(float* x, float* y, long n) where T : struct, IFloats<T>
        {
            for (long i = 0; i < n; i += T.Width) (T.LoadUpTo(y + i, n - i) * T.LoadUpTo(x + i, n - i)).StoreUpTo(y + i, n - i);
        }
    }
}
