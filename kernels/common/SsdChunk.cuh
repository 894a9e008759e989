// SsdChunk.cuh: a block's chunk in SsdScanBackward.cu: its tiles and sums, and what follows from them for dx and ddt.
#pragma once
#include "common/Ssd.cuh"

template <typename T>
struct SsdChunkArgs                                           // mirrored in CudaSsdScan.cs, field for field
{
    const T* dy; const Border<T>* states;
    T* dx; T* ddt; f32* sums;
    SsdShape<T> shape;
    i64 dxStep, ddtStep;                                      // elements from a step of dx and of ddt to the next
    i32 shares, headsOfShare, sumsOfHead, isDyWide;
};

// Partial sums that warps leave for others.
struct SsdSums
{
    f32 row[4][2][kSteps];                                    // by half of the columns, along rows: R; d(Δx)·x; w, what exp(s_i)·S_0 gives to the exponents; u, what exp(s_Q − s_j)·dS_Q gives
    f32 column[kSubtiles][kSide];                             // by 16 rows: sums down columns
    f32 pairs[kSubtiles][kSubtile][kSubtile + 1];             // R within sub-tiles on the diagonal
    f32 skips[kSubtiles][kSide];                              // by 16 rows: dy·x down columns
    f32 skip[kSide];                                          // D of a piece
    f32 warp[4][kSsdThreads / kWarp];                         // dS_Q·S_0; of dA; of dBias; dy·x
};

// A chunk, and some heads of a group of it: in shared memory, because registers are short.
struct SsdPlace
{
    i64 number, first;                                        // of the chunk in its sequence, and its first step
    int row, chunk, border;                                   // border: the last one before the chunk, −1 where the state is zero; both are fewer than 2³¹
    int group, share, firstHead, heads, steps;
    u32 ticket;
    bool isBetween;                                           // the state before the chunk is not kept: it follows from that before the chunk before

    // The heads of a share of those of a group.
    template <typename T>
    __device__ inline void own(const SsdChunkArgs<T>& args, u32 ticket)
    {
        this->ticket = ticket;
        group = ticket / args.shares % args.shape.G;
        share = ticket % args.shares;
        const int headsOfGroup = args.shape.H / args.shape.G, before = share * args.headsOfShare;
        firstHead = group * headsOfGroup + before;
        heads = min(args.headsOfShare, headsOfGroup - before);
    }

    // The chunk of this number of a sequence.
    template <typename T>
    __device__ inline void enter(const SsdShape<T>& shape, const SsdSequence& sequence, i64 number, bool hasInitial)
    {
        this->number = number;
        row = (int)sequence.row;
        chunk = (int)(sequence.firstChunk + number);
        border = number < kChunksOfBorder && !hasInitial ? -1 : (int)(sequence.firstBorder + number / kChunksOfBorder);
        isBetween = number % kChunksOfBorder != 0;
        first = sequence.begin + number * shape.Q;
        steps = (int)min((i64)shape.Q, sequence.end - first);
    }
};

template <typename T>
struct SsdChunkBlock
{
    using E = Border<T>;
    using Sums = f32[J][4];                                   // 16 rows by 32 of steps or states
    using Piece = f32[kPieceParts<T>][4];                     // 16 rows by half of a piece

    const SsdChunkArgs<T>& args;
    const SsdShape<T>& shape;
    SsdDecays& sDecays;
    SsdSums& sSums;
    E* sTiles;
    const i64& first;
    const int& row; const int& chunk; const int& border; const int& group; const int& share; const int& firstHead; const int& heads; const int& steps;
    int warp, m, c0;

    __device__ inline SsdChunkBlock(const SsdChunkArgs<T>& args, SsdDecays& sDecays, SsdSums& sSums, SsdPlace& sPlace, u8* sMemory)
        : args(args), shape(args.shape), sDecays(sDecays), sSums(sSums), sTiles(reinterpret_cast<E*>(sMemory)), first(sPlace.first), row(sPlace.row), chunk(sPlace.chunk), border(sPlace.border),
          group(sPlace.group), share(sPlace.share), firstHead(sPlace.firstHead), heads(sPlace.heads), steps(sPlace.steps)
    {
        find_warp();
    }

    // This warp's part of the tiles, anew: what follows from it is not kept in registers from further up.
    __device__ inline void find_warp()
    {
        warp = thread_anew() / kWarp;
        m = warp / 2 * 16;
        c0 = warp % 2 * 32;
    }

    // This warp's first channel of a piece.
    __device__ inline int p0() const { return c0 * kPiece<T> / kSide; }

    // Of a piece.
    __device__ inline E* tile(int i) const { return sTiles + i * kPieceElements<T>; }

    __device__ inline void load_dy(E* sTile, int head, int channel) const
    {
        load_tile<kPiece<T>>(sTile, args.dy + shape.dense(row, first, head) + channel, (i64)shape.H * shape.P, steps, min(kPiece<T>, shape.P - channel), args.isDyWide);
    }
    __device__ inline void load_x(E* sTile, int head, int channel, i64 first, int steps) const
    {
        load_tile<kPiece<T>>(sTile, shape.x_at(row, first, head) + channel, shape.xStep, steps, min(kPiece<T>, shape.P - channel), shape.isXWide);
    }
    template <int Rows = kSteps>
    __device__ inline void load_b(E* sTile, int n, i64 first, int steps) const
    {
        load_tile<kSide, Rows>(sTile, shape.b_at(row, first, group) + n, shape.bStep, steps, min(kSide, shape.N - n), shape.isBcWide);
    }
    __device__ inline void load_c(E* sTile, int n) const { load_tile<kSide>(sTile, shape.c_at(row, first, group) + n, shape.cStep, steps, min(kSide, shape.N - n), shape.isBcWide); }

    // Rows n … of a piece of a state at the border.
    __device__ inline void load_state(E* sTile, int head, int n, int channel) const
    {
        const int rows = border < 0 ? 0 : min(kSide, shape.N - n);
        load_tile<kPiece<T>>(sTile, args.states + shape.border(max(border, 0), head) + (i64)n * shape.P + channel, shape.P, rows, min(kPiece<T>, shape.P - channel), shape.isStateWide);
    }

    // isMore: to those that were there.
    __device__ inline void put_row_sums(int matrix, const f32 (&x)[2], bool isMore = false)
    {
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const f32 sum = row_sum(x[r]);
            f32& own = sSums.row[matrix][warp % 2][m + fragment_row(2 * r)];
            if (threadIdx.x % 4 == 0) own = isMore ? own + sum : sum;
        }
    }
    __device__ inline void put_warp_sum(int which, f32 x, bool isMore = false)
    {
        x = warp_sum(x);
        if (threadIdx.x % kWarp == 0) sSums.warp[which][warp] = isMore ? sSums.warp[which][warp] + x : x;
    }
    __device__ inline f32 warp_sums(int which) const
    {
        f32 sum = 0;
        #pragma unroll
        for (int w = 0; w < kSsdThreads / kWarp; w++) sum += sSums.warp[which][w];
        return sum;
    }

    // What the channels of a piece give to d(C·Bᵀ), R and its sums, those along rows to `rows`; C·Bᵀ with its decay into a tile too. isMore: adds to what other channels gave.
    __device__ inline void pairs(const Sums& products, const Sums& inner, Sums& dproducts, E* to, f32 (&rows)[2], bool isMore)
    {
        #pragma unroll
        for (int j = 0; j < J; j++)
        {
            f32 down[2] = {};
            const int J0 = (c0 + 8 * j) / kSubtile;
            f32 decayed[4];
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int i = m + fragment_row(part), k = c0 + 8 * j + fragment_column(part);
                const f32 decay = sDecays.decay(i, k), weighted = inner[j][part] * (decay * sDecays.delta[k]);
                decayed[part] = products[j][part] * decay;
                dproducts[j][part] += weighted;
                const f32 pair = weighted * products[j][part];
                if (J0 == m / kSubtile)
                {
                    f32& own = sSums.pairs[J0][i % kSubtile][k % kSubtile];
                    own = (isMore ? own : 0.0f) + (k < i ? pair : 0.0f);
                }
                else if (J0 < m / kSubtile)
                {
                    rows[part / 2] += pair;
                    down[part % 2] += pair;
                }
            }
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_pair(to + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v), decayed[v], decayed[v + 1]);
            #pragma unroll
            for (int v = 0; v < 2; v++)
            {
                const f32 sum = column_sum(down[v]);
                f32& own = sSums.column[m / kSubtile][c0 + 8 * j + fragment_column(v)];
                if (threadIdx.x % kWarp < 4) own = (isMore ? own : 0.0f) + sum;
            }
        }
    }

    __device__ inline void load_skip(int head, int channel) const
    {
        if (threadIdx.x >= kPiece<T>) return;
        const int p = channel + threadIdx.x;
        sSums.skip[threadIdx.x] = shape.D && p < shape.P ? shape.D[shape.isSkipPerChannel ? head * shape.P + p : head] : 0.0f;
    }

    // From what the state gives to d(Δx) of a piece, times exp(s_Q − s_j): all of it, and dx. Tiles: 0 dy, 1 x; sPairs is C·Bᵀ with its decay.
    __device__ inline void finish_channels(int head, int channel, Piece& d, const E* sPairs, f32 (&direct)[2], f32& skip)
    {
        const int columns = round_up(min(kPiece<T>, shape.P - channel), 16) - p0();
        multiply<true, true>(d, sPairs + m * kPitch<T> + m, kPitch<T>, tile(0) + m * kPiecePitch<T> + p0(), kPiecePitch<T>, kSteps - m, columns);
        #pragma unroll
        for (int j = 0; j < kPieceParts<T>; j++)
        {
            f32 down[2] = {};
            const int c = p0() + 8 * j + fragment_column(0);
            #pragma unroll
            for (int r = 0; r < 2 && 8 * j < columns; r++)
            {
                const int i = m + fragment_row(2 * r);
                const f32 delta = sDecays.delta[i];
                f32 x[2], dy[2], dx[2];
                load<2>(x, tile(1) + i * kPiecePitch<T> + c);
                load<2>(dy, tile(0) + i * kPiecePitch<T> + c);
                #pragma unroll
                for (int v = 0; v < 2; v++)
                {
                    direct[r] = fmaf(d[j][2 * r + v], x[v], direct[r]);
                    down[v] = fmaf(dy[v], x[v], down[v]);
                    dx[v] = fmaf(sSums.skip[c + v], dy[v], delta * d[j][2 * r + v]);
                }
                stash<2>(tile(1) + i * kPiecePitch<T> + c, dx);                            // in the place of x, which this thread alone reads
            }
            skip += down[0] + down[1];
            #pragma unroll
            for (int v = 0; v < 2; v++)
            {
                const f32 sum = column_sum(down[v]);
                if (threadIdx.x % kWarp < 4) sSums.skips[m / kSubtile][c + v] = sum;
            }
        }
        __syncthreads();                                      // dx is there, and the sums of dy·x by channel
        if (args.isDyWide) store_dx<16 / sizeof(T)>(head, channel);
        else store_dx<1>(head, channel);
        const int c = threadIdx.x;
        if (shape.D && shape.isSkipPerChannel && c < kPiece<T> && channel + c < shape.P)
            sums_of(head)[2 + channel + c] = sSums.skips[0][c] + sSums.skips[1][c] + sSums.skips[2][c] + sSums.skips[3][c];
    }

    template <int V>
    __device__ inline void store_dx(int head, int channel) const
    {
        #pragma unroll 1
        for (int k = threadIdx.x; k < kSteps * kPiece<T> / V; k += kSsdThreads)
        {
            const int i = k / (kPiece<T> / V), p = k % (kPiece<T> / V) * V;
            if (i >= steps || channel + p >= shape.P) continue;
            f32 dx[V];
            load<V>(dx, tile(1) + i * kPiecePitch<T> + p);
            store<V>(args.dx + (row * shape.L + first + i) * args.dxStep + head * shape.P + channel + p, dx);
        }
    }

    __device__ inline f32* sums_of(int head) const { return args.sums + ((i64)chunk * shape.H + head) * args.sumsOfHead; }

    // Both halves of a sum along a row.
    __device__ inline f32 row_sum_of(int matrix, int i) const { return sSums.row[matrix][0][i] + sSums.row[matrix][1][i]; }

    // The gradient of each exponent Δ_k·A, and from it ddt and the sums for A and the bias. Four neighbouring threads share a step k.
    __device__ inline void exponents(int head)
    {
        const int k = threadIdx.x / 4, part = threadIdx.x % 4, K = k / kSubtile;
        f32 sum = 0;
        for (int j = part; j < k; j += 4)
        {
            sum += row_sum_of(3, j);
            for (int I = K + 1; I < kSubtiles; I++) sum += sSums.column[I][j];             // from sub-tiles below, of steps before k
        }
        for (int i = k + part; i < kSteps; i += 4) sum += row_sum_of(2, i);
        for (int i = k + part; i < (K + 1) * kSubtile; i += 4)
        {
            sum += row_sum_of(0, i);
            for (int j = 0; j < k % kSubtile; j++) sum += sSums.pairs[K][i % kSubtile][j];
        }
        sum = fmaf(sDecays.total, warp_sums(0), row_sum(sum));
        const f32 delta = sDecays.delta[k], raw = sDecays.raw[k];
        f32 dDelta = fmaf(sum, sDecays.rate, row_sum_of(1, k));
        const f32 unlimited = shape.hasSoftplus ? softplus(raw) : raw;
        if (unlimited < shape.minDelta || unlimited > shape.maxDelta) dDelta = 0;
        if (shape.hasSoftplus) dDelta *= sigmoid(raw);
        const bool isMine = part == 0 && k < steps;
        if (isMine) args.ddt[(row * shape.L + first + k) * args.ddtStep + head] = from_f32<T>(dDelta);
        put_warp_sum(1, isMine ? sum * delta : 0.0f);
        put_warp_sum(2, isMine ? dDelta : 0.0f);
        __syncthreads();                                      // the sums of all warps are there
        if (threadIdx.x != 0) return;
        f32* sums = sums_of(head);
        sums[0] = warp_sums(1);
        sums[1] = warp_sums(2);
        if (shape.D && !shape.isSkipPerChannel) sums[2] = warp_sums(3);
    }
};
