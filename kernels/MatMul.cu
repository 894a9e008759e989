// MatMul.cu
//
// Computes   s[m,n] = Σ_k a[m,k]·b[k,n] (+ bias[n]) and y = s, y = f(s) or y += s; kept = s where it is asked for. a and b may be stored transposed; a stack of
//            such products.
// Source     f: one of sigmoid, silu, gelu, gelu_tanh, relu, relu2 of src/ZEngine/Ops/Elementwise.cs; tiling: Goto and van de Geijn 2008; the tensor-core pipeline as NVIDIA's CUTLASS documents it (efficient_gemm).
// Method     matmul_half: a block owns kTile × kTile of y. Slices of 32 of the inner axis of a and b pass through kStages buffers of shared memory, filled
//            by cp.async while earlier ones are multiplied; ldmatrix (transposed where the storage is) feeds mma.m16n8k16. matmul_float: the same tile with float multiply-adds, or with
//            m16n8k8 after rounding to TF32; slices of 16. matmul_rows: a warp owns 4 columns of y for up to Rows rows, and its lanes walk the
//            inner axis; for the few rows of a decode step, which is bound by reading b. A tile of sums goes to y through shared memory as floats, 64 rows
//            at a time, where it is read in the order of y: bias and f, an argument, are worked out there. In matmul_rows a lane finishes a sum.
// Layout     a [M, K] or [K, M], b [K, N] or [N, K], y [M, N], rows aRow, bRow and yRow elements apart; bias [N] float. Products in two levels, as heads
//            of a batch: stacks aNext, bNext, yNext apart, of `inners` products aInner, bInner, yInner apart; kept lies as y does.
// Launch     matmul_half, matmul_float: grid products · ceil(M / kTile) · ceil(N / kTile), block 256 for kTile 128, 128 for 64 (matmul_float: 256); dynamic shared
//            memory 48 or 24 KiB (matmul_half; 64 rows of y, 34 or 18 KiB, take their place), static 34 or 18 KiB (matmul_float). matmul_rows: grid ceil(N / 32), block 256.
// Traffic    reads ceil(N / kTile)·M·K + ceil(M / kTile)·K·N elements, writes M·N, twice with kept; bias for every 4 or 8 rows from the cache; matmul_rows reads K·N once and rows of a from the cache for every 4 columns.
// Precision  loads T, accumulates f32 in ascending k within a slice, stores T; matmul_half also stores f32, the gradient of a parameter. TF32 only on
//            request. f is worked out from the sum as it is, before it is rounded. Deterministic: one block owns an element of y.
// Limits     matmul_half: addresses and distances of rows and products are multiples of 16 bytes (the host copies operands that are not, or of another
//            type, first). matmul_rows: b stored [N, K], M ≤ Rows, K a multiple of 8 where isWide.
// Variants   matmul_half<{bf16|f16}, {true|false}, {true|false}, {128|64}>; matmul_float<{f32|bf16|f16}, {128|64}, {true|false}>;
//            matmul_rows<f32, {f32|bf16|f16}, {1|8}>; matmul_rows<bf16, {bf16|f32}, {1|8}>; matmul_rows<f16, {f16|f32}, {1|8}>
#include "common/Copy.cuh"
#include "common/Mma.cuh"
#include "common/Pointwise.cuh"
#include "common/Warp.cuh"

struct MatMulArgs                                             // mirrored in CudaMatMul.cs, field for field
{
    const void* a; const void* b; const f32* bias; void* y; void* kept;
    i64 aRow, bRow, yRow, aNext, bNext, yNext, aInner, bInner, yInner;
    i32 M, N, K, inners, bRepeat, transposeA, transposeB, isAdding, aIsWide, bIsWide, yIsWide, yIsFloat, activation, biasIsWide;

    // Product p is number p % inners of stack p / inners; bRepeat neighbours of a stack share one b.
    __device__ inline i64 a_at(int product) const { return (i64)(product / inners) * aNext + product % inners * aInner; }
    __device__ inline i64 b_at(int product) const { return (i64)(product / inners) * bNext + product % inners / bRepeat * bInner; }
    __device__ inline i64 y_at(int product) const { return (i64)(product / inners) * yNext + product % inners * yInner; }
};

// The tile and the product of a block. Eight rows of tiles go together, so that blocks which run at the same time share operands in the L2 cache.
struct TilePlace
{
    int product, m, n;

    __device__ inline TilePlace(const MatMulArgs& args, int tile)
    {
        constexpr int kTogether = 8;
        const int rows = (args.M + tile - 1) / tile, columns = (args.N + tile - 1) / tile, tiles = rows * columns;
        product = blockIdx.x / tiles;
        const int at = blockIdx.x % tiles, group = at / (kTogether * columns), inGroup = at % (kTogether * columns);
        const int height = min(kTogether, rows - group * kTogether);
        m = (group * kTogether + inGroup % height) * tile;
        n = inGroup / height * tile;
    }
};

// ---- From sums to y -------------------------------------------------------------------------------------------------------------------------------

template <int Function, int V>
__device__ inline void apply(f32 (&x)[V])
{
    #pragma unroll
    for (int v = 0; v < V; v++) x[v] = pointwise(Function, x[v]);
}

// The function is the same for the whole grid: one branch for all neighbours.
template <int V>
__device__ inline void activate(f32 (&x)[V], int function)
{
    switch (function)
    {
        case kSigmoid: return apply<kSigmoid>(x);
        case kSilu: return apply<kSilu>(x);
        case kGelu: return apply<kGelu>(x);
        case kGeluTanh: return apply<kGeluTanh>(x);
        case kRelu: return apply<kRelu>(x);
        default: return apply<kRelu2>(x);
    }
}

template <int V, typename Y>
__device__ inline void put(Y* to, const f32 (&x)[V], int count, int isWide)
{
    if (isWide) store<V>(to, x);
    else
        #pragma unroll
        for (int v = 0; v < V; v++)
            if (v < count) to[v] = from_f32<Y>(x[v]);
}

template <int V>
__device__ inline void load_bias(f32 (&to)[V], const MatMulArgs& args, int n, int count)
{
    #pragma unroll
    for (int v = 0; v < V; v++) to[v] = 0;
    if (!args.bias) return;
    if (V >= 4 && args.biasIsWide && count >= V)
        #pragma unroll
        for (int v = 0; v < V; v += 4) load<4>(reinterpret_cast<f32 (&)[4]>(to[v]), args.bias + n + v);
    else
        #pragma unroll
        for (int v = 0; v < V; v++)
            if (v < count) to[v] = args.bias[n + v];
}

// V neighbours of a row of y, of which count exist: the sums, then what is added to them and what becomes of that. A float result of 16-bit operands,
// which is a gradient, has no activation.
template <bool hasActivation, int V, typename Y>
__device__ inline void finish(const MatMulArgs& args, f32 (&x)[V], const f32 (&bias)[V], i64 at, int count)
{
    Y* y = static_cast<Y*>(args.y) + at;
    if (args.bias)
        #pragma unroll
        for (int v = 0; v < V; v++) x[v] += bias[v];
    if (args.isAdding)
        #pragma unroll
        for (int v = 0; v < V; v++)
            if (v < count) x[v] += to_f32(y[v]);
    if constexpr (hasActivation)
    {
        if (args.kept) put(static_cast<Y*>(args.kept) + at, x, count, args.yIsWide);
        if (args.activation >= 0) activate(x, args.activation);
    }
    put(y, x, count, args.yIsWide);
}

// A tile goes through shared memory as floats, so that y is written in whole lines and what follows a sum is worked out once for each; in parts of
// kPartRows rows. Rows of the part are kTilePitch words apart: pairs of columns of four rows, as fragments have them, lie in different banks.
constexpr int kPartRows = 64;
template <int Tile> constexpr int kTilePitch = Tile + 8;

// Eight neighbours, four at a time; every other four lanes begin with the second four, so that eight lanes use all banks.
template <int V>
__device__ inline void take(f32 (&x)[V], const f32* from)
{
    if constexpr (V == 4) load<4>(x, from);
    else
    {
        const int first = threadIdx.x & 4;
        f32 a[4], b[4];
        load<4>(a, from + first);
        load<4>(b, from + 4 - first);
        #pragma unroll
        for (int v = 0; v < 4; v++)
        {
            x[v] = first ? b[v] : a[v];
            x[v + 4] = first ? a[v] : b[v];
        }
    }
}

template <typename Y, bool hasActivation, int Tile, int Threads>
__device__ inline void store_part(const MatMulArgs& args, const TilePlace& place, const f32* sTile, int first)
{
    constexpr int V = 16 / sizeof(Y), kAcross = Tile / V;
    const int n = place.n + threadIdx.x % kAcross * V, rows = min(kPartRows, args.M - place.m - first);
    if (n >= args.N) return;
    const i64 at = args.y_at(place.product) + n;
    f32 bias[V];
    load_bias(bias, args, n, args.N - n);
    #pragma unroll 1
    for (int m = threadIdx.x / kAcross; m < rows; m += Threads / kAcross)
    {
        f32 x[V];
        take(x, sTile + m * kTilePitch<Tile> + n - place.n);
        finish<hasActivation, V, Y>(args, x, bias, at + (i64)(place.m + first + m) * args.yRow, args.N - n);
    }
}

// ---- 16-bit operands on the tensor cores ---------------------------------------------------------------------------------------------------------

constexpr int kSlice = 32, kStages = 3;

// An operand of a product: Outer is its axis of M or N, the other is k. Stored with k innermost, or with the outer axis innermost.
template <typename T, int Tile, bool isInnerK>
struct HalfOperand
{
    static constexpr int kRows = isInnerK ? Tile : kSlice, kChunks = (isInnerK ? kSlice : Tile) / 8, kThreads = Tile * 2;
    static constexpr int kBytes = kRows * kChunks * 16;

    const T* from;                                            // the tile's first element at k = 0
    i64 rowStride;
    int rows, columns;                                        // that exist from the tile's start on

    // Starts loading the slice that begins at k.
    __device__ inline void load(u8* sTile, int k) const
    {
        #pragma unroll
        for (int part = 0; part < kRows * kChunks / kThreads; part++)
        {
            const int i = threadIdx.x + part * kThreads;
            const int r = i / kChunks, c = i % kChunks;
            const int row = isInnerK ? r : k + r, column = isInnerK ? k + c * 8 : c * 8;
            const int valid = row < rows ? max(0, min(8, columns - column)) : 0;
            const i64 at = (i64)row * rowStride + column;
            copy_async(shared_address(sTile) + swizzled<kChunks>(r, c) * 16, valid > 0 ? from + at : from, valid * 2);
        }
    }

    // Address of this lane's row for the four matrices that make 16 of the outer axis by 16 of k.
    template <bool isLeft>
    __device__ inline void fragment(u32 (&to)[4], const u8* sTile, int outer, int k) const
    {
        const int lane = threadIdx.x % kWarp, low = lane & 7, second = lane >> 3 & 1, third = lane >> 4;
        // The left operand takes its matrices in the order (outer, k), (outer + 8, k), (outer, k + 8), …; the right one in (k), (k + 8), (outer + 8).
        const int o = outer + 8 * (isLeft ? second : third), depth = k + 8 * (isLeft ? third : second);
        if (isInnerK) load_matrices(to, shared_address(sTile) + swizzled<kChunks>(o + low, depth / 8) * 16);
        else load_matrices_transposed(to, shared_address(sTile) + swizzled<kChunks>(depth + low, o / 8) * 16);
    }
};

// A warp owns kWarpRows × 32 of y.
template <int Tile> constexpr int kWarpRows = Tile / 2;
template <int Tile> __device__ inline int warp_row() { return threadIdx.x / kWarp / (Tile / 32) * kWarpRows<Tile>; }
template <int Tile> __device__ inline int warp_column() { return threadIdx.x / kWarp % (Tile / 32) * 32; }

// A warp's fragments of the accumulators, 16 × 8 of y each, from a row and a column of the part of the tile on.
template <int Tile, int R, int C>
__device__ inline void stash_fragments(f32* sTile, const f32 (&sum)[R][C][4], int row, int column)
{
    const int lane = threadIdx.x % kWarp;
    #pragma unroll
    for (int i = 0; i < R; i++)
    #pragma unroll
    for (int j = 0; j < C; j++)
    #pragma unroll
    for (int half = 0; half < 2; half++)
    {
        const f32 (&both)[2] = reinterpret_cast<const f32 (&)[2]>(sum[i][j][2 * half]);
        stash<2>(sTile + (row + 16 * i + 8 * half + lane / 4) * kTilePitch<Tile> + column + 8 * j + lane % 4 * 2, both);
    }
}

template <typename T, bool transposeA, bool transposeB, int Tile>
__global__ void __launch_bounds__(Tile * 2, 1) matmul_half(const MatMulArgs args)
{
    using Left = HalfOperand<T, Tile, !transposeA>;
    using Right = HalfOperand<T, Tile, transposeB>;
    constexpr int kStageBytes = Left::kBytes + Right::kBytes, kRowsOfTiles = kWarpRows<Tile> / 16;
    extern __shared__ __align__(16) u8 sStages[];             // kStages slices of a and b; afterwards a part of the tile of y
    const TilePlace place(args, Tile);
    const int warpM = warp_row<Tile>(), warpN = warp_column<Tile>(), restM = args.M - place.m, restN = args.N - place.n;

    const T* aTile = static_cast<const T*>(args.a) + args.a_at(place.product) + (transposeA ? place.m : (i64)place.m * args.aRow);
    const T* bTile = static_cast<const T*>(args.b) + args.b_at(place.product) + (transposeB ? (i64)place.n * args.bRow : place.n);
    const Left left = { aTile, args.aRow, transposeA ? args.K : restM, transposeA ? restM : args.K };
    const Right right = { bTile, args.bRow, transposeB ? restN : args.K, transposeB ? args.K : restN };
    const auto load_slice = [&](int slice)
    {
        u8* sLeft = sStages + slice % kStages * kStageBytes;
        left.load(sLeft, slice * kSlice);
        right.load(sLeft + Left::kBytes, slice * kSlice);
        copy_async_commit();
    };

    f32 sum[kRowsOfTiles][4][4] = {};
    const int slices = (args.K + kSlice - 1) / kSlice;
    for (int slice = 0; slice < kStages - 1; slice++) load_slice(slice);
    for (int slice = 0; slice < slices; slice++)
    {
        copy_async_wait<kStages - 2>();
        __syncthreads();                                      // all of this slice is there, and all have read the one whose buffer comes next
        load_slice(slice + kStages - 1);
        const u8* sLeft = sStages + slice % kStages * kStageBytes;
        #pragma unroll
        for (int k = 0; k < kSlice; k += 16)
        {
            u32 b[2][4], a[4];
            #pragma unroll
            for (int j = 0; j < 2; j++) right.template fragment<false>(b[j], sLeft + Left::kBytes, warpN + 16 * j, k);
            #pragma unroll
            for (int i = 0; i < kRowsOfTiles; i++)
            {
                left.template fragment<true>(a, sLeft, warpM + 16 * i, k);
                #pragma unroll
                for (int j = 0; j < 4; j++) mma_16x8x16<T>(sum[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }

    copy_async_wait<0>();
    f32* sTile = reinterpret_cast<f32*>(sStages);
    #pragma unroll 1
    for (int first = 0; first < Tile; first += kPartRows)
    {
        __syncthreads();                                      // nobody reads a slice, or the part before, any more
        if (warpM / kPartRows * kPartRows == first) stash_fragments<Tile>(sTile, sum, warpM - first, warpN);
        __syncthreads();                                      // the part is complete
        if (args.yIsFloat) store_part<f32, false, Tile, Tile * 2>(args, place, sTile, first);
        else store_part<T, true, Tile, Tile * 2>(args, place, sTile, first);
    }
}

// ---- Float operands ------------------------------------------------------------------------------------------------------------------------------

constexpr int kFloatThreads = 256, kFloatSlice = 16;

// A slice in registers on its way to shared memory, where it stands with the outer axis innermost, rows of kPitch. Columns are exchanged in
// eights by the row, so that four rows which are written or read together lie in different banks.
template <typename T, int Tile>
struct FloatOperand
{
    static constexpr int kPitch = Tile + 8, kEach = Tile * kFloatSlice / 4 / kFloatThreads;

    const T* from;
    i64 rowStride;
    int outer, depth, isWide;                                 // sizes that exist, from the tile's start
    bool isInnerK;
    f32 held[kEach][4];

    static __device__ inline int place(int k, int column) { return k * kPitch + (column ^ (k >> 2 & 3) << 3); }

    // The outer index and the k of group i of four elements: along k where that is innermost, else along the outer axis.
    __device__ inline void where(int i, int& o, int& k) const
    {
        const int at = threadIdx.x + i * kFloatThreads;
        if (isInnerK)
        {
            k = at / 8 % 4 * 4;
            o = at / 32 * 8 + at % 8;
        }
        else
        {
            o = at % (Tile / 4) * 4;
            k = at / (Tile / 4);
        }
    }

    __device__ inline void read(int slice)
    {
        #pragma unroll
        for (int i = 0; i < kEach; i++)
        {
            int o, k;
            where(i, o, k);
            const int first = slice * kFloatSlice + k, row = isInnerK ? o : first, column = isInnerK ? first : o;
            const int rows = isInnerK ? outer : depth, columns = isInnerK ? depth : outer;
            const T* at = from + (i64)row * rowStride + column;
            if (isWide && row < rows && column + 4 <= columns) ::load<4>(held[i], at);
            else
                #pragma unroll
                for (int v = 0; v < 4; v++) held[i][v] = row < rows && column + v < columns ? to_f32(at[v]) : 0.0f;
        }
    }

    template <bool isTf32>
    __device__ inline void write(f32* sTile) const
    {
        #pragma unroll
        for (int i = 0; i < kEach; i++)
        {
            int o, k;
            where(i, o, k);
            f32 value[4];
            #pragma unroll
            for (int v = 0; v < 4; v++) value[v] = isTf32 ? __uint_as_float(to_tf32(held[i][v])) : held[i][v];
            if (isInnerK)
                #pragma unroll
                for (int v = 0; v < 4; v++) sTile[place(k + v, o)] = value[v];
            else stash<4>(sTile + place(k, o), value);
        }
    }
};

template <typename TB, int Tile, bool isTf32>
__global__ void __launch_bounds__(kFloatThreads, Tile == 64 ? 3 : 1) matmul_float(const MatMulArgs args)
{
    using Left = FloatOperand<f32, Tile>;
    using Right = FloatOperand<TB, Tile>;
    constexpr int kEach = Tile / 16;                          // a thread owns kEach × kEach of y, in groups of four
    constexpr int kSliceFloats = kFloatSlice * (Tile + 8);
    __shared__ __align__(16) f32 sSlices[4 * kSliceFloats];   // two slices of a and of b; afterwards a part of the tile of y, as long
    const TilePlace place(args, Tile);
    const int restM = args.M - place.m, restN = args.N - place.n;
    Left left = { static_cast<const f32*>(args.a) + args.a_at(place.product) + (args.transposeA ? place.m : (i64)place.m * args.aRow), args.aRow, restM, args.K, args.aIsWide, !args.transposeA };
    Right right = { static_cast<const TB*>(args.b) + args.b_at(place.product) + (args.transposeB ? (i64)place.n * args.bRow : place.n), args.bRow, restN, args.K, args.bIsWide, (bool)args.transposeB };

    // Multiply-adds: rows ty·4 + 64·i, columns tx·4 + 64·j. Tensor cores: the warp's share as 16 × 8 tiles, in the same number of registers.
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    constexpr int kTilesM = Tile / 32, kTilesN = Tile / 32;   // per warp of 2 × 4: Tile / 2 rows, Tile / 4 columns
    const int warpM = warp / 4 * (Tile / 2), warpN = warp % 4 * (Tile / 4);
    f32 sum[kEach][kEach] = {};
    f32 (&tiles)[kTilesM][kTilesN][4] = reinterpret_cast<f32 (&)[kTilesM][kTilesN][4]>(sum);

    const int slices = (args.K + kFloatSlice - 1) / kFloatSlice;
    left.read(0);
    right.read(0);
    for (int slice = 0; slice < slices; slice++)
    {
        f32* sLeft = sSlices + slice % 2 * 2 * kSliceFloats;
        f32* sRight = sLeft + kSliceFloats;
        left.template write<isTf32>(sLeft);
        right.template write<isTf32>(sRight);
        __syncthreads();                                      // the slice is there; the other buffer was read by all before they came here
        if (slice + 1 < slices)
        {
            left.read(slice + 1);
            right.read(slice + 1);
        }
        if constexpr (isTf32)
        {
            #pragma unroll
            for (int k = 0; k < kFloatSlice; k += 8)
            {
                u32 a[4], b[kTilesN][2];
                const int t = k + lane % 4, g = lane / 4;
                #pragma unroll
                for (int j = 0; j < kTilesN; j++)
                    #pragma unroll
                    for (int half = 0; half < 2; half++) b[j][half] = __float_as_uint(sRight[Right::place(t + 4 * half, warpN + 8 * j + g)]);
                #pragma unroll
                for (int i = 0; i < kTilesM; i++)
                {
                    #pragma unroll
                    for (int part = 0; part < 4; part++) a[part] = __float_as_uint(sLeft[Left::place(t + part / 2 * 4, warpM + 16 * i + g + part % 2 * 8)]);
                    #pragma unroll
                    for (int j = 0; j < kTilesN; j++) mma_16x8x8_tf32(tiles[i][j], a, b[j][0], b[j][1]);
                }
            }
        }
        else
        {
            #pragma unroll
            for (int k = 0; k < kFloatSlice; k++)
            {
                f32 a[kEach / 4][4], b[kEach / 4][4];
                #pragma unroll
                for (int i = 0; i < kEach / 4; i++)
                {
                    load<4>(a[i], sLeft + Left::place(k, ty * 4 + 64 * i));
                    load<4>(b[i], sRight + Right::place(k, tx * 4 + 64 * i));
                }
                #pragma unroll
                for (int i = 0; i < kEach; i++)
                    #pragma unroll
                    for (int j = 0; j < kEach; j++) sum[i][j] = fmaf(a[i / 4][i % 4], b[j / 4][j % 4], sum[i][j]);
            }
        }
    }

    static_assert(kPartRows * kTilePitch<Tile> <= 4 * kSliceFloats, "a part of the tile takes the place of the slices");
    #pragma unroll 1
    for (int first = 0; first < Tile; first += kPartRows)
    {
        __syncthreads();                                      // nobody reads a slice, or the part before, any more
        if constexpr (isTf32)
        {
            if (warpM / kPartRows * kPartRows == first) stash_fragments<Tile>(sSlices, tiles, warpM - first, warpN);
        }
        else
        {
            #pragma unroll
            for (int i = 0; i < kEach; i++)
            #pragma unroll
            for (int j = 0; j < kEach; j += 4)
                if (i / 4 * 64 == first) stash<4>(sSlices + (ty * 4 + i % 4) * kTilePitch<Tile> + tx * 4 + 16 * j, reinterpret_cast<const f32 (&)[4]>(sum[i][j]));
        }
        __syncthreads();                                      // the part is complete
        store_part<f32, true, Tile, kFloatThreads>(args, place, sSlices, first);
    }
}

// ---- Few rows ------------------------------------------------------------------------------------------------------------------------------------

constexpr int kRowsThreads = 256, kColumnsOfWarp = 4;

template <typename T, typename TB, int Rows>
__global__ void __launch_bounds__(kRowsThreads) matmul_rows(const MatMulArgs args)
{
    constexpr int V = 8;
    const int lane = threadIdx.x % kWarp, first = (blockIdx.x * (kRowsThreads / kWarp) + threadIdx.x / kWarp) * kColumnsOfWarp;
    if (first >= args.N) return;
    const T* a = static_cast<const T*>(args.a);
    const TB* b = static_cast<const TB*>(args.b) + (i64)first * args.bRow;
    const int columns = min(kColumnsOfWarp, args.N - first);
    f32 sum[Rows][kColumnsOfWarp] = {};
    const bool isWide = args.aIsWide && args.bIsWide;
    for (int k = lane * V; k < args.K; k += kWarp * V)
    {
        const bool isWhole = isWide && k + V <= args.K;
        f32 w[kColumnsOfWarp][V];
        #pragma unroll
        for (int c = 0; c < kColumnsOfWarp; c++)
        {
            if (c < columns && isWhole) load<V>(w[c], b + c * args.bRow + k);
            else
                #pragma unroll
                for (int v = 0; v < V; v++) w[c][v] = c < columns && k + v < args.K ? to_f32(b[c * args.bRow + k + v]) : 0.0f;
        }
        #pragma unroll
        for (int m = 0; m < Rows; m++)
        {
            if (m >= args.M) break;
            f32 x[V];
            if (isWhole) load<V>(x, a + m * args.aRow + k);
            else
                #pragma unroll
                for (int v = 0; v < V; v++) x[v] = k + v < args.K ? to_f32(a[m * args.aRow + k + v]) : 0.0f;
            #pragma unroll
            for (int c = 0; c < kColumnsOfWarp; c++)
                #pragma unroll
                for (int v = 0; v < V; v++) sum[m][c] = fmaf(x[v], w[c][v], sum[m][c]);
        }
    }
    f32 mine[1] = {};                                         // the sum of row lane / 4 and column lane % 4
    #pragma unroll
    for (int m = 0; m < Rows; m++)
    {
        if (m >= args.M) break;
        #pragma unroll
        for (int c = 0; c < kColumnsOfWarp; c++)
        {
            const f32 total = warp_sum(sum[m][c]);
            if (lane == m * kColumnsOfWarp + c) mine[0] = total;
        }
    }
    static_assert(Rows * kColumnsOfWarp <= kWarp, "a lane for each sum");
    const int m = lane / kColumnsOfWarp, n = first + lane % kColumnsOfWarp;
    if (m >= args.M || n >= args.N) return;
    f32 bias[1];
    load_bias(bias, args, n, 1);
    finish<true, 1, T>(args, mine, bias, (i64)m * args.yRow + n, 1);
}
