// LayerNorm.cu
//
// Computes   μ[r] = Σ_d x[r,d]/D, s[r] = 1/√(Σ_d (x[r,d] − μ[r])²/D + eps), n = (x − μ)·s, y[r,d] = weight[d]·n[r,d] + bias[d]. With g = weight·dy:
//            dx[r,d] = s·(g[r,d] − Σ_d g[r,d]/D − n[r,d]·Σ_d g[r,d]·n[r,d]/D),  dweight[d] = Σ_r dy[r,d]·n[r,d],  dbias[d] = Σ_r dy[r,d]
// Source     Ba, Kiros and Hinton 2016, arXiv:1607.06450, section 3.
// Method     forward: a block per row; x waits in shared memory, so it is read once, and the variance is of differences from the mean. backward: blocks walk
//            rows r = block, block + grid, …; x and dy wait in shared memory; each thread owns columns, so dweight and dbias add up in shared memory
//            without conflicts, and reduce_sums of Reduce.cu adds the blocks' sums in order. A thread reads only what it wrote itself.
// Layout     x [R, D] with rows xStride apart; y, dy, dx [R, D]; weight, bias, dweight, dbias [D] float or null; mean, s [R] float; partial [P, W] float: of
//            each block dweight, then dbias, where they are wanted; W is D for each.
// Launch     forward grid R with 4·D bytes of dynamic shared memory; backward grid P ≤ R with 4·W bytes, and the stash of 2 rows of D elements where
//            args.isStashed; block 32 to 256, whole warps. Static shared memory 32 bytes.
// Traffic    forward reads R·D elements and R·D floats of weight and of bias, writes R·D elements and 2·R floats; backward reads 2·R·D elements, R·D floats
//            of weight, twice, and the block's mean and s, writes R·D elements and P·W floats.
//            Without the stash the backward reads its elements twice, the second time from the cache.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics, fixed order of additions.
// Limits     isWide: D, strides and addresses are multiples of 16 bytes; the dynamic shared memory fits a block.
// Variants   layer_norm_forward<{f32|bf16|f16}, {true|false}>; layer_norm_backward<{f32|bf16|f16}, {true|false}>
#include "common/Block.cuh"
#include "common/Copy.cuh"

constexpr int kMaxThreads = 256;

template <typename T>
struct LayerNormArgs                                          // mirrored in CudaLayerNorm.cs, field for field
{
    const T* x; const f32* weight; const f32* bias;
    T* y; f32* mean; f32* s;
    i64 xStride;
    i32 D;
    f32 eps;
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kMaxThreads) layer_norm_forward(const LayerNormArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    __shared__ f32 sPartial[kMaxThreads / kWarp];
    extern __shared__ __align__(16) f32 sX[];                 // [D]
    const i64 r = blockIdx.x;                                 // R·D may exceed 2³¹
    const T* x = args.x + r * args.xStride;
    f32 sum = 0;
    for (int d = threadIdx.x * V; d < args.D; d += blockDim.x * V)
    {
        f32 u[V];
        load<V>(u, x + d);
        stash<V>(sX + d, u);
        #pragma unroll
        for (int v = 0; v < V; v++) sum += u[v];
    }
    const f32 mean = block_sum(sum, sPartial) / args.D;
    f32 squares = 0;
    for (int d = threadIdx.x * V; d < args.D; d += blockDim.x * V)
    {
        f32 u[V];
        load<V>(u, sX + d);
        #pragma unroll
        for (int v = 0; v < V; v++) squares = fmaf(u[v] - mean, u[v] - mean, squares);
    }
    const f32 s = 1.0f / sqrtf(block_sum(squares, sPartial) / args.D + args.eps);
    T* y = args.y + r * args.D;
    for (int d = threadIdx.x * V; d < args.D; d += blockDim.x * V)
    {
        f32 u[V], w[V], b[V];
        load<V>(u, sX + d);
        if (args.weight) load<V>(w, args.weight + d);
        if (args.bias) load<V>(b, args.bias + d);
        #pragma unroll
        for (int v = 0; v < V; v++)
        {
            u[v] = (u[v] - mean) * s;
            if (args.weight) u[v] *= w[v];
            if (args.bias) u[v] += b[v];
        }
        store<V>(y + d, u);
    }
    if (threadIdx.x != 0) return;
    args.mean[r] = mean;
    args.s[r] = s;
}

template <typename T>
struct LayerNormBackwardArgs                                  // mirrored in CudaLayerNorm.cs, field for field
{
    const T* x; const f32* weight; const T* dy; const f32* mean; const f32* s;
    T* dx; f32* partial;
    i64 R, xStride;
    i32 D, hasWeight, hasBias, isStashed;
};

// to[d] += by[d], in shared memory.
template <int V>
__device__ inline void add_to(f32* to, const f32 (&by)[V])
{
    f32 sum[V];
    load<V>(sum, to);
    #pragma unroll
    for (int v = 0; v < V; v++) sum[v] += by[v];
    stash<V>(to, sum);
}

template <typename T, bool isWide>
__global__ void __launch_bounds__(kMaxThreads) layer_norm_backward(const LayerNormBackwardArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    __shared__ f32 sPartial[kMaxThreads / kWarp];
    extern __shared__ __align__(16) f32 sSums[];              // this block's share of dweight, then of dbias
    const int width = (args.D + 3) / 4 * 4;                   // a multiple of 16 bytes
    f32* sBias = sSums + args.hasWeight * width;
    T* sX = reinterpret_cast<T*>(sBias + args.hasBias * width);
    T* sDy = sX + (args.D + 7) / 8 * 8;
    for (int d = threadIdx.x * V; d < args.D; d += blockDim.x * V)
    {
        const f32 zeros[V] = {};
        if (args.hasWeight) stash<V>(sSums + d, zeros);
        if (args.hasBias) stash<V>(sBias + d, zeros);
    }
    for (i64 r = blockIdx.x; r < args.R; r += gridDim.x)
    {
        const T* x = args.x + r * args.xStride;               // R·D may exceed 2³¹
        const T* dy = args.dy + r * args.D;
        const f32 mean = args.mean[r], s = args.s[r];
        f32 sum = 0, dot = 0;
        for (int d = threadIdx.x * V; d < args.D; d += blockDim.x * V)
        {
            f32 n[V], g[V], w[V];
            load<V>(n, x + d);
            load<V>(g, dy + d);
            if (args.isStashed)
            {
                stash<V>(sX + d, n);
                stash<V>(sDy + d, g);
            }
            if (args.hasBias) add_to<V>(sBias + d, g);
            if (args.hasWeight) load<V>(w, args.weight + d);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                n[v] = (n[v] - mean) * s;
                const f32 dweight = g[v] * n[v];
                if (args.hasWeight) g[v] *= w[v];
                sum += g[v];
                dot = fmaf(g[v], n[v], dot);
                n[v] = dweight;
            }
            if (args.hasWeight) add_to<V>(sSums + d, n);
        }
        const f32 shift = block_sum(sum, sPartial) / args.D, slope = block_sum(dot, sPartial) / args.D;
        for (int d = threadIdx.x * V; d < args.D; d += blockDim.x * V)
        {
            f32 n[V], g[V], w[V];
            if (args.isStashed)
            {
                load<V>(n, sX + d);
                load<V>(g, sDy + d);
            }
            else
            {
                load<V>(n, x + d);
                load<V>(g, dy + d);
            }
            if (args.hasWeight) load<V>(w, args.weight + d);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                if (args.hasWeight) g[v] *= w[v];
                g[v] = s * (g[v] - shift - (n[v] - mean) * s * slope);
            }
            store<V>(args.dx + r * args.D + d, g);
        }
    }
    const i64 columns = (i64)(args.hasWeight + args.hasBias) * args.D;
    f32* partial = args.partial + blockIdx.x * columns;
    for (int d = threadIdx.x * V; d < args.D; d += blockDim.x * V)
    {
        f32 sums[V];
        if (args.hasWeight)
        {
            load<V>(sums, sSums + d);
            store<V>(partial + d, sums);
        }
        if (!args.hasBias) continue;
        load<V>(sums, sBias + d);
        store<V>(partial + args.hasWeight * args.D + d, sums);
    }
}
