// FloatRow.cuh: rows of floats in shared memory that lanes read by four or eight.
#pragma once
#include "common/Copy.cuh"

// A row of N floats in shared memory. Eight of them are kept in two halves, four in each: so neighbouring lanes touch neighbouring banks.
struct FloatRow
{
    f32* at;
    int N;

    // Where element d stands that is read by V.
    template <int V> __device__ inline f32* place(int d) const { return at + (V < 8 ? d : d / 8 * 4 + d % 4 + (d & 4 ? N / 2 : 0)); }

    template <int V> __device__ inline void load(f32 (&to)[V], int d) const
    {
        if constexpr (V == 8)
        {
            ::load<4>(reinterpret_cast<f32 (&)[4]>(to[0]), at + d / 2);
            ::load<4>(reinterpret_cast<f32 (&)[4]>(to[4]), at + (N + d) / 2);
        }
        else ::load<V>(to, at + d);
    }

    template <int V> __device__ inline void stash(int d, const f32 (&from)[V]) const
    {
        if constexpr (V == 8)
        {
            ::stash<4>(at + d / 2, reinterpret_cast<const f32 (&)[4]>(from[0]));
            ::stash<4>(at + (N + d) / 2, reinterpret_cast<const f32 (&)[4]>(from[4]));
        }
        else ::stash<V>(at + d, from);
    }
};
