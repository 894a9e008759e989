// GroupedExperts.cu
//
// Computes   y[t] = Σ_k w[t,k]·down_e·a, a = f(gate_e·x[t]) ⊙ (up_e·x[t]) or f(up_e·x[t]), e = experts[t,k], summed in the order of k; and the gradients:
//            da = downᵀ_e·dy[t], dw[t,k] = a·da, dh = the gradient of w·da before the activation, dx[t] = Σ_k upᵀ_e·dh,
//            dup_e = Σ dh·x[t]ᵀ, ddown_e = Σ dy[t]·(w·a)ᵀ over the tokens and slots of e.
// Source     Jiang et al. 2024, arXiv:2401.04088, section 2.1; grouped products: Gale et al. 2022, arXiv:2211.15841, section 5.
// Method     experts_sort gives every token and slot (a pair) a row, rows in the order of experts and then of pairs: a block counts for its expert, and walks
//            the pairs again with ballots. Products are tiles of 64 × 64 over the rows of one expert; tokens are gathered on
//            load: on the tensor cores by cp.async, two slices of 32 of the inner axis ahead of the one that is multiplied. Tile i belongs to
//            the expert e with begin[e] / 64 + e ≤ i: these starts leave room for every expert's last, unfilled tile, and need no table.
// Layout     x, y, dy, dx [T, D]; experts, weights, dweights [T, K]; up [E, J, D], J = 2·F with a gate (its rows first), else F; down [E, D, F]; hidden, dhidden
//            [rows, J]; activated, dactivated [rows, F]; begin [E + 1], pairs [rows], places [T, K] i32, -1 for experts without weights; dup, ddown float.
// Launch     experts_sort grid E + 1, block 1024; experts_multiply grid (T·K / 64 + E + 1)·ceil(N / 64) (columns in halves of 32 with a gate), experts_weights
//            grid E·ceil(M / 64)·ceil(N / 64), block 128, static shared memory 27 to 30 KiB on the tensor cores, else 17 KiB; experts_activation_backward grid T·K, block 128;
//            experts_combine grid up to 8 blocks a multiprocessor, block 256.
// Traffic    experts_sort reads 8·(E + 1)·T·K bytes, from the cache but for once, writes 8·T·K; a product reads each operand once for every tile it meets, so
//            rows·K·ceil(N / 64) and N·K·ceil(rows / 64) elements; experts_activation_backward reads rows·(J + F), writes rows·(J + F) elements;
//            experts_combine reads rows·D, writes T·D elements.
// Precision  16-bit rows with weights of their type multiply on the tensor cores, all others in f32; sums in f32; rows between the products in T.
//            Deterministic: no atomics, fixed order of sums.
// Limits     T·K + 64·E < 2³¹. A routing that names an expert outside 0 … E + skipped − 1 is a trap.
// Variants   experts_sort; experts_multiply<{f32|bf16|f16}, f32, {true|false}>; experts_multiply<bf16, bf16, {true|false}>; experts_multiply<f16, f16, {true|false}>;
//            experts_weights<{f32|bf16|f16}>; experts_activation_backward<{f32|bf16|f16}>; experts_combine<{f32|bf16|f16}>
#include "common/Block.cuh"
#include "common/Copy.cuh"
#include "common/ExpertTile.cuh"
#include "common/Pointwise.cuh"

constexpr int kSortThreads = 1024;
constexpr int kThreads = 256;
constexpr int kRowThreads = 128;

struct ExpertsSortArgs                                        // mirrored in CudaGroupedExperts.cs, field for field
{
    const i32* experts; i32* begin; i32* pairs; i32* places;
    i32 count, E, skipped, unused;
};

__global__ void __launch_bounds__(kSortThreads) experts_sort(const ExpertsSortArgs args)
{
    constexpr int kWarps = kSortThreads / kWarp;
    __shared__ i32 sBelow[kWarps], sOwn[kWarps];
    const int own = blockIdx.x, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int share = (args.count + kSortThreads - 1) / kSortThreads * kWarp;   // each warp's pairs stand side by side
    const int first = min((i64)args.count, (i64)warp * share), last = min((i64)args.count, (i64)first + share);
    i32 below = 0, mine = 0;
    for (int i = first + lane; i < last; i += kWarp)
    {
        const int e = args.experts[i];
        if (e < 0 || e >= args.E + args.skipped) asm volatile("trap;");
        below += e < own;
        mine += e == own;
        if (own == args.E && e >= own) args.places[i] = -1;   // the block after the last expert's sees to those without weights
    }
    #pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2)
    {
        below += __shfl_xor_sync(kAllLanes, below, distance);
        mine += __shfl_xor_sync(kAllLanes, mine, distance);
    }
    if (lane == 0)
    {
        sBelow[warp] = below;
        sOwn[warp] = mine;
    }
    __syncthreads();                                          // the counts of all warps are there
    i32 row = 0;
    for (int w = 0; w < kWarps; w++) row += sBelow[w] + (w < warp ? sOwn[w] : 0);
    if (threadIdx.x == 0) args.begin[own] = row;
    if (own == args.E) return;
    for (int i = first + lane; i - lane < last; i += kWarp)
    {
        const bool isOwn = i < last && args.experts[i] == own;
        const u32 lanes = __ballot_sync(kAllLanes, isOwn);
        if (isOwn)
        {
            const i32 place = row + __popc(lanes & ((1u << lane) - 1));
            args.pairs[place] = i;
            args.places[i] = place;
        }
        row += __popc(lanes);
    }
}

template <typename T>
struct ExpertsMultiplyArgs                                    // mirrored in CudaGroupedExperts.cs, field for field
{
    const T* a; const void* b; T* c; T* activated; const i32* begin; const i32* pairs;
    i64 depth, bExpert, bStride;                              // bExpert: elements of an expert's matrix
    i32 N, F, E, slots, isGathered, isGated, bType, isAWide, isBWide, function;
};

// C = A·Bᵀ, or A·B where B's rows run across the contracted dimension. With activated the sums are a hidden layer, and its activation is written too.
template <typename T, typename S, bool isBAcross>
__global__ void __launch_bounds__(kTileThreads) experts_multiply(const ExpertsMultiplyArgs<T> args)
{
    typedef Tile<S, false, isBAcross> Product;
    __shared__ __align__(16) u8 sMemory[Product::kBytes];
    const int span = args.isGated ? kTile / 2 : kTile, columns = args.isGated ? args.F : args.N, columnTiles = (columns + span - 1) / span;
    const int tile = blockIdx.x / columnTiles, firstColumn = blockIdx.x % columnTiles * span;
    int e = 0;
    for (int high = args.E - 1; e < high;)                    // the last expert whose tiles begin here or before
    {
        const int middle = (e + high + 1) / 2;
        if (args.begin[middle] / kTile + middle <= tile) e = middle;
        else high = middle - 1;
    }
    const i64 firstRow = args.begin[e] + (i64)(tile - args.begin[e] / kTile - e) * kTile;
    const int rows = (int)min((i64)kTile, args.begin[e + 1] - firstRow);
    if (rows <= 0) return;

    TileSource a, b;
    a.data = args.a;
    a.pairs = args.isGathered ? args.pairs : nullptr;
    a.first = firstRow;
    a.rows = rows;
    a.columns = a.stride = args.depth;
    a.slots = args.slots;
    a.span = b.span = kNoSpan;
    a.isWide = args.isAWide;
    a.jump = b.jump = 0;
    b.pairs = nullptr;
    b.slots = 1;
    b.isWide = args.isBWide;
    b.stride = args.bStride;
    const i64 bFirst = e * args.bExpert;
    const int bSize = args.bType == kTileF32 ? 4 : 2;
    if (isBAcross)
    {
        b.data = static_cast<const u8*>(args.b) + (bFirst + firstColumn) * bSize;
        b.first = 0;
        b.rows = args.depth;
        b.columns = columns - firstColumn;
    }
    else
    {
        b.data = static_cast<const u8*>(args.b) + bFirst * bSize;
        b.first = firstColumn;
        b.rows = min(span, columns - firstColumn);
        b.columns = args.depth;
        if (args.isGated)
        {
            b.span = span;
            b.jump = args.F;
        }
    }
    Product::multiply(sMemory, a, tile_type(T{}), b, args.bType, args.depth);

    const f32* sSums = reinterpret_cast<const f32*>(sMemory);
    const int width = min(span, columns - firstColumn);
    for (int i = threadIdx.x; i < rows * span; i += kTileThreads)
    {
        const int m = i / span, n = i % span;
        if (n >= width) continue;
        const i64 row = firstRow + m;
        const f32 first = sSums[m * kSumPitch + n];
        const T stored = from_f32<T>(first);
        args.c[row * args.N + firstColumn + n] = stored;
        f32 value = args.activated ? pointwise(args.function, to_f32(stored)) : 0;
        if (args.isGated)
        {
            const T up = from_f32<T>(sSums[m * kSumPitch + span + n]);
            args.c[row * args.N + args.F + firstColumn + n] = up;
            value *= to_f32(up);
        }
        if (args.activated) args.activated[row * args.F + firstColumn + n] = from_f32<T>(value);
    }
}

template <typename T>
struct ExpertsWeightsArgs                                     // mirrored in CudaGroupedExperts.cs, field for field
{
    const T* a; const T* b; f32* c; const i32* begin; const i32* pairs;
    i32 M, N, slots, isAGathered, isBGathered, isAWide, isBWide, unused;
};

// C_e = Σ over the rows of e of a's row times b's row: [M, N].
template <typename T>
__global__ void __launch_bounds__(kTileThreads) experts_weights(const ExpertsWeightsArgs<T> args)
{
    typedef Tile<T, true, true> Product;
    __shared__ __align__(16) u8 sMemory[Product::kBytes];
    const int tilesN = (args.N + kTile - 1) / kTile, tilesM = (args.M + kTile - 1) / kTile;
    const int e = blockIdx.x / (tilesM * tilesN), m0 = blockIdx.x / tilesN % tilesM * kTile, n0 = blockIdx.x % tilesN * kTile;
    TileSource a, b;
    a.data = args.a + m0;
    b.data = args.b + n0;
    a.pairs = args.isAGathered ? args.pairs : nullptr;
    b.pairs = args.isBGathered ? args.pairs : nullptr;
    a.first = b.first = args.begin[e];
    a.rows = b.rows = args.begin[e + 1] - args.begin[e];
    a.columns = args.M - m0;
    b.columns = args.N - n0;
    a.stride = args.M;
    b.stride = args.N;
    a.slots = b.slots = args.slots;
    a.span = b.span = kNoSpan;
    a.jump = b.jump = 0;
    a.isWide = args.isAWide;
    b.isWide = args.isBWide;
    Product::multiply(sMemory, a, kTileF32, b, kTileF32, a.rows);
    const f32* sSums = reinterpret_cast<const f32*>(sMemory);
    for (int i = threadIdx.x; i < kTile * kTile; i += kTileThreads)
    {
        const int m = i / kTile, n = i % kTile;
        if (m < a.columns && n < b.columns) args.c[((i64)e * args.M + m0 + m) * args.N + n0 + n] = sSums[m * kSumPitch + n];
    }
}

template <typename T>
struct ExpertsActivationArgs                                  // mirrored in CudaGroupedExperts.cs, field for field
{
    const T* hidden; const T* dActivated; const f32* weights; const i32* places;
    T* activated; T* dHidden; f32* dWeights;                  // activated is written times the weight
    i32 F, isGated, function, unused;
};

template <typename T>
__global__ void __launch_bounds__(kRowThreads) experts_activation_backward(const ExpertsActivationArgs<T> args)
{
    __shared__ f32 sPartial[kRowThreads / kWarp];
    const i64 pair = blockIdx.x, row = args.places[pair], J = args.isGated ? 2 * args.F : args.F;
    f32 dWeight = 0;
    if (row >= 0)
    {
        const f32 weight = args.weights[pair];
        for (int f = threadIdx.x; f < args.F; f += kRowThreads)
        {
            const f32 x = to_f32(args.hidden[row * J + f]), up = args.isGated ? to_f32(args.hidden[row * J + args.F + f]) : 1.0f;
            const f32 own = pointwise(args.function, x), value = own * up, d = to_f32(args.dActivated[row * args.F + f]);
            dWeight = fmaf(value, d, dWeight);
            args.activated[row * args.F + f] = from_f32<T>(weight * value);
            args.dHidden[row * J + f] = from_f32<T>(weight * d * up * pointwise_slope(args.function, x));
            if (args.isGated) args.dHidden[row * J + args.F + f] = from_f32<T>(weight * d * own);
        }
    }
    dWeight = block_sum(dWeight, sPartial);
    if (threadIdx.x == 0) args.dWeights[pair] = dWeight;
}

template <typename T>
struct ExpertsCombineArgs                                     // mirrored in CudaGroupedExperts.cs, field for field
{
    const T* rows; const f32* weights; const i32* places; T* y;
    i64 n;
    i32 D, slots, isWide, unused;
};

template <int V, typename T>
__device__ inline void combine(const ExpertsCombineArgs<T>& args, i64 i)
{
    const i64 token = i / args.D;
    f32 sum[V] = {};
    #pragma unroll 2
    for (i64 pair = token * args.slots; pair < (token + 1) * args.slots; pair++)
    {
        const i64 row = args.places[pair];
        if (row < 0) continue;
        const f32 weight = args.weights ? args.weights[pair] : 1.0f;
        f32 value[V];
        load<V>(value, args.rows + row * args.D + (i - token * args.D));
        #pragma unroll
        for (int v = 0; v < V; v++) sum[v] = fmaf(weight, value[v], sum[v]);
    }
    store<V>(args.y + i, sum);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) experts_combine(const ExpertsCombineArgs<T> args)
{
    constexpr int V = kVector<T, true>;
    const i64 thread = (i64)blockIdx.x * kThreads + threadIdx.x, threads = (i64)gridDim.x * kThreads;
    if (args.isWide)
        for (i64 i = thread * V; i < args.n; i += threads * V) combine<V>(args, i);
    else
        for (i64 i = thread; i < args.n; i += threads) combine<1>(args, i);
}
