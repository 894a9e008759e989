// SelectiveScanBackward.cu
//
// Computes   the gradients of all inputs of selective_scan_forward from those of y and the final state. With G[n] the gradient of h[n] behind step t, and
//            g = dy·silu(z): G[n] += g·C[t,n]; dC[t,n] = Σ_d g·h[n]; dB[t,n] = Σ_d Δ·u·G[n]; d(Δ·u) = Σₙ B[t,n]·G[n]; G[n] becomes G[n]·exp(Δ·A[d,n]), the
//            gradient before step t; with that and h before it dΔ = Σₙ A·G·h + u·d(Δ·u), dA[d,n] = Σ_t Δ·G·h; du = Δ·d(Δ·u) + D·g.
// Source     Gu and Dao 2023, arXiv:2312.00752, section 3.2 and algorithm 2, as src/ZEngine/Ops/SelectiveScan.cs defines it.
// Method     a block walks one sequence back with kWidth channels, a stretch of kStretch steps at a time: a lane has 2 channels × 4 states, a warp 16 channels.
//            A stretch runs forward from its kept state in quarters; then each quarter, from the last on, again with its states and decays in registers,
//            and back. Sums over states (4 lanes) and over channels (8 lanes, 4 warps) halve the values at each exchange of lanes. The block's
//            sums for B and C are partial sums, which selective_scan_sum_backward adds in order, as it does for A, D and dtBias those of the
//            segments of sequences, of which there are several as in SelectiveScanForward.cu. States are kept at every stretch, for 4·N / kStretch bytes a step and
//            channel: fewer would be walked to once more, and float operations bind this pass, not bytes. N > kBand in bands of kBand states; their gradients wait in
//            `carry` between stretches.
// Layout     u, dt, z [B, L, D] and B, C [B, L, G, N] with the given strides, the last axis dense; dy, du, ddt, dz [B, L, D]; dB, dC [B, L, G, N]; states, starts
//            as in SelectiveScanForward.cu; A, dA [D, N], D, dtBias and their gradients [D], dfinal, dinitial [sequences, D, N] float; partial
//            [blocksPerGroup, 2, B·L, G, N], sums [sequences·segments, N + 2, D] float; carry 16 floats for each thread and band, or null.
// Launch     selective_scan_backward: grid sequences·segments·G·blocksPerGroup with blocksPerGroup = ceil(D / G / 64), block 128, dynamic shared memory of 4096 elements
//            and 47,744 bytes. selective_scan_sum_backward: grid ceil(2·B·L·G·N / 32) + ceil((N + 2)·D / 32), block 256.
// Traffic    reads (3, or 4 with z)·D + 2·G·N·blocksPerGroup elements a step and N·D floats a stretch, writes (2, or 3)·D elements and
//            2·G·N·blocksPerGroup floats a step; each sequence reads A, D, dtBias and dfinal, writes dinitial and (N + 2)·D floats of sums; each
//            segment the same, but with N·D + D floats for each one behind it instead of dfinal.
//            selective_scan_sum_backward reads the partial sums and writes the gradients.
// Precision  loads T, computes and accumulates f32, stores T. exp as in SelectiveScanForward.cu; 1.75 of them for each step, channel and state.
//            Deterministic: no atomics, fixed order of additions; segments are another order, by sizes alone.
// Limits     N ≤ 256. isWide: addresses, strides, D / G and N are multiples of 16 bytes.
// Variants   selective_scan_backward<{f32|bf16|f16}, {true|false}>; selective_scan_sum_backward<{f32|bf16|f16}>
#include "common/Columns.cuh"
#include "common/Grid.cuh"
#include "common/SelectiveScan.cuh"

constexpr int kBackWarps = 4, kBackThreads = kBackWarps * kWarp, kBackBlocks = 3;
constexpr int kWidth = 64;                                    // channels of a block, 16 of a warp
constexpr int kBand = 16;                                     // states that are walked together
constexpr int kQuarter = kStretch / 4;                        // steps whose states and decays stand in registers

template <typename T>
struct SelectiveScanBackwardArgs                              // mirrored in CudaSelectiveScan.cs, field for field
{
    const T* u; const T* dt; const T* B; const T* C; const T* z; const T* dy; const f32* states; const f32* dfinal;
    T* du; T* ddt; T* dz; f32* dinitial; f32* partial; f32* sums; f32* carry;
    i64 rows;
    SelectiveScanShape shape;
};

// The shared memory of a backward block; behind it the rows of u, dt, z and dy as they are.
struct BackwardTile
{
    f32 sScaled[kStretch][kWidth], sInput[kStretch][kWidth], sOutput[kStretch][kWidth]; // Δ·log2 e, Δ·u, and dy behind the gate; 0 behind the last step and channel
    f32 sY[kStretch][kWidth];                                 // y before the gate and without the skip
    f32 sSums[2][kStretch * kWidth + 16];                     // the gradients of Δ·u and, through the decay, of Δ; later of dt. 16: other banks
    f32 sB[kStretch][kBand], sC[kStretch][kBand];
    f32 sPart[kBackWarps][kStretch][2 * kBand];               // what each warp adds to dB and dC
    f32 sState[kStretch / kQuarter - 1][2][kBackThreads][4];  // each thread's states before each quarter but the last
    f32 sBias[kWidth], sSkip[kWidth];                         // every array begins at a multiple of 16 bytes
};

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
    __device__ static int channel() { return threadIdx.x / kWarp * 16 + threadIdx.x % kWarp / 4 * 2; }
    __device__ static int state() { return threadIdx.x % 4 * 4; }

    __device__ inline void advance(const BackwardTile& tile, int t, f32 (&h)[2][4], f32 (&decay)[2][4]) const
    {
        f32 scaled[2], input[2], B[4];
        load<2>(scaled, &tile.sScaled[t][channel()]);
        load<2>(input, &tile.sInput[t][channel()]);
        load<4>(B, &tile.sB[t][state()]);
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
    __device__ inline void retreat(BackwardTile& tile, int t, const f32 (&before)[2][4], const f32 (&after)[2][4], const f32 (&decay)[2][4], bool hasGate, bool isAdding)
    {
        f32 scaled[2], input[2], output[2], B[4], C[4], dB[4] = {}, dC[4] = {}, dInput[2] = {}, dDelta[2] = {}, y[2] = {};
        load<2>(scaled, &tile.sScaled[t][channel()]);
        load<2>(input, &tile.sInput[t][channel()]);
        load<2>(output, &tile.sOutput[t][channel()]);
        load<4>(B, &tile.sB[t][state()]);
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
        f32* sSum = &tile.sSums[which][t * kWidth + at];
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

// A stretch forward from its kept state, quarter by quarter, and back.
__device__ inline void walk_stretch(BackwardTile& tile, BackwardLane& own, f32 (&h)[2][4], i32 rows, bool hasGate, bool isAdding)
{
    const int last = (rows - 1) / kQuarter;
    #pragma unroll 1
    for (int quarter = 0; quarter < last; quarter++)
    {
        stash<4>(tile.sState[quarter][0][threadIdx.x], h[0]);
        stash<4>(tile.sState[quarter][1][threadIdx.x], h[1]);
        #pragma unroll
        for (int i = 0; i < kQuarter; i++)
        {
            f32 decay[2][4];
            own.advance(tile, quarter * kQuarter + i, h, decay);
        }
    }
    #pragma unroll 1
    for (int quarter = last; quarter >= 0; quarter--)
    {
        f32 before[kQuarter + 1][2][4], decay[kQuarter][2][4];
        if (quarter < last)
        {
            load<4>(h[0], tile.sState[quarter][0][threadIdx.x]);
            load<4>(h[1], tile.sState[quarter][1][threadIdx.x]);
        }
        #pragma unroll
        for (int i = 0; i <= kQuarter; i++)
        {
            #pragma unroll
            for (int c = 0; c < 2; c++)
                #pragma unroll
                for (int s = 0; s < 4; s++) before[i][c][s] = h[c][s];
            if (i < kQuarter) own.advance(tile, quarter * kQuarter + i, h, decay[i]);
        }
        #pragma unroll
        for (int i = kQuarter - 1; i >= 0; i--) own.retreat(tile, quarter * kQuarter + i, before[i], before[i + 1], decay[i], hasGate, isAdding);
    }
}

// What a block does for a stretch. Steps are those of the row.
template <typename T, bool isWide>
struct BackwardStretch
{
    static constexpr int V = kVector<T, isWide>, kChunks = kWidth / V;
    const SelectiveScanBackwardArgs<T>& args;
    const ScanPlace& place;
    BackwardTile& tile;
    T* sU; T* sDt; T* sZ; T* sDy;
    i64 step;
    i32 rows;

    __device__ inline void fetch()
    {
        const SelectiveScanShape& shape = args.shape;         // B·L·D may exceed 2³¹
        fetch_rows<isWide>(sU, kWidth, args.u + place.row * shape.uBatch + step * shape.uStep + place.first, shape.uStep, rows, place.columns);
        fetch_rows<isWide>(sDt, kWidth, args.dt + place.row * shape.dtBatch + step * shape.dtStep + place.first, shape.dtStep, rows, place.columns);
        if (args.z) fetch_rows<isWide>(sZ, kWidth, args.z + place.row * shape.zBatch + step * shape.zStep + place.first, shape.zStep, rows, place.columns);
        fetch_rows<isWide>(sDy, kWidth, args.dy + (place.row * shape.L + step) * shape.channels + place.first, shape.channels, rows, place.columns);
        copy_async_commit();
    }

    __device__ inline void prepare()
    {
        for (int i = threadIdx.x; i < kStretch * kChunks; i += kBackThreads)
        {
            const int t = i / kChunks, column = i % kChunks * V;
            f32 scaled[V] = {}, input[V] = {}, output[V] = {};
            if (t < rows && column < place.columns)
            {
                f32 u[V], z[V], bias[V];
                load<V>(bias, &tile.sBias[column]);
                load<V>(u, sU + t * kWidth + column);
                load<V>(scaled, sDt + t * kWidth + column);
                load<V>(output, sDy + t * kWidth + column);
                if (args.z) load<V>(z, sZ + t * kWidth + column);
                #pragma unroll
                for (int v = 0; v < V; v++)
                {
                    const f32 raw = scaled[v] + bias[v], delta = args.shape.hasSoftplus ? softplus(raw) : raw;
                    scaled[v] = scale_exponent(delta);
                    input[v] = delta * u[v];
                    if (args.z) output[v] *= silu(z[v]);
                }
            }
            stash<V>(&tile.sScaled[t][column], scaled);
            stash<V>(&tile.sInput[t][column], input);
            stash<V>(&tile.sOutput[t][column], output);
        }
    }

    // B and C of a band: 4 states of one of them to a thread.
    __device__ inline void load_band(i32 band)
    {
        const SelectiveScanShape& shape = args.shape;
        const int t = threadIdx.x / 8, quad = threadIdx.x % 4 * 4, n = band * kBand + quad;
        const bool isC = threadIdx.x & 4;
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
        stash<4>(isC ? &tile.sC[t][quad] : &tile.sB[t][quad], four);
    }

    // The block's sums for B and C of a band.
    __device__ inline void store_band(i32 band)
    {
        const SelectiveScanShape& shape = args.shape;
        const int t = threadIdx.x / 8, kind = threadIdx.x / 4 % 2, quad = threadIdx.x % 4 * 4, n = band * kBand + quad;
        if (t >= rows) return;
        f32 sum[4] = {};
        #pragma unroll
        for (int warp = 0; warp < kBackWarps; warp++)
            #pragma unroll
            for (int i = 0; i < 4; i++) sum[i] += tile.sPart[warp][t][kind * kBand + quad + i];
        f32* to = args.partial + (((place.part * 2 + kind) * args.rows + place.row * shape.L + step + t) * shape.G + place.group) * shape.N;
        if constexpr (isWide)
        {
            if (n < shape.N) store<4>(to + n, sum);
        }
        else
            #pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + i < shape.N) to[n + i] = sum[i];
    }

    // The gradients of u, dt and z; that of dt also takes the place of Δ's.
    __device__ inline void finish()
    {
        for (int i = threadIdx.x; i < rows * kChunks; i += kBackThreads)
        {
            const int t = i / kChunks, column = i % kChunks * V;
            if (column >= place.columns) continue;
            const i64 at = (place.row * args.shape.L + step + t) * args.shape.channels + place.first + column;
            f32 u[V], dt[V], bias[V], skip[V], scaled[V], output[V], dInput[V], ddt[V], du[V];
            load<V>(u, sU + t * kWidth + column);
            load<V>(dt, sDt + t * kWidth + column);
            load<V>(bias, &tile.sBias[column]);
            load<V>(skip, &tile.sSkip[column]);
            load<V>(scaled, &tile.sScaled[t][column]);
            load<V>(output, &tile.sOutput[t][column]);
            load<V>(dInput, &tile.sSums[0][t * kWidth + column]);
            load<V>(ddt, &tile.sSums[1][t * kWidth + column]);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                du[v] = fmaf(skip[v], output[v], dInput[v] * (scaled[v] * kLn2));
                ddt[v] = fmaf(dInput[v], u[v], ddt[v]);
                if (args.shape.hasSoftplus) ddt[v] *= sigmoid(dt[v] + bias[v]);
            }
            stash<V>(&tile.sSums[1][t * kWidth + column], ddt);
            store<V>(args.du + at, du);
            store<V>(args.ddt + at, ddt);
            if (!args.z) continue;
            f32 z[V], dz[V], y[V];
            load<V>(z, sZ + t * kWidth + column);
            load<V>(dz, sDy + t * kWidth + column);
            load<V>(y, &tile.sY[t][column]);
            #pragma unroll
            for (int v = 0; v < V; v++) dz[v] *= fmaf(skip[v], u[v], y[v]) * silu_slope(z[v]);
            store<V>(args.dz + at, dz);
        }
    }

    // The stretch's sum for D or dtBias of a channel: the upper half of the threads has D.
    __device__ inline f32 sum_channel() const
    {
        const int c = threadIdx.x % kWidth;
        f32 sum = 0;
        if (c < place.columns)
            for (int t = 0; t < rows; t++) sum += threadIdx.x < kWidth ? tile.sSums[1][t * kWidth + c] : tile.sOutput[t][c] * to_f32(sU[t * kWidth + c]);
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
    const ScanPlace& place;
    i32 band, bands;

    __device__ inline int n() const { return band * kBand + BackwardLane::state(); }
    __device__ inline i64 d(int c) const { return place.first + BackwardLane::channel() + c; }
    __device__ inline bool has(int c) const { return BackwardLane::channel() + c < place.columns; }

    __device__ inline void open(BackwardLane& own, bool isFirst)
    {
        const SelectiveScanShape& shape = args.shape;
        if (!isFirst && bands == 1) return;                   // everything is in registers
        const ScanPlace here(shape, shape.segments, 0, block_again());
        const i32 last = here.isLast ? here.segment : here.segment + (i32)((here.stop - here.begin - 1) / shape.segmentSteps);
        #pragma unroll
        for (int c = 0; c < 2; c++)
        {
            #pragma unroll
            for (int s = 0; s < 4; s++) own.a[c][s] = 0;
            if (has(c)) load_states(own.a[c], shape.A + d(c) * shape.N, n(), shape);
            if (!isFirst)
            {
                load<4>(own.dh[c], carried(c));
                load<4>(own.dA[c], carried(2 + c));
                continue;
            }
            #pragma unroll
            for (int s = 0; s < 4; s++) own.dh[c][s] = own.dA[c][s] = 0;
            if (has(c) && !here.isLast) join_ends(own.dh[c], own.a[c], shape, here.sequence, d(c), n(), last - 1, last - here.segment, -1);
            else if (has(c) && args.dfinal) load_states(own.dh[c], args.dfinal + (here.sequence * shape.channels + d(c)) * shape.N, n(), shape);
        }
    }

    __device__ inline void close(const BackwardLane& own, bool isLast)
    {
        const SelectiveScanShape& shape = args.shape;
        if (!isLast && bands == 1) return;
        const ScanPlace here(shape, shape.segments, 0, block_again());
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
                if (args.dinitial && here.segment == 0) store_states(args.dinitial + (here.sequence * shape.channels + d(c)) * shape.N, own.dh[c], n(), shape);
                #pragma unroll
                for (int s = 0; s < 4; s++)
                    if (n() + s < shape.N) args.sums[sum_row(shape, here, n() + s) + d(c)] = own.dA[c][s] * kLn2;
            }
        }
    }

    __device__ inline void load_kept(f32 (&h)[2][4], i64 stretch) const
    {
        #pragma unroll
        for (int s = 0; s < 4; s++)
            #pragma unroll
            for (int c = 0; c < 2; c++)
                h[c][s] = has(c) && n() + s < args.shape.N ? args.states[((place.kept + stretch) * args.shape.N + n() + s) * args.shape.channels + d(c)] : 0.0f;
    }

private:
    __device__ inline f32* carried(int which) const { return args.carry + ((((i64)blockIdx.x * bands + band) * 4 + which) * kBackThreads + threadIdx.x) * 4; }
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kBackThreads, kBackBlocks) selective_scan_backward(const SelectiveScanBackwardArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    const SelectiveScanShape& shape = args.shape;
    const ScanPlace place(shape, shape.segments, 0);
    if (!place.exists)                                        // a sequence with fewer segments adds nothing
    {
        for (int i = threadIdx.x; i < (shape.N + 2) * kWidth; i += kBackThreads)
            if (i % kWidth < place.columns) args.sums[sum_row(shape, place, i / kWidth) + place.first + i % kWidth] = 0;
        return;
    }
    BackwardTile& tile = *reinterpret_cast<BackwardTile*>(sMemory);
    T* sRows = reinterpret_cast<T*>(sMemory + sizeof(BackwardTile));
    constexpr int kRows = kStretch * kWidth;
    const int c = threadIdx.x % kWidth;
    const i64 stretches = (place.end - place.begin + kStretch - 1) / kStretch;
    const bool isUpper = threadIdx.x >= kWidth;               // the lower half of the threads holds channels' biases, the upper their skips
    const f32* parameter = isUpper ? shape.D : shape.dtBias;
    (isUpper ? tile.sSkip : tile.sBias)[c] = parameter && c < place.columns ? parameter[place.first + c] : 0.0f;
    BackwardLane own;
    f32 sum = 0;
    const i32 bands = max(1, (shape.N + kBand - 1) / kBand);
    for (i64 k = stretches - 1; k >= 0; k--)
    {
        const i64 step = place.begin + k * kStretch;
        BackwardStretch<T, isWide> stretch{args, place, tile, sRows, sRows + kRows, sRows + 2 * kRows, sRows + 3 * kRows, step, (i32)min((i64)kStretch, place.end - step)};
        stretch.fetch();
        copy_async_wait<0>();
        __syncthreads();                                      // the rows, biases and skips are there
        stretch.prepare();
        for (i32 b = 0; b < bands; b++)
        {
            BackwardBand<T> band{args, place, b, bands};
            f32 h[2][4];
            band.load_kept(h, k);
            band.open(own, k == stretches - 1);
            stretch.load_band(b);
            __syncthreads();                                  // what prepare made, B and C are there, and the warps' last sums have been read
            walk_stretch(tile, own, h, stretch.rows, args.z, b > 0);
            __syncthreads();                                  // the sums are there, and B and C have been read by all
            stretch.store_band(b);
            band.close(own, k == 0);
        }
        stretch.finish();
        __syncthreads();                                      // the gradients of dt are there
        sum += stretch.sum_channel();
        __syncthreads();                                      // the rows have been read by all
    }
    const ScanPlace end(shape, shape.segments, 0, block_again());
    const int column = thread_again() % kWidth;
    if (column < end.columns) args.sums[sum_row(shape, end, shape.N + (thread_again() >= kWidth ? 0 : 1)) + end.first + column] = sum;
}

template <typename T>
struct SelectiveScanSumArgs                                   // mirrored in CudaSelectiveScan.cs, field for field
{
    const f32* partial; const f32* sums; T* dB; T* dC; f32* dA; f32* dD; f32* dbias;
    i64 width, channels, segments;                            // width: of dB and of dC; segments: of all sequences
    i32 N, blocksPerGroup, blocks;                            // blocks that add for B and C; the rest add for the parameters
};

template <typename T>
__global__ void __launch_bounds__(kColumnWarps * kWarp) selective_scan_sum_backward(const SelectiveScanSumArgs<T> args)
{
    __shared__ f32 sSums[kColumnWarps][kWarp];
    const bool isOfInputs = blockIdx.x < args.blocks;
    const i64 column = (i64)(isOfInputs ? blockIdx.x : blockIdx.x - args.blocks) * kWarp + threadIdx.x % kWarp;
    const i64 width = isOfInputs ? 2 * args.width : (args.N + 2) * args.channels;
    const f32 sum = column_sum(isOfInputs ? args.partial : args.sums, isOfInputs ? args.blocksPerGroup : args.segments, width, column, sSums);
    if (threadIdx.x >= kWarp || column >= width) return;
    if (isOfInputs)
    {
        if (column < args.width) args.dB[column] = from_f32<T>(sum);
        else args.dC[column - args.width] = from_f32<T>(sum);
        return;
    }
    const Quotient at = divide(column, args.channels);        // the state, or behind the last the skip and the bias, and the channel
    if (at.quotient < args.N) args.dA[at.rest * args.N + at.quotient] = sum;
    else if (f32* to = at.quotient == args.N ? args.dD : args.dbias) to[at.rest] = sum;
}
