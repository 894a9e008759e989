// Block.cuh: what the threads of a whole block compute together.
#pragma once
#include "common/Warp.cuh"

// Every thread receives the sum. The block is whole warps, at most 32; sPartial holds one number per warp. Ends with the sum read by this
// thread, not by all: the barrier at the start of the next call closes that hazard.
template <typename S>
__device__ inline S block_sum(S x, S* sPartial)
{
    x = warp_sum(x);
    __syncthreads();                                          // a former result in sPartial has been read by all
    if (threadIdx.x % kWarp == 0) sPartial[threadIdx.x / kWarp] = x;
    __syncthreads();                                          // the partial sums of all warps are there
    S sum = 0;
    for (int warp = 0; warp < blockDim.x / kWarp; warp++) sum += sPartial[warp];
    return sum;
}

// As block_sum, for the largest value.
__device__ inline f32 block_max(f32 x, f32* sPartial)
{
    x = warp_max(x);
    __syncthreads();                                          // a former result in sPartial has been read by all
    if (threadIdx.x % kWarp == 0) sPartial[threadIdx.x / kWarp] = x;
    __syncthreads();                                          // the largest values of all warps are there
    f32 most = sPartial[0];
    for (int warp = 1; warp < blockDim.x / kWarp; warp++) most = fmaxf(most, sPartial[warp]);
    return most;
}
