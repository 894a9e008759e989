// RmsNorm.cu
//
// Computes   u = x, or u = x·silu(z) where the gate acts before the norm; s[r,g] = 1/√(Σ_d u[r,d]²/N + eps) over the N channels of group g;
//            y[r,d] = weight[d]·u[r,d]·s[r,g], times silu(z[r,d]) where the gate acts after it. With n[r,d] = dy[r,d] (·silu(z[r,d]) after):
//            du[r,d] = s·(weight[d]·n[r,d] − u[r,d]·s²/N·Σ_d weight[d]·n[r,d]·u[r,d]),  dweight[d] = Σ_r n[r,d]·u[r,d]·s.
//            With a residual: sum = x·factor + residual, rounded to T, is what is normalised, with factor[r] = 1/√(Σ_p squares[r,p]/count + squaresEps), or 1; then
//            dx, of the sum, has dsum added, dadded = dx·factor, and dsquares[r] = −½·factor³/count·Σ_d dx[r,d]·added[r,d]. Where the scan has put gate and weight
//            on and left s to such a sum, dgateSquares is its gradient: du = weight·n + 2·u·dgateSquares, dweight[d] = Σ_r n[r,d]·u[r,d].
// Source     Zhang and Sennrich 2019, arXiv:1910.07467, equation 4; gated: Dao and Gu 2024, arXiv:2405.21060, section 7.
// Method     forward: a block per row and group; u waits in shared memory, so x and z are read once. backward: blocks walk rows r = block,
//            block + grid, …; x, dy and z wait in shared memory; each thread owns columns, so dweight adds up in shared memory without
//            conflicts, and reduce_sums of Reduce.cu adds the blocks' sums in order. A thread reads only what it wrote itself.
// Layout     x, z, residual, dz, added [R, D] with rows xStride, zStride, … apart; y, sum, dy, dsum, dx, dadded [R, D]; weight [D] float; s [R, D/N], squares
//            [R, parts], factor, dsquares, dgateSquares [R] float; partial [P, D] float, of dweight. residual, squares, dsum, added, dgateSquares may be null.
// Launch     forward grid R·D/N with 4·N bytes of dynamic shared memory; backward grid P ≤ R with 4·D bytes, and the stash of 2 or 3 rows of N elements
//            where args.isStashed; block 32 to 256, whole warps. Static shared memory 32 bytes.
// Traffic    forward reads R·D elements (2·R·D with a gate) and R·D floats, writes R·D elements and R·D/N floats; backward reads 2·R·D elements (3·R·D with
//            a gate), 2·R·D floats of weight and s for every thread, writes R·D elements (2·R·D) and P·D floats. A residual is R·D elements more to read and, as
//            the sum, to write, and R·parts floats with squares; backward dsum and added are R·D more to read, dadded R·D to write.
//            Without the stash the backward reads its elements twice, the second time from the cache.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics, fixed order of additions.
// Limits     isWide: D, N, strides and addresses are multiples of 16 bytes; the dynamic shared memory fits a block. A residual: no gate, N = D.
// Variants   rms_norm_forward<{f32|bf16|f16}, {true|false}>; rms_norm_backward<{f32|bf16|f16}, {true|false}, {0|1|2}>
#include "common/Block.cuh"
#include "common/Copy.cuh"
#include "common/Pointwise.cuh"

constexpr int kMaxThreads = 256;

enum Gate { kNoGate, kGateBefore, kGateAfter };

template <typename T>
struct RmsNormArgs                                            // mirrored in CudaRmsNorm.cs, field for field
{
    const T* x; const T* z; const T* residual; const f32* weight; const f32* squares;
    T* y; T* sum; f32* s; f32* factor;
    i64 xStride, zStride, residualStride;
    i32 D, N, gate, parts, count;
    f32 eps, squaresEps;
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
    f32 sum = 0, factor = 1;
    if (args.squares)
    {
        f32 own = 0;
        for (int p = threadIdx.x; p < args.parts; p += blockDim.x) own += args.squares[r * args.parts + p];
        factor = 1.0f / sqrtf(block_sum(own, sPartial) / args.count + args.squaresEps);
        if (threadIdx.x == 0) args.factor[r] = factor;
    }
    for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
    {
        f32 u[V], g[V];
        load<V>(u, x + d);
        if (args.gate == kGateBefore) load<V>(g, z + d);
        if (args.residual)
        {
            load<V>(g, args.residual + r * args.residualStride + d);
            #pragma unroll
            for (int v = 0; v < V; v++) u[v] = to_f32(from_f32<T>(fmaf(u[v], factor, g[v])));
            store<V>(args.sum + r * args.D + d, u);
        }
        #pragma unroll
        for (int v = 0; v < V; v++)
        {
            if (args.gate == kGateBefore) u[v] *= silu(g[v]);
            sum = fmaf(u[v], u[v], sum);
        }
        stash<V>(sU + d, u);
    }
    const f32 s = 1.0f / sqrtf(block_sum(sum, sPartial) / args.N + args.eps);
    T* y = args.y + r * args.D + first;
    for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
    {
        f32 u[V], g[V], w[V];
        load<V>(u, sU + d);
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
    const T* x; const T* z; const f32* weight; const T* dy; const f32* s; const T* dsum; const T* added; const f32* factor; const f32* dgateSquares;
    T* dx; T* dz; T* dadded; f32* dsquares; f32* partial;
    i64 R, xStride, zStride, dzStride, addedStride;
    i32 D, N, isStashed, count;
};

template <typename T, bool isWide, int Gate>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_backward(const RmsNormBackwardArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    __shared__ f32 sPartial[kMaxThreads / kWarp];
    extern __shared__ __align__(16) f32 sWeight[];            // [D] this block's share of dweight
    T* sX = reinterpret_cast<T*>(sWeight + (args.D + 3) / 4 * 4);
    T* sDy = sX + (args.N + 7) / 8 * 8;
    T* sZ = sDy + (args.N + 7) / 8 * 8;
    for (int first = 0; first < args.D; first += args.N)
        for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
            for (int v = 0; v < V; v++) sWeight[first + d + v] = 0;
    for (i64 r = blockIdx.x; r < args.R; r += gridDim.x)
    for (int first = 0; first < args.D; first += args.N)
    {
        const T* x = args.x + r * args.xStride + first;       // R·D may exceed 2³¹
        const T* z = args.z + r * args.zStride + first;
        const T* dy = args.dy + r * args.D + first;
        const f32 s = Gate == kGateBefore && args.dgateSquares ? 1.0f : args.s[r * (args.D / args.N) + first / args.N];
        f32 sum = 0;
        for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
        {
            f32 u[V], n[V], g[V], w[V];
            load<V>(u, x + d);
            load<V>(n, dy + d);
            load<V>(w, args.weight + first + d);
            if (Gate != kNoGate) load<V>(g, z + d);
            if (args.isStashed)
            {
                stash<V>(sX + d, u);
                stash<V>(sDy + d, n);
                if (Gate != kNoGate) stash<V>(sZ + d, g);
            }
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                if (Gate == kGateBefore) u[v] *= silu(g[v]);
                if (Gate == kGateAfter) n[v] *= silu(g[v]);
                sum = fmaf(w[v] * n[v], u[v], sum);
                sWeight[first + d + v] = fmaf(n[v], u[v] * s, sWeight[first + d + v]);
            }
        }
        const f32 k = Gate == kGateBefore && args.dgateSquares ? -2.0f * args.dgateSquares[r] : block_sum(sum, sPartial) * s * s / args.N;
        const f32 factor = Gate == kNoGate && args.added ? args.factor[r] : 0.0f;
        f32 meets = 0;                                        // Σ of the sum's gradient times what was added
        for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
        {
            f32 u[V], n[V], g[V], w[V], dx[V], dz[V];
            load<V>(w, args.weight + first + d);
            if (args.isStashed)
            {
                load<V>(u, sX + d);
                load<V>(n, sDy + d);
                if (Gate != kNoGate) load<V>(g, sZ + d);
            }
            else
            {
                load<V>(u, x + d);
                load<V>(n, dy + d);
                if (Gate != kNoGate) load<V>(g, z + d);
            }
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                const f32 value = u[v];
                if (Gate == kGateBefore) u[v] *= silu(g[v]);
                if (Gate == kGateAfter)
                {
                    dz[v] = n[v] * u[v] * s * w[v] * silu_slope(g[v]);
                    n[v] *= silu(g[v]);
                }
                dx[v] = s * (w[v] * n[v] - u[v] * k);
                if (Gate == kGateBefore)
                {
                    dz[v] = dx[v] * value * silu_slope(g[v]);
                    dx[v] *= silu(g[v]);
                }
            }
            if (Gate == kNoGate && args.dsum)
            {
                load<V>(n, args.dsum + r * args.D + d);
                #pragma unroll
                for (int v = 0; v < V; v++) dx[v] += n[v];
            }
            store<V>(args.dx + r * args.D + first + d, dx);
            if (Gate != kNoGate) store<V>(args.dz + r * args.dzStride + first + d, dz);
            if (Gate != kNoGate || !args.added) continue;
            load<V>(n, args.added + r * args.addedStride + d);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                meets = fmaf(dx[v], n[v], meets);
                dx[v] *= factor;
            }
            store<V>(args.dadded + r * args.D + d, dx);
        }
        if (Gate != kNoGate || !args.added) continue;
        meets = block_sum(meets, sPartial);
        if (threadIdx.x == 0) args.dsquares[r] = meets * (-0.5f * factor * factor * factor / args.count);
    }
    for (int first = 0; first < args.D; first += args.N)
        for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
        {
            f32 w[V];
            load<V>(w, sWeight + first + d);
            store<V>(args.partial + (i64)blockIdx.x * args.D + first + d, w);
        }
}
