// SsdChunk.cuh: a block's chunk in SsdScanBackward.cu: its tiles and sums, and what follows from them for dx and ddt.
#pragma once
#include "common/SsdProducts.cuh"

template <typename T>
struct SsdChunkArgs                                           // mirrored in CudaSsdScan.cs, field for field
{
    const T* dy; const Border<T>* states;
    T* dx; T* ddt; f32* sums;
    SsdShape<T> shape;
    i64 dxStep, ddtStep;                                      // elements from a step of dx and of ddt to the next
    i32 shares, headsOfShare, sumsOfHead, isDyWide;
};

// Partial sums that warps leave for others. R is (C·Bᵀ)·decay·Δ·(dy·x), by rows i and columns j.
struct SsdSums
{
    f32 row[3][2][kSteps];                                    // by half of the columns, along rows: R left of the diagonal's sub-tiles; d(Δx)·x of what a state gives; w, what C meets in dC
    f32 column[kSubtiles][kSide];                             // by 16 rows, down columns: R without Δ
    f32 within[kSide];                                        // R of sub-tiles on the diagonal, of the pairs that a step stands between
    f32 skips[kSubtiles][kSide];                              // by 16 rows: dy·x down columns
    f32 skip[kSide];                                          // D of a piece
    f32 warp[4][kSsdThreads / kWarp / 2];                     // of a team's warps: dS_Q·S_0; of dA; of dBias; dy·x
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

// The block's warps are two teams of four: the first has dS and dC, the second d(Δx) and dB. A warp has 32 rows by half of the columns of its team's tiles, and of those of both teams 16 rows.
template <typename T>
struct SsdChunkBlock
{
    using E = Border<T>;
    using Sums = f32[1][J][4];                                // 16 rows by 32 of steps or states
    using TeamSums = f32[2][J][4];                            // 32 rows by as many
    using TeamPiece = f32[2][kPieceParts<T>][4];              // 32 rows by half of a piece

    const SsdChunkArgs<T>& args;
    const SsdShape<T>& shape;
    SsdDecays& sDecays;
    SsdSums& sSums;
    E* sTiles;
    const i64& first;
    const int& row; const int& chunk; const int& border; const int& group; const int& share; const int& firstHead; const int& heads; const int& steps;
    int warp, m, m2, c0;

    __device__ inline SsdChunkBlock(const SsdChunkArgs<T>& args, SsdDecays& sDecays, SsdSums& sSums, SsdPlace& sPlace, u8* sMemory)
        : args(args), shape(args.shape), sDecays(sDecays), sSums(sSums), sTiles(reinterpret_cast<E*>(sMemory)), first(sPlace.first), row(sPlace.row), chunk(sPlace.chunk), border(sPlace.border),
          group(sPlace.group), share(sPlace.share), firstHead(sPlace.firstHead), heads(sPlace.heads), steps(sPlace.steps)
    {
        find_warp();
    }

    // This warp's part of the tiles, anew: what follows from it is not kept in registers from further up.
    __device__ inline void find_warp()
    {
        warp = thread_again() / kWarp;
        m = warp / 2 * 16;
        m2 = warp % 4 / 2 * 32;
        c0 = warp % 2 * 32;
    }

    __device__ inline bool is_second() const { return warp >= kSsdThreads / kWarp / 2; }

    // This warp's first channel of a piece.
    __device__ inline int p0() const { return c0 * kPiece<T> / kSide; }

    // Of a piece.
    __device__ inline E* tile(int i) const { return sTiles + i * kPieceElements<T>; }

    __device__ inline void load_dy(E* sTile, int head, int channel) const
    {
        load_rows<kPiece<T>, kSteps>(sTile, args.dy + shape.dense(row, first, head) + channel, (i64)shape.H * shape.P, steps, min(kPiece<T>, shape.P - channel), args.isDyWide);
    }
    __device__ inline void load_x(E* sTile, int head, int channel, i64 first, int steps) const
    {
        load_rows<kPiece<T>, kSteps>(sTile, shape.x_at(row, first, head) + channel, shape.xStep, steps, min(kPiece<T>, shape.P - channel), shape.isXWide);
    }
    template <int Rows = kSteps>
    __device__ inline void load_b(E* sTile, int n, i64 first, int steps) const
    {
        load_rows<kSide, Rows>(sTile, shape.b_at(row, first, group) + n, shape.bStep, steps, min(kSide, shape.N - n), shape.isBcWide);
    }
    __device__ inline void load_c(E* sTile, int n) const { load_rows<kSide, kSteps>(sTile, shape.c_at(row, first, group) + n, shape.cStep, steps, min(kSide, shape.N - n), shape.isBcWide); }

    // Rows n … of a piece of a state at the border.
    __device__ inline void load_state(E* sTile, int head, int n, int channel) const
    {
        const int rows = border < 0 ? 0 : min(kSide, shape.N - n);
        load_rows<kPiece<T>, kSide>(sTile, args.states + shape.border(max(border, 0), head) + (i64)n * shape.P + channel, shape.P, rows, min(kPiece<T>, shape.P - channel), shape.isStateWide);
    }

    // Of rows from `from` on. isMore: to those that were there.
    __device__ inline void put_row_sums(int matrix, int from, const f32 (&x)[2], bool isMore)
    {
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const f32 sum = row_sum(x[r]);
            f32& own = sSums.row[matrix][warp % 2][from + fragment_row(2 * r)];
            if (threadIdx.x % 4 == 0) own = isMore ? own + sum : sum;
        }
    }
    __device__ inline void put_warp_sum(int which, int place, f32 x, bool isMore)
    {
        x = warp_sum(x);
        f32& own = sSums.warp[which][place];
        if (threadIdx.x % kWarp == 0) own = isMore ? own + x : x;
    }
    __device__ inline f32 warp_sums(int which) const
    {
        f32 sum = 0;
        #pragma unroll
        for (int w = 0; w < kSsdThreads / kWarp / 2; w++) sum += sSums.warp[which][w];
        return sum;
    }

    // What the channels of a piece give to d(C·Bᵀ), R and its sums, of Columns of the warp's from First on; C·Bᵀ with its decay into a tile too. None of it where sub-tiles are right of the
    // diagonal. isMore: adds to what other channels gave. Tiles: 0 dy, 1 x.
    template <int First, int Columns>
    __device__ inline void pairs(const Sums& products, Sums& dproducts, E* to, int depth, bool isMore)
    {
        f32 inner[1][Columns / 8][4] = {};                    // dy_i·x_j
        if (m + 16 > c0 + First)
            multiply_rows<false, false, false, kPiecePitch<T>, kPiecePitch<T>>(inner, tile(0) + m * kPiecePitch<T>, tile(1) + (c0 + First) * kPiecePitch<T>, 16, depth, m + 16 - c0 - First);
        const int I = m / kSubtile, lane = thread_again() % kWarp, i = m + lane / 4;
        const f32 rowFactor[2] = { sDecays.rowFactor[i], sDecays.rowFactor[i + 8] };
        to += i * kPitch<T>;
        f32 along[2] = {};
        #pragma unroll
        for (int b = First / 16; b < (First + Columns) / 16; b++)
        {
            const int at = b - First / 16, K = c0 / kSubtile + b, k = c0 + 16 * b + lane % 4 * 2;
            if (K > I) break;
            const f32 between = K < I ? sDecays.between[I * kSubtiles + K] : 0.0f;
            f32 down[4] = {}, pair[2][4];
            #pragma unroll
            for (int j = 0; j < 2; j++)
            {
                f32 decay[4], delta[2], decayed[4];
                if (K < I)
                {
                    f32 column[2];
                    load<2>(column, sDecays.columnFactor + k + 8 * j);
                    #pragma unroll
                    for (int part = 0; part < 4; part++) decay[part] = rowFactor[part / 2] * between * column[part % 2];
                }
                else
                {
                    f32 high[2], low[2];
                    load<2>(high, sDecays.high + k + 8 * j);
                    load<2>(low, sDecays.low + k + 8 * j);
                    #pragma unroll
                    for (int part = 0; part < 4; part++)
                    {
                        const int own = i + part / 2 * 8, v = part % 2;
                        decay[part] = k + 8 * j + v <= own ? expf((sDecays.high[own] - high[v]) + (sDecays.low[own] - low[v])) : 0.0f;
                    }
                }
                load<2>(delta, sDecays.delta + k + 8 * j);
                #pragma unroll
                for (int part = 0; part < 4; part++)
                {
                    const f32 product = products[0][2 * b + j][part], weighted = inner[0][2 * at + j][part] * decay[part], whole = weighted * product;
                    f32& own = dproducts[0][2 * b + j][part];
                    own = fmaf(weighted, delta[part % 2], own);
                    decayed[part] = product * decay[part];
                    down[2 * j + part % 2] += whole;
                    pair[j][part] = whole * delta[part % 2];
                }
                put_two(to + k + 8 * j, decayed[0], decayed[1]);
                put_two(to + 8 * kPitch<T> + k + 8 * j, decayed[2], decayed[3]);
            }
            if (K < I)
                #pragma unroll
                for (int part = 0; part < 4; part++) along[part / 2] += pair[0][part] + pair[1][part];
            else diagonal(I, pair, inner[0][2 * at], inner[0][2 * at + 1], isMore);
            const f32 sum = column_sums(down);
            f32& own = sSums.column[I][c0 + 16 * b + summed_column()];
            if (has_column_sum()) own = isMore ? own + sum : sum;
        }
        put_row_sums(0, m, along, isMore || First > 0);
    }

    // Of a sub-tile of R on the diagonal what steps stand between, Σ_{j<k≤i} R_ij, and what dy_i·x_i add up to.
    __device__ inline void diagonal(int I, const f32 (&pair)[2][4], const f32 (&inner0)[4], const f32 (&inner1)[4], bool isMore)
    {
        const int t = threadIdx.x % 4;
        f32 within[4] = {}, skip = 0;
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const int i = fragment_row(2 * r);
            f32 left = 0;                                     // of the row's first half
            #pragma unroll
            for (int j = 0; j < 2; j++)
            {
                const int k = 8 * j + 2 * t;
                const f32 own[2] = { k < i ? pair[j][2 * r] : 0.0f, k + 1 < i ? pair[j][2 * r + 1] : 0.0f };
                f32 sum = own[0] + own[1];
                #pragma unroll
                for (int distance = 1; distance < 4; distance *= 2)
                {
                    const f32 other = __shfl_up_sync(kAllLanes, sum, distance, 4);
                    if (t >= distance) sum += other;
                }
                f32 before = __shfl_up_sync(kAllLanes, sum, 1, 4);
                before = left + (t > 0 ? before : 0.0f);
                if (j == 0) left = __shfl_sync(kAllLanes, sum, 3, 4);
                within[2 * j] += k <= i ? before : 0.0f;
                within[2 * j + 1] += k + 1 <= i ? before + own[0] : 0.0f;
                #pragma unroll
                for (int v = 0; v < 2; v++) skip += k + v == i ? (j == 0 ? inner0 : inner1)[2 * r + v] : 0.0f;
            }
        }
        const f32 sum = column_sums(within);
        f32& own = sSums.within[I * kSubtile + summed_column()];
        if (has_column_sum()) own = isMore ? own + sum : sum;
        if (shape.D && !shape.isSkipPerChannel) put_warp_sum(3, I, skip, isMore);
    }

    __device__ inline void load_skip(int head, int channel) const
    {
        if (threadIdx.x >= kPiece<T>) return;
        const int p = channel + threadIdx.x;
        sSums.skip[threadIdx.x] = shape.D && p < shape.P ? shape.D[shape.isSkipPerChannel ? head * shape.P + p : head] : 0.0f;
    }

    // What d(Δx) of a piece, as far as the state gives it, has in common with x, times exp(s_Q − s_j). The second team's, as what follows.
    __device__ inline void meet_channels(TeamPiece& d, int columns, bool isMore)
    {
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const int i = m2 + 16 * r + fragment_row(0);
            const f32 toEnd[2] = { sDecays.toEnd[i], sDecays.toEnd[i + 8] };
            f32 sums[2] = {};
            #pragma unroll
            for (int j = 0; j < kPieceParts<T>; j += 2)
            {
                if (8 * j >= columns) break;
                f32 x[2][4];
                load_square<kPiecePitch<T>>(x, tile(1) + (m2 + 16 * r) * kPiecePitch<T> + p0() + 8 * j);
                #pragma unroll
                for (int part = 0; part < 8; part++)
                {
                    f32& own = d[r][j + part / 4][part % 4];
                    own *= toEnd[part % 4 / 2];
                    sums[part % 4 / 2] = fmaf(own, x[part / 4][part % 4], sums[part % 4 / 2]);
                }
            }
            put_row_sums(1, m2 + 16 * r, sums, isMore);
        }
    }

    // All of d(Δx) of a piece, and dx. Tiles: 0 dy, 1 x; sPairs is C·Bᵀ with its decay.
    __device__ inline void finish_channels(int head, int channel, TeamPiece& d, const E* sPairs, int columns)
    {
        multiply_rows<true, true, false, kPitch<T>, kPiecePitch<T>, kUpperTriangle>(d, sPairs + m2 * kPitch<T> + m2, tile(0) + m2 * kPiecePitch<T> + p0(), 32, kSteps - m2, columns);
        const bool hasSkips = shape.D && shape.isSkipPerChannel;
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const int i = m2 + 16 * r + fragment_row(0);
            const f32 delta[2] = { sDecays.delta[i], sDecays.delta[i + 8] };
            #pragma unroll
            for (int j = 0; j < kPieceParts<T>; j += 2)
            {
                if (8 * j >= columns) break;
                const int from = (m2 + 16 * r) * kPiecePitch<T> + p0() + 8 * j;
                #pragma unroll
                for (int part = 0; part < 8; part++) d[r][j + part / 4][part % 4] *= delta[part % 4 / 2];
                if (shape.D)
                {
                    f32 dy[2][4];
                    load_square<kPiecePitch<T>>(dy, tile(0) + from);
                    if (hasSkips)
                    {
                        f32 x[2][4], down[4] = {};
                        load_square<kPiecePitch<T>>(x, tile(1) + from);
                        #pragma unroll
                        for (int part = 0; part < 8; part++) down[part / 4 * 2 + part % 2] = fmaf(dy[part / 4][part % 4], x[part / 4][part % 4], down[part / 4 * 2 + part % 2]);
                        const f32 sum = column_sums(down);
                        if (has_column_sum()) sSums.skips[m2 / 16 + r][p0() + 8 * j + summed_column()] = sum;
                    }
                    #pragma unroll
                    for (int k = 0; k < 2; k++)
                    {
                        f32 skip[2];
                        load<2>(skip, sSums.skip + p0() + 8 * (j + k) + fragment_column(0));
                        #pragma unroll
                        for (int part = 0; part < 4; part++) d[r][j + k][part] = fmaf(skip[part % 2], dy[k][part], d[r][j + k][part]);
                    }
                }
            }
        }
        squares_are_read<E>();                                // dx takes the place of x
        put_rows<kPiecePitch<T>>(tile(1) + m2 * kPiecePitch<T> + p0(), d);
        __syncwarp();                                         // the warp's dx is there
        if (args.isDyWide) store_dx<16 / sizeof(T)>(head, channel);
        else store_dx<1>(head, channel);
        if (!hasSkips) return;
        team_barrier(1);                                      // the sums of dy·x by channel are there
        const int c = threadIdx.x - kSsdThreads / 2;
        if (c < kPiece<T> && channel + c < shape.P) sums_of(head)[2 + channel + c] = sSums.skips[0][c] + sSums.skips[1][c] + sSums.skips[2][c] + sSums.skips[3][c];
    }

    // The warp's part.
    template <int V>
    __device__ inline void store_dx(int head, int channel) const
    {
        constexpr int kOfRow = kPiece<T> / 2 / V;
        const int lane = threadIdx.x % kWarp, p = p0() + lane % kOfRow * V;
        if (channel + p >= shape.P) return;
        T* to = args.dx + (row * shape.L + first + m2) * args.dxStep + head * shape.P + channel + p;
        #pragma unroll 1
        for (int i = lane / kOfRow; i < 32 && m2 + i < steps; i += kWarp / kOfRow)
        {
            f32 dx[V];
            load<V>(dx, tile(1) + (m2 + i) * kPiecePitch<T> + p);
            store<V>(to + i * args.dxStep, dx);
        }
    }

    __device__ inline f32* sums_of(int head) const { return args.sums + ((i64)chunk * shape.H + head) * args.sumsOfHead; }

    // Both halves of a sum along a row.
    __device__ inline f32 row_sum_of(int matrix, int i) const { return sSums.row[matrix][0][i] + sSums.row[matrix][1][i]; }

    // d(Δx)_j·x_j of what the state gives and of steps in sub-tiles from I on.
    __device__ inline f32 met(int j, int I) const
    {
        f32 sum = row_sum_of(1, j);
        for (; I < kSubtiles; I++) sum += sSums.column[I][j];
        return sum;
    }

    // The gradient of each exponent Δ_k·A, and from it ddt and the sums for A and the bias: a warp of the first team for each sub-tile K.
    __device__ inline void exponents(int head)
    {
        const int K = warp, from = K * kSubtile, lane = threadIdx.x % kWarp, at = lane % kSubtile, k = from + at;
        f32 outside = 0;
        #pragma unroll
        for (int part = 0; part < kSteps / kWarp; part++)
        {
            const int i = lane + part * kWarp;
            if (i < from) outside = fmaf(sDecays.delta[i], met(i, K + 1), outside);
            else if (i >= from + kSubtile) outside += row_sum_of(2, i);
        }
        outside = warp_sum(outside);
        // Half of the lanes add up what stands before a step, half, from the last on, what stands behind.
        const bool isBehind = lane >= kSubtile;
        const int i = from + (isBehind ? kSubtile - 1 - at : at);
        f32 sum = isBehind ? row_sum_of(2, i) + row_sum_of(0, i) : sDecays.delta[i] * met(i, K + 1);
        #pragma unroll
        for (int distance = 1; distance < kSubtile; distance *= 2)
        {
            const f32 other = __shfl_up_sync(kAllLanes, sum, distance, kSubtile);
            if (at >= distance) sum += other;
        }
        const f32 before = __shfl_sync(kAllLanes, sum, max(at - 1, 0)), behind = __shfl_sync(kAllLanes, sum, kWarp - 1 - at);
        sum = outside + (at > 0 ? before : 0.0f) + behind + sSums.within[k];
        sum = fmaf(sDecays.total, warp_sums(0), sum);
        const f32 delta = sDecays.delta[k], raw = sDecays.raw[k];
        f32 dDelta = fmaf(sum, sDecays.rate, met(k, K));
        const f32 unlimited = shape.hasSoftplus ? softplus(raw) : raw;
        if (unlimited < shape.minDelta || unlimited > shape.maxDelta) dDelta = 0;
        if (shape.hasSoftplus) dDelta *= sigmoid(raw);
        const bool isThere = k < steps;
        if (isThere && !isBehind) args.ddt[(row * shape.L + first + k) * args.ddtStep + head] = from_f32<T>(dDelta);
        f32 own = !isThere ? 0.0f : isBehind ? dDelta : sum * delta;
        #pragma unroll
        for (int distance = kSubtile / 2; distance > 0; distance /= 2) own += __shfl_xor_sync(kAllLanes, own, distance);
        if (at == 0) sSums.warp[isBehind ? 2 : 1][K] = own;
        team_barrier(0);                                      // the sums of all warps are there
        if (threadIdx.x != 0) return;
        f32* sums = sums_of(head);
        sums[0] = warp_sums(1);
        sums[1] = warp_sums(2);
        if (shape.D && !shape.isSkipPerChannel) sums[2] = warp_sums(3);
    }
};
