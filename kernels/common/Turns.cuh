// Turns.cuh: blocks that add to the same sums one after the other, in a fixed order.
#pragma once
#include "common/Warp.cuh"

// A warp waits until `before` blocks have added. Those must have begun before this one, as blocks that take their work by a ticket have.
__device__ inline void await_turn(const u32* turn, u32 before)
{
    if (before == 0) return;
    if (threadIdx.x % kWarp == 0)
    {
        while (*const_cast<const volatile u32*>(turn) != before) { }
        __threadfence();                                      // the turn is seen before the sums
    }
    __syncwarp();                                             // this warp's turn has come
}

// A warp waits until each of `count` blocks, at most as many as it has lanes, has told; those that must have begun before this one.
__device__ inline void await_all(const u32* words, i64 stride, u32 count)
{
    const u32 lane = threadIdx.x % kWarp;
    if (lane < count)
    {
        while (*const_cast<const volatile u32*>(words + lane * stride) == 0) { }
        __threadfence();                                      // the words are seen before what they tell of
    }
    __syncwarp();                                             // all have told
}

// `done` blocks have added. One thread tells, behind a barrier of its block.
__device__ inline void give_turn(u32* turn, u32 done)
{
    __threadfence();                                          // the sums of all threads are seen before the turn
    *const_cast<volatile u32*>(turn) = done;
}

// Four floats that another block may have written: past the L1 cache.
__device__ inline void load_written(f32 (&to)[4], const f32* from)
{
    const float4 four = __ldcg(reinterpret_cast<const float4*>(from));
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
}

__device__ inline void add_written(f32 (&to)[4], const f32* from)
{
    f32 four[4];
    load_written(four, from);
    #pragma unroll
    for (int i = 0; i < 4; i++) to[i] += four[i];
}
