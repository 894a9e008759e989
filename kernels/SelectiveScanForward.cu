// SelectiveScanForward.cu
//
// Computes   Δ = softplus(dt + bias), or dt + bias;  h[n] = exp(Δ·A[d,n])·h[n] + Δ·u[t,d]·B[t,n];  y[t,d] = (Σₙ C[t,n]·h[n] + D[d]·u[t,d])·silu(z[t,d]),
//            for every sequence from its initial state, or 0, to its final state; B and C are those of the group of d.
// Source     Gu and Dao 2023, arXiv:2312.00752, section 3.2 and algorithm 2, as src/ZEngine/Ops/SelectiveScan.cs defines it.
// Method     a block walks one sequence with `width` channels. A thread keeps S states of one channel in registers; where N > S, ceil(N / S) threads, in
//            warps of their own, share a channel, and their parts of y are added in order. The rows of the next tile of kSteps steps are under way to
//            shared memory (cp.async where isWide) while one is walked, so that B and C are read once for all channels of the block. Where `states`
//            is given, the state before every kInterval-th step is kept for the backward pass.
//            Where sequences are few and long they are walked in segments at once, each from the ends that selective_scan_state found before (see there).
// Layout     u, dt, z [B, L, D] and B, C [B, L, G, N] with the given strides, the last axis dense; y [B, L, D]; A [D, N], D, dtBias [D] float; states
//            [intervals, N, D] float or null; initial, finalState [sequences, D, N] float; packed: a record for each segment, of sequence after
//            sequence, or null where each row of the batch is a sequence.
// Launch     grid segments·G·blocksPerGroup with the segments of all sequences, block width·parts with parts = ceil(N / S) and width 32 to 128; dynamic shared memory of two stages of
//            kSteps·(3·width + 2·N) elements, and kSteps·(2·S·parts + width + width·parts) floats.
// Traffic    reads (2, or 3 with z)·D + 2·G·N·blocksPerGroup elements a step, writes D; writes N·D floats an interval where states are kept. Each segment reads
//            A and D, and dtBias for each part; the first of a sequence its initial state, segment k > 0 instead N·D floats, and D for each part, for each one before it; the last writes
//            the final state. A block of packed sequences reads a record of 40 bytes.
// Precision  loads T, computes and accumulates f32, stores T. exp by ex2.approx.ftz of (Δ·log2 e)·A: 2 units in the last place, 0 below 2⁻¹²⁶.
//            Deterministic: no atomics, fixed order of additions, the same bits for a sequence alone or with others, whole or in parts;
//            not so where the plan cuts it into segments, which join by products of decays: other roundings, and an error against float64 of at most twice that of one walk. A packed
//            sequence has the segments that it would have alone, and so its bits; a row of a batch has those of the batch. The plan is one of sizes alone, so every device gives its bits.
// Limits     N ≤ 256; D / G, G and the grid below 2³¹. isWide: addresses, strides, D / G and N are multiples of 16 bytes.
// Variants   selective_scan_forward<{f32|bf16|f16}, {8|16}, {true|false}>
#include "common/SelectiveScan.cuh"
#include "common/Words.cuh"

template <typename T>
struct SelectiveScanArgs                                      // mirrored in CudaSelectiveScan.cs, field for field
{
    const T* u; const T* dt; const T* B; const T* C; const T* z; const f32* initial; T* y; f32* finalState; f32* states;
    SelectiveScanShape shape;
};

// The shared memory of a block, and what it does for a tile.
template <typename T>
struct ForwardTile
{
    T* sRows;                                                 // two stages of u, dt, z [kSteps, width] and B, C [kSteps, N] as they are
    f32* sDelta; f32* sB; f32* sC; f32* sY;                   // Δ [kSteps, width]; B, C [kSteps, padded]; the parts of y [parts, kSteps, width]
    i32 width, N, padded;

    __device__ inline ForwardTile(u8* sMemory, const SelectiveScanShape& shape, int S) : width(shape.width), N(shape.N), padded(blockDim.x / shape.width * S)
    {
        sRows = reinterpret_cast<T*>(sMemory);
        sDelta = reinterpret_cast<f32*>(rows_of(2));
        sB = sDelta + kSteps * width;
        sC = sB + kSteps * padded;
        sY = sC + kSteps * padded;
    }

    __device__ inline T* rows_of(int stage) const { return sRows + stage * kSteps * (3 * width + 2 * N); }
    __device__ inline T* u(int stage) const { return rows_of(stage); }
    __device__ inline T* dt(int stage) const { return rows_of(stage) + kSteps * width; }
    __device__ inline T* z(int stage) const { return rows_of(stage) + 2 * kSteps * width; }
    __device__ inline T* b(int stage) const { return rows_of(stage) + 3 * kSteps * width; }
    __device__ inline T* c(int stage) const { return rows_of(stage) + kSteps * (3 * width + N); }

    template <bool isWide>
    __device__ inline void fetch(int stage, const SelectiveScanArgs<T>& args, const ScanPlace& place, i64 step)
    {
        const SelectiveScanShape& shape = args.shape;         // B·L·D may exceed 2³¹
        const i32 rows = (i32)min((i64)kSteps, place.end - step);
        fetch_channels<isWide>(u(stage), shape.width, args.u + place.row * shape.uBatch + step * shape.uStep + place.first, shape.uStep, rows, place.columns);
        fetch_channels<isWide>(dt(stage), shape.width, args.dt + place.row * shape.dtBatch + step * shape.dtStep + place.first, shape.dtStep, rows, place.columns);
        if (args.z) fetch_channels<isWide>(z(stage), shape.width, args.z + place.row * shape.zBatch + step * shape.zStep + place.first, shape.zStep, rows, place.columns);
        fetch_states<isWide>(b(stage), args.B + place.row * shape.bBatch + step * shape.bStep + place.group * shape.bGroup, shape.bStep, rows, shape.N,
            args.C + place.row * shape.cBatch + step * shape.cStep + place.group * shape.cGroup, shape.cStep, kSteps);
        copy_async_commit();
    }

    // Δ, and B and C as floats with zeros behind the last state.
    __device__ inline void prepare(int stage, bool hasSoftplus, const ScanPlace& place, i32 rows, f32 bias)
    {
        const i32 threads = blockDim.x;
        const T* sRaw = dt(stage) + threadIdx.x;
        f32* sOwn = sDelta + threadIdx.x;
        if (threadIdx.x % width < place.columns)
            #pragma unroll 4
            for (i32 i = threadIdx.x; i < rows * width; i += threads, sRaw += threads, sOwn += threads)
            {
                const f32 raw = to_f32(*sRaw) + bias;
                *sOwn = hasSoftplus ? softplus(raw) : raw;
            }
        for (i32 i = threadIdx.x; i < rows * padded; i += blockDim.x)
        {
            const i32 t = i / padded, n = i - t * padded;
            sB[i] = n < N ? to_f32(b(stage)[t * N + n]) : 0.0f;
            sC[i] = n < N ? to_f32(c(stage)[t * N + n]) : 0.0f;
        }
    }

    // One channel's states through the tile, and their part of y.
    template <int S>
    __device__ inline void walk(int stage, f32 (&h)[S], const f32 (&a)[S], i32 rows, f32 skip)
    {
        const int column = threadIdx.x % width, part = threadIdx.x / width;
        const f32* sOwn = sDelta + column;
        const T* sU = u(stage) + column;
        const f32* sRow = sB + part * S;
        f32* sPart = sY + part * kSteps * width + column;
        #pragma unroll 1                                      // the states of one step are work enough at a time
        for (int t = 0; t < rows; t++, sOwn += width, sU += width, sRow += padded, sPart += width)
        {
            const f32 delta = *sOwn, x = to_f32(*sU), input = delta * x, scaled = scale_exponent(delta);
            f32 y = skip * x;                                 // 0 but for the first part
            #pragma unroll
            for (int s = 0; s < S; s += 4)
            {
                f32 B[4], C[4];
                load<4>(B, sRow + s);
                load<4>(C, sRow + kSteps * padded + s);
                #pragma unroll
                for (int i = 0; i < 4; i++)
                {
                    h[s + i] = fmaf(power_of_two(scaled * a[s + i]), h[s + i], input * B[i]);
                    y = fmaf(h[s + i], C[i], y);
                }
            }
            *sPart = y;
        }
    }

    // Adds the parts of y, and the gate. y points to the tile's first row.
    template <bool isWide>
    __device__ inline void finish(int stage, const SelectiveScanArgs<T>& args, const ScanPlace& place, T* y, i32 rows)
    {
        constexpr int V = kVector<T, isWide>;
        const i32 parts = blockDim.x / width;
        for (i32 i = threadIdx.x; i < rows * width / V; i += blockDim.x)
        {
            const TilePlace<V> at(i, width);
            if (at.column >= place.columns) continue;
            const i32 t = at.row, column = at.column;
            f32 sum[V] = {};
            #pragma unroll 1
            for (int part = 0; part < parts; part++)
            {
                constexpr int kAtOnce = V < 4 ? V : 4;        // registers are short
                #pragma unroll
                for (int v = 0; v < V; v += kAtOnce)
                {
                    f32 next[kAtOnce];
                    load<kAtOnce>(next, sY + (part * kSteps + t) * width + column + v);
                    #pragma unroll
                    for (int k = 0; k < kAtOnce; k++) sum[v + k] += next[k];
                }
            }
            if (args.z)
            {
                PackedWords<T, V> gate;
                gate.load(z(stage) + t * width + column);
                constexpr int kEach = PackedWords<T, V>::kEach;
                #pragma unroll
                for (int i = 0; i < PackedWords<T, V>::kCount; i++)
                {
                    f32 word[kEach];
                    gate.open(word, i);
                    #pragma unroll
                    for (int v = 0; v < kEach; v++) sum[i * kEach + v] *= silu(word[v]);
                }
            }
            store<V>(y + t * args.shape.channels + column, sum);
        }
    }
};

template <typename T, int S, bool isWide>
__global__ void __launch_bounds__(kMaxThreads, 1) selective_scan_forward(const SelectiveScanArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    const SelectiveScanShape& shape = args.shape;
    const ScanPlace place(shape);
    const int c = threadIdx.x % shape.width, n = threadIdx.x / shape.width * S;
    const bool isActive = c < place.columns;                  // idle threads stay for the barriers
    const i64 d = place.first + c;
    ForwardTile<T> tile(sMemory, shape, S);
    int stage = 0;
    if (place.begin < place.end) tile.template fetch<isWide>(stage, args, place, place.begin);
    f32 h[S] = {}, a[S] = {};
    if (isActive)
    {
        load_states(a, shape.A + d * shape.N, n, shape);
        if (place.segment > 0) join_ends(h, a, shape, place.ends(), d, n, place.segment, 1);
        else if (args.initial) load_states(h, args.initial + (place.sequence * shape.channels + d) * shape.N, n, shape);
    }
    const f32 skip = shape.D && isActive && n == 0 ? shape.D[d] : 0.0f, bias = shape.dtBias && isActive ? shape.dtBias[d] : 0.0f;
    for (i64 step = place.begin; step < place.end; step += kSteps, stage ^= 1)
    {
        const i32 rows = (i32)min((i64)kSteps, place.end - step);
        copy_async_wait<0>();
        __syncthreads();                                      // the tile's rows are there, and those of the last one have been read by all
        if (step + kSteps < place.end) tile.template fetch<isWide>(stage ^ 1, args, place, step + kSteps);
        tile.prepare(stage, shape.hasSoftplus, place, rows, bias);
        if (args.states && isActive && (step - place.begin) % kInterval == 0)
        {
            f32* kept = args.states + ((place.kept + (step - place.begin) / kInterval) * shape.N + n) * shape.channels + d;
            #pragma unroll
            for (int s = 0; s < S; s++, kept += shape.channels)
                if (n + s < shape.N) *kept = h[s];
        }
        __syncthreads();                                      // Δ, B and C are there
        if (isActive) tile.walk(stage, h, a, rows, skip);
        __syncthreads();                                      // the parts of y are there
        tile.template finish<isWide>(stage, args, place, args.y + (place.row * shape.L + step) * shape.channels + place.first, rows);
    }
    const ScanPlace end(shape, block_again());
    if (isActive && end.is_last()) store_states(args.finalState + (end.sequence * shape.channels + end.first + c) * shape.N, h, n, shape);
}
