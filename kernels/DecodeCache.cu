// DecodeCache.cu
//
// Computes   append: keys and values of L tokens go to the end of each sequence of a cache, lengths ← lengths + L; of those that a window of the cache leaves
//            behind, nothing. read: keys and values of the L tokens from position `first` on.
//            As bytes an element is round(x / s), with s = max |x| / 127 over the row.
// Source     pages: Kwon et al. 2023, arXiv:2309.06180, section 4.1; a scale for each row: Dettmers et al. 2022, arXiv:2208.07339, section 2.1.
// Method     a warp takes the key and then the value of one token and head, 8 elements to a lane. The last block to arrive lengthens the sequences.
// Layout     k, v [B, L, G, P]: in append with any strides but that of P, in read dense; the cache as in kernels/AttentionDecode.cu.
// Launch     grid ceil(B·L·G / 4), block 128. No shared memory.
// Traffic    append reads 2·B·L·G·P elements and, for each lane, lengths and page; writes as many in the cache's type, and with bytes 8 more for each row of
//            both. read the other way round; tokens that a sequence does not have, or no more, are written as 0.
// Precision  bytes by f32. Deterministic.
// Limits     P ≤ 256; a length beyond the cache or a page that there is not is a trap. isWide: P is a multiple of 8, and rows are of 16 bytes, of bytes of 8.
// Variants   decode_cache_append<f32, {f32|i8}>; decode_cache_append<bf16, {bf16|i8}>; decode_cache_append<f16, {f16|i8}>; decode_cache_read<f32, {f32|i8}>;
//            decode_cache_read<bf16, {bf16|i8}>; decode_cache_read<f16, {f16|i8}>
#include "common/DecodeCache.cuh"

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

template <typename T, typename C>
struct CacheRowsArgs                                          // mirrored in CudaDecodeCache.cs, field for field
{
    T* k; T* v;                                               // append reads them, read writes them
    CacheArgs<C> cache;
    i64 L, first, kBatch, kStep, kHead, vBatch, vStep, vHead;
    i32 isWide, unused;
};

// A warp takes the key and the value of one token and head.
struct CacheRow
{
    i64 b, l;
    int g;
    bool isThere;

    template <typename T, typename C>
    __device__ inline CacheRow(const CacheRowsArgs<T, C>& args)
    {
        const i64 i = (i64)blockIdx.x * kWarps + threadIdx.x / kWarp, step = i / args.cache.G;
        g = (int)(i % args.cache.G);
        b = step / args.L;
        l = step % args.L;
        isThere = b < args.cache.B;
    }
};

template <bool isWide, typename T>
__device__ inline void take_row(f32 (&x)[kPerLane], const T* from, int P)
{
    #pragma unroll
    for (int i = 0; i < kPerLane; i++) x[i] = 0;
    if constexpr (isWide)
    {
        if (element<true>(0) < P) load<kPerLane>(x, from + element<true>(0));
    }
    else
    {
        #pragma unroll
        for (int i = 0; i < kPerLane; i++)
            if (element<false>(i) < P) x[i] = to_f32(from[element<false>(i)]);
    }
}

template <bool isWide, typename T, typename C>
__device__ inline void append_row(const CacheRowsArgs<T, C>& args, const CacheRow& at, i32 position)
{
    const i32 page = args.cache.page((int)at.b, args.cache.page_index(position));
    f32 x[kPerLane];
    take_row<isWide>(x, args.k + at.b * args.kBatch + at.l * args.kStep + at.g * args.kHead, args.cache.P);
    put_row<isWide>(args.cache, true, page, position, at.g, x);
    take_row<isWide>(x, args.v + at.b * args.vBatch + at.l * args.vStep + at.g * args.vHead, args.cache.P);
    put_row<isWide>(args.cache, false, page, position, at.g, x);
}

template <typename T, typename C>
__global__ void __launch_bounds__(kThreads) decode_cache_append(const CacheRowsArgs<T, C> args)
{
    const CacheRow at(args);
    const i64 length = at.isThere ? args.cache.lengths[at.b] : -1;
    if (length >= 0)
    {
        if (length + at.l >= args.cache.capacity) trap();
        const i32 position = (i32)(length + at.l);
        if (args.cache.keeps(length + at.l, length + args.L))
        {
            if (args.isWide) append_row<true>(args, at, position);
            else append_row<false>(args, at, position);
        }
    }
    __syncthreads();                                          // all warps have read their sequence's length
    if (threadIdx.x != 0 || !is_last(args.cache.tickets, gridDim.x)) return;
    for (int b = 0; b < args.cache.B; b++)
        if (args.cache.lengths[b] >= 0) args.cache.lengths[b] += args.L;
}

template <bool isWide, typename T, typename C>
__device__ inline void read_row(T* to, const CacheArgs<C>& cache, bool isKey, i32 page, i32 position, int g, bool isThere)
{
    f32 x[kPerLane] = {};
    if (isThere)
    {
        take_row<isWide>(x, (isKey ? cache.keys : cache.values) + cache.row(page, position, g), cache.P);
        if constexpr (sizeof(C) == 1)
        {
            const f32 scale = cache.scales[cache.scale(page, position, g) + (isKey ? 0 : 1)];
            #pragma unroll
            for (int i = 0; i < kPerLane; i++) x[i] *= scale;
        }
    }
    if constexpr (isWide)
    {
        if (element<true>(0) < cache.P) store<kPerLane>(to + element<true>(0), x);
    }
    else
    {
        #pragma unroll
        for (int i = 0; i < kPerLane; i++)
            if (element<false>(i) < cache.P) to[element<false>(i)] = from_f32<T>(x[i]);
    }
}

template <typename T, typename C>
__global__ void __launch_bounds__(kThreads) decode_cache_read(const CacheRowsArgs<T, C> args)
{
    const CacheRow at(args);
    if (!at.isThere) return;
    const bool isThere = args.cache.keeps(args.first + at.l, args.cache.lengths[at.b]);
    const i32 position = (i32)(args.first + at.l), page = isThere ? args.cache.page((int)at.b, args.cache.page_index(position)) : 0;
    const i64 to = ((at.b * args.L + at.l) * args.cache.G + at.g) * args.cache.P;
    #pragma unroll
    for (int which = 0; which < 2; which++)
    {
        T* rows = which == 0 ? args.k : args.v;
        if (args.isWide) read_row<true>(rows + to, args.cache, which == 0, page, position, at.g, isThere);
        else read_row<false>(rows + to, args.cache, which == 0, page, position, at.g, isThere);
    }
}
