// SsdScanChunkBackward.cu
//
// Computes   the gradients of SsdScanForward.cu within each chunk. With dy behind the gate, dS_0 and dS_Q of the states at the borders of a chunk, and
//            decay_ij = exp(s_i − s_j), j ≤ i:  d(C·Bᵀ)_ij = Σ_heads decay_ij·Δ_j·(dy_i·x_j),
//            d(Δx)_j = Σ_i (C·Bᵀ)_ij·decay_ij·dy_i + exp(s_Q − s_j)·dS_Qᵀ·B_j,   dx = Δ·d(Δx) + D·dy,
//            dC = d(C·Bᵀ)·B + Σ_heads exp(s_i)·S_0·dy_i,   dB = d(C·Bᵀ)ᵀ·C + Σ_heads exp(s_Q − s_j)·Δ_j·dS_Q·x_j,
//            d(Δ_k·A) = Σ_{j<k≤i} R_ij + Σ_{i≥k} w_i + Σ_{j<k} u_j + exp(s_Q)·(dS_Q·S_0), with R = (C·Bᵀ)·decay·Δ·(dy·x), w and u what C_i and B_j meet in dC and dB
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6; the exponent's gradient as sums of pairs that k stands between, so that nothing cancels.
// Method     a block owns a chunk and some heads of a group, with C·Bᵀ and its gradient in registers. isResident: B and C stay in shared memory and the sums of dB and dC in
//            registers, and each head is worked out from one reading of its operands. Else first the products with the states by slices of 64 of N, then those within
//            the chunk head by head, then those of d(C·Bᵀ).
// Layout     as SsdScanForward.cu; dy, dx [B, L, H, P]; states, dstates [chunks, H, N, P], bf16 or float as the tiles; dB and dC by share [shares, B, L, G, N] float;
//            sums [chunks, H, 2 + skips] float: of dA, dBias, dD. Steps of dx and ddt lie dxStep and ddtStep apart.
// Launch     grid chunks·G·shares, block 256; dynamic shared memory of tiles of 64 × 64: isResident 5 and two for each 64 of N, 63 or 81 KiB of bf16; else 5, 45 KiB of
//            bf16, 85 KiB of floats. A share of a group's heads has at least 2.
// Traffic    per step and head: reads 2·P elements and 1 of dt, writes P + 1; per chunk and head the state and dS_Q, N·P elements each; per step and block reads 2·N elements of
//            B and C and writes 2·N floats of their gradients. Not isResident: reads 2·P elements for each further 64 of N and once more, 1 of dt more, dS_Q twice, B for
//            each 64 of P, and C and B once more; and per step and block 3·N more of B and C, and 4·N floats more.
// Precision  loads T, accumulates f32, stores T; as SsdScanForward.cu, states are bf16 as operands. Deterministic: no atomics, fixed order of additions.
// Limits     N ≤ 256, isResident N ≤ 128; Q ≤ 64; else a block owns at most kMaxHeads heads.
// Variants   ssd_scan_chunk_backward<{f32|bf16|f16}, false>; ssd_scan_chunk_backward<bf16, true>
#include "common/SsdChunk.cuh"

template <typename T> constexpr int kMaxHeads = sizeof(Border<T>) == 2 ? 16 : 8;           // of a block; large enough to share B and C, small enough for shared memory

// Any sizes: operands come as often as they are needed, by slices of 64 of N.
template <typename T>
struct SsdSlicedChunk : SsdChunkBlock<T, kMaxHeads<T>>
{
    using Block = SsdChunkBlock<T, kMaxHeads<T>>;
    using Block::Block;
    using typename Block::E; using typename Block::Sums;
    using Block::args; using Block::shape; using Block::sDecays; using Block::sSums; using Block::chunk; using Block::row; using Block::first;
    using Block::firstHead; using Block::heads; using Block::steps; using Block::warp; using Block::m; using Block::c0; using Block::group; using Block::tile;
    using Block::load_dy; using Block::load_x; using Block::load_b; using Block::load_c; using Block::load_state; using Block::product_of;
    using Block::gradient_at; using Block::put_row_sums; using Block::put_warp_sum; using Block::warp_sums; using Block::pairs; using Block::load_skip;
    using Block::finish_channels; using Block::exponents; using Block::for_each;

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
            load_state(tile(2), args.states, head, n, channel);
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
        pairs(products, inner, dproducts, tile(2));
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
            load_b(tile(3), n);
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
};

// 16 bits and few states: B and C of the chunk stay in shared memory, the sums of dB and dC in registers, and each operand of a head comes once. Tiles: 0 dy, 1 x, 2 S_0,
// 3 dS_Q, 4 C·Bᵀ with its decay; from 5 on B and C by slices of 64 of N in turn.
template <typename T>
struct SsdResidentChunk : SsdChunkBlock<T, 1>
{
    using Block = SsdChunkBlock<T, 1>;
    using Block::Block;
    using typename Block::E; using typename Block::Sums;
    using Block::args; using Block::shape; using Block::sDecays; using Block::sSums; using Block::chunk; using Block::row; using Block::first;
    using Block::firstHead; using Block::heads; using Block::steps; using Block::warp; using Block::m; using Block::c0; using Block::group; using Block::tile;
    using Block::load_dy; using Block::load_x; using Block::load_b; using Block::load_c; using Block::load_state; using Block::product_of;
    using Block::gradient_at; using Block::put_row_sums; using Block::put_warp_sum; using Block::warp_sums; using Block::pairs; using Block::load_skip;
    using Block::finish_channels; using Block::exponents; using Block::for_each; using Block::put_decayed;

    static constexpr int kSlices = 2;

    __device__ inline E* b_tile(int slice) const { return tile(5 + 2 * slice); }
    __device__ inline E* c_tile(int slice) const { return tile(6 + 2 * slice); }
    __device__ inline int depth_of(int slice) const { return round_up(max(0, min(kSide, shape.N - slice * kSide)), 16); }

    // B, C and C·Bᵀ, rows i, columns j ≤ i.
    __device__ inline void inputs(Sums& products)
    {
        for (int slice = 0; slice * kSide < shape.N; slice++)
        {
            load_b(b_tile(slice), slice * kSide);
            load_c(c_tile(slice), slice * kSide);
        }
        tile_wait();
        __syncthreads();                                      // B and C are there
        for (int slice = 0; slice * kSide < shape.N; slice++)
            multiply<false, false>(products, c_tile(slice) + m * kPitch<T>, kPitch<T>, b_tile(slice) + c0 * kPitch<T>, kPitch<T>, depth_of(slice), m + 16 - c0);
    }

    // What a state gives to rows of dB or dC, times a factor of the row, and to the exponents through what the row meets.
    __device__ inline void add_rows(Sums& gradient, f32 (&sums)[2], const Sums& from, const f32* factor, const f32* second, const E* sOther, int columns) const
    {
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const int i = m + fragment_row(2 * r);
            const f32 scale = second ? factor[i] * second[i] : factor[i];
            #pragma unroll
            for (int j = 0; j < J; j++)
            {
                if (8 * j >= columns) break;
                f32 other[2];
                load<2>(other, sOther + i * kPitch<T> + c0 + 8 * j + fragment_column(0));
                #pragma unroll
                for (int v = 0; v < 2; v++)
                {
                    const f32 term = from[j][2 * r + v] * scale;
                    gradient[j][2 * r + v] += term;
                    sums[r] = fmaf(term, other[v], sums[r]);
                }
            }
        }
    }

    // dx and ddt of a head; adds to dB, dC and d(C·Bᵀ).
    __device__ inline void head(int h, const Sums& products, Sums& dproducts, Sums (&dB)[kSlices], Sums (&dC)[kSlices])
    {
        const int head = firstHead + h;
        Sums inner = {};                                      // dy_i·x_j
        f32 w[2] = {}, u[2] = {}, direct[2] = {}, product = 0, skip = 0;
        for (int channel = 0; channel < shape.P; channel += kSide)
        {
            Sums d = {};
            const int depth = round_up(min(kSide, shape.P - channel), 16), columns = depth - c0;
            #pragma unroll
            for (int slice = 0; slice < kSlices; slice++)
            {
                const int n = slice * kSide, rows = shape.N - n;
                if (slice > 0 && rows <= 0) break;
                __syncthreads();                              // the tiles, decays and sums before have been read by all
                if (slice == 0)
                {
                    load_dy(tile(0), head, channel);
                    load_x(tile(1), head, channel);
                    load_skip(head, channel);
                    if (channel == 0 && warp == 0) sDecays.fill(shape, row, first, steps, head);
                }
                load_state(tile(2), args.states, head, n, channel);
                load_state(tile(3), args.dstates, head, n, channel);
                tile_wait();
                __syncthreads();                              // the tiles and decays are there
                if (slice == 0)
                {
                    if (channel == 0) put_decayed(tile(4), products);
                    multiply<false, false>(inner, tile(0) + m * kPitch<T>, kPitch<T>, tile(1) + c0 * kPitch<T>, kPitch<T>, depth, m + 16 - c0);
                }
                const int wide = depth_of(slice) - c0;
                Sums fromDy = {}, fromX = {};
                multiply<false, false>(fromDy, tile(0) + m * kPitch<T>, kPitch<T>, tile(2) + c0 * kPitch<T>, kPitch<T>, depth, wide);
                add_rows(dC[slice], w, fromDy, sDecays.fromStart, nullptr, c_tile(slice), wide);
                multiply<false, false>(fromX, tile(1) + m * kPitch<T>, kPitch<T>, tile(3) + c0 * kPitch<T>, kPitch<T>, depth, wide);
                add_rows(dB[slice], u, fromX, sDecays.toEnd, sDecays.delta, b_tile(slice), wide);
                product += product_of(tile(2), tile(3), min(kSide, rows), depth);
                multiply<false, true>(d, b_tile(slice) + m * kPitch<T>, kPitch<T>, tile(3) + c0, kPitch<T>, depth_of(slice), columns);
            }
            __syncthreads();                                  // C·Bᵀ with its decay is there, and x has been read by all: dx takes its place
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) d[j][part] *= sDecays.toEnd[m + fragment_row(part)];
            finish_channels(head, channel, d, tile(4), direct, skip);
        }
        put_row_sums(0, w);
        put_row_sums(1, u);
        put_warp_sum(0, product);
        __syncthreads();                                      // the sums of all warps are there
        if (threadIdx.x < kSteps)
        {
            sSums.fromState[0][threadIdx.x] = sSums.row[0][0][threadIdx.x] + sSums.row[0][1][threadIdx.x];
            sSums.toState[0][threadIdx.x] = sSums.row[1][0][threadIdx.x] + sSums.row[1][1][threadIdx.x];
        }
        if (threadIdx.x == 0) sSums.whole[0] = sDecays.total * warp_sums(0);
        __syncthreads();                                      // they have been added up: others take their places
        pairs(products, inner, dproducts, nullptr);
        put_row_sums(1, direct);
        put_warp_sum(2, skip);
        __syncthreads();                                      // all sums of this head are there
        exponents(head, 0);
    }

    // Adds d(C·Bᵀ)·B to dC and d(C·Bᵀ)ᵀ·C to dB, and leaves both.
    __device__ inline void gradients(const Sums& dproducts, Sums (&dB)[kSlices], Sums (&dC)[kSlices])
    {
        // The last head left its tiles before it added up its sums: nobody reads them any more.
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_pair(tile(0) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v), dproducts[j][v], dproducts[j][v + 1]);
        __syncthreads();                                      // d(C·Bᵀ) is there
        #pragma unroll
        for (int slice = 0; slice < kSlices; slice++)
        {
            const int columns = depth_of(slice) - c0;
            if (slice * kSide >= shape.N) break;
            multiply<false, true>(dC[slice], tile(0) + m * kPitch<T>, kPitch<T>, b_tile(slice) + c0, kPitch<T>, m + 16, columns);
            multiply<true, true>(dB[slice], tile(0) + m * kPitch<T> + m, kPitch<T>, c_tile(slice) + m * kPitch<T> + c0, kPitch<T>, kSteps - m, columns);
            for_each(slice * kSide, [&](int j, int part, i64 at) { args.dB[at] = dB[slice][j][part]; args.dC[at] = dC[slice][j][part]; }, [](int, int) {});
        }
    }
};

template <typename T, bool isResident>
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_chunk_backward(const SsdChunkBackwardArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays;
    __shared__ SsdSums<isResident ? 1 : kMaxHeads<T>> sSums;
    f32 products[J][4] = {}, dproducts[J][4] = {};
    if constexpr (isResident)
    {
        SsdResidentChunk<T> block(args, sDecays, sSums, sMemory);
        f32 dB[2][J][4] = {}, dC[2][J][4] = {};
        block.inputs(products);
        for (int h = 0; h < block.heads; h++) block.head(h, products, dproducts, dB, dC);
        block.gradients(dproducts, dB, dC);
    }
    else
    {
        SsdSlicedChunk<T> block(args, sDecays, sSums, sMemory);
        block.states();
        block.products(products);
        for (int h = 0; h < block.heads; h++) block.head(h, products, dproducts);
        block.gradients(dproducts);
    }
}
