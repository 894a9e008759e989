// Order.cuh: floats as integers of the same order, so that one comparison finds the larger and, in the lower bits, the earlier.
#pragma once
#include "common/Types.cuh"

// NaN of either sign is the largest; -0 is below 0.
__device__ inline u32 order_of(f32 x)
{
    const u32 bits = __float_as_uint(x);
    return x != x ? ~0u : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ inline f32 float_of(u32 order) { return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order); }
