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
// Layout     u, dt, z [B, L, D] and B, C [B, L, G, N] with the given strides, the last axis dense; dy, du, ddt, dz [B, L, D]; dB, dC [B, L, G, N]; states, starts
//            as in SelectiveScanForward.cu; A, dA [D, N], D, dtBias and their gradients [D], dfinal, dinitial [sequences, D, N] float; partial
//            [2, chains, B·L, G, N] with chains = ceil(blocksPerGroup / 16), or null where a group has one block, sums [sequences·segments, N + 2, D] float; carry 16 floats
//            for each thread and band, or null; turns [2·intervals, G, bands, chains], zero before, and the ticket.
// Launch     selective_scan_backward: grid sequences·segments·G·blocksPerGroup with blocksPerGroup = ceil(D / G / 64), block 128, dynamic shared memory of 6144 elements
//            and 70,592 bytes. selective_scan_sum_backward: grid ceil((N + 2)·D / 32), block 256.
// Traffic    reads (3, or 4 with z)·D + 2·G·N·blocksPerGroup elements a step and N·D floats an interval (N > kBand: twice, and B of the first half), writes (2, or 3)·D elements and
//            2·G·N; 2·G·N·(blocksPerGroup − 1) floats a step go from block to block, and a word a stretch and band; each sequence reads A, D, dtBias and dfinal, writes dinitial and
//            (N + 2)·D floats of sums; each segment the same, but with N·D + D floats for each one behind it instead of dfinal.
//            selective_scan_sum_backward reads the sums and writes the gradients. Of a layer of 5120 channels 1.14 times the least of memory, 1.49 to the multiprocessors.
// Precision  loads T, computes and accumulates f32, stores T. exp as in SelectiveScanForward.cu; 1.875 of them for each step, channel and state where N ≤ kBand, else 2.25; 15 float operations.
//            Sums over states are of numbers that are right but for 2⁻²², so what is not finite makes the same gradients of its channel at the other steps of its quarter NaN.
//            Deterministic: no float atomics, turns fix the order of additions; segments are other roundings, by the sizes of the call alone.
// Limits     N ≤ 256. isWide: addresses, strides, D / G and N are multiples of 16 bytes.
// Variants   selective_scan_backward<{f32|bf16|f16}, {true|false}>; selective_scan_sum_backward
#include "common/Columns.cuh"
#include "common/Grid.cuh"
#include "common/Mma.cuh"
#include "common/SelectiveScan.cuh"
#include "common/Turns.cuh"
#include "common/Words.cuh"

constexpr int kBackWarps = 4, kBackThreads = kBackWarps * kWarp, kBackBlocks = 3;
constexpr int kWidth = 64, kPairs = kWidth / 2;               // channels of a block, 16 of a warp
constexpr int kRow = 4 * kPairs;                              // floats of a row of the tile: four for each pair of channels
constexpr int kToSums = kInterval * kRow, kToParts = 2 * kToSums; // from a row of sInputs of the tile to the same of the arrays behind it
constexpr int kNext = kRow / kBackWarps;                      // from a pair of eight channels to the next
constexpr int kBand = 16;                                     // states that are walked together
constexpr int kOrders = 4;                                    // in which lanes have four states
constexpr int kChain = 16;                                    // blocks of a group that add to the same sums for B and C
constexpr int kStretch = kInterval / 2;                       // steps whose gradients are prepared and finished at a time
constexpr int kQuarters = 4, kQuarter = kStretch / kQuarters; // of a stretch; steps whose states and decays stand in registers

template <typename T>
struct SelectiveScanBackwardArgs                              // mirrored in CudaSelectiveScan.cs, field for field
{
    const T* u; const T* dt; const T* B; const T* C; const T* z; const T* dy; const f32* states; const f32* dfinal;
    T* du; T* ddt; T* dz; T* dB; T* dC; f32* dinitial; f32* partial; f32* sums; f32* carry; u32* turns;
    i64 rows, words;                                          // words: the turns of all stretches, groups, bands and chains
    SelectiveScanShape shape;
};

// Where the segment of a block begins in what it reads and writes, in elements; its last stretch; its place among those that add to the same sums.
struct ScanBegin
{
    i64 u, dt, z, output, B, C, states, partial[2], turn;     // output: of dy and the gradients of u, dt and z; states: of those of B and C, partial: of the chain's sums for them
    i32 last, rows;                                           // the last stretch, and its steps
    u32 chain, link;
    bool isEnd, isJoining;                                    // whether it is the last of all, or of a chain that is not the first

    __device__ inline ScanBegin(const SelectiveScanShape& shape, const ScanPlace& place, i64 allRows, i32 bands)
    {
        u = place.row * shape.uBatch + place.begin * shape.uStep + place.first;
        dt = place.row * shape.dtBatch + place.begin * shape.dtStep + place.first;
        z = place.row * shape.zBatch + place.begin * shape.zStep + place.first;
        output = (place.row * shape.L + place.begin) * shape.channels + place.first;
        B = place.row * shape.bBatch + place.begin * shape.bStep + place.group * shape.bGroup;
        C = place.row * shape.cBatch + place.begin * shape.cStep + place.group * shape.cGroup;
        last = (i32)((place.end - place.begin + kStretch - 1) / kStretch) - 1;
        rows = (i32)(place.end - place.begin - (i64)last * kStretch);
        const u32 part = (u32)place.part, chains = chains_of(shape);
        chain = part / kChain;
        link = part % kChain;
        isEnd = part + 1 == shape.blocksPerGroup;
        isJoining = chain > 0 && (isEnd || link + 1 == kChain);
        const i64 all = allRows * shape.G * shape.N;
        states = ((place.row * shape.L + place.begin) * shape.G + place.group) * shape.N;
        partial[0] = chain * all + states;
        partial[1] = (chains + chain) * all + states;
        turn = (2 * place.kept * shape.G + place.group) * bands * chains + chain;
    }

    __device__ inline static u32 chains_of(const SelectiveScanShape& shape) { return (shape.blocksPerGroup + kChain - 1u) / kChain; }
};

// The shared memory of a backward block; behind it the rows of u, dt, z and dy as they are. Of a row of an interval's steps, floats for pairs of channels at place_of. Before a quarter is walked
// back its rows of sSums and sParts hold the states before it, each warp's in its own columns.
struct alignas(16) BackwardTile
{
    f32 sInputs[kInterval][kPairs][4];                        // Δ·log2 e and Δ·u; 0 behind the last step and channel; where there is one band the gradient of Δ·u takes its place
    f32 sSums[kInterval][kPairs][4];                          // the gradient of Δ through the decay, and y before the gate and without the skip; then what steps add to the gradients of dtBias and D
    f32 sParts[kInterval][kPairs][4];                         // what each warp adds to dB and dC, in its quarter
    f32 sOutputs[kStretch][kPairs][4];                        // dy behind the gate, and dy times the gate's slope
    f32 sParameters[kPairs][4];                               // dtBias and D
    f32 sB[kInterval][kOrders][kBand], sC[kStretch][kOrders][kBand];
    f32 sOnes[8][2 * kQuarter];                               // every array begins at a multiple of 16 bytes; the unit matrix: for each column of a product, and so for four lanes, the steps whose it is
    ScanPlace place;                                          // here it takes no registers
    ScanBegin begin;
};

// Where a pair of channels stands in a row: those of eight neighbouring channels at constant distances, and beside them those of the next eight, so that threads with eight channels each reach
// all banks. A quarter of a row is a warp's.
__device__ inline u32 place_of(u32 pair) { return pair % 4 * 8 + pair / 4; }

// The first and the second two of the four numbers of each pair, of V neighbouring channels, the first a multiple of V. `at` is the place of the first in the row.
template <int V>
__device__ inline void load_pairs(f32 (&first)[V], f32 (&second)[V], const f32* at)
{
    if constexpr (V == 1)
    {
        first[0] = at[0];
        second[0] = at[2];
    }
    else
        #pragma unroll
        for (int v = 0; v < V; v += 2)
        {
            f32 four[4];
            load<4>(four, at + v / 2 * kNext);
            first[v] = four[0];
            first[v + 1] = four[1];
            second[v] = four[2];
            second[v + 1] = four[3];
        }
}

// Two of the four.
template <int V>
__device__ inline void load_twos(f32 (&two)[V], const f32* at)
{
    #pragma unroll
    for (int v = 0; v < V; v++) two[v] = at[v / 2 * kNext + v % 2];
}

template <int V>
__device__ inline void stash_pairs(f32* at, const f32 (&first)[V], const f32 (&second)[V])
{
    if constexpr (V == 1)
    {
        at[0] = first[0];
        at[2] = second[0];
    }
    else
        #pragma unroll
        for (int v = 0; v < V; v += 2)
        {
            const f32 four[4] = {first[v], first[v + 1], second[v], second[v + 1]};
            stash<4>(at + v / 2 * kNext, four);
        }
}

// One of two values, added over this lane and the one that differs in `bit`: lanes with the bit take b, the others a.
__device__ inline f32 half_sum(f32 a, f32 b, int bit)
{
    const bool isUpper = threadIdx.x & bit;
    const f32 other = __shfl_xor_sync(kAllLanes, isUpper ? a : b, bit);
    return (isUpper ? b : a) + other;
}

// Adds to a column of sums what the four lanes of a pair of channels have for each of the two: rows are channels. A number is the sum of two of TF32 but for 2 to the -22, and all others of
// the column are ones.
__device__ inline void add_lanes(f32 (&sums)[4], const f32 (&x)[2], f32 one)
{
    const u32 first = to_tf32(x[0]), second = to_tf32(x[1]);
    const u32 parts[4] = {first, second, bits_of(x[0] - __uint_as_float(first)), bits_of(x[1] - __uint_as_float(second))};
    mma_16x8x8_tf32(sums, parts, bits_of(one), bits_of(one));
}

// The states of one lane: 2 neighbouring channels × 4 neighbouring states, in the order in which an exchange with another lane needs no choice: the s-th is state s ^ order().
struct BackwardLane
{
    f32 a[2][4], dh[2][4], dA[2][4];                          // A; the gradient of the state; the sum for A, times log2 e

    // The pair of channels, the first of them, the first state and the order of states of this lane, in its block and band.
    __device__ static u32 pair(u32 thread) { return thread / 4 % 8 * 4 + thread / kWarp; }
    __device__ static int channel(u32 thread) { return 2 * pair(thread); }
    __device__ static int state(u32 thread) { return thread % 4 * 4; }
    __device__ static int order(u32 thread) { return thread / 8 % 4; }

    // States as they follow each other to those of this lane, or back.
    __device__ static void reorder(f32 (&x)[4])
    {
        const int thread = thread_again();
        const bool areHalves = order(thread) & 2, areNeighbours = order(thread) & 1;
        const f32 y[4] = {areHalves ? x[2] : x[0], areHalves ? x[3] : x[1], areHalves ? x[0] : x[2], areHalves ? x[1] : x[3]};
        #pragma unroll
        for (int s = 0; s < 4; s++) x[s] = areNeighbours ? y[s ^ 1] : y[s];
    }

    // Where this lane's pair of channels stands in rows of the tile, and its states in those of B and C.
    __device__ static u32 pair_at(u32 thread) { return thread / 4 * 4; }
    __device__ static u32 states_at(u32 thread) { return order(thread) * kBand + state(thread); }
    // In its warp's quarter of a row: there, the states before a quarter of a stretch, from its first row on, and what the warp adds to dB and dC: of that the sum that add_channels leaves here.
    __device__ static u32 own_at(u32 thread) { return thread / kWarp * kNext + thread % 8 * 4; }
    __device__ static u32 stash_at(u32 thread) { return own_at(thread) + thread / 8 % 4 * kRow; }
    __device__ static u32 part_at(u32 thread) { return own_at(thread) + order(thread); }

    // The decay of a step, and the state behind it.
    __device__ inline void decay_by(f32 (&decay)[2][4], const f32 (&scaled)[2]) const
    {
        #pragma unroll
        for (int c = 0; c < 2; c++)
            #pragma unroll
            for (int s = 0; s < 4; s++) decay[c][s] = power_of_two(scaled[c] * a[c][s]);
    }

    __device__ static void advance(f32 (&h)[2][4], const f32 (&before)[2][4], const f32 (&decay)[2][4], const f32 (&input)[2], const f32 (&B)[4])
    {
        #pragma unroll
        for (int c = 0; c < 2; c++)
            #pragma unroll
            for (int s = 0; s < 4; s++) h[c][s] = fmaf(decay[c][s], before[c][s], input[c] * B[s]);
    }

    // Over the 8 lanes of the same states: one of the sums for B and C.
    __device__ static f32 add_channels(const f32 (&dB)[4], const f32 (&dC)[4])
    {
        f32 two[2][2];
        #pragma unroll
        for (int s = 0; s < 2; s++)
        {
            two[0][s] = dB[s] + __shfl_xor_sync(kAllLanes, dB[s + 2], 16);
            two[1][s] = dC[s] + __shfl_xor_sync(kAllLanes, dC[s + 2], 16);
        }
        const f32 ofB = two[0][0] + __shfl_xor_sync(kAllLanes, two[0][1], 8), ofC = two[1][0] + __shfl_xor_sync(kAllLanes, two[1][1], 8);
        return half_sum(ofB, ofC, 4);
    }
};

// The states before a quarter.
__device__ inline void load_saved(f32 (&h)[2][4], const f32* saved)
{
    load<4>(h[0], saved);
    load<4>(h[1], saved + kToParts - kToSums);
}

// Forward through quarters of an interval. isStashing: the states before each remain.
template <bool isStashing>
__device__ inline void advance_quarters(BackwardTile& tile, const BackwardLane& own, f32 (&h)[2][4], u32 quarter, u32 end)
{
    const u32 thread = thread_again(), row = quarter * kQuarter;
    const f32 *pairs = tile.sInputs[row][0] + BackwardLane::pair_at(thread), *states = tile.sB[row][0] + BackwardLane::states_at(thread);
    f32* saved = tile.sSums[row][0] + BackwardLane::stash_at(thread);
    #pragma unroll 1
    for (; quarter < end; quarter++)
    {
        if constexpr (isStashing)
        {
            stash<4>(saved, h[0]);
            stash<4>(saved + kToParts - kToSums, h[1]);
            saved += kQuarter * kRow;
        }
        #pragma unroll
        for (int i = 0; i < kQuarter; i++)
        {
            f32 four[4], B[4], decay[2][4];
            load<4>(four, pairs + i * kRow);
            load<4>(B, states + i * kOrders * kBand);
            own.decay_by(decay, {four[0], four[1]});
            BackwardLane::advance(h, h, decay, {four[2], four[3]}, B);
        }
        pairs += kQuarter * kRow;
        states += kQuarter * kOrders * kBand;
    }
}

// A stretch from its last quarter back, whose state before it is h; those before the others are stashed. isBanded: sums stand in the rows of the other half of the interval, of y in sParts.
template <bool hasGate>
__device__ inline void walk_stretch(BackwardTile& tile, BackwardLane& own, const f32 (&begin)[2][4], int half, int last, bool isInHand, bool isBanded, bool isAdding)
{
    const u32 thread = thread_again(), row = half * kStretch + last * kQuarter, column = thread % 4;
    f32* rows = tile.sInputs[row][0];
    const f32 *pairs = rows + BackwardLane::pair_at(thread), *outputs = tile.sOutputs[last * kQuarter][0] + BackwardLane::pair_at(thread), *saved = rows + kToSums + BackwardLane::stash_at(thread);
    const f32 *statesB = tile.sB[row][0] + BackwardLane::states_at(thread), *statesC = tile.sC[last * kQuarter][0] + BackwardLane::states_at(thread);
    f32* part = rows + kToParts + BackwardLane::part_at(thread);
    // Of the products' columns, steps of the quarter and then the same again, a lane has two neighbours: of the gradient of Δ·u and, behind it, of y, or of that of Δ.
    f32* sum = (isBanded ? tile.sSums[row ^ kStretch][0] : column < 2 ? rows : rows + kToSums) + (column % 2 * 2 * kRow + BackwardLane::pair_at(thread) + (column < 2 ? 2 : 0));
    const u32 hasY = kept(column < 2 ? 1u : 0u);
    f32 after[2][4], ones[2][kQuarter];
    load<4>(ones[0], tile.sOnes[thread / 4 % 8]);
    load<4>(ones[1], tile.sOnes[thread / 4 % 8] + kQuarter);
    f32 h[2][4];
    if (!isInHand) load_saved(h, saved);
    else
        #pragma unroll
        for (int c = 0; c < 2; c++)
            #pragma unroll
            for (int s = 0; s < 4; s++) h[c][s] = begin[c][s];
    #pragma unroll 1
    for (int quarter = last;; quarter--)
    {
        f32 scaled[kQuarter][2], input[kQuarter][2], before[kQuarter][2][4], decay[kQuarter][2][4], sums[4] = {}, sumsY[4] = {};
        const bool isFirst = quarter == last;
        #pragma unroll
        for (int i = 0; i < kQuarter; i++)
        {
            f32 four[4], B[4];
            load<4>(four, pairs + i * kRow);
            scaled[i][0] = four[0];
            scaled[i][1] = four[1];
            input[i][0] = four[2];
            input[i][1] = four[3];
            #pragma unroll
            for (int c = 0; c < 2; c++)
                #pragma unroll
                for (int s = 0; s < 4; s++) before[i][c][s] = kept_float(h[c][s]);
            own.decay_by(decay[i], scaled[i]);
            if (i + 1 < kQuarter || isFirst)                  // else it is known: the state before the quarter behind
            {
                load<4>(B, statesB + i * kOrders * kBand);
                BackwardLane::advance(i + 1 < kQuarter ? h : after, before[i], decay[i], input[i], B);
            }
        }
        __syncwarp();                                         // the warp's states and inputs have been read
        f32* sumY = sum + kToSums;
        if (__builtin_expect(isAdding, false))                // a lane has of two steps, the columns, both channels
            #pragma unroll
            for (int i = 0; i < 2; i++)
            {
                sums[i] = sum[i * kRow];
                sums[i + 2] = sum[i * kRow + 1];
                if (!hasGate || !hasY) continue;
                sumsY[i] = sumY[i * kRow];
                sumsY[i + 2] = sumY[i * kRow + 1];
            }
        #pragma unroll
        for (int i = kQuarter - 1; i >= 0; i--)
        {
            f32 output[2], B[4], C[4], dB[4] = {}, dC[4] = {}, dInput[2] = {}, dDelta[2] = {}, y[2] = {};
            load<2>(output, outputs + i * kRow);
            load<4>(B, statesB + i * kOrders * kBand);
            load<4>(C, statesC + i * kOrders * kBand);
            #pragma unroll
            for (int c = 0; c < 2; c++)
                #pragma unroll
                for (int s = 0; s < 4; s++)
                {
                    const f32 behind = i + 1 < kQuarter ? before[i + 1][c][s] : after[c][s];
                    f32& dh = own.dh[c][s];
                    dh = fmaf(output[c], C[s], dh);
                    dC[s] = fmaf(output[c], behind, dC[s]);
                    dB[s] = fmaf(input[i][c], dh, dB[s]);
                    dInput[c] = fmaf(B[s], dh, dInput[c]);
                    dh *= decay[i][c][s];
                    const f32 dExponent = dh * before[i][c][s];                  // of Δ·A
                    dDelta[c] = fmaf(own.a[c][s], dExponent, dDelta[c]);
                    own.dA[c][s] = fmaf(scaled[i][c], dExponent, own.dA[c][s]);
                }
            add_lanes(sums, dInput, ones[0][i]);
            add_lanes(sums, dDelta, ones[1][i]);
            if constexpr (hasGate)
            {
                #pragma unroll
                for (int c = 0; c < 2; c++)
                    #pragma unroll
                    for (int s = 0; s < 4; s++) y[c] = fmaf(C[s], i + 1 < kQuarter ? before[i + 1][c][s] : after[c][s], y[c]);
                add_lanes(sumsY, y, ones[0][i]);
            }
            part[i * kRow] = BackwardLane::add_channels(dB, dC);
        }
        #pragma unroll
        for (int c = 0; c < 2; c++)
            #pragma unroll
            for (int s = 0; s < 4; s++) after[c][s] = before[0][c][s];
        #pragma unroll
        for (int i = 0; i < 2; i++)
        {
            const f32 two[2] = {sums[i], sums[i + 2]};
            stash<2>(sum + i * kRow, two);
        }
        if (hasGate && hasY)
            #pragma unroll
            for (int i = 0; i < 2; i++)
            {
                const f32 two[2] = {sumsY[i], sumsY[i + 2]};
                stash<2>(sumY + i * kRow, two);
            }
        if (quarter == 0) break;
        pairs -= kQuarter * kRow;
        outputs -= kQuarter * kRow;
        statesB -= kQuarter * kOrders * kBand;
        statesC -= kQuarter * kOrders * kBand;
        saved -= kQuarter * kRow;
        part -= kQuarter * kRow;
        sum -= kQuarter * kRow;
        load_saved(h, saved);
    }
}

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
    __device__ inline u32 step() const { return number * kStretch; }
    __device__ inline u32 interval_step() const { return (number - half) * kStretch; }
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
        u32* turn = args.turns + begin.turn + (u64)number * ((u32)shape.G * bands * chains) + band * chains;
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
        const u64 at = (u64)(step() + t) * ((u32)shape.G * shape.N) + n;
        f32* sums = args.partial + begin.partial[kind] + at;
        await_turn(turn, link);
        if (hasSums && link > 0) add_sums(sum, sums, n);
        if (begin.isJoining)
        {
            await_turn(turn - 1, (u32)kChain);
            if (hasSums) add_sums(sum, sums - args.rows * ((u32)shape.G * shape.N), n);
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
            const i64 to = tile.begin.output + (i64)(step() + at.row) * shape.channels + at.column;
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
    return ((place.sequence * shape.segments + place.segment) * (shape.N + 2) + n) * shape.channels;
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
            f32 a[4] = {own.a[c][0], own.a[c][1], own.a[c][2], own.a[c][3]};
            BackwardLane::reorder(a);
            if (has(c) && !place.isLast) join_ends(own.dh[c], a, shape, place.sequence, d(c), n(), last - 1, last - place.segment, -1);
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
        tile.place = ScanPlace(shape, shape.segments, 0, atomicAdd(args.turns + args.words, 1u));
        tile.begin = ScanBegin(shape, tile.place, args.rows, bands);
    }
    __syncthreads();                                          // the block's place is there
    const ScanPlace& place = tile.place;
    if (!place.exists)                                        // a sequence with fewer segments adds nothing
    {
        for (int i = threadIdx.x; i < (shape.N + 2) * kWidth; i += kBackThreads)
            if (i % kWidth < place.columns) args.sums[sum_row(shape, place, i / kWidth) + place.first + i % kWidth] = 0;
        return;
    }
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
