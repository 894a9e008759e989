// ExpertTile.cuh: one tile of 64 × 64 of a matrix product by a block of 128 threads, on the tensor cores or in f32. Its operands are rows that may be
// gathered, and run along the contracted dimension or across it.
#pragma once
#include "common/Mma.cuh"
#include "common/Warp.cuh"

constexpr int kTile = 64;                                     // rows and columns of a tile
constexpr int kDepth = 32;                                    // of the contracted dimension at a time
constexpr int kTileThreads = 128;
constexpr int kSumPitch = kTile + 4;

// Where the rows of an operand stand. Row i is row first + i of the data; with a gated pair of matrices rows span … are those jump further on.
struct TileSource
{
    const void* data; const i32* pairs;                       // with pairs row r is row pairs[r] / slots
    i64 first, rows, columns, stride;
    i32 slots, span, isWide;
    i64 jump;

    // The row's number, or -1 where there is none.
    __device__ inline i64 row(i64 i) const
    {
        const i64 within = i < span ? i : i - span;
        if (within >= rows) return -1;
        const i64 r = first + within + (i < span ? 0 : jump);
        return pairs ? pairs[r] / slots : r;
    }
};

constexpr int kNoSpan = 0x7fffffff;

template <typename T> __device__ inline void put(f32* to, T x) { *to = to_f32(x); }
__device__ inline void put(bf16* to, bf16 x) { *to = x; }
__device__ inline void put(f16* to, f16 x) { *to = x; }

struct alignas(16) Chunk { u32 at[4]; };

// Copies rows firstRow … + rows, columns firstColumn … + columns of a source into shared memory, zero where there are none.
template <int rows, int columns, typename S, typename D>
__device__ inline void load_tile(D* sTile, int pitch, const TileSource& source, i64 firstRow, i64 firstColumn)
{
    constexpr int V = 16 / sizeof(S), kChunks = columns / V;
    for (int chunk = threadIdx.x; chunk < rows * kChunks; chunk += kTileThreads)
    {
        const int i = chunk / kChunks, c = chunk % kChunks * V;
        const i64 row = source.row(firstRow + i), column = firstColumn + c;
        const S* from = static_cast<const S*>(source.data) + row * source.stride + column;
        union { Chunk chunk; S at[V]; } word;
        word.chunk = {};
        if (row >= 0 && source.isWide && column < source.columns) word.chunk = *reinterpret_cast<const Chunk*>(from);
        else if (row >= 0)
        {
            #pragma unroll
            for (int v = 0; v < V; v++)
                if (column + v < source.columns) word.at[v] = from[v];
        }
        #pragma unroll
        for (int v = 0; v < V; v++) put(sTile + i * pitch + c + v, word.at[v]);
    }
}

// Starts copying what load_tile copies, of 16-bit elements as they are.
template <int rows, int columns, typename S>
__device__ inline void fetch_tile(S* sTile, int pitch, const TileSource& source, i64 firstRow, i64 firstColumn)
{
    constexpr int V = 16 / sizeof(S), kChunks = columns / V;
    #pragma unroll
    for (int part = 0; part < rows * kChunks / kTileThreads; part++)
    {
        const int chunk = threadIdx.x + part * kTileThreads, i = chunk / kChunks, c = chunk % kChunks * V;
        const i64 row = source.row(firstRow + i), column = firstColumn + c;
        const int there = row >= 0 ? (int)max((i64)0, min((i64)V, source.columns - column)) : 0;
        const S* from = static_cast<const S*>(source.data) + (there > 0 ? row * source.stride + column : 0);
        S* to = sTile + i * pitch + c;
        if (source.isWide) copy_async(shared_address(to), from, there * sizeof(S));
        else
            #pragma unroll
            for (int v = 0; v < V; v++) to[v] = v < there ? from[v] : S{};
    }
}

enum TileType { kTileF32, kTileBf16, kTileF16 };

__device__ constexpr TileType tile_type(f32) { return kTileF32; }
__device__ constexpr TileType tile_type(bf16) { return kTileBf16; }
__device__ constexpr TileType tile_type(f16) { return kTileF16; }

// As load_tile, for a source whose type is an argument.
template <int rows, int columns, typename D>
__device__ inline void load_tile(D* sTile, int pitch, const TileSource& source, int type, i64 firstRow, i64 firstColumn)
{
    if (type == kTileF32) load_tile<rows, columns, f32>(sTile, pitch, source, firstRow, firstColumn);
    else if (type == kTileBf16) load_tile<rows, columns, bf16>(sTile, pitch, source, firstRow, firstColumn);
    else load_tile<rows, columns, f16>(sTile, pitch, source, firstRow, firstColumn);
}

// A product of S elements in shared memory. isAcross: a row of the operand is one k and runs along m or n; else it is one m or n and runs along k.
// Pitches: 16-bit rows keep their 16-byte alignment and fall on different banks; odd f32 rows fall on different banks.
template <typename S, bool isAAcross, bool isBAcross>
struct Tile
{
    static constexpr bool kIsMma = sizeof(S) == 2;
    static constexpr int kPad = kIsMma ? 8 : 1;
    static constexpr int kAPitch = (isAAcross ? kTile : kDepth) + kPad, kBPitch = (isBAcross ? kTile : kDepth) + kPad;
    static constexpr int kARows = isAAcross ? kDepth : kTile, kBRows = isBAcross ? kDepth : kTile;
    static constexpr int kStages = kIsMma ? 3 : 1, kElements = kARows * kAPitch + kBRows * kBPitch;         // slices of the operands in shared memory at a time
    static constexpr int kOperandBytes = kStages * kElements * sizeof(S), kSumBytes = kTile * kSumPitch * 4;
    static constexpr int kBytes = kOperandBytes > kSumBytes ? kOperandBytes : kSumBytes;   // the sums come after the operands

    // Leaves the sums over k of 0 … depth in sMemory, [kTile, kSumPitch]. Ends with them there for all threads.
    __device__ static void multiply(u8* sMemory, const TileSource& a, int aType, const TileSource& b, int bType, i64 depth)
    {
        f32 sums[2][4][4] = {};
        if constexpr (kIsMma)
        {
            const auto operands = [&](int slice) { return reinterpret_cast<S*>(sMemory) + slice % kStages * kElements; };
            const auto fetch = [&](int slice)
            {
                const i64 k = (i64)slice * kDepth;
                if (k < depth)
                {
                    fetch_tile<kARows, isAAcross ? kTile : kDepth>(operands(slice), kAPitch, a, isAAcross ? k : 0, isAAcross ? 0 : k);
                    fetch_tile<kBRows, isBAcross ? kTile : kDepth>(operands(slice) + kARows * kAPitch, kBPitch, b, isBAcross ? k : 0, isBAcross ? 0 : k);
                }
                copy_async_commit();
            };
            const int slices = (int)((depth + kDepth - 1) / kDepth);
            for (int slice = 0; slice < kStages - 1; slice++) fetch(slice);
            for (int slice = 0; slice < slices; slice++)
            {
                copy_async_wait<kStages - 2>();
                __syncthreads();                              // all of this slice is there, and all have read the one whose buffer comes next
                fetch(slice + kStages - 1);
                add_matrices(sums, operands(slice), operands(slice) + kARows * kAPitch);
            }
        }
        else
            for (i64 k = 0; k < depth; k += kDepth)
            {
                S* sA = reinterpret_cast<S*>(sMemory);
                S* sB = sA + kARows * kAPitch;
                __syncthreads();                              // the former operands have been read by all
                load_tile<kARows, isAAcross ? kTile : kDepth>(sA, kAPitch, a, aType, isAAcross ? k : 0, isAAcross ? 0 : k);
                load_tile<kBRows, isBAcross ? kTile : kDepth>(sB, kBPitch, b, bType, isBAcross ? k : 0, isBAcross ? 0 : k);
                __syncthreads();                              // the operands are there
                add_scalars(sums, sA, sB);
            }
        __syncthreads();                                      // the operands have been read by all; the sums go into their place
        put_sums(sums, reinterpret_cast<f32*>(sMemory));
        __syncthreads();                                      // the sums are there
    }

private:
    // Warps are 2 × 2 over the tile, each with 32 × 32 of it.
    __device__ static void add_matrices(f32 (&sums)[2][4][4], const S* sA, const S* sB)
    {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, m0 = warp / 2 * 32, n0 = warp % 2 * 32;
        #pragma unroll
        for (int k = 0; k < kDepth; k += 16)
        {
            u32 a[2][4], b[2][4];
            #pragma unroll
            for (int i = 0; i < 2; i++)
            {
                const int m = m0 + 16 * i, n = n0 + 16 * i;
                if constexpr (isAAcross) load_matrices_transposed(a[i], shared_address(sA + (k + lane / 16 * 8 + lane % 8) * kAPitch + m + lane / 8 % 2 * 8));
                else load_matrices(a[i], shared_address(sA + (m + lane % 16) * kAPitch + k + lane / 16 * 8));
                if constexpr (isBAcross) load_matrices_transposed(b[i], shared_address(sB + (k + lane / 8 % 2 * 8 + lane % 8) * kBPitch + n + lane / 16 * 8));
                else load_matrices(b[i], shared_address(sB + (n + lane / 16 * 8 + lane % 8) * kBPitch + k + lane / 8 % 2 * 8));
            }
            #pragma unroll
            for (int i = 0; i < 2; i++)
                #pragma unroll
                for (int j = 0; j < 4; j++) mma_16x8x16<S>(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }

    // Threads are 8 × 16 over the tile, each with rows y, y + 8, … and columns x, x + 16, …: no two rows of a warp's reads share a bank.
    __device__ static void add_scalars(f32 (&sums)[2][4][4], const S* sA, const S* sB)
    {
        const int x = threadIdx.x % 16, y = threadIdx.x / 16;
        #pragma unroll 4
        for (int k = 0; k < kDepth; k++)
        {
            f32 a[8], b[4];
            #pragma unroll
            for (int i = 0; i < 8; i++) a[i] = to_f32(sA[isAAcross ? k * kAPitch + y + 8 * i : (y + 8 * i) * kAPitch + k]);
            #pragma unroll
            for (int j = 0; j < 4; j++) b[j] = to_f32(sB[isBAcross ? k * kBPitch + x + 16 * j : (x + 16 * j) * kBPitch + k]);
            #pragma unroll
            for (int i = 0; i < 8; i++)
                #pragma unroll
                for (int j = 0; j < 4; j++) sums[i / 4][i % 4][j] = fmaf(a[i], b[j], sums[i / 4][i % 4][j]);
        }
    }

    __device__ static void put_sums(const f32 (&sums)[2][4][4], f32* sSums)
    {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, x = threadIdx.x % 16, y = threadIdx.x / 16;
        #pragma unroll
        for (int i = 0; i < 2; i++)
            #pragma unroll
            for (int j = 0; j < 4; j++)
                #pragma unroll
                for (int v = 0; v < 4; v++)
                {
                    const int m = kIsMma ? warp / 2 * 32 + 16 * i + v / 2 * 8 + lane / 4 : y + 8 * (4 * i + j);
                    const int n = kIsMma ? warp % 2 * 32 + 8 * j + lane % 4 * 2 + v % 2 : x + 16 * v;
                    sSums[m * kSumPitch + n] = sums[i][j][v];
                }
    }
};
