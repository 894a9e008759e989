// RmsNorm.cu
//
// Computes   u = x, or u = x·silu(z) where the gate acts before the norm; s[r,g] = 1/√(Σ_d u[r,d]²/N + eps) over the N channels of group g;
//            y[r,d] = weight[d]·u[r,d]·s[r,g], times silu(z[r,d]) where the gate acts after it. With n[r,d] = dy[r,d] (·silu(z[r,d]) after):
//            du[r,d] = s·(weight[d]·n[r,d] − u[r,d]·s²/N·Σ_d weight[d]·n[r,d]·u[r,d]),  dweight[d] = Σ_r n[r,d]·u[r,d]·s
// Source     Zhang and Sennrich 2019, arXiv:1910.07467, equation 4; gated: Dao and Gu 2024, arXiv:2405.21060, section 7.
// Method     forward: a block per row and group; u waits in shared memory, so x and z are read once. backward: blocks walk rows r = block,
//            block + grid, …; x, dy and z wait in shared memory; each thread owns columns, so dweight adds up in shared memory without
//            conflicts, and a second kernel adds the blocks' sums in order. A thread reads only what it wrote itself.
// Layout     x, z [R, D] with rows xStride and zStride apart; y, dy, dx, dz [R, D]; weight, dweight [D] float; s [R, D/N] float; partial [P, D] float.
// Launch     forward grid R·D/N with 4·N bytes of dynamic shared memory; backward grid P ≤ R, at most 2 blocks a multiprocessor (3 with a gate), with
//            4·D bytes, and the stash of 2 or 3 rows of N elements where args.isStashed; block 32 to 256, whole warps; rms_norm_weight_backward grid ceil(D / 32), block 256. Static shared memory 32 bytes, 1 KiB.
// Traffic    forward reads R·D elements (2·R·D with a gate) and R·D floats, writes R·D elements and R·D/N floats; backward reads 2·R·D elements (3·R·D with
//            a gate), 2·R·D floats of weight and s for every thread, writes R·D elements (2·R·D) and P·D floats; rms_norm_weight_backward reads P·D floats, writes D.
//            Without the stash the backward reads its elements twice, the second time from the cache.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics, fixed order of additions.
// Limits     isWide: D, N, strides and addresses are multiples of 16 bytes; the dynamic shared memory fits a block.
// Variants   rms_norm_forward<{f32|bf16|f16}, {true|false}>; rms_norm_backward<{f32|bf16|f16}, {true|false}, {true|false}>; rms_norm_weight_backward
#include "common/Block.cuh"
#include "common/Columns.cuh"
#include "common/Pointwise.cuh"
#include "common/Words.cuh"

constexpr int kMaxThreads = 256;
constexpr int kAhead = 2;                                     // accesses of a tensor that a thread has under way

// A row of N floats in shared memory. Eight of them are kept in two halves, four in each: so neighbouring lanes touch neighbouring banks.
struct FloatRow
{
    f32* at;
    int N;

    template <int V> __device__ inline void load(f32 (&to)[V], int d) const
    {
        if constexpr (V == 8)
        {
            ::load<4>(reinterpret_cast<f32 (&)[4]>(to[0]), at + d / 2);
            ::load<4>(reinterpret_cast<f32 (&)[4]>(to[4]), at + (N + d) / 2);
        }
        else ::load<V>(to, at + d);
    }

    template <int V> __device__ inline void stash(int d, const f32 (&from)[V]) const
    {
        if constexpr (V == 8)
        {
            ::stash<4>(at + d / 2, reinterpret_cast<const f32 (&)[4]>(from[0]));
            ::stash<4>(at + (N + d) / 2, reinterpret_cast<const f32 (&)[4]>(from[4]));
        }
        else ::stash<V>(at + d, from);
    }
};

enum Gate { kNoGate, kGateBefore, kGateAfter };

template <typename T>
struct RmsNormArgs                                            // mirrored in CudaRmsNorm.cs, field for field
{
    const T* x; const T* z; const f32* weight;
    T* y; f32* s;
    i64 xStride, zStride;
    i32 D, N, gate;
    f32 eps;
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_forward(const RmsNormArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    __shared__ f32 sPartial[kMaxThreads / kWarp];
    extern __shared__ __align__(16) f32 sU[];                 // [N]
    const int groups = args.D / args.N;
    const i64 r = blockIdx.x / groups;                        // R·D may exceed 2³¹
    const int first = blockIdx.x % groups * args.N;
    const T* x = args.x + r * args.xStride + first;
    const T* z = args.z + r * args.zStride + first;
    const int step = blockDim.x * V;
    const FloatRow row{sU, args.N};
    f32 sum = 0;
    for (int first = threadIdx.x * V; first < args.N; first += kAhead * step)
    {
        PackedWords<T, V> words[kAhead];
        #pragma unroll
        for (int a = 0; a < kAhead; a++)
            if (first + a * step < args.N) words[a].load(x + first + a * step);
        #pragma unroll
        for (int a = 0; a < kAhead; a++)
        {
            const int d = first + a * step;
            if (d >= args.N) break;
            f32 u[V], g[V];
            words[a].open_all(u);
            if (args.gate == kGateBefore) load<V>(g, z + d);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                if (args.gate == kGateBefore) u[v] *= silu(g[v]);
                sum = fmaf(u[v], u[v], sum);
            }
            row.stash(d, u);
        }
    }
    const f32 s = 1.0f / sqrtf(block_sum(sum, sPartial) * reciprocal(args.N) + args.eps);
    T* y = args.y + r * args.D + first;
    for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
    {
        f32 u[V], g[V], w[V];
        row.load(u, d);
        load<V>(w, args.weight + first + d);
        if (args.gate == kGateAfter) load<V>(g, z + d);
        #pragma unroll
        for (int v = 0; v < V; v++)
        {
            u[v] = w[v] * (u[v] * s);
            if (args.gate == kGateAfter) u[v] *= silu(g[v]);
        }
        store<V>(y + d, u);
    }
    if (threadIdx.x == 0) args.s[blockIdx.x] = s;
}

template <typename T>
struct RmsNormBackwardArgs                                    // mirrored in CudaRmsNorm.cs, field for field
{
    const T* x; const T* z; const f32* weight; const T* dy; const f32* s;
    T* dx; T* dz; f32* partial;
    i64 R, xStride, zStride;
    i32 D, N, gate, isStashed;
};

template <typename T, bool isWide, bool isGated>
__global__ void __launch_bounds__(kMaxThreads, isGated ? 4 : 5) rms_norm_backward(const RmsNormBackwardArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    using Words = PackedWords<T, V>;
    constexpr int kEach = Words::kEach, kTogether = isGated ? 1 : kAhead;    // with a gate registers allow no more
    __shared__ f32 sPartial[kMaxThreads / kWarp];
    extern __shared__ __align__(16) f32 sWeight[];            // [D] this block's share of dweight
    T* sX = reinterpret_cast<T*>(sWeight + (args.D + 3) / 4 * 4);
    T* sDy = sX + (args.N + 7) / 8 * 8;
    T* sZ = sDy + (args.N + 7) / 8 * 8;
    for (i64 r = blockIdx.x; r < args.R; r += gridDim.x)
    for (int first = 0; first < args.D; first += args.N)
    {
        const T* x = args.x + r * args.xStride + first;       // R·D may exceed 2³¹
        const T* z = args.z + r * args.zStride + first;
        const T* dy = args.dy + r * args.D + first;
        const f32 s = args.s[r * (args.D / args.N) + first / args.N];
        f32 sum = 0;
        const int step = blockDim.x * V;
        for (int from = threadIdx.x * V; from < args.N; from += kTogether * step)
        {
            Words wordsX[kTogether], wordsDy[kTogether], wordsZ;
            if constexpr (isGated) wordsZ.load(z + from);
            #pragma unroll
            for (int a = 0; a < kTogether; a++)
                if (from + a * step < args.N)
                {
                    wordsX[a].load(x + from + a * step);
                    wordsDy[a].load(dy + from + a * step);
                }
            #pragma unroll
            for (int a = 0; a < kTogether; a++)
            {
                const int d = from + a * step;
                if (d >= args.N) break;
                if (args.isStashed)
                {
                    wordsX[a].stash(sX + d);
                    wordsDy[a].stash(sDy + d);
                    if constexpr (isGated) wordsZ.stash(sZ + d);
                }
                f32 w[V], share[V] = {};
                load<V>(w, args.weight + first + d);
                if (r != blockIdx.x) FloatRow{sWeight + first, args.N}.load(share, d);        // the block's first row begins the sum
                #pragma unroll
                for (int i = 0; i < Words::kCount; i++)
                {
                    f32 u[kEach], n[kEach], g[kEach];
                    wordsX[a].open(u, i);
                    wordsDy[a].open(n, i);
                    if constexpr (isGated) wordsZ.open(g, i);
                    #pragma unroll
                    for (int v = 0; v < kEach; v++)
                    {
                        if constexpr (isGated) (args.gate == kGateBefore ? u[v] : n[v]) *= silu(g[v]);
                        sum = fmaf(w[i * kEach + v] * n[v], u[v], sum);
                        share[i * kEach + v] = fmaf(n[v], u[v] * s, share[i * kEach + v]);
                    }
                }
                FloatRow{sWeight + first, args.N}.stash(d, share);
            }
        }
        const f32 k = block_sum(sum, sPartial) * s * s * reciprocal(args.N);
        for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
        {
            Words wordsX, wordsDy, wordsZ;
            if (args.isStashed)
            {
                wordsX.load(sX + d);
                wordsDy.load(sDy + d);
                if constexpr (isGated) wordsZ.load(sZ + d);
            }
            else
            {
                wordsX.load(x + d);
                wordsDy.load(dy + d);
                if constexpr (isGated) wordsZ.load(z + d);
            }
            f32 w[V];
            load<V>(w, args.weight + first + d);
            #pragma unroll
            for (int i = 0; i < Words::kCount; i++)
            {
                f32 u[kEach], n[kEach], g[kEach];
                wordsX.open(u, i);
                wordsDy.open(n, i);
                if constexpr (isGated) wordsZ.open(g, i);
                #pragma unroll
                for (int v = 0; v < kEach; v++)
                {
                    const f32 weight = w[i * kEach + v], value = u[v];
                    if constexpr (isGated)
                    {
                        if (args.gate == kGateBefore)
                        {
                            const f32 du = s * (weight * n[v] - value * silu(g[v]) * k);
                            u[v] = du * silu(g[v]);
                            g[v] = du * value * silu_slope(g[v]);
                        }
                        else
                        {
                            u[v] = s * (weight * (n[v] * silu(g[v])) - value * k);
                            g[v] = n[v] * value * s * weight * silu_slope(g[v]);
                        }
                    }
                    else u[v] = s * (weight * n[v] - value * k);
                }
                wordsX.close(i, u);
                if constexpr (isGated) wordsZ.close(i, g);
            }
            wordsX.store(args.dx + r * args.D + first + d);
            if constexpr (isGated) wordsZ.store(args.dz + r * args.D + first + d);
        }
    }
    for (int first = 0; first < args.D; first += args.N)
        for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
        {
            f32 w[V];
            FloatRow{sWeight + first, args.N}.load(w, d);
            store<V>(args.partial + (i64)blockIdx.x * args.D + first + d, w);
        }
}

struct RmsNormWeightArgs                                      // mirrored in CudaRmsNorm.cs, field for field
{
    const f32* partial; f32* dweight;
    i32 P, D;
};

__global__ void __launch_bounds__(kColumnWarps * kWarp) rms_norm_weight_backward(const RmsNormWeightArgs args)
{
    __shared__ f32 sSums[kColumnWarps][kWarp];
    const i64 column = (i64)blockIdx.x * kWarp + threadIdx.x % kWarp;
    const f32 sum = column_sum(args.partial, args.P, args.D, column, sSums);
    if (threadIdx.x < kWarp && column < args.D) args.dweight[column] = sum;
}
