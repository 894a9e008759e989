// SelectiveScanBackward.cu
//
// Computes   the gradients of all inputs of selective_scan_forward from those of y and the final state. With G[n] the gradient of h[n] behind step t, and
//            g = dy·silu(z): G[n] += g·C[t,n]; dC[t,n] = Σ_d g·h[n]; dB[t,n] = Σ_d Δ·u·G[n]; d(Δ·u) = Σₙ B[t,n]·G[n]; G[n] becomes G[n]·exp(Δ·A[d,n]), the
//            gradient before step t; with that and h before it dΔ = Σₙ A·G·h + u·d(Δ·u), dA[d,n] = Σ_t Δ·G·h; du = Δ·d(Δ·u) + D·g.
// Source     Gu and Dao 2023, arXiv:2312.00752, section 3.2 and algorithm 2, as src/ZEngine/Ops/SelectiveScan.cs defines it.
// Method     a block walks one sequence back with kWidth channels, an interval of kInterval steps at a time and of that a half, a stretch of kStretch steps: a lane has
//            2 channels × 4 states, a warp 16 channels. The interval's first half runs forward from the kept state, and the states before its quarters remain in shared
//            memory; so do those of the second half, on the way to its last quarter. Then each quarter, from the last on, runs again with its states and decays in registers,
//            and back. Sums over states (4 lanes) and over channels (8 lanes, 4 warps) halve the values at each exchange of lanes.
//            The sums for B and C of a group's blocks are added in the order of their channels: each block waits, stretch by stretch, for the turn of the one before in its chain of
//            kChain, and the last of a chain for that of the chain before; those began before it, because blocks take their numbers by a ticket. The last leaves dB and dC. So what goes
//            between is 4·N floats of a step in the L2 cache and no partial sums in memory, and with 80 blocks the last waits for 19 others in a row.
//            selective_scan_sum_backward adds in order what the segments of sequences, of which there are several as in SelectiveScanForward.cu, gave for A, D and dtBias.
//            A kept state is 4·N / kInterval bytes a step and channel, written and read; 16 steps in place of 32 were 1.57 times the least of memory with 1.75 exponentials a step,
//            channel and state. States at every 64th or 128th step, and those between made by one more walk into shared memory, were built and counted: memory falls by 6 and 9 in a
//            hundred, exponentials rise to 2.4 and 2.6, and the walk is bound by instructions: bench/README.md.
//            N > kBand in bands of kBand states; their gradients wait in `carry` between stretches, and the first half of an interval is walked forward twice.
// Layout     u, dt, z [B, L, D] and B, C [B, L, G, N] with the given strides, the last axis dense; dy, du, ddt, dz [B, L, D]; dB, dC [B, L, G, N]; states, starts
//            as in SelectiveScanForward.cu; A, dA [D, N], D, dtBias and their gradients [D], dfinal, dinitial [sequences, D, N] float; partial
//            [2, chains, B·L, G, N] with chains = ceil(blocksPerGroup / 16), or null where a group has one block, sums [sequences·segments, N + 2, D] float; carry 24 floats
//            for each thread and band, or null; turns [2·intervals, G, bands, chains], zero before, and the ticket.
// Launch     selective_scan_backward: grid sequences·segments·G·blocksPerGroup with blocksPerGroup = ceil(D / G / 64), block 128, dynamic shared memory of 6144 elements
//            and 69,856 bytes. selective_scan_sum_backward: grid ceil((N + 2)·D / 32), block 256.
// Traffic    reads (3, or 4 with z)·D + 2·G·N·blocksPerGroup elements a step and N·D floats an interval (N > kBand: twice, and B of the first half), writes (2, or 3)·D elements and
//            2·G·N; 2·G·N·(blocksPerGroup − 1) floats a step go from block to block, and a word a stretch and band; each sequence reads A, D, dtBias and dfinal, writes dinitial and
//            (N + 2)·D floats of sums; each segment the same, but with N·D + D floats for each one behind it instead of dfinal.
//            selective_scan_sum_backward reads the sums and writes the gradients. Of a layer of 5120 channels 1.14 times the least of memory, 1.49 to the multiprocessors.
// Precision  loads T, computes and accumulates f32, stores T. exp as in SelectiveScanForward.cu; 1.875 of them for each step, channel and state where N ≤ kBand, else 2.25; 15 float operations.
//            Deterministic: no float atomics, turns fix the order of additions; segments are other roundings, by the sizes of the call alone.
// Limits     N ≤ 256. isWide: addresses, strides, D / G and N are multiples of 16 bytes.
// Variants   selective_scan_backward<{f32|bf16|f16}, {true|false}>; selective_scan_sum_backward
#include "common/Columns.cuh"
#include "common/Grid.cuh"
#include "common/SelectiveScan.cuh"
#include "common/Turns.cuh"

constexpr int kBackWarps = 4, kBackThreads = kBackWarps * kWarp, kBackBlocks = 3;
constexpr int kWidth = 64;                                    // channels of a block, 16 of a warp
constexpr int kBand = 16;                                     // states that are walked together
constexpr int kChain = 16;                                    // blocks of a group that add to the same sums for B and C
constexpr int kStretch = kInterval / 2;                       // steps that are walked back at a time
constexpr int kQuarters = 4, kQuarter = kStretch / kQuarters; // of a stretch; steps whose states and decays stand in registers

template <typename T>
struct SelectiveScanBackwardArgs                              // mirrored in CudaSelectiveScan.cs, field for field
{
    const T* u; const T* dt; const T* B; const T* C; const T* z; const T* dy; const f32* states; const f32* dfinal;
    T* du; T* ddt; T* dz; T* dB; T* dC; f32* dinitial; f32* partial; f32* sums; f32* carry; u32* turns;
    i64 rows, words;                                          // words: the turns of all stretches, groups, bands and chains
    SelectiveScanShape shape;
};

// The shared memory of a backward block; behind it the rows of u, dt, z and dy as they are.
struct alignas(16) BackwardTile
{
    f32 sScaled[kStretch][kWidth], sInput[kStretch][kWidth], sOutput[kStretch][kWidth]; // Δ·log2 e, Δ·u, and dy behind the gate; 0 behind the last step and channel
    f32 sY[kStretch][kWidth];                                 // y before the gate and without the skip
    f32 sSums[2][kStretch * kWidth + 16];                     // the gradients of Δ·u and, through the decay, of Δ; later what steps add to those of D and dtBias. 16: other banks
    f32 sB[kInterval][kBand], sC[kStretch][kBand];
    f32 sDelta[kStretch][kWidth];                             // Δ of an interval's first half, from one walk through it to the other
    f32 sPart[kBackWarps][kStretch][2 * kBand];               // what each warp adds to dB and dC
    f32 sState[2 * kQuarters - 1][2][kBackThreads][4];        // each thread's states before each quarter of an interval but the last
    f32 sBias[kWidth], sSkip[kWidth], sSum[kBackThreads];     // every array begins at a multiple of 16 bytes
    ScanPlace place;                                          // here it takes no registers
};

// Where a channel stands in a row of sSums: neighbouring quads of the upper half have changed places, so that lanes with 8 neighbouring channels each reach all banks.
__device__ inline int place_of(int channel) { return channel ^ (channel >> 3 & 4); }

// V neighbouring channels of such a row, the first a multiple of V.
template <int V>
__device__ inline void load_sums(f32 (&to)[V], const f32* row, int column)
{
    f32 part[V < 4 ? V : 4];
    #pragma unroll
    for (int v = 0; v < V; v += 4)
    {
        load(part, row + (place_of(column) ^ v));
        #pragma unroll
        for (int i = 0; i < 4 && i < V; i++) to[v + i] = part[i];
    }
}

template <int V>
__device__ inline void stash_sums(f32* row, int column, const f32 (&from)[V])
{
    f32 part[V < 4 ? V : 4];
    #pragma unroll
    for (int v = 0; v < V; v += 4)
    {
        #pragma unroll
        for (int i = 0; i < 4 && i < V; i++) part[i] = from[v + i];
        stash(row + (place_of(column) ^ v), part);
    }
}

// One of two values, added over this lane and the one that differs in `bit`: lanes with the bit take b, the others a.
__device__ inline f32 half_sum(f32 a, f32 b, int bit)
{
    const bool isUpper = threadIdx.x & bit;
    const f32 other = __shfl_xor_sync(kAllLanes, isUpper ? a : b, bit);
    return (isUpper ? b : a) + other;
}

// The states of one lane: 2 neighbouring channels × 4 neighbouring states.
struct BackwardLane
{
    f32 a[2][4], dh[2][4], dA[2][4];                          // A; the gradient of the state; the sum for A, times log2 e

    // The channels and the first state of this lane, in its block and band.
    __device__ static int channel(int thread = threadIdx.x) { return thread / kWarp * 16 + thread % kWarp / 4 * 2; }
    __device__ static int state(int thread = threadIdx.x) { return thread % 4 * 4; }

    // Forward through step t of the stretch, `row` of the interval.
    __device__ inline void advance(const BackwardTile& tile, int row, int t, f32 (&h)[2][4], f32 (&decay)[2][4]) const
    {
        f32 scaled[2], input[2], B[4];
        load<2>(scaled, &tile.sScaled[t][channel()]);
        load<2>(input, &tile.sInput[t][channel()]);
        load<4>(B, &tile.sB[row][state()]);
        #pragma unroll
        for (int c = 0; c < 2; c++)
            #pragma unroll
            for (int s = 0; s < 4; s++)
            {
                decay[c][s] = power_of_two(scaled[c] * a[c][s]);
                h[c][s] = fmaf(decay[c][s], h[c][s], input[c] * B[s]);
            }
    }

    // One step back: before and after are the states around it.
    __device__ inline void retreat(BackwardTile& tile, int row, int t, const f32 (&before)[2][4], const f32 (&after)[2][4], const f32 (&decay)[2][4], bool hasGate, bool isAdding)
    {
        f32 scaled[2], input[2], output[2], B[4], C[4], dB[4] = {}, dC[4] = {}, dInput[2] = {}, dDelta[2] = {}, y[2] = {};
        load<2>(scaled, &tile.sScaled[t][channel()]);
        load<2>(input, &tile.sInput[t][channel()]);
        load<2>(output, &tile.sOutput[t][channel()]);
        load<4>(B, &tile.sB[row][state()]);
        load<4>(C, &tile.sC[t][state()]);
        #pragma unroll
        for (int c = 0; c < 2; c++)
            #pragma unroll
            for (int s = 0; s < 4; s++)
            {
                dh[c][s] = fmaf(output[c], C[s], dh[c][s]);
                dC[s] = fmaf(output[c], after[c][s], dC[s]);
                dB[s] = fmaf(input[c], dh[c][s], dB[s]);
                dInput[c] = fmaf(B[s], dh[c][s], dInput[c]);
                dh[c][s] *= decay[c][s];
                const f32 dExponent = dh[c][s] * before[c][s];                  // of Δ·A
                dDelta[c] = fmaf(a[c][s], dExponent, dDelta[c]);
                dA[c][s] = fmaf(scaled[c], dExponent, dA[c][s]);
            }
        if (hasGate)
            #pragma unroll
            for (int c = 0; c < 2; c++)
                #pragma unroll
                for (int s = 0; s < 4; s++) y[c] = fmaf(C[s], after[c][s], y[c]);
        add_states(tile, t, dInput, dDelta, y, hasGate, isAdding);
        add_channels(tile, t, dB, dC);
    }

private:
    // Over the 4 lanes of a pair of channels. Of these lanes bit 0 chooses the channel and bit 1 the sum.
    __device__ inline static void add_states(BackwardTile& tile, int t, const f32 (&dInput)[2], const f32 (&dDelta)[2], const f32 (&y)[2], bool hasGate, bool isAdding)
    {
        const int at = channel() + (threadIdx.x & 1), which = threadIdx.x >> 1 & 1;
        const f32 sum = half_sum(half_sum(dInput[0], dInput[1], 1), half_sum(dDelta[0], dDelta[1], 1), 2);
        f32* sSum = &tile.sSums[which][t * kWidth + place_of(at)];
        *sSum = isAdding ? *sSum + sum : sum;
        if (!hasGate) return;
        f32 output = half_sum(y[0], y[1], 1);
        output += __shfl_xor_sync(kAllLanes, output, 2);
        if (which == 0) tile.sY[t][at] = isAdding ? tile.sY[t][at] + output : output;
    }

    // Over the 8 lanes of the same states. Of these bit 4 chooses B or C, bits 3 and 2 the state.
    __device__ inline static void add_channels(BackwardTile& tile, int t, const f32 (&dB)[4], const f32 (&dC)[4])
    {
        f32 four[4];
        #pragma unroll
        for (int s = 0; s < 4; s++) four[s] = half_sum(dB[s], dC[s], 16);
        const f32 sum = half_sum(half_sum(four[0], four[2], 8), half_sum(four[1], four[3], 8), 4);
        const int lane = threadIdx.x % kWarp;
        tile.sPart[threadIdx.x / kWarp][t][lane / 16 * kBand + state() + lane / 8 % 2 * 2 + lane / 4 % 2] = sum;
    }
};

// The first quarters of a stretch forward; isStashing: their states before each remain.
__device__ inline void advance_quarters(BackwardTile& tile, const BackwardLane& own, f32 (&h)[2][4], int half, int quarters, bool isStashing)
{
    #pragma unroll 1
    for (int quarter = 0; quarter < quarters; quarter++)
    {
        if (isStashing)
        {
            stash<4>(tile.sState[half * kQuarters + quarter][0][threadIdx.x], h[0]);
            stash<4>(tile.sState[half * kQuarters + quarter][1][threadIdx.x], h[1]);
        }
        #pragma unroll
        for (int i = 0; i < kQuarter; i++)
        {
            f32 decay[2][4];
            own.advance(tile, half * kStretch + quarter * kQuarter + i, quarter * kQuarter + i, h, decay);
        }
    }
}

// A stretch from the state before it, quarter by quarter, and back. areStashed: the states before its quarters, all of them, are there.
__device__ inline void walk_stretch(BackwardTile& tile, BackwardLane& own, f32 (&h)[2][4], int half, i32 rows, bool hasGate, bool isAdding, bool areStashed)
{
    const int last = (rows - 1) / kQuarter;
    if (!areStashed) advance_quarters(tile, own, h, half, last, true);
    #pragma unroll 1
    for (int quarter = last; quarter >= 0; quarter--)
    {
        f32 before[kQuarter + 1][2][4], decay[kQuarter][2][4];
        if (quarter < last || areStashed)
        {
            load<4>(h[0], tile.sState[half * kQuarters + quarter][0][threadIdx.x]);
            load<4>(h[1], tile.sState[half * kQuarters + quarter][1][threadIdx.x]);
        }
        #pragma unroll
        for (int i = 0; i <= kQuarter; i++)
        {
            #pragma unroll
            for (int c = 0; c < 2; c++)
                #pragma unroll
                for (int s = 0; s < 4; s++) before[i][c][s] = h[c][s];
            if (i < kQuarter) own.advance(tile, half * kStretch + quarter * kQuarter + i, quarter * kQuarter + i, h, decay[i]);
        }
        #pragma unroll
        for (int i = kQuarter - 1; i >= 0; i--) own.retreat(tile, half * kStretch + quarter * kQuarter + i, quarter * kQuarter + i, before[i], before[i + 1], decay[i], hasGate, isAdding);
    }
}

// What a block does for a stretch, one of the halves of an interval. Steps are those of the row.
template <typename T, bool isWide>
struct BackwardStretch
{
    static constexpr int V = kVector<T, isWide>, kChunks = kWidth / V;
    const SelectiveScanBackwardArgs<T>& args;
    BackwardTile& tile;
    const ScanPlace& place;
    T* sRows;
    i32 interval, half;

    __device__ inline BackwardStretch(const SelectiveScanBackwardArgs<T>& args, BackwardTile& tile, T* sRows, i32 interval, i32 half)
        : args(args), tile(tile), place(tile.place), sRows(sRows), interval(interval), half(half)
    {
    }

    // The first step, and how many of the segment there are.
    __device__ inline i64 step() const { return place.begin + (i64)interval * kInterval + half * kStretch; }
    __device__ inline i32 rows() const { return (i32)min((i64)kStretch, place.end - step()); }

    // Rows of u and dt of the interval, and z and dy of the stretch.
    __device__ inline T* u() const { return sRows + half * kStretch * kWidth; }
    __device__ inline T* dt() const { return u() + kInterval * kWidth; }
    __device__ inline T* z() const { return sRows + 2 * kInterval * kWidth; }
    __device__ inline T* dy() const { return z() + kStretch * kWidth; }

    __device__ inline void fetch_inputs()
    {
        const i64 step = this->step();
        const i32 rows = this->rows();
        const SelectiveScanShape& shape = args.shape;         // B·L·D may exceed 2³¹
        fetch_channels<isWide>(u(), kWidth, args.u + place.row * shape.uBatch + step * shape.uStep + place.first, shape.uStep, rows, place.columns);
        fetch_channels<isWide>(dt(), kWidth, args.dt + place.row * shape.dtBatch + step * shape.dtStep + place.first, shape.dtStep, rows, place.columns);
    }

    __device__ inline void fetch_gradients()
    {
        const i64 step = this->step();
        const i32 rows = this->rows();
        const SelectiveScanShape& shape = args.shape;
        if (args.z) fetch_channels<isWide>(z(), kWidth, args.z + place.row * shape.zBatch + step * shape.zStep + place.first, shape.zStep, rows, place.columns);
        fetch_channels<isWide>(dy(), kWidth, args.dy + (place.row * shape.L + step) * shape.channels + place.first, shape.channels, rows, place.columns);
        copy_async_commit();
    }

    // isForward: nothing of the gradients, and Δ remains; isAgain: it is there.
    __device__ inline void prepare(bool isForward, bool isAgain)
    {
        const i32 rows = this->rows();
        for (int i = threadIdx.x; i < kStretch * kChunks; i += kBackThreads)
        {
            const int t = i / kChunks, column = i % kChunks * V;
            f32 scaled[V] = {}, input[V] = {}, output[V] = {};
            if (t < rows && column < place.columns)
            {
                f32 u[V], z[V], bias[V];
                load<V>(bias, &tile.sBias[column]);
                load<V>(u, this->u() + t * kWidth + column);
                if (isAgain) load<V>(scaled, &tile.sDelta[t][column]);
                else load<V>(scaled, dt() + t * kWidth + column);
                if (!isForward) load<V>(output, dy() + t * kWidth + column);
                if (!isForward && args.z) load<V>(z, this->z() + t * kWidth + column);
                #pragma unroll
                for (int v = 0; v < V; v++)
                {
                    if (!isAgain) scaled[v] = args.shape.hasSoftplus ? softplus(scaled[v] + bias[v]) : scaled[v] + bias[v];
                    input[v] = scaled[v] * u[v];
                    if (!isForward && args.z) output[v] *= silu(z[v]);
                }
            }
            if (isForward) stash<V>(&tile.sDelta[t][column], scaled);
            #pragma unroll
            for (int v = 0; v < V; v++) scaled[v] = scale_exponent(scaled[v]);
            stash<V>(&tile.sScaled[t][column], scaled);
            stash<V>(&tile.sInput[t][column], input);
            stash<V>(&tile.sOutput[t][column], output);
        }
    }

    // B and C of a band, or the one of them that is wanted: 4 states to a thread.
    __device__ inline void load_band(i32 band, bool hasB, bool hasC)
    {
        const i64 step = this->step();
        const i32 rows = this->rows();
        const SelectiveScanShape& shape = args.shape;
        const int thread = thread_again(), t = thread / 8, quad = thread % 4 * 4, n = band * kBand + quad;
        const bool isC = thread & 4;
        if (isC ? !hasC : !hasB) return;
        const T* from = isC ? args.C + place.row * shape.cBatch + (step + t) * shape.cStep + place.group * shape.cGroup
                            : args.B + place.row * shape.bBatch + (step + t) * shape.bStep + place.group * shape.bGroup;
        f32 four[4] = {};
        if (t < rows)
        {
            if constexpr (isWide)
            {
                if (n < shape.N) load<4>(four, from + n);
            }
            else
                #pragma unroll
                for (int i = 0; i < 4; i++)
                    if (n + i < shape.N) four[i] = to_f32(from[n + i]);
        }
        stash<4>(isC ? &tile.sC[t][quad] : &tile.sB[half * kStretch + t][quad], four);
    }

    // Adds the block's sums for B and C of a band to those of the blocks of lower channels, in their order: first of its chain, then, at a chain's end, of the chains before; the last leaves the
    // gradients.
    __device__ inline void add_turn(i32 band, i32 bands)
    {
        const i64 step = this->step();
        const i32 rows = this->rows();
        const SelectiveScanShape& shape = args.shape;
        const i32 chains = (shape.blocksPerGroup + kChain - 1) / kChain, chain = (i32)place.part / kChain, link = (i32)place.part % kChain;
        const bool isLast = place.part + 1 == shape.blocksPerGroup, isJoining = chain > 0 && (isLast || link + 1 == kChain);
        u32* turn = args.turns + (((2 * (place.kept + interval) + half) * shape.G + place.group) * bands + band) * chains + chain;
        const int thread = thread_again(), t = thread / 8, kind = thread / 4 % 2, quad = thread % 4 * 4, n = band * kBand + quad;
        f32 sum[4];
        if (t < rows)
        {
            load<4>(sum, &tile.sPart[0][t][kind * kBand + quad]);
            #pragma unroll
            for (int warp = 1; warp < kBackWarps; warp++)
            {
                f32 more[4];
                load<4>(more, &tile.sPart[warp][t][kind * kBand + quad]);
                #pragma unroll
                for (int i = 0; i < 4; i++) sum[i] += more[i];
            }
        }
        const bool hasSums = t < rows && n < shape.N;
        const i64 at = ((place.row * shape.L + step + t) * shape.G + place.group) * shape.N + n, size = args.rows * shape.G * shape.N;
        f32* sums = args.partial + ((i64)kind * chains + chain) * size + at;
        await_turn(turn, (u32)link);
        if (hasSums && link > 0) add_sums(sum, sums, n);
        if (isJoining)
        {
            await_turn(turn - 1, (u32)kChain);
            if (hasSums) add_sums(sum, sums - size, n);
        }
        if (hasSums)
        {
            T* gradient = (kind == 0 ? args.dB : args.dC) + at;
            if constexpr (isWide)
            {
                if (isLast) store<4>(gradient, sum);
                else store<4>(sums, sum);
            }
            else
                #pragma unroll
                for (int i = 0; i < 4; i++)
                {
                    if (n + i >= shape.N) break;
                    if (isLast) gradient[i] = from_f32<T>(sum[i]);
                    else sums[i] = sum[i];
                }
        }
        if (isLast) return;
        __syncthreads();                                      // all have added theirs
        if (threadIdx.x == 0) give_turn(turn, (u32)link + 1);
    }

    // Adds another block's sums of states from n on, past the L1 cache.
    __device__ inline void add_sums(f32 (&sum)[4], const f32* from, i32 n) const
    {
        if constexpr (isWide)
        {
            const float4 before = __ldcg(reinterpret_cast<const float4*>(from));
            sum[0] += before.x;
            sum[1] += before.y;
            sum[2] += before.z;
            sum[3] += before.w;
        }
        else
            #pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + i < args.shape.N) sum[i] += __ldcg(from + i);
    }

    // The gradients of u, dt and z; that of dt also takes the place of Δ's, and what the step adds to D's that of Δ·u's.
    __device__ inline void finish()
    {
        const i64 step = this->step();
        const i32 rows = this->rows();
        for (int i = threadIdx.x; i < rows * kChunks; i += kBackThreads)
        {
            const int t = i / kChunks, column = i % kChunks * V;
            if (column >= place.columns) continue;
            const i64 at = (place.row * args.shape.L + step + t) * args.shape.channels + place.first + column;
            f32 u[V], dt[V], bias[V], skip[V], scaled[V], output[V], dInput[V], ddt[V], du[V];
            load<V>(u, this->u() + t * kWidth + column);
            load<V>(dt, this->dt() + t * kWidth + column);
            load<V>(bias, &tile.sBias[column]);
            load<V>(skip, &tile.sSkip[column]);
            load<V>(scaled, &tile.sScaled[t][column]);
            load<V>(output, &tile.sOutput[t][column]);
            load_sums(dInput, tile.sSums[0] + t * kWidth, column);
            load_sums(ddt, tile.sSums[1] + t * kWidth, column);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                du[v] = fmaf(skip[v], output[v], dInput[v] * (scaled[v] * kLn2));
                ddt[v] = fmaf(dInput[v], u[v], ddt[v]);
                if (args.shape.hasSoftplus) ddt[v] *= sigmoid(dt[v] + bias[v]);
            }
            stash_sums(tile.sSums[1] + t * kWidth, column, ddt);
            #pragma unroll
            for (int v = 0; v < V; v++) dInput[v] = output[v] * u[v];
            stash_sums(tile.sSums[0] + t * kWidth, column, dInput);
            store<V>(args.du + at, du);
            store<V>(args.ddt + at, ddt);
            if (!args.z) continue;
            f32 z[V], dz[V], y[V];
            load<V>(z, this->z() + t * kWidth + column);
            load<V>(dz, dy() + t * kWidth + column);
            load<V>(y, &tile.sY[t][column]);
            #pragma unroll
            for (int v = 0; v < V; v++) dz[v] *= fmaf(skip[v], u[v], y[v]) * silu_slope(z[v]);
            store<V>(args.dz + at, dz);
        }
    }

    // The stretch's sum for D or dtBias of a channel: the upper half of the threads has D.
    __device__ inline f32 sum_channel() const
    {
        const i32 rows = this->rows();
        const int thread = thread_again(), c = thread % kWidth;
        if (c >= place.columns) return 0;
        const f32* from = &tile.sSums[thread < kWidth][place_of(c)];
        f32 sum = 0;
        #pragma unroll 4
        for (int t = 0; t < rows; t++) sum += from[t * kWidth];
        return sum;
    }
};

// A row of sums: of a state, or behind the last of D and of dtBias.
__device__ inline i64 sum_row(const SelectiveScanShape& shape, const ScanPlace& place, i32 n)
{
    return ((place.sequence * shape.segments + place.segment) * (shape.N + 2) + n) * shape.channels;
}

// The states of this thread in one band, from stretch to stretch.
template <typename T>
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
        }
    }

    // The state in the middle of an interval: it waits where that before the second half's first quarter is to stand.
    __device__ inline void load_middle(f32 (&h)[2][4]) const
    {
        #pragma unroll
        for (int c = 0; c < 2; c++)
            if (bands == 1) load<4>(h[c], tile.sState[kQuarters][c][threadIdx.x]);
            else load<4>(h[c], carried(4 + c));
    }

    __device__ inline void store_middle(const f32 (&h)[2][4])
    {
        #pragma unroll
        for (int c = 0; c < 2; c++)
            if (bands == 1) stash<4>(tile.sState[kQuarters][c][threadIdx.x], h[c]);
            else store<4>(carried(4 + c), h[c]);
    }

    __device__ inline void open(BackwardLane& own, bool isFirst)
    {
        const SelectiveScanShape& shape = args.shape;
        load_rates(own);
        const i32 last = place.isLast ? place.segment : place.segment + (i32)((place.stop - place.begin - 1) / shape.segmentSteps);
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
            if (has(c) && !place.isLast) join_ends(own.dh[c], own.a[c], shape, place.sequence, d(c), n(), last - 1, last - place.segment, -1);
            else if (has(c) && args.dfinal) load_states(own.dh[c], args.dfinal + (place.sequence * shape.channels + d(c)) * shape.N, n(), shape);
        }
    }

    __device__ inline void close(const BackwardLane& own, bool isLast)
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
                if (args.dinitial && place.segment == 0) store_states(args.dinitial + (place.sequence * shape.channels + d(c)) * shape.N, own.dh[c], n(), shape);
                #pragma unroll
                for (int s = 0; s < 4; s++)
                    if (n() + s < shape.N) args.sums[sum_row(shape, place, n() + s) + d(c)] = own.dA[c][s] * kLn2;
            }
        }
    }

    __device__ inline void load_kept(f32 (&h)[2][4], i64 interval) const
    {
        const f32* from = args.states + ((place.kept + interval) * args.shape.N + n()) * args.shape.channels + d(0);
        const bool hasFirst = has(0), hasSecond = has(1);
        const i32 states = args.shape.N - n();
        #pragma unroll
        for (int s = 0; s < 4; s++, from += args.shape.channels)
        {
            h[0][s] = hasFirst && s < states ? from[0] : 0.0f;
            h[1][s] = hasSecond && s < states ? from[1] : 0.0f;
        }
    }

private:
    __device__ inline f32* carried(int which) const { return args.carry + ((((i64)blockIdx.x * bands + band) * 6 + which) * kBackThreads + thread_again()) * 4; }
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kBackThreads, kBackBlocks) selective_scan_backward(const SelectiveScanBackwardArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    const SelectiveScanShape& shape = args.shape;
    BackwardTile& tile = *reinterpret_cast<BackwardTile*>(sMemory);
    T* sRows = reinterpret_cast<T*>(sMemory + sizeof(BackwardTile));
    // A block that waits for another began after it, in whatever order blocks start.
    if (threadIdx.x == 0) tile.place = ScanPlace(shape, shape.segments, 0, atomicAdd(args.turns + args.words, 1u));
    __syncthreads();                                          // the block's place is there
    const ScanPlace& place = tile.place;
    if (!place.exists)                                        // a sequence with fewer segments adds nothing
    {
        for (int i = threadIdx.x; i < (shape.N + 2) * kWidth; i += kBackThreads)
            if (i % kWidth < place.columns) args.sums[sum_row(shape, place, i / kWidth) + place.first + i % kWidth] = 0;
        return;
    }
    const int c = threadIdx.x % kWidth;
    const bool isUpper = threadIdx.x >= kWidth;               // the lower half of the threads holds channels' biases, the upper their skips
    const f32* parameter = isUpper ? shape.D : shape.dtBias;
    (isUpper ? tile.sSkip : tile.sBias)[c] = parameter && c < place.columns ? parameter[place.first + c] : 0.0f;
    BackwardLane own;
    tile.sSum[threadIdx.x] = 0;                               // of D or dtBias of a channel, only this thread's
    const i32 bands = max(1, (shape.N + kBand - 1) / kBand);
    if (bands == 1) BackwardBand<T>(args, tile, 0, 1).open(own, true);
    for (i32 k = (i32)((place.end - place.begin + kInterval - 1) / kInterval) - 1; k >= 0; k--)
    {
        const i32 last = place.end - place.begin - (i64)k * kInterval > kStretch ? 1 : 0;
        if (last == 1)
        {
            BackwardStretch<T, isWide> first(args, tile, sRows, k, 0);
            first.fetch_inputs();
            copy_async_commit();
            copy_async_wait<0>();
            __syncthreads();                                  // the biases are there; a thread prepares what it fetched
            first.prepare(true, false);
            for (i32 b = 0; b < bands; b++)
            {
                BackwardBand<T> band(args, tile, b, bands);
                f32 h[2][4];
                band.load_kept(h, k);
                if (bands > 1) band.load_rates(own);
                first.load_band(b, true, false);
                __syncthreads();                              // what prepare made and B are there
                advance_quarters(tile, own, h, 0, kQuarters, bands == 1);
                __syncthreads();                              // both have been read by all
                band.store_middle(h);
            }
        }
        #pragma unroll 1
        for (i32 half = last; half >= 0; half--)
        {
            const bool areStashed = half < last && bands == 1;
            BackwardStretch<T, isWide> stretch(args, tile, sRows, k, half);
            if (half == last) stretch.fetch_inputs();
            stretch.fetch_gradients();
            copy_async_wait<0>();
            __syncthreads();                                  // the rows, biases and skips are there
            stretch.prepare(false, half < last);
            for (i32 b = 0; b < bands; b++)
            {
                BackwardBand<T> band(args, tile, b, bands);
                f32 h[2][4];
                if (half == 0 && !areStashed) band.load_kept(h, k);
                if (half == 1) band.load_middle(h);
                if (bands > 1) band.open(own, stretch.step() + stretch.rows() == place.end);
                stretch.load_band(b, !areStashed, true);
                __syncthreads();                              // what prepare made, B and C are there, and the warps' last sums have been read
                walk_stretch(tile, own, h, half, stretch.rows(), args.z, b > 0, areStashed);
                __syncthreads();                              // the sums are there, and B and C have been read by all
                stretch.add_turn(b, bands);
                band.close(own, k + half == 0);
            }
            stretch.finish();
            __syncthreads();                                  // what steps add is there, and the rows have been read by all
            tile.sSum[threadIdx.x] += stretch.sum_channel();
        }
    }
    const int thread = thread_again(), column = thread % kWidth;
    if (column < place.columns) args.sums[sum_row(shape, place, shape.N + (thread >= kWidth ? 0 : 1)) + place.first + column] = tile.sSum[thread];
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
