// SsdProducts.cuh: what a warp of SsdScanBackward.cu makes of tiles in shared memory: products of R times 16 rows, by which each fragment of B serves R products, and parts of tiles in the
// order of their sums.
#pragma once
#include "common/Ssd.cuh"

// How a product walks the inner axis: in a loop, or without one where all is wanted. With a triangle the last of the R times 16 rows ends with the depth, each before it 16 earlier; or the
// first begins with it, each behind it 16 later.
enum SsdWalk { kUnrolled, kLooped, kLowerTriangle, kUpperTriangle };

// A product as multiply_rows takes it, 16 of the inner axis at a time; addresses are those of a lane's rows of the tiles.
template <bool isAAcross, bool isBAcross, bool isScaled, int APitch, int BPitch, int Walk, typename E, int R, int J>
struct RowProduct
{
    static constexpr int kAStep = 16 * sizeof(E) * (isAAcross ? APitch : 1), kBStep = 16 * sizeof(E) * (isBAcross ? BPitch : 1);
    static constexpr int kNextRows = 16 * sizeof(E) * (isAAcross ? 1 : APitch), kNextColumns = 16 * sizeof(E) * (isBAcross ? 1 : BPitch);

    f32 (&sum)[R][J][4];
    int rows, depth, columns;

    template <bool isWhole>
    __device__ inline bool has(int r, int k) const
    {
        return (isWhole || 16 * r < rows) && (Walk != kLowerTriangle || k < depth - 16 * (R - 1 - r)) && (Walk != kUpperTriangle || k >= 16 * r);
    }

    template <bool isWhole, int K, int Row = 0>
    __device__ __forceinline__ void load_left(u32 (&left)[R][4], u32 a, int k) const
    {
        if (has<isWhole>(Row, k)) load_matrices_at<K * kAStep + Row * kNextRows, isAAcross>(left[Row], a);
        if constexpr (Row + 1 < R) load_left<isWhole, K, Row + 1>(left, a, k);
    }

    template <bool isWhole, int K, int Column = 0>
    __device__ __forceinline__ void multiply_columns(const u32 (&left)[R][4], u32 b, int k) const
    {
        if (!isWhole && 16 * Column >= columns) return;
        u32 right[4];
        load_matrices_at<K * kBStep + Column * kNextColumns, isBAcross>(right, b);
        #pragma unroll
        for (int r = 0; r < R; r++)
        {
            if (!has<isWhole>(r, k)) continue;
            mma_16x8x16<E>(sum[r][2 * Column], left[r], right[0], right[1]);
            mma_16x8x16<E>(sum[r][2 * Column + 1], left[r], right[2], right[3]);
        }
        if constexpr (2 * Column + 2 < J) multiply_columns<isWhole, K, Column + 1>(left, b, k);
    }

    // isWhole: all rows and columns are wanted. k is where the addresses and K times 16 stand.
    template <bool isWhole, int K>
    __device__ __forceinline__ void step(u32 a, u32 b, int k, const f32* factors) const
    {
        u32 left[R][4];
        load_left<isWhole, K>(left, a, k);
        if constexpr (isScaled)
            #pragma unroll
            for (int half = 0; half < 2; half++)
            {
                f32 factor[2];
                load<2>(factor, factors + 16 * K + 8 * half);
                #pragma unroll
                for (int r = 0; r < R; r++)
                    #pragma unroll
                    for (int v = 2 * half; v < 2 * half + 2; v++)
                        if (has<isWhole>(r, k)) left[r][v] = pair_of<E>(low_of<E>(left[r][v]) * factor[0], high_of<E>(left[r][v]) * factor[1]);
            }
        multiply_columns<isWhole, K>(left, b, k);
    }

    template <int K = 0>
    __device__ __forceinline__ void whole(u32 a, u32 b, const f32* factors) const
    {
        step<true, K>(a, b, 16 * K, factors);
        if constexpr (16 * K + 16 < kSide) whole<K + 1>(a, b, factors);
    }
};

// sum += A·B, R times 16 rows by 8·J columns, of which the first `rows` and `columns` (multiples of 16) are wanted; depth is a multiple of 16, at most kSide. sA is A's element (0, 0), and sB
// is B's; pitches in elements. isAcross: a row of the tile is one k; else a row of A's is one m, and one of B's one n. isScaled: A's elements times a factor of their k. Inlined by force: its sums are registers.
template <bool isAAcross, bool isBAcross, bool isScaled, int APitch, int BPitch, int Walk = kUnrolled, int R, int J, typename E>
__device__ __forceinline__ void multiply_rows(f32 (&sum)[R][J][4], const E* sA, const E* sB, int rows, int depth, int columns, const f32* factors = nullptr)
{
    const int lane = thread_again() % kWarp, low = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    u32 a = shared_address(isAAcross ? sA + (third + low) * APitch + second : sA + (second + low) * APitch + third);
    u32 b = shared_address(isBAcross ? sB + (second + low) * BPitch + third : sB + (third + low) * BPitch + second);
    if constexpr (isScaled) factors += lane % 4 * 2;
    using Product = RowProduct<isAAcross, isBAcross, isScaled, APitch, BPitch, Walk, E, R, J>;
    const Product product{ sum, rows, depth, columns };
    if (Walk == kUnrolled && depth == kSide && rows >= 16 * R && columns >= 8 * J)
    {
        product.template whole<>(a, b, factors);
        return;
    }
    #pragma unroll 1
    for (int k = 0; k < depth; k += 16)
    {
        product.template step<false, 0>(a, b, k, factors);
        a += Product::kAStep;
        b += Product::kBStep;
        if constexpr (isScaled) factors += 16;
    }
}

template <bool isAAcross, bool isBAcross, bool isScaled, int APitch, int BPitch, int Walk = kUnrolled, int R, int J>
__device__ __forceinline__ void multiply_rows(f32 (&sum)[R][J][4], const f32* sA, const f32* sB, int rows, int depth, int columns, const f32* factors = nullptr)
{
    #pragma unroll
    for (int r = 0; r < R; r++)
    {
        if (16 * r >= rows) break;
        const int from = Walk == kUpperTriangle ? 16 * r : 0, to = Walk == kLowerTriangle ? depth - 16 * (R - 1 - r) : depth;
        multiply_tiles<isAAcross, isBAcross, isScaled>(sum[r], sA + 16 * r * (isAAcross ? 1 : APitch) + from * (isAAcross ? APitch : 1), APitch, sB + from * (isBAcross ? BPitch : 1), BPitch, to - from,
            columns, factors);
    }
}

// 16 × 16s of a tile, of each what a lane has of sums of the same place: two times 16 × 8.
template <int Pitch>
__device__ inline void load_square(f32 (&to)[2][4], const f32* from)
{
    #pragma unroll
    for (int j = 0; j < 2; j++)
        #pragma unroll
        for (int v = 0; v < 4; v += 2)
        {
            f32 pair[2];
            load<2>(pair, from + fragment_row(v) * Pitch + 8 * j + fragment_column(0));
            to[j][v] = pair[0];
            to[j][v + 1] = pair[1];
        }
}

template <int Pitch>
__device__ inline void load_square(f32 (&to)[2][4], const bf16* from)
{
    u32 words[4];
    const int lane = thread_again() % kWarp;
    load_matrices(words, shared_address(from) + (lane % 16 * Pitch + lane / 16 * 8) * sizeof(bf16));
    #pragma unroll
    for (int w = 0; w < 4; w++)
    {
        to[w / 2][w % 2 * 2] = low_of<bf16>(words[w]);
        to[w / 2][w % 2 * 2 + 1] = high_of<bf16>(words[w]);
    }
}

// Behind it a warp may write where it read squares. Of floats each lane reads what it writes.
template <typename E>
__device__ inline void squares_are_read()
{
    if constexpr (!kIsSame<E, f32>) __syncwarp();             // all lanes have read theirs
}

// Two neighbours to a row of shared memory.
__device__ inline void put_two(f32* to, f32 a, f32 b)
{
    const f32 pair[2] = { a, b };
    stash<2>(to, pair);
}
__device__ inline void put_two(bf16* to, f32 a, f32 b) { *reinterpret_cast<u32*>(to) = pair_of<bf16>(a, b); }

// A thread's part of R times 16 rows by 8·J columns of a warp to a tile; `to` is the warp's element (0, 0).
template <int Pitch, int R, int J, typename E>
__device__ inline void put_rows(E* to, const f32 (&x)[R][J][4])
{
    const int lane = thread_again() % kWarp;
    to += lane / 4 * Pitch + lane % 4 * 2;
    #pragma unroll
    for (int r = 0; r < R; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_two(to + (16 * r + 4 * v) * Pitch + 8 * j, x[r][j][v], x[r][j][v + 1]);
}

// Starts copying 16 bytes of each of Count rows, Step bytes apart in shared memory.
template <int Count, int Step, int Row = 0, typename T>
__device__ inline void copy_rows(u32 to, const T* from, i64 stride)
{
    copy_async_at<Row * Step, 0>(to, from);
    if constexpr (Row + 1 < Count) copy_rows<Count, Step, Row + 1>(to, from + stride, stride);
}

// A block starts loading a tile as load_tile does; a tile without gaps by few instructions.
template <int Width, int Rows, typename T, typename E>
__device__ inline void load_rows(E* sTile, const T* from, i64 rowStride, int rows, int columns, bool isWide)
{
    if constexpr (kIsSame<T, E>)
        if (isWide && rows >= Rows && columns >= Width)
        {
            constexpr int kPitch = Width + kRowPad<E>, V = 16 / sizeof(T), kNext = kSsdThreads / (Width / V);
            static_assert(Rows % kNext == 0, "whole rounds");
            const int thread = thread_again(), r = thread / (Width / V), c = thread % (Width / V) * V;
            copy_rows<Rows / kNext, kNext * kPitch * (int)sizeof(E)>(shared_address(sTile) + (r * kPitch + c) * (int)sizeof(E), from + r * rowStride + c, kNext * rowStride);
            return;
        }
    load_tile<Width, Rows>(sTile, from, rowStride, rows, columns, isWide);
}

// Of four columns the sums over the eight lanes that share them, each to two of these lanes: the column's number is that of the lane's bits 4 and 3.
__device__ inline f32 column_sums(const f32 (&x)[4])
{
    const int lane = threadIdx.x % kWarp;
    const bool isHigh = lane & 16, isOdd = lane & 8;
    f32 y[2];
    #pragma unroll
    for (int v = 0; v < 2; v++) y[v] = (isHigh ? x[2 + v] : x[v]) + __shfl_xor_sync(kAllLanes, isHigh ? x[v] : x[2 + v], 16);
    const f32 z = (isOdd ? y[1] : y[0]) + __shfl_xor_sync(kAllLanes, isOdd ? y[0] : y[1], 8);
    return z + __shfl_xor_sync(kAllLanes, z, 4);
}
// Where that column of 16 stands, of sums of two times 16 × 8: x is { tile 0's columns, tile 1's }.
__device__ inline int summed_column() { return threadIdx.x % kWarp / 16 * 8 + threadIdx.x % 4 * 2 + (threadIdx.x >> 3 & 1); }
__device__ inline bool has_column_sum() { return (threadIdx.x & 4) == 0; }

// Half of a block's warps wait for each other.
__device__ inline void team_barrier(int team) { asm volatile("bar.sync %0, %1;" :: "r"(team + 1), "n"(kSsdThreads / 2) : "memory"); }
