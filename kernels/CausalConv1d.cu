// CausalConv1d.cu
//
// Computes   c[t,d] = bias[d] + Σ_k weight[d,k]·x[t − K + 1 + k,d], y = c or silu(c); final state: the last K − 1 inputs of each sequence. Inputs before a
//            sequence are its initial state, or 0. With p[t,d] = dy[t,d] (·silu'(c[t,d])), 0 behind the sequence: dx[t,d] = Σ_k weight[d,k]·p[t + K − 1 − k,d],
//            and what the final state's gradient adds; the same sum before the sequence is dinitial; dweight[d,k] = Σ_t p[t,d]·x[t − K + 1 + k,d],
//            dbias[d] = Σ_t p[t,d]
// Source     the depthwise causal convolution of Gu and Dao 2023, arXiv:2312.00752, figure 3, as src/ZEngine/Ops/CausalConv1d.cs defines it.
// Method     each lane owns V neighbouring channels and walks the steps of a tile, with the last W inputs (and, backward, the last W values of p) and all
//            taps in registers. Where a sequence begins in the tile, the window is its initial state; the step that ends one leaves its final state.
//            The backward walks W − 1 steps on to finish dx, computing p there a second time; taps beyond K are skipped. The warps of a block add their
//            shares of dweight and dbias in order, and reduce_sums of Reduce.cu adds the blocks' in order.
// Layout     x [B, L, D] with rows stepStride and batchStride apart, dx with rows dxStride apart; y, dy [B, L, D]; weight, dweight [D, K] float; bias, dbias [D] float or null; initial,
//            finalState, dfinal, dinitial [sequences, K − 1, D] float; starts [sequences + 1] or null; partial [P, K + 1, D] float.
// Launch     grid ceil(tiles / 4)·slices with tiles = B·ceil(L / steps) and slices = ceil(D / (32·V)); block 128: a warp to a tile. No dynamic shared memory;
//            backward static 4·(W + 1)·128·V bytes.
// Traffic    for each tile: forward reads (steps + K − 1)·D elements, writes steps·D; backward reads (steps + 2·(K − 1))·D of x, (steps + K − 1)·D of dy, writes
//            steps·D; and (K + 1)·D floats of weight and bias. The states are read and written once. Backward writes P·(K + 1)·D floats with
//            P = ceil(tiles / 4).
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics, fixed order of additions.
// Limits     K ≤ W, and W is 4 or 8. isWide: D, strides and addresses are multiples of 16 bytes. V, the elements of an access, is then 16 bytes forward where
//            W = 4 and 4 elements where W = 8, and 16 / W elements backward, as the registers allow; else 1.
// Variants   causal_conv1d_forward<{f32|bf16|f16}, 4, true>; causal_conv1d_forward<{f32|bf16|f16}, 8, {true|false}>;
//            causal_conv1d_backward<{f32|bf16|f16}, 4, true>; causal_conv1d_backward<{f32|bf16|f16}, 8, {true|false}>
#include "common/Copy.cuh"
#include "common/Grid.cuh"
#include "common/Pointwise.cuh"
#include "common/Sequences.cuh"
#include "common/Warp.cuh"

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kBlocks = 3;                                    // of a multiprocessor at least: at most 168 registers

struct CausalConv1dShape                                      // mirrored in CudaCausalConv1d.cs, field for field
{
    const f32* weight; const f32* bias; const f32* initial; const i64* starts;
    i64 L, D, batchStride, stepStride, tiles, tilesPerRow;
    i32 K, steps, sequences, slices, hasSilu;
};

// The taps of V channels, the last at W − 1; those before W − K are no taps.
template <int W, int V>
struct Taps
{
    f32 w[V][W], bias[V];
    int first;

    __device__ inline void fetch(const CausalConv1dShape& shape, i64 d)
    {
        first = W - shape.K;
        #pragma unroll
        for (int v = 0; v < V; v++)
        {
            const f32* taps = shape.weight + (d + v) * shape.K;
            if (V > 1 && first == 0) load<W>(w[v], taps);
            else
                #pragma unroll
                for (int i = 0; i < W; i++) w[v][i] = i >= first ? taps[i - first] : 0.0f;
            bias[v] = 0;
        }
        if (shape.bias) load<V>(bias, shape.bias + d);
    }

    // bias + Σ weight·x for the inputs in the window.
    __device__ inline void convolve(f32 (&sum)[V], const f32 (&window)[W][V]) const
    {
        #pragma unroll
        for (int v = 0; v < V; v++) sum[v] = bias[v];
        #pragma unroll
        for (int i = 0; i < W; i++)
            if (i >= first)
                #pragma unroll
                for (int v = 0; v < V; v++) sum[v] = fmaf(w[v][i], window[i][v], sum[v]);
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

// The steps of a sequence that stand in a tile.
struct Segment
{
    i64 sequence, begin, end, first, last;                    // the sequence is [begin, end) of the row, its part in the tile [first, last)
};

// A tile of steps of a row of the batch.
struct Tile
{
    i64 b, first, last;
    i32 sequence;

    __device__ inline Tile(const CausalConv1dShape& shape, i64 tile)
    {
        const Quotient at = divide(tile, shape.tilesPerRow);
        b = at.quotient;
        first = at.rest * shape.steps;
        last = min(shape.L, first + shape.steps);
        sequence = shape.starts ? sequence_of(shape.starts, shape.sequences, first) : 0;
    }

    // The next segment, from the one that holds the tile's first step on; false behind the last.
    __device__ inline bool next(const CausalConv1dShape& shape, Segment& segment, i64& done)
    {
        if (done == last) return false;
        segment.sequence = shape.starts ? sequence : b;
        segment.begin = shape.starts ? shape.starts[sequence] : 0;
        segment.end = shape.starts ? shape.starts[sequence + 1] : shape.L;
        segment.first = max(first, segment.begin);
        segment.last = done = min(last, segment.end);
        sequence++;
        return true;
    }
};

// The K − 1 inputs before a segment, at the places that they have before its first step is shifted in. x points to step 0 of the row.
template <int W, int V, typename T>
__device__ inline void fill_window(f32 (&window)[W][V], const CausalConv1dShape& shape, const Segment& segment, const T* x, i64 d)
{
    #pragma unroll
    for (int i = 1; i < W; i++)
    {
        const i64 step = segment.first - W + i;
        #pragma unroll
        for (int v = 0; v < V; v++) window[i][v] = 0;
        if (i <= W - shape.K) continue;
        if (step >= segment.begin) load<V>(window[i], x + step * shape.stepStride + d);
        else if (shape.initial) load<V>(window[i], shape.initial + (segment.sequence * (shape.K - 1) + shape.K - 1 + step - segment.begin) * shape.D + d);
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
    constexpr int V = isWide ? W == 4 ? kVector<T, true> : 4 : 1;
    constexpr int kAhead = 4;                                 // steps under way at a time
    const CausalConv1dShape& shape = args.shape;
    const i64 d = ((i64)(blockIdx.x % shape.slices) * kWarp + threadIdx.x % kWarp) * V;
    const i64 number = (i64)(blockIdx.x / shape.slices) * kWarps + threadIdx.x / kWarp;
    if (number >= shape.tiles || d >= shape.D) return;
    Taps<W, V> taps;
    taps.fetch(shape, d);
    Tile tile(shape, number);
    const T* x = args.x + tile.b * shape.batchStride;         // B·L·D may exceed 2³¹
    T* y = args.y + tile.b * shape.L * shape.D + d;
    Segment segment;
    i64 done = tile.first;
    while (tile.next(shape, segment, done))
    {
        f32 window[W][V];
        fill_window(window, shape, segment, x, d);
        for (i64 step = segment.first; step < segment.last; step += kAhead)
        {
            Pack<T, V> next[kAhead];
            #pragma unroll
            for (int a = 0; a < kAhead; a++)
                if (step + a < segment.last) next[a] = load_pack<V>(x + (step + a) * shape.stepStride + d);
            #pragma unroll
            for (int a = 0; a < kAhead; a++)
            {
                if (step + a >= segment.last) break;
                shift(window);
                unpack(window[W - 1], next[a]);
                f32 sum[V];
                taps.convolve(sum, window);
                if (shape.hasSilu)
                    #pragma unroll
                    for (int v = 0; v < V; v++) sum[v] = silu(sum[v]);
                store<V>(y + (step + a) * shape.D, sum);
            }
        }
        if (segment.last != segment.end) continue;
        f32* state = args.finalState + segment.sequence * (shape.K - 1) * shape.D + d;
        #pragma unroll
        for (int i = 1; i < W; i++)
            if (i > taps.first) store<V>(state + (i - taps.first - 1) * shape.D, window[i]);
    }
}

template <typename T>
struct CausalConv1dBackwardArgs                               // mirrored in CudaCausalConv1d.cs, field for field
{
    const T* x; const T* dy; const f32* dfinal; T* dx; f32* dinitial; f32* partial;
    i64 dxStride;
    CausalConv1dShape shape;
};

// What one lane adds up over its tile, and the last W values of p.
template <int W, int V>
struct Gradients
{
    f32 dweight[W][V] = {}, dbias[V] = {}, p[W][V];

    // Enters a step: dy becomes p, which counts towards the taps where the step is the tile's own.
    __device__ inline void enter(const Taps<W, V>& taps, const f32 (&window)[W][V], const f32 (&dy)[V], bool hasSilu, bool isOwn)
    {
        f32 sum[V];
        if (hasSilu) taps.convolve(sum, window);
        #pragma unroll
        for (int v = 0; v < V; v++) p[W - 1][v] = hasSilu ? dy[v] * silu_slope(sum[v]) : dy[v];
        if (!isOwn) return;
        #pragma unroll
        for (int v = 0; v < V; v++)
        {
            dbias[v] += p[W - 1][v];
            #pragma unroll
            for (int i = 0; i < W; i++) dweight[i][v] = fmaf(p[W - 1][v], window[i][v], dweight[i][v]);
        }
    }

    // Gradient of the input W − 1 steps ago.
    __device__ inline void leave(f32 (&sum)[V], const Taps<W, V>& taps) const
    {
        #pragma unroll
        for (int v = 0; v < V; v++) sum[v] = 0;
        #pragma unroll
        for (int i = 0; i < W; i++)
            if (i >= taps.first)
                #pragma unroll
                for (int v = 0; v < V; v++) sum[v] = fmaf(taps.w[v][i], p[W - 1 - i][v], sum[v]);
    }
};

// The gradient of the input at step, which may stand in the initial state.
template <int V, typename T>
__device__ inline void store_gradient(const CausalConv1dBackwardArgs<T>& args, const Segment& segment, i64 b, i64 step, i64 d, f32 (&sum)[V])
{
    const CausalConv1dShape& shape = args.shape;
    const i64 states = segment.sequence * (shape.K - 1), inFinal = step - (segment.end - shape.K + 1);
    if (args.dfinal && inFinal >= 0)
    {
        f32 dfinal[V];
        load<V>(dfinal, args.dfinal + (states + inFinal) * shape.D + d);
        #pragma unroll
        for (int v = 0; v < V; v++) sum[v] += dfinal[v];
    }
    if (step >= segment.begin) store<V>(args.dx + (b * shape.L + step) * args.dxStride + d, sum);
    else store<V>(args.dinitial + (states + step - segment.begin + shape.K - 1) * shape.D + d, sum);
}

template <int W, int V, typename T>
__device__ inline void walk_back(const CausalConv1dBackwardArgs<T>& args, i64 number, i64 d, Gradients<W, V>& gradients)
{
    constexpr int kAhead = 2;                                 // steps under way at a time
    const CausalConv1dShape& shape = args.shape;
    Taps<W, V> taps;
    taps.fetch(shape, d);
    Tile tile(shape, number);
    const T* x = args.x + tile.b * shape.batchStride;         // B·L·D may exceed 2³¹
    const T* dy = args.dy + tile.b * shape.L * shape.D + d;
    Segment segment;
    i64 done = tile.first;
    while (tile.next(shape, segment, done))
    {
        f32 window[W][V];
        fill_window(window, shape, segment, x, d);
        #pragma unroll
        for (int i = 0; i < W; i++)
            #pragma unroll
            for (int v = 0; v < V; v++) gradients.p[i][v] = 0;
        const i64 stop = min(segment.end, segment.last + shape.K - 1);          // steps from here on give no p that this tile needs
        const i64 low = segment.first == segment.begin && args.dinitial ? segment.begin - shape.K + 1 : segment.first;
        for (i64 step = segment.first; step < segment.last + W - 1; step += kAhead)
        {
            Pack<T, V> next[kAhead], nextDy[kAhead];
            #pragma unroll
            for (int a = 0; a < kAhead; a++)
                if (step + a < stop)
                {
                    next[a] = load_pack<V>(x + (step + a) * shape.stepStride + d);
                    nextDy[a] = load_pack<V>(dy + (step + a) * shape.D);
                }
            #pragma unroll
            for (int a = 0; a < kAhead; a++)
            {
                const i64 target = step + a - W + 1;
                if (target >= segment.last) break;
                shift(window);
                shift(gradients.p);
                if (step + a < stop)
                {
                    f32 now[V];
                    unpack(window[W - 1], next[a]);
                    unpack(now, nextDy[a]);
                    gradients.enter(taps, window, now, shape.hasSilu, step + a < segment.last);
                }
                else
                    #pragma unroll
                    for (int v = 0; v < V; v++) gradients.p[W - 1][v] = 0;
                if (target < low) continue;
                f32 sum[V];
                gradients.leave(sum, taps);
                store_gradient<V>(args, segment, tile.b, target, d, sum);
            }
        }
    }
}

template <typename T, int W, bool isWide>
__global__ void __launch_bounds__(kThreads, kBlocks) causal_conv1d_backward(const CausalConv1dBackwardArgs<T> args)
{
    constexpr int V = isWide ? 16 / W : 1;
    constexpr int kChannels = kWarp * V;                      // of a block
    __shared__ __align__(16) f32 sSums[kWarps][W + 1][kChannels];
    const CausalConv1dShape& shape = args.shape;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const i64 first = (i64)(blockIdx.x % shape.slices) * kChannels, group = blockIdx.x / shape.slices, number = group * kWarps + warp;
    Gradients<W, V> gradients;
    if (number < shape.tiles && first + lane * V < shape.D) walk_back(args, number, first + lane * V, gradients);
    #pragma unroll
    for (int i = 0; i < W; i++) stash<V>(&sSums[warp][i][lane * V], gradients.dweight[i]);
    stash<V>(&sSums[warp][W][lane * V], gradients.dbias);
    __syncthreads();                                          // the shares of all warps are there
    for (int place = threadIdx.x; place < (shape.K + 1) * kChannels; place += kThreads)
    {
        const int k = place / kChannels, c = place % kChannels;
        if (first + c >= shape.D) continue;
        f32 sum = 0;
        #pragma unroll
        for (int w = 0; w < kWarps; w++) sum += sSums[w][W - shape.K + k][c];
        args.partial[(group * (shape.K + 1) + k) * shape.D + first + c] = sum;
    }
}
