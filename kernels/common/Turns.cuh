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

// `done` blocks have added. One thread tells, behind a barrier of its block.
__device__ inline void give_turn(u32* turn, u32 done)
{
    __threadfence();                                          // the sums of all threads are seen before the turn
    *const_cast<volatile u32*>(turn) = done;
}
