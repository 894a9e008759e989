// Reduce.cu
//
// Computes   y[o,i] = Σ_c x[o,c,i], the mean or the largest; dx[o,c,i] = dy[o,i], by the count for a mean; for the largest only at its first place.
// Source     sums in runs: Higham 1993, The accuracy of floating point summation, section 3.
// Method     rows (inner = 1): a warp or a block walks a row. Columns: a block is lanes × groups, lanes over neighbouring columns, groups over c, and the
//            groups meet in a tree. Where that gives few blocks, c is cut into P pieces, and reduce_partials adds up their results. A backward of the
//            largest first finds its place the same way. Pieces follow from the shape alone, so every device adds in the same order. reduce_sums adds up columns
//            of partial results that blocks of other kernels left, several matrices in one launch: a block takes 32 columns, its warps take turns with rows.
// Layout     x, dx [outer, count, inner]; y, dy [outer, inner]; partial, total [outer, P, inner] of 64 bits: a double, or for the largest its order as an
//            integer in the upper half and its place, counted downward, in the lower. A matrix of reduce_sums: columns of rows `pitch` floats apart, column c goes to c % inner·stride + c / inner.
// Launch     reduce_rows grid ceil(outer·P·lanes / 256), lanes 32 or 256; reduce_columns grid outer·P·ceil(inner / (V·lanes)); reduce_partials grid
//            outer·ceil(inner / lanes); reduce_backward grid up to 8 blocks a multiprocessor; block 256. Static shared memory 2 KB·V (columns), 64 bytes (rows). reduce_sums: grid Σ ceil(width / 32), block 256, static shared
//            memory 1 KiB.
// Traffic    forward reads outer·count·inner elements, writes outer·inner; with P > 1 it also writes and reads 8·outer·P·inner bytes. backward reads
//            the dy of every access from the cache, writes outer·count·inner elements; for the largest it also reads x, and 8·outer·inner bytes. reduce_sums reads
//            rows·width floats of each matrix, writes width.
// Precision  loads T; sums of up to 16 elements in f32, and their sum in double; one rounding to T; reduce_sums adds in f32. Deterministic: no atomics.
// Limits     count < 2³² for the backward of the largest. isWide: addresses and row starts are multiples of 16 bytes.
// Variants   reduce_rows<{f32|bf16|f16}, {true|false}>; reduce_columns<{f32|bf16|f16}, {true|false}>; reduce_partials<{f32|bf16|f16}>;
//            reduce_backward<{f32|bf16|f16}, {true|false}>; reduce_sums
#include "common/Columns.cuh"
#include "common/Copy.cuh"
#include "common/Order.cuh"
#include "common/Warp.cuh"

constexpr int kThreads = 256;
constexpr int kRun = 16;                                      // elements summed in f32 before the sum goes on in double

enum Reduction { kSum, kMean, kMax, kPlace };

template <typename T>
struct ReduceArgs                                             // mirrored in CudaReduce.cs, field for field
{
    const T* x; const u64* partial; T* y; u64* total;
    i64 outer, count, inner, chunk;
    i32 P, lanes, reduction;
};

// For the place, as a loop that begins at place 0 and goes on to whatever is larger: NaN is larger than nothing, unless it stands first; -0 equals 0.
__device__ inline u64 word_of(int reduction, f32 x, i64 place)
{
    if (reduction == kMax) return (u64)order_of(x) << 32;
    const u32 order = x != x && place != 0 ? 0u : order_of(x + 0.0f);
    return (u64)order << 32 | (u32)~place;
}

__device__ inline u64 combine(int reduction, u64 a, u64 b)
{
    if (reduction >= kMax) return a > b ? a : b;
    return (u64)__double_as_longlong(__longlong_as_double((i64)a) + __longlong_as_double((i64)b));
}

// Folds x[i·stride, …) of i = begin, begin + step, … into V words; places count i, or along a row V·i + v. Words of 0 are the start of every reduction.
template <int V, bool isRow, typename T>
__device__ inline void fold(u64 (&words)[V], int reduction, const T* x, i64 begin, i64 end, i64 step, i64 stride)
{
    if (reduction >= kMax)
    {
        for (i64 i = begin; i < end; i += step)
        {
            f32 value[V];
            load<V>(value, x + i * stride);
            #pragma unroll
            for (int v = 0; v < V; v++) words[v] = combine(kMax, words[v], word_of(reduction, value[v], isRow ? i * V + v : i));
        }
        return;
    }
    for (i64 i = begin; i < end;)
    {
        f32 run[V];
        #pragma unroll
        for (int v = 0; v < V; v++) run[v] = 0;
        #pragma unroll 2
        for (int k = 0; k < kRun && i < end; k++, i += step)
        {
            f32 value[V];
            load<V>(value, x + i * stride);
            #pragma unroll
            for (int v = 0; v < V; v++) run[v] += value[v];
        }
        #pragma unroll
        for (int v = 0; v < V; v++) words[v] = combine(kSum, words[v], (u64)__double_as_longlong((f64)run[v]));
    }
}

// Writes a result, as a word where another kernel goes on with it.
template <typename T>
__device__ inline void finish(const ReduceArgs<T>& args, i64 at, u64 word)
{
    if (args.total)
    {
        args.total[at] = word;
        return;
    }
    const f64 sum = __longlong_as_double((i64)word);
    args.y[at] = from_f32<T>(args.reduction == kMax ? float_of((u32)(word >> 32)) : (f32)(args.reduction == kMean ? sum / args.count : sum));
}

template <typename T, bool isWide>
__global__ void __launch_bounds__(kThreads) reduce_rows(const ReduceArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    __shared__ u64 sWords[kThreads / kWarp];
    const int lane = threadIdx.x % args.lanes;
    const i64 piece = (i64)blockIdx.x * (kThreads / args.lanes) + threadIdx.x / args.lanes;
    const i64 row = piece / args.P, begin = piece % args.P * args.chunk, end = min(args.count, begin + args.chunk);
    u64 word = 0;
    if (row < args.outer)
    {
        const T* x = args.x + row * args.count;
        u64 words[V] = {}, rest[1] = {};
        fold<V, true>(words, args.reduction, x, begin / V + lane, end / V, args.lanes, V);
        if (V > 1) fold<1, true>(rest, args.reduction, x, end / V * V + lane, end, args.lanes, 1);
        #pragma unroll
        for (int v = 0; v < V; v++) word = combine(args.reduction, word, words[v]);
        word = combine(args.reduction, word, rest[0]);
    }
    #pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) word = combine(args.reduction, word, __shfl_xor_sync(kAllLanes, word, distance));
    if (args.lanes > kWarp)
    {
        if (threadIdx.x % kWarp == 0) sWords[threadIdx.x / kWarp] = word;
        __syncthreads();                                      // the words of all warps are there
        word = sWords[0];
        for (int warp = 1; warp < kThreads / kWarp; warp++) word = combine(args.reduction, word, sWords[warp]);
    }
    if (lane == 0 && row < args.outer) finish(args, piece, word);
}

// Brings the groups of a block together and writes its columns from firstColumn on; row is the row of y.
template <int V, typename T>
__device__ inline void finish_columns(const ReduceArgs<T>& args, const u64 (&words)[V], u64* sWords, i64 row, i64 firstColumn)
{
    #pragma unroll
    for (int v = 0; v < V; v++) sWords[v * kThreads + threadIdx.x] = words[v];
    for (int groups = kThreads / args.lanes / 2; groups > 0; groups /= 2)
    {
        __syncthreads();                                      // the words of the groups above are there
        const int above = threadIdx.x + groups * args.lanes;
        if (threadIdx.x / args.lanes < groups)
            for (int v = 0; v < V; v++) sWords[v * kThreads + threadIdx.x] = combine(args.reduction, sWords[v * kThreads + threadIdx.x], sWords[v * kThreads + above]);
    }
    __syncthreads();                                          // the words of all columns are there
    for (int c = threadIdx.x; c < args.lanes * V && firstColumn + c < args.inner; c += kThreads)
        finish(args, row * args.inner + firstColumn + c, sWords[c % V * kThreads + c / V]);
}

template <typename T, bool isWide>
__global__ void __launch_bounds__(kThreads) reduce_columns(const ReduceArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    __shared__ u64 sWords[V * kThreads];
    const i64 tiles = (args.inner + args.lanes * V - 1) / (args.lanes * V), piece = blockIdx.x / tiles;
    const i64 row = piece / args.P, begin = piece % args.P * args.chunk, end = min(args.count, begin + args.chunk);
    const i64 firstColumn = blockIdx.x % tiles * args.lanes * V, column = firstColumn + threadIdx.x % args.lanes * V;
    u64 words[V] = {};
    if (column < args.inner)
        fold<V, false>(words, args.reduction, args.x + row * args.count * args.inner + column, begin + threadIdx.x / args.lanes, end, kThreads / args.lanes, args.inner);
    finish_columns<V>(args, words, sWords, piece, firstColumn);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) reduce_partials(const ReduceArgs<T> args)
{
    __shared__ u64 sWords[kThreads];
    const i64 tiles = (args.inner + args.lanes - 1) / args.lanes, row = blockIdx.x / tiles;
    const i64 firstColumn = blockIdx.x % tiles * args.lanes, column = firstColumn + threadIdx.x % args.lanes;
    u64 words[1] = {};
    if (column < args.inner)
        for (int p = threadIdx.x / args.lanes; p < args.P; p += kThreads / args.lanes)
            words[0] = combine(args.reduction, words[0], args.partial[(row * args.P + p) * args.inner + column]);
    finish_columns<1>(args, words, sWords, row, firstColumn);
}

template <typename T>
struct ReduceBackwardArgs                                     // mirrored in CudaReduce.cs, field for field
{
    const T* dy; const u64* best; T* dx;
    i64 n, count, inner;
    i32 is32;                                                 // every index fits 31 bits, so that 32-bit division serves
    f32 divisor;
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kThreads) reduce_backward(const ReduceBackwardArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    const bool isRow = args.inner == 1;
    const i64 threads = (i64)gridDim.x * kThreads;
    for (i64 i = ((i64)blockIdx.x * kThreads + threadIdx.x) * V; i < args.n; i += threads * V)
    {
        const i64 line = args.is32 ? (u32)i / (u32)args.inner : i / args.inner, outer = args.is32 ? (u32)line / (u32)args.count : line / args.count;
        const i64 place = line - outer * args.count, at = outer * args.inner + (i - line * args.inner);
        f32 d[V];
        if (isRow)
        {
            const f32 all = to_f32(args.dy[at]);
            #pragma unroll
            for (int v = 0; v < V; v++) d[v] = all;
        }
        else load<V>(d, args.dy + at);
        #pragma unroll
        for (int v = 0; v < V; v++)
        {
            if (args.best && (u32)(place + (isRow ? v : 0)) != ~(u32)args.best[at + (isRow ? 0 : v)]) d[v] = 0;
            else if (args.divisor != 1.0f) d[v] /= args.divisor;
        }
        store<V>(args.dx + i, d);
    }
}

constexpr int kMostSums = 4;

struct PartialSum                                             // mirrored in CudaReduce.cs, field for field
{
    const f32* partial; f32* y;
    i64 rows, pitch, width, inner, stride, firstBlock;
};

struct PartialSumsArgs                                        // mirrored in CudaReduce.cs, field for field
{
    PartialSum sums[kMostSums];
    i64 count;
};

__global__ void __launch_bounds__(kColumnWarps * kWarp) reduce_sums(const PartialSumsArgs args)
{
    __shared__ f32 sSums[kColumnWarps][kWarp];
    int which = 0;
    while (which + 1 < args.count && blockIdx.x >= args.sums[which + 1].firstBlock) which++;
    const PartialSum& of = args.sums[which];
    const i64 column = (blockIdx.x - of.firstBlock) * kWarp + threadIdx.x % kWarp;
    const f32 sum = column_sum(of.partial, of.rows, of.pitch, column, of.width, sSums);
    if (threadIdx.x < kWarp && column < of.width) of.y[column % of.inner * of.stride + column / of.inner] = sum;
}
