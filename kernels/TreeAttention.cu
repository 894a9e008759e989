// TreeAttention.cu
//
// Computes   lse[r] = ln Σᵢ exp(lseᵢ[r]),  o[r,p] = Σᵢ wᵢ[r]·oᵢ[r,p] with wᵢ[r] = exp(lseᵢ[r] − lse[r]); parts with lseᵢ[r] = −∞ count for nothing.
//            doᵢ[r,p] = wᵢ[r]·do[r,p],  dlseᵢ[r] = wᵢ[r]·(Σ_p do[r,p]·(oᵢ[r,p] − o[r,p]) + dlse[r])
// Source     Shyam et al. 2024, arXiv:2408.04093, section 4; the merge: Rabe and Staats 2021, arXiv:2112.05682.
// Method     a group of lanes owns a row, V neighbouring elements to a lane; every lane works out the weights of all parts for itself, because they
//            wait for memory anyway. backward: the lanes of a row add up the dot product by shuffles.
// Layout     oᵢ, o, do, doᵢ [R, P]; lseᵢ, lse, dlse, dlseᵢ [R] float; R rows of a token and head. dlse may be null. Rows of oᵢ are `step` elements apart, and
//            of lseᵢ lseStep, as where both stand in one tensor that was exchanged; all others are dense.
// Launch     grid ceil(R·lanes / 128), block 128; lanes a power of two up to 32. No shared memory.
// Traffic    forward reads parts·R·P elements (none of an empty part) and for every lane the parts' lse twice, from the cache but for once; writes R·P elements
//            and R floats. backward reads (parts + 2)·R·P elements where a row fits its lanes, else o and do again for each part, from the cache; writes
//            parts·R·P elements and parts·R floats.
// Precision  loads T, computes and accumulates f32 in the order of the parts, stores T. No exponent is positive. Deterministic: no atomics.
// Limits     at most 64 parts. isWide: P, step and all addresses are multiples of 16 bytes.
// Variants   merge_attention_forward<{f32|bf16|f16}, {true|false}>; merge_attention_backward<{f32|bf16|f16}, {true|false}>
#include "common/Copy.cuh"
#include "common/Warp.cuh"

constexpr int kThreads = 128;
constexpr int kMaxParts = 64;

template <typename T>
struct MergeArgs                                              // mirrored in CudaTreeAttention.cs, field for field
{
    const T* partO[kMaxParts]; const f32* partLse[kMaxParts];
    T* o; f32* lse;
    i64 R, step, lseStep;
    i32 P, parts, lanes, unused;
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kThreads, 8) merge_attention_forward(const MergeArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    const i64 r = ((i64)blockIdx.x * kThreads + threadIdx.x) / args.lanes;
    const int lane = threadIdx.x % args.lanes;
    if (r >= args.R) return;
    f32 most = -kInfinity;
    for (int i = 0; i < args.parts; i++) most = fmaxf(most, args.partLse[i][r * args.lseStep]);
    for (int p = lane * V; p < args.P || p == lane * V; p += args.lanes * V)
    {
        f32 value[V] = {}, sum = 0;
        for (int i = 0; i < args.parts; i++)
        {
            const f32 own = args.partLse[i][r * args.lseStep];
            if (own == -kInfinity) continue;
            const f32 share = expf(own - most);
            sum += share;
            if (share == 0 || p >= args.P) continue;
            f32 o[V];
            load<V>(o, args.partO[i] + r * args.step + p);
            #pragma unroll
            for (int v = 0; v < V; v++) value[v] = fmaf(share, o[v], value[v]);
        }
        if (p == 0) args.lse[r] = most == -kInfinity ? most : most + logf(sum);
        if (p >= args.P) break;
        const f32 scale = sum == 0 ? 0.0f : 1.0f / sum;
        #pragma unroll
        for (int v = 0; v < V; v++) value[v] *= scale;
        store<V>(args.o + r * args.P + p, value);
    }
}

template <typename T>
struct MergeBackwardArgs                                      // mirrored in CudaTreeAttention.cs, field for field
{
    const T* partO[kMaxParts]; const f32* partLse[kMaxParts];
    T* dPartO[kMaxParts]; f32* dPartLse[kMaxParts];
    const T* o; const f32* lse; const T* dO; const f32* dLse;
    i64 R, step, lseStep;
    i32 P, parts, lanes, unused;
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kThreads, 8) merge_attention_backward(const MergeBackwardArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    const i64 row = ((i64)blockIdx.x * kThreads + threadIdx.x) / args.lanes;
    const int lane = threadIdx.x % args.lanes;
    const bool isActive = row < args.R, isHeld = args.P <= args.lanes * V;
    const i64 r = isActive ? row : args.R - 1;                // idle lanes stay for the shuffles
    const f32 lse = args.lse[r], dLse = args.dLse ? args.dLse[r] : 0.0f;
    f32 d[V] = {}, all[V] = {};
    if (isHeld && lane * V < args.P)
    {
        load<V>(d, args.dO + r * args.P + lane * V);
        load<V>(all, args.o + r * args.P + lane * V);
    }
    for (int i = 0; i < args.parts; i++)
    {
        const f32 own = args.partLse[i][r * args.lseStep], share = own == -kInfinity ? 0.0f : expf(own - lse);
        f32 dot = 0;
        for (int p = lane * V; p < args.P; p += args.lanes * V)
        {
            const i64 at = r * args.P + p;
            f32 o[V], to[V];
            load<V>(o, args.partO[i] + r * args.step + p);
            if (!isHeld)
            {
                load<V>(d, args.dO + at);
                load<V>(all, args.o + at);
            }
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                dot = fmaf(d[v], o[v] - all[v], dot);
                to[v] = share * d[v];
            }
            if (isActive) store<V>(args.dPartO[i] + at, to);
        }
        for (int distance = args.lanes / 2; distance > 0; distance /= 2) dot += __shfl_xor_sync(kAllLanes, dot, distance);
        if (isActive && lane == 0) args.dPartLse[i][r] = share * (dot + dLse);
    }
}
