// SelectiveScanBackward.cu
//
// Computes   the gradients of all inputs of selective_scan_forward from those of y and the final state. With G[n] the gradient of h[n] behind step t, and
//            g = dy·silu(z): G[n] += g·C[t,n]; dC[t,n] = Σ_d g·h[n]; dB[t,n] = Σ_d Δ·u·G[n]; d(Δ·u) = Σₙ B[t,n]·G[n]; G[n] becomes G[n]·exp(Δ·A[d,n]), the
//            gradient before step t; with that and h before it dΔ = Σₙ A·G·h + u·d(Δ·u), dA[d,n] = Σ_t Δ·G·h; du = Δ·d(Δ·u) + D·g.
// Source     Gu and Dao 2023, arXiv:2312.00752, section 3.2 and algorithm 2, as src/ZEngine/Ops/SelectiveScan.cs defines it.
// Method     a block walks one sequence back with kWidth channels, an interval of kInterval steps at a time: a lane has 2 channels × 4 states, a warp 16 channels. From the kept state the
//            interval runs forward once, and the states before its quarters of a half (kQuarter steps) remain in shared memory. Then each quarter, from the last on, runs again with its
//            states and decays in registers, and back; the state behind it is that before the one walked back last. What the halves of an interval (kStretch steps) need of z and dy, and
//            what they give, is prepared and finished a half at a time.
//            Sums over channels (8 lanes, 4 warps) halve the values at each exchange of lanes; lanes have their states in such orders that nothing is chosen but at the last. Sums over
//            states (4 lanes) are products of the tensor cores: on the left the lanes' sums, a channel to a row and in two parts of TF32, on the right ones in the column of a step.
//            The sums for B and C of a group's blocks are added in the order of their channels: each block waits, stretch by stretch, for the turn of the one before in its chain of
//            kChain, and the last of a chain for that of the chain before; those began before it, because blocks take their numbers by a ticket. The last leaves dB and dC. So what goes
//            between is 4·N floats of a step in the L2 cache and no partial sums in memory, and with 80 blocks the last waits for 19 others in a row.
//            selective_scan_sum_backward adds in order what the segments of sequences, of which there are several as in SelectiveScanForward.cu, gave for A, D and dtBias.
//            A kept state is 4·N / kInterval bytes a step and channel, written and read; 16 steps in place of 32 were 1.57 times the least of memory with 1.75 exponentials a step,
//            channel and state. States at every 64th or 128th step, and those between made by one more walk into shared memory, were built and counted: memory falls by 6 and 9 in a
//            hundred, exponentials rise to 2.4 and 2.6, and the walk is bound by instructions: bench/README.md.
//            N > kBand in bands of kBand states; their gradients wait in `carry` between stretches, and an interval is walked forward again before its first half.
// Layout     u, dt, z [B, L, D] and B, C [B, L, G, N] with the given strides, the last axis dense; dy, du, ddt, dz [B, L, D]; dB, dC [B, L, G, N]; states, packed
//            as in SelectiveScanForward.cu; A, dA [D, N], D, dtBias and their gradients [D], dfinal, dinitial [sequences, D, N] float; partial
//            [2, chains, B·L, G, N] with chains = ceil(blocksPerGroup / 16), or null where a group has one block, sums [segments, N + 2, D] float, of all sequences; carry 16 floats
//            for each thread and band, or null; turns [2·intervals, G, bands, chains], zero before, and the ticket.
// Launch     selective_scan_backward: grid segments·G·blocksPerGroup with the segments of all sequences and blocksPerGroup = ceil(D / G / 64), block 128, dynamic shared memory of 6144 elements
//            and 70,608 bytes. selective_scan_sum_backward: grid ceil((N + 2)·D / 32), block 256.
// Traffic    reads (3, or 4 with z)·D + 2·G·N·blocksPerGroup elements a step and N·D floats an interval (N > kBand: twice, and B of the first half), writes (2, or 3)·D elements and
//            2·G·N; 2·G·N·(blocksPerGroup − 1) floats a step go from block to block, and a word a stretch and band; each sequence reads A, D, dtBias and dfinal, writes dinitial and
//            (N + 2)·D floats of sums; each segment the same, but with N·D floats, and 4·D a band, for each one behind it instead of dfinal; a block of packed sequences reads a record of 40 bytes. N > kBand: A is read for each stretch, and `carry`, 16 floats
//            for each thread and band, written and read between stretches: 10·N·D floats an interval, which the L2 cache has.
//            selective_scan_sum_backward reads the sums and writes the gradients. Of a layer of 5120 channels 1.14 times the least of memory, 1.49 to the multiprocessors.
// Precision  loads T, computes and accumulates f32, stores T. exp as in SelectiveScanForward.cu; 1.875 of them for each step, channel and state where N ≤ kBand, else 2.25; 15 float operations.
//            Sums over states are of numbers that are right but for 2⁻²², so what is not finite makes the same gradients of its channel at the other steps of its quarter NaN.
//            Deterministic: no float atomics, turns fix the order of additions; segments are other roundings, as in SelectiveScanForward.cu.
// Limits     N ≤ 256; D / G, G and the grids below 2³¹. isWide: addresses, strides, D / G and N are multiples of 16 bytes.
// Variants   selective_scan_backward<{f32|bf16|f16}, {true|false}>; selective_scan_sum_backward
#include "common/Columns.cuh"
#include "common/Grid.cuh"
#include "common/SelectiveScanWalk.cuh"
#include "common/Turns.cuh"
#include "common/Words.cuh"

template <typename T>
struct SelectiveScanBackwardArgs                              // mirrored in CudaSelectiveScan.cs, field for field
{
    const T* u; const T* dt; const T* B; const T* C; const T* z; const T* dy; const f32* states; const f32* dfinal;
    T* du; T* ddt; T* dz; T* dB; T* dC; f32* dinitial; f32* partial; f32* sums; f32* carry; u32* turns;
    i64 rows, words;                                          // words: the turns of all stretches, groups, bands and chains
    SelectiveScanShape shape;
};

// What a block does for a stretch, one of the halves of an interval. Steps are those of the row.
template <typename T, bool isWide>
struct BackwardStretch
{
    static constexpr int V = kVector<T, isWide>, kChunks = kWidth / V, kRounds = kStretch * kChunks / kBackThreads;
    const SelectiveScanBackwardArgs<T>& args;
    BackwardTile& tile;
    const ScanPlace& place;
    T* sRows;
    u32 number, half;

    __device__ inline BackwardStretch(const SelectiveScanBackwardArgs<T>& args, BackwardTile& tile, T* sRows, u32 number) : args(args), tile(tile), place(tile.place), sRows(sRows), number(number), half(number % 2) { }

    // Its first step and that of its interval, of the segment. `rows` of functions are its steps, of which that before the last has all; an interval has whole stretches before it.
    __device__ inline i64 step() const { return (i64)number * kStretch; }
    __device__ inline i64 interval_step() const { return (i64)(number - half) * kStretch; }
    __device__ inline u32 rows() const { return number == tile.begin.last ? tile.begin.rows : kStretch; }

    // Rows of u and dt of the interval, and z and dy of the stretch.
    __device__ inline T* u() const { return sRows; }
    __device__ inline T* dt() const { return sRows + kInterval * kWidth; }
    __device__ inline T* z() const { return sRows + 2 * kInterval * kWidth; }
    __device__ inline T* dy() const { return z() + kStretch * kWidth; }

    // The row and the first channel of a thread's accesses.
    struct Access
    {
        u32 row, column;
        __device__ inline Access(u32 thread, u32 round)
        {
            const u32 i = thread + round * kBackThreads;
            row = i / kChunks;
            column = i % kChunks * V;
        }

        // In a row of the tile.
        __device__ inline u32 place() const { return 4 * place_of(column / 2) + (V == 1 ? column % 2 : 0); }
    };

    // The rows of u and dt of the interval up to this stretch.
    __device__ inline void fetch_inputs(u32 thread, u32 rows)
    {
        const SelectiveScanShape& shape = args.shape;         // B·L·D may exceed 2³¹
        #pragma unroll
        for (int round = 0; round < 2 * kRounds; round++)
        {
            const Access at(thread, round);
            if (at.row >= half * kStretch + rows || at.column >= place.columns) continue;
            const u32 to = at.row * kWidth + at.column;
            const i64 step = interval_step() + at.row;
            fetch_access<isWide>(u() + to, args.u + tile.begin.u + step * shape.uStep + at.column);
            fetch_access<isWide>(dt() + to, args.dt + tile.begin.dt + step * shape.dtStep + at.column);
        }
    }

    __device__ inline void fetch_gradients(u32 rows)
    {
        const SelectiveScanShape& shape = args.shape;
        const u32 thread = thread_again();
        #pragma unroll
        for (int round = 0; round < kRounds; round++)
        {
            const Access at(thread, round);
            if (at.row >= rows || at.column >= place.columns) continue;
            const u32 to = at.row * kWidth + at.column;
            const i64 step = this->step() + at.row;
            if (args.z) fetch_access<isWide>(z() + to, args.z + tile.begin.z + step * shape.zStep + at.column);
            fetch_access<isWide>(dy() + to, args.dy + tile.begin.output + step * shape.channels + at.column);
        }
    }

    // What the walks need of u and dt, of the interval up to this stretch.
    __device__ inline void prepare_inputs(u32 thread, u32 rows)
    {
        #pragma unroll 1
        for (u32 round = 0; round < (half + 1) * kRounds; round++)
        {
            const Access at(thread, round);
            const u32 place = at.place();
            f32 scaled[V] = {}, input[V] = {};
            if (at.row < half * kStretch + rows && at.column < this->place.columns)
            {
                f32 bias[V];
                load_twos(bias, tile.sParameters[0] + place);
                load<V>(input, u() + at.row * kWidth + at.column);
                load<V>(scaled, dt() + at.row * kWidth + at.column);
                #pragma unroll
                for (int v = 0; v < V; v++) scaled[v] += bias[v];
                if (args.shape.hasSoftplus)
                    #pragma unroll
                    for (int v = 0; v < V; v++) scaled[v] = softplus(scaled[v]);
                #pragma unroll
                for (int v = 0; v < V; v++)
                {
                    input[v] *= scaled[v];
                    scaled[v] = scale_exponent(scaled[v]);
                }
            }
            stash_pairs(tile.sInputs[at.row][0] + place, scaled, input);
        }
    }

    // What the walk back needs of z and dy.
    __device__ inline void prepare_outputs(u32 thread, u32 rows)
    {
        #pragma unroll 1
        for (u32 round = 0; round < kRounds; round++)
        {
            const Access at(thread, round);
            f32 output[V] = {}, slope[V] = {};
            if (at.row < rows && at.column < place.columns)
            {
                load<V>(output, dy() + at.row * kWidth + at.column);
                if (args.z)
                {
                    f32 z[V];
                    load<V>(z, this->z() + at.row * kWidth + at.column);
                    #pragma unroll
                    for (int v = 0; v < V; v++)
                    {
                        const f32 s = sigmoid(z[v]), gate = z[v] * s;
                        slope[v] = output[v] * fmaf(gate, 1.0f - s, s);
                        output[v] *= gate;
                    }
                }
            }
            stash_pairs(tile.sOutputs[at.row][0] + at.place(), output, slope);
        }
    }

    // C of a band, and where states are walked to B of the interval up to this stretch: 4 states to a thread, in the orders of all lanes.
    __device__ inline void load_band(i32 band, bool isWalking, u32 thread, u32 rows)
    {
        const SelectiveScanShape& shape = args.shape;
        const u32 t = thread / 4 % kStretch, quad = thread % 4 * 4, n = band * kBand + quad;
        #pragma unroll 1
        for (u32 i = thread / (4 * kStretch); i < (isWalking ? half + 2 : 1); i += kBackThreads / (4 * kStretch))
        {
            const bool isC = i == 0;
            const u32 row = t + (isC ? half : i - 1) * kStretch;
            const i64 step = interval_step() + row;
            const T* from = isC ? args.C + tile.begin.C + step * shape.cStep + n : args.B + tile.begin.B + step * shape.bStep + n;
            f32 four[4] = {};
            if (row < half * kStretch + rows)
            {
                if constexpr (isWide)
                {
                    if (n < shape.N) load<4>(four, from);
                }
                else
                    #pragma unroll
                    for (int k = 0; k < 4; k++)
                        if (n + k < shape.N) four[k] = to_f32(from[k]);
            }
            f32* to = (isC ? &tile.sC[t][0][0] : &tile.sB[row][0][0]) + quad;
            #pragma unroll
            for (int order = 0; order < kOrders; order++)
            {
                const f32 ordered[4] = {four[order], four[1 ^ order], four[2 ^ order], four[3 ^ order]};
                stash<4>(to + order * kBand, ordered);
            }
        }
    }

    // Adds the block's sums for B and C of a band to those of the blocks of lower channels, in their order: first of its chain, then, at a chain's end, of the chains before; the last leaves the
    // gradients.
    __device__ inline void add_turn(i32 band, i32 bands, u32 thread, u32 rows)
    {
        const SelectiveScanShape& shape = args.shape;
        const ScanBegin& begin = tile.begin;
        const u32 chains = ScanBegin::chains_of(shape), link = begin.link;
        u32* turn = args.turns + begin.turn + number * begin.turnsOfStretch + band * chains;
        const u32 t = thread / 8, kind = thread / 4 % 2, quad = thread % 4 * 4, n = band * kBand + quad;
        f32 sum[4] = {};
        const bool hasSums = t < rows && n < shape.N;
        if (hasSums)
        {
            const f32* from = tile.sParts[half * kStretch + t][0] + thread % 8 * 4;
            load<4>(sum, from);
            #pragma unroll
            for (int warp = 1; warp < kBackWarps; warp++)
            {
                f32 more[4];
                load<4>(more, from + warp * kNext);
                #pragma unroll
                for (int i = 0; i < 4; i++) sum[i] += more[i];
            }
        }
        const i64 at = (step() + t) * begin.statesOfStep + n;
        f32* sums = args.partial + begin.partial[kind] + at;
        await_turn(turn, link);
        if (hasSums && link > 0) add_sums(sum, sums, n);
        if (begin.isJoining)
        {
            await_turn(turn - 1, (u32)kChain);
            if (hasSums) add_sums(sum, sums - args.rows * begin.statesOfStep, n);
        }
        const bool isEnd = begin.isEnd;
        if (hasSums)
        {
            T* gradient = (kind == 0 ? args.dB : args.dC) + begin.states + at;
            if constexpr (isWide)
            {
                if (isEnd) store<4>(gradient, sum);
                else store<4>(sums, sum);
            }
            else
                #pragma unroll
                for (int i = 0; i < 4; i++)
                {
                    if (n + i >= shape.N) break;
                    if (isEnd) gradient[i] = from_f32<T>(sum[i]);
                    else sums[i] = sum[i];
                }
        }
        if (isEnd) return;
        __syncthreads();                                      // all have added theirs
        if (threadIdx.x == 0) give_turn(turn, link + 1);
    }

    // Adds another block's sums of states from n on, past the L1 cache.
    __device__ inline void add_sums(f32 (&sum)[4], const f32* from, i32 n) const
    {
        if constexpr (isWide) add_written(sum, from);
        else
            #pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + i < args.shape.N) sum[i] += __ldcg(from + i);
    }

    // One word of an access from the elements that follow e.
    template <int E>
    __device__ inline static void close_word(PackedWords<T, V>& to, int word, const f32 (&x)[E], int e)
    {
        constexpr int kEach = PackedWords<T, V>::kEach;
        f32 elements[kEach];
        #pragma unroll
        for (int k = 0; k < kEach; k++) elements[k] = x[e + k];
        to.close(word, elements);
    }

    // Where there are several bands, the sums of all of them to where those of one band stand.
    __device__ inline void gather_bands(u32 thread, u32 rows)
    {
        #pragma unroll 1
        for (u32 round = 0; round < kRounds; round++)
        {
            const Access at(thread, round);
            if (at.row >= rows) continue;
            f32* to = tile.sInputs[half * kStretch + at.row][0] + at.place();
            const f32* from = tile.sSums[(half ^ 1) * kStretch + at.row][0] + at.place();
            f32 scaled[V], dInput[V], dDelta[V], y[V] = {};
            load_twos(scaled, to);
            load_twos(dInput, from + 2);
            stash_pairs(to, scaled, dInput);
            load_twos(dDelta, from);
            if (args.z) load_twos(y, from + kToParts - kToSums + 2);
            stash_pairs(to + kToSums, dDelta, y);
        }
    }

    // The gradients of u, dt and z; what a step adds to those of dtBias and D remains. A few channels at a time: registers are short.
    __device__ inline void finish(u32 thread, u32 rows)
    {
        constexpr int E = V < 4 ? V : 4, kEach = PackedWords<T, V>::kEach;
        const SelectiveScanShape& shape = args.shape;
        #pragma unroll 1
        for (u32 round = 0; round < kRounds; round++)
        {
            const Access at(thread, round);
            const u32 row = half * kStretch + at.row;
            f32* inputs = tile.sInputs[row][0] + at.place();
            const f32 *outputs = tile.sOutputs[at.row][0] + at.place(), *parameters = tile.sParameters[0] + at.place();
            if (at.row >= rows || at.column >= place.columns)
            {
                const f32 none[V] = {};
                stash_pairs(inputs + kToSums, none, none);
                continue;
            }
            PackedWords<T, V> du, ddt, dz;
            #pragma unroll
            for (int v = 0; v < V; v += E)
            {
                f32 sum[E], added[E], scaled[E], dInput[E], y[E] = {}, output[E], slope[E], u[E], bias[E], skip[E];
                const int next = v / 2 * kNext;
                load_pairs(scaled, dInput, inputs + next);
                if (args.z) load_pairs(sum, y, inputs + kToSums + next);
                else load_twos(sum, inputs + kToSums + next);
                load_pairs(output, slope, outputs + next);
                load_pairs(bias, skip, parameters + next);
                load<E>(u, this->u() + row * kWidth + at.column + v);
                #pragma unroll
                for (int e = 0; e < E; e++)
                {
                    added[e] = output[e] * u[e];
                    sum[e] = fmaf(dInput[e], u[e], sum[e]);
                    dInput[e] = fmaf(skip[e], output[e], dInput[e] * (scaled[e] * kLn2));
                    y[e] = slope[e] * fmaf(skip[e], u[e], y[e]);
                }
                if (shape.hasSoftplus)
                {
                    f32 dt[E];
                    load<E>(dt, this->dt() + row * kWidth + at.column + v);
                    #pragma unroll
                    for (int e = 0; e < E; e++) sum[e] *= sigmoid(dt[e] + bias[e]);
                }
                stash_pairs(inputs + kToSums + next, sum, added);
                #pragma unroll
                for (int e = 0; e < E; e += kEach)
                {
                    close_word(du, (v + e) / kEach, dInput, e);
                    close_word(ddt, (v + e) / kEach, sum, e);
                    close_word(dz, (v + e) / kEach, y, e);
                }
            }
            const i64 to = tile.begin.output + (step() + at.row) * shape.channels + at.column;
            du.store(args.du + to);
            ddt.store(args.ddt + to);
            if (args.z) dz.store(args.dz + to);
        }
    }

    // Of the floats of a row, each is of one channel, and of dtBias or D, and of one thread: its sum over the stretch.
    __device__ inline f32 sum_channel(u32 thread) const
    {
        const f32* from = tile.sSums[half * kStretch][0] + thread;
        f32 sum = 0;
        #pragma unroll
        for (int t = 0; t < kStretch; t++) sum += from[t * kRow];
        return sum;
    }
};

// A row of sums: of a state, or behind the last of D and of dtBias.
__device__ inline i64 sum_row(const SelectiveScanShape& shape, const ScanPlace& place, i32 n)
{
    return (place.number * (shape.N + 2) + n) * shape.channels;
}

// The states of this thread in one band, from stretch to stretch.
template <typename T, bool isWide>
struct BackwardBand
{
    const SelectiveScanBackwardArgs<T>& args;
    BackwardTile& tile;
    const ScanPlace& place;
    i32 band, bands;

    __device__ inline BackwardBand(const SelectiveScanBackwardArgs<T>& args, BackwardTile& tile, i32 band, i32 bands) : args(args), tile(tile), place(tile.place), band(band), bands(bands) { }

    __device__ inline int n() const { return band * kBand + BackwardLane::state(thread_again()); }
    __device__ inline i64 d(int c) const { return place.first + BackwardLane::channel(thread_again()) + c; }
    __device__ inline bool has(int c) const { return BackwardLane::channel(thread_again()) + c < place.columns; }

    __device__ inline void load_rates(BackwardLane& own) const
    {
        #pragma unroll
        for (int c = 0; c < 2; c++)
        {
            #pragma unroll
            for (int s = 0; s < 4; s++) own.a[c][s] = 0;
            if (has(c)) load_states(own.a[c], args.shape.A + d(c) * args.shape.N, n(), args.shape);
            BackwardLane::reorder(own.a[c]);
        }
    }

    __device__ inline void open(BackwardLane& own, bool isFirst)
    {
        const SelectiveScanShape& shape = args.shape;
        load_rates(own);
        #pragma unroll
        for (int c = 0; c < 2; c++)
        {
            if (!isFirst)
            {
                load<4>(own.dh[c], carried(c));
                load<4>(own.dA[c], carried(2 + c));
                continue;
            }
            #pragma unroll
            for (int s = 0; s < 4; s++) own.dh[c][s] = own.dA[c][s] = 0;
            f32 a[4] = {own.a[c][0], own.a[c][1], own.a[c][2], own.a[c][3]};
            BackwardLane::reorder(a);
            if (has(c) && !place.is_last()) join_ends(own.dh[c], a, shape, place.ends() + place.segments - 2, d(c), n(), place.segments - 1 - place.segment, -1);
            else if (has(c) && args.dfinal) load_states(own.dh[c], args.dfinal + (place.sequence * shape.channels + d(c)) * shape.N, n(), shape);
            BackwardLane::reorder(own.dh[c]);
        }
    }

    __device__ inline void close(BackwardLane& own, bool isLast)
    {
        const SelectiveScanShape& shape = args.shape;
        if (!isLast && bands == 1) return;                    // everything stays in registers
        #pragma unroll
        for (int c = 0; c < 2; c++)
        {
            if (!isLast)
            {
                store<4>(carried(c), own.dh[c]);
                store<4>(carried(2 + c), own.dA[c]);
            }
            else if (has(c))
            {
                BackwardLane::reorder(own.dh[c]);
                BackwardLane::reorder(own.dA[c]);
                if (args.dinitial && place.segment == 0) store_states(args.dinitial + (place.sequence * shape.channels + d(c)) * shape.N, own.dh[c], n(), shape);
                #pragma unroll
                for (int s = 0; s < 4; s++)
                    if (n() + s < shape.N) args.sums[sum_row(shape, place, n() + s) + d(c)] = own.dA[c][s] * kLn2;
            }
        }
    }

    // The states before an interval.
    __device__ inline void load_kept(f32 (&h)[2][4], i64 interval) const
    {
        const i64 channels = args.shape.channels;
        const f32* from = args.states + ((place.kept + interval) * args.shape.N + n()) * channels + d(0);
        const i32 states = args.shape.N - n();
        const u32 order = BackwardLane::order(thread_again());
        const bool hasFirst = has(0), hasSecond = has(1);
        #pragma unroll
        for (u32 s = 0; s < 4; s++) h[0][s] = h[1][s] = 0;
        if constexpr (isWide)                                 // both channels, all four states, or none
        {
            if (!hasFirst || states <= 0) return;
            #pragma unroll
            for (u32 s = 0; s < 4; s++)
            {
                f32 two[2];
                load<2>(two, from + (s ^ order) * channels);
                h[0][s] = two[0];
                h[1][s] = two[1];
            }
        }
        else
            #pragma unroll
            for (u32 s = 0; s < 4; s++)
            {
                const i32 at = s ^ order;
                if (hasFirst && at < states) h[0][s] = from[at * channels];
                if (hasSecond && at < states) h[1][s] = from[at * channels + 1];
            }
    }

private:
    __device__ inline f32* carried(int which) const { return args.carry + ((((i64)blockIdx.x * bands + band) * 4 + which) * kBackThreads + thread_again()) * 4; }
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kBackThreads, kBackBlocks) selective_scan_backward(const SelectiveScanBackwardArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    const SelectiveScanShape& shape = args.shape;
    BackwardTile& tile = *reinterpret_cast<BackwardTile*>(sMemory);
    T* sRows = reinterpret_cast<T*>(sMemory + sizeof(BackwardTile));
    const i32 bands = max(1, (shape.N + kBand - 1) / kBand);
    // A block that waits for another began after it, in whatever order blocks start.
    if (threadIdx.x == 0)
    {
        tile.place = ScanPlace(shape, atomicAdd(args.turns + args.words, 1u));
        tile.begin = ScanBegin(shape, tile.place, args.rows, bands);
    }
    __syncthreads();                                          // the block's place is there
    const ScanPlace& place = tile.place;
    const u32 c = threadIdx.x % kWidth;
    const bool isUpper = threadIdx.x >= kWidth;               // the lower half of the threads holds channels' biases, the upper their skips
    const f32* parameter = isUpper ? shape.D : shape.dtBias;
    tile.sParameters[place_of(c / 2)][c % 2 + (isUpper ? 2 : 0)] = parameter && c < place.columns ? parameter[place.first + c] : 0.0f;
    if (threadIdx.x < 8 * 2 * kQuarter) tile.sOnes[0][threadIdx.x] = threadIdx.x / 8 == threadIdx.x % 8;
    BackwardLane own;
    f32 sum = 0;                                              // of dtBias or D of a channel
    const i32 last = tile.begin.last;
    if (bands == 1) BackwardBand<T, isWide>(args, tile, 0, 1).open(own, true);
    if (last >= 0) BackwardStretch<T, isWide>(args, tile, sRows, last).fetch_gradients(tile.begin.rows);
    #pragma unroll 1
    for (i32 k = last; k >= 0; k--)
    {
        BackwardStretch<T, isWide> stretch(args, tile, sRows, k);
        const bool isOpening = k == tile.begin.last || stretch.half == 1, isBanded = bands > 1, isWalking = isOpening || isBanded;
        const u32 thread = thread_again(), rows = stretch.rows();
        if (isOpening) stretch.fetch_inputs(thread, rows);
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();                                      // the rows and parameters are there
        if (isOpening) stretch.prepare_inputs(thread, rows);
        stretch.prepare_outputs(thread, rows);
        for (i32 b = 0; b < bands; b++)
        {
            BackwardBand<T, isWide> band(args, tile, b, bands);
            f32 h[2][4] = {};                                 // or it would be kept from turn to turn
            if (isWalking) band.load_kept(h, k / 2);
            if (isBanded) band.open(own, k == tile.begin.last);
            stretch.load_band(b, isWalking, thread_again(), stretch.rows());
            __syncthreads();                                  // what was prepared, B and C are there, and z and dy have been read by all
            if (b == 0 && k > 0) BackwardStretch<T, isWide>(args, tile, sRows, k - 1).fetch_gradients(kStretch);
            const u32 first = stretch.half * kQuarters, quarter = (stretch.rows() - 1) / kQuarter;
            if (isWalking)
            {
                if (isBanded) advance_quarters<false>(tile, own, h, 0, first);
                advance_quarters<true>(tile, own, h, isBanded ? first : 0, first + quarter);
            }
            if (args.z) walk_stretch<true>(tile, own, h, stretch.half, quarter, isWalking, isBanded, b > 0);
            else walk_stretch<false>(tile, own, h, stretch.half, quarter, isWalking, isBanded, b > 0);
            __syncthreads();                                  // the sums are there, and B and C have been read by all
            stretch.add_turn(b, bands, thread_again(), stretch.rows());
            band.close(own, k == 0);
        }
        const u32 again = thread_again();
        if (isBanded) stretch.gather_bands(again, stretch.rows());
        stretch.finish(again, stretch.rows());
        __syncthreads();                                      // what steps add is there, and the rows have been read by all
        sum += stretch.sum_channel(again);
    }
    const u32 thread = thread_again(), column = thread / 4 % 8 * 8 + thread / kNext * 2 + thread % 2;
    if (column < place.columns) args.sums[sum_row(shape, place, shape.N + (thread & 2 ? 0 : 1)) + place.first + column] = sum;
}

struct SelectiveScanSumArgs                                   // mirrored in CudaSelectiveScan.cs, field for field
{
    const f32* sums; f32* dA; f32* dD; f32* dbias;
    i64 channels, segments;                                   // segments: of all sequences
    i32 N;
};

__global__ void __launch_bounds__(kColumnWarps * kWarp) selective_scan_sum_backward(const SelectiveScanSumArgs args)
{
    __shared__ f32 sSums[kColumnWarps][kWarp];
    const i64 column = (i64)blockIdx.x * kWarp + threadIdx.x % kWarp, width = (args.N + 2) * args.channels;
    const f32 sum = column_sum(args.sums, args.segments, width, column, sSums);
    if (threadIdx.x >= kWarp || column >= width) return;
    const Quotient at = divide(column, args.channels);        // the state, or behind the last the skip and the bias, and the channel
    if (at.quotient < args.N) args.dA[at.rest * args.N + at.quotient] = sum;
    else if (f32* to = at.quotient == args.N ? args.dD : args.dbias) to[at.rest] = sum;
}
