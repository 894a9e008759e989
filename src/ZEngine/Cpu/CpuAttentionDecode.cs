using System.Runtime.CompilerServices;

namespace ZEngine;

/// <content>A few queries against a long cache: every key and value is read once, in splits that threads share.</content>
internal sealed unsafe partial class CpuBackend
{
    /// <summary>Keys to a split: depends on nothing, so the bits do not either.</summary>
    private const long KeySplit = 256;

    /// <summary>Keys that are taken at once, and the most heads.</summary>
    private const long KeysAtOnce = 4, HeadsAtOnce = 8;

    /// <summary>How many rows of keys and values are fetched ahead of their use: those of one head stand too far apart for the processor to guess.</summary>
    private const long KeysAhead = 16;

    internal override void AttentionDecode(AttentionDecodeInputs x, Tensor o, Tensor lse)
    {
        var cache = new CacheRows(x.Cache);
        (long batch, long heads, long groups, long p) = (o.Shape[0], o.Shape[2], cache.Groups, cache.P);
        cache.RequireRoom(x, nameof(AttentionDecode));
        using var rotated = new CpuScratch(batch * (heads + groups) * p);
        (SsdOperand q, SsdOperand k) = (new SsdOperand(x.Q), new SsdOperand(x.K));
        if (x.Rotary is { } rotary)
        {
            q = Rotated(x.Q, rotary, x.Cache, rotated.Data);
            if (x.K is not null) k = Rotated(x.K, rotary, x.Cache, rotated.Data + batch * heads * p);
        }
        if (x.K is not null) cache.Append(k, new SsdOperand(x.V), 1);
        DecodeAttention(new DecodeView(cache, q, x, batch, heads), F32(o), F32(lse));
    }

    internal override void AppendKeyValues(Tensor k, Tensor v, DecodeCache cache)
    {
        var rows = new CacheRows(cache);
        rows.RequireRoom(k.Shape[1], nameof(AppendKeyValues));
        rows.Append(new SsdOperand(k), new SsdOperand(v), k.Shape[1]);
    }

    internal override void ReadKeyValues(DecodeCache cache, long first, Tensor keys, Tensor values)
    {
        var rows = new CacheRows(cache);
        For(keys.Shape[0] * keys.Shape[1], RowGrain(rows.Groups * rows.P), new CacheReadKernel(rows, first, keys.Shape[1], F32(keys), F32(values)));
    }

    private static SsdOperand Rotated(Tensor x, DecodeRotary rotary, DecodeCache cache, float* to)
    {
        var steps = new RopeSteps(new RopeInputs(x, rotary.Cosine, rotary.Sine, 0, rotary.Style, null, IsInverse: false), (long*)(rotary.Positions ?? cache.Lengths).Address);
        For(x.Shape[0], RowGrain(x.Shape[2] * x.Shape[3]), new RopeKernel(steps, F32(x), F32(rotary.Cosine), F32(rotary.Sine), to));
        return new SsdOperand(to, x.Shape[2] * x.Shape[3], x.Shape[3]);
    }

    private static void DecodeAttention<TView>(TView view, float* o, float* lse) where TView : struct, IDecodeRows
    {
        (long first, long last) = (long.MaxValue, 0);           // of what any query sees
        for (long row = 0; row < view.Rows; row++)
        for (long query = 0; query < view.Queries; query++)
        {
            (long from, long to) = view.Visible(row, query);
            if (from < to) (first, last) = (Math.Min(first, from), Math.Max(last, to));
        }
        first = Math.Min(first, last) / KeySplit;
        long splits = Math.Max(1, (last + KeySplit - 1) / KeySplit - first), queries = view.HeadsPerGroup * view.Queries;
        using var partials = new CpuScratch(view.Rows * view.Groups * splits * queries * (view.P + 2));
        var kernel = new DecodeKernel<TView>(view, first, splits, partials.Data);
        For(view.Rows * view.Groups * splits, 1, kernel);
        For(view.Rows * view.Groups, 1, new DecodeMergeKernel<TView>(kernel, view, splits, o, lse));
    }

    /// <summary>Queries, and where the keys and values that they see stand.</summary>
    private interface IDecodeRows
    {
        long Rows { get; }
        long Queries { get; }
        long Groups { get; }
        long HeadsPerGroup { get; }
        long P { get; }
        float Scale { get; }

        /// <summary>Floats that <see cref="Key"/> and <see cref="Value"/> may write to.</summary>
        long ScratchFloats { get; }

        /// <summary>Index of (row, query, head) in [B, L, H].</summary>
        long Index(long row, long query, long head);

        /// <summary>The keys that a query sees.</summary>
        (long First, long Last) Visible(long row, long query);

        float* Query(long row, long query, long head);

        /// <summary>The P floats of a key; in <paramref name="scratch"/> where it stands in another form.</summary>
        float* Key(long row, long key, long group, float* scratch);

        /// <summary>As <see cref="Key"/>.</summary>
        float* Value(long row, long key, long group, float* scratch);

        void FetchKey(long row, long key, long group);

        void FetchValue(long row, long key, long group);

        /// <summary>Soft cap of one row of scores; then everything outside first..last becomes -∞.</summary>
        void Mask<T>(float* scores, long key, long count, long first, long last) where T : struct, IFloats<T>;
    }

    private readonly struct DecodeKernel<TView>(TView view, long firstSplit, long splits, float* partials) : IKernel where TView : struct, IDecodeRows
    {
        /// <summary>The partial result of one split, counted from the first, and query: P sums, the largest score, the sum of exponentials.</summary>
        public float* Partial(long rowAndGroup, long split, long query) =>
            partials + ((rowAndGroup * splits + split) * view.HeadsPerGroup * view.Queries + query) * (view.P + 2);

        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = begin; i < end; i++)
            {
                (long rowAndGroup, long split) = Math.DivRem(i, splits);
                for (long query = 0; query < view.Queries; query++)
                for (long h = 0; h < view.HeadsPerGroup; h += HeadsAtOnce) Split<T>(rowAndGroup, split, query, h, Math.Min(HeadsAtOnce, view.HeadsPerGroup - h));
            }
        }

        /// <summary>Some heads of a group with the keys of a split, four keys at a time: these stay in the first-level cache for all heads.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Split<T>(long rowAndGroup, long split, long query, long firstHead, long heads) where T : struct, IFloats<T>
        {
            (long row, long group) = Math.DivRem(rowAndGroup, view.Groups);
            (long first, long last) = view.Visible(row, query);
            long p = view.P, at = (firstSplit + split) * KeySplit, from = Math.Max(first, at), count = Math.Min(last, at + KeySplit) - from;
            float* scores = stackalloc float[(int)(HeadsAtOnce * KeySplit)], scratch = stackalloc float[checked((int)(KeysAtOnce * view.ScratchFloats))];
            float** rows = stackalloc float*[(int)KeysAtOnce];
            for (long j = 0; j < count; j += KeysAtOnce)
            {
                for (long r = 0; r < KeysAtOnce; r++)
                {
                    view.FetchKey(row, from + j + r + KeysAhead, group);
                    rows[r] = view.Key(row, from + Math.Min(j + r, count - 1), group, scratch + r * view.ScratchFloats);
                }
                for (long h = 0; h < heads; h++)
                    CpuTiles.DotEach<T>(view.Query(row, query, group * view.HeadsPerGroup + firstHead + h), rows[0], rows[1], rows[2], rows[3], p, view.Scale, scores + h * KeySplit + j);
            }
            for (long h = 0; h < heads; h++)
            {
                float* partial = Partial(rowAndGroup, split, (firstHead + h) * view.Queries + query);
                new Span<float>(partial, checked((int)p)).Clear();
                (float max, float sum) = (float.NegativeInfinity, 0);
                if (count > 0)
                {
                    view.Mask<T>(scores + h * KeySplit, from, count, first, last);
                    Softmax<T>(scores + h * KeySplit, count, ref max, ref sum, partial, p);
                    for (long j = count; j % KeysAtOnce != 0; j++) scores[h * KeySplit + j] = 0;
                }
                (partial[p], partial[p + 1]) = (max, sum);
            }
            for (long j = 0; j < count; j += KeysAtOnce)
            {
                for (long r = 0; r < KeysAtOnce; r++)
                {
                    view.FetchValue(row, from + j + r + KeysAhead, group);
                    rows[r] = view.Value(row, from + Math.Min(j + r, count - 1), group, scratch + r * view.ScratchFloats);
                }
                for (long h = 0; h < heads; h++)
                    CpuTiles.AddEach<T>(rows[0], rows[1], rows[2], rows[3], scores + h * KeySplit + j, Partial(rowAndGroup, split, (firstHead + h) * view.Queries + query), p);
            }
        }
    }

    /// <summary>Merges the splits in order.</summary>
    private readonly struct DecodeMergeKernel<TView>(DecodeKernel<TView> kernel, TView view, long splits, float* o, float* lse) : IKernel where TView : struct, IDecodeRows
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
