// Copy.cuh: loads and stores of V neighbouring elements as one access of up to 16 bytes.
#pragma once
#include "common/Types.cuh"

// Elements of a 16-byte access, or one.
template <typename T, bool isWide> constexpr int kVector = isWide ? 16 / sizeof(T) : 1;

template <typename T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack { T at[V]; };

// V elements as they are: those under way need no more registers than they have bits.
template <int V, typename T>
__device__ inline Pack<T, V> load_pack(const T* from) { return *reinterpret_cast<const Pack<T, V>*>(from); }

template <int V, typename T>
__device__ inline void unpack(f32 (&to)[V], const Pack<T, V>& pack)
{
    #pragma unroll
    for (int v = 0; v < V; v++) to[v] = to_f32(pack.at[v]);
}

template <int V, typename T>
__device__ inline void load(f32 (&to)[V], const T* from) { unpack(to, load_pack<V>(from)); }

template <int V, typename T>
__device__ inline void store(T* to, const f32 (&from)[V])
{
    Pack<T, V> pack;
    #pragma unroll
    for (int v = 0; v < V; v++) pack.at[v] = from_f32<T>(from[v]);
    *reinterpret_cast<Pack<T, V>*>(to) = pack;
}
