// SsdProducts.cuh: what a warp of SsdScanBackward.cu makes of tiles in shared memory: products of R times 16 rows, by which each fragment of B serves R products; left sides that a warp keeps
// for several products; and parts of tiles in the order of their sums.
#pragma once
#include "common/Ssd.cuh"

// How a product walks the inner axis: in a loop, or without one where all is wanted. With a triangle the first of the R times 16 rows begins with the depth, each behind it 16 later; or a
// column of the right side ends, or begins, where the inner axis is at its number.
enum SsdWalk { kUnrolled, kLooped, kUpperTriangle, kToColumn, kFromColumn };

// The lane's number, anew: registers are short.
__device__ inline u32 lane_again() { return (u32)thread_again() % kWarp; }

// Bytes from a tile's element to this lane's row of the four 8 × 8 matrices of a load. isRowFirst: the second matrix is 8 rows below the first, and the third 8 columns to the right; else the
// other way round.
template <bool isRowFirst, int Pitch, typename E>
__device__ inline u32 matrix_lane()
{
    const u32 lane = lane_again();
    return isRowFirst ? (lane % 16 * Pitch + lane / 16 * 8) * (u32)sizeof(E) : ((lane / 16 * 8 + lane % 8) * Pitch + (lane & 8)) * (u32)sizeof(E);
}

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
        return (isWhole || 16 * r < rows) && (Walk != kUpperTriangle || k >= 16 * r);
    }

    template <bool isWhole, int K, int Row = 0>
    __device__ __forceinline__ void load_left(u32 (&left)[R][4], u32 a, int k) const
    {
        if (has<isWhole>(Row, k)) load_matrices_at<K * kAStep + Row * kNextRows, isAAcross>(left[Row], a);
        else left[Row][0] = left[Row][1] = left[Row][2] = left[Row][3] = 0;               // or the compiler keeps what was there
        if constexpr (Row + 1 < R) load_left<isWhole, K, Row + 1>(left, a, k);
    }

    template <bool isWhole, int K, int Column = 0>
    __device__ __forceinline__ void multiply_columns(const u32 (&left)[R][4], u32 b, int k) const
    {
        if (!isWhole && 16 * Column >= columns) return;
        if ((Walk != kToColumn || 16 * Column >= k) && (Walk != kFromColumn || 16 * Column <= k))
        {
            u32 right[4];
            load_matrices_at<K * kBStep + Column * kNextColumns, isBAcross>(right, b);
            #pragma unroll
            for (int r = 0; r < R; r++)
            {
                if (!has<isWhole>(r, k)) continue;
                mma_16x8x16<E>(sum[r][2 * Column], left[r], right[0], right[1]);
                mma_16x8x16<E>(sum[r][2 * Column + 1], left[r], right[2], right[3]);
            }
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
    u32 a = shared_address(sA) + matrix_lane<!isAAcross, APitch, E>(), b = shared_address(sB) + matrix_lane<isBAcross, BPitch, E>();
    if constexpr (isScaled) factors += (u32)thread_again() % 4 * 2;
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
        sA += r == 0 ? 0 : 16 * (isAAcross ? 1 : APitch);
        if constexpr (Walk == kToColumn || Walk == kFromColumn)
            #pragma unroll
            for (int j = 0; j < J; j += 2)
            {
                if (8 * j >= columns) break;
                const int from = Walk == kToColumn ? 0 : 8 * j, to = Walk == kToColumn ? min(depth, 8 * j + 16) : depth;
                multiply_tiles<isAAcross, isBAcross, isScaled>(reinterpret_cast<f32 (&)[2][4]>(sum[r][j]), sA + from * (isAAcross ? APitch : 1), APitch,
                    sB + from * (isBAcross ? BPitch : 1) + 8 * j * (isBAcross ? 1 : BPitch), BPitch, to - from, 16, factors);
            }
        else
        {
            const int from = Walk == kUpperTriangle ? 16 * r : 0;
            multiply_tiles<isAAcross, isBAcross, isScaled>(sum[r], sA + from * (isAAcross ? APitch : 1), APitch, sB + from * (isBAcross ? BPitch : 1), BPitch, depth - from, columns, factors);
        }
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
    load_matrices(words, shared_address(from) + matrix_lane<true, Pitch, bf16>());
    #pragma unroll
    for (int w = 0; w < 4; w++)
    {
        to[w / 2][w % 2 * 2] = low_of<bf16>(words[w]);
        to[w / 2][w % 2 * 2 + 1] = high_of<bf16>(words[w]);
    }
}

// Two neighbours to a row of shared memory.
__device__ inline void put_two(f32* to, f32 a, f32 b)
{
    const f32 pair[2] = { a, b };
    stash<2>(to, pair);
}
__device__ inline void put_two(bf16* to, f32 a, f32 b) { *reinterpret_cast<u32*>(to) = pair_of<bf16>(a, b); }

// Two neighbours of a row, as they lie in memory.
template <typename E> struct TwoOf { using Type = float2; };
template <> struct TwoOf<bf16> { using Type = u32; };
template <typename E> using Two = typename TwoOf<E>::Type;
template <typename E> __device__ inline Two<E> two_of(f32 a, f32 b)
{
    if constexpr (kIsSame<E, f32>) return make_float2(a, b);
    else return pair_of<E>(a, b);
}

// A thread's part of R times 16 rows by 8·J columns of a warp to a tile; `to` is the warp's element (0, 0).
template <int Pitch, int R, int J, typename E>
__device__ inline void put_rows(E* to, const f32 (&x)[R][J][4])
{
    const u32 lane = lane_again();
    to += lane / 4 * Pitch + lane % 4 * 2;
    #pragma unroll
    for (int r = 0; r < R; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_two(to + (16 * r + 4 * v) * Pitch + 8 * j, x[r][j][v], x[r][j][v + 1]);
}

// The same the other way round: a column of the sums is a row of the tile.
template <int Pitch, int R, int J, typename E>
__device__ inline void put_columns(E* to, const f32 (&x)[R][J][4])
{
    const u32 lane = lane_again();
    to += lane % 4 * 2 * Pitch + lane / 4;
    #pragma unroll
    for (int r = 0; r < R; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v++) to[(8 * j + v % 2) * Pitch + 16 * r + v / 2 * 8] = from_f32<E>(x[r][j][v]);
}

// The left side of a product, 16·R rows by 16·K of the inner axis, that a warp has for itself: fragments of the tensor cores in registers; of floats in a tile, rows Pitch apart.
template <typename E, int R, int K, int Pitch> struct LeftRows;

template <int R, int K, int Pitch>
struct LeftRows<bf16, R, K, Pitch>
{
    u32 at[R][K][4];

    // From a tile, of which `depth` of the inner axis are wanted.
    __device__ __forceinline__ void load(const bf16* from, int depth) { load_at(shared_address(from) + matrix_lane<true, Pitch, bf16>(), depth); }
    template <int I = 0>
    __device__ __forceinline__ void load_at(u32 from, int depth)
    {
        constexpr int k = I / R, r = I % R;
        if (16 * k < depth) load_matrices_at<(16 * r * Pitch + 16 * k) * (int)sizeof(bf16), false>(at[r][k], from);
        else at[r][k][0] = at[r][k][1] = at[r][k][2] = at[r][k][3] = 0;               // the same
        if constexpr (I + 1 < K * R) load_at<I + 1>(from, depth);
    }

    // Two neighbours at a time: get(row, column) has this lane's of those distances from its first. Before others read them they settle.
    template <typename Get>
    __device__ __forceinline__ void fill(const Get& get, bf16*)
    {
        #pragma unroll
        for (int r = 0; r < R; r++)
            #pragma unroll
            for (int k = 0; k < K; k++)
                #pragma unroll
                for (int v = 0; v < 4; v++) at[r][k][v] = get(16 * r + v % 2 * 8, 16 * k + v / 2 * 8);
    }
    static __device__ inline void settle() { }

    // Where nothing is asked of it: what it had is not kept in registers.
    __device__ __forceinline__ void clear()
    {
        #pragma unroll
        for (int r = 0; r < R; r++)
            #pragma unroll
            for (int k = 0; k < K; k++) at[r][k][0] = at[r][k][1] = at[r][k][2] = at[r][k][3] = 0;
    }

    // Sums as they are, rounded.
    __device__ __forceinline__ void set(const f32 (&x)[R][2 * K][4], bf16*)
    {
        #pragma unroll
        for (int r = 0; r < R; r++)
            #pragma unroll
            for (int k = 0; k < K; k++)
                #pragma unroll
                for (int v = 0; v < 4; v++) at[r][k][v] = pair_of<bf16>(x[r][2 * k + v / 2][v % 2 * 2], x[r][2 * k + v / 2][v % 2 * 2 + 1]);
    }

    // Part v of sums [16, 8] of the same place.
    __device__ inline f32 value(int r, int j, int v) const
    {
        const u32 word = at[r][j / 2][j % 2 * 2 + v / 2];
        return v % 2 ? high_of<bf16>(word) : low_of<bf16>(word);
    }

    // Its product with a right side of 16 columns, the rows of a tile from Row on: anew. b: the tile's address and what matrix_lane<false> says.
    template <int Row, int k = 0>
    __device__ __forceinline__ void multiply(f32 (&sum)[R][2][4], u32 b, int depth) const
    {
        if (k > 0 && 16 * k >= depth) return;
        u32 right[4];
        load_matrices_at<(Row * Pitch + 16 * k) * (int)sizeof(bf16), false>(right, b);
        #pragma unroll
        for (int r = 0; r < R; r++)
        {
            mma_16x8x16_at<k == 0, bf16>(sum[r][0], at[r][k], right[0], right[1]);
            mma_16x8x16_at<k == 0, bf16>(sum[r][1], at[r][k], right[2], right[3]);
        }
        if constexpr (k + 1 < K) multiply<Row, k + 1>(sum, b, depth);
    }
    static __device__ inline u32 right(const bf16* sB) { return shared_address(sB) + matrix_lane<false, Pitch, bf16>(); }
};

template <int R, int K, int Pitch>
struct LeftRows<f32, R, K, Pitch>
{
    const f32* tile;
    const f32* own;                                           // this lane's first

    __device__ __forceinline__ void load(const f32* from, int)
    {
        const u32 lane = lane_again();
        tile = from;
        own = from + lane / 4 * Pitch + lane % 4 * 2;
    }
    __device__ __forceinline__ void clear() { tile = own = nullptr; }
    template <typename Get>
    __device__ __forceinline__ void fill(const Get& get, f32* to)
    {
        load(to, 0);
        #pragma unroll
        for (int r = 0; r < R; r++)
            #pragma unroll
            for (int j = 0; j < 4 * K; j++) *reinterpret_cast<float2*>(const_cast<f32*>(own) + (16 * r + j % 2 * 8) * Pitch + j / 2 * 8) = get(16 * r + j % 2 * 8, j / 2 * 8);
    }
    static __device__ inline void settle() { __syncwarp(); }  // the warp's rows are there
    __device__ __forceinline__ void set(const f32 (&x)[R][2 * K][4], f32* to)
    {
        fill([&](int row, int column) { return make_float2(x[row / 16][column / 8][row % 16 / 8 * 2], x[row / 16][column / 8][row % 16 / 8 * 2 + 1]); }, to);
        settle();
    }
    __device__ inline f32 value(int r, int j, int v) const { return own[(16 * r + v / 2 * 8) * Pitch + 8 * j + v % 2]; }
    template <int Row>
    __device__ __forceinline__ void multiply(f32 (&sum)[R][2][4], const f32* sB, int depth) const
    {
        #pragma unroll
        for (int r = 0; r < R; r++)
        {
            #pragma unroll
            for (int v = 0; v < 8; v++) sum[r][v / 4][v % 4] = 0;
            multiply_tiles<false, false, false>(sum[r], tile + 16 * r * Pitch, Pitch, sB + Row * Pitch, Pitch, depth, 16, nullptr);
        }
    }
    static __device__ inline const f32* right(const f32* sB) { return sB; }
};

// 16 rows of a tile as columns of the left side of a product, 16·R of its rows: the inner axis are the tile's rows.
template <typename E, int R, int Pitch> struct LeftColumns;

template <int R, int Pitch>
struct LeftColumns<bf16, R, Pitch>
{
    u32 at[R][4];

    static __device__ inline u32 place(const bf16* sA) { return shared_address(sA) + matrix_lane<false, Pitch, bf16>(); }

    // The tile's rows from Row on; zero behind `rows` of the left side.
    template <int Row, int r = 0>
    __device__ __forceinline__ void load(u32 own, int rows)
    {
        if (r == 0 || 16 * r < rows) load_matrices_at<(Row * Pitch + 16 * r) * (int)sizeof(bf16), true>(at[r], own);
        else at[r][0] = at[r][1] = at[r][2] = at[r][3] = 0;
        if constexpr (r + 1 < R) load<Row, r + 1>(own, rows);
    }
    __device__ inline f32 value(int r, int j, int v) const
    {
        const u32 word = at[r][j * 2 + v / 2];
        return v % 2 ? high_of<bf16>(word) : low_of<bf16>(word);
    }

    // sum += each column times its factor, by the rows of sB from Row on, of which `columns` are wanted. b: the right tile's address and what matrix_lane<true> says. factor: this lane's.
    template <int Row, int BPitch, int J>
    __device__ __forceinline__ void multiply(f32 (&sum)[R][J][4], u32 b, int columns, const f32 (&factor)[2][2], const f32*)
    {
        #pragma unroll
        for (int r = 0; r < R; r++)
            #pragma unroll
            for (int v = 0; v < 4; v++) at[r][v] = pair_of<bf16>(low_of<bf16>(at[r][v]) * factor[v / 2][0], high_of<bf16>(at[r][v]) * factor[v / 2][1]);
        multiply_columns<Row, BPitch>(sum, b, columns);
    }
    template <int Row, int BPitch, int j = 0, int J>
    __device__ __forceinline__ void multiply_columns(f32 (&sum)[R][J][4], u32 b, int columns) const
    {
        if (8 * j >= columns) return;
        u32 right[4];
        load_matrices_at<(Row * BPitch + 8 * j) * (int)sizeof(bf16), true>(right, b);
        #pragma unroll
        for (int r = 0; r < R; r++)
        {
            mma_16x8x16<bf16>(sum[r][j], at[r], right[0], right[1]);
            mma_16x8x16<bf16>(sum[r][j + 1], at[r], right[2], right[3]);
        }
        if constexpr (j + 2 < J) multiply_columns<Row, BPitch, j + 2>(sum, b, columns);
    }
    template <int BPitch>
    static __device__ inline u32 right(const bf16* sB) { return shared_address(sB) + matrix_lane<true, BPitch, bf16>(); }
};

template <int R, int Pitch>
struct LeftColumns<f32, R, Pitch>
{
    const f32* tile;
    const f32* own;                                           // this lane's first

    static __device__ inline const f32* place(const f32* sA) { return sA; }
    template <int Row>
    __device__ __forceinline__ void load(const f32* from, int)
    {
        const u32 lane = lane_again();
        tile = from + Row * Pitch;
        own = tile + lane % 4 * 2 * Pitch + lane / 4;
    }
    __device__ inline f32 value(int r, int j, int v) const { return own[(8 * j + v % 2) * Pitch + 16 * r + v / 2 * 8]; }
    template <int Row, int BPitch, int J>
    __device__ __forceinline__ void multiply(f32 (&sum)[R][J][4], const f32* sB, int columns, const f32 (&)[2][2], const f32* factors)
    {
        #pragma unroll
        for (int r = 0; r < R; r++) multiply_tiles<true, true, true>(sum[r], tile + 16 * r, Pitch, sB + Row * BPitch, BPitch, 16, columns, factors + Row);
    }
    template <int BPitch>
    static __device__ inline const f32* right(const f32* sB) { return sB; }
};

// Starts copying 16 bytes of each of Count rows, Step bytes apart in shared memory.
template <int Count, int Step, int Row = 0, typename T>
__device__ inline void copy_rows(u32 to, const T* from, i64 stride)
{
    copy_async_at<Row * Step, 0>(to, from);
    if constexpr (Row + 1 < Count) copy_rows<Count, Step, Row + 1>(to, from + stride, stride);
}

// A team of Threads starts loading a tile as load_tile does; a tile without gaps by few instructions.
template <int Width, int Rows, int Threads = kSsdThreads, typename T, typename E>
__device__ inline void load_rows(E* sTile, const T* from, i64 rowStride, int rows, int columns, bool isWide)
{
    if constexpr (kIsSame<T, E>)
        if (isWide && rows >= Rows && columns >= Width)
        {
            constexpr int kPitch = Width + kRowPad<E>, V = 16 / sizeof(T), kNext = Threads / (Width / V);
            static_assert(Rows % kNext == 0, "whole rounds");
            const u32 thread = (u32)thread_again() % Threads, r = thread / (Width / V), c = thread % (Width / V) * V;
            copy_rows<Rows / kNext, kNext * kPitch * (int)sizeof(E)>(shared_address(sTile) + (r * kPitch + c) * (u32)sizeof(E), from + r * rowStride + c, kNext * rowStride);
            return;
        }
    load_tile<Width, Rows, Threads>(sTile, from, rowStride, rows, columns, isWide);
}

// Of four columns the sums over the eight lanes that share them, each to two of these lanes: the column's number is that of the lane's bits 4 and 3.
__device__ inline f32 column_sums(const f32 (&x)[4], u32 lane)
{
    const bool isHigh = lane & 16, isOdd = lane & 8;
    f32 y[2];
    #pragma unroll
    for (int v = 0; v < 2; v++) y[v] = (isHigh ? x[2 + v] : x[v]) + __shfl_xor_sync(kAllLanes, isHigh ? x[v] : x[2 + v], 16);
    const f32 z = (isOdd ? y[1] : y[0]) + __shfl_xor_sync(kAllLanes, isOdd ? y[0] : y[1], 8);
    return z + __shfl_xor_sync(kAllLanes, z, 4);
}
// Where that column of 16 stands, of sums of two times 16 × 8: x is { tile 0's columns, tile 1's }.
__device__ inline u32 summed_column(u32 lane) { return lane / 16 * 8 + lane % 4 * 2 + (lane >> 3 & 1); }
__device__ inline bool has_column_sum(u32 lane) { return (lane & 4) == 0; }

// Half of a block's warps wait for each other.
__device__ inline void team_barrier(int team) { asm volatile("bar.sync %0, %1;" :: "r"(team + 1), "n"(kSsdThreads / 2) : "memory"); }
