// AttentionDecode.cu
//
// Computes   for one query of each sequence b and head h, which shares key head g with R = H / G heads, over the keys j of the cache that a window leaves:
//            q, k ← rotated by the angles of the position; the cache ← k, v at the end; s[j] = scale·q·K[j], or cap·tanh(scale·q·K[j] / cap);
//            lse = log Σ_j exp(s[j]), o = Σ_j exp(s[j] − lse)·V[j]; lengths ← lengths + 1.
// Source     Dao et al. 2023, Flash-Decoding (split over keys); online softmax: Milakov and Gimelshein 2018, arXiv:1805.02867; pages: Kwon et al. 2023,
//            arXiv:2309.06180, section 4.1.
// Method     a block per split of keys, key head and sequence: tiles of keys and values come by asynchronous copies, 2 or 3 of them under way; the query
//            heads of a group are the 16 rows of a tensor-core tile (more heads take further rounds); scores by the first warps, channels of o by all.
//            The block that holds the last position appends first; in a ring, where no other reads. The last block of a key head to arrive merges its splits in order, and the last of
//            a sequence lengthens it: blocks without keys arrive at once. A split's keys depend on sizes alone, so no sequence changes another's bits.
// Layout     q, o [B, H, P], k, v [B, G, P] with dense rows; keys, values [pages, S, G, P]; scales [pages, G, S, 2]; pages [B, M];
//            lengths, positions [B]; tickets [B, G + 1]; partialO [B, H, splits, P₄] with P₄ the next multiple of 4, partialMax [B, H, splits, 2] the largest
//            score and the sum, all float. Shared memory: rows of P₁₆ elements, the next multiple of 16, and 16 bytes: an odd number of 16-byte chunks.
// Launch     attention_decode grid (splits, G, B), block 128, dynamic shared memory 16·pitch + stages·2·keys·pitch elements of T, or with bytes
//            (16 + 2·keys)·pitch of T and stages·2·keys·(P₁₆ + 4) bytes.
// Traffic    reads every key and value that is seen once for 16 heads, with bytes 8 more for both; q, cosines and sines once a split; writes the new row; of
//            several splits (P₄ + 2)·4 bytes for each and head, written, read once (its maximum by every lane), at most 1 % of the keys and values.
// Precision  loads T, multiplies T on the tensor cores (f32: by fused multiply-adds) into f32, exponentials f32 with probabilities rounded to T; bytes become
//            T by their scale first. Rotated q and k are rounded to T, as rope does. Deterministic: the tickets' order changes nothing but who merges.
// Limits     P ≤ 256; a length or position beyond the cache or the tables, or a page that there is not, is a trap. isWide: rows of the cache are multiples
//            of 16 bytes.
// Variants   attention_decode<f32, {f32|i8}>; attention_decode<bf16, {bf16|i8}>; attention_decode<f16, {f16|i8}>
#include "common/DecodeCache.cuh"
#include "common/Fragments.cuh"

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kHeads = 16;                                    // rows of a tensor-core tile
constexpr int kMaxSplit = 4096;                               // keys; kMaxSplit in src/ZEngine.Cuda/AttentionDecodePlan.cs
constexpr int kLeastPage = 16;
constexpr int kAligned = 32;                                  // splits begin at multiples of this
template <typename T> constexpr int kKeys = sizeof(T) == 4 ? 16 : 32;    // of a tile
template <typename T> constexpr int kScoreWarps = kKeys<T> / 16;
template <typename T> constexpr int kScorePitch = kKeys<T> + 16 / sizeof(T);
constexpr int kUnits = kMaxP / 16 / kWarps;                   // 16 channels of o each, of a warp

template <typename T, typename C>
struct DecodeArgs                                             // mirrored in CudaAttentionDecode.cs, field for field
{
    const T* q; const T* k; const T* v; const f32* cosine; const f32* sine; const i64* positions;
    T* o; f32* lse; f32* partialO; f32* partialMax;
    CacheArgs<C> cache;
    i64 qBatch, qHead, kBatch, kHead, vBatch, vHead, tableRows;
    i32 H, pairs, window, split, stages, isHalf, isWide, isQWide;
    f32 scale, cap;
};

// The keys of a block.
struct Split
{
    i64 position;                                             // the angle of this token
    i32 n, first, begin, end;                                 // keys in all, this token's included; seen from here on; of this split
    i32 live;                                                 // splits that hold a key, at least one

    template <typename T, typename C>
    __device__ inline Split(const DecodeArgs<T, C>& args, i32 length, i64 position) : position(position)
    {
        n = length + (args.k ? 1 : 0);
        first = args.window > 0 ? max(0, n - args.window) : 0;
        const i32 base = first & -kAligned;
        live = max(1, (n - base + args.split - 1) / args.split);
        begin = base + min((i32)blockIdx.x, live) * args.split;
        end = min(n, begin + args.split);
    }

    __device__ inline bool sees(i32 position) const { return position >= first && position < end; }
};

// A block's shared memory beside that of fixed size.
template <typename T, typename C>
struct Tiles
{
    static constexpr bool kIsBytes = sizeof(C) == 1;
    T* q; T* tiles; C* stages; f32* scales;
    int width, pitch, stagePitch;                             // elements of a row, padded: of T, and as they come

    __device__ inline Tiles(u8* sMemory, int P, int count)
    {
        width = (P + 15) / 16 * 16;
        pitch = width + kRowPad<T>;
        stagePitch = kIsBytes ? width : pitch;
        q = reinterpret_cast<T*>(sMemory);
        tiles = q + kHeads * pitch;
        stages = reinterpret_cast<C*>(kIsBytes ? tiles + 2 * kKeys<T> * pitch : tiles);
        scales = reinterpret_cast<f32*>(stages + count * 2 * kKeys<T> * stagePitch);
    }

    __device__ inline C* stage(int i) const { return stages + i * 2 * kKeys<T> * stagePitch; }
    __device__ inline f32* scale(int i) const { return scales + i * 2 * kKeys<T>; }
};

// Rotates the pair i of a row in shared memory, rounded as elements of T.
template <typename T, typename S>
__device__ inline void rotate(S* sRow, int i, int pairs, bool isHalf, f32 c, f32 s)
{
    S& a = sRow[isHalf ? i : 2 * i];
    S& b = sRow[isHalf ? i + pairs : 2 * i + 1];
    const f32 x = to_f32(a), y = to_f32(b);
    a = from_f32<S>(to_f32(from_f32<T>(x * c - y * s)));
    b = from_f32<S>(to_f32(from_f32<T>(y * c + x * s)));
}

// The token's key and value, rotated and put into the cache by the block that holds its position. Needs a barrier before they are loaded from there.
template <typename T, typename C>
__device__ inline void append(const DecodeArgs<T, C>& args, const Split& split, f32 (&sNew)[2][kMaxP])
{
    const int g = blockIdx.y, b = blockIdx.z, P = args.cache.P, warp = threadIdx.x / kWarp;
    for (int p = threadIdx.x; p < P; p += kThreads)
    {
        sNew[0][p] = to_f32(args.k[b * args.kBatch + g * args.kHead + p]);
        sNew[1][p] = to_f32(args.v[b * args.vBatch + g * args.vHead + p]);
    }
    __syncthreads();                                          // the row is there; its pairs are rotated by other threads
    for (int i = threadIdx.x; i < args.pairs; i += kThreads)
        rotate<T>(sNew[0], i, args.pairs, args.isHalf, args.cosine[split.position * args.pairs + i], args.sine[split.position * args.pairs + i]);
    __syncthreads();                                          // it is rotated
    if (warp < 2)
    {
        f32 x[kPerLane];
        #pragma unroll
        for (int i = 0; i < kPerLane; i++) x[i] = element<false>(i) < P ? sNew[warp][element<false>(i)] : 0.0f;
        const i32 position = split.n - 1;
        put_row<false>(args.cache, warp == 0, args.cache.page(b, args.cache.page_index(position)), position, g, x);
    }
}

// Rows of queries, V elements to an access; rows and channels that there are not are 0.
template <int V, typename T>
__device__ inline void load_rows(T* sTo, int pitch, int width, const T* from, i64 stride, int rows, int P)
{
    const int perRow = width / V;
    #pragma unroll 2
    for (int i = threadIdx.x; i < kHeads * perRow; i += kThreads)
    {
        const int r = i / perRow, p = i % perRow * V;
        Pack<T, V> pack = {};
        if (r < rows && p < P) pack = load_pack<V>(from + r * stride + p);
        *reinterpret_cast<Pack<T, V>*>(sTo + r * pitch + p) = pack;
    }
}

// The queries of up to kHeads heads, rotated.
template <typename T, typename C>
__device__ inline void load_queries(const DecodeArgs<T, C>& args, const Split& split, const Tiles<T, C>& tiles, int head, int heads)
{
    const int P = args.cache.P;
    const T* q = args.q + blockIdx.z * args.qBatch + head * args.qHead;
    if (args.isQWide) load_rows<16 / sizeof(T)>(tiles.q, tiles.pitch, tiles.width, q, args.qHead, heads, P);
    else load_rows<1>(tiles.q, tiles.pitch, tiles.width, q, args.qHead, heads, P);
    if (args.pairs == 0) return;
    __syncthreads();                                          // the rows are there; their pairs are rotated by other threads
    for (int i = threadIdx.x; i < args.pairs; i += kThreads)
    {
        const f32 c = args.cosine[split.position * args.pairs + i], s = args.sine[split.position * args.pairs + i];
        for (int r = 0; r < heads; r++) rotate<T>(tiles.q + r * tiles.pitch, i, args.pairs, args.isHalf, c, s);
    }
}

// Starts loading the tile that begins at a position; what is not seen is 0.
template <typename T, typename C>
__device__ inline void start_tile(const DecodeArgs<T, C>& args, const Split& split, const Tiles<T, C>& tiles, const i32 (&sPages)[kMaxSplit / kLeastPage + 1], i32 from, int stage)
{
    constexpr int V = 16 / sizeof(C), K = kKeys<T>;
    const CacheArgs<C>& cache = args.cache;
    const int g = blockIdx.y, perRow = tiles.width / (args.isWide ? V : 1), step = args.isWide ? V : 1, firstPage = cache.page_index(split.begin);
    C* sKeys = tiles.stage(stage);
    C* sValues = sKeys + K * tiles.stagePitch;
    int row = threadIdx.x / perRow, c = threadIdx.x % perRow;
    const int rows = kThreads / perRow, rest = kThreads % perRow;
    #pragma unroll 1                                          // copies wait for nothing: more at a time would only take registers
    while (row < K)
    {
        const i32 position = from + row;
        const bool isThere = split.sees(position) && c * step < cache.P;
        const i64 at = isThere ? cache.row(sPages[cache.page_index(position) - firstPage], position, g) + c * step : 0;
        const int to = row * tiles.stagePitch + c * step;
        if (args.isWide)
        {
            copy_async(shared_address(sKeys + to), cache.keys + at, isThere ? 16 : 0);
            copy_async(shared_address(sValues + to), cache.values + at, isThere ? 16 : 0);
        }
        else
        {
            sKeys[to] = isThere ? cache.keys[at] : C{};
            sValues[to] = isThere ? cache.values[at] : C{};
        }
        row += rows;
        c += rest;
        if (c >= perRow)
        {
            c -= perRow;
            row++;
        }
    }
    if constexpr (Tiles<T, C>::kIsBytes)
        if (threadIdx.x < K / 2)                              // two keys' scales at a time
        {
            const i32 position = from + 2 * threadIdx.x;
            f32* to = tiles.scale(stage) + 4 * threadIdx.x;
            if (position + 1 == split.first)                  // the first of the two may be of a ring's row that is written now
            {
                const i64 at = cache.scale(sPages[cache.page_index(position) - firstPage], position, g) + 2;
                to[0] = to[1] = 0;
                to[2] = cache.scales[at];
                to[3] = cache.scales[at + 1];
                return;
            }
            const int count = position < split.end && position >= split.first ? position + 1 < split.end ? 16 : 8 : 0;
            const i64 at = count > 0 ? cache.scale(sPages[cache.page_index(position) - firstPage], position, g) : 0;
            copy_async(shared_address(to), cache.scales + at, count);
        }
}

// A tile of bytes becomes elements of T.
template <typename T>
__device__ inline void expand_tile(const Tiles<T, i8>& tiles, int stage)
{
    constexpr int V = 8;
    const int perRow = tiles.width / V;
    for (int i = threadIdx.x; i < 2 * kKeys<T> * perRow; i += kThreads)
    {
        const int row = i / perRow, c = i % perRow * V;       // keys, then values
        const f32 scale = tiles.scale(stage)[row % kKeys<T> * 2 + row / kKeys<T>];
        const Pack<i8, V> codes = load_pack<V>(tiles.stage(stage) + row * tiles.stagePitch + c);
        f32 x[V];
        #pragma unroll
        for (int v = 0; v < V; v++) x[v] = codes.at[v] * scale;
        stash<V>(tiles.tiles + row * tiles.pitch + c, x);
    }
}

// What a block sums up for up to kHeads heads: rows are heads, and this lane holds rows g and g + 8 of its fragments.
template <typename T>
struct Sums
{
    f32 o[kUnits][2][4] = {};                                 // unit u of this warp: channels 16·(warp + kWarps·u) and on
    f32 most[2] = { -kInfinity, -kInfinity }, sum[2] = {};    // the sum is that of this lane's keys

    // One tile of keys and values.
    template <typename C>
    __device__ inline void add(const DecodeArgs<T, C>& args, const Split& split, const T* sQ, const T* sKeys, const T* sValues, int width, int pitch, i32 from,
        T (&sP)[kHeads * kScorePitch<T>], f32 (&sMost)[kScoreWarps<T>][kHeads])
    {
        const int warp = threadIdx.x / kWarp;
        f32 score[2][4] = {};
        if (warp < kScoreWarps<T>)
        {
            multiply<false, false, 2>(score, sQ, pitch, sKeys + warp * 16 * pitch, pitch, width, 16);
            f32 high[2] = { -kInfinity, -kInfinity };
            #pragma unroll
            for (int j = 0; j < 2; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++)
                {
                    f32& s = score[j][part];
                    s *= args.scale;
                    if (args.cap > 0) s = args.cap * tanhf(s / args.cap);
                    if (!split.sees(from + warp * 16 + j * 8 + fragment_column(part))) s = -kInfinity;
                    high[part / 2] = fmaxf(high[part / 2], s);
                }
            #pragma unroll
            for (int r = 0; r < 2; r++)
            {
                high[r] = fmaxf(high[r], __shfl_xor_sync(kAllLanes, high[r], 1));
                high[r] = fmaxf(high[r], __shfl_xor_sync(kAllLanes, high[r], 2));
                if (threadIdx.x % 4 == 0) sMost[warp][fragment_row(2 * r)] = high[r];
            }
        }
        __syncthreads();                                      // the largest scores of all warps are there
        f32 kept[2];
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            f32 next = most[r];
            #pragma unroll
            for (int w = 0; w < kScoreWarps<T>; w++) next = fmaxf(next, sMost[w][fragment_row(2 * r)]);
            kept[r] = next == -kInfinity ? 1.0f : expf(most[r] - next);
            most[r] = next;
            sum[r] *= kept[r];
        }
        if (warp < kScoreWarps<T>)
        {
            #pragma unroll
            for (int j = 0; j < 2; j++)
                #pragma unroll
                for (int part = 0; part < 4; part += 2)
                {
                    const f32 base = most[part / 2] == -kInfinity ? 0.0f : most[part / 2];
                    const f32 p[2] = { expf(score[j][part] - base), expf(score[j][part + 1] - base) };
                    sum[part / 2] += p[0] + p[1];
                    stash<2>(sP + fragment_row(part) * kScorePitch<T> + warp * 16 + j * 8 + fragment_column(part), p);
                }
        }
        __syncthreads();                                      // the probabilities of all keys are there
        const int keys = min(kKeys<T>, (split.end - from + 15) / 16 * 16);
        #pragma unroll
        for (int u = 0; u < kUnits; u++)
        {
            const int channel = 16 * (warp + kWarps * u);
            if (channel >= width) break;
            #pragma unroll
            for (int j = 0; j < 2; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) o[u][j][part] *= kept[part / 2];
            multiply<false, true, 2>(o[u], sP, kScorePitch<T>, sValues + channel, pitch, keys, 16);
        }
    }

    // The whole rows' sums, of all warps.
    __device__ inline void total(f32 (&sSum)[kScoreWarps<T>][kHeads])
    {
        const int warp = threadIdx.x / kWarp;
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            const f32 own = row_sum(sum[r]);
            if (warp < kScoreWarps<T> && threadIdx.x % 4 == 0) sSum[warp][fragment_row(2 * r)] = own;
        }
        __syncthreads();                                      // the sums of all warps are there
        #pragma unroll
        for (int r = 0; r < 2; r++)
        {
            sum[r] = 0;
            #pragma unroll
            for (int w = 0; w < kScoreWarps<T>; w++) sum[r] += sSum[w][fragment_row(2 * r)];
        }
    }

    // To memory: the output where this is the only split with keys, else a partial result.
    template <typename C>
    __device__ inline void put(const DecodeArgs<T, C>& args, const Split& split, int head, int heads) const
    {
        const int P = args.cache.P, pitch = (P + 3) / 4 * 4;
        #pragma unroll
        for (int part = 0; part < 4; part += 2)
        {
            const int r = fragment_row(part);
            if (r >= heads) continue;
            const i64 row = (i64)blockIdx.z * args.H + head + r, place = row * gridDim.x + blockIdx.x;
            const f32 share = sum[part / 2] == 0 ? 0.0f : 1.0f / sum[part / 2];
            #pragma unroll
            for (int u = 0; u < kUnits; u++)
                #pragma unroll
                for (int j = 0; j < 2; j++)
                {
                    const int p = 16 * (threadIdx.x / kWarp + kWarps * u) + 8 * j + fragment_column(part);
                    #pragma unroll
                    for (int v = 0; v < 2; v++)
                        if (p + v < P && split.live == 1) args.o[row * P + p + v] = from_f32<T>(o[u][j][part + v] * share);
                    const f32 pair[2] = { o[u][j][part], o[u][j][part + 1] };
                    if (p < pitch && split.live > 1) store<2>(args.partialO + place * pitch + p, pair);
                }
            if (threadIdx.x >= kWarp || threadIdx.x % 4 != 0) continue;
            const f32 ends[2] = { most[part / 2], sum[part / 2] };
            if (split.live > 1) store<2>(args.partialMax + place * 2, ends);
            else args.lse[row] = sum[part / 2] == 0 ? -kInfinity : most[part / 2] + logf(sum[part / 2]);
        }
    }
};

// Merges the splits of a group's heads in order, a head to a warp at a time.
template <typename T, typename C>
__device__ inline void merge(const DecodeArgs<T, C>& args, int live)
{
    const int P = args.cache.P, pitch = (P + 3) / 4 * 4, R = args.H / args.cache.G, lane = threadIdx.x % kWarp;
    for (int r = threadIdx.x / kWarp; r < R; r += kWarps)
    {
        const i64 row = (i64)blockIdx.z * args.H + blockIdx.y * R + r;
        const f32* ends = args.partialMax + row * gridDim.x * 2;
        f32 most = -kInfinity, sum = 0;
        for (int i = lane; i < live; i += kWarp) most = fmaxf(most, ends[2 * i]);
        most = warp_max(most);
        for (int i = lane; i < live; i += kWarp) sum += most == -kInfinity ? 0.0f : expf(ends[2 * i] - most) * ends[2 * i + 1];
        sum = warp_sum(sum);
        for (int p = lane * 4; p < P; p += kWarp * 4)
        {
            f32 o[4] = {};
            for (int i = 0; i < live; i++)
            {
                f32 x[4];
                load<4>(x, args.partialO + (row * gridDim.x + i) * pitch + p);
                const f32 share = most == -kInfinity ? 0.0f : expf(ends[2 * i] - most);
                #pragma unroll
                for (int v = 0; v < 4; v++) o[v] = fmaf(share, x[v], o[v]);
            }
            #pragma unroll
            for (int v = 0; v < 4; v++)
                if (p + v < P) args.o[row * P + p + v] = from_f32<T>(sum == 0 ? 0.0f : o[v] / sum);
        }
        if (lane == 0) args.lse[row] = most == -kInfinity ? most : most + logf(sum);
    }
}

// Nothing is seen: o = 0.
template <typename T, typename C>
__device__ inline void put_nothing(const DecodeArgs<T, C>& args)
{
    const int R = args.H / args.cache.G;
    const i64 row = (i64)blockIdx.z * args.H + blockIdx.y * R;
    for (int i = threadIdx.x; i < R * args.cache.P; i += kThreads) args.o[row * args.cache.P + i] = from_f32<T>(0);
    for (int r = threadIdx.x; r < R; r += kThreads) args.lse[row + r] = -kInfinity;
}

template <typename T, typename C>
__global__ void __launch_bounds__(kThreads, 4) attention_decode(const DecodeArgs<T, C> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ __align__(16) T sP[kHeads * kScorePitch<T>];
    __shared__ f32 sMost[kScoreWarps<T>][kHeads], sNew[2][kMaxP];
    __shared__ i32 sPages[kMaxSplit / kLeastPage + 1];
    __shared__ i64 sLength, sPosition;
    __shared__ int sIsLast;
    const CacheArgs<C>& cache = args.cache;
    const int g = blockIdx.y, b = blockIdx.z, R = args.H / cache.G;
    if (threadIdx.x == 0)
    {
        sLength = cache.lengths[b];
        sPosition = args.positions ? args.positions[b] : sLength;
        if (sLength >= 0 && (sLength + (args.k ? 1 : 0) > cache.capacity || args.pairs > 0 && (u64)sPosition >= (u64)args.tableRows)) trap();
    }
    __syncthreads();                                          // the length is there
    const Split split(args, (i32)sLength, sPosition);
    if (sLength < 0)
    {
        if (blockIdx.x == 0) put_nothing(args);
        return;
    }
    if (blockIdx.x < split.live)
    {
        const Tiles<T, C> tiles(sMemory, cache.P, args.stages);
        const i32 low = max(split.begin, split.first);
        for (int i = threadIdx.x; low < split.end && i <= cache.page_index(split.end - 1) - cache.page_index(split.begin); i += kThreads)
            sPages[i] = cache.page_index(low) <= cache.page_index(split.begin) + i ? cache.page(b, cache.page_index(split.begin) + i) : 0;
        if (args.k && split.end == split.n) append(args, split, sNew);
        const int count = (split.end - split.begin + kKeys<T> - 1) / kKeys<T>, ahead = args.stages - 1;
        for (int h = 0; h < R; h += kHeads)
        {
            __syncthreads();                                  // the pages and the new row are there; the former heads' queries and tiles have been used by all
            for (int i = 0; i < ahead; i++)
            {
                if (i < count) start_tile(args, split, tiles, sPages, split.begin + i * kKeys<T>, i);
                copy_async_commit();
            }
            load_queries(args, split, tiles, g * R + h, min(kHeads, R - h));
            Sums<T> sums;
            for (int i = 0; i < count; i++)
            {
                const i32 from = split.begin + i * kKeys<T>;
                if (ahead == 2) copy_async_wait<1>();
                else copy_async_wait<0>();
                __syncthreads();                              // the tile of all threads is there, and the queries; the one before it has been used by all
                if (i + ahead < count) start_tile(args, split, tiles, sPages, from + ahead * kKeys<T>, (i + ahead) % args.stages);
                copy_async_commit();
                const T* sKeys;
                if constexpr (Tiles<T, C>::kIsBytes)
                {
                    expand_tile(tiles, i % args.stages);
                    __syncthreads();                          // all of the tile is expanded
                    sKeys = tiles.tiles;
                }
                else sKeys = tiles.stage(i % args.stages);
                sums.add(args, split, tiles.q, sKeys, sKeys + kKeys<T> * tiles.pitch, tiles.width, tiles.pitch, from, sP, sMost);
            }
            sums.total(sMost);
            sums.put(args, split, g * R + h, min(kHeads, R - h));
        }
        __syncthreads();                                      // what all threads wrote comes before the ticket
    }
    u32* tickets = cache.tickets + b * (cache.G + 1);
    if (threadIdx.x == 0) sIsLast = is_last(tickets + g, gridDim.x);
    __syncthreads();                                          // the ticket is known
    if (!sIsLast) return;
    if (split.live > 1) merge(args, split.live);
    if (threadIdx.x == 0 && args.k && is_last(tickets + cache.G, cache.G)) cache.lengths[b] = split.n;
}
