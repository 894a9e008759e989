// Copy.cu
//
// Computes   to[i] = from[i], in the type of to; to[i] = value; sum[i] = sum[i] + x[i].
// Source     conversions as src/ZEngine/Ops/Copy.cs defines them: floats round to nearest even, integers are cut toward zero and saturate, NaN becomes 0.
// Method     grid-stride loops. Copies that change no type move bits, so that one instance serves all types of a size; where the innermost axis is dense
//            on both sides the host passes longer words (up to 16 bytes). Conversions between float types are instances; all others go through double
//            and 64-bit integers, by argument. Where the dense axes of both sides differ, copy_transposed and accumulate_transposed take tiles of both axes
//            through shared memory, in rows that have room behind them: neither side skips, and no two lanes meet in a bank.
// Layout     from, to of one shape with any strides; x, sum dense or x strided.
// Launch     grid up to 8 blocks a multiprocessor, block 256. No shared memory. The transposed ones: a block for a tile of 64 × 64, or of 32 × 32 words of 8 bytes;
//            static shared memory 16.3 or 8.3 KiB.
// Traffic    copy reads n, writes n words; fill writes n; accumulate reads 2·n, writes n elements.
// Precision  exact, or one rounding. Deterministic.
// Limits     at most 6 axes. isWide: both sides dense, their addresses and n multiples of an access of 16 bytes of the wider type.
// Variants   copy_words<{u8|u16|u32|u64|Word16}>; copy_transposed<u8, u8>; copy_transposed<u16, u16>; copy_transposed<u32, u32>; copy_transposed<u64, u64>;
//            copy_transposed<f32, {bf16|f16}>; copy_transposed<bf16, {f32|f16}>; copy_transposed<f16, {f32|bf16}>; convert<f32, {bf16|f16}>; convert<bf16, {f32|f16}>; convert<f16, {f32|bf16}>; convert_any;
//            fill<{u8|u16|u32|u64|Word16}>; accumulate<{f32|bf16|f16}, {f32|bf16|f16}>; accumulate_transposed<{f32|bf16|f16}, {f32|bf16|f16}>
#include "common/Copy.cuh"
#include "common/Strided.cuh"

constexpr int kThreads = 256;

struct alignas(16) Word16 { u32 at[4]; };

template <typename S, typename T>
struct CopyArgs                                               // mirrored in CudaCopy.cs, field for field
{
    const S* from; T* to;
    i64 n;
    StridedShape fromShape, toShape;
    i32 isFromDense, isToDense, fromType, toType, isWide, unused;
};

// Elements of two types in accesses of 16 bytes of the wider one.
template <typename S, typename T> constexpr int kTogether = 16 / (sizeof(S) > sizeof(T) ? sizeof(S) : sizeof(T));

template <typename Word>
__global__ void __launch_bounds__(kThreads) copy_words(const CopyArgs<Word, Word> args)
{
    const i64 threads = (i64)gridDim.x * kThreads;
    for (i64 i = (i64)blockIdx.x * kThreads + threadIdx.x; i < args.n; i += threads)
        args.to[args.isToDense ? i : args.toShape.offset(i)] = args.from[args.isFromDense ? i : args.fromShape.offset(i)];
}

template <typename S, typename T>
__global__ void __launch_bounds__(kThreads) convert(const CopyArgs<S, T> args)
{
    constexpr int V = kTogether<S, T>;
    const i64 thread = (i64)blockIdx.x * kThreads + threadIdx.x, threads = (i64)gridDim.x * kThreads;
    if (args.isWide)
        for (i64 i = thread * V; i < args.n; i += threads * V)
        {
            f32 x[V];
            load<V>(x, args.from + i);
            store<V>(args.to + i, x);
        }
    else
        for (i64 i = thread; i < args.n; i += threads)
            args.to[args.isToDense ? i : args.toShape.offset(i)] = from_f32<T>(to_f32(args.from[args.isFromDense ? i : args.fromShape.offset(i)]));
}

template <typename S, typename T>
struct TransposedCopyArgs                                     // mirrored in CudaCopy.cs, field for field
{
    const S* from; T* to;
    i64 M, N, fromStride, toStride;                           // element (m, n) is from[m·fromStride + n] and to[n·toStride + m]
    StridedShape fromShape, toShape;                          // of the other axes
};

template <typename T> struct Converted { template <typename S> static __device__ inline T of(S x) { return from_f32<T>(to_f32(x)); } static __device__ inline T of(T x) { return x; } };

template <bool isAdding, typename S, typename T>
__device__ inline void move_tile(const TransposedCopyArgs<S, T>& args)
{
    constexpr int kTile = sizeof(S) < 8 ? 64 : 32, kRows = kThreads / kTile;
    struct alignas(sizeof(S) < 4 ? 4 : sizeof(S)) Cell { S value; };          // of whole banks
    __shared__ Cell sTile[kTile][kTile + 1];
    const u32 tilesM = (args.M + kTile - 1) / kTile, tilesN = (args.N + kTile - 1) / kTile, tile = blockIdx.x / tilesN, other = tile / tilesM;
    const i64 m = (i64)(tile - other * tilesM) * kTile, n = (i64)(blockIdx.x - tile * tilesN) * kTile;
    const int restM = (int)min(args.M - m, (i64)kTile), restN = (int)min(args.N - n, (i64)kTile), x = threadIdx.x % kTile, y = threadIdx.x / kTile;
    const S* from = args.from + args.fromShape.offset(other) + m * args.fromStride + n;
    T* to = args.to + args.toShape.offset(other) + n * args.toStride + m;
    #pragma unroll
    for (int row = 0; row < kTile; row += kRows)
        if (row + y < restM && x < restN) sTile[row + y][x].value = from[(row + y) * args.fromStride + x];
    __syncthreads();                                          // the tile is there
    #pragma unroll
    for (int row = 0; row < kTile; row += kRows)
        if (row + y < restN && x < restM)
        {
            T& at = to[(row + y) * args.toStride + x];
            const S value = sTile[x][row + y].value;
            if constexpr (isAdding) at = from_f32<T>(to_f32(at) + to_f32(value));
            else at = Converted<T>::of(value);
        }
}

template <typename S, typename T> __global__ void __launch_bounds__(kThreads) copy_transposed(const TransposedCopyArgs<S, T> args) { move_tile<false>(args); }
template <typename S, typename T> __global__ void __launch_bounds__(kThreads) accumulate_transposed(const TransposedCopyArgs<S, T> args) { move_tile<true>(args); }

__device__ inline bool is_integer(int type) { return type >= kInt32; }

__device__ inline i64 load_integer(const u8* from, int type, i64 i)
{
    switch (type)
    {
        case kInt32: return reinterpret_cast<const i32*>(from)[i];
        case kInt64: return reinterpret_cast<const i64*>(from)[i];
        case kUInt8: return from[i];
        default: return reinterpret_cast<const i8*>(from)[i];
    }
}

__device__ inline i64 clamp(i64 x, i64 low, i64 high) { return x < low ? low : x > high ? high : x; }

__device__ inline void store_integer(u8* to, int type, i64 i, i64 x)
{
    switch (type)
    {
        case kInt32: reinterpret_cast<i32*>(to)[i] = (i32)clamp(x, -2147483647LL - 1, 2147483647LL); break;
        case kInt64: reinterpret_cast<i64*>(to)[i] = x; break;
        case kUInt8: to[i] = (u8)clamp(x, 0, 255); break;
        default: reinterpret_cast<i8*>(to)[i] = (i8)clamp(x, -128, 127); break;
    }
}

// The nearest odd neighbour toward which nothing is lost: rounding x to f32 first and then to 16 bits would round twice.
__device__ inline f32 to_odd(i64 x)
{
    const f32 below = __ll2float_rz(x);
    return (i64)below == x ? below : __uint_as_float(__float_as_uint(below) | 1u);
}

__device__ inline void store_float(u8* to, int type, i64 i, i64 x)
{
    switch (type)
    {
        case kFloat32: reinterpret_cast<f32*>(to)[i] = __ll2float_rn(x); break;
        case kBFloat16: reinterpret_cast<bf16*>(to)[i] = from_f32<bf16>(to_odd(x)); break;
        default: reinterpret_cast<f16*>(to)[i] = from_f32<f16>(to_odd(x)); break;
    }
}

// cvt saturates and takes NaN to 0 for 32-bit results; for 64 bits NaN is taken care of here.
__device__ inline i64 truncate(f32 x) { return x != x ? 0 : __float2ll_rz(x); }

__global__ void __launch_bounds__(kThreads) convert_any(const CopyArgs<u8, u8> args)
{
    const i64 threads = (i64)gridDim.x * kThreads;
    for (i64 i = (i64)blockIdx.x * kThreads + threadIdx.x; i < args.n; i += threads)
    {
        const i64 from = args.isFromDense ? i : args.fromShape.offset(i), to = args.isToDense ? i : args.toShape.offset(i);
        const i64 x = is_integer(args.fromType) ? load_integer(args.from, args.fromType, from) : truncate(load_float(args.from, args.fromType, from));
        if (is_integer(args.toType)) store_integer(args.to, args.toType, to, x);
        else store_float(args.to, args.toType, to, x);
    }
}

template <typename Word>
struct FillArgs                                               // mirrored in CudaCopy.cs, field for field
{
    Word* to;
    i64 n;
    u64 bits;
};

template <typename Word> __device__ inline Word word_of(u64 bits) { return (Word)bits; }
template <> __device__ inline Word16 word_of<Word16>(u64 bits) { return {{(u32)bits, (u32)(bits >> 32), (u32)bits, (u32)(bits >> 32)}}; }

template <typename Word>
__global__ void __launch_bounds__(kThreads) fill(const FillArgs<Word> args)
{
    const i64 threads = (i64)gridDim.x * kThreads;
    for (i64 i = (i64)blockIdx.x * kThreads + threadIdx.x; i < args.n; i += threads) args.to[i] = word_of<Word>(args.bits);
}

template <typename S, typename T>
struct AccumulateArgs                                         // mirrored in CudaCopy.cs, field for field
{
    const S* x; T* sum;
    i64 n;
    StridedShape shape;
    i32 isDense, isWide;
};

template <typename S, typename T>
__global__ void __launch_bounds__(kThreads) accumulate(const AccumulateArgs<S, T> args)
{
    constexpr int V = kTogether<S, T>;
    const i64 thread = (i64)blockIdx.x * kThreads + threadIdx.x, threads = (i64)gridDim.x * kThreads;
    if (args.isWide)
        for (i64 i = thread * V; i < args.n; i += threads * V)
        {
            f32 x[V], sum[V];
            load<V>(x, args.x + i);
            load<V>(sum, args.sum + i);
            #pragma unroll
            for (int v = 0; v < V; v++) sum[v] += x[v];
            store<V>(args.sum + i, sum);
        }
    else
        for (i64 i = thread; i < args.n; i += threads)
            args.sum[i] = from_f32<T>(to_f32(args.sum[i]) + to_f32(args.x[args.isDense ? i : args.shape.offset(i)]));
}
