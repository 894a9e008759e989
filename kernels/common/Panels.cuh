// Panels.cuh: tiles of 16-bit elements in shared memory for matrix loads. A tile stands as panels of 16 columns, as many as its width asks for: no column is
// padding, and the width is a number of the launch. Within a panel the two 16-byte chunks of every second four rows are exchanged, and the rows of every four by
// the panel's number, so that the eight rows which a matrix load touches, and the chunks that eight neighbouring lanes copy, lie in different banks.
#pragma once
#include "common/Copy.cuh"
#include "common/Mma.cuh"
#include "common/Warp.cuh"

// Bytes from the start of a panel to this lane's row of the four matrices of a load; 16 rows further on it is the same, and in the panel of number k (mod 4) its
// bits from 5 on are exchanged by k: tiles begin at multiples of 128 bytes. isRowFirst: the second matrix is 8 rows below the first and the third 8 columns to the
// right, else the other way round.
template <bool isRowFirst>
__device__ inline u32 panel_lane()
{
    const int lane = threadIdx.x % kWarp, second = lane >> 3 & 1, third = lane >> 4;
    const int row = (lane & 7) + 8 * (isRowFirst ? second : third), chunk = isRowFirst ? third : second;
    return row * 32 + ((chunk ^ row >> 2) & 1) * 16;
}

// Rows at equal distances, from the first on.
template <typename T>
struct PlainRows
{
    const T* first;
    i64 step;

    __device__ inline const T* operator()(int row) const { return first + row * step; }
};

// The same. What a thread keeps is the place that it copies first where eight threads share a row.
template <typename T>
struct EvenRows
{
    const T* own;
    i64 step;

    __device__ inline EvenRows(const T* from, i64 step) : own(from + threadIdx.x / 8 * step + threadIdx.x % 8 * 8), step(step) { }

    // The rows for a branch that is seldom taken: in a loop nothing that it makes of them is kept in registers.
    __device__ inline PlainRows<T> seldom() const
    {
        const int thread = thread_again();
        return {own - thread / 8 * step - thread % 8 * 8, step};
    }
};

// Of the class of widths D: up to D columns, and more than half of that but in the least.
template <int Rows, int D>
struct PanelTile
{
    static_assert(Rows % 16 == 0, "whole matrices");
    static constexpr int kPanel = Rows * 32;                  // bytes
    static constexpr int kMost = D / 16, kLeast = D <= 64 ? 1 : D / 32 + 1;

    // Bytes from the tile's start to a chunk of a row.
    __device__ static inline u32 at(int row, int chunk) { return (chunk >> 1) * kPanel + (row ^ (chunk >> 1 & 3)) * 32 + ((chunk ^ row >> 2) & 1) * 16; }

    // The four matrices at column 16·K and a row that is a multiple of 16; `from` is the tile's address and what panel_lane() says.
    template <int Row, int K, bool isTransposed>
    __device__ static inline void load(u32 (&to)[4], u32 from) { load_matrices_at<K * kPanel + Row * 32, isTransposed>(to, from ^ K % 4 * 32); }

    // Bytes from the tile's start to the chunk that this thread copies first where eight threads share a row.
    __device__ static inline u32 copied() { return at(threadIdx.x / 8, threadIdx.x % 8); }

    // Starts copying rows of a dense last axis to `panels` panels: all rows, and all columns. own: the tile's address and what copied() says.
    template <int Threads, typename T>
    __device__ static inline void copy_whole(u32 own, const EvenRows<T>& from, int panels)
    {
        copy_panels<Threads, 0>(own, from, panels);
        if (panels % 4 != 0) copy_rest<Threads>(own - copied(), from.seldom(), Rows, 16 * panels, kept(panels));
    }

    // As copy_whole; from(row) is a row's first element, and what lies behind `rows` and `columns` (a multiple of 8) becomes 0.
    template <int Threads, typename From>
    __device__ static inline void copy(u32 sTile, const From& from, int rows, int columns, int panels)
    {
        const int thread = thread_again();
        #pragma unroll 1
        for (int panel = 0; panel + 4 <= panels; panel += 4) copy_part<Threads, 8>(sTile, from, rows, columns, panel, thread / 8, thread % 8);
        copy_rest<Threads>(sTile, from, rows, columns, panels);
    }

    // As copy, an element at a time and waited for, from rows that begin anywhere.
    template <int Threads, typename T, typename From>
    __device__ static inline void fill(u8* sTile, const From& from, int rows, int columns, int panels)
    {
        #pragma unroll 1
        for (int i = thread_again(); i < Rows * panels * 16; i += Threads)
        {
            const int row = i / (panels * 16), column = i % (panels * 16);
            const T value = row < rows && column < columns ? from(row)[column] : T{};
            *reinterpret_cast<T*>(sTile + at(row, column / 8) + column % 8 * 2) = value;
        }
    }

private:
    // Four panels at a time, from Panel on: eight threads to a row.
    template <int Threads, int Panel, typename T>
    __device__ static inline void copy_panels(u32 to, const EvenRows<T>& from, int panels)
    {
        if (Panel + 4 > kLeast && Panel + 4 > panels) return;
        copy_rows<Threads / 8, Panel, 0>(to, from.own, Threads / 8 * from.step);
        if constexpr (Panel + 8 <= kMost) copy_panels<Threads, Panel + 4>(to, from, panels);
    }

    template <int Pass, int Panel, int Row, typename T>
    __device__ static inline void copy_rows(u32 to, const T* from, i64 step)
    {
        static_assert(Pass % 8 == 0 && Pass <= Rows, "a thread's rows stand alike");
        copy_async_at<Panel * kPanel + Row * 32, Panel * 32>(to, from);
        if constexpr (Row + Pass < Rows) copy_rows<Pass, Panel, Row + Pass>(to, from + step, step);
    }

    // The panels behind the last four. Of rows that share eight lanes one is two below the other.
    template <int Threads, typename From>
    __device__ static inline void copy_rest(u32 sTile, const From& from, int rows, int columns, int panels)
    {
        const int thread = thread_again();
        if (panels & 2) copy_part<Threads, 4>(sTile, from, rows, columns, panels & ~3, (thread / 16) * 4 + (thread / 8 & 1) + (thread / 4 & 1) * 2, thread % 4);
        if (panels & 1) copy_part<Threads, 2>(sTile, from, rows, columns, panels - 1, thread / 2, thread % 2);
    }

    // Width chunks of every row, from a panel on; this thread's first row, and its chunk of them.
    template <int Threads, int Width, typename From>
    __device__ static inline void copy_part(u32 sTile, const From& from, int rows, int columns, int panel, int row, int chunk)
    {
        constexpr int kPass = Threads / Width;
        static_assert(kPass % 8 == 0, "a thread's rows stand alike");
        if (kPass > Rows && row >= Rows) return;
        const int own = panel * 2 + chunk;
        const u32 to = sTile + at(row, own);
        #pragma unroll 1
        for (int r = 0; r < Rows; r += kPass) copy_async(to + r * 32, from(row + r) + own * 8, row + r < rows && own * 8 < columns ? 16 : 0);
    }
};
