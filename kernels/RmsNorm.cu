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
// Launch     forward grid R·D/N with 4·N bytes of dynamic shared memory; backward grid P ≤ R, at most 2 blocks a multiprocessor (3 with a gate), with 4·D bytes, and the
//            stash of 2 or 3 rows of N elements where args.isStashed; block 32 to 256, whole warps. Static shared memory 32 bytes.
// Traffic    forward reads R·D elements (2·R·D with a gate) and R·D floats, writes R·D elements and R·D/N floats; backward reads 2·R·D elements (3·R·D with
//            a gate), 2·R·D floats of weight and s for every thread, writes R·D elements (2·R·D) and P·D floats. A residual is R·D elements more to read and, as
//            the sum, to write, and R·parts floats with squares; backward dsum and added are R·D more to read, dadded R·D to write.
//            Without the stash the backward reads its elements twice, the second time from the cache.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics, fixed order of additions.
// Limits     isWide: D, N, strides and addresses are multiples of 16 bytes; the dynamic shared memory fits a block. A residual: no gate, N = D.
// Variants   rms_norm_forward<{f32|bf16|f16}, {true|false}>; rms_norm_backward<{f32|bf16|f16}, {true|false}, {0|1|2}>
#include "common/Block.cuh"
#include "common/Copy.cuh"
#include "common/FloatRow.cuh"
#include "common/Pointwise.cuh"
#include "common/Words.cuh"

constexpr int kMaxThreads = 256;
constexpr int kAhead = 2;                                     // accesses of a tensor that a thread has under way

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
__global__ void __launch_bounds__(kMaxThreads, 5) rms_norm_forward(const RmsNormArgs<T> args)
{
    constexpr int V = kVector<T, isWide>, kEach = PackedWords<T, V>::kEach, kCount = PackedWords<T, V>::kCount;
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
    const int step = blockDim.x * V;
    const FloatRow row{sU, args.N};
    for (int from = threadIdx.x * V; from < args.N; from += kAhead * step)
    {
        PackedWords<T, V> words[kAhead];
        #pragma unroll
        for (int a = 0; a < kAhead; a++)
            if (from + a * step < args.N) words[a].load(x + from + a * step);
        #pragma unroll
        for (int a = 0; a < kAhead; a++)
        {
            const int d = from + a * step;
            if (d >= args.N) break;
            PackedWords<T, V> other;                          // the gate, or the residual and then the sum
            if (args.gate == kGateBefore) other.load(z + d);
            if (args.residual) other.load(args.residual + r * args.residualStride + d);
            f32 u[V];
            #pragma unroll
            for (int i = 0; i < kCount; i++)
            {
                f32 word[kEach], with[kEach];
                words[a].open(word, i);
                other.open(with, i);
                #pragma unroll
                for (int v = 0; v < kEach; v++)
                    if (args.residual) word[v] = fmaf(word[v], factor, with[v]);
                    else if (args.gate == kGateBefore) word[v] *= silu(with[v]);
                if (args.residual)
                {
                    other.close(i, word);
                    other.open(word, i);                      // what is normalised is rounded
                }
                #pragma unroll
                for (int v = 0; v < kEach; v++)
                {
                    sum = fmaf(word[v], word[v], sum);
                    u[i * kEach + v] = word[v];
                }
            }
            if (args.residual) other.store(args.sum + r * args.D + d);
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
    const T* x; const T* z; const f32* weight; const T* dy; const f32* s; const T* dsum; const T* added; const f32* factor; const f32* dgateSquares;
    T* dx; T* dz; T* dadded; f32* dsquares; f32* partial;
    i64 R, xStride, zStride, dzStride, addedStride;
    i32 D, N, isStashed, count;
};

template <typename T, bool isWide, int Gate>
__global__ void __launch_bounds__(kMaxThreads, 4) rms_norm_backward(const RmsNormBackwardArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    using Words = PackedWords<T, V>;
    constexpr int kEach = Words::kEach, kTogether = Gate == kNoGate ? kAhead : 1;      // with a gate registers allow no more
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
        const f32 s = Gate == kGateBefore && args.dgateSquares ? 1.0f : args.s[r * (args.D / args.N) + first / args.N];
        const int step = blockDim.x * V;
        f32 sum = 0;
        for (int from = threadIdx.x * V; from < args.N; from += kTogether * step)
        {
            Words wordsX[kTogether], wordsDy[kTogether], wordsZ;
            if constexpr (Gate != kNoGate) wordsZ.load(z + from);
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
                    if constexpr (Gate != kNoGate) wordsZ.stash(sZ + d);
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
                    if constexpr (Gate != kNoGate) wordsZ.open(g, i);
                    #pragma unroll
                    for (int v = 0; v < kEach; v++)
                    {
                        if constexpr (Gate == kGateBefore) u[v] *= silu(g[v]);
                        if constexpr (Gate == kGateAfter) n[v] *= silu(g[v]);
                        sum = fmaf(w[i * kEach + v] * n[v], u[v], sum);
                        share[i * kEach + v] = fmaf(n[v], u[v] * s, share[i * kEach + v]);
                    }
                }
                FloatRow{sWeight + first, args.N}.stash(d, share);
            }
        }
        const f32 k = Gate == kGateBefore && args.dgateSquares ? -2.0f * args.dgateSquares[r] : block_sum(sum, sPartial) * s * s * reciprocal(args.N);
        const bool isAdded = Gate == kNoGate && args.added;
        const f32 factor = isAdded ? args.factor[r] : 0.0f;
        f32 meets = 0;                                        // Σ of the sum's gradient times what was added
        for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
        {
            Words wordsX, wordsDy, wordsZ;
            if (args.isStashed)
            {
                wordsX.load(sX + d);
                wordsDy.load(sDy + d);
                if constexpr (Gate != kNoGate) wordsZ.load(sZ + d);
            }
            else
            {
                wordsX.load(x + d);
                wordsDy.load(dy + d);
                if constexpr (Gate != kNoGate) wordsZ.load(z + d);
            }
            Words wordsSum, wordsAdded;
            if constexpr (Gate == kNoGate)
            {
                if (args.dsum) wordsSum.load(args.dsum + r * args.D + d);
                if (isAdded) wordsAdded.load(args.added + r * args.addedStride + d);
            }
            f32 w[V];
            load<V>(w, args.weight + first + d);
            #pragma unroll
            for (int i = 0; i < Words::kCount; i++)
            {
                f32 u[kEach], n[kEach], g[kEach];
                wordsX.open(u, i);
                wordsDy.open(n, i);
                if constexpr (Gate != kNoGate) wordsZ.open(g, i);
                #pragma unroll
                for (int v = 0; v < kEach; v++)
                {
                    const f32 weight = w[i * kEach + v], value = u[v];
                    if constexpr (Gate == kGateBefore)
                    {
                        const f32 du = s * (weight * n[v] - value * silu(g[v]) * k);
                        u[v] = du * silu(g[v]);
                        g[v] = du * value * silu_slope(g[v]);
                    }
                    else if constexpr (Gate == kGateAfter)
                    {
                        const f32 scaled = s * weight * n[v];
                        u[v] = scaled * silu(g[v]) - s * (value * k);
                        g[v] = scaled * value * silu_slope(g[v]);
                    }
                    else u[v] = s * (weight * n[v] - value * k);
                }
                if constexpr (Gate == kNoGate)
                {
                    f32 more[kEach];
                    if (args.dsum)
                    {
                        wordsSum.open(more, i);
                        #pragma unroll
                        for (int v = 0; v < kEach; v++) u[v] += more[v];
                    }
                    if (isAdded)
                    {
                        wordsAdded.open(more, i);
                        #pragma unroll
                        for (int v = 0; v < kEach; v++)
                        {
                            meets = fmaf(u[v], more[v], meets);
                            more[v] = u[v] * factor;
                        }
                        wordsAdded.close(i, more);
                    }
                }
                wordsX.close(i, u);
                if constexpr (Gate != kNoGate) wordsZ.close(i, g);
            }
            wordsX.store(args.dx + r * args.D + first + d);
            if constexpr (Gate != kNoGate) wordsZ.store(args.dz + r * args.dzStride + first + d);
            if (isAdded) wordsAdded.store(args.dadded + r * args.D + d);
        }
        if (!isAdded) continue;
        meets = block_sum(meets, sPartial);
        if (threadIdx.x == 0) args.dsquares[r] = meets * (-0.5f * factor * factor * factor / args.count);
    }
    for (int first = 0; first < args.D; first += args.N)
        for (int d = threadIdx.x * V; d < args.N; d += blockDim.x * V)
        {
            f32 w[V];
            FloatRow{sWeight + first, args.N}.load(w, d);
            store<V>(args.partial + (i64)blockIdx.x * args.D + first + d, w);
        }
}
