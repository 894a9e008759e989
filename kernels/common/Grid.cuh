// Grid.cuh: how the threads of a grid share out items, and where an item stands in rows.
#pragma once
#include "common/Types.cuh"

// The first item of this thread of a grid-stride loop, and the step to its next. R·D may exceed 2³¹.
__device__ inline i64 first_item() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline i64 item_step() { return (i64)gridDim.x * blockDim.x; }

struct Quotient { i64 quotient, rest; };

// i / by and i % by; by 32-bit division, which is a fifth of the work, where both fit.
__device__ inline Quotient divide(i64 i, i64 by)
{
    if ((u64)(i | by) >> 32 == 0)
    {
        const u32 quotient = (u32)i / (u32)by;
        return {quotient, (u32)i - quotient * (u32)by};
    }
    return {i / by, i % by};
}
