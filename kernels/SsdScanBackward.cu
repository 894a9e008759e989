// SsdScanBackward.cu
//
// Computes   the gradients of SsdScanForward.cu. With dy behind the gate, dS_0 and dS_Q of the states at the borders of a chunk, and decay_ij = exp(s_i − s_j), j ≤ i:
//            dS_0 = exp(s_Q)·dS_Q + Σ_i exp(s_i)·C_i·dy_iᵀ,   d(C·Bᵀ)_ij = Σ_heads decay_ij·Δ_j·(dy_i·x_j),
//            d(Δx)_j = Σ_i (C·Bᵀ)_ij·decay_ij·dy_i + exp(s_Q − s_j)·dS_Qᵀ·B_j,   dx = Δ·d(Δx) + D·dy,
//            dC = d(C·Bᵀ)·B + Σ_heads exp(s_i)·S_0·dy_i,   dB = d(C·Bᵀ)ᵀ·C + Σ_heads exp(s_Q − s_j)·Δ_j·dS_Q·x_j,
//            d(Δ_k·A) = Σ_{j<k≤i} R_ij + Σ_{i≥k} w_i + Σ_{j<k} u_j + exp(s_Q)·(dS_Q·S_0), with R = (C·Bᵀ)·decay·Δ·(dy·x), w and u what C_i and B_j meet in dC and dB
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6; the exponent's gradient as sums of pairs that k stands between, so that nothing cancels.
// Method     ssd_scan_state_backward: a block owns 64 × 64 of the state of one head and sequence and walks the chunks backward, leaving dS_Q of each; the first along N
//            also computes the gate's gradient and leaves dy behind it. ssd_scan_chunk_backward: a block owns a chunk and some heads of a group, with C·Bᵀ and its
//            gradient in registers: first the products with the states by slices of 64 of N, then those within the chunk head by head, then those of d(C·Bᵀ).
//            ssd_scan_sum_backward: sums over chunks, and over blocks that share a group, in order.
// Layout     as SsdScanForward.cu; dy, dz, gated [B, L, H, P]; dstates [chunks, H, N, P] float; dB and dC by share [shares, B, L, G, N] float;
//            sums [chunks, H, 2 + skips] float: of dA, dBias, dD. Gradients are contiguous.
// Launch     ssd_scan_state_backward grid sequences·H·ceil(P / 64)·ceil(N / 64); ssd_scan_chunk_backward grid chunks·G·shares; ssd_scan_sum_backward grid
//            ceil(H·(2 + skips) / 32) + ceil(B·L·G·N / 256). Block 256. Dynamic shared memory of 2 and 5 tiles of 64 × 64: 18 and 45 KiB of bf16, 34 and 85 KiB of
//            floats. A share of a group's heads has at least 2 of them.
// Traffic    per step and head: ssd_scan_state_backward reads P elements of dy (with z also 2·P, and writes 2·P) and 1 of dt, for each 64 of N, and N of C for each
//            64 of P, and writes N·P floats per chunk. ssd_scan_chunk_backward reads 2·P elements for each 64 of N and once more, 2 of dt, the states once and dS_Q twice
//            (N·P floats per chunk each), B for each 64 of P, and writes P + 1 elements; per step and block 5·N elements of B and C and 6·N floats of their gradients.
//            ssd_scan_sum_backward reads 2·shares·N floats per step and group and all sums, and writes the gradients of B, C, A, D and the bias.
// Precision  loads T, accumulates f32, stores T; as SsdScanForward.cu, states are rounded to bf16 as operands. Deterministic: no atomics, fixed order of additions.
// Limits     N ≤ 256; Q ≤ 64; a block owns at most kMaxHeads heads.
// Variants   ssd_scan_state_backward<{f32|bf16|f16}>; ssd_scan_chunk_backward<{f32|bf16|f16}>; ssd_scan_sum_backward<{f32|bf16|f16}>
#include "common/Columns.cuh"
#include "common/Ssd.cuh"

constexpr int kSide = 64;                                     // of a tile
constexpr int J = kSide / 16;                                 // 16 × 8s of a warp: 16 rows by 32 columns

template <typename T>
struct SsdStateBackwardArgs                                   // mirrored in CudaSsdScan.cs, field for field
{
    const T* dy; const T* ungated; const f32* dfinal;
    T* dz; T* gated; f32* dstates; f32* dinitial;
    SsdShape<T> shape;
};

template <typename T> using Element = typename TileOf<T>::Element;
template <typename T> constexpr int kMaxHeads = sizeof(Element<T>) == 2 ? 16 : 8;           // of a block; large enough to share B and C, small enough for shared memory
template <typename T> constexpr int kPitch = kSide + kRowPad<Element<T>>;
template <typename T> constexpr int kTileElements = kSide * kPitch<T>;

// dy of a chunk behind the gate, times exp(s_i), into a tile; where the block is the first along N, dy behind the gate and dz also to global memory.
template <int V, typename T>
__device__ inline void load_gated(const SsdStateBackwardArgs<T>& args, Element<T>* sDy, const SsdDecays& sDecays, i64 row, i64 first, int steps, int head, int channel, bool isFirst)
{
    const SsdShape<T>& shape = args.shape;
    const int used = round_up(min(kSide, shape.P - channel), 16);
    #pragma unroll 1
    for (int k = threadIdx.x; k < kSteps * kSide / V; k += kSsdThreads)
    {
        const int i = k / (kSide / V), p = k % (kSide / V) * V;
        if (p >= used) continue;
        f32 d[V] = {};
        if (i < steps && channel + p < shape.P)
        {
            const i64 at = shape.dense(row, first + i, head) + channel + p;
            load<V>(d, args.dy + at);
            if (shape.z)
            {
                f32 gate[V], y[V], dz[V];
                load<V>(gate, shape.z_at(row, first + i, head) + channel + p);
                if (isFirst) load<V>(y, args.ungated + at);
                #pragma unroll
                for (int v = 0; v < V; v++)
                {
                    if (isFirst) dz[v] = d[v] * y[v] * silu_slope(gate[v]);
                    d[v] *= silu(gate[v]);
                }
                if (isFirst)
                {
                    store<V>(args.dz + at, dz);
                    store<V>(args.gated + at, d);
                }
            }
            const f32 decay = sDecays.fromStart[i];
            #pragma unroll
            for (int v = 0; v < V; v++) d[v] *= decay;
        }
        stash<V>(sDy + i * kPitch<T> + p, d);
    }
}

template <typename T>
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_state_backward(const SsdStateBackwardArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays;
    Element<T>* sC = reinterpret_cast<Element<T>*>(sMemory);  // [kSteps, kSide]
    Element<T>* sDy = sC + kTileElements<T>;                  // [kSteps, kSide]
    const SsdShape<T>& shape = args.shape;
    const int slicesN = (shape.N + kSide - 1) / kSide, slicesP = (shape.P + kSide - 1) / kSide;
    const int n0 = blockIdx.x % slicesN * kSide, channel = blockIdx.x / slicesN % slicesP * kSide, head = blockIdx.x / slicesN / slicesP % shape.H, group = head / (shape.H / shape.G);
    const i64 number = blockIdx.x / slicesN / slicesP / shape.H;
    const SsdSequence sequence(shape, number);
    const int warp = threadIdx.x / kWarp, m = warp / 2 * 16, c0 = warp % 2 * 32;
    const int width = min(kSide, shape.N - n0), channels = min(kSide, shape.P - channel), columns = round_up(channels, 16) - c0;

    f32 dstate[J][4];                                         // rows n0 + m …, columns channel + c0 …
    #pragma unroll
    for (int j = 0; j < J; j++)
        #pragma unroll
        for (int part = 0; part < 4; part++)
        {
            const int n = m + fragment_row(part), p = c0 + 8 * j + fragment_column(part);
            dstate[j][part] = args.dfinal && n < width && p < channels ? args.dfinal[shape.state(number, head) + (i64)(channel + p) * shape.N + n0 + n] : 0.0f;
        }

    const i64 chunks = (sequence.end - sequence.begin + shape.Q - 1) / shape.Q;
    for (i64 chunk = chunks - 1; chunk >= 0; chunk--)
    {
        const i64 first = sequence.begin + chunk * shape.Q;
        const int steps = (int)min((i64)shape.Q, sequence.end - first);
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2)
            {
                const int n = m + fragment_row(v), p = c0 + 8 * j + fragment_column(v);
                if (n < width) store_pair(args.dstates + shape.border(sequence.firstChunk + chunk, head) + (i64)(n0 + n) * shape.P + channel + p, dstate[j][v], dstate[j][v + 1], channels - p, shape.isStateWide);
            }
        __syncthreads();                                      // the tiles and decays of the chunk behind have been read by all
        load_tile<kSide>(sC, shape.c_at(sequence.row, first, group) + n0, shape.cStep, steps, width, shape.isBcWide);
        if (warp == 0) sDecays.fill(shape, sequence.row, first, steps, head);
        __syncthreads();                                      // the decays are there
        if (shape.isYWide) load_gated<16 / sizeof(T)>(args, sDy, sDecays, sequence.row, first, steps, head, channel, n0 == 0);
        else load_gated<1>(args, sDy, sDecays, sequence.row, first, steps, head, channel, n0 == 0);
        tile_wait();
        __syncthreads();                                      // the tiles are there
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) dstate[j][part] *= sDecays.total;
        if (m < width) multiply<true, true>(dstate, sC + m, kPitch<T>, sDy + c0, kPitch<T>, round_up(steps, 16), columns);
    }
    if (!args.dinitial) return;
    #pragma unroll
    for (int j = 0; j < J; j++)
        #pragma unroll
        for (int part = 0; part < 4; part++)
        {
            const int n = m + fragment_row(part), p = c0 + 8 * j + fragment_column(part);
            if (n < width && p < channels) args.dinitial[shape.state(number, head) + (i64)(channel + p) * shape.N + n0 + n] = dstate[j][part];
        }
}

template <typename T>
struct SsdChunkBackwardArgs                                   // mirrored in CudaSsdScan.cs, field for field
{
    const T* dy; const f32* states; const f32* dstates;       // dy behind the gate
    T* dx; T* ddt; f32* dB; f32* dC; f32* sums;
    SsdShape<T> shape;
    i64 rows;                                                 // B·L
    i32 shares, headsOfShare, sumsOfHead, isDyWide;
};

// Partial sums that warps leave for others.
template <typename T>
struct SsdSums
{
    f32 fromState[kMaxHeads<T>][kSteps];                         // w_i: what exp(s_i)·S_0 gives to the exponents
    f32 toState[kMaxHeads<T>][kSteps];                           // u_j: what exp(s_Q − s_j)·dS_Q gives
    f32 whole[kMaxHeads<T>];                                     // exp(s_Q)·(dS_Q·S_0)
    f32 row[2][2][kSteps];                                    // by half of the columns: sums along rows of two matrices
    f32 column[kSubtiles][kSide];                             // by 16 rows: sums down columns
    f32 pairs[kSubtiles][kSubtile][kSubtile + 1];             // R within sub-tiles on the diagonal
    f32 skips[kSubtiles][kSide];                              // by 16 rows: dy·x down columns
    f32 skip[kSide];                                          // D of 64 channels
    f32 warp[3][kSsdThreads / kWarp];
};

// A chunk, and some heads of a group of it.
template <typename T>
struct SsdChunkBlock
{
    using E = Element<T>;
    using Sums = f32[J][4];

    const SsdChunkBackwardArgs<T>& args;
    const SsdShape<T>& shape;
    SsdDecays& sDecays;
    SsdSums<T>& sSums;
    E* sTiles;
    i64 chunk, row, first;
    int group, share, firstHead, heads, steps, warp, m, c0;

    __device__ inline SsdChunkBlock(const SsdChunkBackwardArgs<T>& args, SsdDecays& sDecays, SsdSums<T>& sSums, u8* sMemory)
        : args(args), shape(args.shape), sDecays(sDecays), sSums(sSums), sTiles(reinterpret_cast<E*>(sMemory))
    {
        share = blockIdx.x % args.shares;
        group = blockIdx.x / args.shares % shape.G;
        chunk = blockIdx.x / args.shares / shape.G;
        const int headsOfGroup = shape.H / shape.G, before = share * args.headsOfShare;
        firstHead = group * headsOfGroup + before;
        heads = min(args.headsOfShare, headsOfGroup - before);
        const SsdSequence sequence(shape, shape.starts ? sequence_of(shape.firstChunks, shape.sequences, chunk) : chunk / shape.chunksPerRow);
        row = sequence.row;
        first = sequence.begin + (chunk - sequence.firstChunk) * shape.Q;
        steps = (int)min((i64)shape.Q, sequence.end - first);
        warp = threadIdx.x / kWarp;
        m = warp / 2 * 16;
        c0 = warp % 2 * 32;
    }

    __device__ inline E* tile(int i) const { return sTiles + i * kTileElements<T>; }

    __device__ inline void load_dy(E* sTile, int head, int channel) const
    {
        load_tile<kSide>(sTile, args.dy + shape.dense(row, first, head) + channel, (i64)shape.H * shape.P, steps, min(kSide, shape.P - channel), args.isDyWide);
    }
    __device__ inline void load_x(E* sTile, int head, int channel) const
    {
        load_tile<kSide>(sTile, shape.x_at(row, first, head) + channel, shape.xStep, steps, min(kSide, shape.P - channel), shape.isXWide);
    }
    __device__ inline void load_b(E* sTile, int n) const { load_tile<kSide>(sTile, shape.b_at(row, first, group) + n, shape.bStep, steps, min(kSide, shape.N - n), shape.isBcWide); }
    __device__ inline void load_c(E* sTile, int n) const { load_tile<kSide>(sTile, shape.c_at(row, first, group) + n, shape.cStep, steps, min(kSide, shape.N - n), shape.isBcWide); }

    // Four neighbours of a row of a state at a border, as far as there are any.
    __device__ inline void read_state(f32 (&to)[4], const f32* from, int r, int c, int rows, int columns) const
    {
        if (shape.isStateWide && r < rows && c < columns) load<4>(to, from + (i64)r * shape.P + c);
        else
            #pragma unroll
            for (int v = 0; v < 4; v++) to[v] = r < rows && c + v < columns ? from[(i64)r * shape.P + c + v] : 0.0f;
    }

    // Rows n … and channels … of dS_Q; with S_0 of the same place, returns this thread's share of their product.
    __device__ inline f32 load_states(E* sDstates, E* sStates, int head, int n, int channel) const
    {
        const i64 at = shape.border(chunk, head) + (i64)n * shape.P + channel;
        const int rows = min(kSide, shape.N - n), columns = min(kSide, shape.P - channel), used = round_up(columns, 16);
        f32 sum = 0;
        #pragma unroll 2
        for (int k = threadIdx.x; k < kSide * kSide / 4; k += kSsdThreads)
        {
            const int r = k / (kSide / 4), c = k % (kSide / 4) * 4;
            if (c >= used) continue;
            f32 d[4], s[4];
            read_state(d, args.dstates + at, r, c, rows, columns);
            stash<4>(sDstates + r * kPitch<T> + c, d);
            if (!sStates) continue;
            read_state(s, args.states + at, r, c, rows, columns);
            stash<4>(sStates + r * kPitch<T> + c, s);
            #pragma unroll
            for (int v = 0; v < 4; v++) sum = fmaf(d[v], s[v], sum);
        }
        return sum;
    }

    // The sums of dB and dC of this share: element (step i, n).
    __device__ inline i64 gradient_at(int i, int n) const { return ((share * args.rows + row * shape.L + first + i) * shape.G + group) * shape.N + n; }

    // What the states give to dC (rows i) and dB (rows j), by slices of N, and to the exponents.
    __device__ inline void states()
    {
        for (int k = threadIdx.x; k < heads * kSteps; k += kSsdThreads) sSums.fromState[k / kSteps][k % kSteps] = sSums.toState[k / kSteps][k % kSteps] = 0;
        if (threadIdx.x < heads) sSums.whole[threadIdx.x] = 0;
        for (int n = 0; n < shape.N; n += kSide)
        {
            Sums dB = {}, dC = {};
            for (int h = 0; h < heads; h++) head_states(h, n, dB, dC);
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++)
                {
                    const int i = m + fragment_row(part), at = n + c0 + 8 * j + fragment_column(part);
                    if (i >= steps || at >= shape.N) continue;
                    args.dB[gradient_at(i, at)] = dB[j][part];
                    args.dC[gradient_at(i, at)] = dC[j][part];
                }
        }
    }

    __device__ inline void head_states(int h, int n, Sums& dB, Sums& dC)
    {
        const int head = firstHead + h, rows = min(kSide, shape.N - n), columns = round_up(rows, 16) - c0;
        Sums fromX = {}, fromDy = {};
        f32 product = 0;
        for (int channel = 0; channel < shape.P; channel += kSide)
        {
            __syncthreads();                                  // the tiles, decays and sums before have been read by all
            load_dy(tile(0), head, channel);
            load_x(tile(1), head, channel);
            product += load_states(tile(3), tile(2), head, n, channel);
            if (channel == 0 && warp == 0) sDecays.fill(shape, row, first, steps, head);
            tile_wait();
            __syncthreads();                                  // the tiles and decays are there
            const int depth = round_up(min(kSide, shape.P - channel), 16);
            multiply<false, false>(fromDy, tile(0) + m * kPitch<T>, kPitch<T>, tile(2) + c0 * kPitch<T>, kPitch<T>, depth, columns);
            multiply<false, false>(fromX, tile(1) + m * kPitch<T>, kPitch<T>, tile(3) + c0 * kPitch<T>, kPitch<T>, depth, columns);
        }
        f32 w[2] = {}, u[2] = {};
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const int i = m + fragment_row(2 * r);
            const f32 fromStart = sDecays.fromStart[i], toEnd = sDecays.toEnd[i] * sDecays.delta[i];
            const T* C = shape.c_at(row, first + i, group) + n;
            const T* B = shape.b_at(row, first + i, group) + n;
            #pragma unroll
            for (int j = 0; j < J; j++)
            {
                const int at = c0 + 8 * j + fragment_column(0), valid = i < steps ? rows - at : 0;
                f32 c[2], b[2];
                read_pair(c, C + at, valid);
                read_pair(b, B + at, valid);
                #pragma unroll
                for (int v = 0; v < 2; v++)
                {
                    const f32 dc = fromDy[j][2 * r + v] * fromStart, db = fromX[j][2 * r + v] * toEnd;
                    dC[j][2 * r + v] += dc;
                    dB[j][2 * r + v] += db;
                    w[r] = fmaf(dc, c[v], w[r]);
                    u[r] = fmaf(db, b[v], u[r]);
                }
            }
        }
        put_row_sums(0, w);
        put_row_sums(1, u);
        put_warp_sum(0, product);
        __syncthreads();                                      // the sums of all warps are there
        if (threadIdx.x < kSteps)
        {
            sSums.fromState[h][threadIdx.x] += sSums.row[0][0][threadIdx.x] + sSums.row[0][1][threadIdx.x];
            sSums.toState[h][threadIdx.x] += sSums.row[1][0][threadIdx.x] + sSums.row[1][1][threadIdx.x];
        }
        if (threadIdx.x == 0) sSums.whole[h] = fmaf(sDecays.total, warp_sums(0), sSums.whole[h]);
    }

    // Two neighbours of a row of B or C, of which `valid` exist.
    __device__ inline void read_pair(f32 (&to)[2], const T* from, int valid) const
    {
        if (shape.isBcWide && valid >= 2) load<2>(to, from);
        else
            #pragma unroll
            for (int v = 0; v < 2; v++) to[v] = v < valid ? to_f32(from[v]) : 0.0f;
    }

    __device__ inline void put_row_sums(int matrix, const f32 (&x)[2])
    {
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const f32 sum = row_sum(x[r]);
            if (threadIdx.x % 4 == 0) sSums.row[matrix][warp % 2][m + fragment_row(2 * r)] = sum;
        }
    }
    __device__ inline void put_warp_sum(int which, f32 x)
    {
        x = warp_sum(x);
        if (threadIdx.x % kWarp == 0) sSums.warp[which][warp] = x;
    }
    __device__ inline f32 warp_sums(int which) const
    {
        f32 sum = 0;
        #pragma unroll
        for (int w = 0; w < kSsdThreads / kWarp; w++) sum += sSums.warp[which][w];
        return sum;
    }

    // products = C·Bᵀ, rows i, columns j ≤ i.
    __device__ inline void products(Sums& products)
    {
        for (int n = 0; n < shape.N; n += kSide)
        {
            __syncthreads();                                  // the tiles before have been read by all
            load_c(tile(0), n);
            load_b(tile(1), n);
            tile_wait();
            __syncthreads();                                  // the tiles are there
            multiply<false, false>(products, tile(0) + m * kPitch<T>, kPitch<T>, tile(1) + c0 * kPitch<T>, kPitch<T>, round_up(min(kSide, shape.N - n), 16), m + 16 - c0);
        }
    }

    // dx and ddt of a head; adds to d(C·Bᵀ). Tiles: 0 dy, 1 x, 2 C·Bᵀ with its decay, 3 B, 4 dS_Q.
    __device__ inline void head(int h, const Sums& products, Sums& dproducts)
    {
        const int head = firstHead + h;
        Sums inner = {};                                      // dy_i·x_j
        for (int channel = 0; channel < shape.P; channel += kSide)
        {
            __syncthreads();                                  // the tiles, decays and sums before have been read by all
            load_dy(tile(0), head, channel);
            load_x(tile(1), head, channel);
            if (channel == 0 && warp == 0) sDecays.fill(shape, row, first, steps, head);
            tile_wait();
            __syncthreads();                                  // the tiles and decays are there
            multiply<false, false>(inner, tile(0) + m * kPitch<T>, kPitch<T>, tile(1) + c0 * kPitch<T>, kPitch<T>, round_up(min(kSide, shape.P - channel), 16), m + 16 - c0);
        }
        pairs(products, inner, dproducts);
        f32 direct[2] = {}, skip = 0;                         // d(Δx)_j·x_j, dy·x
        for (int channel = 0; channel < shape.P; channel += kSide)
        {
            if (shape.P > kSide)
            {
                __syncthreads();                              // the channels before have been read by all
                load_dy(tile(0), head, channel);
                load_x(tile(1), head, channel);
            }
            channels(head, channel, direct, skip);
        }
        put_row_sums(1, direct);
        put_warp_sum(2, skip);
        __syncthreads();                                      // all sums of this head are there
        exponents(h);
    }

    // R and its sums; C·Bᵀ with its decay into tile 2.
    __device__ inline void pairs(const Sums& products, const Sums& inner, Sums& dproducts)
    {
        f32 rows[2] = {};
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
                if (J0 == m / kSubtile) sSums.pairs[J0][i % kSubtile][k % kSubtile] = k < i ? pair : 0.0f;
                else if (J0 < m / kSubtile)
                {
                    rows[part / 2] += pair;
                    down[part % 2] += pair;
                }
            }
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_pair(tile(2) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v), decayed[v], decayed[v + 1]);
            #pragma unroll
            for (int v = 0; v < 2; v++)
            {
                const f32 sum = column_sum(down[v]);
                if (threadIdx.x % kWarp < 4) sSums.column[m / kSubtile][c0 + 8 * j + fragment_column(v)] = sum;
            }
        }
        put_row_sums(0, rows);
    }

    // d(Δx), and from it dx, of 64 channels.
    __device__ inline void channels(int head, int channel, f32 (&direct)[2], f32& skip)
    {
        const int columns = round_up(min(kSide, shape.P - channel), 16) - c0;
        if (threadIdx.x < kSide)
        {
            const int p = channel + threadIdx.x;
            sSums.skip[threadIdx.x] = shape.D && p < shape.P ? shape.D[shape.isSkipPerChannel ? head * shape.P + p : head] : 0.0f;
        }
        Sums d = {};
        for (int n = 0; n < shape.N; n += kSide)
        {
            if (n > 0) __syncthreads();                       // the slice before has been read by all
            load_b(tile(3), n);
            load_states(tile(4), nullptr, head, n, channel);
            tile_wait();
            __syncthreads();                                  // the slice is there, D, and C·Bᵀ with its decay
            multiply<false, true>(d, tile(3) + m * kPitch<T>, kPitch<T>, tile(4) + c0, kPitch<T>, round_up(min(kSide, shape.N - n), 16), columns);
        }
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) d[j][part] *= sDecays.toEnd[m + fragment_row(part)];
        multiply<true, true>(d, tile(2) + m * kPitch<T> + m, kPitch<T>, tile(0) + m * kPitch<T> + c0, kPitch<T>, kSteps - m, columns);
        #pragma unroll
        for (int j = 0; j < J; j++)
        {
            f32 down[2] = {};
            const int c = c0 + 8 * j + fragment_column(0);
            #pragma unroll
            for (int r = 0; r < 2 && 8 * j < columns; r++)
            {
                const int i = m + fragment_row(2 * r);
                const f32 delta = sDecays.delta[i];
                f32 x[2], dy[2], dx[2];
                load<2>(x, tile(1) + i * kPitch<T> + c);
                load<2>(dy, tile(0) + i * kPitch<T> + c);
                #pragma unroll
                for (int v = 0; v < 2; v++)
                {
                    direct[r] = fmaf(d[j][2 * r + v], x[v], direct[r]);
                    down[v] = fmaf(dy[v], x[v], down[v]);
                    dx[v] = fmaf(sSums.skip[c + v], dy[v], delta * d[j][2 * r + v]);
                }
                stash<2>(tile(1) + i * kPitch<T> + c, dx);    // in the place of x, which this thread alone reads
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
        if (shape.D && shape.isSkipPerChannel && c < kSide && channel + c < shape.P)
            sums_of(head)[2 + channel + c] = sSums.skips[0][c] + sSums.skips[1][c] + sSums.skips[2][c] + sSums.skips[3][c];
    }

    template <int V>
    __device__ inline void store_dx(int head, int channel) const
    {
        #pragma unroll 1
        for (int k = threadIdx.x; k < kSteps * kSide / V; k += kSsdThreads)
        {
            const int i = k / (kSide / V), p = k % (kSide / V) * V;
            if (i >= steps || channel + p >= shape.P) continue;
            f32 dx[V];
            load<V>(dx, tile(1) + i * kPitch<T> + p);
            store<V>(args.dx + shape.dense(row, first + i, head) + channel + p, dx);
        }
    }

    __device__ inline f32* sums_of(int head) const { return args.sums + (chunk * shape.H + head) * args.sumsOfHead; }

    // The gradient of each exponent Δ_k·A, and from it ddt and the sums for A and the bias. Four neighbouring threads share a step k.
    __device__ inline void exponents(int h)
    {
        const int head = firstHead + h, k = threadIdx.x / 4, part = threadIdx.x % 4, K = k / kSubtile;
        f32 sum = 0;
        for (int j = part; j < k; j += 4)
        {
            sum += sSums.toState[h][j];
            for (int I = K + 1; I < kSubtiles; I++) sum += sSums.column[I][j];             // from sub-tiles below, of steps before k
        }
        for (int i = k + part; i < kSteps; i += 4) sum += sSums.fromState[h][i];
        for (int i = k + part; i < (K + 1) * kSubtile; i += 4)
        {
            sum += sSums.row[0][0][i] + sSums.row[0][1][i];
            for (int j = 0; j < k % kSubtile; j++) sum += sSums.pairs[K][i % kSubtile][j];
        }
        sum = row_sum(sum) + sSums.whole[h];
        const f32 delta = sDecays.delta[k], raw = sDecays.raw[k];
        f32 dDelta = fmaf(sum, shape.A[head], sSums.row[1][0][k] + sSums.row[1][1][k]);
        const f32 unlimited = shape.hasSoftplus ? softplus(raw) : raw;
        if (unlimited < shape.minDelta || unlimited > shape.maxDelta) dDelta = 0;
        if (shape.hasSoftplus) dDelta *= sigmoid(raw);
        const bool isMine = part == 0 && k < steps;
        if (isMine) args.ddt[(row * shape.L + first + k) * shape.H + head] = from_f32<T>(dDelta);
        put_warp_sum(0, isMine ? sum * delta : 0.0f);
        put_warp_sum(1, isMine ? dDelta : 0.0f);
        __syncthreads();                                      // the sums of all warps are there
        if (threadIdx.x != 0) return;
        f32* sums = sums_of(head);
        sums[0] = warp_sums(0);
        sums[1] = warp_sums(1);
        if (shape.D && !shape.isSkipPerChannel) sums[2] = warp_sums(2);
    }

    // Adds d(C·Bᵀ)·B to dC and d(C·Bᵀ)ᵀ·C to dB. Tiles: 0 d(C·Bᵀ), 1 B, 2 C.
    __device__ inline void gradients(const Sums& dproducts)
    {
        // The last head left its tiles before it added up its sums: nobody reads them any more.
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_pair(tile(0) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v), dproducts[j][v], dproducts[j][v + 1]);
        for (int n = 0; n < shape.N; n += kSide)
        {
            if (n > 0) __syncthreads();                       // the slice before has been read by all
            load_b(tile(1), n);
            load_c(tile(2), n);
            tile_wait();
            __syncthreads();                                  // the slice is there, and d(C·Bᵀ)
            Sums dB, dC;
            for_each(n, [&](int j, int part, i64 at) { dB[j][part] = args.dB[at]; dC[j][part] = args.dC[at]; }, [&](int j, int part) { dB[j][part] = dC[j][part] = 0; });
            const int columns = round_up(min(kSide, shape.N - n), 16) - c0;
            multiply<false, true>(dC, tile(0) + m * kPitch<T>, kPitch<T>, tile(1) + c0, kPitch<T>, m + 16, columns);
            multiply<true, true>(dB, tile(0) + m * kPitch<T> + m, kPitch<T>, tile(2) + m * kPitch<T> + c0, kPitch<T>, kSteps - m, columns);
            for_each(n, [&](int j, int part, i64 at) { args.dB[at] = dB[j][part]; args.dC[at] = dC[j][part]; }, [](int, int) {});
        }
    }

    // This thread's parts of the slice from n on: with their place among the gradients, or without one.
    template <typename There, typename Missing>
    __device__ inline void for_each(int n, There there, Missing missing) const
    {
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int i = m + fragment_row(part), at = n + c0 + 8 * j + fragment_column(part);
                if (i < steps && at < shape.N) there(j, part, gradient_at(i, at));
                else missing(j, part);
            }
    }
};

template <typename T>
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_chunk_backward(const SsdChunkBackwardArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays;
    __shared__ SsdSums<T> sSums;
    SsdChunkBlock<T> block(args, sDecays, sSums, sMemory);
    block.states();
    f32 products[J][4] = {}, dproducts[J][4] = {};
    block.products(products);
    for (int h = 0; h < block.heads; h++) block.head(h, products, dproducts);
    block.gradients(dproducts);
}

template <typename T>
struct SsdSumArgs                                             // mirrored in CudaSsdScan.cs, field for field
{
    const f32* dBShares; const f32* dCShares; const f32* sums;
    T* dB; T* dC; f32* dA; f32* dBias; f32* dD;
    i64 chunks, count;                                        // count: elements of dB
    i32 H, shares, sumsOfHead, columnBlocks;
};

template <typename T>
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_sum_backward(const SsdSumArgs<T> args)
{
    __shared__ f32 sColumns[kColumnWarps][kWarp];
    if (blockIdx.x < args.columnBlocks)
    {
        const int column = blockIdx.x * kWarp + threadIdx.x % kWarp, width = args.H * args.sumsOfHead;
        const f32 sum = column_sum(args.sums, args.chunks, width, column, sColumns);
        if (threadIdx.x >= kWarp || column >= width) return;
        const int head = column / args.sumsOfHead, which = column % args.sumsOfHead;
        if (which == 0) args.dA[head] = sum;
        else if (which > 1) args.dD[head * (args.sumsOfHead - 2) + which - 2] = sum;
        else if (args.dBias) args.dBias[head] = sum;
        return;
    }
    const i64 i = (i64)(blockIdx.x - args.columnBlocks) * kSsdThreads + threadIdx.x;
    if (i >= args.count) return;
    f32 b = 0, c = 0;
    for (int share = 0; share < args.shares; share++)
    {
        b += args.dBShares[share * args.count + i];
        c += args.dCShares[share * args.count + i];
    }
    args.dB[i] = from_f32<T>(b);
    args.dC[i] = from_f32<T>(c);
}
