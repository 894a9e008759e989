// CausalConv1d.cu
//
// Computes   c[t,d] = bias[d] + Σ_k weight[d,k]·x[t − K + 1 + k,d], y = c or silu(c); final state: the last K − 1 inputs of each sequence. Inputs before a
//            sequence are its initial state, or 0. With p[t,d] = dy[t,d] (·silu'(c[t,d])), 0 behind the sequence: dx[t,d] = Σ_k weight[d,k]·p[t + K − 1 − k,d],
//            and what the final state's gradient adds; the same sum before the sequence is dinitial; dweight[d,k] = Σ_t p[t,d]·x[t − K + 1 + k,d],
//            dbias[d] = Σ_t p[t,d]
// Source     the depthwise causal convolution of Gu and Dao 2023, arXiv:2312.00752, figure 3, as src/ZEngine/Ops/CausalConv1d.cs defines it.
// Method     each lane owns V neighbouring channels and walks the steps of a tile, with the last W inputs (and, backward, the last W values of p) and all
//            taps in registers. Steps come by cp.async through a ring of shared memory, chunks of 16 bytes a lane ahead, and results leave from the
//            places of the steps; so what is under way needs no registers. Where a sequence begins in the tile, the window is its initial state; the step
//            that ends one leaves its final state. The backward walks W − 1 steps on to finish dx, computing p there a second time; taps beyond K are
//            skipped. Where K = W = 4, chunks of rows that touch no border of the tile or of a sequence are walked backward without a branch on a row. A tile leaves its share
//            of dweight and dbias, and reduce_sums of Reduce.cu adds those up. All warps of a block walk the same tile, so that the compiler knows every branch on steps to be
//            the same for a warp: at a barrier it need not make sure.
// Layout     x [B, L, D] with rows stepStride and batchStride apart, dx with rows dxStride apart; y, dy [B, L, D]; weight, dweight [D, K] float; bias, dbias [D] float or null; initial,
//            finalState [sequences, K − 1, D] float with steps stateStep apart, dfinal, dinitial [sequences, K − 1, D] float; starts [sequences + 1] or null; partial [P, K + 1, D] float.
// Launch     grid tiles·slices with tiles = B·ceil(L / steps) and slices = ceil(D / (128·V)); block 128, 8 of them to a multiprocessor by registers. Static
//            shared memory 14 KiB forward and 12 KiB backward where isWide, else 1 to 4 KiB.
// Traffic    for each tile: forward reads (steps + K − 1)·D elements, writes steps·D; backward reads (steps + 2·(K − 1))·D of x and of dy (those
//            of dy before the tile for nothing, which registers would have to tell), writes steps·D; and (K + 1)·D floats of weight and bias. The states are read and written once. Backward writes P·(K + 1)·D floats with P = tiles.
//            Under way in a warp: 3 KiB forward, 2 KiB backward.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics, fixed order of additions.
// Limits     K ≤ W, and W is 4 or 8; D and the grid below 2³¹. isWide: D, strides and addresses are multiples of 16 bytes, and accesses of 16 bytes; else of one element. V is 4
//            bytes of elements where isWide and W = 4, else 1.
// Variants   causal_conv1d_forward<{f32|bf16|f16}, 4, true>; causal_conv1d_forward<{f32|bf16|f16}, 8, {true|false}>;
//            causal_conv1d_backward<{f32|bf16|f16}, 4, true>; causal_conv1d_backward<{f32|bf16|f16}, 8, {true|false}>
#include "common/Async.cuh"
#include "common/Copy.cuh"
#include "common/Grid.cuh"
#include "common/Pointwise.cuh"
#include "common/Sequences.cuh"
#include "common/Warp.cuh"

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kBlocks = 8;                                    // of a multiprocessor at least: at most 64 registers
constexpr int kNever = 1 << 30;                               // a row behind all others

// Channels of a lane: a word where taps and windows of its channels fit the registers.
template <typename T, int W, bool isWide> constexpr int kChannels = isWide && W == 4 ? 4 / sizeof(T) : 1;

struct CausalConv1dShape                                      // mirrored in CudaCausalConv1d.cs, field for field
{
    const f32* weight; const f32* bias; const f32* initial; const i64* starts;
    i64 L, D, batchStride, stepStride, stateStep, tiles, tilesPerRow;
    i32 K, steps, sequences, slices, hasSilu;
};

// The taps of V channels, the last at W − 1; those before W − K are no taps.
template <int W, int V, bool isWide>
struct Taps
{
    f32 w[V][W], bias[V];

    __device__ inline void fetch(const CausalConv1dShape& shape, i64 d)
    {
        #pragma unroll
        for (int v = 0; v < V; v++)
        {
            const f32* taps = shape.weight + (d + v) * shape.K;
            if (isWide && W == 4 && shape.K == W) load<W>(w[v], taps);
            else
                #pragma unroll
                for (int i = 0; i < W; i++) w[v][i] = i >= W - shape.K ? taps[i - (W - shape.K)] : 0.0f;
            bias[v] = 0;
        }
        if (shape.bias) load<V>(bias, shape.bias + d);
    }

    // bias + Σ weight·x for the inputs in the window.
    template <bool isWhole = false>
    __device__ inline void convolve(f32 (&sum)[V], const f32 (&window)[W][V], int K) const
    {
        #pragma unroll
        for (int v = 0; v < V; v++) sum[v] = bias[v];
        for_taps<isWhole>(K, [&](int i)
        {
            #pragma unroll
            for (int v = 0; v < V; v++) sum[v] = fmaf(w[v][i], window[i][v], sum[v]);
        });
    }

    // Taps beyond K are skipped, as what they would meet may not be finite; one branch tells where there are none, or the caller that K is W.
    template <bool isWhole, typename Action>
    __device__ static inline void for_taps(int K, const Action& action)
    {
        if (isWhole || K == W)
            #pragma unroll
            for (int i = 0; i < W; i++) action(i);
        else
            #pragma unroll
            for (int i = 1; i < W; i++)
                if (W - i <= K) action(i);
    }
};

// Makes room for the newest entry at the end.
template <int W, int V>
__device__ inline void shift(f32 (&window)[W][V])
{
    #pragma unroll
    for (int i = 0; i + 1 < W; i++)
        #pragma unroll
        for (int v = 0; v < V; v++) window[i][v] = window[i + 1][v];
}

// Rows of a warp's kWarp·V channels on their way to it, and results on their way back in the same places. A chunk of rows is 16 bytes a lane; where accesses
// are not wide, it is an element of each row. Lanes read and write elements of their own channels.
template <typename T, int V, bool isWide, int Chunks>
struct Ring
{
    static constexpr int kRows = isWide ? 16 / (V * (int)sizeof(T)) : 4, kAll = Chunks * kRows, kLanes = kWarp / kRows;

    T at[kAll][kWarp * V];

    // The first row and column of what a lane copies of a chunk.
    static __device__ inline int row() { return isWide ? threadIdx.x % kWarp / kLanes : 0; }
    static __device__ inline int column() { return isWide ? threadIdx.x % kLanes * kVector<T, true> : threadIdx.x % kWarp; }

    // Where the chunk behind that at `slot` has its rows.
    static __device__ inline int next(int slot) { return slot + kRows == kAll ? 0 : slot + kRows; }

    // Starts loading a chunk; `rows` exist from this lane's first one on, and the others become zeros. `from` is this lane's place in the chunk, and becomes that in the next.
    __device__ inline void fetch(int slot, const T*& from, i64 stride, int rows)
    {
        T* to = &at[slot + row()][column()];
        if constexpr (isWide) copy_async(shared_address(to), from, rows > 0 ? 16 : 0);
        else
        {
            const T* next = from;
            #pragma unroll 2
            for (int r = 0; r < kRows; r++, next += stride) to[r * kWarp * V] = r < rows ? *next : T{};
        }
        from += kRows * stride;
    }

    // This lane's channels of row r of a chunk that is there.
    __device__ inline T* own(int slot, int r) { return &at[slot + r][threadIdx.x % kWarp * V]; }

    // Results in place of this lane's channels.
    static __device__ inline void set(T* own, const f32 (&x)[V])
    {
        if constexpr (V == 1) *own = from_f32<T>(x[0]);
        else *reinterpret_cast<u32*>(own) = pair_of<T>(x[0], x[1]);
    }

    // Stores rows first … last − 1 of a chunk, both counted from this lane's first one. `to` is the place of what this lane stores, and becomes that of the next chunk.
    __device__ inline void put(int slot, T*& to, i64 stride, int first, int last) const
    {
        const T* from = &at[slot + row()][column()];
        if constexpr (isWide)
        {
            __syncwarp();                                     // the results of all lanes are there
            if (first <= 0 && last > 0) store_words(to, load_pack<4>(reinterpret_cast<const u32*>(from)).at);
        }
        else
        {
            T* next = to;
            #pragma unroll
            for (int r = 0; r < kRows; r++, next += stride)
                if (r >= first && r < last) *next = from[r * kWarp * V];
        }
        to += kRows * stride;
    }

    // Closes the copies of a chunk.
    static __device__ inline void commit()
    {
        if constexpr (isWide) copy_async_commit();
    }

    // Waits for the oldest of Chunks chunks.
    static __device__ inline void await()
    {
        if constexpr (!isWide) return;
        copy_async_wait<Chunks - 1>();
        __syncwarp();                                         // all lanes' copies of the chunk are there
    }

    // Waits for the zeros behind the last row, which would else come upon rows of the next sequence.
    static __device__ inline void drain()
    {
        if constexpr (isWide) copy_async_wait<0>();
    }
};

// What a block walks of a sequence: its steps in the block's tile, and those before it that their windows reach. Rows count from the first of them.
struct Walk
{
    i64 x, row;                                               // where row 0 begins, in x and as a row of B·L
    i32 first, last, end;                                     // the tile's own rows; where the sequence ends, not further than it matters
    bool isThere, isInitial;                                  // isThere: the sequence has steps in the tile; isInitial: row 0 is its first

    // Of the sequence, or of the one that the tile begins with where it is −1.
    __device__ inline Walk(const CausalConv1dShape& shape, i32& sequence)
    {
        const u32 tile = block_again() / shape.slices, tilesPerRow = shape.tilesPerRow, batch = tile / tilesPerRow;
        const i64 b = batch, start = (i64)(tile - batch * tilesPerRow) * shape.steps, stop = min(shape.L, start + shape.steps);
        if (sequence < 0) sequence = shape.starts ? sequence_of(shape.starts, shape.sequences, start) : (i32)b;
        i64 begin = (sequence - b) * shape.L, over = begin + shape.L;
        if (shape.starts)
        {
            begin = shape.starts[sequence];
            over = sequence < shape.sequences ? shape.starts[sequence + 1] : begin;
        }
        isThere = begin < stop;
        isInitial = begin > start - shape.K;
        const i64 step = max(begin, start - shape.K + 1);
        first = (i32)(max(begin, start) - step);
        last = (i32)(min(over, stop) - step);
        end = (i32)(min(over, stop + shape.K) - step);
        x = b * shape.batchStride + step * shape.stepStride;  // B·L·D may exceed 2³¹
        row = b * shape.L + step;
    }
};

// The K − 1 inputs before a sequence, or zeros, at the places that they have before the first step is shifted in.
template <int W, int V>
__device__ inline void fill_window(f32 (&window)[W][V], const CausalConv1dShape& shape, bool isInitial, const f32* state)
{
    #pragma unroll
    for (int i = 1; i < W; i++)
    {
        #pragma unroll
        for (int v = 0; v < V; v++) window[i][v] = 0;
        if (isInitial && W - i < shape.K) load<V>(window[i], state + (i - (W - shape.K) - 1) * shape.stateStep);
    }
}

template <typename T>
struct CausalConv1dArgs                                       // mirrored in CudaCausalConv1d.cs, field for field
{
    const T* x; T* y; f32* finalState;
    CausalConv1dShape shape;
};

template <typename T, int W, bool isWide>
__global__ void __launch_bounds__(kThreads, kBlocks) causal_conv1d_forward(const CausalConv1dArgs<T> args)
{
    constexpr int V = kChannels<T, W, isWide>;
    using Rows = Ring<T, V, isWide, isWide ? 7 : 1>;
    __shared__ __align__(16) Rows sRings[kWarps];
    const CausalConv1dShape& shape = args.shape;
    Rows& ring = sRings[threadIdx.x / kWarp];
    const int slice = ((blockIdx.x % shape.slices) * kWarps + threadIdx.x / kWarp) * kWarp * V, D = shape.D;
    if (slice >= D) return;
    const int d = slice + threadIdx.x % kWarp * V, share = slice + Rows::column();
    const bool isActive = d < D, isCopying = share < D;
    Taps<W, V, isWide> taps;
    if (isActive) taps.fetch(shape, d);
    for (i32 sequence = -1;; sequence++)
    {
        const Walk walk(shape, sequence);
        if (!walk.isThere) break;
        const int row = Rows::row(), copied = isCopying ? walk.last - row : 0;
        const T* from = args.x + walk.x + row * shape.stepStride + share;
        T* to = args.y + (walk.row + row) * shape.D + share;
        const auto fetch = [&](int n, int slot)
        {
            ring.fetch(slot, from, shape.stepStride, copied - n);
            ring.commit();
        };
        #pragma unroll 1
        for (int n = 0; n < Rows::kAll; n += Rows::kRows) fetch(n, n);
        f32 window[W][V];
        fill_window(window, shape, shape.initial && walk.isInitial && isActive, shape.initial + (i64)sequence * (shape.K - 1) * shape.stateStep + d);
        for (int n = 0, slot = 0; n < walk.last; n += Rows::kRows, slot = Rows::next(slot))
        {
            ring.await();
            #pragma unroll (V > 1 ? Rows::kRows : isWide ? 2 : 1)
            for (int r = 0; r < Rows::kRows; r++)
            {
                if (n + r >= walk.last) break;
                shift(window);
                load<V>(window[W - 1], ring.own(slot, r));
                f32 sum[V];
                taps.convolve(sum, window, shape.K);
                if (shape.hasSilu)
                    #pragma unroll
                    for (int v = 0; v < V; v++) sum[v] = silu(sum[v]);
                ring.set(ring.own(slot, r), sum);
            }
            ring.put(slot, to, shape.D, walk.first - row - n, copied - n);
            fetch(n + Rows::kAll, slot);
        }
        ring.drain();
        if (walk.end > walk.last || !isActive) continue;
        f32* state = args.finalState + (i64)sequence * (shape.K - 1) * shape.stateStep + d;
        #pragma unroll
        for (int i = 1; i < W; i++)
            if (W - i < shape.K) store<V>(state + (i - (W - shape.K) - 1) * shape.stateStep, window[i]);
    }
}

template <typename T>
struct CausalConv1dBackwardArgs                               // mirrored in CudaCausalConv1d.cs, field for field
{
    const T* x; const T* dy; const f32* dfinal; T* dx; f32* dinitial; f32* partial;
    i64 dxStride;
    CausalConv1dShape shape;
};

// What one lane adds up over its tile, and the last W inputs and values of p.
template <typename T, int W, bool isWide>
struct Gradients
{
    static constexpr int V = kChannels<T, W, isWide>;
    using Rows = Ring<T, V, isWide, isWide ? 3 : 1>;
    using Weights = Taps<W, V, isWide>;

    f32 dweight[W][V] = {}, dbias[V] = {}, window[W][V], p[W][V];

    // The rows of a chunk of both rings, whose results take the places of x. isInside: all are the tile's own, W taps meet them, and none of their gradients is one
    // of a state. Rows from `stop` on give no p that the tile needs.
    template <bool isInside>
    __device__ inline void walk_chunk(const CausalConv1dBackwardArgs<T>& args, const Weights& taps, const Walk& walk, i32 sequence, int stop, int d, Rows& ringX, Rows& ringDy, int n, int slot)
    {
        const CausalConv1dShape& shape = args.shape;
        #pragma unroll (W == 4 ? Rows::kRows : isWide ? 2 : 1) // over four rows the windows move up by name alone; with eight taps so many spill
        for (int r = 0; r < Rows::kRows; r++)
        {
            const int target = n + r - W + 1;
            f32 dy[V], sum[V];
            shift(window);
            shift(p);
            load<V>(window[W - 1], ringX.own(slot, r));
            load<V>(dy, ringDy.own(slot, r));
            enter<isInside>(taps, dy, shape, n + r < stop, n + r >= walk.first && n + r < walk.last);
            leave<isInside>(sum, taps, shape.K);
            // The last K − 1 inputs of the sequence are its final state too; those before row 0 are its initial state.
            if (!isInside && args.dfinal && target > stop - shape.K && target < walk.last && d < shape.D)
            {
                f32 dfinal[V];
                load<V>(dfinal, args.dfinal + ((i64)sequence * (shape.K - 1) + target - (stop - shape.K + 1)) * shape.D + d);
                #pragma unroll
                for (int v = 0; v < V; v++) sum[v] += dfinal[v];
            }
            ringX.set(ringX.own(slot, r), sum);
            if (!isInside && args.dinitial && walk.first == 0 && target < 0 && target > -shape.K && d < shape.D)
                store<V>(args.dinitial + ((i64)sequence * (shape.K - 1) + target + shape.K - 1) * shape.D + d, sum);
        }
    }

private:
    // Enters a row: dy becomes p, or 0 where there is no such row, and counts towards the taps where the row is the tile's own.
    template <bool isInside>
    __device__ inline void enter(const Weights& taps, const f32 (&dy)[V], const CausalConv1dShape& shape, bool isRow, bool isOwn)
    {
        f32 sum[V];
        if (shape.hasSilu) taps.template convolve<isInside>(sum, window, shape.K);
        #pragma unroll
        for (int v = 0; v < V; v++)
        {
            p[W - 1][v] = !isInside && !isRow ? 0.0f : shape.hasSilu ? dy[v] * silu_slope(sum[v]) : dy[v];
            const f32 own = isInside || isOwn ? p[W - 1][v] : 0.0f;             // where an input is not finite, the tile that owns the row says so too
            dbias[v] += own;
            #pragma unroll
            for (int i = 0; i < W; i++) dweight[i][v] = fmaf(own, window[i][v], dweight[i][v]);
        }
    }

    // Gradient of the input W − 1 rows ago.
    template <bool isInside>
    __device__ inline void leave(f32 (&sum)[V], const Weights& taps, int K) const
    {
        #pragma unroll
        for (int v = 0; v < V; v++) sum[v] = 0;
        taps.template for_taps<isInside>(K, [&](int i)
        {
            #pragma unroll
            for (int v = 0; v < V; v++) sum[v] = fmaf(taps.w[v][i], p[W - 1 - i][v], sum[v]);
        });
    }
};

template <typename T, int W, bool isWide>
__global__ void __launch_bounds__(kThreads, kBlocks) causal_conv1d_backward(const CausalConv1dBackwardArgs<T> args)
{
    using Sums = Gradients<T, W, isWide>;
    using Rows = typename Sums::Rows;
    constexpr int V = Sums::V;
    __shared__ __align__(16) Rows sX[kWarps], sDy[kWarps];
    const CausalConv1dShape& shape = args.shape;
    Rows &ringX = sX[threadIdx.x / kWarp], &ringDy = sDy[threadIdx.x / kWarp];
    const int slice = ((blockIdx.x % shape.slices) * kWarps + threadIdx.x / kWarp) * kWarp * V;
    if (slice >= shape.D) return;
    const int d = slice + threadIdx.x % kWarp * V, share = slice + Rows::column(), D = shape.D;
    if (!isWide && d >= D) return;                            // such lanes copy nothing for others
    const bool isCopying = !isWide || share < D;
    Taps<W, V, isWide> taps;
    if (d < D) taps.fetch(shape, d);
    Sums gradients;
    for (i32 sequence = -1;; sequence++)
    {
        const Walk walk(shape, sequence);
        if (!walk.isThere) break;
        const int stop = min(walk.end, walk.last + shape.K - 1);                // rows from here on give no p that this tile needs
        const int row = Rows::row(), copied = isCopying ? stop - row : 0, begin = isCopying ? walk.first + W - 1 - row : kNever;
        const T* x = args.x + walk.x + row * shape.stepStride + share;
        const T* dy = args.dy + (walk.row + row) * shape.D + share;
        T* dx = args.dx + (walk.row + row - W + 1) * args.dxStride + share;
        const auto fetch = [&](int n, int slot)
        {
            ringX.fetch(slot, x, shape.stepStride, copied - n);
            ringDy.fetch(slot, dy, shape.D, copied - n);
            Rows::commit();
        };
        #pragma unroll 1
        for (int n = 0; n < Rows::kAll; n += Rows::kRows) fetch(n, n);
        fill_window(gradients.window, shape, shape.initial && walk.isInitial && d < D, shape.initial + (i64)sequence * (shape.K - 1) * shape.stateStep + d);
        #pragma unroll
        for (int i = 0; i < W; i++)
            #pragma unroll
            for (int v = 0; v < V; v++) gradients.p[i][v] = 0;
        for (int n = 0, slot = 0; n < walk.last + W - 1; n += Rows::kRows, slot = Rows::next(slot))
        {
            Rows::await();
            // With 8 taps a second copy of the walk would spill.
            if (W == 4 && shape.K == W && n > walk.first && n + Rows::kRows <= walk.last) gradients.template walk_chunk<true>(args, taps, walk, sequence, stop, d, ringX, ringDy, n, slot);
            else gradients.template walk_chunk<false>(args, taps, walk, sequence, stop, d, ringX, ringDy, n, slot);
            ringX.put(slot, dx, args.dxStride, begin - n, walk.last + W - 1 - row - n);
            fetch(n + Rows::kAll, slot);
        }
        Rows::drain();
    }
    if (d >= D) return;
    f32* partial = args.partial + (i64)(block_again() / shape.slices) * (shape.K + 1) * shape.D + d;
    #pragma unroll
    for (int i = 0; i < W; i++)
        if (W - i <= shape.K) store<V>(partial + (i - (W - shape.K)) * shape.D, gradients.dweight[i]);
    store<V>(partial + shape.K * shape.D, gradients.dbias);
}
