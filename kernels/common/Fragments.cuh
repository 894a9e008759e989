// Fragments.cuh: products of tiles in shared memory by a warp: 16-bit elements on the tensor cores, floats by multiply-adds. The sums stand in the same
// lanes either way: lane 4·g + t holds rows g and g + 8 of columns 2t and 2t + 1 of each 16 × 8.
#pragma once
#include "common/Copy.cuh"
#include "common/Mma.cuh"
#include "common/Warp.cuh"

// What a tile in shared memory is made of, for inputs of type T. f16 becomes float: its range is too small for products of intermediate results.
template <typename T> struct TileOf { using Element = f32; };
template <> struct TileOf<bf16> { using Element = bf16; };

// Elements behind each row of a tile: rows begin at multiples of 16 bytes, and eight of them lie in different banks.
template <typename E> constexpr int kRowPad = 16 / sizeof(E);

// What a lane holds of 16 rows of A by 16 of k, times a factor of each k: rounded again.
template <typename E>
__device__ inline void scale_left(u32 (&left)[4], const f32* factors)
{
    #pragma unroll
    for (int half = 0; half < 2; half++)
    {
        f32 factor[2];
        load<2>(factor, factors + threadIdx.x % 4 * 2 + 8 * half);
        #pragma unroll
        for (int v = 2 * half; v < 2 * half + 2; v++) left[v] = pair_of<E>(low_of<E>(left[v]) * factor[0], high_of<E>(left[v]) * factor[1]);
    }
}

template <bool isAAcross, bool isBAcross, bool isScaled, int J, typename E>
__device__ inline void multiply_tiles(f32 (&sum)[J][4], const E* sA, int aPitch, const E* sB, int bPitch, int depth, int columns, const f32* factors)
{
    const int lane = threadIdx.x % kWarp, low = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    u32 a = shared_address(isAAcross ? sA + (third + low) * aPitch + second : sA + (second + low) * aPitch + third);
    u32 b = shared_address(isBAcross ? sB + (second + low) * bPitch + third : sB + (third + low) * bPitch + second);
    const u32 aStep = 16 * sizeof(E) * (isAAcross ? aPitch : 1), bStep = 16 * sizeof(E) * (isBAcross ? bPitch : 1), bNext = 8 * sizeof(E) * (isBAcross ? 1 : bPitch);
    for (int k = 0; k < depth; k += 16, a += aStep, b += bStep)
    {
        u32 left[4];
        if constexpr (isAAcross) load_matrices_transposed(left, a);
        else load_matrices(left, a);
        if constexpr (isScaled) scale_left<E>(left, factors + k);
        #pragma unroll
        for (int j = 0; j < J; j += 2)
        {
            if (8 * j >= columns) break;
            u32 right[4];
            if constexpr (isBAcross) load_matrices_transposed(right, b + j * bNext);
            else load_matrices(right, b + j * bNext);
            mma_16x8x16<E>(sum[j], left, right[0], right[1]);
            mma_16x8x16<E>(sum[j + 1], left, right[2], right[3]);
        }
    }
}

template <bool isAAcross, bool isBAcross, bool isScaled, int J>
__device__ inline void multiply_tiles(f32 (&sum)[J][4], const f32* sA, int aPitch, const f32* sB, int bPitch, int depth, int columns, const f32* factors)
{
    constexpr int K = 4;                                      // of the inner axis at a time: 16 bytes of a row
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4 * 2;
    #pragma unroll 1                                          // more at a time would spill
    for (int k = 0; k < depth; k += K)
    {
        f32 left[2][K];
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            if constexpr (isAAcross)
                #pragma unroll
                for (int v = 0; v < K; v++) left[r][v] = sA[(k + v) * aPitch + g + 8 * r];
            else load<K>(left[r], sA + (g + 8 * r) * aPitch + k);
        }
        if constexpr (isScaled)
        {
            f32 factor[K];
            load<K>(factor, factors + k);
            #pragma unroll
            for (int v = 0; v < K; v++)
            {
                left[0][v] *= factor[v];
                left[1][v] *= factor[v];
            }
        }
        #pragma unroll
        for (int j = 0; j < J; j++)
        {
            if (8 * j >= columns) break;
            f32 right[2][K];
            #pragma unroll
            for (int v = 0; v < (isBAcross ? K : 2); v++)
            {
                if constexpr (isBAcross)
                {
                    f32 pair[2];
                    load<2>(pair, sB + (k + v) * bPitch + 8 * j + t);
                    right[0][v] = pair[0];
                    right[1][v] = pair[1];
                }
                else load<K>(right[v], sB + (8 * j + t + v) * bPitch + k);
            }
            #pragma unroll
            for (int v = 0; v < K; v++)
                #pragma unroll
                for (int part = 0; part < 4; part++) sum[j][part] = fmaf(left[part / 2][v], right[part % 2][v], sum[j][part]);
        }
    }
}

// sum += A·B, 16 rows by 8·J columns, of which the first `columns` (a multiple of 16) are wanted; depth is a multiple of 16. sA is A's element (0, 0), and
// sB is B's. isAcross: a row of the tile is one k; else a row of A's is one m, and one of B's one n.
template <bool isAAcross, bool isBAcross, int J, typename E>
__device__ inline void multiply(f32 (&sum)[J][4], const E* sA, int aPitch, const E* sB, int bPitch, int depth, int columns)
{
    multiply_tiles<isAAcross, isBAcross, false>(sum, sA, aPitch, sB, bPitch, depth, columns, nullptr);
}

// The same with A's elements times a factor of their k, from shared memory at a multiple of 16 bytes.
template <bool isAAcross, bool isBAcross, int J, typename E>
__device__ inline void multiply_scaled(f32 (&sum)[J][4], const E* sA, int aPitch, const E* sB, int bPitch, int depth, int columns, const f32* factors)
{
    multiply_tiles<isAAcross, isBAcross, true>(sum, sA, aPitch, sB, bPitch, depth, columns, factors);
}

// Where this lane's part v (0 to 3) of a 16 × 8 stands.
__device__ inline int fragment_row(int part) { return threadIdx.x % kWarp / 4 + part / 2 * 8; }
__device__ inline int fragment_column(int part) { return threadIdx.x % 4 * 2 + part % 2; }

// The sum over the four lanes that share a row; over the eight that share a column.
__device__ inline f32 row_sum(f32 x)
{
    x += __shfl_xor_sync(kAllLanes, x, 1);
    return x + __shfl_xor_sync(kAllLanes, x, 2);
}

__device__ inline f32 column_sum(f32 x)
{
    x += __shfl_xor_sync(kAllLanes, x, 4);
    x += __shfl_xor_sync(kAllLanes, x, 8);
    return x + __shfl_xor_sync(kAllLanes, x, 16);
}
