using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    private const float Log2E = 1.44269504f, Ln2 = 0.693147181f;

    // What the inner loops read of 32 steps of two registers of channels stays in a first-level cache, in both directions.
    internal override long SelectiveScanStretch => 32;

    internal override bool ScansWithLogarithm(long length) => length == 1;

    internal override void SelectiveScanForward(SelectiveScanInputs x, Tensor y, Tensor finalState, Tensor? states)
    {
        var scan = new ScanView(x, SelectiveScanStretch);
        For(scan.Sequences * scan.Blocks, 1, new ScanForwardKernel(scan, F32(y), F32(finalState), F32(states)));
    }

    /// <summary>Sizes, addresses and the division into pieces of work of one call: a piece has up to <see cref="Lanes"/> channels of one group.</summary>
    private readonly struct ScanView
    {
        private readonly CpuSequences _sequences;
        private readonly long _channelsPerGroup;

        public ScanView(SelectiveScanInputs x, long stretch)
        {
            (Length, Channels, Groups, N, Stretch) = (x.U.Shape[1], x.U.Shape[2], x.B.Shape[2], x.A.Shape[1], stretch);
            _sequences = new CpuSequences(x.U.Shape[0], Length, x.Layout);
            _channelsPerGroup = Channels / Groups;
            BlocksPerGroup = (_channelsPerGroup + Lanes - 1) / Lanes;
            (U, Dt, B, C, Z) = (new SsdOperand(x.U), new SsdOperand(x.Dt), new SsdOperand(x.B), new SsdOperand(x.C), new SsdOperand(x.Z));
            A = F32(x.A);
            D = F32(x.D);
            DtBias = F32(x.DtBias);
            InitialState = F32(x.InitialState);
            (HasSoftplus, HasLogA) = (x.HasSoftplus, x.HasLogA);
        }

        /// <summary>One step of every sequence.</summary>
        /// <param name="batch">Sequences.</param>
        /// <param name="groups">G.</param>
        /// <param name="layer">Rates, skip and the bias of Δ.</param>
        /// <param name="u">[B, D].</param>
        /// <param name="dt">[B, D].</param>
        /// <param name="b">B and C of the first group of the first sequence; those of the next stand the width of a projection behind.</param>
        /// <param name="z">[B, D] or null.</param>
        /// <param name="states">[at least B, D, N].</param>
        public ScanView(long batch, long groups, SelectiveStateLayer layer, float* u, float* dt, float* b, Tensor? z, Tensor states)
        {
            (Length, Channels, Groups, N, Stretch) = (1, states.Shape[1], groups, states.Shape[2], 1);
            _sequences = new CpuSequences(batch, 1, null);
            _channelsPerGroup = Channels / Groups;
            BlocksPerGroup = (_channelsPerGroup + Lanes - 1) / Lanes;
            long projected = layer.Projection.Shape[1];
            (U, Dt) = (new SsdOperand(u, Channels, 1), new SsdOperand(dt, Channels, 1));
            (B, C) = (new SsdOperand(b, groups * projected, projected), new SsdOperand(b + N, groups * projected, projected));
            Z = z is null ? default : new SsdOperand(F32(z), z.Strides[0], 1);
            A = F32(layer.LogA);
            D = F32(layer.D);
            DtBias = F32(layer.DtBias);
            InitialState = F32(states);
            (HasSoftplus, HasLogA) = (true, true);
        }

        public readonly SsdOperand U, Dt, B, C, Z;
        public readonly float* A, D, DtBias, InitialState;
        public readonly long Length, Channels, Groups, N, Stretch, BlocksPerGroup;
        public readonly bool HasSoftplus, HasLogA;

        public static long Lanes => 2 * CpuSimd.Width;

        public long Sequences => _sequences.Count;

        public long Blocks => Groups * BlocksPerGroup;

        public (long Row, long Begin, long End) Sequence(long index) => _sequences[index];

        /// <summary>The group, the first channel and the number of channels of a block.</summary>
        public (long Group, long First, long Count) Block(long block)
        {
            (long group, long part) = Math.DivRem(block, BlocksPerGroup);
            return (group, group * _channelsPerGroup + part * Lanes, Math.Min(Lanes, _channelsPerGroup - part * Lanes));
        }

        public long StretchesOf(long sequence) => (_sequences[sequence].End - _sequences[sequence].Begin + Stretch - 1) / Stretch;

        /// <summary>Stretches before those of a sequence.</summary>
        public long StretchesBefore(long sequence)
        {
            long stretches = 0;
            for (long i = 0; i < sequence; i++) stretches += StretchesOf(i);
            return stretches;
        }

        /// <summary>Index of (row, step, channel) in a contiguous [B, L, D].</summary>
        public long Dense(long row, long step, long channel) => (row * Length + step) * Channels + channel;

        /// <summary>Index of (sequence, channel, 0) in contiguous states [n, D, N].</summary>
        public long State(long sequence, long channel) => (sequence * Channels + channel) * N;

        /// <summary>dt + bias of some channels.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public T Raw<T>(long row, long step, long channel, long count) where T : struct, IFloats<T>
        {
            T raw = T.LoadUpTo(Dt.At(row, step, channel), count);
            return DtBias == null ? raw : raw + T.LoadUpTo(DtBias + channel, count);
        }

        /// <summary>Copies rows [count, N] to [N, Lanes]; lanes without a channel are zero.</summary>
        public void ToLanes(float* from, long count, float* to)
        {
            if (count < Lanes || from == null) new Span<float>(to, checked((int)(N * Lanes))).Clear();
            if (from != null) CpuTiles.Transpose(from, N, count, N, to, Lanes);
        }

        /// <summary>The rates of some channels, as <see cref="ToLanes"/>.</summary>
        public void ToRates<T>(long first, long count, float* to) where T : struct, IFloats<T>
        {
            ToLanes(A + first * N, count, to);
            for (long i = 0; i < N * Lanes; i += T.Width) ScanRate(T.Load(to + i)).Store(to + i);
        }
    }

    /// <summary>A·log2 e, kept finite, so that Δ = 0 makes a decay of 1.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T ScanRate<T>(T a) where T : struct, IFloats<T>
    {
        T most = T.Broadcast(float.MaxValue);
        return T.Max(-most, T.Min(most, a * T.Broadcast(Log2E)));
    }

    /// <summary>
    /// exp(Δ·A) = 2^y from the rate A·log2 e: y = n + f, and 2^f = 1 + f·q(f), q through six Chebyshev points, relative error 9e-9. Half the work of
    /// a whole exponential: below 2^-126 it stays there, since the scan adds something to every product with it.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T ScanDecay<T>(T delta, T rate) where T : struct, IFloats<T>
    {
        T y = T.Max(T.Broadcast(-126f), T.Min(T.Broadcast(128f), delta * rate)), n = T.Round(y), f = y - n;
        T q = T.MulAdd(f, T.Broadcast(1.54531629e-4f), T.Broadcast(1.33908634e-3f));
        q = T.MulAdd(q, f, T.Broadcast(9.61808256e-3f));
        q = T.MulAdd(q, f, T.Broadcast(5.55035711e-2f));
        q = T.MulAdd(q, f, T.Broadcast(0.240226508f));
        q = T.MulAdd(q, f, T.Broadcast(0.693147188f));
        return T.MulAdd(q, f, T.Broadcast(1f)) * T.Power2(n);
    }

    /// <summary>Values of one stretch, [step, Lanes] each, and what belongs to each state, [N, Lanes].</summary>
    private readonly struct ScanTile
    {
        public ScanTile(float* scratch, in ScanView scan)
        {
            long steps = scan.Stretch * ScanView.Lanes;
            Delta = scratch;
            Input = Delta + steps;
            Output = Input + steps;
            Rate = Output + steps;
            State = Rate + scan.N * ScanView.Lanes;
        }

        /// <summary>Δ; Δ·u; y before the gate.</summary>
        public readonly float* Delta, Input, Output;

        /// <summary>A·log2 e; the state.</summary>
        public readonly float* Rate, State;

        public static long Floats(in ScanView scan) => (3 * scan.Stretch + 2 * scan.N) * ScanView.Lanes;

        /// <summary>Works out Δ and Δ·u; the output begins with the skip.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Load<T>(in ScanView scan, long row, long start, long q, long first, long count) where T : struct, IFloats<T>
        {
            for (long t = 0; t < q; t++)
            for (long v = 0; v < count; v += T.Width)
            {
                long at = t * ScanView.Lanes + v;
                T delta = scan.Raw<T>(row, start + t, first + v, count - v), u = T.LoadUpTo(scan.U.At(row, start + t, first + v), count - v);
                if (scan.HasSoftplus) delta = CpuMath.Softplus(delta);
                delta.Store(Delta + at);
                (delta * u).Store(Input + at);
                (scan.D == null ? T.Zero : T.LoadUpTo(scan.D + first + v, count - v) * u).Store(Output + at);
            }
        }
    }

    private readonly struct ScanForwardKernel(ScanView scan, float* y, float* finalState, float* states) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long unit = begin; unit < end; unit++)
            {
                (long sequence, long block) = Math.DivRem(unit, scan.Blocks);
                (_, long first, long last) = scan.Sequence(sequence);
                if (last - first == 1 && states == null) Step<T>(sequence, block);
                else Stretches<T>(sequence, block);
            }
        }

        private void Stretches<T>(long sequence, long block) where T : struct, IFloats<T>
        {
            (long row, long begin, long end) = scan.Sequence(sequence);
            (long group, long first, long count) = scan.Block(block);
            using var scratch = new CpuScratch(ScanTile.Floats(scan));
            var tile = new ScanTile(scratch.Data, scan);
            scan.ToRates<T>(first, count, tile.Rate);
            scan.ToLanes(scan.InitialState == null ? null : scan.InitialState + scan.State(sequence, first), count, tile.State);

            long stretch = states == null ? 0 : scan.StretchesBefore(sequence);
            for (long start = begin; start < end; start += scan.Stretch, stretch++)
            {
                long q = Math.Min(scan.Stretch, end - start);
                if (states != null)
                    for (long n = 0; n < scan.N; n++)
                        Buffer.MemoryCopy(tile.State + n * ScanView.Lanes, states + (stretch * scan.N + n) * scan.Channels + first, count * sizeof(float), count * sizeof(float));
                tile.Load<T>(scan, row, start, q, first, count);
                for (long v = 0; v < count; v += T.Width) Advance<T>(tile, v, q, scan.B.At(row, start, group), scan.C.At(row, start, group));
                Finish<T>(tile, row, start, q, first, count);
            }
            CpuTiles.Transpose(tile.State, ScanView.Lanes, scan.N, count, finalState + scan.State(sequence, first), scan.N);
        }

        /// <summary>Takes one register of channels through a stretch, four states at a time: these stay in registers while time runs.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Advance<T>(in ScanTile tile, long v, long q, float* B, float* C) where T : struct, IFloats<T>
        {
            long lanes = ScanView.Lanes, n = 0, stepB = scan.B.Step, stepC = scan.C.Step;
            for (; n + 4 <= scan.N; n += 4)
            {
                float* a = tile.Rate + n * lanes + v, h = tile.State + n * lanes + v, b = B + n, c = C + n;
                float* delta = tile.Delta + v, input = tile.Input + v, output = tile.Output + v;
                T a0 = T.Load(a), a1 = T.Load(a + lanes), a2 = T.Load(a + 2 * lanes), a3 = T.Load(a + 3 * lanes);
                T h0 = T.Load(h), h1 = T.Load(h + lanes), h2 = T.Load(h + 2 * lanes), h3 = T.Load(h + 3 * lanes);
                for (long t = 0; t < q; t++)
                {
                    T d = T.Load(delta), x = T.Load(input);
                    h0 = T.MulAdd(ScanDecay(d, a0), h0, x * T.Broadcast(b[0]));
                    h1 = T.MulAdd(ScanDecay(d, a1), h1, x * T.Broadcast(b[1]));
                    h2 = T.MulAdd(ScanDecay(d, a2), h2, x * T.Broadcast(b[2]));
                    h3 = T.MulAdd(ScanDecay(d, a3), h3, x * T.Broadcast(b[3]));
                    T sum = T.MulAdd(h0, T.Broadcast(c[0]), h1 * T.Broadcast(c[1])) + T.MulAdd(h2, T.Broadcast(c[2]), h3 * T.Broadcast(c[3]));
                    (T.Load(output) + sum).Store(output);
                    delta += lanes;
                    input += lanes;
                    output += lanes;
                    b += stepB;
                    c += stepC;
                }
                h0.Store(h);
                h1.Store(h + lanes);
                h2.Store(h + 2 * lanes);
                h3.Store(h + 3 * lanes);
            }
            for (; n < scan.N; n++)
            {
                T a = T.Load(tile.Rate + n * lanes + v), h = T.Load(tile.State + n * lanes + v);
                for (long t = 0; t < q; t++)
                {
                    float* output = tile.Output + t * lanes + v;
                    h = T.MulAdd(ScanDecay(T.Load(tile.Delta + t * lanes + v), a), h, T.Load(tile.Input + t * lanes + v) * T.Broadcast(B[t * stepB + n]));
                    T.MulAdd(h, T.Broadcast(C[t * stepC + n]), T.Load(output)).Store(output);
                }
                h.Store(tile.State + n * lanes + v);
            }
        }

        /// <summary>Applies the gate and stores.</summary>
        private void Finish<T>(in ScanTile tile, long row, long start, long q, long first, long count) where T : struct, IFloats<T>
        {
            for (long t = 0; t < q; t++)
            for (long v = 0; v < count; v += T.Width)
            {
                T value = T.Load(tile.Output + t * ScanView.Lanes + v);
                if (scan.Z.IsPresent) value *= Silu.Value(T.LoadUpTo(scan.Z.At(row, start + t, first + v), count - v));
                value.StoreUpTo(y + scan.Dense(row, start + t, first + v), count - v);
            }
        }

        /// <summary>One step: the states of a channel stand side by side in memory and are walked where they stand. Decoding.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Step<T>(long sequence, long block) where T : struct, IFloats<T>
        {
            (long row, long step, _) = scan.Sequence(sequence);
            (long group, long first, long count) = scan.Block(block);
            float* B = scan.B.At(row, step, group), C = scan.C.At(row, step, group);
            float* deltas = stackalloc float[32], inputs = stackalloc float[32], outputs = stackalloc float[32];     // Lanes is at most 32
            for (long v = 0; v < count; v += T.Width)
            {
                T delta = scan.Raw<T>(row, step, first + v, count - v), u = T.LoadUpTo(scan.U.At(row, step, first + v), count - v);
                if (scan.HasSoftplus) delta = CpuMath.Softplus(delta);
                delta.Store(deltas + v);
                (delta * u).Store(inputs + v);
            }
            float* sums = stackalloc float[64];                // four registers
            for (long d = 0; d < count; d += 4)
            {
                long channels = Math.Min(4, count - d);
                for (long r = 0; r < channels; r++) StepStates<T>(sequence, first + d + r, deltas[d + r], inputs[d + r], B, C).Store(sums + r * T.Width);
                T.SumEach(T.Load(sums), T.Load(sums + T.Width), T.Load(sums + 2 * T.Width), T.Load(sums + 3 * T.Width), outputs + d);
            }
            for (long v = 0; v < count; v += T.Width)
            {
                T value = T.Load(outputs + v);
                if (scan.D != null) value = T.MulAdd(T.LoadUpTo(scan.D + first + v, count - v), T.LoadUpTo(scan.U.At(row, step, first + v), count - v), value);
                if (scan.Z.IsPresent) value *= Silu.Value(T.LoadUpTo(scan.Z.At(row, step, first + v), count - v));
                value.StoreUpTo(y + scan.Dense(row, step, first + v), count - v);
            }
        }

        /// <summary>Takes the states of one channel one step further; their products with C, a sum to a lane.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private T StepStates<T>(long sequence, long channel, float delta, float input, float* B, float* C) where T : struct, IFloats<T>
        {
            float* a = scan.A + channel * scan.N, to = finalState + scan.State(sequence, channel), from = scan.InitialState == null ? null : scan.InitialState + scan.State(sequence, channel);
            T sum = T.Zero;
            for (long n = 0; n < scan.N; n += T.Width)
            {
                long rest = scan.N - n;
                T h = T.Broadcast(input) * T.LoadUpTo(B + n, rest);
                if (from != null)
                {
                    CpuSimd.FetchAhead(from + n, StateAhead);
                    CpuSimd.FetchAhead(a + n, StateAhead);
                    T rate = T.LoadUpTo(a + n, rest);
                    if (scan.HasLogA) rate = -CpuMath.Exp(rate);
                    h = T.MulAdd(ScanDecay(T.Broadcast(delta), ScanRate(rate)), T.LoadUpTo(from + n, rest), h);
                }
                h.StoreUpTo(to + n, rest);
                sum = T.MulAdd(h, T.LoadUpTo(C + n, rest), sum);
            }
            return sum;
        }
    }
}
