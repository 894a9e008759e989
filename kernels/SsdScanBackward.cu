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
//            The block's warps are two teams, each with a loop of its own, so that neither keeps the other's registers. A warp of the first has 16·R of N with all channels and all steps: dS, dC
//            and what the exponents take of them. So dC stands the other way round, [n, i]: S_0 [n, p] is the left side of its product as it comes from global memory, or as the sums that made it
//            stand in registers, and the fragments of C that change dS are also what dC's sums meet in w, and those of S_0 what dS meets. A warp of the second has as much of dB, [n, j], and 32 rows
//            by half of the channels of d(Δx) and dx; where registers allow 16 rows of pairs of steps too. With 65 to 128 states and tiles of 16 bits R is 2: a fragment of a right side serves two
//            products. What R_ij = (C·Bᵀ)·decay·(dy·x) adds up to along columns, and the states' d(Δx) along x, gives ddt and the exponents without another look at x. D of a head stands on the
//            diagonal of (C·Bᵀ)·decay·Δ, so that D·dy is no walk of its own.
//            Heads come by pieces of W channels, so that float tiles are no larger than those of bf16. Sums of dB and dC of 64·Slices states stand in registers, and B and C of as many
//            in shared memory. Where N is more, a chunk is walked in passes over the heads, each with its states; each hands d(Δx) to the next, and sums for the exponents. With 256
//            states and B and C in shared memory (bf16: sm_80 and sm_90, f32: sm_90) there is one pass and no register left; a block for each half of N, with d(Δx) in turns too,
//            would read and write as much as two passes do.
// Layout     as SsdScanForward.cu; dy, ungated, dx, dz [B, L, H, P]; states [borders, H, N, P] bf16 or float as the tiles; dfinal, dinitial [n, H, P, N] float, dinitial null where the
//            first states are zero; carried [n, segments − 1, H, ceil(P / W), ceil(N / 64), W / 16, 256, 4], slots [blocks, slotsOfBlock, W / 16, 256, 4],
//            handed [blocks, headsOfShare, ceil(P / W)·64·W + 68] and turnSums [chunks, G, 2, ceil(N / 64)·4, 8, 32, 4] float; turns [chunks·G·passes + 1], zero before, the last is the
//            ticket; sums [chunks, H, 2 + skips] float: of dA, dBias, dD. Steps of dx, ddt, dB and dC lie dxStep, ddtStep, dBStep and dCStep apart; other gradients are contiguous.
// Launch     grid sequences·segments·G·shares, block 256; W = 64 for bf16 and 32 for float tiles. Dynamic shared memory of 5 tiles of 64 × W and 2·Slices of 64 × 64, Slices more for B of
//            the chunk before where they pay, and as many slots of dS as fit, see SsdSweepPlan.
// Traffic    per step and head, for each pass: reads 2·P elements and 1 of dt (3·P with a gate, 4·P the first), every second chunk P + 1 more; writes P + 1 (2·P + 1 with a gate); per chunk
//            and head reads a state, N·P elements, and N·P floats of slots, as far as they are in global memory, which it writes too; all passes but the first read and all but the last write
//            ceil(P / W)·64·W + 68 floats. Per step and block reads 2·N elements of B and C, twice those of all passes but the last, every second chunk N more (for each piece of each head
//            where they have no tiles); all blocks but the first of a group read and all but the last write 2·N floats, which writes 2·N elements.
// Precision  loads T, accumulates f32, stores T; as SsdScanForward.cu, f32 and f16 have float tiles and multiply-adds, and of bf16 states are bf16 as operands, and so are the decayed C
//            and B, and C·Bᵀ with its decay, Δ and D. Deterministic: no float atomics; turns fix the order of additions; segments change no bit, and packed sequences have the bits of each alone.
//            Sums for B and C round by the heads of a block, which rows of a batch and multiprocessors decide (SsdSweepPlan).
// Limits     passes·64·Slices ≥ N; Q ≤ 64; H·P, G, sequences, chunks and the grid below 2³¹.
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

// Tiles of pieces: 0 dy, 1 x, 2 dS_Q of a round, 3 its other 64 rows or of floats S_0, 4 x of the chunk before. C·Bᵀ with its decay has that of the chunk before, or 3 where a round has 64 rows; of
// floats 2 and 3. Then tiles of 64 × 64: B and C by slices of 64 of N in turn, as many as a pass has; then B of the chunk before, where it is kept. Then slots of dS.
template <typename T, int Slices, bool isWhole>
struct SsdSweep : SsdChunkBlock<T>
{
    using Block = SsdChunkBlock<T>;
    using typename Block::E; using typename Block::TeamPiece;
    using Piece = f32[kPieceParts<T>][4];                     // 16 rows by half of a piece
    using Block::shape; using Block::sDecays; using Block::sSums; using Block::border; using Block::chunk; using Block::row; using Block::first;
    using Block::firstHead; using Block::heads; using Block::steps; using Block::warp; using Block::m; using Block::m2; using Block::c0; using Block::p0; using Block::is_second; using Block::group; using Block::share; using Block::tile;
    using Block::load_dy; using Block::load_x; using Block::load_b; using Block::load_c;
    using Block::put_sum; using Block::put_warp_sum; using Block::pairs; using Block::load_skip;
    using Block::meet_channels; using Block::finish_channels; using Block::exponents; using Block::met_of;

    static constexpr int kPieces = 5, kHandedSums = kSteps + kSsdThreads / kWarp / 2;
    static constexpr int kWalk = Slices > 2 ? kLooped : kUnrolled;                          // with more slices the code would be too long
    // The second team has all pairs of steps, or both teams have, as registers are short. With tiles of 16 bits it makes them before d(Δx): C·Bᵀ then has a place that is free.
    static constexpr bool isPairedBySecond = Slices <= 2, isPairedFirst = !kIsSame<E, f32>;
    // A team's four warps have 16·kRows of N each in a round, all channels of a piece and all steps.
    static constexpr int kRows = !kIsSame<E, f32> && Slices == 2 ? 2 : 1, kRounds = Slices / kRows, kColumns = kSteps / 8, kChannels = kPiece<T> / 8;
    using Pairs = f32[isPairedBySecond ? kColumns : kColumns / 2][4];                      // of 16 steps and those up to them, or half of those
    static constexpr int kPairTile = !isPairedFirst ? 2 : kRows == 2 ? 4 : 3;
    using Gradient = f32[kRows][kColumns][4];                 // of dC or dB, the other way round
    using Rows = f32[kRows][kChannels][4];                    // of a state or dS
    using Left = LeftRows<E, kRows, kChannels / 2, kPiecePitch<T>>;
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

    // Where the thread stands that has the same lane of the r-th 16 rows of this warp's 32, if every warp has 16: the order of slots and pieces in memory.
    __device__ inline int place(int r) const { return ((m2 / 16 + r) * 2 + warp % 2) * kWarp + lane_again(); }

    // The warp's first of the states of a round, counted from the first of the pass; how many of its 16·kRows there are, or less than none.
    __device__ inline int first_of(int round) const { return kRows * (round * kSide + warp % 4 * 16); }
    __device__ inline int rows_of(int round) const { return round_up(shape.N, 16) - base() * kSide - first_of(round); }

    // Calls visit with the part of dS of a piece of head h and a slice of N of the thread at a place: in shared memory, or else in global.
    template <typename Shared, typename Global>
    __device__ inline void visit_slot(int h, int channel, int slice, int place, Shared shared, Global global) const
    {
        const int at = (h * pieces() + channel / kPiece<T>) * slices() + slice, part = place * 4;
        if (at < args.sharedSlots) shared(reinterpret_cast<f32*>(before_tile(args.isBeforeKept ? Slices : 0)) + at * kPieceFloats<T> + part);
        else global(args.slots + ((i64)ticket * args.slotsOfBlock + at - args.sharedSlots) * kPieceFloats<T> + part);
    }

    // Calls visit(16 × 8 of a warp's dS, its distance in a slot from the first).
    template <typename D, typename Visit>
    static __device__ inline void for_slot_parts(D& dstate, Visit visit)
    {
        #pragma unroll
        for (int r = 0; r < kRows; r++)
            #pragma unroll
            for (int j = 0; j < kChannels; j++) visit(dstate[r][j], j % (kChannels / 2) * kPartFloats + (2 * r + j / (kChannels / 2)) * kWarp * 4);
    }

    // Adds this thread's part of a tile or a piece in global memory, which this block or one before wrote.
    template <int J>
    static __device__ inline void add_global(f32 (&to)[J][4], const f32* from)
    {
        #pragma unroll
        for (int j = 0; j < J; j++) add_written(to[j], from + j * kPartFloats);
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
                for (int j = 0; j < kPieceParts<T>; j++) load_written(dstate[j], slot + j * kPartFloats);
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

    // The same of a warp's rows of a round: the place is that of its first 16 rows and the first half of the channels.
    __device__ inline int slot_place(int n) const { return n % kSide / 8 * kWarp + lane_again(); }
    __device__ inline void take_rows(Rows& dstate, int h, int channel, int n) const
    {
        visit_slot(h, channel, base() + n / kSide, slot_place(n),
            [&](const f32* slot) { for_slot_parts(dstate, [&](f32 (&part)[4], int distance) { load<4>(part, slot + distance); }); },
            [&](const f32* slot) { for_slot_parts(dstate, [&](f32 (&part)[4], int distance) { load_written(part, slot + distance); }); });
    }
    __device__ inline void leave_rows(const Rows& dstate, int h, int channel, int n) const
    {
        visit_slot(h, channel, base() + n / kSide, slot_place(n),
            [&](f32* slot) { for_slot_parts(dstate, [&](const f32 (&part)[4], int distance) { stash<4>(slot + distance, part); }); },
            [&](f32* slot) { for_slot_parts(dstate, [&](const f32 (&part)[4], int distance) { store<4>(slot + distance, part); }); });
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
    template <bool hasPairs>
    __device__ inline void inputs(Pairs& products)
    {
        #pragma unroll 1
        for (int from = is_last_pass() ? 0 : base(); from <= base(); from += Slices)
        {
            if (!isWhole && (pass > 0 || from > 0)) __syncthreads();                       // the slices before, or the sums in their places, have been read by all
            for (int slice = 0; slice < Slices && from + slice < slices(); slice++)
            {
                const int n = (from + slice) * kSide;
                const int pair = (warp / 2 + slice) % 4;
                if (pair == 0) load_b(b_tile(slice), n, first, steps);
                if (pair == 2) load_c(c_tile(slice), n);
                if (pair == 1 && from == base() && isBetween && args.isBeforeKept) load_b(before_tile(slice), n, first - shape.Q, shape.Q);
            }
            tile_wait();
            __syncthreads();                                  // B and C are there
            if (!hasPairs) continue;
            const int i = isPairedBySecond ? warp % 4 * 16 : m, j = isPairedBySecond ? 0 : c0;
            for (int slice = 0; slice < Slices && is_last_pass(); slice++)
                multiply_rows<false, false, false, kPitch<T>, kPitch<T>>(reinterpret_cast<f32 (&)[1][sizeof(Pairs) / 16][4]>(products), c_tile(slice) + i * kPitch<T>, b_tile(slice) + j * kPitch<T>, 16,
                    round_up(min(kSide, shape.N - (from + slice) * kSide), 16), i + 16 - j);
        }
    }

    // What a pass hands to the next of a head: d(Δx) of its pieces, as slots; then sums of w along rows and of dS_Q·S_0.
    __device__ inline f32* handed(int h) const { return args.handed + ((i64)ticket * args.chunk.headsOfShare + h) * (pieces() * kPieceFloats<T> + kHandedSums); }
    __device__ inline f32* handed_piece(int h, int channel, int r) const { return handed(h) + channel / kPiece<T> * kPieceFloats<T> + place(r) * 4; }
    __device__ inline void visit_sums(f32* sums, bool isTaken)
    {
        const int at = threadIdx.x;
        if (at >= kHandedSums) return;
        if (!isTaken)
        {
            sums[at] = at < kSteps ? met_of(at) : sSums.warp[0][at - kSteps];
            return;
        }
        const f32 sum = __ldcg(sums + at);
        if (at >= kSteps) sSums.warp[0][at - kSteps] = sum;
        else
            for (int w = 0; w < kSsdThreads / kWarp / 2; w++) sSums.met[w][at] = w == 0 ? sum : 0.0f;
    }

    // Δ and the decays of the chunk, and of the one before where its state is needed.
    __device__ inline void fill_decays(int head)
    {
        if (warp >= (isBetween ? 2 : 1)) return;
        SsdDecays& decays = warp == 0 ? sDecays : sBefore;
        decays.fill(shape, row, warp == 0 ? first : first - shape.Q, warp == 0 ? steps : shape.Q, head);
        f32* end = warp == 0 ? sSums.end : decays.toEnd;
        #pragma unroll
        for (int i = threadIdx.x % kWarp; i < kSteps; i += kWarp) end[i] = decays.toEnd[i] * decays.delta[i];     // a lane's own
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

    // S_0 of the border before the chunk, or before the one before it: this warp's rows of a round, and a piece of its channels. So many lie in registers; of floats in a tile.
    __device__ __forceinline__ void load_state(Left& state, int head, int n, int channel, E* own) const
    {
        const u32 lane = lane_again();
        const int at = n_of(0) + n + lane / 4, p = channel + lane % 4 * 2;
        const E* from = args.chunk.states + shape.border(max(border, 0), head) + (i64)at * shape.P + p;
        if (border >= 0 && shape.P % 2 == 0 && n_of(0) + n + 16 * kRows <= shape.N && channel + kPiece<T> <= shape.P)
        {
            const E* rows[2 * kRows];
            #pragma unroll
            for (int r = 0; r < 2 * kRows; r++) rows[r] = from + (i64)(8 * r) * shape.P;
            state.fill([&](int row, int column) { return *reinterpret_cast<const Two<E>*>(rows[row / 8] + column); }, own);
        }
        else state.fill([&](int row, int column)
        {
            f32 two[2];
            #pragma unroll
            for (int v = 0; v < 2; v++) two[v] = border >= 0 && at + row < shape.N && p + column + v < shape.P ? to_f32(from[(i64)row * shape.P + column + v]) : 0.0f;
            return two_of<E>(two[0], two[1]);
        }, own);
        Left::settle();
    }

    // S_0 of a chunk whose border is not kept, a piece of a round, rounded as at borders, in the place of the state before the chunk before: by the first team. B of that chunk, where it is not
    // kept, comes to the place of dS_Q by as many rows as fit.
    template <bool isSecond>
    __device__ __forceinline__ void state_between(Left& state, int round, int columns)
    {
        const int slice = kRows * round, rows = args.isBeforeKept ? kSteps : kRowsBefore;
        #pragma unroll 1
        for (int step = 0; step < kSteps && step < shape.Q; step += rows)
        {
            if (step > 0) __syncthreads();                    // the rows before have been read by all
            if (!args.isBeforeKept)
                #pragma unroll
                for (int s = 0; s < kRows && has(slice + s); s++) load_b<kRowsBefore, kSsdThreads>(tile(2 + s), n_of(slice + s), first - shape.Q + step, shape.Q - step);
            tile_wait();
            __syncthreads();                                  // B is there, and with its first rows x and the decays
            const int n = first_of(round), count = rows_of(round);
            if (isSecond || count <= 0) continue;
            Rows sums;
            const f32 total = step == 0 ? sBefore.total : 1.0f;
            #pragma unroll
            for (int r = 0; r < kRows; r++)
                #pragma unroll
                for (int j = 0; j < kChannels; j++)
                    #pragma unroll
                    for (int v = 0; v < 4; v++) sums[r][j][v] = state.value(r, j, v) * total;
            multiply_rows<true, true, true, kPitch<T>, kPiecePitch<T>, kWalk>(sums, (args.isBeforeKept ? before_tile(n / kSide) : tile(2 + n / kSide - slice)) + n % kSide, tile(4) + step * kPiecePitch<T>,
                count, min(rows, round_up(shape.Q, 16) - step), columns, sBefore.toEnd + step);
            state.set(sums, own_rows(3));
        }
        if (!args.isBeforeKept) __syncthreads();              // B has been read by all: dS takes its place
    }

    // This warp's rows of a piece of dS or a state.
    __device__ inline E* own_rows(int i) const { return tile(i) + warp % 4 * 16 * kRows * kPiecePitch<T>; }

    // Adds columns of 16 steps, each times its factor.
    template <int Step>
    static __device__ __forceinline__ void add_columns(Gradient& gradient, const f32 (&sums)[kRows][2][4], const f32 (&factor)[2][2])
    {
        #pragma unroll
        for (int r = 0; r < kRows; r++)
            #pragma unroll
            for (int j = 0; j < 2; j++)
                #pragma unroll
                for (int v = 0; v < 4; v++)
                {
                    f32& to = gradient[r][Step / 8 + j][v];
                    to = fmaf(sums[r][j][v], factor[j][v % 2], to);
                }
    }

    // 16 steps of what follows.
    template <int Step, typename C, typename B, typename Across>
    __device__ __forceinline__ void state_step(const Left& state, Rows& dstate, Gradient& gradient, C c, B b, Across across, int rows, int columns, bool isMore)
    {
        const u32 lane = lane_again();
        f32 sums[kRows][2][4], factor[2][2], met[4] = {};
        state.template multiply<Step>(sums, b, columns);
        #pragma unroll
        for (int j = 0; j < 2; j++) load<2>(factor[j], sDecays.fromStart + Step + 8 * j + lane % 4 * 2);
        LeftColumns<E, kRows, kPitch<T>> own;
        own.template load<Step>(c, rows);
        #pragma unroll
        for (int r = 0; r < kRows; r++)
            #pragma unroll
            for (int j = 0; j < 2; j++)
                #pragma unroll
                for (int v = 0; v < 4; v++)
                    met[2 * j + v % 2] = fmaf(sums[r][j][v], own.value(r, j, v), met[2 * j + v % 2]);
        add_columns<Step>(gradient, sums, factor);
        own.template multiply<Step, kPiecePitch<T>>(dstate, across, columns, factor, sDecays.fromStart);
        #pragma unroll
        for (int v = 0; v < 4; v++) met[v] *= factor[v / 2][v % 2];
        const f32 sum = column_sums(met, lane);
        if (has_column_sum(lane)) put_sum(sSums.met[warp][Step + summed_column(lane)], sum, isMore);
        if constexpr (Step + 16 < kSteps) state_step<Step + 16>(state, dstate, gradient, c, b, across, rows, columns, isMore);
    }

    // The first team: dS before the chunk, of a piece and a round, in its slot; what the state gives to dC, what C meets in that, and dS_Q·S_0.
    __device__ __forceinline__ void walk_state(const Left& state, Rows& dstate, Gradient& gradient, int h, int channel, int round, int columns, bool isMore)
    {
        const int n = first_of(round), rows = rows_of(round);
        const f32 total = sDecays.total;
        f32 product = 0;
        #pragma unroll
        for (int r = 0; r < kRows; r++)
            #pragma unroll
            for (int j = 0; j < kChannels; j++)
                #pragma unroll
                for (int v = 0; v < 4; v++)
                {
                    f32& own = dstate[r][j][v];
                    product = fmaf(own, state.value(r, j, v), product);
                    own *= total;
                }
        put_warp_sum(0, warp, product, isMore);
        using Columns = LeftColumns<E, kRows, kPitch<T>>;
        state_step<0>(state, dstate, gradient, Columns::place(c_tile(n / kSide) + n % kSide), Left::right(tile(0)), Columns::template right<kPiecePitch<T>>(tile(0)), rows, columns, isMore);
        leave_rows(dstate, h, channel, n);
    }

    // Where a warp has no states, and nothing was handed to it.
    __device__ inline void put_nothing()
    {
        const int lane = lane_again();
        sSums.met[warp][lane] = sSums.met[warp][lane + kWarp] = 0;
        if (lane == 0) sSums.warp[0][warp] = 0;
    }

    // The second team: what dS gives to dB, 16 steps at a time. Where there are rounds d(Δx) stands in registers meanwhile, and dS is read anew.
    template <int Step, typename B>
    __device__ __forceinline__ void walk_steps(const Left& dstate, Gradient& gradient, B b, int depth)
    {
        f32 sums[kRows][2][4] = {}, factor[2][2];
        if constexpr (kRounds == 1) dstate.template multiply<Step>(sums, b, depth);
        else multiply_rows<false, false, false, kPiecePitch<T>, kPiecePitch<T>, kLooped>(sums, own_rows(2), tile(1) + Step * kPiecePitch<T>, 16 * kRows, depth, 16);
        #pragma unroll
        for (int j = 0; j < 2; j++) load<2>(factor[j], sSums.end + Step + 8 * j + lane_again() % 4 * 2);
        add_columns<Step>(gradient, sums, factor);
        if constexpr (Step + 16 < kSteps) walk_steps<Step + 16>(dstate, gradient, b, depth);
    }

    // Rounds of a piece, from one on: a loop of them is too long to be unrolled. The first team.
    template <int Round>
    __device__ __forceinline__ void walk_first(int h, int channel, int depth, Gradient (&gradient)[kRounds])
    {
        if (!has(kRows * Round)) return;
        this->find_warp();
        if (Round > 0) __syncthreads();                       // dS of the round before has been read by all
        const bool isMore = Round > 0 || channel > 0 || !is_first_pass(), hasRows = rows_of(Round) > 0;
        Left state;
        if (hasRows) load_state(state, firstHead + h, first_of(Round), channel, own_rows(3));
        else state.clear();
        if (isBetween) state_between<false>(state, Round, depth);
        Rows dstate;
        if (hasRows)
        {
            take_rows(dstate, h, channel, first_of(Round));
            put_rows<kPiecePitch<T>>(own_rows(2), dstate);
        }
        else
            #pragma unroll
            for (int r = 0; r < kRows; r++)
                #pragma unroll
                for (int j = 0; j < kChannels; j++) dstate[r][j][0] = dstate[r][j][1] = dstate[r][j][2] = dstate[r][j][3] = 0;
        __syncthreads();                                      // dS is there, and in the first round the other tiles and the decays
        if (hasRows) walk_state(state, dstate, gradient[Round], h, channel, Round, depth, isMore);
        else if (!isMore) put_nothing();
        if constexpr (Round + 1 < kRounds) walk_first<Round + 1>(h, channel, depth, gradient);
    }

    // The second team.
    template <int Round>
    __device__ __forceinline__ void walk_second(int h, int channel, int depth, int columns, const Pairs& products, Pairs& dproducts, TeamPiece& part, Gradient (&gradient)[kRounds])
    {
        if (!has(kRows * Round)) return;
        this->find_warp();
        if (Round > 0) __syncthreads();                       // dS of the round before has been read by all
        Left left;
        if (isBetween) state_between<true>(left, Round, depth);
        tile_wait();
        __syncthreads();                                      // dS is there, and in the first round the other tiles and the decays
        if constexpr (isPairedFirst && Round == 0)
        {
            pairs(products, dproducts, tile(kPairTile), depth, channel > 0);
            this->find_warp();
        }
        if (rows_of(Round) > 0)
        {
            if constexpr (kRounds == 1) left.load(own_rows(2), depth);
            walk_steps<0>(left, gradient[Round], Left::right(tile(1)), depth);
        }
        this->find_warp();
        if (Round == 0)
            #pragma unroll
            for (int r = 0; r < 2; r++)
            {
                #pragma unroll
                for (int j = 0; j < kPieceParts<T>; j++) part[r][j][0] = part[r][j][1] = part[r][j][2] = part[r][j][3] = 0;
                if (!is_first_pass()) add_global(part[r], handed_piece(h, channel, r));
            }
        #pragma unroll
        for (int s = 0; s < kRows; s++)
            if (has(kRows * Round + s))
                multiply_rows<false, true, false, kPitch<T>, kPiecePitch<T>, kWalk>(part, b_tile(kRows * Round + s) + m2 * kPitch<T>, tile(2) + s * kSide * kPiecePitch<T> + p0(), 32,
                    depth_of(kRows * Round + s), columns);
        if constexpr (Round + 1 < kRounds) walk_second<Round + 1>(h, channel, depth, columns, products, dproducts, part, gradient);
    }

    // dS before the chunk of a head, and what the states give to dB, dC and d(C·Bᵀ); in the last pass dx and ddt.
    template <bool isSecond>
    __device__ __forceinline__ void head(int h, const Pairs& products, Pairs& dproducts, Gradient (&gradient)[kRounds])
    {
        const int head = firstHead + h;
        #pragma unroll 1
        for (int channel = 0; channel < shape.P; channel += kPiece<T>)
        {
            this->find_warp();
            TeamPiece part;                                   // of the second team d(Δx), rows j
            const int depth = round_up(min(kPiece<T>, shape.P - channel), 16), columns = depth - p0();
            __syncthreads();                                  // the tiles, decays and sums before have been read by all
            if (!shape.z)
            {
                if (isSecond && warp % 4 < 2) load_dy(tile(0), head, channel);
            }
            else if (shape.isYWide) gate_dy<16 / sizeof(T)>(head, channel);
            else gate_dy<1>(head, channel);
            if (isSecond && warp % 4 >= 2) load_x(tile(1), head, channel, first, steps);
            if (!isSecond)
            {
                if (isBetween && warp >= 2) load_x(tile(4), head, channel, first - shape.Q, shape.Q);
                load_skip(head, channel);
                if (channel == 0)
                {
                    fill_decays(head);
                    if (!is_first_pass()) visit_sums(handed(h) + pieces() * kPieceFloats<T>, true);
                }
                walk_first<0>(h, channel, depth, gradient);
            }
            else
            {
                walk_second<0>(h, channel, depth, columns, products, dproducts, part, gradient);
                this->find_warp();
                if (is_last_pass()) meet_channels(part, columns, channel > 0);
                else
                    #pragma unroll
                    for (int r = 0; r < 2; r++)
                        #pragma unroll
                        for (int j = 0; j < kPieceParts<T>; j++) store<4>(handed_piece(h, channel, r) + j * kPartFloats, part[r][j]);
            }
            if (!isPairedFirst) __syncthreads();              // dS and S_0 have been read by all: C·Bᵀ takes their place
            this->find_warp();
            if (isSecond ? !isPairedFirst : !isPairedBySecond) pairs(products, dproducts, tile(kPairTile), depth, channel > 0);
            if (!is_last_pass()) continue;
            __syncthreads();                                  // C·Bᵀ with its decay is there, x has been read, and the sums of all warps are there
            this->find_warp();
            if (isSecond) finish_channels(head, channel, part, tile(kPairTile), columns);
            else if (channel + kPiece<T> >= shape.P) exponents<isPairedBySecond>(head);
        }
        if (is_last_pass()) return;
        __syncthreads();                                      // the sums of all warps are there
        if (!isSecond) visit_sums(handed(h) + pieces() * kPieceFloats<T>, false);
    }

    // Adds d(C·Bᵀ)·B to dC and d(C·Bᵀ)ᵀ·C to dB.
    template <bool isSecond>
    __device__ inline void add_pairs(const Pairs& dproducts, Gradient (&gradient)[kRounds])
    {
        __syncthreads();                                      // the tiles of the last head have been read by all
        if (isSecond || !isPairedBySecond)
            put_rows<kPitch<T>>(tile(0) + (isPairedBySecond ? warp % 4 * 16 * kPitch<T> : m * kPitch<T> + c0), reinterpret_cast<const f32 (&)[1][sizeof(Pairs) / 16][4]>(dproducts));
        __syncthreads();                                      // d(C·Bᵀ) is there
        #pragma unroll
        for (int round = 0; round < kRounds; round++)
        {
            const int n = first_of(round), rows = rows_of(round);
            if (rows <= 0) break;
            if (!isSecond) multiply_rows<true, false, false, kPitch<T>, kPitch<T>, kToColumn>(gradient[round], b_tile(n / kSide) + n % kSide, tile(0), rows, kSteps, kSteps);
            else multiply_rows<true, true, false, kPitch<T>, kPitch<T>, kFromColumn>(gradient[round], c_tile(n / kSide) + n % kSide, tile(0), rows, kSteps, kSteps);
        }
    }

    __device__ inline u32* turn() const { return args.turns + ((i64)chunk * shape.G + group) * args.passes + (isWhole ? 0 : pass); }
    __device__ inline bool is_last_turn() const { return share == args.chunk.shares - 1; }

    // Adds the team's sums to those of the shares before; leaves them, or the whole in the places of B or C.
    template <bool isSecond>
    __device__ inline void add_turn(Gradient (&gradient)[kRounds]) const
    {
        const int matrix = isSecond ? 0 : 1;
        const bool isFirst = share == 0, isLast = is_last_turn();
        f32* sums = args.turnSums + ((((i64)chunk * shape.G + group) * 2 + matrix) * slices() + base()) * kTileFloats + lane_again() * 4;
        #pragma unroll
        for (int round = 0; round < kRounds; round++)
        {
            const int n = first_of(round);
            if (rows_of(round) <= 0) break;
            #pragma unroll
            for (int r = 0; r < kRows; r++)
                #pragma unroll
                for (int j = 0; j < kColumns; j++)
                {
                    f32 (&own)[4] = gradient[round][r][j];
                    f32* at = sums + (n / 16 + r) * 16 * kSteps + j * kWarp * 4;
                    if (!isFirst) add_written(own, at);
                    if (!isLast) store<4>(at, own);
                }
            if (isLast) put_columns<kPitch<T>>(group_tile(2 * (n / kSide) + matrix) + n % kSide, gradient[round]);
        }
    }

    __device__ inline void store_gradient(T* to, i64 step, int matrix) const
    {
        to += (row * shape.L + first) * step + group * shape.N + base() * kSide;
        #pragma unroll 1
        for (int slice = 0; slice < Slices && has(slice); slice++)
            store_tile<kSide>(to + slice * kSide, group_tile(2 * slice + matrix), steps, step, min(kSide, shape.N - n_of(slice)), args.isGroupWide);
    }

    // A team's sums of some slices of N of a chunk: each team has registers of its own. Both come to the same barriers of the block in the same order: those count warps, from whichever instruction.
    template <bool isSecond>
    __device__ __forceinline__ void walk_team()
    {
        Pairs products = {}, dproducts = {};
        Gradient gradient[kRounds] = {};                      // dC of the first team, dB of the second
        inputs<isSecond || !isPairedBySecond>(products);
        #pragma unroll 1
        for (int h = 0; h < heads; h++) head<isSecond>(h, products, dproducts, gradient);
        add_pairs<isSecond>(dproducts, gradient);
        if (!isSecond) await_turn(turn(), share);
        __syncthreads();                                      // B and C have been read by all
        add_turn<isSecond>(gradient);
    }

    // Some slices of N of a chunk.
    __device__ __forceinline__ void walk_pass()
    {
        if (is_second()) walk_team<true>();
        else walk_team<false>();
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
