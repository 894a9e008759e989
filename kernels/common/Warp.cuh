// Warp.cuh: what the lanes of a whole warp compute together.
#pragma once
#include "common/Types.cuh"

constexpr int kWarp = 32;
constexpr u32 kAllLanes = 0xffffffffu;

// threadIdx.x and blockIdx.x read anew: what a seldom branch of a loop, or the code behind it, makes of them is not kept in registers all along.
__device__ inline int thread_again()
{
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

__device__ inline u32 block_again()
{
    u32 block;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
    return block;
}

// The same number, which is worked out once and kept: in a loop the compiler would rather make it of the thread's number again and again.
__device__ inline u32 kept(u32 x)
{
    asm volatile("" : "+r"(x));
    return x;
}

__device__ inline f32 kept_float(f32 x)
{
    asm volatile("" : "+f"(x));
    return x;
}

// Every lane receives the sum, in the same order of additions. S is f32 or f64.
template <typename S>
__device__ inline S warp_sum(S x)
{
    #pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
    return x;
}

// Every lane receives the largest value. NaN is passed over, as by fmaxf.
__device__ inline f32 warp_max(f32 x)
{
    #pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
    return x;
}
