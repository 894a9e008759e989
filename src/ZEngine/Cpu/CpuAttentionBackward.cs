using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>An lse beyond this has lost more than exp does: half its last digit, 4e-6 here, is the relative error of every weight of the row.</summary>
    private const float LargeLse = 64;

    internal override void AttentionBackward(AttentionInputs x, Tensor o, Tensor lse, Tensor? rest, Tensor dO, Tensor? dLse, Tensor dQ, Tensor dK, Tensor dV)
    {
        var view = new AttentionView(x);
        // Every query head sums its own dK and dV; the heads that share a key head are added up afterwards, in order.
        long perHead = view.Rows * view.Keys * view.P;
        using var scratch = new CpuScratch(2 * view.TransposedFloats + 2 * view.Heads * perHead);
        float* k = scratch.Data, v = k + view.TransposedFloats, dKs = v + view.TransposedFloats, dVs = dKs + view.Heads * perHead;
        For(view.Rows * view.Groups, 1, new AttentionTransposeKernel(view, view.K, k));
        For(view.Rows * view.Groups, 1, new AttentionTransposeKernel(view, view.V, v));
        For(view.Sequences * view.Heads, 1, new AttentionBackwardKernel(view, k, v, F32(o), F32(lse), F32(dO), F32(dLse), F32(dQ), dKs, dVs));
        For(view.Rows * view.Keys, RowGrain(view.Heads * view.P), new AttentionSumHeadsKernel(view, dKs, F32(dK)));
        For(view.Rows * view.Keys, RowGrain(view.Heads * view.P), new AttentionSumHeadsKernel(view, dVs, F32(dV)));
    }

    private readonly struct AttentionSumHeadsKernel(AttentionView view, float* perHead, float* sum) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++)
            for (long group = 0; group < view.Groups; group++)
            for (long p = 0; p < view.P; p += T.Width)
            {
                T total = T.Zero;
                for (long h = group * view.HeadsPerGroup; h < (group + 1) * view.HeadsPerGroup; h++)
                    total += T.LoadUpTo(perHead + (h * view.Rows * view.Keys + row) * view.P + p, view.P - p);
                total.StoreUpTo(sum + (row * view.Groups + group) * view.P + p, view.P - p);
            }
        }
    }

    private readonly struct AttentionBackwardKernel(
        AttentionView view, float* transposedK, float* transposedV, float* o, float* lse, float* dO, float* dLse, float* dQ, float* dKs, float* dVs) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            using var scratch = new CpuScratch(3 * QueryTile * view.P + 2 * QueryTile * KeyTile + 2 * QueryTile);
            for (long i = begin; i < end; i++) Head<T>(i / view.Heads, i % view.Heads, scratch.Data);
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Head<T>(long sequence, long head, float* scratch) where T : struct, IFloats<T>
        {
            (long row, long firstQuery, long lastQuery, long firstKey, long lastKey) = view.Sequence(sequence);
            long p = view.P;
            float* dK = dKs + ((head * view.Rows + row) * view.Keys) * p, dV = dVs + ((head * view.Rows + row) * view.Keys) * p;
            new Span<float>(dK + firstKey * p, checked((int)((lastKey - firstKey) * p))).Clear();
            new Span<float>(dV + firstKey * p, checked((int)((lastKey - firstKey) * p))).Clear();
            for (long query = firstQuery; query < lastQuery; query += QueryTile)
                Tile<T>(row, head, query, Math.Min(QueryTile, lastQuery - query), lastQuery, firstKey, lastKey, scratch, dK, dV);
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Tile<T>(long row, long head, long query, long queries, long lastQuery, long firstKey, long lastKey, float* scratch, float* dK, float* dV) where T : struct, IFloats<T>
        {
            long p = view.P, group = head / view.HeadsPerGroup;
            float* q = scratch, dOutput = q + QueryTile * p, dQuery = dOutput + QueryTile * p, weights = dQuery + QueryTile * p, dScores = weights + QueryTile * KeyTile;
            float* inner = dScores + QueryTile * KeyTile, unit = inner + QueryTile;
            for (long i = 0; i < queries; i++)
            {
                long at = view.Index(row, query + i, head);
                CpuTiles.Scale<T>(view.Q.At(row, query + i, head), view.Scale, q + i * p, p);
                Buffer.MemoryCopy(dO + at * p, dOutput + i * p, p * sizeof(float), p * sizeof(float));
                inner[i] = CpuTiles.Dot<T>(dO + at * p, o + at * p, p) - (dLse == null ? 0 : dLse[at]);
            }
            new Span<float>(dQuery, checked((int)(queries * p))).Clear();

            long from = view.Visible(query, lastQuery, firstKey, lastKey).First, to = view.Visible(query + queries - 1, lastQuery, firstKey, lastKey).Last;
            UnitWeights<T>(row, head, query, queries, lastQuery, firstKey, lastKey, q, weights, unit);
            for (long key = from; key < to; key += KeyTile)
            {
                long keys = Math.Min(KeyTile, to - key);
                CpuTiles.Multiply<T>(queries, keys, p, q, p, 1, view.Transposed(transposedK, row, group) + key, view.Keys, weights, KeyTile, false);
                CpuTiles.Multiply<T>(queries, keys, p, dOutput, p, 1, view.Transposed(transposedV, row, group) + key, view.Keys, dScores, KeyTile, false);
                for (long i = 0; i < queries; i++)
                {
                    (long first, long last) = view.Visible(query + i, lastQuery, firstKey, lastKey);
                    view.MaskRow<T>(weights + i * KeyTile, key, keys, first, last);
                    ScoreGradients<T>(weights + i * KeyTile, dScores + i * KeyTile, keys, lse[view.Index(row, query + i, head)], unit[i], inner[i]);
                }
                CpuTiles.Multiply<T>(keys, p, queries, weights, 1, KeyTile, dOutput, p, dV + key * p, p, true);
                CpuTiles.Multiply<T>(keys, p, queries, dScores, 1, KeyTile, q, p, dK + key * p, p, true);
                CpuTiles.Multiply<T>(queries, p, keys, dScores, KeyTile, 1, view.K.At(row, key, group), view.K.Step, dQuery, p, true);
            }
            for (long i = 0; i < queries; i++) CpuTiles.Scale<T>(dQuery + i * p, view.Scale, dQ + view.Index(row, query + i, head) * p, p);
        }

        /// <summary>The factor under which the weights exp(score - lse) of each query add up to one: 1, and where lse is large, one over their sum.</summary>
        private void UnitWeights<T>(long row, long head, long query, long queries, long lastQuery, long firstKey, long lastKey, float* q, float* scores, float* unit) where T : struct, IFloats<T>
        {
            bool isLarge = false;
            for (long i = 0; i < queries; i++)
            {
                float size = MathF.Abs(lse[view.Index(row, query + i, head)]);
                isLarge |= size > LargeLse && float.IsFinite(size);
                unit[i] = 1;
            }
            if (!isLarge) return;
            float* k = view.Transposed(transposedK, row, head / view.HeadsPerGroup), sums = stackalloc float[(int)QueryTile];
            new Span<float>(sums, (int)QueryTile).Clear();
            long from = view.Visible(query, lastQuery, firstKey, lastKey).First, to = view.Visible(query + queries - 1, lastQuery, firstKey, lastKey).Last;
            for (long key = from; key < to; key += KeyTile)
            {
                long keys = Math.Min(KeyTile, to - key);
                CpuTiles.Multiply<T>(queries, keys, view.P, q, view.P, 1, k + key, view.Keys, scores, KeyTile, false);
                for (long i = 0; i < queries; i++)
                {
                    (long first, long last) = view.Visible(query + i, lastQuery, firstKey, lastKey);
                    view.MaskRow<T>(scores + i * KeyTile, key, keys, first, last);
                    float logSum = lse[view.Index(row, query + i, head)];
                    if (!float.IsNegativeInfinity(logSum)) sums[i] += SumOfExp<T>(scores + i * KeyTile, keys, logSum);
                }
            }
            for (long i = 0; i < queries; i++)
                if (sums[i] > 0) unit[i] = 1 / sums[i];
        }

        private static float SumOfExp<T>(float* scores, long count, float shift) where T : struct, IFloats<T>
        {
            T total = T.Zero, by = T.Broadcast(shift);
            long j = 0;
            for (; j + T.Width <= count; j += T.Width) total += CpuMath.Exp(T.Load(scores + j) - by);
            float sum = total.Sum();
            for (; j < count; j++) sum += MathF.Exp(scores[j] - shift);
            return sum;
        }

        /// <summary>Scores become softmax weights; dScores, which come as dO·vᵀ, become the gradients of the scores before the soft cap.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private void ScoreGradients<T>(float* weights, float* dScores, long count, float logSum, float unit, float inner) where T : struct, IFloats<T>
        {
            if (float.IsNegativeInfinity(logSum))
            {
                new Span<float>(weights, checked((int)count)).Clear();
                new Span<float>(dScores, checked((int)count)).Clear();
                return;
            }
            T shift = T.Broadcast(logSum), factor = T.Broadcast(unit), subtracted = T.Broadcast(inner), inverseCap = T.Broadcast(view.SoftCap > 0 ? 1 / view.SoftCap : 0), one = T.Broadcast(1);
            for (long j = 0; j < count; j += T.Width)
            {
                T score = T.LoadUpTo(weights + j, count - j), weight = CpuMath.Exp(score - shift) * factor;
                T d = weight * (T.LoadUpTo(dScores + j, count - j) - subtracted);
                if (view.SoftCap > 0)
                {
                    // The capped score is cap·tanh, so the slope is 1 - (score / cap)²; a masked score has none.
                    T t = T.Max(T.Broadcast(-1), score * inverseCap);
                    d *= T.MulAdd(-t, t, one);
                }
                weight.StoreUpTo(weights + j, count - j);
                d.StoreUpTo(dScores + j, count - j);
            }
        }
    }
}
