// DecodeCache.cuh: where keys and values of a decode cache stand, and how a row gets there.
#pragma once
#include "common/Copy.cuh"
#include "common/Tickets.cuh"
#include "common/Warp.cuh"

constexpr int kMaxP = 256;                                    // elements of a row at most
constexpr int kPerLane = kMaxP / kWarp;                       // of them to a lane
constexpr f32 kMostByte = 127;

// C is the type of the elements: that of the activations, or i8 with scales.
template <typename C>
struct CacheArgs                                              // mirrored in CudaDecodeCache.cs, field for field
{
    C* keys; C* values; f32* scales; const i32* pages; i64* lengths; u32* tickets;
    i32 B, G, P, tableWidth, pageCount, window;               // window: how many of a sequence's last positions are kept; 0 for all
    i32 pageRows, pageMask, pageShift, capacity;              // without pages a sequence is a page, the shift keeps nothing of a position and the mask all, or what a ring has

    __device__ inline i32 page_index(i32 position) const { return position >> pageShift; }

    __device__ inline i32 page(int b, int index) const
    {
        if (!pages) return b;
        const i32 page = pages[(i64)b * tableWidth + index];
        if ((u32)page >= (u32)pageCount) trap();
        return page;
    }

    // Whether a sequence of so many tokens keeps a position.
    __device__ inline bool keeps(i64 position, i64 length) const { return position < length && (window == 0 || position >= length - window); }

    // Where a row begins among the elements [pages · S, G, P], which soon are more than 2³¹.
    __device__ inline i64 row(i32 page, i32 position, int g) const { return ((i64)page * pageRows + (position & pageMask)) * (G * P) + g * P; }
    // The number of a key's scale; its value's is the next.
    __device__ inline i64 scale(i32 page, i32 position, int g) const { return (((i64)page * G + g) * pageRows + (position & pageMask)) * 2; }
};

// The element of a row that is number i of this lane: neighbours, or one of every kWarp.
template <bool isWide>
__device__ inline int element(int i) { return isWide ? threadIdx.x % kWarp * kPerLane + i : threadIdx.x % kWarp + i * kWarp; }

// A warp puts a key or a value into the cache; elements from P on are 0.
template <bool isWide, typename T>
__device__ inline void put_row(const CacheArgs<T>& cache, bool isKey, i32 page, i32 position, int g, const f32 (&x)[kPerLane])
{
    T* to = (isKey ? cache.keys : cache.values) + cache.row(page, position, g);
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

// As bytes: round(x / s) with s = max |x| / 127. What is not finite makes the scale so, and with it all that is read.
template <bool isWide>
__device__ inline void put_row(const CacheArgs<i8>& cache, bool isKey, i32 page, i32 position, int g, const f32 (&x)[kPerLane])
{
    f32 most = 0;
    bool isNumber = true;
    #pragma unroll
    for (int i = 0; i < kPerLane; i++)
    {
        most = fmaxf(most, fabsf(x[i]));
        isNumber = isNumber && x[i] == x[i];
    }
    most = warp_max(isNumber ? most : kInfinity);
    const f32 steps = most > 0 ? kMostByte / most : 0.0f;
    if (threadIdx.x % kWarp == 0) cache.scales[cache.scale(page, position, g) + (isKey ? 0 : 1)] = most / kMostByte;
    i8* to = (isKey ? cache.keys : cache.values) + cache.row(page, position, g);
    u32 words[2] = {};
    #pragma unroll
    for (int i = 0; i < kPerLane; i++)
    {
        const int code = __float2int_rn(x[i] * steps);
        if constexpr (isWide) words[i / 4] |= (u32)(code & 0xff) << i % 4 * 8;
        else if (element<false>(i) < cache.P) to[element<false>(i)] = (i8)code;
    }
    if constexpr (isWide)
        if (element<true>(0) < cache.P) store_words(to + element<true>(0), words);
}
