// Route.cu
//
// Computes   score[t,e] = softmax or sigmoid of logits[t,e]; experts[t,k] = the K experts of the largest score + bias, best first, of equals the lower;
//            weights[t,k] = scale·score[t,experts[t,k]] / Σ_k score[t,experts[t,k]] (or without the division); load[e] = tokens that chose e, by the
//            tokens; aux = E·Σ_e load[e]·mean_t score[t,e]; z = mean_t lse[t]². backward: the gradient of all of them with respect to the logits.
// Source     Shazeer et al. 2017, arXiv:1701.06538; losses: Fedus et al. 2021, arXiv:2101.03961, section 2.2, and Zoph et al. 2022, arXiv:2202.08906, section 3.
// Method     a warp takes a token, its lanes the experts lane, lane + 32, …; each of K rounds finds the largest key below the last one, a key being the
//            order of the score and the expert counted downward. Each warp sums in shared memory, blocks leave partial sums, route_losses adds them in order.
// Layout     logits, dlogits [tokens, E]; experts, weights, dweights [tokens, K]; load, bias [E] float; partial [P, 2·E + 1] double.
// Launch     route_forward grid P, W warps of 32, dynamic shared memory 20·W·E + 8·W bytes; route_losses one block of 256; route_backward grid
//            ceil(tokens / W), dynamic shared memory 16·W·E bytes. Static shared memory 64 bytes.
// Traffic    forward reads tokens·E elements (again from the cache), writes 8·tokens·K bytes (4 with given experts) and 8·P·(2·E + 1); route_losses reads
//            the latter, writes 4·E + 8. backward reads tokens·E elements, 8·tokens·K bytes and load, writes tokens·E elements.
// Precision  scores in double, chosen by their float values; sums in double. Deterministic: no atomics, fixed order of additions. NaN is chosen last.
// Limits     a warp's share of shared memory fits a block. A given expert outside 0 … E − 1 is a trap.
// Variants   route_forward<{f32|bf16|f16}>; route_losses; route_backward<{f32|bf16|f16}>
#include "common/Block.cuh"
#include "common/Order.cuh"

constexpr int kThreads = 256;

template <typename T>
struct RouteArgs                                              // mirrored in CudaRoute.cs, field for field
{
    const T* logits; const f32* bias; i32* experts; f32* weights; f64* partial;
    const f32* load; const f32* dWeights; const f32* dAuxLoss; const f32* dZLoss; T* dLogits;
    i64 tokens, tokensPerBlock;
    i32 E, K, isGiven, isSigmoid, isNormalized;
    f32 scale;
};

// Only so that weights whose scores all underflow are 0 rather than 0 / 0.
constexpr f64 kLeastScoreSum = 1e-20;

// Writes a token's scores; every lane receives the log-sum-exp of its logits. A warp works together.
template <typename T>
__device__ inline f64 scores_of(const RouteArgs<T>& args, const T* logits, f64* sScores)
{
    const int lane = threadIdx.x % kWarp;
    f32 most = -kInfinity;
    for (int e = lane; e < args.E; e += kWarp) most = fmaxf(most, to_f32(logits[e]));
    most = warp_max(most);
    f64 sum = 0;
    for (int e = lane; e < args.E; e += kWarp)
    {
        const f64 x = to_f32(logits[e]), power = exp(x - most);
        sum += power;
        sScores[e] = args.isSigmoid ? 1 / (1 + exp(-x)) : power;
    }
    sum = warp_sum(sum);
    if (!args.isSigmoid)
        for (int e = lane; e < args.E; e += kWarp) sScores[e] /= sum;
    __syncwarp();                                             // the scores of all lanes are there
    return most + log(sum);
}

template <typename T>
__device__ inline int expert_of(const RouteArgs<T>& args, i64 token, int k)
{
    const int e = args.experts[token * args.K + k];
    if (e < 0 || e >= args.E) asm volatile("trap;");
    return e;
}

template <typename T>
__device__ inline f64 divisor_of(const RouteArgs<T>& args, i64 token, const f64* sScores)
{
    if (!args.isNormalized) return 1;
    f64 sum = kLeastScoreSum;
    for (int k = 0; k < args.K; k++) sum += sScores[expert_of(args, token, k)];
    return sum;
}

template <typename T>
__device__ inline void choose(const RouteArgs<T>& args, i64 token, const f64* sScores)
{
    const int lane = threadIdx.x % kWarp;
    u64 last = ~0ull;
    for (int k = 0; k < args.K; k++)
    {
        u64 best = 0;
        for (int e = lane; e < args.E; e += kWarp)
        {
            const f32 score = (f32)sScores[e] + (args.bias ? args.bias[e] : 0.0f) + 0.0f;
            const u64 key = (u64)(score != score ? 0u : order_of(score)) << 32 | (u32)~e;
            if (key < last && key > best) best = key;
        }
        #pragma unroll
        for (int distance = kWarp / 2; distance > 0; distance /= 2)
        {
            const u64 other = __shfl_xor_sync(kAllLanes, best, distance);
            if (other > best) best = other;
        }
        last = best;
        if (lane == 0) args.experts[token * args.K + k] = (i32)~(u32)best;
    }
    __syncwarp();                                             // the chosen experts are there for all lanes
}

template <typename T>
__global__ void __launch_bounds__(kThreads) route_forward(const RouteArgs<T> args)
{
    extern __shared__ __align__(16) f64 sMemory[];
    const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, E = args.E;
    f64* sAllSums = sMemory;                                  // [W, E]
    f64* sScores = sMemory + (warps + warp) * E;              // [E] of this warp
    f64* sSquares = sMemory + 2 * warps * E;                  // [W]
    u32* sAllCounts = reinterpret_cast<u32*>(sSquares + warps);
    f64* sSums = sAllSums + warp * E;
    u32* sCounts = sAllCounts + warp * E;
    for (int e = lane; e < E; e += kWarp)
    {
        sSums[e] = 0;
        sCounts[e] = 0;
    }
    f64 squares = 0;
    const i64 begin = blockIdx.x * args.tokensPerBlock, end = min(args.tokens, begin + args.tokensPerBlock);
    for (i64 token = begin + warp; token < end; token += warps)
    {
        const f64 lse = scores_of(args, args.logits + token * E, sScores);
        squares += lse * lse;
        for (int e = lane; e < E; e += kWarp) sSums[e] += sScores[e];
        if (!args.isGiven) choose(args, token, sScores);
        const f64 divisor = divisor_of(args, token, sScores);
        for (int k = 0; k < args.K; k++)
        {
            const int e = expert_of(args, token, k);
            if (e % kWarp == lane) sCounts[e]++;
            if (k % kWarp == lane) args.weights[token * args.K + k] = (f32)(sScores[e] / divisor * args.scale);
        }
        __syncwarp();                                         // all lanes have read the scores, which the next token overwrites
    }
    if (lane == 0) sSquares[warp] = squares;
    __syncthreads();                                          // the sums of all warps are there
    f64* partial = args.partial + (i64)blockIdx.x * (2 * E + 1);
    for (int e = threadIdx.x; e < E; e += blockDim.x)
    {
        f64 sum = 0, count = 0;
        for (int w = 0; w < warps; w++)
        {
            sum += sAllSums[w * E + e];
            count += sAllCounts[w * E + e];
        }
        partial[e] = sum;
        partial[E + e] = count;
    }
    if (threadIdx.x != 0) return;
    squares = 0;
    for (int w = 0; w < warps; w++) squares += sSquares[w];
    partial[2 * E] = squares;
}

struct RouteLossesArgs                                        // mirrored in CudaRoute.cs, field for field
{
    const f64* partial; f32* load; f32* auxLoss; f32* zLoss;
    i64 tokens;
    i32 E, P;
};

__global__ void __launch_bounds__(kThreads) route_losses(const RouteLossesArgs args)
{
    __shared__ f64 sPartial[kThreads / kWarp];
    const int width = 2 * args.E + 1;
    const f64 tokens = args.tokens > 0 ? args.tokens : 1;
    f64 balance = 0, squares = 0;
    for (int e = threadIdx.x; e < args.E; e += kThreads)
    {
        f64 score = 0, count = 0;
        #pragma unroll 8
        for (int p = 0; p < args.P; p++)
        {
            score += args.partial[(i64)p * width + e];
            count += args.partial[(i64)p * width + args.E + e];
        }
        args.load[e] = (f32)(count / tokens);
        balance += count / tokens * (score / tokens);
    }
    for (int p = threadIdx.x; p < args.P; p += kThreads) squares += args.partial[(i64)p * width + 2 * args.E];
    balance = block_sum(balance, sPartial);
    squares = block_sum(squares, sPartial);
    if (threadIdx.x != 0) return;
    *args.auxLoss = (f32)(args.E * balance);
    *args.zLoss = (f32)(squares / tokens);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) route_backward(const RouteArgs<T> args)
{
    extern __shared__ __align__(16) f64 sMemory[];
    const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, E = args.E;
    f64* sScores = sMemory + 2 * warp * E;                    // [E]
    f64* sD = sScores + E;                                    // [E] gradients of the scores; a lane touches its own experts alone
    const i64 token = (i64)blockIdx.x * warps + warp;
    if (token >= args.tokens) return;
    const f64 dAux = args.dAuxLoss ? (f64)*args.dAuxLoss * E / args.tokens : 0, dZ = args.dZLoss ? (f64)*args.dZLoss * 2 / args.tokens : 0;
    const f64 lse = scores_of(args, args.logits + token * E, sScores);
    for (int e = lane; e < E; e += kWarp) sD[e] = dAux * args.load[e];
    if (args.dWeights)
    {
        const f32* d = args.dWeights + token * args.K;
        const f64 divisor = divisor_of(args, token, sScores);
        f64 shared = 0;
        if (args.isNormalized)
            for (int k = 0; k < args.K; k++) shared += d[k] * sScores[expert_of(args, token, k)] / divisor;
        for (int k = 0; k < args.K; k++)
        {
            const int e = expert_of(args, token, k);
            if (e % kWarp == lane) sD[e] += (d[k] - shared) / divisor * args.scale;
        }
    }
    f64 dot = 0;
    for (int e = lane; e < E; e += kWarp) dot += sD[e] * sScores[e];
    dot = warp_sum(dot);
    for (int e = lane; e < E; e += kWarp)
    {
        const f64 score = sScores[e], softmax = args.isSigmoid ? exp((f64)to_f32(args.logits[token * E + e]) - lse) : score;
        const f64 own = args.isSigmoid ? sD[e] * score * (1 - score) : (sD[e] - dot) * score;
        args.dLogits[token * E + e] = from_f32<T>((f32)(own + dZ * lse * softmax));
    }
}
