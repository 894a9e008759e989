// CrossEntropy.cu
//
// Computes   lse[r] = ln Σ_v exp(x[r,v]); loss = 1/n·Σ_r lse[r] − (1 − s)·x[r,target] − s·mean_v(x[r,v]) + z·lse[r]² over the n rows whose target is not
//            ignored; dx[r,v] = dloss/n·((1 + 2·z·lse[r])·p[r,v] − (1 − s)·[v = target] − s/V) with p[r,v] = exp(x[r,v] − lse[r]), 0 in ignored rows
// Source     label smoothing: Szegedy et al. 2015, arXiv:1512.00567, section 7; z-loss: Chowdhery et al. 2022, arXiv:2204.02311, section 5; the
//            largest logit and the sum in one pass: Milakov and Gimelshein 2018, arXiv:1805.02867.
// Method     cross_entropy_forward: a block per row reads it once; each thread keeps the largest logit so far and the sum of exponentials below it, the
//            block joins them in order. cross_entropy_mean: one block adds the rows' losses. cross_entropy_backward: blocks of kPieces groups a thread.
//            Groups of V logits stand on 16-byte boundaries, so that rows of any width and start are read in wide accesses; those at a row's ends go
//            element by element. Ignored rows are not read; their partition is 0.
// Layout     x [R, V] with rows xStride apart; targets [R] 32- or 64-bit integers; partition [R, 2] float: the largest logit, lse − the largest; losses [R]
//            float; loss, counted, dloss [] float; dx [R, V].
// Launch     cross_entropy_forward: grid R, block 32 to 256, whole warps, 32 bytes of static shared memory; cross_entropy_mean: one block of 1024, 256 bytes;
//            cross_entropy_backward: grid R·ceil(groups / (block·kPieces)), block 32 to 256.
// Traffic    forward reads R·V elements and R targets twice, writes 3·R floats and reads R of them; backward reads R·V elements, writes R·V.
// Precision  loads T, computes and accumulates f32, stores T. p − 1 of the target comes from expm1. Deterministic: no atomics, fixed order of additions.
// Limits     V < 2³¹. A target that is neither ignored nor a class stops the kernel.
// Variants   cross_entropy_forward<{f32|bf16|f16}>; cross_entropy_mean; cross_entropy_backward<{f32|bf16|f16}>
#include "common/Block.cuh"
#include "common/Copy.cuh"

constexpr int kMaxThreads = 256;
constexpr int kMeanThreads = 1024;
constexpr int kPieces = 4;
constexpr int kAhead = 2;                                     // groups under way at a time
constexpr f32 kLowest = -3.402823466e38f;                     // below it no number is: exp(−∞ − kLowest) is 0 where −∞ − −∞ would be NaN

struct Target { i64 v; bool isIgnored; };

__device__ inline Target target_at(const u8* targets, int isLong, i64 r, i64 ignored, i64 V)
{
    const i64 v = isLong ? reinterpret_cast<const i64*>(targets)[r] : reinterpret_cast<const i32*>(targets)[r];
    if (v != ignored && (u64)v >= (u64)V) trap();
    return {v, v == ignored};
}

// A row cut into groups of V elements at 16-byte boundaries: the first and last may reach beyond it.
template <typename T>
struct Groups
{
    static constexpr int V = 16 / sizeof(T);
    int shift, length, count;

    __device__ inline Groups(const T* row, int length) : shift((int)(reinterpret_cast<u64>(row) % 16 / sizeof(T))), length(length), count((shift + length + V - 1) / V) { }

    __device__ inline int begin(int group) const { return group * V - shift; }
    __device__ inline bool is_whole(int group) const { return begin(group) >= 0 && begin(group) + V <= length; }
    __device__ inline bool has(int at) const { return at >= 0 && at < length; }

    // Places outside the row become −∞.
    __device__ inline void load_group(f32 (&x)[V], const T* row, int group) const
    {
        if (is_whole(group))
        {
            load<V>(x, row + begin(group));
            return;
        }
        #pragma unroll
        for (int v = 0; v < V; v++) x[v] = has(begin(group) + v) ? to_f32(row[begin(group) + v]) : -kInfinity;
    }
};

template <typename T>
struct CrossEntropyArgs                                       // mirrored in CudaCrossEntropy.cs, field for field
{
    const T* x; const u8* targets;
    f32* partition; f32* losses;
    i64 xStride, ignored;
    i32 V, isLong;
    f32 smoothing, zLoss;
};

template <typename T>
__global__ void __launch_bounds__(kMaxThreads) cross_entropy_forward(const CrossEntropyArgs<T> args)
{
    constexpr int V = Groups<T>::V;
    __shared__ f32 sPartial[kMaxThreads / kWarp];
    const i64 r = blockIdx.x;
    const Target target = target_at(args.targets, args.isLong, r, args.ignored, args.V);
    if (target.isIgnored)
    {
        if (threadIdx.x == 0) args.partition[2 * r] = args.partition[2 * r + 1] = args.losses[r] = 0;
        return;
    }
    const T* x = args.x + r * args.xStride;                   // R·V may exceed 2³¹
    const Groups<T> groups(x, args.V);
    f32 most = kLowest, sum = 0, linear = 0;
    for (int first = threadIdx.x; first < groups.count; first += kAhead * blockDim.x)
    {
        f32 u[kAhead][V];
        #pragma unroll
        for (int a = 0; a < kAhead; a++)
            if (first + a * blockDim.x < groups.count) groups.load_group(u[a], x, first + a * blockDim.x);
        #pragma unroll
        for (int a = 0; a < kAhead; a++)
        {
            const int group = first + a * blockDim.x;
            if (group >= groups.count) break;
            f32 next = most, part = 0;
            #pragma unroll
            for (int v = 0; v < V; v++) next = fmaxf(next, u[a][v]);
            #pragma unroll
            for (int v = 0; v < V; v++) part += expf(u[a][v] - next);
            sum = next == most ? sum + part : fmaf(sum, expf(most - next), part);
            most = next;
            if (args.smoothing == 0) continue;
            part = 0;
            #pragma unroll
            for (int v = 0; v < V; v++) part += groups.has(groups.begin(group) + v) ? u[a][v] : 0.0f;
            linear += part;
        }
    }
    const f32 largest = block_max(most, sPartial);
    const f32 log = logf(block_sum(sum * expf(most - largest), sPartial));
    if (args.smoothing != 0) linear = block_sum(linear, sPartial);
    if (threadIdx.x != 0) return;
    args.partition[2 * r] = largest;
    args.partition[2 * r + 1] = log;
    const f32 lse = largest + log;
    // Differences from the largest logit first: lse itself is rounded with the size of the logits.
    f32 loss = (1 - args.smoothing) * (largest - to_f32(x[target.v]) + log);
    if (args.smoothing != 0) loss += args.smoothing * (largest - linear / args.V + log);
    if (args.zLoss != 0) loss += args.zLoss * lse * lse;
    args.losses[r] = loss;
}

struct CrossEntropyMeanArgs                                   // mirrored in CudaCrossEntropy.cs, field for field
{
    const f32* losses; const u8* targets;
    f32* loss; f32* counted;
    i64 R, ignored;
    i32 isLong;
};

__global__ void __launch_bounds__(kMeanThreads) cross_entropy_mean(const CrossEntropyMeanArgs args)
{
    __shared__ f32 sPartial[kMeanThreads / kWarp];
    __shared__ i64 sCounts[kMeanThreads / kWarp];
    f32 sum = 0;
    i64 count = 0;
    for (i64 r = threadIdx.x; r < args.R; r += kMeanThreads)
    {
        sum += args.losses[r];
        const i64 target = args.isLong ? reinterpret_cast<const i64*>(args.targets)[r] : reinterpret_cast<const i32*>(args.targets)[r];
        count += target != args.ignored;
    }
    // Counted as integers: a float cannot add one to 2²⁴.
    #pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) count += __shfl_xor_sync(kAllLanes, count, distance);
    if (threadIdx.x % kWarp == 0) sCounts[threadIdx.x / kWarp] = count;
    sum = block_sum(sum, sPartial);                           // its barriers stand between sCounts written and read
    if (threadIdx.x != 0) return;
    count = 0;
    for (int warp = 0; warp < kMeanThreads / kWarp; warp++) count += sCounts[warp];
    *args.loss = count == 0 ? 0.0f : sum / (f32)count;
    *args.counted = (f32)count;
}

template <typename T>
struct CrossEntropyBackwardArgs                               // mirrored in CudaCrossEntropy.cs, field for field
{
    const T* x; const u8* targets; const f32* partition; const f32* counted; const f32* dloss; T* dx;
    i64 xStride, ignored;
    i32 V, isLong, pieces;                                    // pieces: blocks of a row
    f32 smoothing, zLoss;
};

template <typename T>
__global__ void __launch_bounds__(kMaxThreads) cross_entropy_backward(const CrossEntropyBackwardArgs<T> args)
{
    constexpr int V = Groups<T>::V;
    const i64 r = blockIdx.x / args.pieces;
    const Target target = target_at(args.targets, args.isLong, r, args.ignored, args.V);
    const T* x = args.x + r * args.xStride;                   // R·V may exceed 2³¹
    T* dx = args.dx + r * args.V;
    const Groups<T> groups(x, args.V);
    const bool isWide = reinterpret_cast<u64>(dx - groups.shift) % 16 == 0;
    const f32 largest = args.partition[2 * r], log = args.partition[2 * r + 1];
    const f32 scale = target.isIgnored ? 0.0f : *args.dloss / *args.counted;
    const f32 pull = 2 * args.zLoss * (largest + log), weight = scale * (1 + pull), smooth = scale * args.smoothing / args.V;
    const int first = blockIdx.x % args.pieces * kPieces * blockDim.x + threadIdx.x;
    #pragma unroll
    for (int piece = 0; piece < kPieces; piece++)
    {
        const int group = first + piece * blockDim.x;
        if (group >= groups.count) return;
        const int begin = groups.begin(group);
        f32 u[V] = {};
        if (!target.isIgnored)
        {
            groups.load_group(u, x, group);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                const f32 below = u[v] - largest - log;       // u − largest is exact where it matters
                u[v] = expf(below) * weight - smooth;
                // The target's own p − 1 without the cancellation of two nearly equal numbers.
                if (begin + v == target.v) u[v] = scale * (expm1f(below) + pull * expf(below) + args.smoothing) - smooth;
            }
        }
        if (isWide && groups.is_whole(group))
        {
            store<V>(dx + begin, u);
            continue;
        }
        #pragma unroll
        for (int v = 0; v < V; v++)
            if (groups.has(begin + v)) dx[begin + v] = from_f32<T>(u[v]);
    }
}
