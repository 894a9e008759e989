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
//            Heads come by pieces of W channels, so that float tiles are no larger than those of bf16. Sums of dB and dC of 64·Slices states stand in registers, and B and C of as many
//            in shared memory. Where N is more, a chunk is walked in passes over the heads, each with its states; each hands d(Δx) to the next, and sums for the exponents. With 256
//            states and B and C in shared memory (bf16: sm_80 and sm_90, f32: sm_90) there is one pass and no register left; a block for each half of N, with d(Δx) in turns too,
//            would read and write as much as two passes do.
// Layout     as SsdScanForward.cu; dy, ungated, dx, dz [B, L, H, P]; states [borders, H, N, P] bf16 or float as the tiles; dfinal, dinitial [n, H, P, N] float, dinitial null where the
//            first states are zero; carried [n, segments − 1, H, ceil(P / W), ceil(N / 64), W / 16, 256, 4], slots [blocks, slotsOfBlock, W / 16, 256, 4],
//            handed [blocks, headsOfShare, ceil(P / W)·64·W + 264] and turnSums [chunks, G, 2, ceil(N / 64), J, 256, 4] float; turns [chunks·G·passes + 1], zero before, the last is the
//            ticket; sums [chunks, H, 2 + skips] float: of dA, dBias, dD. Steps of dx, ddt, dB and dC lie dxStep, ddtStep, dBStep and dCStep apart; other gradients are contiguous.
// Launch     grid sequences·segments·G·shares, block 256; W = 64 for bf16 and 32 for float tiles. Dynamic shared memory of 5 tiles of 64 × W and 2·Slices of 64 × 64, Slices more for B of
//            the chunk before where they pay, and as many slots of dS as fit, see SsdSweepPlan.
// Traffic    per step and head, for each pass: reads 2·P elements and 1 of dt (3·P with a gate, 4·P the first), every second chunk P + 1 more; writes P + 1 (2·P + 1 with a gate); per chunk
//            and head reads a state, N·P elements, and N·P floats of slots, as far as they are in global memory, which it writes too; all passes but the first read and all but the last write
//            ceil(P / W)·64·W + 264 floats. Per step and block reads 2·N elements of B and C, twice those of all passes but the last, every second chunk N more (for each piece of each head
//            where they have no tiles); all blocks but the first of a group read and all but the last write 2·N floats, which writes 2·N elements.
// Precision  loads T, accumulates f32, stores T; as SsdScanForward.cu, f32 and f16 have float tiles and multiply-adds, and of bf16 states are bf16 as operands, and so are the decayed C
//            and B. Deterministic: no float atomics; turns fix the order of additions; segments change no bit.
// Limits     passes·64·Slices ≥ N; Q ≤ 64; fewer than 2³¹ chunks.
// Variants   ssd_scan_backward<bf16, {1|2|4}, true>; ssd_scan_backward<bf16, 2, false>; ssd_scan_backward<{f32|f16}, {1|2|4}, true>; ssd_scan_backward<{f32|f16}, {1|2}, false>
#include "common/SsdChunk.cuh"
#include "common/Turns.cuh"

template <typename T>
struct SsdBackwardArgs                                        // mirrored in CudaSsdScan.cs, field for field
{
    const T* ungated; const f32* dfinal; const f32* carried;
    T* dz; f32* dinitial; T* dB; T* dC; f32* slots; f32* handed; f32* turnSums; u32* turns;
    SsdChunkArgs<T> chunk;
    i64 chunks, dBStep, dCStep;                               // elements from a step of dB and of dC to the next
    i32 segments, chunksOfSegment, passes, sharedSlots, slotsOfBlock, isBeforeKept, isGroupWide;
};

// Tiles of pieces: 0 dy, 1 x, 2 dS_Q, 3 S_0, 4 x of the chunk before; in the place of the last two C·Bᵀ with its decay. Then tiles of 64 × 64: B and C by slices of 64 of N in turn, as
// many as a pass has; then B of the chunk before, where it is kept. Then slots of dS.
template <typename T, int Slices, bool isWhole>
struct SsdSweep : SsdChunkBlock<T>
{
    using Block = SsdChunkBlock<T>;
    using typename Block::E; using typename Block::Sums; using typename Block::Piece;
    using Block::shape; using Block::sDecays; using Block::sSums; using Block::chunk; using Block::row; using Block::first;
    using Block::firstHead; using Block::heads; using Block::steps; using Block::warp; using Block::m; using Block::c0; using Block::p0; using Block::group; using Block::share; using Block::tile;
    using Block::load_dy; using Block::load_x; using Block::load_b; using Block::load_c; using Block::load_state;
    using Block::put_row_sums; using Block::put_warp_sum; using Block::pairs; using Block::load_skip;
    using Block::finish_channels; using Block::exponents;

    static constexpr int kPieces = 5, kHandedSums = kSsdThreads + kSsdThreads / kWarp;
    static constexpr int kRowsBefore = kPieceElements<T> / kPitch<T> / 16 * 16;            // of B of the chunk before that the place of dS_Q takes
    static_assert(2 * kPieceElements<T> >= kTileElements<T>, "two neighbouring pieces hold a tile");

    const SsdBackwardArgs<T>& args;
    SsdDecays& sBefore;                                       // of the chunk before; toEnd is times Δ
    SsdPlace& sPlace;
    const u32& ticket;
    const bool& isBetween;
    int pass;                                                 // of the chunk, each over Slices of N; isWhole: there is one

    __device__ inline SsdSweep(const SsdBackwardArgs<T>& args, SsdDecays& sDecays, SsdDecays& sBefore, SsdSums& sSums, SsdPlace& sPlace, u8* sMemory)
        : Block(args.chunk, sDecays, sSums, sPlace, sMemory), args(args), sBefore(sBefore), sPlace(sPlace), ticket(sPlace.ticket), isBetween(sPlace.isBetween) { }

    // Made anew where they are needed: registers are short between.
    __device__ inline int segment() const { return ticket / args.chunk.shares / shape.G % args.segments; }
    __device__ inline i64 number() const { return ticket / args.chunk.shares / shape.G / args.segments; }
    __device__ inline i64 begin() const { return (i64)segment() * args.chunksOfSegment; }
    __device__ inline i64 chunks() const
    {
        const SsdSequence sequence(shape, number());
        return (sequence.end - sequence.begin + shape.Q - 1) / shape.Q;
    }
    __device__ inline int slices() const { return (shape.N + kSide - 1) / kSide; }
    __device__ inline int pieces() const { return (shape.P + kPiece<T> - 1) / kPiece<T>; }

    // Slices are counted from the first of the pass on; each pass has that, and all but the last have all.
    __device__ inline int base() const { return isWhole ? 0 : pass * Slices; }
    __device__ inline bool has(int slice) const { return slice == 0 || base() + slice < slices(); }
    __device__ inline bool is_first_pass() const { return isWhole || pass == 0; }
    __device__ inline bool is_last_pass() const { return isWhole || base() + Slices >= slices(); }
    __device__ inline int n_of(int slice) const { return (base() + slice) * kSide; }
    __device__ inline int depth_of(int slice) const { return round_up(min(kSide, shape.N - n_of(slice)), 16); }

    __device__ inline E* group_tile(int i) const { return tile(kPieces) + i * kTileElements<T>; }
    __device__ inline E* b_tile(int slice) const { return group_tile(2 * slice); }
    __device__ inline E* c_tile(int slice) const { return group_tile(2 * slice + 1); }
    __device__ inline E* before_tile(int slice) const { return group_tile(2 * Slices + slice); }

    // Calls visit with this thread's part of dS of a piece of head h and a slice of N: in shared memory, or else in global.
    template <typename Shared, typename Global>
    __device__ inline void visit_slot(int h, int channel, int slice, Shared shared, Global global) const
    {
        const int at = (h * pieces() + channel / kPiece<T>) * slices() + slice, part = threadIdx.x * 4;
        if (at < args.sharedSlots) shared(reinterpret_cast<f32*>(before_tile(args.isBeforeKept ? Slices : 0)) + at * kPieceFloats<T> + part);
        else global(args.slots + ((i64)ticket * args.slotsOfBlock + at - args.sharedSlots) * kPieceFloats<T> + part);
    }

    // Adds this thread's part of a tile or a piece in global memory, which this block or one before wrote.
    template <int J>
    static __device__ inline void add_global(f32 (&to)[J][4], const f32* from)
    {
        #pragma unroll
        for (int j = 0; j < J; j++)
        {
            const float4 part = __ldcg(reinterpret_cast<const float4*>(from + j * kPartFloats));
            to[j][0] += part.x;
            to[j][1] += part.y;
            to[j][2] += part.z;
            to[j][3] += part.w;
        }
    }
    __device__ inline void take(Piece& dstate, int h, int channel, int slice) const
    {
        visit_slot(h, channel, slice,
            [&](const f32* slot)
            {
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++) load<4>(dstate[j], slot + j * kPartFloats);
            },
            [&](const f32* slot)
            {
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++) dstate[j][0] = dstate[j][1] = dstate[j][2] = dstate[j][3] = 0;
                add_global(dstate, slot);
            });
    }
    __device__ inline void leave(const Piece& dstate, int h, int channel, int slice) const
    {
        visit_slot(h, channel, slice,
            [&](f32* slot)
            {
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++) stash<4>(slot + j * kPartFloats, dstate[j]);
            },
            [&](f32* slot)
            {
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++) store<4>(slot + j * kPartFloats, dstate[j]);
            });
    }

    // Calls visit(h, channel, slice) for all slots.
    template <typename Visit>
    __device__ inline void for_slots(Visit visit) const
    {
        #pragma unroll 1
        for (int h = 0; h < heads; h++)
            #pragma unroll 1
            for (int channel = 0; channel < shape.P; channel += kPiece<T>)
                #pragma unroll 1
                for (int slice = 0; slice < slices(); slice++) visit(h, channel, slice);
    }

    // Calls visit(at, part of dstate) for this thread's parts of a slot that are of a state [n, H, P, N], where at is their place.
    template <typename Visit>
    __device__ inline void for_parts(int h, int channel, int slice, Visit visit) const
    {
        const i64 head = shape.state(number(), firstHead + h);
        #pragma unroll
        for (int j = 0; j < kPieceParts<T>; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = slice * kSide + m + fragment_row(part), p = channel + p0() + 8 * j + fragment_column(part);
                if (n < shape.N && p < shape.P) visit(head + (i64)p * shape.N + n, j, part);
            }
    }

    // dS behind the last chunk.
    __device__ inline void enter_sweep() const
    {
        const bool isLast = begin() + args.chunksOfSegment >= chunks();
        for_slots([&](int h, int channel, int slice)
        {
            Piece dstate = {};
            if (!isLast)
            {
                const i64 border = (number() * (args.segments - 1) + segment()) * shape.H + firstHead + h;
                add_global(dstate, args.carried + ((border * pieces() + channel / kPiece<T>) * slices() + slice) * kPieceFloats<T> + threadIdx.x * 4);
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
            Piece dstate;
            take(dstate, h, channel, slice);
            for_parts(h, channel, slice, [&](i64 at, int j, int part) { args.dinitial[at] = dstate[j][part]; });
        });
    }

    // B and C of the pass. Of the last also C·Bᵀ, rows i, columns j ≤ i: the slices before come once more, by the same tiles.
    __device__ inline void inputs(Sums& products)
    {
        #pragma unroll 1
        for (int from = is_last_pass() ? 0 : base(); from <= base(); from += Slices)
        {
            if (!isWhole && (pass > 0 || from > 0)) __syncthreads();                       // the slices before, or the sums in their places, have been read by all
            for (int slice = 0; slice < Slices && from + slice < slices(); slice++)
            {
                const int n = (from + slice) * kSide;
                load_b(b_tile(slice), n, first, steps);
                load_c(c_tile(slice), n);
                if (from == base() && isBetween && args.isBeforeKept) load_b(before_tile(slice), n, first - shape.Q, shape.Q);
            }
            tile_wait();
            __syncthreads();                                  // B and C are there
            for (int slice = 0; slice < Slices && is_last_pass(); slice++)
                multiply<false, false>(products, c_tile(slice) + m * kPitch<T>, kPitch<T>, b_tile(slice) + c0 * kPitch<T>, kPitch<T>, round_up(min(kSide, shape.N - (from + slice) * kSide), 16), m + 16 - c0);
        }
    }

    // What a pass hands to the next of a head: d(Δx) of its pieces, as a slot; then sums of w and u along rows and of dS_Q·S_0.
    __device__ inline f32* handed(int h) const { return args.handed + ((i64)ticket * args.chunk.headsOfShare + h) * (pieces() * kPieceFloats<T> + kHandedSums); }
    __device__ inline f32* handed_piece(int h, int channel) const { return handed(h) + channel / kPiece<T> * kPieceFloats<T> + threadIdx.x * 4; }
    __device__ inline void visit_sums(f32* sums, bool isTaken)
    {
        f32& own = (&sSums.row[2][0][0])[threadIdx.x];
        f32& warps = sSums.warp[0][threadIdx.x % (kSsdThreads / kWarp)];
        if (isTaken) own = __ldcg(sums + threadIdx.x);
        else sums[threadIdx.x] = own;
        if (threadIdx.x >= kSsdThreads / kWarp) return;
        if (isTaken) warps = __ldcg(sums + kSsdThreads + threadIdx.x);
        else sums[kSsdThreads + threadIdx.x] = warps;
    }

    // Δ and the decays of the chunk, and of the one before where its state is needed.
    __device__ inline void fill_decays(int head)
    {
        if (warp >= (isBetween ? 2 : 1)) return;
        SsdDecays& decays = warp == 0 ? sDecays : sBefore;
        decays.fill(shape, row, warp == 0 ? first : first - shape.Q, warp == 0 ? steps : shape.Q, head);
        if (warp == 0) return;
        for (int i = threadIdx.x % kWarp; i < kSteps; i += kWarp) decays.toEnd[i] *= decays.delta[i];              // a lane's own
    }

    // dy behind the gate into its tile, and dz.
    template <int V>
    __device__ inline void gate_dy(int head, int channel) const
    {
        load_gated<V>(shape, tile(0), args.chunk.dy, row, first, steps, head, channel, [&](i64 at, const f32 (&d)[V], const f32 (&gate)[V])
        {
            if (!is_first_pass()) return;
            f32 y[V], dz[V];
            load<V>(y, args.ungated + at);
            #pragma unroll
            for (int v = 0; v < V; v++) dz[v] = d[v] * y[v] * silu_slope(gate[v]);
            store<V>(args.dz + at, dz);
        });
    }

    // What a state gives to rows of dB or dC, times a factor of the row, and to the exponents through what the row meets.
    __device__ inline void add_rows(Sums& gradient, int matrix, bool isMore, const E* sRows, const E* sState, int depth, int columns, const f32* factor, const f32* second, const E* sOther)
    {
        f32 sums[2] = {};
        Sums from = {};
        multiply<false, false>(from, sRows + m * kPiecePitch<T>, kPiecePitch<T>, sState + c0 * kPiecePitch<T>, kPiecePitch<T>, depth, columns);
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
        put_row_sums(matrix, sums, isMore);
    }

    // S_0 of a chunk whose border is not kept, a piece of a slice, rounded as at borders, in the place of the state before the chunk before. B of that chunk, where it is not kept, comes
    // to the place of dS_Q by as many rows as fit.
    __device__ inline void state_between(int slice, int columns)
    {
        const int n = n_of(slice), rows = args.isBeforeKept ? kSteps : kRowsBefore;
        E* own = tile(3) + m * kPiecePitch<T> + p0();
        Piece state = {};
        #pragma unroll 1
        for (int step = 0; step < kSteps && step < shape.Q; step += rows)
        {
            if (step > 0) __syncthreads();                    // the rows before have been read by all
            if (!args.isBeforeKept) load_b<kRowsBefore>(tile(2), n, first - shape.Q + step, shape.Q - step);
            tile_wait();
            __syncthreads();                                  // B is there, and with its first rows the state, x and the decays
            if (step == 0)
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++)
                    #pragma unroll
                    for (int v = 0; v < 4 && 8 * j < columns; v += 2)
                    {
                        f32 before[2];
                        load<2>(before, own + fragment_row(v) * kPiecePitch<T> + 8 * j + fragment_column(v));
                        state[j][v] = before[0] * sBefore.total;
                        state[j][v + 1] = before[1] * sBefore.total;
                    }
            if (n + m < shape.N)
                multiply_scaled<true, true>(state, (args.isBeforeKept ? before_tile(slice) : tile(2)) + m, kPitch<T>, tile(4) + step * kPiecePitch<T> + p0(), kPiecePitch<T>,
                    min(rows, round_up(shape.Q, 16) - step), columns, sBefore.toEnd + step);
        }
        put_part(own, kPiecePitch<T>, state);
        if (!args.isBeforeKept) __syncthreads();              // B has been read by all: dS takes its place
    }

    // dS before the chunk of a head, and what the states give to dB, dC and d(C·Bᵀ); in the last pass dx and ddt.
    __device__ inline void head(int h, const Sums& products, Sums& dproducts, Sums (&dB)[Slices], Sums (&dC)[Slices])
    {
        const int head = firstHead + h;
        #pragma unroll 1
        for (int channel = 0; channel < shape.P; channel += kPiece<T>)
        {
            this->find_warp();
            Piece d = {};                                     // d(Δx), rows j
            if (!is_first_pass()) add_global(d, handed_piece(h, channel));
            const int depth = round_up(min(kPiece<T>, shape.P - channel), 16), columns = depth - p0();
            __syncthreads();                                  // the tiles, decays and sums before have been read by all
            if (!shape.z) load_dy(tile(0), head, channel);
            else if (shape.isYWide) gate_dy<16 / sizeof(T)>(head, channel);
            else gate_dy<1>(head, channel);
            load_x(tile(1), head, channel, first, steps);
            if (isBetween) load_x(tile(4), head, channel, first - shape.Q, shape.Q);
            load_skip(head, channel);
            if (channel == 0)
            {
                fill_decays(head);
                if (!is_first_pass()) visit_sums(handed(h) + pieces() * kPieceFloats<T>, true);
            }
            #pragma unroll
            for (int slice = 0; slice < Slices; slice++)
            {
                if (!has(slice)) break;
                this->find_warp();
                const int n = n_of(slice), wide = depth_of(slice) - c0;
                if (slice > 0) __syncthreads();               // the states of the slice before have been read by all
                load_state(tile(3), head, n, channel);
                if (isBetween) state_between(slice, columns);
                Piece dstate;                                 // rows n + m …, columns channel + p0 …
                take(dstate, h, channel, base() + slice);
                put_part(tile(2) + m * kPiecePitch<T> + p0(), kPiecePitch<T>, dstate);
                tile_wait();
                __syncthreads();                              // the states are there, and with the first slice the other tiles and the decays
                const bool hasRows = n + m < shape.N, isMore = slice > 0 || channel > 0 || !is_first_pass();
                f32 product = 0;
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++)
                {
                    if (!hasRows || 8 * j >= columns) break;
                    #pragma unroll
                    for (int v = 0; v < 4; v += 2)
                    {
                        f32 state[2];
                        load<2>(state, tile(3) + (m + fragment_row(v)) * kPiecePitch<T> + p0() + 8 * j + fragment_column(v));
                        product = fmaf(dstate[j][v], state[0], fmaf(dstate[j][v + 1], state[1], product));
                    }
                }
                put_warp_sum(0, product, isMore);
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++)
                    #pragma unroll
                    for (int part = 0; part < 4; part++) dstate[j][part] *= sDecays.total;
                if (hasRows) multiply_scaled<true, true>(dstate, c_tile(slice) + m, kPitch<T>, tile(0) + p0(), kPiecePitch<T>, round_up(steps, 16), columns, sDecays.fromStart);
                leave(dstate, h, channel, base() + slice);
                add_rows(dC[slice], 2, isMore, tile(0), tile(3), depth, wide, sDecays.fromStart, nullptr, c_tile(slice));
                add_rows(dB[slice], 3, isMore, tile(1), tile(2), depth, wide, sDecays.toEnd, sDecays.delta, b_tile(slice));
                multiply<false, true>(d, b_tile(slice) + m * kPitch<T>, kPitch<T>, tile(2) + p0(), kPiecePitch<T>, depth_of(slice), columns);
            }
            this->find_warp();
            Sums inner = {};                                  // dy_i·x_j
            multiply<false, false>(inner, tile(0) + m * kPiecePitch<T>, kPiecePitch<T>, tile(1) + c0 * kPiecePitch<T>, kPiecePitch<T>, depth, m + 16 - c0);
            const bool isMore = channel > 0;
            f32 rows[2] = {};
            __syncthreads();                                  // the state and x have been read by all: C·Bᵀ and dx take their places
            pairs(products, inner, dproducts, tile(3), rows, isMore);
            put_row_sums(0, rows, isMore);
            if (!is_last_pass())
            {
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++) store<4>(handed_piece(h, channel) + j * kPartFloats, d[j]);
                continue;
            }
            f32 direct[2] = {}, skip = 0;
            #pragma unroll
            for (int j = 0; j < kPieceParts<T>; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) d[j][part] *= sDecays.toEnd[m + fragment_row(part)];
            __syncthreads();                                  // C·Bᵀ with its decay is there
            finish_channels(head, channel, d, tile(3), direct, skip);
            put_row_sums(1, direct, isMore);
            put_warp_sum(3, skip, isMore);
        }
        __syncthreads();                                      // the sums of all warps are there
        if (is_last_pass()) exponents(head);
        else visit_sums(handed(h) + pieces() * kPieceFloats<T>, false);
    }

    // Adds d(C·Bᵀ)·B to dC and d(C·Bᵀ)ᵀ·C to dB.
    __device__ inline void add_pairs(const Sums& dproducts, Sums (&dB)[Slices], Sums (&dC)[Slices])
    {
        // The last head left its tiles before it added up its sums: nobody reads them any more.
        put_part(tile(0) + m * kPitch<T> + c0, kPitch<T>, dproducts);
        __syncthreads();                                      // d(C·Bᵀ) is there
        #pragma unroll
        for (int slice = 0; slice < Slices; slice++)
        {
            if (!has(slice)) break;
            const int columns = depth_of(slice) - c0;
            multiply<false, true>(dC[slice], tile(0) + m * kPitch<T>, kPitch<T>, b_tile(slice) + c0, kPitch<T>, m + 16, columns);
            multiply<true, true>(dB[slice], tile(0) + m * kPitch<T> + m, kPitch<T>, c_tile(slice) + m * kPitch<T> + c0, kPitch<T>, kSteps - m, columns);
        }
    }

    __device__ inline u32* turn() const { return args.turns + ((i64)chunk * shape.G + group) * args.passes + (isWhole ? 0 : pass); }
    __device__ inline bool is_last_turn() const { return share == args.chunk.shares - 1; }

    // Adds the sums of dB or dC to those of the shares before; leaves them, or the whole in the places of B or C.
    __device__ inline void add_turn(int matrix, Sums (&gradient)[Slices]) const
    {
        f32* sums = args.turnSums + ((((i64)chunk * shape.G + group) * 2 + matrix) * slices() + base()) * kTileFloats + threadIdx.x * 4;
        #pragma unroll
        for (int slice = 0; slice < Slices; slice++)
        {
            if (!has(slice)) break;
            f32* at = sums + slice * kTileFloats;
            if (share > 0) add_global(gradient[slice], at);
            if (is_last_turn()) put_part(group_tile(2 * slice + matrix) + m * kPitch<T> + c0, kPitch<T>, gradient[slice]);
            else
                #pragma unroll
                for (int j = 0; j < J; j++) store<4>(at + j * kPartFloats, gradient[slice][j]);
        }
    }

    __device__ inline void store_gradient(T* to, i64 step, int matrix) const
    {
        to += (row * shape.L + first) * step + group * shape.N + base() * kSide;
        #pragma unroll 1
        for (int slice = 0; slice < Slices && has(slice); slice++)
            store_tile<kSide>(to + slice * kSide, group_tile(2 * slice + matrix), steps, step, min(kSide, shape.N - n_of(slice)), args.isGroupWide);
    }

    // Some slices of N of a chunk.
    __device__ inline void walk_pass()
    {
        Sums products = {}, dproducts = {}, dB[Slices] = {}, dC[Slices] = {};
        inputs(products);
        #pragma unroll 1
        for (int h = 0; h < heads; h++) head(h, products, dproducts, dB, dC);
        add_pairs(dproducts, dB, dC);
        await_turn(turn(), share);
        __syncthreads();                                      // B and C have been read by all
        add_turn(0, dB);
        add_turn(1, dC);
        __syncthreads();                                      // all have added theirs
        if (!is_last_turn())
        {
            if (threadIdx.x == 0) give_turn(turn(), share + 1);
            return;
        }
        store_gradient(args.dB, args.dBStep, 0);
        store_gradient(args.dC, args.dCStep, 1);
    }

    __device__ inline void walk()
    {
        const int count = (int)(min(chunks(), begin() + args.chunksOfSegment) - begin());
        if (segment() > 0 && count <= 0) return;              // a sequence with fewer segments
        enter_sweep();
        if (threadIdx.x == 0) sPlace.number = begin() + count;
        #pragma unroll 1
        for (bool isMore = count > 0; isMore; isMore = sPlace.number > begin())
        {
            __syncthreads();                                  // all know that there is one more, and have left the chunk behind it
            if (threadIdx.x == 0) sPlace.enter(shape, SsdSequence(shape, number()), sPlace.number - 1, args.dinitial);
            __syncthreads();                                  // the chunk's place is there
            #pragma unroll 1
            for (pass = 0; pass < (isWhole ? 1 : args.passes); pass++) walk_pass();
        }
        leave_sweep();
    }
};

template <typename T, int Slices, bool isWhole>
__global__ void __launch_bounds__(kSsdThreads, 1) ssd_scan_backward(const SsdBackwardArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays, sBefore;
    __shared__ SsdSums sSums;
    __shared__ SsdPlace sPlace;
    // A block that waits for another began after it, in whatever order blocks start.
    if (threadIdx.x == 0) sPlace.own(args.chunk, atomicAdd(args.turns + args.chunks * args.chunk.shape.G * args.passes, 1u));
    __syncthreads();                                          // the ticket is there
    SsdSweep<T, Slices, isWhole>(args, sDecays, sBefore, sSums, sPlace, sMemory).walk();
}
