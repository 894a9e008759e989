using System.Runtime.CompilerServices;

namespace ZEngine;

/// <content>A few queries against a long cache: every key and value is read once, in splits that threads share.</content>
internal sealed unsafe partial class CpuBackend
{
    /// <summary>Keys to a split: depends on nothing, so the bits do not either.</summary>
    private const long KeySplit = 256;

    /// <summary>How many rows of keys and values are fetched ahead of their use: those of one head stand too far apart for the processor to guess.</summary>
    private const long KeysAhead = 16;

    private static void DecodeAttention(AttentionView view, float* o, float* lse)
    {
        long splits = Math.Max(1, (view.Keys + KeySplit - 1) / KeySplit), queries = view.HeadsPerGroup * view.Queries;
        using var partials = new CpuScratch(view.Rows * view.Groups * splits * queries * (view.P + 2));
        var kernel = new DecodeKernel(view, splits, partials.Data);
        For(view.Rows * view.Groups * splits, 1, kernel);
        For(view.Rows * view.Groups, 1, new DecodeMergeKernel(kernel, view, splits, o, lse));
    }

    private readonly struct DecodeKernel(AttentionView view, long splits, float* partials) : IKernel
    {
        /// <summary>The partial result of one split and query: P sums, the largest score, the sum of exponentials.</summary>
        public float* Partial(long rowAndGroup, long split, long query) =>
            partials + ((rowAndGroup * splits + split) * view.HeadsPerGroup * view.Queries + query) * (view.P + 2);

        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = begin; i < end; i++)
            {
                (long rowAndGroup, long split) = Math.DivRem(i, splits);
                for (long query = 0; query < view.Queries; query++)
                for (long h = 0; h < view.HeadsPerGroup; h++)
                    Split<T>(rowAndGroup / view.Groups, rowAndGroup % view.Groups, split, query, h, Partial(rowAndGroup, split, h * view.Queries + query));
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Split<T>(long row, long group, long split, long query, long h, float* partial) where T : struct, IFloats<T>
        {
            float* scores = stackalloc float[(int)KeySplit], q = view.Q.At(row, query, group * view.HeadsPerGroup + h);
            (long first, long last) = view.Visible(query, view.Queries, 0, view.Keys);
            long from = Math.Max(first, split * KeySplit), count = Math.Min(last, (split + 1) * KeySplit) - from;
            new Span<float>(partial, checked((int)view.P)).Clear();
            (float max, float sum) = (float.NegativeInfinity, 0);
            if (count > 0)
            {
                for (long j = 0; j < count; j++)
                {
                    CpuSimd.FetchRow(view.K.At(row, from + j + KeysAhead, group), view.P);
                    scores[j] = view.Scale * CpuTiles.Dot<T>(q, view.K.At(row, from + j, group), view.P);
                }
                view.MaskRow<T>(scores, from, count, first, last);
                Softmax<T>(scores, count, ref max, ref sum, partial, view.P);
                for (long j = 0; j < count; j++)
                {
                    CpuSimd.FetchRow(view.V.At(row, from + j + KeysAhead, group), view.P);
                    CpuTiles.AddScaled<T>(view.V.At(row, from + j, group), scores[j], partial, view.P);
                }
            }
            (partial[view.P], partial[view.P + 1]) = (max, sum);
        }
    }

    /// <summary>Merges the splits in order.</summary>
    private readonly struct DecodeMergeKernel(DecodeKernel kernel, AttentionView view, long splits, float* o, float* lse) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = begin; i < end; i++)
            for (long query = 0; query < view.Queries; query++)
            for (long h = 0; h < view.HeadsPerGroup; h++)
                Merge<T>(i, h * view.Queries + query, view.Index(i / view.Groups, query, i % view.Groups * view.HeadsPerGroup + h));
        }

        private void Merge<T>(long rowAndGroup, long query, long at) where T : struct, IFloats<T>
        {
            long p = view.P;
            float max = float.NegativeInfinity, sum = 0;
            for (long split = 0; split < splits; split++) max = MathF.Max(max, kernel.Partial(rowAndGroup, split, query)[p]);
            new Span<float>(o + at * p, checked((int)p)).Clear();
            if (float.IsNegativeInfinity(max))
            {
                lse[at] = max;
                return;
            }
            for (long split = 0; split < splits; split++)
            {
                float* partial = kernel.Partial(rowAndGroup, split, query);
                float weight = MathF.Exp(partial[p] - max);
                sum += weight * partial[p + 1];
                CpuTiles.AddScaled<T>(partial, weight, o + at * p, p);
            }
            CpuTiles.Scale<T>(o + at * p, 1 / sum, o + at * p, p);
            lse[at] = max + MathF.Log(sum);
        }
    }
}
