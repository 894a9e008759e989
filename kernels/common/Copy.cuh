// Copy.cuh: loads and stores of V neighbouring elements as one access of up to 16 bytes.
#pragma once
#include "common/Types.cuh"

// Elements of a 16-byte access, or one.
template <typename T, bool isWide> constexpr int kVector = isWide ? 16 / sizeof(T) : 1;

template <typename T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack { T at[V]; };

// V elements as they are: they need no more registers than they have bits.
template <int V, typename T>
__device__ inline Pack<T, V> load_pack(const T* from) { return *reinterpret_cast<const Pack<T, V>*>(from); }

template <int V, typename T>
__device__ inline void unpack(f32 (&to)[V], const Pack<T, V>& pack)
{
    #pragma unroll
    for (int v = 0; v < V; v++) to[v] = to_f32(pack.at[v]);
}

// Two bf16 of a word, each by one instruction.
template <int V>
__device__ inline void unpack(f32 (&to)[V], const Pack<bf16, V>& pack)
{
    if constexpr (V == 1) to[0] = to_f32(pack.at[0]);
    else
    {
        struct Words { u32 at[V / 2]; };
        const Words words = __builtin_bit_cast(Words, pack);
        #pragma unroll
        for (int v = 0; v < V; v += 2)
        {
            to[v] = low_of<bf16>(words.at[v / 2]);
            to[v + 1] = high_of<bf16>(words.at[v / 2]);
        }
    }
}

template <int V, typename T>
__device__ inline void load(f32 (&to)[V], const T* from) { unpack(to, load_pack<V>(from)); }

// To shared memory.
template <int V, typename T>
__device__ inline void stash(T* to, const f32 (&from)[V])
{
    Pack<T, V> pack;
    #pragma unroll
    for (int v = 0; v < V; v++) pack.at[v] = from_f32<T>(from[v]);
    *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

// Words to global memory, by hand: behind a branch the compiler takes the store of a structure apart into its elements.
__device__ inline void store_words(void* to, const u32 (&w)[4])
{
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" :: "l"(__cvta_generic_to_global(to)), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");
}
__device__ inline void store_words(void* to, const u32 (&w)[2]) { asm volatile("st.global.v2.u32 [%0], {%1, %2};" :: "l"(__cvta_generic_to_global(to)), "r"(w[0]), "r"(w[1]) : "memory"); }
__device__ inline void store_words(void* to, const u32 (&w)[1]) { asm volatile("st.global.u32 [%0], %1;" :: "l"(__cvta_generic_to_global(to)), "r"(w[0]) : "memory"); }

// The same to shared memory.
__device__ inline void stash_words(void* to, const u32 (&w)[4])
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" :: "r"((u32)__cvta_generic_to_shared(to)), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");
}
__device__ inline void stash_words(void* to, const u32 (&w)[2]) { asm volatile("st.shared.v2.u32 [%0], {%1, %2};" :: "r"((u32)__cvta_generic_to_shared(to)), "r"(w[0]), "r"(w[1]) : "memory"); }
__device__ inline void stash_words(void* to, const u32 (&w)[1]) { asm volatile("st.shared.u32 [%0], %1;" :: "r"((u32)__cvta_generic_to_shared(to)), "r"(w[0]) : "memory"); }

// To global memory.
template <int V, typename T>
__device__ inline void store(T* to, const f32 (&from)[V])
{
    if constexpr (V == 1) *to = from_f32<T>(from[0]);
    else
    {
        constexpr int bytes = sizeof(T) * V, words = bytes < 16 ? bytes / 4 : 4;
        struct Words { u32 at[bytes / 4 / words][words]; };
        Pack<T, V> pack;
        #pragma unroll
        for (int v = 0; v < V; v++) pack.at[v] = from_f32<T>(from[v]);
        const Words split = __builtin_bit_cast(Words, pack);
        #pragma unroll
        for (int w = 0; w < bytes / 4 / words; w++) store_words(reinterpret_cast<u32*>(to) + w * words, split.at[w]);
    }
}

// Four neighbours, of which there are `count` or more; of fewer the others are 0. isWide: in one access, there are all.
template <bool isWide, typename T>
__device__ inline void load_four(f32 (&to)[4], const T* from, int count)
{
    if constexpr (isWide) load<4>(to, from);
    else
        #pragma unroll
        for (int i = 0; i < 4; i++) to[i] = i < count ? to_f32(from[i]) : 0.0f;
}

// To global memory those that there are.
template <bool isWide, typename T>
__device__ inline void store_four(T* to, const f32 (&from)[4], int count)
{
    if constexpr (isWide) store<4>(to, from);
    else
        #pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < count) to[i] = from_f32<T>(from[i]);
}
