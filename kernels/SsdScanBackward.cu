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
//            The block's warps are two teams, each with 32 rows by 32 columns a warp, so that a fragment of B serves two products: one has dS, dC and what the exponents take of them, the other dB,
//            d(Δx), dx and the states between borders. What R = (C·Bᵀ)·decay·(dy·x) adds up to along columns, and the states' d(Δx) along x, gives ddt and the exponents without another look at x.
//            Heads come by pieces of W channels, so that float tiles are no larger than those of bf16. Sums of dB and dC of 64·Slices states stand in registers, and B and C of as many
//            in shared memory. Where N is more, a chunk is walked in passes over the heads, each with its states; each hands d(Δx) to the next, and sums for the exponents. With 256
//            states and B and C in shared memory (bf16: sm_80 and sm_90, f32: sm_90) there is one pass and no register left; a block for each half of N, with d(Δx) in turns too,
//            would read and write as much as two passes do.
// Layout     as SsdScanForward.cu; dy, ungated, dx, dz [B, L, H, P]; states [borders, H, N, P] bf16 or float as the tiles; dfinal, dinitial [n, H, P, N] float, dinitial null where the
//            first states are zero; carried [n, segments − 1, H, ceil(P / W), ceil(N / 64), W / 16, 256, 4], slots [blocks, slotsOfBlock, W / 16, 256, 4],
//            handed [blocks, headsOfShare, ceil(P / W)·64·W + 132] and turnSums [chunks, G, 2, ceil(N / 64), J, 256, 4] float; turns [chunks·G·passes + 1], zero before, the last is the
//            ticket; sums [chunks, H, 2 + skips] float: of dA, dBias, dD. Steps of dx, ddt, dB and dC lie dxStep, ddtStep, dBStep and dCStep apart; other gradients are contiguous.
// Launch     grid sequences·segments·G·shares, block 256; W = 64 for bf16 and 32 for float tiles. Dynamic shared memory of 5 tiles of 64 × W and 2·Slices of 64 × 64, Slices more for B of
//            the chunk before where they pay, and as many slots of dS as fit, see SsdSweepPlan.
// Traffic    per step and head, for each pass: reads 2·P elements and 1 of dt (3·P with a gate, 4·P the first), every second chunk P + 1 more; writes P + 1 (2·P + 1 with a gate); per chunk
//            and head reads a state, N·P elements, and N·P floats of slots, as far as they are in global memory, which it writes too; all passes but the first read and all but the last write
//            ceil(P / W)·64·W + 132 floats. Per step and block reads 2·N elements of B and C, twice those of all passes but the last, every second chunk N more (for each piece of each head
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
    using typename Block::E; using typename Block::Sums; using typename Block::TeamSums; using typename Block::TeamPiece;
    using Piece = f32[kPieceParts<T>][4];                     // 16 rows by half of a piece
    using Block::shape; using Block::sDecays; using Block::sSums; using Block::chunk; using Block::row; using Block::first;
    using Block::firstHead; using Block::heads; using Block::steps; using Block::warp; using Block::m; using Block::m2; using Block::c0; using Block::p0; using Block::is_second; using Block::group; using Block::share; using Block::tile;
    using Block::load_dy; using Block::load_x; using Block::load_b; using Block::load_c; using Block::load_state;
    using Block::put_row_sums; using Block::put_warp_sum; using Block::pairs; using Block::load_skip;
    using Block::meet_channels; using Block::finish_channels; using Block::exponents;

    static constexpr int kPieces = 5, kHandedSums = 2 * kSteps + kSsdThreads / kWarp / 2;
    static constexpr int kWalk = Slices > 2 ? kLooped : kUnrolled;                          // with more slices the code would be too long
    static constexpr bool kPutsEach = Slices > 2;             // sums of each slice, as registers are short
    static constexpr int kRounds = Slices > 2 ? 2 : 1, kRowsAtOnce = 2 / kRounds;          // in rounds come sums beside those of 64·Slices states: registers are short
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

    // Where the thread stands that has the same lane of the r-th 16 rows of this warp's 32, if every warp has 16: the order of slots, sums and pieces in memory.
    __device__ inline int place(int r) const { return ((m2 / 16 + r) * 2 + warp % 2) * kWarp + threadIdx.x % kWarp; }

    // Calls visit with the part of dS of a piece of head h and a slice of N of the thread at a place: in shared memory, or else in global.
    template <typename Shared, typename Global>
    __device__ inline void visit_slot(int h, int channel, int slice, int place, Shared shared, Global global) const
    {
        const int at = (h * pieces() + channel / kPiece<T>) * slices() + slice, part = place * 4;
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
    __device__ inline void take(Piece& dstate, int h, int channel, int slice, int place) const
    {
        visit_slot(h, channel, slice, place,
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
    __device__ inline void leave(const Piece& dstate, int h, int channel, int slice, int place) const
    {
        visit_slot(h, channel, slice, place,
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
            leave(dstate, h, channel, slice, threadIdx.x);
        });
    }

    // dS before the first.
    __device__ inline void leave_sweep() const
    {
        if (!args.dinitial || segment() > 0) return;
        for_slots([&](int h, int channel, int slice)
        {
            Piece dstate;
            take(dstate, h, channel, slice, threadIdx.x);
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
                multiply_rows<false, false, false, kPitch<T>, kPitch<T>>(products, c_tile(slice) + m * kPitch<T>, b_tile(slice) + c0 * kPitch<T>, 16, round_up(min(kSide, shape.N - (from + slice) * kSide), 16),
                    m + 16 - c0);
        }
    }

    // What a pass hands to the next of a head: d(Δx) of its pieces, as slots; then sums of w along rows and of dS_Q·S_0.
    __device__ inline f32* handed(int h) const { return args.handed + ((i64)ticket * args.chunk.headsOfShare + h) * (pieces() * kPieceFloats<T> + kHandedSums); }
    __device__ inline f32* handed_piece(int h, int channel, int r) const { return handed(h) + channel / kPiece<T> * kPieceFloats<T> + place(r) * 4; }
    __device__ inline void visit_sums(f32* sums, bool isTaken)
    {
        const int at = threadIdx.x;
        if (at >= kHandedSums) return;
        f32& own = at < 2 * kSteps ? sSums.row[2][at / kSteps][at % kSteps] : sSums.warp[0][at - 2 * kSteps];
        if (isTaken) own = __ldcg(sums + at);
        else sums[at] = own;
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

    // What a state gives to rows of dB or dC, times factors of the row: dB of the second team, dC of the first, and there what C meets in it, but for the factor.
    template <bool isOfC>
    __device__ __forceinline__ void add_rows(TeamSums& gradient, const E* sRows, const E* sState, int depth, int columns, f32 (&met)[2][2], const E* sC) const
    {
        #pragma unroll
        for (int from = 0; from < 2; from += kRowsAtOnce)
        {
            const int first = m2 + 16 * from;
            f32 sums[kRowsAtOnce][J][4] = {};
            multiply_rows<false, false, false, kPiecePitch<T>, kPiecePitch<T>, kWalk>(sums, sRows + first * kPiecePitch<T>, sState + c0 * kPiecePitch<T>, 16 * kRowsAtOnce, depth, columns);
            #pragma unroll
            for (int r = 0; r < kRowsAtOnce; r++)
            {
                const int i = first + 16 * r + fragment_row(0);
                f32 scale[2];
                #pragma unroll
                for (int half = 0; half < 2; half++) scale[half] = isOfC ? sDecays.fromStart[i + 8 * half] : sDecays.toEnd[i + 8 * half] * sDecays.delta[i + 8 * half];
                #pragma unroll
                for (int j = 0; j < J; j += 2)
                {
                    if (8 * j >= columns) break;
                    f32 other[2][4];
                    if constexpr (isOfC) load_square<kPitch<T>>(other, sC + (first + 16 * r) * kPitch<T> + c0 + 8 * j);
                    #pragma unroll
                    for (int part = 0; part < 8; part++)
                    {
                        const f32 term = sums[r][j + part / 4][part % 4];
                        f32& own = gradient[from + r][j + part / 4][part % 4];
                        own = fmaf(term, scale[part % 4 / 2], own);
                        if constexpr (isOfC) met[from + r][part % 4 / 2] = fmaf(term, other[part / 4][part % 4], met[from + r][part % 4 / 2]);
                    }
                }
            }
        }
    }

    // S_0 of a chunk whose border is not kept, a piece of a slice, rounded as at borders, in the place of the state before the chunk before: by the second team. B of that chunk, where it is
    // not kept, comes to the place of dS_Q by as many rows as fit.
    __device__ __forceinline__ void state_between(int slice, int columns)
    {
        const int n = n_of(slice), rows = args.isBeforeKept ? kSteps : kRowsBefore;
        #pragma unroll 1
        for (int step = 0; step < kSteps && step < shape.Q; step += rows)
        {
            if (step > 0) __syncthreads();                    // the rows before have been read by all
            if (!args.isBeforeKept) load_b<kRowsBefore>(tile(2), n, first - shape.Q + step, shape.Q - step);
            tile_wait();
            __syncthreads();                                  // B is there, and with its first rows the state, x and the decays
            if (!is_second()) continue;
            #pragma unroll
            for (int from = 0; from < 2; from += kRowsAtOnce)
            {
                f32 state[kRowsAtOnce][kPieceParts<T>][4] = {};
                E* own = tile(3) + (m2 + 16 * from) * kPiecePitch<T> + p0();
                const f32 total = step == 0 ? sBefore.total : 1.0f;
                #pragma unroll
                for (int r = 0; r < kRowsAtOnce; r++)
                    #pragma unroll
                    for (int j = 0; j < kPieceParts<T>; j += 2)
                    {
                        if (8 * j >= columns) break;
                        f32 before[2][4];
                        load_square<kPiecePitch<T>>(before, own + 16 * r * kPiecePitch<T> + 8 * j);
                        #pragma unroll
                        for (int part = 0; part < 8; part++) state[r][j + part / 4][part % 4] = before[part / 4][part % 4] * total;
                    }
                multiply_rows<true, true, true, kPitch<T>, kPiecePitch<T>, kWalk>(state, (args.isBeforeKept ? before_tile(slice) : tile(2)) + m2 + 16 * from, tile(4) + step * kPiecePitch<T> + p0(),
                    depth_of(slice) - m2 - 16 * from, min(rows, round_up(shape.Q, 16) - step), columns, sBefore.toEnd + step);
                squares_are_read<E>();                        // S_0 takes the place of the state before
                put_rows<kPiecePitch<T>>(own, state);
            }
        }
        if (!args.isBeforeKept) __syncthreads();              // B has been read by all: dS takes its place
    }

    // The first team: dS before the chunk, of a piece and a slice, in its slot; what C meets in dC, and dS_Q·S_0.
    __device__ __forceinline__ void walk_state(TeamPiece& dstate, int h, int channel, int slice, int columns, f32& product)
    {
        const int rows = depth_of(slice) - m2;
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            if (16 * r >= rows) break;
            #pragma unroll
            for (int j = 0; j < kPieceParts<T>; j += 2)
            {
                if (8 * j >= columns) break;
                f32 state[2][4];
                load_square<kPiecePitch<T>>(state, tile(3) + (m2 + 16 * r) * kPiecePitch<T> + p0() + 8 * j);
                #pragma unroll
                for (int part = 0; part < 8; part++)
                {
                    f32& own = dstate[r][j + part / 4][part % 4];
                    product = fmaf(own, state[part / 4][part % 4], product);
                    own *= sDecays.total;
                }
            }
        }
        multiply_rows<true, true, true, kPitch<T>, kPiecePitch<T>, kWalk>(dstate, c_tile(slice) + m2, tile(0) + p0(), rows, round_up(steps, 16), columns, sDecays.fromStart);
        #pragma unroll
        for (int r = 0; r < 2; r++) leave(dstate[r], h, channel, base() + slice, place(r));
    }

    // What slices of a state gave.
    __device__ inline void put_state_sums(f32& product, f32 (&met)[2][2], bool isMore)
    {
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const int i = m2 + 16 * r + fragment_row(0);
            met[r][0] *= sDecays.fromStart[i];
            met[r][1] *= sDecays.fromStart[i + 8];
            put_row_sums(2, m2 + 16 * r, met[r], isMore);
            met[r][0] = met[r][1] = 0;
        }
        put_warp_sum(0, warp, product, isMore);
        product = 0;
    }

    // Slices of a piece, from one on: a loop of them is too long to be unrolled.
    template <int Slice>
    __device__ __forceinline__ void walk_slices(int h, int channel, int depth, int columns, TeamPiece& part, TeamSums (&gradient)[Slices], f32& product, f32 (&met)[2][2])
    {
        if (!has(Slice)) return;
        this->find_warp();
        const int wide = depth_of(Slice) - c0;
        if (Slice > 0) __syncthreads();                       // the states of the slice before have been read by all
        load_state(tile(3), firstHead + h, n_of(Slice), channel);
        if (isBetween) state_between(Slice, columns);
        if (!is_second())
        {
            #pragma unroll
            for (int r = 0; r < 2; r++) take(part[r], h, channel, base() + Slice, place(r));
            put_rows<kPiecePitch<T>>(tile(2) + m2 * kPiecePitch<T> + p0(), part);
        }
        tile_wait();
        __syncthreads();                                      // the states are there, and with the first slice the other tiles and the decays
        if (!is_second())
        {
            walk_state(part, h, channel, Slice, columns, product);
            add_rows<true>(gradient[Slice], tile(0), tile(3), depth, wide, met, c_tile(Slice));
            if (kPutsEach) put_state_sums(product, met, Slice > 0 || channel > 0 || !is_first_pass());
        }
        else
        {
            multiply_rows<false, true, false, kPitch<T>, kPiecePitch<T>, kWalk>(part, b_tile(Slice) + m2 * kPitch<T>, tile(2) + p0(), 32, depth_of(Slice), columns);
            add_rows<false>(gradient[Slice], tile(1), tile(2), depth, wide, met, nullptr);
        }
        if constexpr (Slice + 1 < Slices) walk_slices<Slice + 1>(h, channel, depth, columns, part, gradient, product, met);
    }

    // dS before the chunk of a head, and what the states give to dB, dC and d(C·Bᵀ); in the last pass dx and ddt.
    __device__ __forceinline__ void head(int h, const Sums& products, Sums& dproducts, TeamSums (&gradient)[Slices])
    {
        const int head = firstHead + h;
        #pragma unroll 1
        for (int channel = 0; channel < shape.P; channel += kPiece<T>)
        {
            this->find_warp();
            TeamPiece part = {};                              // of the second team d(Δx), rows j; of the first dS of a slice, rows n
            if (is_second() && !is_first_pass())
                #pragma unroll
                for (int r = 0; r < 2; r++) add_global(part[r], handed_piece(h, channel, r));
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
            f32 product = 0, met[2][2] = {};
            walk_slices<0>(h, channel, depth, columns, part, gradient, product, met);
            this->find_warp();
            const bool isMore = channel > 0;
            if (!is_second())
            {
                if (!kPutsEach) put_state_sums(product, met, isMore || !is_first_pass());
            }
            else if (is_last_pass()) meet_channels(part, columns, isMore);
            else
                #pragma unroll
                for (int r = 0; r < 2; r++)
                    #pragma unroll
                    for (int j = 0; j < kPieceParts<T>; j++) store<4>(handed_piece(h, channel, r) + j * kPartFloats, part[r][j]);
            __syncthreads();                                  // the state has been read by all: C·Bᵀ takes its place
            this->find_warp();
            pairs<0, 32 / kRounds>(products, dproducts, tile(3), depth, isMore);
            if constexpr (kRounds > 1) pairs<16, 16>(products, dproducts, tile(3), depth, isMore);
            if (!is_last_pass()) continue;
            __syncthreads();                                  // C·Bᵀ with its decay is there, x has been read, and the sums of all warps are there
            this->find_warp();
            if (is_second()) finish_channels(head, channel, part, tile(3), columns);
            else if (channel + kPiece<T> >= shape.P) exponents(head);
        }
        if (is_last_pass()) return;
        __syncthreads();                                      // the sums of all warps are there
        visit_sums(handed(h) + pieces() * kPieceFloats<T>, false);
    }

    // Adds d(C·Bᵀ)·B to dC and d(C·Bᵀ)ᵀ·C to dB.
    __device__ inline void add_pairs(const Sums& dproducts, TeamSums (&gradient)[Slices])
    {
        __syncthreads();                                      // the tiles of the last head have been read by all
        put_rows<kPitch<T>>(tile(0) + m * kPitch<T> + c0, dproducts);
        __syncthreads();                                      // d(C·Bᵀ) is there
        #pragma unroll
        for (int slice = 0; slice < Slices; slice++)
        {
            if (!has(slice)) break;
            const int columns = depth_of(slice) - c0;
            if (!is_second()) multiply_rows<false, true, false, kPitch<T>, kPitch<T>, kLowerTriangle>(gradient[slice], tile(0) + m2 * kPitch<T>, b_tile(slice) + c0, 32, m2 + 32, columns);
            else multiply_rows<true, true, false, kPitch<T>, kPitch<T>, kUpperTriangle>(gradient[slice], tile(0) + m2 * kPitch<T> + m2, c_tile(slice) + m2 * kPitch<T> + c0, 32, kSteps - m2, columns);
        }
    }

    __device__ inline u32* turn() const { return args.turns + ((i64)chunk * shape.G + group) * args.passes + (isWhole ? 0 : pass); }
    __device__ inline bool is_last_turn() const { return share == args.chunk.shares - 1; }

    // Adds the team's sums to those of the shares before; leaves them, or the whole in the places of B or C.
    __device__ inline void add_turn(TeamSums (&gradient)[Slices]) const
    {
        const int matrix = is_second() ? 0 : 1;
        f32* sums = args.turnSums + ((((i64)chunk * shape.G + group) * 2 + matrix) * slices() + base()) * kTileFloats;
        #pragma unroll
        for (int slice = 0; slice < Slices; slice++)
        {
            if (!has(slice)) break;
            #pragma unroll
            for (int r = 0; r < 2; r++)
            {
                f32* at = sums + slice * kTileFloats + place(r) * 4;
                if (share > 0) add_global(gradient[slice][r], at);
                if (!is_last_turn())
                    #pragma unroll
                    for (int j = 0; j < J; j++) store<4>(at + j * kPartFloats, gradient[slice][r][j]);
            }
            if (is_last_turn()) put_rows<kPitch<T>>(group_tile(2 * slice + matrix) + m2 * kPitch<T> + c0, gradient[slice]);
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
    __device__ __forceinline__ void walk_pass()
    {
        Sums products = {}, dproducts = {};
        TeamSums gradient[Slices] = {};                       // dC of the first team, dB of the second
        inputs(products);
        #pragma unroll 1
        for (int h = 0; h < heads; h++) head(h, products, dproducts, gradient);
        add_pairs(dproducts, gradient);
        await_turn(turn(), share);
        __syncthreads();                                      // B and C have been read by all
        add_turn(gradient);
        __syncthreads();                                      // all have added theirs
        if (!is_last_turn())
        {
            if (threadIdx.x == 0) give_turn(turn(), share + 1);
            return;
        }
        store_gradient(args.dB, args.dBStep, 0);
        store_gradient(args.dC, args.dCStep, 1);
    }

    __device__ __forceinline__ void walk()
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
