// Columns.cuh: sums of columns of the partial results that blocks left behind.
#pragma once
#include "common/Warp.cuh"

constexpr int kColumnWarps = 8;                               // block: this many warps, a lane of each for one of kWarp columns

// The sum of a column of partial, `width` columns in rows `pitch` apart, for the threads of the first warp: each warp adds every kColumnWarps-th row, then their
// sums are added in order. All threads of the block call it, those without a column too.
__device__ inline f32 column_sum(const f32* partial, i64 rows, i64 pitch, i64 column, i64 width, f32 (&sSums)[kColumnWarps][kWarp])
{
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    f32 sum = 0;
    if (column < width)
    {
        #pragma unroll 4
        for (i64 row = warp; row < rows; row += kColumnWarps) sum += partial[row * pitch + column];
    }
    sSums[warp][lane] = sum;
    __syncthreads();                                          // the sums of all warps are there
    if (warp != 0) return 0;
    #pragma unroll
    for (int w = 1; w < kColumnWarps; w++) sum += sSums[w][lane];
    return sum;
}

// The same of partial [rows, width].
__device__ inline f32 column_sum(const f32* partial, i64 rows, i64 width, i64 column, f32 (&sSums)[kColumnWarps][kWarp])
{
    return column_sum(partial, rows, width, column, width, sSums);
}
