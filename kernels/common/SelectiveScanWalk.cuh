// SelectiveScanWalk.cuh: the walks of SelectiveScanBackward.cu: what a block holds in shared memory, what a lane holds of the states, forward through quarters of an interval, and back.
#pragma once
#include "common/Mma.cuh"
#include "common/SelectiveScan.cuh"

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

// Where the segment of a block begins in what it reads and writes, in elements; its last stretch; its place among those that add to the same sums.
struct ScanBegin
{
    i64 u, dt, z, output, B, C, states, partial[2], turn;     // output: of dy and the gradients of u, dt and z; states: of those of B and C, partial: of the chain's sums for them
    i64 statesOfStep, turnsOfStretch;                         // from a step of dB, dC and the sums to the next, and of turns from a stretch to the next
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
        statesOfStep = (i64)shape.G * shape.N;
        turnsOfStretch = (i64)shape.G * bands * chains;
        const i64 all = allRows * statesOfStep;
        states = (place.row * shape.L + place.begin) * statesOfStep + place.group * shape.N;
        partial[0] = chain * all + states;
        partial[1] = (chains + chain) * all + states;
        turn = 2 * place.kept * turnsOfStretch + place.group * bands * chains + chain;
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
