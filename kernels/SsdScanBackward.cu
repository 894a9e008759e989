// SsdScanBackward.cu
//
// Computes   the gradients of SsdScanForward.cu from the last chunk to the first. With dy behind the gate, dz = dy·ungated·silu'(z), the states S_0 and dS_Q at the borders of a
//            chunk, and decay_ij = exp(s_i − s_j), j ≤ i:  dS_0 = exp(s_Q)·dS_Q + Σ_i exp(s_i)·C_i·dy_iᵀ,   d(C·Bᵀ)_ij = Σ_heads decay_ij·Δ_j·(dy_i·x_j),
//            d(Δx)_j = Σ_i (C·Bᵀ)_ij·decay_ij·dy_i + exp(s_Q − s_j)·dS_Qᵀ·B_j,   dx = Δ·d(Δx) + D·dy,
//            dC = d(C·Bᵀ)·B + Σ_heads exp(s_i)·S_0·dy_i,   dB = d(C·Bᵀ)ᵀ·C + Σ_heads exp(s_Q − s_j)·Δ_j·dS_Q·x_j,
//            d(Δ_k·A) = Σ_{j<k≤i} R_ij + Σ_{i≥k} w_i + Σ_{j<k} u_j + exp(s_Q)·(dS_Q·S_0), with R = (C·Bᵀ)·decay·Δ·(dy·x), w and u what C_i and B_j meet in dC and dB
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6; the exponent's gradient as sums of pairs that k stands between, so that nothing cancels.
// Method     a block owns some heads of a group of one sequence, or of a segment of it, and walks the chunks backward, so that dS never stands at borders: it waits in slots, floats in
//            the order of the registers that change them, in shared memory as far as they fit there, else in global memory, from where the L2 cache gives them back. Of the states
//            every second is kept: that between follows from it and the chunk between. B, C and the sums of dB and dC of a chunk serve all heads of the block; blocks of the other
//            heads add theirs one after the other, in the order of their heads: each waits for the turn of the one before, which began before it, because blocks take their heads by
//            a ticket. The last writes dB and dC.
// Layout     as SsdScanForward.cu; dy, ungated, dx, dz [B, L, H, P]; states [borders, H, N, P] bf16; dfinal, dinitial [n, H, P, N] float, dinitial null where the first states are zero;
//            carried [n, segments − 1, H, ceil(P / 64), Slices, J, 256, 4], slots [blocks, slotsOfBlock, J, 256, 4] and turnSums [chunks, G, 2, Slices, J, 256, 4] float;
//            turns [chunks·G + 1], zero before, the last is the ticket; sums [chunks, H, 2 + skips] float: of dA, dBias, dD. Steps of dx, ddt, dB and dC lie dxStep, ddtStep, dBStep and dCStep apart; other gradients are contiguous.
// Launch     grid sequences·segments·G·shares, block 256; dynamic shared memory of 5 + 2·Slices tiles of 64 × 64, Slices more for B of the chunk before where they pay, and as many slots
//            of dS as fit, see SsdSweepPlan.
// Traffic    per step and head: reads 2·P elements and 1 of dt (4·P with a gate), every second chunk P + 1 more, and writes P + 1 (2·P + 1 with a gate); per chunk and head reads a
//            state, N·P elements, and N·P floats of each slot in global memory, which it writes too; per step and block reads 2·N elements of B and C, every second chunk N more
//            (for each head where they have no tiles); all blocks but the first of a group read and all but the last write 2·N floats, which writes 2·N elements.
// Precision  loads T, accumulates f32, stores T; as SsdScanForward.cu, states are bf16 as operands, and so are the decayed dy and x. Deterministic: no float atomics; turns fix the order
//            of additions; segments change no bit.
// Limits     64·(Slices − 1) < N ≤ 64·Slices; Q ≤ 64; fewer than 2³¹ chunks.
// Variants   ssd_scan_backward<bf16, {1|2}>
#include "common/SsdChunk.cuh"
#include "common/Turns.cuh"

template <typename T>
struct SsdBackwardArgs                                        // mirrored in CudaSsdScan.cs, field for field
{
    const T* ungated; const f32* dfinal; const f32* carried;
    T* dz; f32* dinitial; T* dB; T* dC; f32* slots; f32* turnSums; u32* turns;
    SsdChunkArgs<T> chunk;
    i64 chunks, dBStep, dCStep;                               // elements from a step of dB and of dC to the next
    i32 segments, chunksOfSegment, sharedSlots, slotsOfBlock, isBeforeKept, isGroupWide;
};

// Tiles: 0 dy, 1 x, 2 S_0, 3 dS_Q, 4 the decayed dy, then C·Bᵀ with its decay; from 5 on B and C by slices of 64 of N in turn; then B of the chunk before, where it is kept, and slots
// of dS.
template <typename T, int Slices>
struct SsdSweep : SsdChunkBlock<T, 1>
{
    using Block = SsdChunkBlock<T, 1>;
    using typename Block::E; using typename Block::Sums;
    using Block::shape; using Block::sDecays; using Block::sSums; using Block::chunk; using Block::row; using Block::first;
    using Block::firstHead; using Block::heads; using Block::steps; using Block::warp; using Block::m; using Block::c0; using Block::group; using Block::share; using Block::tile;
    using Block::load_dy; using Block::load_x; using Block::load_b; using Block::load_c; using Block::load_state;
    using Block::put_row_sums; using Block::put_warp_sum; using Block::warp_sums; using Block::pairs; using Block::load_skip;
    using Block::finish_channels; using Block::exponents;

    using Pairs = Pack<E, 2>[J][2];

    const SsdBackwardArgs<T>& args;
    u32 ticket;
    bool isBetween;                                           // the state before the chunk is not kept: it follows from that before the chunk before

    __device__ inline SsdSweep(const SsdBackwardArgs<T>& args, SsdDecays& sDecays, SsdSums<1>& sSums, u8* sMemory, u32 ticket) : Block(args.chunk, sDecays, sSums, sMemory), args(args), ticket(ticket)
    {
        this->own(ticket / args.chunk.shares % shape.G, ticket % args.chunk.shares);
    }

    // Made anew where they are needed: registers are short between.
    __device__ inline int segment() const { return ticket / args.chunk.shares / shape.G % args.segments; }
    __device__ inline i64 number() const { return ticket / args.chunk.shares / shape.G / args.segments; }
    __device__ inline i64 begin() const { return (i64)segment() * args.chunksOfSegment; }
    __device__ inline i64 chunks() const
    {
        const SsdSequence sequence(shape, number());
        return (sequence.end - sequence.begin + shape.Q - 1) / shape.Q;
    }

    __device__ inline E* b_tile(int slice) const { return tile(5 + 2 * slice); }
    __device__ inline E* c_tile(int slice) const { return tile(6 + 2 * slice); }
    __device__ inline E* before_tile(int slice) const { return tile(5 + 2 * Slices + slice); }
    __device__ inline int depth_of(int slice) const { return round_up(min(kSide, shape.N - slice * kSide), 16); }

    // Calls visit with this thread's part of dS of 64 channels of head h and a slice of N: in shared memory, or else in global.
    template <typename Shared, typename Global>
    __device__ inline void visit_slot(int h, int channel, int slice, Shared shared, Global global) const
    {
        const int at = (h * ((shape.P + kSide - 1) / kSide) + channel / kSide) * Slices + slice, part = threadIdx.x * 4;
        if (at < args.sharedSlots) shared(reinterpret_cast<f32*>(before_tile(args.isBeforeKept ? Slices : 0)) + at * kTileFloats + part);
        else global(args.slots + ((i64)ticket * args.slotsOfBlock + at - args.sharedSlots) * kTileFloats + part);
    }
    __device__ inline void take_global(Sums& dstate, const f32* from) const
    {
        #pragma unroll
        for (int j = 0; j < J; j++)
        {
            const float4 part = __ldcg(reinterpret_cast<const float4*>(from + j * kPartFloats));
            dstate[j][0] = part.x;
            dstate[j][1] = part.y;
            dstate[j][2] = part.z;
            dstate[j][3] = part.w;
        }
    }
    __device__ inline void take(Sums& dstate, int h, int channel, int slice) const
    {
        visit_slot(h, channel, slice,
            [&](const f32* slot)
            {
                #pragma unroll
                for (int j = 0; j < J; j++) load<4>(dstate[j], slot + j * kPartFloats);
            },
            [&](const f32* slot) { take_global(dstate, slot); });
    }
    __device__ inline void leave(const Sums& dstate, int h, int channel, int slice) const
    {
        visit_slot(h, channel, slice,
            [&](f32* slot)
            {
                #pragma unroll
                for (int j = 0; j < J; j++) stash<4>(slot + j * kPartFloats, dstate[j]);
            },
            [&](f32* slot)
            {
                #pragma unroll
                for (int j = 0; j < J; j++) store<4>(slot + j * kPartFloats, dstate[j]);
            });
    }

    // Calls visit(h, channel, slice) for all slots.
    template <typename Visit>
    __device__ inline void for_slots(Visit visit) const
    {
        #pragma unroll 1
        for (int h = 0; h < heads; h++)
            #pragma unroll 1
            for (int channel = 0; channel < shape.P; channel += kSide)
                #pragma unroll 1
                for (int slice = 0; slice < Slices; slice++) visit(h, channel, slice);
    }

    // Calls visit(at, part of dstate) for this thread's parts of a slot that are of a state [n, H, P, N], where at is their place.
    template <typename Visit>
    __device__ inline void for_parts(int h, int channel, int slice, Visit visit) const
    {
        const i64 head = shape.state(number(), firstHead + h);
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = slice * kSide + m + fragment_row(part), p = channel + c0 + 8 * j + fragment_column(part);
                if (n < shape.N && p < shape.P) visit(head + (i64)p * shape.N + n, j, part);
            }
    }

    // dS behind the last chunk.
    __device__ inline void enter_sweep() const
    {
        const bool isLast = begin() + args.chunksOfSegment >= chunks();
        for_slots([&](int h, int channel, int slice)
        {
            Sums dstate = {};
            if (!isLast)
            {
                const i64 border = (number() * (args.segments - 1) + segment()) * shape.H + firstHead + h;
                take_global(dstate, args.carried + (border * ((shape.P + kSide - 1) / kSide) + channel / kSide) * (Slices * kTileFloats) + slice * kTileFloats + threadIdx.x * 4);
            }
            else if (args.dfinal) for_parts(h, channel, slice, [&](i64 at, int j, int part) { dstate[j][part] = args.dfinal[at]; });
            leave(dstate, h, channel, slice);
        });
    }

    // dS before the first.
    __device__ inline void leave_sweep() const
    {
        if (!args.dinitial || segment() > 0) return;
        for_slots([&](int h, int channel, int slice)
        {
            Sums dstate;
            take(dstate, h, channel, slice);
            for_parts(h, channel, slice, [&](i64 at, int j, int part) { args.dinitial[at] = dstate[j][part]; });
        });
    }

    // B, C and C·Bᵀ, rows i, columns j ≤ i.
    __device__ inline void inputs(Sums& products)
    {
        for (int slice = 0; slice < Slices; slice++)
        {
            load_b(b_tile(slice), slice * kSide, first, steps);
            load_c(c_tile(slice), slice * kSide);
            if (isBetween && args.isBeforeKept) load_b(before_tile(slice), slice * kSide, first - shape.Q, shape.Q);
        }
        tile_wait();
        __syncthreads();                                      // B and C are there
        for (int slice = 0; slice < Slices; slice++)
            multiply<false, false>(products, c_tile(slice) + m * kPitch<T>, kPitch<T>, b_tile(slice) + c0 * kPitch<T>, kPitch<T>, depth_of(slice), m + 16 - c0);
    }

    // dy behind the gate into its tile, and dz.
    template <int V>
    __device__ inline void gate_dy(int head, int channel) const
    {
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
                f32 gate[V], y[V], dz[V];
                load<V>(d, args.chunk.dy + at);
                load<V>(gate, shape.z_at(row, first + i, head) + channel + p);
                load<V>(y, args.ungated + at);
                #pragma unroll
                for (int v = 0; v < V; v++)
                {
                    dz[v] = d[v] * y[v] * silu_slope(gate[v]);
                    d[v] *= silu(gate[v]);
                }
                store<V>(args.dz + at, dz);
            }
            stash<V>(tile(0) + i * kPitch<T> + p, d);
        }
    }

    // A tile with its rows times factors, to another or in place.
    __device__ inline void scale_rows(E* to, const E* from, const f32* factor, const f32* second, int columns) const
    {
        constexpr int V = 16 / sizeof(E);
        #pragma unroll 1
        for (int k = threadIdx.x; k < kSteps * kSide / V; k += kSsdThreads)
        {
            const int i = k / (kSide / V), p = k % (kSide / V) * V;
            if (p >= columns) continue;
            f32 row[V];
            load<V>(row, from + i * kPitch<T> + p);
            const f32 scale = second ? factor[i] * second[i] : factor[i];
            #pragma unroll
            for (int v = 0; v < V; v++) row[v] *= scale;
            stash<V>(to + i * kPitch<T> + p, row);
        }
    }

    // What a state gives to rows of dB or dC, times a factor of the row, and to the exponents through what the row meets.
    __device__ inline void add_rows(Sums& gradient, f32 (&sums)[2], const E* sRows, const E* sState, int depth, int columns, const f32* factor, const f32* second, const E* sOther) const
    {
        Sums from = {};
        multiply<false, false>(from, sRows + m * kPitch<T>, kPitch<T>, sState + c0 * kPitch<T>, kPitch<T>, depth, columns);
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

    // S_0 of a chunk whose border is not kept, 64 channels of a head, rounded as at borders: rows 64·slice + m …, columns c0 …. Tiles: 2 the state before the chunk before,
    // 3 B of that chunk where it is not kept, 4 its x on its way to the end.
    __device__ inline void state_between(Pairs (&before)[Slices > 1 ? Slices - 1 : 1], int head, int channel, int columns)
    {
        load_x(tile(4), head, channel, first - shape.Q, shape.Q);
        if (warp == 0) sDecays.fill(shape, row, first - shape.Q, shape.Q, head);
        #pragma unroll
        for (int slice = Slices - 1; slice >= 0; slice--)
        {
            const int n = slice * kSide;
            load_state(tile(2), args.chunk.states, head, n, channel);
            if (!args.isBeforeKept) load_b(tile(3), n, first - shape.Q, shape.Q);
            tile_wait();
            __syncthreads();                                  // the state and B are there, and with the first slice x and the decays
            if (slice == Slices - 1)
            {
                scale_rows(tile(4), tile(4), sDecays.toEnd, sDecays.delta, columns + c0);
                __syncthreads();                              // the decayed x is there
            }
            Sums state = {};
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int v = 0; v < 4 && 8 * j < columns; v += 2)
                {
                    f32 own[2];
                    load<2>(own, tile(2) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v));
                    state[j][v] = own[0] * sDecays.total;
                    state[j][v + 1] = own[1] * sDecays.total;
                }
            if (n + m < shape.N) multiply<true, true>(state, (args.isBeforeKept ? before_tile(slice) : tile(3)) + m, kPitch<T>, tile(4) + c0, kPitch<T>, round_up(shape.Q, 16), columns);
            __syncthreads();                                  // the tiles and the decays have been read by all
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int v = 0; v < 4; v += 2)
                {
                    const Pack<E, 2> pair = { { from_f32<E>(state[j][v]), from_f32<E>(state[j][v + 1]) } };
                    if (slice > 0) before[slice - 1][j][v / 2] = pair;
                    else *reinterpret_cast<Pack<E, 2>*>(tile(2) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v)) = pair;
                }
        }
    }

    // dx and ddt of a head, and dS before the chunk; adds to dB, dC and d(C·Bᵀ).
    __device__ inline void head(int h, const Sums& products, Sums& dproducts, Sums (&dB)[Slices], Sums (&dC)[Slices])
    {
        const int head = firstHead + h;
        f32 w[2] = {}, u[2] = {}, product = 0;
        #pragma unroll 1
        for (int channel = 0; channel < shape.P; channel += kSide)
        {
            Sums d = {};
            const int depth = round_up(min(kSide, shape.P - channel), 16), columns = depth - c0;
            __syncthreads();                                  // the tiles, decays and sums before have been read by all
            if (!shape.z) load_dy(tile(0), head, channel);
            else if (shape.isYWide) gate_dy<16 / sizeof(T)>(head, channel);
            else gate_dy<1>(head, channel);
            load_x(tile(1), head, channel, first, steps);
            load_skip(head, channel);
            Pairs before[Slices > 1 ? Slices - 1 : 1];
            if (isBetween) state_between(before, head, channel, columns);
            if ((channel == 0 || isBetween) && warp == 0) sDecays.fill(shape, row, first, steps, head);
            #pragma unroll
            for (int slice = 0; slice < Slices; slice++)
            {
                const int n = slice * kSide, wide = depth_of(slice) - c0;
                if (slice > 0) __syncthreads();               // the states of the slice before have been read by all
                if (!isBetween) load_state(tile(2), args.chunk.states, head, n, channel);
                else if (slice > 0)
                    #pragma unroll
                    for (int j = 0; j < J; j++)
                        #pragma unroll
                        for (int v = 0; v < 4; v += 2) *reinterpret_cast<Pack<E, 2>*>(tile(2) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v)) = before[slice - 1][j][v / 2];
                Sums dstate;                                  // rows n + m …, columns channel + c0 …
                take(dstate, h, channel, slice);
                #pragma unroll
                for (int j = 0; j < J; j++)
                    #pragma unroll
                    for (int v = 0; v < 4; v += 2) put_pair(tile(3) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v), dstate[j][v], dstate[j][v + 1]);
                tile_wait();
                __syncthreads();                              // the states are there, and with the first slice the other tiles and the decays
                if (slice == 0)
                {
                    scale_rows(tile(4), tile(0), sDecays.fromStart, nullptr, depth);
                    __syncthreads();                          // the decayed dy is there
                }
                const bool hasRows = n + m < shape.N;
                #pragma unroll
                for (int j = 0; j < J; j++)
                {
                    if (!hasRows || 8 * j >= columns) break;
                    #pragma unroll
                    for (int v = 0; v < 4; v += 2)
                    {
                        f32 state[2];
                        load<2>(state, tile(2) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v));
                        product = fmaf(dstate[j][v], state[0], fmaf(dstate[j][v + 1], state[1], product));
                    }
                }
                #pragma unroll
                for (int j = 0; j < J; j++)
                    #pragma unroll
                    for (int part = 0; part < 4; part++) dstate[j][part] *= sDecays.total;
                if (hasRows) multiply<true, true>(dstate, c_tile(slice) + m, kPitch<T>, tile(4) + c0, kPitch<T>, round_up(steps, 16), columns);
                leave(dstate, h, channel, slice);
                add_rows(dC[slice], w, tile(0), tile(2), depth, wide, sDecays.fromStart, nullptr, c_tile(slice));
                add_rows(dB[slice], u, tile(1), tile(3), depth, wide, sDecays.toEnd, sDecays.delta, b_tile(slice));
                multiply<false, true>(d, b_tile(slice) + m * kPitch<T>, kPitch<T>, tile(3) + c0, kPitch<T>, depth_of(slice), columns);
            }
            const bool isMore = channel > 0;
            f32 rows[2] = {}, direct[2] = {}, skip = 0;
            Sums inner = {};                                  // dy_i·x_j
            multiply<false, false>(inner, tile(0) + m * kPitch<T>, kPitch<T>, tile(1) + c0 * kPitch<T>, kPitch<T>, depth, m + 16 - c0);
            __syncthreads();                                  // the decayed dy and x have been read by all: C·Bᵀ and dx take their places
            pairs(products, inner, dproducts, tile(4), rows, isMore);
            put_row_sums(0, rows, isMore);
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) d[j][part] *= sDecays.toEnd[m + fragment_row(part)];
            __syncthreads();                                  // C·Bᵀ with its decay is there
            finish_channels(head, channel, d, tile(4), direct, skip);
            put_row_sums(1, direct, isMore);
            put_warp_sum(2, skip, isMore);
        }
        put_row_sums(2, w);
        put_row_sums(3, u);
        put_warp_sum(0, product);
        __syncthreads();                                      // the sums of all warps are there
        if (threadIdx.x < kSteps)
        {
            sSums.fromState[0][threadIdx.x] = sSums.row[2][0][threadIdx.x] + sSums.row[2][1][threadIdx.x];
            sSums.toState[0][threadIdx.x] = sSums.row[3][0][threadIdx.x] + sSums.row[3][1][threadIdx.x];
        }
        if (threadIdx.x == 0) sSums.whole[0] = sDecays.total * warp_sums(0);
        __syncthreads();                                      // they have been added up
        exponents(head, 0);
    }

    // Adds d(C·Bᵀ)·B to dC and d(C·Bᵀ)ᵀ·C to dB.
    __device__ inline void add_pairs(const Sums& dproducts, Sums (&dB)[Slices], Sums (&dC)[Slices])
    {
        // The last head left its tiles before it added up its sums: nobody reads them any more.
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_pair(tile(0) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v), dproducts[j][v], dproducts[j][v + 1]);
        __syncthreads();                                      // d(C·Bᵀ) is there
        #pragma unroll
        for (int slice = 0; slice < Slices; slice++)
        {
            const int columns = depth_of(slice) - c0;
            multiply<false, true>(dC[slice], tile(0) + m * kPitch<T>, kPitch<T>, b_tile(slice) + c0, kPitch<T>, m + 16, columns);
            multiply<true, true>(dB[slice], tile(0) + m * kPitch<T> + m, kPitch<T>, c_tile(slice) + m * kPitch<T> + c0, kPitch<T>, kSteps - m, columns);
        }
    }

    __device__ inline u32* turn() const { return args.turns + (i64)chunk * shape.G + group; }
    __device__ inline bool is_last_turn() const { return share == args.chunk.shares - 1; }

    // Adds the sums of dB or dC to those of the shares before; leaves them, or the whole in tiles.
    __device__ inline void add_turn(int matrix, Sums (&gradient)[Slices]) const
    {
        f32* sums = args.turnSums + (((i64)chunk * shape.G + group) * 2 + matrix) * (Slices * kTileFloats) + threadIdx.x * 4;
        #pragma unroll
        for (int slice = 0; slice < Slices; slice++)
            #pragma unroll
            for (int j = 0; j < J; j++)
            {
                f32* at = sums + slice * kTileFloats + j * kPartFloats;
                if (share > 0)
                {
                    const float4 before = __ldcg(reinterpret_cast<const float4*>(at));
                    gradient[slice][j][0] += before.x;
                    gradient[slice][j][1] += before.y;
                    gradient[slice][j][2] += before.z;
                    gradient[slice][j][3] += before.w;
                }
                if (!is_last_turn()) store<4>(at, gradient[slice][j]);
                else
                    #pragma unroll
                    for (int v = 0; v < 4; v += 2)
                        put_pair(tile(1 + matrix * Slices + slice) + (m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v), gradient[slice][j][v], gradient[slice][j][v + 1]);
            }
    }

    __device__ inline void store_gradient(T* to, i64 step, int matrix) const
    {
        to += (row * shape.L + first) * step + group * shape.N;
        for (int slice = 0; slice < Slices; slice++)
            store_tile<kSide>(to + slice * kSide, tile(1 + matrix * Slices + slice), steps, step, min(kSide, shape.N - slice * kSide), args.isGroupWide);
    }

    __device__ inline void walk()
    {
        const i64 count = min(chunks(), begin() + args.chunksOfSegment) - begin();
        if (segment() > 0 && count <= 0) return;              // a sequence with fewer segments
        enter_sweep();
        #pragma unroll 1
        for (i64 at = count - 1; at >= 0; at--)
        {
            this->enter(SsdSequence(shape, number()), begin() + at);
            isBetween = (begin() + at) % shape.chunksOfBorder != 0;
            if (!args.dinitial && begin() + at < shape.chunksOfBorder) this->border = -1;
            Sums products = {}, dproducts = {}, dB[Slices] = {}, dC[Slices] = {};
            inputs(products);
            #pragma unroll 1
            for (int h = 0; h < heads; h++) head(h, products, dproducts, dB, dC);
            add_pairs(dproducts, dB, dC);
            await_turn(turn(), share);
            add_turn(0, dB);
            add_turn(1, dC);
            __syncthreads();                                  // all have added theirs; B and C have been read by all
            if (!is_last_turn())
            {
                if (threadIdx.x == 0) give_turn(turn(), share + 1);
                continue;
            }
            store_gradient(args.dB, args.dBStep, 0);
            store_gradient(args.dC, args.dCStep, 1);
        }
        leave_sweep();
    }
};

template <typename T, int Slices>
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_backward(const SsdBackwardArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays;
    __shared__ SsdSums<1> sSums;
    __shared__ u32 sTicket;
    // A block that waits for another began after it, in whatever order blocks start.
    if (threadIdx.x == 0) sTicket = atomicAdd(args.turns + args.chunks * args.chunk.shape.G, 1u);
    __syncthreads();                                          // the ticket is there
    SsdSweep<T, Slices>(args, sDecays, sSums, sMemory, sTicket).walk();
}
