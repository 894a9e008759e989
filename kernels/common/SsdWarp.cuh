// SsdWarp.cuh: a warp's part of a state-space dual scan on the tensor cores. A warp owns 16·Parts channels p of a head and all its states n: S [p, n] stands in registers as sums of 16 × 8, and
// two of them beside each other, rounded, are the left side of a product as they are. So the state is never copied, and each fragment from shared memory serves all of a warp's 16 rows.
#pragma once
#include "common/Ssd.cuh"

// The left side [16, 16] that two sums [16, 8] are, rounded.
template <typename T>
__device__ inline void left_of(u32 (&left)[4], const f32 (&a)[4], const f32 (&b)[4])
{
    left[0] = pair_of<T>(a[0], a[1]);
    left[1] = pair_of<T>(a[2], a[3]);
    left[2] = pair_of<T>(b[0], b[1]);
    left[3] = pair_of<T>(b[2], b[3]);
}

// A left side with each column times a factor, rounded again.
template <typename T>
__device__ inline void scale_left(u32 (&to)[4], const u32 (&left)[4], const f32* factors, int lane)
{
    #pragma unroll
    for (int half = 0; half < 2; half++)
    {
        f32 factor[2];
        load<2>(factor, factors + 8 * half + lane % 4 * 2);
        #pragma unroll
        for (int v = 2 * half; v < 2 * half + 2; v++) to[v] = pair_of<T>(low_of<T>(left[v]) * factor[0], high_of<T>(left[v]) * factor[1]);
    }
}

// A tile of kSteps rows of Width channels that one warp fills and reads: the 16-byte chunks of rows are exchanged, so that eight rows lie in different banks.
template <typename T, int Width>
struct SsdRows
{
    static constexpr int kChunks = Width / 8;
    static_assert(kChunks == 2 || kChunks == 4, "rows of 32 or 64 bytes");

    T* rows;

    __device__ static inline int chunk(int row, int chunk) { return row * kChunks + (kChunks == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row >> 2 & 1)); }
    __device__ inline T* at(int row, int column) const { return rows + chunk(row, column / 8) * 8 + column % 8; }

    // The left side [16 channels from 16·part on, 16 rows from 16·k on].
    __device__ inline void load_left(u32 (&left)[4], int part, int k, int lane) const
    {
        load_matrices_transposed(left, shared_address(rows + chunk(lane % 8 + lane / 16 * 8, 2 * part + lane / 8 % 2) * 8) + k * 16 * Width * (int)sizeof(T));
    }

    // Starts copying rows, `stride` elements apart from `from` on, of which `steps` exist, with `columns` channels; the rest becomes 0.
    __device__ inline void copy(const T* from, i64 stride, int steps, int columns, bool isWide) const
    {
        const int lane = thread_again() % kWarp;
        if (isWide)
        {
            constexpr int kPass = kWarp / kChunks;            // rows
            const int c = lane % kChunks * 8, bytes = max(0, min(8, columns - c)) * (int)sizeof(T);
            from += lane / kChunks * stride + c;
            u32 to = shared_address(at(lane / kChunks, c));
            #pragma unroll
            for (int r = 0; r < kSteps; r += kPass, from += kPass * stride, to += kPass * Width * sizeof(T)) copy_async(to, from, r + lane / kChunks < steps ? bytes : 0);
            return;
        }
        #pragma unroll 1
        for (int k = lane; k < kSteps * Width; k += kWarp)
        {
            const int r = k / Width, c = k % Width;
            *at(r, c) = r < steps && c < columns ? from[r * stride + c] : T{};
        }
    }

    // To rows, `stride` elements apart, of which `steps` exist, with `columns` channels.
    __device__ inline void store(T* to, i64 stride, int steps, int columns, bool isWide) const
    {
        const int lane = thread_again() % kWarp, c = lane % kChunks * 8;
        #pragma unroll 1
        for (int r = lane / kChunks; r < steps; r += kWarp / kChunks)
        {
            if (c >= columns) continue;
            if (isWide)
            {
                f32 eight[8];
                load<8>(eight, at(r, c));
                ::store<8>(to + r * stride + c, eight);
            }
            else
                #pragma unroll
                for (int k = 0; k < 8; k++) if (c + k < columns) to[r * stride + c + k] = at(r, c)[k];
        }
    }
};

// Of a chunk of a head: exp(s_i − s_j)·Δ_j of pairs within the sub-tiles on the diagonal, each as the lanes take a right side.
struct alignas(16) SsdNear
{
    f32 pairs[kSubtiles][2][kWarp][4];                        // by half of the rows; a lane's pairs of the first and of the last eight steps

    // A warp makes a sub-tile. Lanes that hold nothing of it ask for no exponential.
    __device__ inline void fill(const SsdDecays& decays, int subtile)
    {
        const int lane = thread_again() % kWarp, i = subtile * kSubtile + lane / 4, j = subtile * kSubtile + lane % 4 * 2;
        f32 near[2][4] = {}, high[2][2], low[2][2], delta[2][2];
        #pragma unroll
        for (int half = 0; half < 2; half++)
        {
            load<2>(high[half], decays.high + j + 8 * half);
            load<2>(low[half], decays.low + j + 8 * half);
            load<2>(delta[half], decays.delta + j + 8 * half);
        }
        // The hardware's power of two: what a product takes of it is rounded to fewer digits than it has.
        const auto decay = [&](int half, int v) { return power_of_two(kLog2E * ((decays.high[i + 8 * half] - high[v / 2][v % 2]) + (decays.low[i + 8 * half] - low[v / 2][v % 2]))) * delta[v / 2][v % 2]; };
        #pragma unroll
        for (int v = 0; v < 2; v++)
        {
            near[1][v] = decay(1, v);
            if (j + v > i) continue;
            near[0][v] = decay(0, v);
            near[1][2 + v] = decay(1, 2 + v);
        }
        #pragma unroll
        for (int half = 0; half < 2; half++) stash<4>(pairs[subtile][half][lane], near[half]);
    }
};

// C·Bᵀ [kSteps, kSteps] of a chunk on and below the diagonal, in sub-tiles, each as the lanes take a right side: four pairs of a lane, by half of the rows, then of the columns.
struct alignas(16) SsdPairs
{
    f32 pairs[kSubtiles * (kSubtiles + 1) / 2][4][kWarp][2];

    __device__ static inline int subtile(int I, int J) { return I * (I + 1) / 2 + J; }

    // Where lane `of` has its pairs: those of the upper half of the lanes are exchanged, so that columns that a warp makes at a time lie in different banks.
    __device__ static inline int place(int of) { return of ^ (of >> 2 & 4); }

    // Rows j of B·Cᵀ, the sub-tile J of a warp, by 8 columns i: the other way round. `to` are the places of its even and odd columns in the first sub-tile.
    __device__ inline void find(f32* (&to)[2], int lane)
    {
        const int first = place(lane % 4 * 8 + lane / 8);
        to[0] = &pairs[0][0][first][lane / 4 % 2];
        to[1] = &pairs[0][0][first ^ 4][lane / 4 % 2];
    }
    __device__ static inline void put(f32* const (&to)[2], int J, int eight, const f32 (&x)[4])
    {
        #pragma unroll
        for (int v = 0; v < 4; v++) to[v % 2][((subtile(eight / 2, J) * 2 + eight % 2) * 2 + v / 2) * kWarp * 2] = x[v];
    }
};

// Each column of sums times a factor.
__device__ inline void scale_columns(f32 (&sum)[4], const f32 (&factor)[2])
{
    #pragma unroll
    for (int v = 0; v < 4; v++) sum[v] *= factor[v % 2];
}

// Sums [16·Parts, 16], as two times 16 × 8, go to rows of shared memory the other way round: 16 rows of 16·Parts floats.
template <int Parts>
struct SsdTurn
{
    static constexpr int kPitch = 16 * Parts + 4;             // columns that a warp has at a time lie in different banks

    f32 rows[16][kPitch];

    __device__ inline void put(int part, int half, const f32 (&x)[4])
    {
        f32* to = &rows[fragment_column(0)][fragment_row(0)] + 8 * half * kPitch + 16 * part;
        #pragma unroll
        for (int v = 0; v < 4; v++) to[v % 2 * kPitch + v / 2 * 8] = x[v];
    }
};

// 16 states of 16·Parts channels, rounded, in shared memory on their way to rows of channels: words of two states of a channel, their 16-byte chunks exchanged so that columns that a warp writes
// at a time, and chunks that eight lanes read, lie in different banks.
template <int Parts>
struct alignas(128) SsdStateRows
{
    static constexpr int kRow = 64 * Parts;                   // bytes

    u32 words[8][16 * Parts];

    // What is exchanged in the row of a pair of states.
    __device__ static inline u32 exchange(int pair) { return ((Parts == 2 ? pair : pair >> 1) * 2 & 4 * Parts - 2 ^ pair >> 2) * 16; }

    // Of a state [16·Parts, 8·Eights], in the registers of a warp, N states to rows `stride` elements apart, with `channels` channels.
    template <typename T, int Eights>
    __device__ inline void store(const f32 (&state)[Parts][Eights][4], T* to, int stride, int N, int channels, bool isWide)
    {
        const int lane = thread_again() % kWarp, p = lane % (2 * Parts) * 8, pair = Parts == 2 ? lane / 8 + (lane & 4) : lane / 2 % 2 + (lane & 4) + lane / 8 * 2, first = pair % 4 * 2 + pair / 4 * 8;
        const u32 own = shared_address(words[lane % 4]) + (lane / 16 * 16 ^ exchange(lane % 4)) + lane / 4 % 4 * 4;
        const u32* from = &words[pair][0];
        const int chunk = (p / 4 ^ exchange(pair) / 16) * 4;
        to += (i64)first * stride + p;
        #pragma unroll
        for (int e = 0; e < Eights; e += 2, to += (i64)16 * stride)
        {
            if (8 * e >= N) break;
            if (e > 0) __syncwarp();                          // the states before have been read
            #pragma unroll
            for (int part = 0; part < Parts; part++)
                #pragma unroll
                for (int half = 0; half < 2; half++)
                    #pragma unroll
                    for (int r = 0; r < 2; r++) store_shared((own ^ (4 * part + 2 * r + half) * 16) + half * 4 * kRow, pair_of<T>(state[part][e + half][2 * r], state[part][e + half][2 * r + 1]));
            __syncwarp();                                     // the states are there
            if (lane < 16 * Parts && p < channels)
            {
                const Pack<u32, 4> a = load_pack<4>(from + chunk), b = load_pack<4>(from + (chunk ^ 4));
                #pragma unroll
                for (int r = 0; r < 2; r++)
                {
                    if (8 * e + first + r >= N) break;
                    const u32 row[4] = { __byte_perm(a.at[0], a.at[1], r == 0 ? 0x5410 : 0x7632), __byte_perm(a.at[2], a.at[3], r == 0 ? 0x5410 : 0x7632), __byte_perm(b.at[0], b.at[1], r == 0 ? 0x5410 : 0x7632), __byte_perm(b.at[2], b.at[3], r == 0 ? 0x5410 : 0x7632) };
                    if (isWide) store_words(to + r * stride, row);
                    else
                        #pragma unroll
                        for (int k = 0; k < 8; k++) if (p + k < channels) to[r * stride + k] = of_bits<T>(row[k / 2] >> k % 2 * 16);
                }
            }
        }
    }
};

// A team of Threads starts copying kSteps rows, `stride` elements apart from `from` on, of which `steps` exist, with `columns` columns, to rows of Width columns with room behind them. What does
// not exist becomes 0, but for columns behind the next multiple of 16, which stay.
template <int Width, int Threads, typename T>
__device__ inline void copy_rows(T* sTile, const T* from, i64 stride, int steps, int columns, bool isWide)
{
    constexpr int kPitch = Width + kRowPad<T>, kChunks = Width / 8, kPass = Threads / kChunks;
    if (!isWide)
    {
        load_tile<Width, kSteps, Threads>(sTile, from, stride, steps, columns, false);
        return;
    }
    const int thread = thread_again(), r0 = thread / kChunks, c = thread % kChunks * 8, bytes = max(0, min(8, columns - c)) * (int)sizeof(T);
    if (c >= round_up(columns, 16)) return;
    from += r0 * stride + c;
    u32 to = shared_address(sTile + r0 * kPitch + c);
    #pragma unroll
    for (int r = 0; r < kSteps; r += kPass, from += kPass * stride, to += kPass * kPitch * sizeof(T)) copy_async(to, from, r + r0 < steps ? bytes : 0);
}
