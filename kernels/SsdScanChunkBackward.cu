// SsdScanChunkBackward.cu
//
// Computes   the gradients of SsdScanForward.cu within each chunk. With dy behind the gate, dS_0 and dS_Q of the states at the borders of a chunk, and
//            decay_ij = exp(s_i − s_j), j ≤ i:  d(C·Bᵀ)_ij = Σ_heads decay_ij·Δ_j·(dy_i·x_j),
//            d(Δx)_j = Σ_i (C·Bᵀ)_ij·decay_ij·dy_i + exp(s_Q − s_j)·dS_Qᵀ·B_j,   dx = Δ·d(Δx) + D·dy,
//            dC = d(C·Bᵀ)·B + Σ_heads exp(s_i)·S_0·dy_i,   dB = d(C·Bᵀ)ᵀ·C + Σ_heads exp(s_Q − s_j)·Δ_j·dS_Q·x_j,
//            d(Δ_k·A) = Σ_{j<k≤i} R_ij + Σ_{i≥k} w_i + Σ_{j<k} u_j + exp(s_Q)·(dS_Q·S_0), with R = (C·Bᵀ)·decay·Δ·(dy·x), w and u what C_i and B_j meet in dC and dB
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6; the exponent's gradient as sums of pairs that k stands between, so that nothing cancels.
// Method     for what SsdScanBackward.cu does not take. A block owns a chunk and some heads of a group, with C·Bᵀ and its gradient in registers: first the products with the states by
//            slices of 64 of N, then those within the chunk head by head, then those of d(C·Bᵀ).
// Layout     as SsdScanForward.cu; dy, dx [B, L, H, P]; states, dstates [chunks, H, N, P], bf16 or float as the tiles; dB and dC by share [shares, B, L, G, N] float;
//            sums [chunks, H, 2 + skips] float: of dA, dBias, dD. Steps of dx and ddt lie dxStep and ddtStep apart.
// Launch     grid chunks·G·shares, block 256; dynamic shared memory of 5 tiles of 64 × 64, 45 KiB of bf16, 85 KiB of floats. A share of a group's heads has at least 2.
// Traffic    per step and head: reads 2·P elements once and again for each 64 of N, 2 of dt, and writes P + 1; per chunk and head the state once and dS_Q twice, N·P elements each; per
//            step and block reads 5·N elements of B and C, B again for each 64 of P, and 2·N floats of their gradients, and writes 4·N.
// Precision  loads T, accumulates f32, stores T; as SsdScanForward.cu, states are bf16 as operands. Deterministic: no atomics, fixed order of additions.
// Limits     N ≤ 256; Q ≤ 64; a block owns at most kMaxHeads heads.
// Variants   ssd_scan_chunk_backward<{f32|bf16|f16}>
#include "common/SsdChunk.cuh"

template <typename T> constexpr int kMaxHeads = sizeof(Border<T>) == 2 ? 16 : 8;           // of a block; large enough to share B and C, small enough for shared memory

template <typename T>
struct SsdChunkBackwardArgs                                   // mirrored in CudaSsdScan.cs, field for field
{
    const Border<T>* dstates; f32* dB; f32* dC;
    SsdChunkArgs<T> chunk;
    i64 rows;                                                 // B·L
};

// Operands come as often as they are needed, by slices of 64 of N.
template <typename T>
struct SsdSlicedChunk : SsdChunkBlock<T, kMaxHeads<T>>
{
    using Block = SsdChunkBlock<T, kMaxHeads<T>>;
    using typename Block::E; using typename Block::Sums;
    using Block::shape; using Block::sDecays; using Block::sSums; using Block::chunk; using Block::row; using Block::first;
    using Block::firstHead; using Block::heads; using Block::steps; using Block::warp; using Block::m; using Block::c0; using Block::group; using Block::share; using Block::tile;
    using Block::load_dy; using Block::load_x; using Block::load_b; using Block::load_c; using Block::load_state;
    using Block::group_at; using Block::put_row_sums; using Block::put_warp_sum; using Block::warp_sums; using Block::pairs; using Block::load_skip;
    using Block::finish_channels; using Block::exponents;

    const SsdChunkBackwardArgs<T>& args;

    __device__ inline SsdSlicedChunk(const SsdChunkBackwardArgs<T>& args, SsdDecays& sDecays, SsdSums<kMaxHeads<T>>& sSums, u8* sMemory) : Block(args.chunk, sDecays, sSums, sMemory), args(args)
    {
        const i64 number = blockIdx.x / args.chunk.shares / shape.G;
        const SsdSequence sequence(shape, shape.starts ? sequence_of(shape.firstChunks, shape.sequences, number) : number / shape.chunksPerRow);
        this->own(blockIdx.x / args.chunk.shares % shape.G, blockIdx.x % args.chunk.shares);
        this->enter(sequence, number - sequence.firstChunk);
    }

    // The sums of dB and dC of this share: element (step i, n).
    __device__ inline i64 gradient_at(int i, int n) const { return share * args.rows * shape.G * shape.N + group_at(i, n); }

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
            load_x(tile(1), head, channel, first, steps);
            load_state(tile(2), args.chunk.states, head, n, channel);
            load_state(tile(3), args.dstates, head, n, channel);
            if (channel == 0 && warp == 0) sDecays.fill(shape, row, first, steps, head);
            tile_wait();
            __syncthreads();                                  // the tiles and decays are there
            const int depth = round_up(min(kSide, shape.P - channel), 16);
            multiply<false, false>(fromDy, tile(0) + m * kPitch<T>, kPitch<T>, tile(2) + c0 * kPitch<T>, kPitch<T>, depth, columns);
            multiply<false, false>(fromX, tile(1) + m * kPitch<T>, kPitch<T>, tile(3) + c0 * kPitch<T>, kPitch<T>, depth, columns);
            product += product_of(tile(2), tile(3), rows, depth);
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

    // products = C·Bᵀ, rows i, columns j ≤ i.
    __device__ inline void products(Sums& products)
    {
        for (int n = 0; n < shape.N; n += kSide)
        {
            __syncthreads();                                  // the tiles before have been read by all
            load_c(tile(0), n);
            load_b(tile(1), n, first, steps);
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
            load_x(tile(1), head, channel, first, steps);
            if (channel == 0 && warp == 0) sDecays.fill(shape, row, first, steps, head);
            tile_wait();
            __syncthreads();                                  // the tiles and decays are there
            multiply<false, false>(inner, tile(0) + m * kPitch<T>, kPitch<T>, tile(1) + c0 * kPitch<T>, kPitch<T>, round_up(min(kSide, shape.P - channel), 16), m + 16 - c0);
        }
        f32 rows[2] = {};
        pairs(products, inner, dproducts, tile(2), rows, false);
        put_row_sums(0, rows);
        f32 direct[2] = {}, skip = 0;                         // d(Δx)_j·x_j, dy·x
        for (int channel = 0; channel < shape.P; channel += kSide)
        {
            if (shape.P > kSide)
            {
                __syncthreads();                              // the channels before have been read by all
                load_dy(tile(0), head, channel);
                load_x(tile(1), head, channel, first, steps);
            }
            channels(head, channel, direct, skip);
        }
        put_row_sums(1, direct);
        put_warp_sum(2, skip);
        __syncthreads();                                      // all sums of this head are there
        exponents(head, h);
    }

    // d(Δx), and from it dx, of 64 channels.
    __device__ inline void channels(int head, int channel, f32 (&direct)[2], f32& skip)
    {
        const int columns = round_up(min(kSide, shape.P - channel), 16) - c0;
        load_skip(head, channel);
        Sums d = {};
        for (int n = 0; n < shape.N; n += kSide)
        {
            if (n > 0) __syncthreads();                       // the slice before has been read by all
            load_b(tile(3), n, first, steps);
            load_state(tile(4), args.dstates, head, n, channel);
            tile_wait();
            __syncthreads();                                  // the slice is there, D, and C·Bᵀ with its decay
            multiply<false, true>(d, tile(3) + m * kPitch<T>, kPitch<T>, tile(4) + c0, kPitch<T>, round_up(min(kSide, shape.N - n), 16), columns);
        }
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) d[j][part] *= sDecays.toEnd[m + fragment_row(part)];
        finish_channels(head, channel, d, tile(2), direct, skip);
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
            load_b(tile(1), n, first, steps);
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

    // This thread's share of the product of two tiles.
    __device__ inline f32 product_of(const E* sA, const E* sB, int rows, int columns) const
    {
        constexpr int V = 16 / sizeof(E);
        f32 sum = 0;
        #pragma unroll 2
        for (int k = threadIdx.x; k < rows * kSide / V; k += kSsdThreads)
        {
            const int r = k / (kSide / V), c = k % (kSide / V) * V;
            if (c >= columns) continue;
            f32 a[V], b[V];
            load<V>(a, sA + r * kPitch<T> + c);
            load<V>(b, sB + r * kPitch<T> + c);
            #pragma unroll
            for (int v = 0; v < V; v++) sum = fmaf(a[v], b[v], sum);
        }
        return sum;
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
    __shared__ SsdSums<kMaxHeads<T>> sSums;
    f32 products[J][4] = {}, dproducts[J][4] = {};
    SsdSlicedChunk<T> block(args, sDecays, sSums, sMemory);
    block.states();
    block.products(products);
    for (int h = 0; h < block.heads; h++) block.head(h, products, dproducts);
    block.gradients(dproducts);
}
