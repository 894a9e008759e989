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
    f32 left[2][kSteps];                                      // along rows: R left of the diagonal's sub-tiles, by the warps that have them
    f32 given[2][kSteps];                                     // by half of the columns, along rows: d(Δx)·x of what a state gives
    f32 met[kSsdThreads / kWarp / 2][kSteps];                 // by the first team's warps: w, what C meets in dC
    f32 end[kSteps];                                          // Δ_j·exp(s_Q − s_j)
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

// The block's warps are two teams of four: the first has dS and dC, the second dB and dx.
template <typename T>
struct SsdChunkBlock
{
    using E = Border<T>;
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
        const u32 thread = thread_again();
        warp = thread / kWarp;
        m = thread / (2 * kWarp) * 16;
        m2 = thread / 2 & 32;
        c0 = thread & 32;
    }

    __device__ inline bool is_second() const { return warp >= kSsdThreads / kWarp / 2; }

    // This warp's first channel of a piece.
    __device__ inline int p0() const { return c0 * kPiece<T> / kSide; }

    // Of a piece.
    __device__ inline E* tile(int i) const { return sTiles + i * kPieceElements<T>; }

    // Pairs of warps load a tile each, so that few threads ask where it is.
    __device__ inline void load_dy(E* sTile, int head, int channel) const
    {
        load_rows<kPiece<T>, kSteps, 2 * kWarp>(sTile, args.dy + shape.dense(row, first, head) + channel, (i64)shape.H * shape.P, steps, min(kPiece<T>, shape.P - channel), args.isDyWide);
    }
    __device__ inline void load_x(E* sTile, int head, int channel, i64 first, int steps) const
    {
        load_rows<kPiece<T>, kSteps, 2 * kWarp>(sTile, shape.x_at(row, first, head) + channel, shape.xStep, steps, min(kPiece<T>, shape.P - channel), shape.isXWide);
    }
    template <int Rows = kSteps, int Threads = 2 * kWarp>
    __device__ inline void load_b(E* sTile, int n, i64 first, int steps) const
    {
        load_rows<kSide, Rows, Threads>(sTile, shape.b_at(row, first, group) + n, shape.bStep, steps, min(kSide, shape.N - n), shape.isBcWide);
    }
    __device__ inline void load_c(E* sTile, int n) const { load_rows<kSide, kSteps, 2 * kWarp>(sTile, shape.c_at(row, first, group) + n, shape.cStep, steps, min(kSide, shape.N - n), shape.isBcWide); }

    // isMore: to what is there. Read so that no compiler reads it where nobody has written it.
    static __device__ inline void put_sum(f32& to, f32 x, bool isMore) { to = isMore ? *const_cast<const volatile f32*>(&to) + x : x; }

    // Of 16 rows.
    static __device__ inline void put_row_sums(f32* to, const f32 (&x)[2], bool isMore)
    {
        const u32 lane = lane_again();
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const f32 sum = row_sum(x[r]);
            if (lane % 4 == 0) put_sum(to[lane / 4 + 8 * r], sum, isMore);
        }
    }
    __device__ inline void put_warp_sum(int which, int place, f32 x, bool isMore)
    {
        x = warp_sum(x);
        if (lane_again() == 0) put_sum(sSums.warp[which][place], x, isMore);
    }
    __device__ inline f32 warp_sums(int which) const
    {
        f32 sum = 0;
        #pragma unroll
        for (int w = 0; w < kSsdThreads / kWarp / 2; w++) sum += sSums.warp[which][w];
        return sum;
    }

    // What the channels of a piece give to d(C·Bᵀ), R and its sums, of 16 rows of a warp; into a tile C·Bᵀ with its decay, times Δ, and on its diagonal D of the head: what dx takes of dy. None of
    // it where sub-tiles are right of the diagonal. A warp has all columns where a team has the rows, else half of them. isMore: adds to what other channels gave. Tiles: 0 dy, 1 x.
    template <int N>
    __device__ __forceinline__ void pairs(const f32 (&products)[N][4], f32 (&dproducts)[N][4], E* to, int depth, bool isMore)
    {
        constexpr bool hasAll = N == kSteps / 8;
        const u32 lane = lane_again();
        const int I = hasAll ? warp % 4 : warp / 2, from = hasAll ? 0 : c0, i = I * kSubtile + lane / 4;
        LeftRows<E, 1, kPiece<T> / 16, kPiecePitch<T>> rows;
        rows.load(tile(0) + I * kSubtile * kPiecePitch<T>, depth);
        const f32 rowFactor[2] = { sDecays.rowFactor[i], sDecays.rowFactor[i + 8] };
        f32 along[2] = {};
        pairs_step<0>(products, dproducts, to + i * kPitch<T> + from + lane % 4 * 2, rows, rows.right(tile(1) + from * kPiecePitch<T>), rowFactor, along, I, from, depth, isMore);
        put_row_sums(sSums.left[hasAll ? 0 : warp % 2] + I * kSubtile, along, isMore);
    }

    // 16 columns of it.
    template <int b, int N, typename Rows, typename Right>
    __device__ __forceinline__ void pairs_step(const f32 (&products)[N][4], f32 (&dproducts)[N][4], E* to, const Rows& rows, Right right, const f32 (&rowFactor)[2], f32 (&along)[2], int I, int from,
        int depth, bool isMore)
    {
        const int K = from / kSubtile + b;
        if (K > I) return;
        const u32 lane = lane_again();
        const int k = from + 16 * b + lane % 4 * 2;
        f32 inner[1][2][4];                                   // dy_i·x_j
        rows.template multiply<16 * b>(inner, right, depth);
        f32 down[4] = {}, pair[2][4], factor[2] = {};
        if (K < I)
        {
            const f32 between = sDecays.between[I * kSubtiles + K];
            factor[0] = rowFactor[0] * between;
            factor[1] = rowFactor[1] * between;
        }
        const int own = I * kSubtile + lane / 4;
        f32 ownHigh[2], ownLow[2], skip = 0;
        if (K == I)
        {
            #pragma unroll
            for (int half = 0; half < 2; half++)
            {
                ownHigh[half] = sDecays.high[own + 8 * half];
                ownLow[half] = sDecays.low[own + 8 * half];
            }
            if (shape.D && !shape.isSkipPerChannel) skip = sSums.skip[0];
        }
        else ownHigh[0] = ownHigh[1] = ownLow[0] = ownLow[1] = 0;
        #pragma unroll
        for (int j = 0; j < 2; j++)
        {
            f32 decay[4], delta[2], decayed[4];
            if (K < I)
            {
                f32 column[2];
                load<2>(column, sDecays.columnFactor + k + 8 * j);
                #pragma unroll
                for (int part = 0; part < 4; part++) decay[part] = factor[part / 2] * column[part % 2];
            }
            else
            {
                f32 high[2], low[2];
                load<2>(high, sDecays.high + k + 8 * j);
                load<2>(low, sDecays.low + k + 8 * j);
                #pragma unroll
                for (int part = 0; part < 4; part++)
                    decay[part] = k + 8 * j + part % 2 <= own + part / 2 * 8 ? expf((ownHigh[part / 2] - high[part % 2]) + (ownLow[part / 2] - low[part % 2])) : 0.0f;
            }
            load<2>(delta, sDecays.delta + k + 8 * j);
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const f32 product = products[2 * b + j][part], weighted = inner[0][j][part] * decay[part], whole = weighted * product;
                f32& to = dproducts[2 * b + j][part];
                to = fmaf(weighted, delta[part % 2], to);
                decayed[part] = product * decay[part] * delta[part % 2];
                if (K == I && k + 8 * j + part % 2 == own + part / 2 * 8) decayed[part] += skip;
                down[2 * j + part % 2] += whole;
                pair[j][part] = whole * delta[part % 2];
            }
            put_two(to + 16 * b + 8 * j, decayed[0], decayed[1]);
            put_two(to + 8 * kPitch<T> + 16 * b + 8 * j, decayed[2], decayed[3]);
        }
        if (K < I)
            #pragma unroll
            for (int part = 0; part < 4; part++) along[part / 2] += pair[0][part] + pair[1][part];
        else diagonal(lane, I, pair, inner[0][0], inner[0][1], isMore);
        const f32 sum = column_sums(down, lane);
        if (has_column_sum(lane)) put_sum(sSums.column[I][from + 16 * b + summed_column(lane)], sum, isMore);
        if constexpr (2 * b + 2 < N) pairs_step<b + 1>(products, dproducts, to, rows, right, rowFactor, along, I, from, depth, isMore);
    }

    // Of a sub-tile of R on the diagonal what steps stand between, Σ_{j<k≤i} R_ij, and what dy_i·x_i add up to.
    __device__ inline void diagonal(u32 lane, int I, const f32 (&pair)[2][4], const f32 (&inner0)[4], const f32 (&inner1)[4], bool isMore)
    {
        const int t = lane % 4;
        f32 within[4] = {}, skip = 0;
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const int i = lane / 4 + 8 * r;
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
        const f32 sum = column_sums(within, lane);
        if (has_column_sum(lane)) put_sum(sSums.within[I * kSubtile + summed_column(lane)], sum, isMore);
        if (shape.D && !shape.isSkipPerChannel) put_warp_sum(3, I, skip, isMore);
    }

    __device__ inline void load_skip(int head, int channel) const
    {
        if (threadIdx.x >= kPiece<T>) return;
        const int p = channel + threadIdx.x;
        sSums.skip[threadIdx.x] = shape.D && p < shape.P ? shape.D[shape.isSkipPerChannel ? head * shape.P + p : head] : 0.0f;
    }

    // What d(Δx) of a piece, as far as the state gives it, has in common with x, times exp(s_Q − s_j); then it becomes dx. The second team's, as what follows.
    __device__ inline void meet_channels(TeamPiece& d, int columns, bool isMore)
    {
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const int i = m2 + 16 * r + lane_again() / 4;
            const f32 toEnd[2] = { sDecays.toEnd[i], sDecays.toEnd[i + 8] }, end[2] = { sSums.end[i], sSums.end[i + 8] };
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
                    sums[part % 4 / 2] = fmaf(own, x[part / 4][part % 4], sums[part % 4 / 2]);
                    own *= end[part % 4 / 2];
                }
            }
            sums[0] *= toEnd[0];
            sums[1] *= toEnd[1];
            put_row_sums(sSums.given[warp % 2] + m2 + 16 * r, sums, isMore);
        }
    }

    // All of dx of a piece. Tiles: 0 dy, 1 x; sPairs is what pairs() made.
    __device__ inline void finish_channels(int head, int channel, TeamPiece& d, const E* sPairs, int columns)
    {
        multiply_rows<true, true, false, kPitch<T>, kPiecePitch<T>, kUpperTriangle>(d, sPairs + m2 * kPitch<T> + m2, tile(0) + m2 * kPiecePitch<T> + p0(), 32, kSteps - m2, columns);
        const bool hasSkips = shape.D && shape.isSkipPerChannel;
        if (hasSkips) add_skips(d, columns);
        if constexpr (kIsSame<T, bf16>) store_sums(head, channel, d, columns);
        else
        {
            // dx takes the place of x, of which each lane has read what it writes.
            put_rows<kPiecePitch<T>>(tile(1) + m2 * kPiecePitch<T> + p0(), d);
            __syncwarp();                                     // the warp's dx is there
            if (args.isDyWide) store_dx<16 / sizeof(T)>(head, channel);
            else store_dx<1>(head, channel);
        }
        if (!hasSkips) return;
        team_barrier(1);                                      // the sums of dy·x by channel are there
        const int c = threadIdx.x - kSsdThreads / 2;
        if (c < kPiece<T> && channel + c < shape.P) sums_of(head)[2 + channel + c] = sSums.skips[0][c] + sSums.skips[1][c] + sSums.skips[2][c] + sSums.skips[3][c];
    }

    // D by channel: what it gives to dx, and its sums.
    __device__ inline void add_skips(TeamPiece& d, int columns)
    {
        #pragma unroll
        for (int r = 0; r < 2; r++)
            #pragma unroll
            for (int j = 0; j < kPieceParts<T>; j += 2)
            {
                if (8 * j >= columns) break;
                const int from = (m2 + 16 * r) * kPiecePitch<T> + p0() + 8 * j;
                const u32 lane = lane_again();
                f32 dy[2][4], x[2][4], down[4] = {};
                load_square<kPiecePitch<T>>(dy, tile(0) + from);
                load_square<kPiecePitch<T>>(x, tile(1) + from);
                #pragma unroll
                for (int k = 0; k < 2; k++)
                {
                    f32 skip[2];
                    load<2>(skip, sSums.skip + p0() + 8 * (j + k) + lane % 4 * 2);
                    #pragma unroll
                    for (int part = 0; part < 4; part++)
                    {
                        d[r][j + k][part] = fmaf(skip[part % 2], dy[k][part], d[r][j + k][part]);
                        down[k * 2 + part % 2] = fmaf(dy[k][part], x[k][part], down[k * 2 + part % 2]);
                    }
                }
                const f32 sum = column_sums(down, lane);
                if (has_column_sum(lane)) sSums.skips[m2 / 16 + r][p0() + 8 * j + summed_column(lane)] = sum;
            }
    }

    // The warp's part of dx in 16 bits from registers: of two 16 × 8 beside each other a lane takes four neighbours of a row, so that a row's 32 bytes go out at once; or its own one by one.
    __device__ inline void store_sums(int head, int channel, const TeamPiece& d, int columns) const
    {
        const u32 lane = lane_again(), t = lane % 4, from = t < 2 ? lane + t : lane + t - 3;
        const int p = channel + p0() + (args.isDyWide ? 4 : 2) * t, i = m2 + lane / 4;
        T* to = args.dx + (row * shape.L + first + i) * args.dxStep + head * shape.P + p;
        #pragma unroll
        for (int r = 0; r < 4; r++)
        {
            #pragma unroll
            for (int j = 0; j < kPieceParts<T>; j += 2)
            {
                if (8 * j >= columns) break;
                if (!args.isDyWide)
                {
                    #pragma unroll
                    for (int v = 0; v < 4; v++)
                        if (i + 8 * r < steps && p + 8 * j + v / 2 * 8 + v % 2 < shape.P) to[8 * j + v / 2 * 8 + v % 2] = from_f32<T>(d[r / 2][j + v / 2][r % 2 * 2 + v % 2]);
                    continue;
                }
                u32 word[2];
                #pragma unroll
                for (int k = 0; k < 2; k++) word[k] = pair_of<bf16>(d[r / 2][j + k][r % 2 * 2], d[r / 2][j + k][r % 2 * 2 + 1]);
                // Lanes 0 to 3 ask 0, 2, 1 and 3 for the first tile's word where they are even and the second's where they are odd, then their neighbours.
                const u32 a = __shfl_sync(kAllLanes, t % 2 ? word[1] : word[0], from), b = __shfl_sync(kAllLanes, t % 2 ? word[0] : word[1], from ^ 1);
                const u32 pair[2] = { t < 2 ? a : b, t < 2 ? b : a };
                if (i + 8 * r < steps && p + 8 * j < shape.P) store_words(to + 8 * j, pair);
            }
            to += 8 * args.dxStep;
        }
    }

    // The warp's part.
    template <int V>
    __device__ inline void store_dx(int head, int channel) const
    {
        constexpr int kOfRow = kPiece<T> / 2 / V;
        const u32 lane = lane_again();
        const int p = p0() + lane % kOfRow * V;
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

    // What all states give to w.
    __device__ inline f32 met_of(int i) const { return sSums.met[0][i] + sSums.met[1][i] + (sSums.met[2][i] + sSums.met[3][i]); }

    // d(Δx)_j·x_j of what the state gives and of steps in sub-tiles from I on.
    __device__ inline f32 met(int j, int I) const
    {
        f32 sum = sSums.given[0][j] + sSums.given[1][j];
        for (; I < kSubtiles; I++) sum += sSums.column[I][j];
        return sum;
    }

    // The gradient of each exponent Δ_k·A, and from it ddt and the sums for A and the bias: a warp of the first team for each sub-tile K.
    template <bool isLeftWhole>
    __device__ inline void exponents(int head)
    {
        const int K = warp, from = K * kSubtile, lane = lane_again(), at = (u32)lane % kSubtile, k = from + at;
        f32 outside = 0;
        #pragma unroll
        for (int part = 0; part < kSteps / kWarp; part++)
        {
            const int i = lane + part * kWarp;
            if (i < from) outside = fmaf(sDecays.delta[i], met(i, K + 1), outside);
            else if (i >= from + kSubtile) outside += met_of(i);
        }
        outside = warp_sum(outside);
        // Half of the lanes add up what stands before a step, half, from the last on, what stands behind.
        const bool isBehind = lane >= kSubtile;
        const int i = from + (isBehind ? kSubtile - 1 - at : at);
        f32 sum = isBehind ? met_of(i) + (isLeftWhole ? sSums.left[0][i] : sSums.left[0][i] + sSums.left[1][i]) : sDecays.delta[i] * met(i, K + 1);
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
