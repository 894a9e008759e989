// Words.cuh: accesses that are opened one word at a time.
#pragma once
#include "common/Copy.cuh"

// V neighbouring elements as the words of one access of up to 16 bytes, opened one word at a time: so they need the registers of their bits.
template <typename T, int V>
struct PackedWords
{
    static constexpr int kEach = V == 1 ? 1 : 4 / sizeof(T), kCount = V / kEach;     // elements of a word, words

    u32 at[kCount];

    __device__ inline void load(const T* from)
    {
        if constexpr (V == 1) at[0] = bits_of(*from);
        else
        {
            const Pack<u32, kCount> pack = load_pack<kCount>(reinterpret_cast<const u32*>(from));
            #pragma unroll
            for (int i = 0; i < kCount; i++) at[i] = pack.at[i];
        }
    }

    __device__ inline void store(T* to) const
    {
        if constexpr (V == 1) *to = of_bits<T>(at[0]);
        else store_words(to, at);
    }

    // To shared memory.
    __device__ inline void stash(T* to) const
    {
        if constexpr (V == 1) *to = of_bits<T>(at[0]);
        else stash_words(to, at);
    }

    __device__ inline void open(f32 (&x)[kEach], int i) const
    {
        if constexpr (kEach == 1) x[0] = to_f32(of_bits<T>(at[i]));
        else
        {
            x[0] = low_of<T>(at[i]);
            x[1] = high_of<T>(at[i]);
        }
    }

    __device__ inline void close(int i, const f32 (&x)[kEach])
    {
        if constexpr (kEach == 1) at[i] = bits_of(from_f32<T>(x[0]));
        else at[i] = pair_of<T>(x[0], x[1]);
    }

    // Elements 2·pair and 2·pair + 1: those of one word, or of two.
    __device__ inline void open_pair(f32& a, f32& b, int pair) const
    {
        if constexpr (kEach == 2)
        {
            a = low_of<T>(at[pair]);
            b = high_of<T>(at[pair]);
        }
        else
        {
            a = __uint_as_float(at[2 * pair]);
            b = __uint_as_float(at[2 * pair + 1]);
        }
    }

    __device__ inline void close_pair(int pair, f32 a, f32 b)
    {
        if constexpr (kEach == 2) at[pair] = pair_of<T>(a, b);
        else
        {
            at[2 * pair] = bits_of(a);
            at[2 * pair + 1] = bits_of(b);
        }
    }
};
