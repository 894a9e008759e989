// Panels.cuh: tiles of 16-bit elements in shared memory for matrix loads. A tile stands as panels of 64 columns, then one of 32 and one of 16 where its
// width asks for them: no column is padding. Within a panel the 16-byte chunks of a row are exchanged, so that the eight rows which a matrix load touches,
// and the chunks that eight neighbouring lanes copy, lie in different banks.
#pragma once
#include "common/Copy.cuh"
#include "common/Mma.cuh"
#include "common/Warp.cuh"

// Where a lane's row of the four matrices of a load stands, for every 16 columns of a panel; 16 rows further on it is the same.
// isRowFirst: the second matrix is 8 rows below the first and the third 8 columns to the right, else the other way round.
template <bool isRowFirst>
struct PanelLanes
{
    u32 eight[4], four[2], two;                               // bytes, in panels of 8, 4 and 2 chunks

    __device__ inline PanelLanes() : two(at(2, 0))
    {
        #pragma unroll
        for (int k = 0; k < 4; k++) eight[k] = at(8, k);
        #pragma unroll
        for (int k = 0; k < 2; k++) four[k] = at(4, k);
    }

    // Of columns 16·k in a panel of `width` chunks.
    __device__ static inline u32 at(int width, int k)
    {
        const int lane = threadIdx.x % kWarp, second = lane >> 3 & 1, third = lane >> 4;
        const int row = (lane & 7) + 8 * (isRowFirst ? second : third), chunk = 2 * k + (isRowFirst ? third : second);
        return (row * width + (chunk ^ exchange(width, row))) * 16;
    }

    // What the chunks of a row are exchanged by.
    __device__ static inline int exchange(int width, int row) { return width == 8 ? row & 7 : width == 4 ? row >> 1 & 3 : row >> 2 & 1; }
};

// Rows at equal distances. What a thread keeps is the row that it copies first in a panel of eight chunks.
template <typename T>
struct EvenRows
{
    static constexpr bool kIsEven = true;

    const T* own;
    i64 step;

    __device__ inline EvenRows(const T* from, i64 step) : own(from + threadIdx.x / 8 * step), step(step) { }
    __device__ inline const T* operator()(int row) const { return own + (row - (int)(threadIdx.x / 8)) * step; }
};

template <int Rows, int Columns>
struct PanelTile
{
    static_assert(Rows % 16 == 0 && Columns % 16 == 0, "whole matrices");
    static constexpr int kBytes = Rows * Columns * 2, kChunks = Columns / 8;

    // Of the panel that holds a chunk: chunks of a row, and its first chunk.
    __device__ static constexpr int width(int chunk) { return chunk < Columns / 64 * 8 ? 8 : chunk < Columns / 32 * 4 ? 4 : 2; }
    __device__ static constexpr int first(int chunk) { return chunk / width(chunk) * width(chunk); }

    // Bytes from the tile's start to a chunk of a row.
    __device__ static inline u32 at(int row, int chunk)
    {
        const int w = width(chunk), f = first(chunk);
        return (f * Rows + row * w + ((chunk - f) ^ PanelLanes<true>::exchange(w, row))) * 16;
    }

    // Bytes to this lane's row of a matrix load at column 16·k and a row that is a multiple of 16: what the lane adds, and what all add.
    template <bool isRowFirst>
    __device__ static inline u32 lane_at(const PanelLanes<isRowFirst>& lanes, int k)
    {
        const int w = width(2 * k), inside = k - first(2 * k) / 2;
        return w == 8 ? lanes.eight[inside & 3] : w == 4 ? lanes.four[inside & 1] : lanes.two;
    }
    __device__ static constexpr int place_at(int row, int k) { return (first(2 * k) * Rows + row * width(2 * k)) * 16; }

    // Starts copying rows of a dense last axis of `columns` (a multiple of 8) elements; from(row) is a row's first element; kIsEven: `step` elements behind the one
    // before. What lies behind `rows` and `columns` becomes 0; isWhole: there is nothing.
    template <int Threads, bool isWhole, typename From>
    __device__ static inline void copy(u32 sTile, const From& from, int rows, int columns)
    {
        const int thread = isWhole ? threadIdx.x : thread_again();
        #pragma unroll
        for (int chunk = 0; chunk < kChunks; chunk += width(chunk))
        {
            const int w = width(chunk), pass = Threads / w, row = thread / w, own = chunk + thread % w;
            const u32 to = sTile + at(row, own);
            if (pass > Rows && row >= Rows) continue;
            if constexpr (From::kIsEven)
            {
                auto next = from(row) + own * 8;
                #pragma unroll
                for (int r = 0; r < Rows; r += pass, next += pass * from.step) copy_async(to + r * w * 16, next, isWhole || (row + r < rows && own * 8 < columns) ? 16 : 0);
            }
            else
                #pragma unroll
                for (int r = 0; r < Rows; r += pass) copy_async(to + r * w * 16, from(row + r) + own * 8, row + r < rows && own * 8 < columns ? 16 : 0);
        }
    }

    // As copy, an element at a time and waited for, from rows that begin anywhere.
    template <int Threads, typename T, typename From>
    __device__ static inline void fill(u8* sTile, const From& from, int rows, int columns)
    {
        #pragma unroll 1
        for (int i = thread_again(); i < Rows * Columns; i += Threads)
        {
            const int row = i / Columns, column = i % Columns;
            const T value = row < rows && column < columns ? from(row)[column] : T{};
            *reinterpret_cast<T*>(sTile + at(row, column / 8) + column % 8 * 2) = value;
        }
    }
};
