// Block.cuh: what the threads of a whole block compute together.
#pragma once
#include "common/Warp.cuh"

// Every thread receives the sum. Threads is the block's size, a multiple of 32; sPartial holds one float per warp.
template <int Threads>
__device__ inline f32 block_sum(f32 x, f32* sPartial)
{
    static_assert(Threads % kWarp == 0 && Threads <= kWarp * kWarp, "whole warps, and one warp can sum the partial sums");
    x = warp_sum(x);
    __syncthreads();                                          // a former sum in sPartial has been read by all
    if (threadIdx.x % kWarp == 0) sPartial[threadIdx.x / kWarp] = x;
    __syncthreads();                                          // the partial sums of all warps are there
    f32 sum = 0;
    #pragma unroll
    for (int warp = 0; warp < Threads / kWarp; warp++) sum += sPartial[warp];
    return sum;
}
