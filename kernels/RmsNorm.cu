// RmsNorm.cu
//
// Computes   y[r,d] = weight[d]·x[r,d]·s[r],  s[r] = 1/√(Σ_d x[r,d]²/D + eps);
//            dx[r,d] = s[r]·(weight[d]·dy[r,d] − x[r,d]·s[r]²/D·Σ_d weight[d]·dy[r,d]·x[r,d]),  dweight[d] = Σ_r dy[r,d]·x[r,d]·s[r]
// Source     Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
// Method     forward: a block per row, which stays in registers, so x is read once. backward: blocks walk rows r = block, block + grid, …;
//            each thread owns columns, so dweight adds up in shared memory without conflicts; a second kernel adds the blocks' sums in order.
// Layout     x, y, dx, dy [R, D]; weight, dweight [D]; s [R] float; partial [P, D] float, P blocks. Row-major, dense.
// Launch     forward grid R, backward grid P ≤ R with 4·D bytes of dynamic shared memory, block kThreads, D ≤ kThreads·V·C;
//            rms_norm_weight_backward grid ceil(D / kThreads). Static shared memory 4·kThreads/32 bytes.
// Traffic    forward reads 2·R·D elements, writes R·D and R floats; backward reads 3·R·D elements and R floats (each by all threads of its row), writes R·D and P·D floats;
//            rms_norm_weight_backward reads P·D floats, writes D elements.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics, fixed order of additions.
// Limits     D is a multiple of V; V·sizeof(T) ≤ 16; 4·D bytes of dynamic shared memory in the backward.
#include "common/Copy.cuh"
#include "common/Block.cuh"

constexpr int kThreads = 128;

template <typename T>
struct RmsNormArgs                                            // mirrored in CudaRmsNorm.cs, field for field
{
    const T* x; const T* weight;
    T* y; f32* s;
    f32 eps;
    int D;
};

// V elements per access, C accesses per thread.
template <typename T, int V, int C>
__global__ void __launch_bounds__(kThreads) rms_norm_forward(const RmsNormArgs<T> args)
{
    __shared__ f32 sPartial[kThreads / kWarp];
    const i64 row = (i64)blockIdx.x * args.D;                 // R·D may exceed 2³¹
    f32 x[C][V];
    f32 sum = 0;
    #pragma unroll
    for (int c = 0; c < C; c++)
    {
        const int d = (c * kThreads + threadIdx.x) * V;
        if (d >= args.D) break;
        load<V>(x[c], args.x + row + d);
        #pragma unroll
        for (int v = 0; v < V; v++) sum = fmaf(x[c][v], x[c][v], sum);
    }
    const f32 s = 1.0f / sqrtf(block_sum<kThreads>(sum, sPartial) / args.D + args.eps);
    #pragma unroll
    for (int c = 0; c < C; c++)
    {
        const int d = (c * kThreads + threadIdx.x) * V;
        if (d >= args.D) break;
        f32 weight[V], y[V];
        load<V>(weight, args.weight + d);
        #pragma unroll
        for (int v = 0; v < V; v++) y[v] = weight[v] * (x[c][v] * s);
        store<V>(args.y + row + d, y);
    }
    if (threadIdx.x == 0) args.s[blockIdx.x] = s;
}

template <typename T>
struct RmsNormBackwardArgs                                    // mirrored in CudaRmsNorm.cs, field for field
{
    const T* x; const T* weight; const T* dy; const f32* s;
    T* dx; f32* partial;
    int R, D;
};

template <typename T, int V, int C>
__global__ void __launch_bounds__(kThreads) rms_norm_backward(const RmsNormBackwardArgs<T> args)
{
    __shared__ f32 sPartial[kThreads / kWarp];
    extern __shared__ __align__(16) f32 sWeight[];            // [D] this block's share of dweight; a thread touches only its own columns
    for (int c = 0; c < C; c++)
    {
        const int d = (c * kThreads + threadIdx.x) * V;
        if (d >= args.D) break;
        for (int v = 0; v < V; v++) sWeight[d + v] = 0;
    }
    for (int r = blockIdx.x; r < args.R; r += gridDim.x)
    {
        const i64 row = (i64)r * args.D;                      // R·D may exceed 2³¹
        const f32 s = args.s[r];
        f32 x[C][V], g[C][V];                                 // g = weight·dy
        f32 sum = 0;
        #pragma unroll
        for (int c = 0; c < C; c++)
        {
            const int d = (c * kThreads + threadIdx.x) * V;
            if (d >= args.D) break;
            f32 weight[V], dy[V];
            load<V>(x[c], args.x + row + d);
            load<V>(dy, args.dy + row + d);
            load<V>(weight, args.weight + d);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                g[c][v] = weight[v] * dy[v];
                sum = fmaf(g[c][v], x[c][v], sum);
                sWeight[d + v] = fmaf(dy[v], x[c][v] * s, sWeight[d + v]);
            }
        }
        const f32 k = block_sum<kThreads>(sum, sPartial) * s * s / args.D;
        #pragma unroll
        for (int c = 0; c < C; c++)
        {
            const int d = (c * kThreads + threadIdx.x) * V;
            if (d >= args.D) break;
            f32 dx[V];
            #pragma unroll
            for (int v = 0; v < V; v++) dx[v] = s * (g[c][v] - x[c][v] * k);
            store<V>(args.dx + row + d, dx);
        }
    }
    for (int c = 0; c < C; c++)
    {
        const int d = (c * kThreads + threadIdx.x) * V;
        if (d >= args.D) break;
        for (int v = 0; v < V; v++) args.partial[(i64)blockIdx.x * args.D + d + v] = sWeight[d + v];
    }
}

template <typename T>
struct RmsNormWeightArgs                                      // mirrored in CudaRmsNorm.cs, field for field
{
    const f32* partial; T* dweight;
    int P, D;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) rms_norm_weight_backward(const RmsNormWeightArgs<T> args)
{
    const int d = blockIdx.x * kThreads + threadIdx.x;
    if (d >= args.D) return;
    f32 sum = 0;
    for (int p = 0; p < args.P; p++) sum += args.partial[(i64)p * args.D + d];
    args.dweight[d] = from_f32<T>(sum);
}
