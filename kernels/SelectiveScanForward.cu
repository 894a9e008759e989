// SelectiveScanForward.cu
//
// Computes   Δ = softplus(dt + bias), or dt + bias;  h[n] = exp(Δ·A[d,n])·h[n] + Δ·u[t,d]·B[t,n];  y[t,d] = (Σₙ C[t,n]·h[n] + D[d]·u[t,d])·silu(z[t,d]),
//            for every sequence from its initial state, or 0, to its final state; B and C are those of the group of d.
// Source     Gu and Dao 2023, arXiv:2312.00752, section 3.2 and algorithm 2, as src/ZEngine/Ops/SelectiveScan.cs defines it.
// Method     a block walks one sequence with `width` channels. A thread keeps S states of one channel in registers; where N > S, ceil(N / S) threads, in
//            warps of their own, share a channel, and their parts of y are added in order. The rows of the next tile are under way to shared memory
//            (cp.async where isWide) while one is walked, so that B and C are read once for all channels of the block. A tile has as many steps as 16 bytes have
//            elements, 8 of 16 bits and 4 of 32: so each thread has one access of a row's array, and four blocks fit 100 KiB. Where `states` is given, the state before
//            every kInterval-th step is kept for the backward pass.
//            hasSegments: sequences are few and long, and walked in segments at once. A block first walks its segment for its end alone, the first segment from the initial state and the
//            others from 0, tells that it is there with ΣΔ, waits for those of the segments before it, joins them in order, and walks again. It takes its place by a ticket, so
//            that those that it waits for have begun, and they wait for nothing before they tell.
// Layout     u, dt, z [B, L, D] and B, C [B, L, G, N] with the given strides, the last axis dense; y [B, L, D]; A [D, N], D, dtBias [D] float; states
//            [intervals, N, D] float or null; initial, finalState [sequences, D, N] float; packed: a record for each segment, of sequence after
//            sequence, or null where each row of the batch is a sequence. Of segments ends [segments − sequences, D, N], deltas [segments − sequences, D] float, turns [the grid + 1], 0
//            before the launch.
// Launch     grid segments·G·blocksPerGroup with the segments of all sequences, block width·parts with parts = ceil(N / S) and width 32 to 128; dynamic shared memory of two stages of
//            kSteps·(3·width + 2·N) elements, kSteps = 16 / the bytes of one, and kSteps·(2·S·parts + 9/8·width·(1, or 1 + parts where there are several)) floats.
// Traffic    reads (2, or 3 with z)·D + 2·G·N·blocksPerGroup elements a step, writes D; writes N·D floats an interval where states are kept. Each segment reads
//            A and D, and dtBias for each part, twice where isWide; the first of a sequence its initial state, segment k > 0 instead N·D floats, and D for each part, for each one before it; the last writes
//            the final state. All but the last read 2·D + G·N·blocksPerGroup elements a step more, and the first its initial state again, and write N·D + D floats and a word for each block.
//            A block of packed sequences reads a record of 40 bytes.
// Precision  loads T, computes and accumulates f32, stores T. exp by ex2.approx.ftz of (Δ·log2 e)·A: 2 units in the last place, 0 below 2⁻¹²⁶; Δ as
//            common/TimeStep.cuh has it.
//            Of a segment ΣΔ is added tile by tile and held to ±1e38. Deterministic: no atomics but for tickets, fixed order of additions, the same bits for a sequence alone or with others, whole or in parts;
//            not so where the plan cuts it into segments, which join by products of decays: other roundings, and an error against float64 of at most twice that of one walk. A packed
//            sequence has the segments that it would have alone, and so its bits; a row of a batch has those of the batch. The plan is one of sizes alone, so every device gives its bits.
// Limits     N ≤ 256; D / G, G and the grid below 2³¹; at most 32 segments of a sequence. isWide: addresses, strides, D / G and N are multiples of 16 bytes.
// Variants   selective_scan_forward<{f32|bf16|f16}, {8|16}, {true|false}, {true|false}>
#include "common/SelectiveScan.cuh"
#include "common/Turns.cuh"
#include "common/Words.cuh"

template <typename T>
struct SelectiveScanArgs                                      // mirrored in CudaSelectiveScan.cs, field for field
{
    const T* u; const T* dt; const T* B; const T* C; const T* z; const f32* initial; T* y; f32* finalState; f32* states; f32* ends; f32* deltas; u32* turns;
    SelectiveScanShape shape;
};

// The shared memory of a block, and what it does for a tile.
template <typename T, int S, bool isWide>
struct ForwardTile
{
    static constexpr int kSteps = 16 / sizeof(T);             // of a tile: each thread has one access of a row's array
    static constexpr int kPair = isWide ? 2 : 1;              // neighbours of which a thread makes Δ, and floats of B and C

    T* sRows;                                                 // two stages of u, dt, z [kSteps, width] and B, C [kSteps, N] as they are
    f32* sStates;                                             // B·ln 2 and C [parts, kSteps, 2, S]
    f32* sDelta; f32* sY;                                     // Δ·log2 e [kSteps, width]; the parts of y [parts, kSteps, width], a single one in the places of Δ
    i32 width, N, parts;

    __device__ inline ForwardTile(u8* sMemory, const SelectiveScanShape& shape) : width(shape.width), N(shape.N), parts(blockDim.x / shape.width)
    {
        sRows = reinterpret_cast<T*>(sMemory);
        sStates = reinterpret_cast<f32*>(rows_of(2));
        sDelta = sStates + parts * kSteps * 2 * S;
        sY = parts == 1 ? sDelta : sDelta + spread(kSteps * width);
    }

    __device__ inline T* rows_of(int stage) const { return sRows + stage * kSteps * (3 * width + 2 * N); }
    __device__ inline T* u(int stage) const { return rows_of(stage); }
    __device__ inline T* dt(int stage) const { return rows_of(stage) + kSteps * width; }
    __device__ inline T* z(int stage) const { return rows_of(stage) + 2 * kSteps * width; }
    __device__ inline T* b(int stage) const { return rows_of(stage) + 3 * kSteps * width; }

    // isEnd: what the end of a segment needs, all but z and C.
    template <bool isEnd>
    __device__ inline void fetch(int stage, const SelectiveScanArgs<T>& args, const ScanPlace& place, i64 step)
    {
        const SelectiveScanShape& shape = args.shape;         // B·L·D may exceed 2³¹
        const i32 rows = (i32)min((i64)kSteps, place.end - step);
        const TileLane<kVector<T, isWide>> at(width);
        if (at.column < place.columns)
            for (i32 t = at.row; t < rows; t += at.rows)
            {
                T* sTo = u(stage) + t * width + at.column;
                const i64 from = step + t, d = place.first + at.column;
                fetch_access<isWide>(sTo, args.u + place.row * shape.uBatch + from * shape.uStep + d);
                fetch_access<isWide>(sTo + kSteps * width, args.dt + place.row * shape.dtBatch + from * shape.dtStep + d);
                if (!isEnd && args.z) fetch_access<isWide>(sTo + 2 * kSteps * width, args.z + place.row * shape.zBatch + from * shape.zStep + d);
            }
        fetch_states<isWide>(b(stage), args.B + place.row * shape.bBatch + step * shape.bStep + place.group * shape.bGroup, shape.bStep, rows, N,
            isEnd ? nullptr : args.C + place.row * shape.cBatch + step * shape.cStep + place.group * shape.cGroup, shape.cStep, kSteps);
        copy_async_commit();
    }

    // Δ, and B and C as floats with zeros behind the last state.
    template <bool isEnd>
    __device__ inline void prepare(int stage, bool hasSoftplus, i32 columns, i32 rows, const f32 (&bias)[kPair])
    {
        const TileLane<kPair> at(width);
        const i32 first = threadIdx.x * kPair, all = blockDim.x * kPair;
        const T* sRaw = dt(stage) + first;
        f32* sOwn = sDelta + spread(first);
        if (at.column < columns)
            #pragma unroll 2
            for (i32 t = at.row; t < rows; t += at.rows, sRaw += all, sOwn += spread(all))
            {
                f32 delta[kPair];
                load<kPair>(delta, sRaw);
                scale_steps(delta, bias, hasSoftplus);
                stash<kPair>(sOwn, delta);
            }
        for (u32 i = threadIdx.x * kPair; i < parts * kSteps * 2u * S; i += blockDim.x * kPair)
        {
            const u32 t = i / (2 * S) % kSteps, n = i / (2 * S * kSteps) * S + i % S;
            const bool isC = i / S % 2;
            if (t >= rows || isEnd && isC) continue;
            f32 states[kPair] = {};
            if (n < N) load<kPair>(states, b(stage) + ((isC ? kSteps : 0) + t) * N + n);
            #pragma unroll
            for (int k = 0; k < kPair; k++) states[k] *= isC ? 1.0f : kLn2;
            stash<kPair>(sStates + i, states);
        }
    }

    // One channel's states through the tile, and their part of y; isEnd: no y. Returns ΣΔ·log2 e.
    template <bool isEnd>
    __device__ inline f32 walk(int stage, f32 (&h)[S], const f32 (&a)[S], i32 rows, f32 skip)
    {
        f32 sum = 0;
        const int column = threadIdx.x & (width - 1), part = threadIdx.x / width;
        const f32* sOwn = sDelta + spread(column);
        const T* sU = u(stage) + column;
        const f32* sPairs = sStates + part * kSteps * 2 * S;
        f32* sPart = sY + part * spread(kSteps * width) + spread(column);
        #pragma unroll 1                                      // the states of one step are work enough at a time
        for (int t = 0; t < rows; t++, sOwn += spread(width), sU += width, sPairs += 2 * S, sPart += spread(width))
        {
            const f32 delta = *sOwn, x = to_f32(*sU), input = delta * x;
            f32 y = skip * x;                                 // 0 but for the first part
            sum += delta;
            #pragma unroll
            for (int s = 0; s < S; s += 4)
            {
                f32 B[4], C[4];
                load<4>(B, sPairs + s);
                if (!isEnd) load<4>(C, sPairs + S + s);
                #pragma unroll
                for (int i = 0; i < 4; i++)
                {
                    h[s + i] = fmaf(power_of_two(delta * a[s + i]), h[s + i], input * B[i]);
                    if (!isEnd) y = fmaf(h[s + i], C[i], y);
                }
            }
            if (!isEnd) *sPart = y;
        }
        return sum;
    }

    // Adds the parts of y, and the gate. `y` points to the tile's first row.
    __device__ inline void finish(int stage, const SelectiveScanArgs<T>& args, i32 columns, T* y, i32 rows)
    {
        constexpr int V = kVector<T, isWide>, kEach = PackedWords<T, V>::kEach;
        const TileLane<V> at(width);
        if (at.column >= columns) return;
        for (i32 t = at.row; t < rows; t += at.rows)
        {
            const i32 i = t * width + at.column;
            const f32* sPart = sY + spread(i);
            f32 sum[V];
            load<V>(sum, sPart);
            #pragma unroll 1
            for (i32 part = 1; part < parts; part++)
            {
                constexpr int kAtOnce = V < 4 ? V : 4;        // registers are short
                sPart += spread(kSteps * width);
                #pragma unroll
                for (int v = 0; v < V; v += kAtOnce)
                {
                    f32 next[kAtOnce];
                    load<kAtOnce>(next, sPart + v);
                    #pragma unroll
                    for (int k = 0; k < kAtOnce; k++) sum[v + k] += next[k];
                }
            }
            PackedWords<T, V> words;
            f32 word[kEach];
            if (args.z)
            {
                words.load(z(stage) + i);
                #pragma unroll
                for (int w = 0; w < V / kEach; w++)
                {
                    words.open(word, w);
                    #pragma unroll
                    for (int v = 0; v < kEach; v++) sum[w * kEach + v] *= silu(word[v]);
                }
            }
            #pragma unroll
            for (int w = 0; w < V / kEach; w++)
            {
                #pragma unroll
                for (int v = 0; v < kEach; v++) word[v] = sum[w * kEach + v];
                words.close(w, word);
            }
            words.store(y + t * args.shape.channels + at.column);
        }
    }
};

template <typename T, int S, bool isWide, bool hasSegments>
__global__ void __launch_bounds__(kMaxThreads, 1) selective_scan_forward(const SelectiveScanArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ ScanPlace sPlace;                              // there it takes no registers
    using Tile = ForwardTile<T, S, isWide>;
    constexpr int kSteps = Tile::kSteps;
    const SelectiveScanShape& shape = args.shape;
    if constexpr (hasSegments)                                // a block that waits for another began after it, in whatever order blocks start
    {
        if (threadIdx.x == 0) sPlace = ScanPlace(shape, atomicAdd(args.turns + gridDim.x, 1u));
        __syncthreads();                                      // the block's place is there
    }
    const ScanPlace own(shape);
    const ScanPlace& place = hasSegments ? sPlace : own;
    const int c = threadIdx.x & (shape.width - 1), n = threadIdx.x / shape.width * S;
    const bool isActive = c < place.columns;                  // idle threads stay for the barriers
    const i64 d = place.first + c;
    Tile tile(sMemory, shape);
    f32 h[S] = {}, a[S] = {}, bias[Tile::kPair];
    load_bias(bias, shape, place);
    if (isActive) load_states(a, shape.A + d * shape.N, n, shape);
    if (isActive && place.segment == 0 && args.initial) load_states(h, args.initial + (place.sequence * shape.channels + d) * shape.N, n, shape);
    if (hasSegments && !place.is_last())
    {
        f32 sum = 0;
        int stage = 0;
        tile.template fetch<true>(stage, args, place, place.begin);
        for (i64 step = place.begin; step < place.end; step += kSteps, stage ^= 1)
        {
            const i32 rows = (i32)min((i64)kSteps, place.end - step);
            copy_async_wait<0>();
            __syncthreads();                                  // the tile's rows are there, and what was made of the last one's has been read by all
            if (step + kSteps < place.end) tile.template fetch<true>(stage ^ 1, args, place, step + kSteps);
            tile.template prepare<true>(stage, shape.hasSoftplus, place.columns, rows, bias);
            __syncthreads();                                  // Δ and B are there
            if (isActive) sum += tile.template walk<true>(stage, h, a, rows, 0);
        }
        const i64 to = (place.ends() + place.segment) * shape.channels + d;
        if (isActive) store_states(args.ends + to * shape.N, h, n, shape);
        if (isActive && n == 0) args.deltas[to] = hold_delta(sum);
        __syncthreads();                                      // the end is there, and the rows have been read by all
        if (threadIdx.x == 0) give_turn(args.turns + place.word(shape), 1);
        #pragma unroll
        for (int s = 0; s < S; s++) h[s] = 0;
        if (isActive && place.segment == 0 && args.initial) load_states(h, args.initial + (place.sequence * shape.channels + d) * shape.N, n, shape);
    }
    int stage = 0;
    if (place.begin < place.end) tile.template fetch<false>(stage, args, place, place.begin);
    if (hasSegments && place.segment > 0)
    {
        const u32 blocks = (u32)shape.G * shape.blocksPerGroup;
        await_all(args.turns + place.word(shape) - (i64)place.segment * blocks, blocks, place.segment);
        if (isActive) join_ends(h, a, shape, place.ends(), d, n, place.segment, 1);
    }
    const f32 skip = shape.D && isActive && n == 0 ? shape.D[d] : 0.0f;
    for (i64 step = place.begin; step < place.end; step += kSteps, stage ^= 1)
    {
        const i32 rows = (i32)min((i64)kSteps, place.end - step);
        copy_async_wait<0>();
        __syncthreads();                                      // the tile's rows are there, and those of the last one have been read by all
        if (step + kSteps < place.end) tile.template fetch<false>(stage ^ 1, args, place, step + kSteps);
        tile.template prepare<false>(stage, shape.hasSoftplus, place.columns, rows, bias);
        if (args.states && isActive && (step - place.begin) % kInterval == 0)
        {
            f32* kept = args.states + ((place.kept + (step - place.begin) / kInterval) * shape.N + n) * shape.channels + d;
            #pragma unroll
            for (int s = 0; s < S; s++, kept += shape.channels)
                if (n + s < shape.N) *kept = h[s];
        }
        __syncthreads();                                      // Δ, B and C are there
        if (isActive) tile.template walk<false>(stage, h, a, rows, skip);
        __syncthreads();                                      // the parts of y are there
        tile.finish(stage, args, place.columns, args.y + (place.row * shape.L + step) * shape.channels + place.first, rows);
    }
    const ScanPlace again(shape, block_again());
    const ScanPlace& end = hasSegments ? sPlace : again;
    if (isActive && end.is_last()) store_states(args.finalState + (end.sequence * shape.channels + end.first + c) * shape.N, h, n, shape);
}
