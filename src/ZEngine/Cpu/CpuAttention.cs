using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>Queries and keys of one tile of scores: 48 · 64 floats and the operands stay in the first-level cache.</summary>
    private const long QueryTile = 48, KeyTile = 64;

    /// <summary>Up to this many queries a transposed copy of the keys does not pay: decoding.</summary>
    private const long FewQueries = 4;

    internal override void AttentionForward(AttentionInputs x, Tensor o, Tensor lse, Tensor? rest)
    {
        var view = new AttentionView(x);
        if (view.Queries <= FewQueries && x.Options.Layout is null)
        {
            DecodeAttention(view, F32(o), F32(lse));
            return;
        }
        using var transposed = new CpuScratch(view.TransposedFloats);
        For(view.Rows * view.Groups, 1, new AttentionTransposeKernel(view, view.K, transposed.Data));
        For(view.Sequences * view.Heads * view.QueryTiles, 1, new AttentionForwardKernel(view, transposed.Data, F32(o), F32(lse)));
    }

    /// <summary>Sizes, addresses and masks of one call.</summary>
    private readonly struct AttentionView : IDecodeRows
    {
        private readonly CpuSequences _sequences;
        private readonly long _window;
        private readonly bool _isCausal;

        public AttentionView(AttentionInputs x)
        {
            (Rows, Queries, Heads, P) = (x.Q.Shape[0], x.Q.Shape[1], x.Q.Shape[2], x.Q.Shape[3]);
            (Keys, Groups) = (x.K.Shape[1], x.K.Shape[2]);
            (Q, K, V) = (new SsdOperand(x.Q), new SsdOperand(x.K), new SsdOperand(x.V));
            (Scale, SoftCap) = (x.Scale, x.Options.SoftCap);
            (_isCausal, _window) = (x.Options.IsCausal, x.Options.Window);
            _sequences = new CpuSequences(Rows, Queries, x.Options.Layout);
            IsPacked = x.Options.Layout is not null;
            QueryTiles = (_sequences.LongestLength + QueryTile - 1) / QueryTile;
        }

        public readonly SsdOperand Q, K, V;
        public readonly long Keys, Heads, QueryTiles;
        public readonly float SoftCap;
        public readonly bool IsPacked;

        public long Rows { get; }

        public long Queries { get; }

        public long Groups { get; }

        public long P { get; }

        public float Scale { get; }

        public long ScratchFloats => 0;

        public long Sequences => _sequences.Count;

        public long HeadsPerGroup => Heads / Groups;

        public long TransposedFloats => Rows * Groups * P * Keys;

        /// <summary>Row of the batch, first and last query, first and last key of a sequence.</summary>
        public (long Row, long FirstQuery, long LastQuery, long FirstKey, long LastKey) Sequence(long index)
        {
            (long row, long begin, long end) = _sequences[index];
            return IsPacked ? (row, begin, end, begin, end) : (row, begin, end, 0, Keys);
        }

        /// <summary>The keys that a query sees.</summary>
        public (long First, long Last) Visible(long query, long lastQuery, long firstKey, long lastKey)
        {
            if (!_isCausal) return (firstKey, lastKey);
            long last = Math.Clamp(lastKey - lastQuery + query + 1, firstKey, lastKey);
            return (_window == 0 ? firstKey : Math.Clamp(lastKey - lastQuery + query + 1 - _window, firstKey, last), last);
        }

        public (long First, long Last) Visible(long row, long query) => Visible(query, Queries, 0, Keys);

        public float* Query(long row, long query, long head) => Q.At(row, query, head);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public float* Key(long row, long key, long group, float* scratch) => K.At(row, key, group);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public float* Value(long row, long key, long group, float* scratch) => V.At(row, key, group);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void FetchKey(long row, long key, long group) => CpuSimd.FetchRow(K.At(row, key, group), P);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void FetchValue(long row, long key, long group) => CpuSimd.FetchRow(V.At(row, key, group), P);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Mask<T>(float* scores, long key, long count, long first, long last) where T : struct, IFloats<T> => MaskRow<T>(scores, key, count, first, last);

        /// <summary>[P, S] of a row of the batch and a key head.</summary>
        public float* Transposed(float* transposed, long row, long group) => transposed + (row * Groups + group) * P * Keys;

        /// <summary>Index of (row, query, head) in [B, L, H].</summary>
        public long Index(long row, long query, long head) => (row * Queries + query) * Heads + head;

        /// <summary>Softcap of one row of scores; then everything outside first..last becomes -∞. Scores stand from key <paramref name="key"/> on.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void MaskRow<T>(float* scores, long key, long count, long first, long last) where T : struct, IFloats<T>
        {
            if (SoftCap > 0) Cap<T>(scores, count, SoftCap);
            for (long j = 0; j < Math.Min(count, first - key); j++) scores[j] = float.NegativeInfinity;
            for (long j = Math.Max(0, last - key); j < count; j++) scores[j] = float.NegativeInfinity;
        }
    }

    /// <summary>Keys or values of each row and key head, transposed to [P, S].</summary>
    private readonly struct AttentionTransposeKernel(AttentionView view, SsdOperand operand, float* transposed) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = begin; i < end; i++)
            {
                (long row, long group) = Math.DivRem(i, view.Groups);
                CpuTiles.Transpose(operand.At(row, 0, group), operand.Step, view.Keys, view.P, view.Transposed(transposed, row, group), view.Keys);
            }
        }
    }

    private readonly struct AttentionForwardKernel(AttentionView view, float* transposedK, float* o, float* lse) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            using var scratch = new CpuScratch(2 * QueryTile * view.P + QueryTile * KeyTile + 2 * QueryTile);
            for (long i = begin; i < end; i++)
            {
                (long sequenceAndHead, long tile) = Math.DivRem(i, view.QueryTiles);
                (long sequence, long head) = Math.DivRem(sequenceAndHead, view.Heads);
                Tile<T>(sequence, head, tile, scratch.Data);
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Tile<T>(long sequence, long head, long tile, float* scratch) where T : struct, IFloats<T>
        {
            (long row, long firstQuery, long lastQuery, long firstKey, long lastKey) = view.Sequence(sequence);
            long query = firstQuery + tile * QueryTile, queries = Math.Min(QueryTile, lastQuery - query), p = view.P, group = head / view.HeadsPerGroup;
            if (queries <= 0) return;
            float* q = scratch, output = q + QueryTile * p, scores = output + QueryTile * p, max = scores + QueryTile * KeyTile, sum = max + QueryTile;
            float* k = view.Transposed(transposedK, row, group);
            for (long i = 0; i < queries; i++)
            {
                CpuTiles.Scale<T>(view.Q.At(row, query + i, head), view.Scale, q + i * p, p);
                (max[i], sum[i]) = (float.NegativeInfinity, 0);
            }
            new Span<float>(output, checked((int)(queries * p))).Clear();

            long from = view.Visible(query, lastQuery, firstKey, lastKey).First, to = view.Visible(query + queries - 1, lastQuery, firstKey, lastKey).Last;
            for (long key = from; key < to; key += KeyTile)
            {
                long keys = Math.Min(KeyTile, to - key);
                CpuTiles.Multiply<T>(queries, keys, p, q, p, 1, k + key, view.Keys, scores, KeyTile, false);
                for (long i = 0; i < queries; i++)
                {
                    (long first, long last) = view.Visible(query + i, lastQuery, firstKey, lastKey);
                    view.MaskRow<T>(scores + i * KeyTile, key, keys, first, last);
                    Softmax<T>(scores + i * KeyTile, keys, ref max[i], ref sum[i], output + i * p, p);
                }
                CpuTiles.Multiply<T>(queries, p, keys, scores, KeyTile, 1, view.V.At(row, key, group), view.V.Step, output, p, true);
            }
            for (long i = 0; i < queries; i++)
            {
                long at = view.Index(row, query + i, head);
                CpuTiles.Scale<T>(output + i * p, sum[i] == 0 ? 0 : 1 / sum[i], o + at * p, p);
                lse[at] = sum[i] == 0 ? float.NegativeInfinity : max[i] + MathF.Log(sum[i]);
            }
        }
    }

    /// <summary>Scores s become cap·tanh(s / cap).</summary>
    private static void Cap<T>(float* scores, long count, float softCap) where T : struct, IFloats<T>
    {
        T cap = T.Broadcast(softCap), inverse = T.Broadcast(1 / softCap);
        for (long j = 0; j < count; j += T.Width) (CpuMath.Tanh(T.LoadUpTo(scores + j, count - j) * inverse) * cap).StoreUpTo(scores + j, count - j);
    }

    /// <summary>One more stretch of an online softmax: scores become exp(score - max), and what was summed before is rescaled.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Softmax<T>(float* scores, long count, ref float max, ref float sum, float* output, long p) where T : struct, IFloats<T>
    {
        float highest = MathF.Max(max, MaxOf<T>(scores, count));
        if (float.IsNegativeInfinity(highest))
        {
            new Span<float>(scores, checked((int)count)).Clear();
            return;
        }
        T shift = T.Broadcast(highest), total = T.Zero;
        long j = 0;
        for (; j + T.Width <= count; j += T.Width)
        {
            T e = CpuMath.Exp(T.Load(scores + j) - shift);
            e.Store(scores + j);
            total += e;
        }
        float rest = 0;
        for (; j < count; j++) rest += scores[j] = MathF.Exp(scores[j] - highest);
        float kept = MathF.Exp(max - highest);
        sum = sum * kept + total.Sum() + rest;
        if (kept != 1) CpuTiles.Scale<T>(output, kept, output, p);
        max = highest;
    }
}
