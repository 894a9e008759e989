// Embedding.cu
//
// Computes   y[i,d] = table[tokens[i],d]; dtable[t,d] = Σ_{i: tokens[i] = t} dy[i,d], in the order of i
// Source     the lookup as src/ZEngine/Ops/Embedding.cs defines it; the sort: Merrill and Grimshaw 2011, "High performance and scalable radix sorting".
// Method     backward: pairs (token, i) are sorted by token with a stable radix sort, digits of up to 9 bits. Of each digit, embedding_count counts the
//            keys of every tile (one warp each; lanes with the same digit find each other), embedding_scan makes the counts offsets, embedding_scatter
//            moves. embedding_runs then gives every block kRun sorted rows of dy, which it adds up token by token; a token that began in an earlier block
//            leaves its share in heads, and embedding_heads adds these in order. So the work is even however the tokens are distributed, each row of dy
//            is read once, and no order depends on the schedule.
// Layout     table [V, D]; y, dy [n, D]; tokens [n] 32- or 64-bit integers; dtable [V, D] float, zeros on entry; pairs [n] words of token·2³² + i;
//            counts [2^bits, tiles]; heads [ceil(n / kRun), D] float.
// Launch     forward grid up to 8 blocks a multiprocessor, block 256. embedding_count and embedding_scatter: grid ceil(tiles / 8), block 256, 16 KiB of
//            static shared memory; embedding_scan: one block of 1024; embedding_runs: grid ceil(n / kRun)·slices, block 32 to 256 threads of 4 columns;
//            embedding_heads: grid (ceil(n / kRun) − 1)·slices, the same block.
// Traffic    forward reads n·D elements and the tokens, writes n·D elements. Backward reads n·D elements, writes at most n·D floats of dtable and 2·n·D / kRun of
//            heads, reads these; for each digit it reads the keys twice and writes them once, and writes, reads, writes and reads the counts.
// Precision  forward exact. Backward sums f32, for each token in the order of i within kRun rows, then over these runs in order. Deterministic, no atomics.
// Limits     n < 2³¹, V < 2³¹. Accesses are of 16 bytes (of 4 elements backward) where D and the addresses allow, else of one. A token outside the table stops the kernel.
// Variants   embedding_forward<{f32|bf16|f16}>; embedding_count; embedding_scan; embedding_scatter; embedding_runs<{f32|bf16|f16}>; embedding_heads
#include "common/Copy.cuh"
#include "common/Grid.cuh"
#include "common/Warp.cuh"

constexpr int kThreads = 256;
constexpr int kColumns = 4;                                   // of a thread, backward: a 16-byte store of a sum
constexpr int kWarps = kThreads / kWarp;
constexpr int kDigits = 512;
constexpr int kScanThreads = 1024;
constexpr int kRun = 64;
constexpr int kAhead = 8;                                     // rows of dy under way at a time
constexpr u64 kNoToken = ~0ull;

__device__ inline i64 token_at(const u8* tokens, int isLong, i64 i, i64 V)
{
    const i64 token = isLong ? reinterpret_cast<const i64*>(tokens)[i] : reinterpret_cast<const i32*>(tokens)[i];
    if ((u64)token >= (u64)V) trap();
    return token;
}

template <typename T>
struct EmbeddingArgs                                          // mirrored in CudaEmbedding.cs, field for field
{
    const T* table; const u8* tokens; T* y;
    i64 n, V, D;
    i32 isLong, isWide;
};

template <int C, typename T>
__device__ inline void look_up(const EmbeddingArgs<T>& args)
{
    const i64 groups = args.D / C, items = args.n * groups;
    for (i64 item = first_item(); item < items; item += item_step())
    {
        const Quotient at = divide(item, groups);
        f32 x[C];
        load<C>(x, args.table + token_at(args.tokens, args.isLong, at.quotient, args.V) * args.D + at.rest * C);
        store<C>(args.y + item * C, x);
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) embedding_forward(const EmbeddingArgs<T> args)
{
    if (args.isWide) look_up<16 / sizeof(T)>(args);
    else look_up<1>(args);
}

struct EmbeddingSortArgs                                      // mirrored in CudaEmbedding.cs, field for field
{
    const u8* tokens; const u64* from; u64* to; i32* counts;  // from is null in the first pass: the keys are the tokens
    i64 n, V, tile, tiles;
    i32 isLong, shift, bits;
};

__device__ inline u64 pair_at(const EmbeddingSortArgs& args, i64 p)
{
    return args.from ? args.from[p] : (u64)token_at(args.tokens, args.isLong, p, args.V) << 32 | (u64)p;
}

// The digit of a pair's token; of a lane behind the end, one that no token has.
__device__ inline u32 digit_of(const EmbeddingSortArgs& args, u64 pair, bool isIn)
{
    const u32 digits = 1u << args.bits;
    return isIn ? (u32)(pair >> 32 >> args.shift) & (digits - 1) : digits;
}

__global__ void __launch_bounds__(kThreads) embedding_count(const EmbeddingSortArgs args)
{
    __shared__ i32 sCounts[kWarps][kDigits];
    const int lane = threadIdx.x % kWarp;
    i32* counts = sCounts[threadIdx.x / kWarp];
    const i64 tile = (i64)blockIdx.x * kWarps + threadIdx.x / kWarp;
    if (tile >= args.tiles) return;                           // the whole warp, and no barrier of the block follows
    for (int digit = lane; digit < 1 << args.bits; digit += kWarp) counts[digit] = 0;
    __syncwarp();                                             // the zeros are there
    const i64 begin = tile * args.tile, end = min(args.n, begin + args.tile);
    for (i64 start = begin; start < end; start += kWarp)
    {
        const i64 p = start + lane;
        const u32 digit = digit_of(args, p < end ? pair_at(args, p) : 0, p < end);
        const u32 peers = __match_any_sync(kAllLanes, digit);
        if (p < end && lane == __ffs(peers) - 1) counts[digit] += __popc(peers);
        __syncwarp();                                         // the lanes that add to these counts next see them
    }
    for (int digit = lane; digit < 1 << args.bits; digit += kWarp) args.counts[digit * args.tiles + tile] = counts[digit];
}

struct EmbeddingScanArgs                                      // mirrored in CudaEmbedding.cs, field for field
{
    i32* counts;
    i64 length;                                               // a multiple of 4
};

// Each count becomes the sum of those before it.
__global__ void __launch_bounds__(kScanThreads) embedding_scan(const EmbeddingScanArgs args)
{
    __shared__ i32 sWarps[kScanThreads / kWarp];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    i32 carry = 0;
    for (i64 start = 0; start < args.length; start += 4 * kScanThreads)
    {
        const i64 at = start + 4 * threadIdx.x;
        Pack<i32, 4> counts = {};
        if (at < args.length) counts = *reinterpret_cast<const Pack<i32, 4>*>(args.counts + at);
        const i32 own = counts.at[0] + counts.at[1] + counts.at[2] + counts.at[3];
        i32 sum = own;
        #pragma unroll
        for (int distance = 1; distance < kWarp; distance *= 2)
        {
            const i32 before = __shfl_up_sync(kAllLanes, sum, distance);
            if (lane >= distance) sum += before;
        }
        if (lane == kWarp - 1) sWarps[warp] = sum;
        __syncthreads();                                      // the sums of all warps are there
        i32 offset = carry + sum - own;
        #pragma unroll
        for (int w = 0; w < kScanThreads / kWarp; w++)
        {
            if (w < warp) offset += sWarps[w];
            carry += sWarps[w];
        }
        __syncthreads();                                      // sWarps has been read by all before the next round writes it
        #pragma unroll
        for (int v = 0; v < 4; v++)
        {
            const i32 count = counts.at[v];
            counts.at[v] = offset;
            offset += count;
        }
        if (at < args.length) *reinterpret_cast<Pack<i32, 4>*>(args.counts + at) = counts;
    }
}

__global__ void __launch_bounds__(kThreads) embedding_scatter(const EmbeddingSortArgs args)
{
    __shared__ i32 sOffsets[kWarps][kDigits];
    const int lane = threadIdx.x % kWarp;
    i32* offsets = sOffsets[threadIdx.x / kWarp];
    const i64 tile = (i64)blockIdx.x * kWarps + threadIdx.x / kWarp;
    if (tile >= args.tiles) return;                           // the whole warp, and no barrier of the block follows
    for (int digit = lane; digit < 1 << args.bits; digit += kWarp) offsets[digit] = args.counts[digit * args.tiles + tile];
    __syncwarp();                                             // the offsets are there
    const i64 begin = tile * args.tile, end = min(args.n, begin + args.tile);
    for (i64 start = begin; start < end; start += kWarp)
    {
        const i64 p = start + lane;
        const u64 pair = p < end ? pair_at(args, p) : 0;
        const u32 digit = digit_of(args, pair, p < end);
        const u32 peers = __match_any_sync(kAllLanes, digit);
        const int rank = __popc(peers & (1u << lane) - 1);    // keys of the same digit before this one: the sort is stable
        if (p < end) args.to[offsets[digit] + rank] = pair;
        __syncwarp();                                         // the offsets have been read
        if (p < end && rank == 0) offsets[digit] += __popc(peers);
        __syncwarp();                                         // the lanes that read these offsets next see them
    }
}

template <typename T>
struct EmbeddingBackwardArgs                                  // mirrored in CudaEmbedding.cs, field for field
{
    const u64* pairs; const T* dy; f32* heads; f32* dtable;
    i64 n, D;
    i32 slices, isWide;
};

__device__ inline u64 sorted_token(const u64* pairs, i64 p) { return pairs[p] >> 32; }

struct Columns { i64 begin, end; };

// Those of this block: kColumns to a thread.
template <typename T>
__device__ inline Columns columns_of(const EmbeddingBackwardArgs<T>& args)
{
    const i64 begin = (i64)(blockIdx.x % args.slices) * blockDim.x * kColumns;
    return {begin, min(args.D, begin + (i64)blockDim.x * kColumns)};
}

// sPairs holds the row before the block's, then its rows.
template <int C, typename T>
__device__ inline void add_runs(const EmbeddingBackwardArgs<T>& args, i64 chunk, int count, i64 d, const u64* sPairs)
{
    f32 sum[C] = {};
    for (int first = 0; first < count; first += kAhead)
    {
        f32 rows[kAhead][C];
        #pragma unroll
        for (int a = 0; a < kAhead; a++)
            if (first + a < count) load<C>(rows[a], args.dy + (i64)(u32)sPairs[1 + first + a] * args.D + d);
        #pragma unroll
        for (int a = 0; a < kAhead; a++)
        {
            if (first + a >= count) break;
            const u64 token = sPairs[1 + first + a] >> 32;
            const bool isLast = first + a + 1 == count || sPairs[2 + first + a] >> 32 != token;
            #pragma unroll
            for (int c = 0; c < C; c++) sum[c] += rows[a][c];
            if (!isLast) continue;
            const bool isHead = sPairs[0] >> 32 == token;     // began in an earlier block
            store<C>((isHead ? args.heads + chunk * args.D : args.dtable + (i64)token * args.D) + d, sum);
            #pragma unroll
            for (int c = 0; c < C; c++) sum[c] = 0;
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) embedding_runs(const EmbeddingBackwardArgs<T> args)
{
    __shared__ u64 sPairs[1 + kRun];
    const i64 chunk = blockIdx.x / args.slices, begin = chunk * kRun;
    const int count = (int)min((i64)kRun, args.n - begin);
    for (int p = threadIdx.x; p < 1 + count; p += blockDim.x) sPairs[p] = begin + p == 0 ? kNoToken : args.pairs[begin + p - 1];
    __syncthreads();                                          // the pairs are there
    const Columns columns = columns_of(args);
    if (args.isWide)
        for (i64 d = columns.begin + threadIdx.x * kColumns; d < columns.end; d += blockDim.x * kColumns) add_runs<kColumns>(args, chunk, count, d, sPairs);
    else
        for (i64 d = columns.begin + threadIdx.x; d < columns.end; d += blockDim.x) add_runs<1>(args, chunk, count, d, sPairs);
}

template <int C>
__device__ inline void add_heads(const EmbeddingBackwardArgs<f32>& args, i64 first, i64 last, f32* dtable, i64 d)
{
    f32 sum[C], head[C];
    load<C>(sum, dtable + d);
    #pragma unroll 8
    for (i64 chunk = first; chunk <= last; chunk++)
    {
        load<C>(head, args.heads + chunk * args.D + d);
        #pragma unroll
        for (int c = 0; c < C; c++) sum[c] += head[c];
    }
    store<C>(dtable + d, sum);
}

__global__ void __launch_bounds__(kThreads) embedding_heads(const EmbeddingBackwardArgs<f32> args)
{
    const i64 chunk = blockIdx.x / args.slices + 1, begin = chunk * kRun;
    const u64 token = sorted_token(args.pairs, begin);
    if (sorted_token(args.pairs, begin - 1) != token) return;                             // the token begins here
    if (chunk > 1 && sorted_token(args.pairs, begin - kRun - 1) == token) return;         // another block adds this head
    i64 last = chunk, end = (args.n + kRun - 1) / kRun;       // the last chunk with a head of the token is in [last, end)
    while (end - last > 1)
    {
        const i64 middle = (last + end) / 2;
        if (sorted_token(args.pairs, middle * kRun) == token) last = middle;
        else end = middle;
    }
    f32* dtable = args.dtable + (i64)token * args.D;
    const Columns columns = columns_of(args);
    if (args.isWide)
        for (i64 d = columns.begin + threadIdx.x * kColumns; d < columns.end; d += blockDim.x * kColumns) add_heads<kColumns>(args, chunk, last, dtable, d);
    else
        for (i64 d = columns.begin + threadIdx.x; d < columns.end; d += blockDim.x) add_heads<1>(args, chunk, last, dtable, d);
}
