// FloatRow.cuh: rows of floats in shared memory that threads read by four or eight.
#pragma once
#include "common/Copy.cuh"

// A row of N floats in shared memory, of which a thread takes V, four at a time. Eight are kept in two halves, so that neighbouring lanes touch neighbouring banks.
template <int V>
struct FloatRow
{
    static constexpr int kQuad = V < 4 ? V : 4;
    f32* at;
    int N;

    __device__ inline f32* quad(int d, int q) const { return at + (V == 8 ? (u32)(d + q / kQuad * N) / 2 : d + q); }

    // Where element d stands.
    __device__ inline f32* place(int d) const { return quad(d - d % V, d % V / kQuad * kQuad) + d % kQuad; }

    __device__ inline void load(f32 (&to)[V], int d) const
    {
        #pragma unroll
        for (int q = 0; q < V; q += kQuad) ::load<kQuad>(reinterpret_cast<f32 (&)[kQuad]>(to[q]), quad(d, q));
    }

    __device__ inline void stash(int d, const f32 (&from)[V]) const
    {
        #pragma unroll
        for (int q = 0; q < V; q += kQuad) ::stash<kQuad>(quad(d, q), reinterpret_cast<const f32 (&)[kQuad]>(from[q]));
    }
};
