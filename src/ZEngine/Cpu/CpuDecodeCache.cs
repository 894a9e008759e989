// One room: where the rows of a decode cache stand on the CPU, how they get there, and how a query sees them.
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    /// <summary>Addresses of a cache whose contract holds.</summary>
    private readonly struct CacheRows(DecodeCache cache)
    {
        private readonly byte* _keys = (byte*)cache.Keys.Address, _values = (byte*)cache.Values.Address;
        private readonly float* _scales = F32(cache.Scales);
        private readonly int* _pages = cache.Pages is null ? null : (int*)cache.Pages.Address;
        private readonly long _pageSize = cache.Keys.Shape[1], _tableWidth = cache.Pages?.Shape[1] ?? 1, _pageCount = cache.Keys.Shape[0], _capacity = cache.Capacity, _batch = cache.Batch;
        private readonly long _window = cache.Window, _mask = cache.IsRing ? cache.Keys.Shape[1] - 1 : -1;

        public readonly long* Lengths = (long*)cache.Lengths.Address;
        public readonly long Groups = cache.Keys.Shape[2], P = cache.Keys.Shape[3];

        public bool IsBytes => _scales != null;

        /// <summary>Number of the row of a position among all rows [pages · S, G, P].</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public long Row(long b, long position) => _pages == null ? b * _pageSize + (position & _mask) : _pages[b * _tableWidth + position / _pageSize] * _pageSize + position % _pageSize;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public float* Floats(bool isKey, long row, long group) => (float*)(isKey ? _keys : _values) + (row * Groups + group) * P;

        /// <summary>A row of bytes as floats.</summary>
        public void Expand(bool isKey, long row, long group, float* to)
        {
            sbyte* from = (sbyte*)(isKey ? _keys : _values) + (row * Groups + group) * P;
            float scale = *Scale(isKey, row, group);
            long p = 0;
            for (; p + Vector256<float>.Count <= P; p += Vector256<float>.Count)
            {
                Vector128<short> words = Vector128.WidenLower(Vector64.Load(from + p).ToVector128());
                (Vector256.ConvertToSingle(Vector256.WidenLower(words.ToVector256())) * scale).Store(to + p);
            }
            for (; p < P; p++) to[p] = from[p] * scale;
        }

        public void Read(bool isKey, long row, long group, float* to)
        {
            if (IsBytes) Expand(isKey, row, group, to);
            else new ReadOnlySpan<float>(Floats(isKey, row, group), checked((int)P)).CopyTo(new Span<float>(to, (int)P));
        }

        /// <summary>The first position that is kept of so many.</summary>
        public long FirstOf(long length) => _window == 0 ? 0 : Math.Max(0, length - _window);

        /// <summary>k and v of <paramref name="steps"/> tokens behind those that are there, for every sequence that is not idle.</summary>
        public void Append(SsdOperand k, SsdOperand v, long steps)
        {
            for (long b = 0; b < _batch; b++)
            {
                if (Lengths[b] < 0) continue;
                for (long l = Math.Max(0, FirstOf(Lengths[b] + steps) - Lengths[b]); l < steps; l++)
                {
                    long row = Row(b, Lengths[b] + l);
                    for (long g = 0; g < Groups; g++)
                    {
                        Write(true, row, g, k.At(b, l, g));
                        Write(false, row, g, v.At(b, l, g));
                    }
                }
                Lengths[b] += steps;
            }
        }

        /// <summary>An error where a length, a page or a position is outside what there is, before anything changes.</summary>
        public void RequireRoom(AttentionDecodeInputs x, string op)
        {
            RequireRoom(x.K is null ? 0 : 1, op);
            if (x.Rotary is not { } rotary) return;
            long* positions = (long*)(rotary.Positions ?? x.Cache.Lengths).Address;
            for (long b = 0; b < _batch; b++)
                if (Lengths[b] >= 0 && (positions[b] < 0 || positions[b] >= rotary.Cosine.Shape[0]))
                    throw new ArgumentException($"{op}: sequence {b} is at position {positions[b]}, but rotary.Cosine {Tensor.ShapeText(rotary.Cosine.Shape)} has {rotary.Cosine.Shape[0]}.");
        }

        public void RequireRoom(long steps, string op)
        {
            for (long b = 0; b < _batch; b++)
            {
                if (Lengths[b] < 0) continue;
                if (Lengths[b] + steps > _capacity) throw new ArgumentException($"{op}: sequence {b} has {Lengths[b]} of {_capacity} tokens, {steps} more do not fit into the cache.");
                for (long page = FirstOf(Lengths[b] + steps) / _pageSize; _pages != null && page * _pageSize < Lengths[b] + steps; page++)
                    if ((ulong)_pages[b * _tableWidth + page] >= (ulong)_pageCount)
                        throw new ArgumentException($"{op}: page {page} of sequence {b} is {_pages[b * _tableWidth + page]}, but there are {_pageCount}.");
            }
        }

        private float* Scale(bool isKey, long row, long group) => _scales + ((row / _pageSize * Groups + group) * _pageSize + row % _pageSize) * 2 + (isKey ? 0 : 1);

        private void Write(bool isKey, long row, long group, float* from)
        {
            if (!IsBytes)
            {
                new ReadOnlySpan<float>(from, checked((int)P)).CopyTo(new Span<float>(Floats(isKey, row, group), (int)P));
                return;
            }
            sbyte* to = (sbyte*)(isKey ? _keys : _values) + (row * Groups + group) * P;
            float most = 0;
            for (long p = 0; p < P; p++) most = MathF.Max(most, MathF.Abs(from[p]));
            float steps = most > 0 ? DecodeCache.MostByte / most : 0;
            *Scale(isKey, row, group) = most / DecodeCache.MostByte;
            for (long p = 0; p < P; p++) to[p] = (sbyte)MathF.Round(Math.Clamp(from[p] * steps, -DecodeCache.MostByte, DecodeCache.MostByte));
        }
    }

    /// <summary>One query of each sequence of a cache.</summary>
    private readonly struct DecodeView(CacheRows cache, SsdOperand q, AttentionDecodeInputs x, long batch, long heads) : IDecodeRows
    {
        private readonly long _window = x.Window;
        private readonly float _softCap = x.SoftCap;

        public long Rows { get; } = batch;

        public long Queries => 1;

        public long Groups => cache.Groups;

        public long HeadsPerGroup => heads / cache.Groups;

        public long P => cache.P;

        public float Scale { get; } = x.Scale;

        public long ScratchFloats => cache.IsBytes ? cache.P : 0;

        public long Index(long row, long query, long head) => row * heads + head;

        public (long First, long Last) Visible(long row, long query)
        {
            long last = Math.Max(0, cache.Lengths[row]);
            return (_window == 0 ? 0 : Math.Max(0, last - _window), last);
        }

        public float* Query(long row, long query, long head) => q.At(row, 0, head);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public float* Key(long row, long key, long group, float* scratch) => At(true, row, key, group, scratch);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public float* Value(long row, long key, long group, float* scratch) => At(false, row, key, group, scratch);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void FetchKey(long row, long key, long group) => Fetch(true, row, key, group);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void FetchValue(long row, long key, long group) => Fetch(false, row, key, group);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Mask<T>(float* scores, long key, long count, long first, long last) where T : struct, IFloats<T>
        {
            if (_softCap > 0) Cap<T>(scores, count, _softCap);
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private float* At(bool isKey, long row, long key, long group, float* scratch)
        {
            long at = cache.Row(row, key);
            if (!cache.IsBytes) return cache.Floats(isKey, at, group);
            cache.Expand(isKey, at, group, scratch);
            return scratch;
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private void Fetch(bool isKey, long row, long key, long group)
        {
            if (key < cache.Lengths[row] && !cache.IsBytes) CpuSimd.FetchRow(cache.Floats(isKey, cache.Row(row, key), group), P);
        }
    }

    private readonly struct CacheReadKernel(CacheRows cache, long first, long steps, float* keys, float* values) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = begin; i < end; i++)
            {
                (long b, long l) = Math.DivRem(i, steps);
                long position = first + l;
                bool isThere = position < cache.Lengths[b] && position >= cache.FirstOf(cache.Lengths[b]);
                for (long g = 0; g < cache.Groups; g++)
                {
                    long to = (i * cache.Groups + g) * cache.P;
                    if (isThere)
                    {
                        cache.Read(true, cache.Row(b, position), g, keys + to);
                        cache.Read(false, cache.Row(b, position), g, values + to);
                    }
                    else
                    {
                        new Span<float>(keys + to, checked((int)cache.P)).Clear();
                        new Span<float>(values + to, checked((int)cache.P)).Clear();
                    }
                }
            }
        }
    }
}
