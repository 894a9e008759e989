// Attention.cuh: what the forward and the backward pass of attention share: sizes, the tile of a block, which keys a query sees, how a score becomes an exponent.
#pragma once
#include "common/Async.cuh"
#include "common/Copy.cuh"
#include "common/Exponent.cuh"
#include "common/Sequences.cuh"

template <typename T>
struct AttentionShape                                         // mirrored in CudaAttention.cs, field for field
{
    const T* q; const T* k; const T* v; const i64* starts;    // starts: of packed sequences, then the first tile of each; one more of both than there are sequences; or null
    i64 qBatch, qStep, qHead, kBatch, kStep, kHead, vBatch, vStep, vHead;
    i32 L, S, H, G, P, sequences, tiles, units, pairs, together, window, isCausal, isWide;
    f32 factor, cap, inner;                                   // a score in units of log2 is factor·q·k, or with a cap cap·tanh(inner·q·k); factor is not negative
};

// The tile of a block. Pairs of a row of the batch and a unit (a head, or a group of heads) each have the same tiles; `together` pairs take turns, the last
// tile of each first, which is the longest under a causal mask: so many as keep their keys and values in the L2 cache.
struct AttentionPlace
{
    i64 batch, first;                                         // the row of the batch, and where in it the sequence begins
    i32 queries, keys, unit, tile, number, sequence;          // the sequence's sizes; the tile from its start, and its number among all of the pair

    template <typename T>
    __device__ inline AttentionPlace(const AttentionShape<T>& shape, u32 block)
    {
        const u32 section = block / ((u32)shape.together * shape.tiles), rest = block - section * shape.together * shape.tiles;
        const u32 count = min(shape.together, shape.pairs - (i32)section * shape.together), pair = section * shape.together + rest % count;
        batch = pair / shape.units;
        unit = pair % shape.units;
        tile = number = shape.tiles - 1 - rest / count;
        sequence = 0;
        first = 0;
        queries = shape.L;
        keys = shape.S;
        if (shape.starts)
        {
            const i64* firstTiles = shape.starts + shape.sequences + 1;
            sequence = sequence_of(firstTiles, shape.sequences, tile);
            tile -= (i32)firstTiles[sequence];
            first = shape.starts[sequence];
            queries = keys = (i32)(shape.starts[sequence + 1] - first);
        }
    }
};

// Query l of a sequence sees keys [low(l), high(l)). The causal mask is aligned to the end.
struct AttentionMask
{
    i32 shift, keys, window;                                  // a causal query l sees keys up to l + shift, that not included; window 0 for none
    bool isCausal;

    template <typename T>
    __device__ inline AttentionMask(const AttentionShape<T>& shape, const AttentionPlace& place)
        : shift(place.keys - place.queries + 1), keys(place.keys), window(shape.window), isCausal(shape.isCausal) { }

    __device__ inline i32 high(i32 l) const { return isCausal ? max(0, min(keys, l + shift)) : keys; }
    __device__ inline i32 low(i32 l) const { return window > 0 ? max(0, l + shift - window) : 0; }
};

// tanh to about 10⁻⁷, absolute: the cap is small beside 10⁷. Where T is float, as good as float is.
template <typename T>
__device__ inline f32 bent(f32 x)
{
    if constexpr (sizeof(T) == 4) return tanhf(x);
    const f32 e = power_of_two(-2 * kLog2E * fabsf(x));
    return copysignf(__fdividef(1 - e, 1 + e), x);
}

// Products of q and k become numbers of which `factor` times is the score in units of log2.
template <typename T, int J>
__device__ inline void bend(f32 (&s)[J][4], const AttentionShape<T>& shape)
{
    if (shape.cap > 0)
    {
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) s[j][part] = shape.cap * bent<T>(s[j][part] * shape.inner);
    }
    else if (shape.inner < 0)                                 // a negative scale: the largest score is the smallest product
    {
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) s[j][part] = -s[j][part];
    }
}

// Rows of floats as a tile of pitch D + 4, which a thread has under way where isWide; what lies behind `rows` and `columns` becomes 0.
template <int Rows, int D, int Threads, typename From>
__device__ inline void fill_floats(u8* sTile, const From& from, int rows, int columns, bool isWide)
{
    const int width = isWide ? 4 : 1;
    for (int i = threadIdx.x; i < Rows * D / width; i += Threads)
    {
        const int row = i / (D / width), column = i % (D / width) * width;
        f32* to = reinterpret_cast<f32*>(sTile) + row * (D + 4) + column;
        const bool isThere = row < rows && column < columns;
        if (isWide) copy_async(shared_address(to), from(row) + column, isThere ? 16 : 0);
        else *to = isThere ? from(row)[column] : 0.0f;
    }
}

// The bits of a float behind those that T keeps.
template <typename T> constexpr int kBitsBehind = 0;
template <> constexpr int kBitsBehind<bf16> = 16;
template <> constexpr int kBitsBehind<f16> = 13;

// What rounding x to T takes from it, as the next 8 bits: a signed number of steps of 2⁻⁸ of T's own. Floats of one sign are in the order of their bits.
template <typename T>
__device__ inline int rest_of(f32 x)
{
    constexpr int kShift = kBitsBehind<T> - 8;
    const int difference = (int)(__float_as_uint(x) - __float_as_uint(to_f32(from_f32<T>(x))));
    return max(-128, min(127, (difference + (1 << kShift - 1)) >> kShift));
}

// x with what rest_of() kept of its rounding.
template <typename T>
__device__ inline f32 with_rest(f32 x, int rest) { return __uint_as_float(__float_as_uint(x) + ((u32)rest << kBitsBehind<T> - 8)); }
