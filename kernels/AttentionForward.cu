// AttentionForward.cu
//
// Computes   o[i] = Σ_j p[i,j]·v[j] with p[i,j] = exp(s[i,j] − lse[i]), lse[i] = ln Σ_j exp(s[i,j]), over the keys j that query i sees;
//            s[i,j] = scale·q[i]·k[j], or cap·tanh(scale·q[i]·k[j] / cap). A query that sees no key has o = 0 and lse = −∞.
// Source     Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1; online softmax over tiles: Dao et al. 2022, arXiv:2205.14135, and Dao 2023, arXiv:2307.08691.
// Method     a block owns a tile of queries of one head, or of all heads of a key head where they are few (a row is then a query and a head), and walks the tiles of
//            keys that any of them sees; no other tile is loaded. K and V pass through a ring of buffers in shared memory, filled by cp.async while the former one
//            is multiplied. A warp owns 16 or 32 rows: their scores, p and o stay in its registers, and p feeds the second product from there. Exponents are
//            taken from a reference of each row, which follows its largest score only when that has grown by kSlack: o is seldom scaled.
// Layout     q [B, L, H, P], k, v [B, S, G, P], any strides but the last; o [B, L, H, P]; lse [B, L, H] float; rest null, or of f32 [B, L, H], else as o; see AttentionShape.
// Launch     grid pairs·tiles, block 128 (64 for f32 of D = 256); dynamic shared memory (rows + ring·Keys)·columns elements, see AttentionPlan.
// Traffic    reads q once and of K and V the tiles that a tile of queries sees, from the L2 cache for all but the first; writes o, lse and rest once.
// Precision  loads T, accumulates f32, stores T. bf16, f16: p is rounded to T as operand of p·v, not in lse. f32: products are multiply-adds. exp by ex2.approx.
//            rest is what rounding took from lse·log2 e (f32) or from o: the gradient needs it where keys are large. Deterministic: no atomics; a sequence gives the same bits alone and packed with others.
// Limits     P ≤ D ≤ 256, D a class of head sizes. bf16, f16: columns are P and zeros up to a multiple of 16, beyond 128 of 32, in shared memory only. f32: D.
//            isWide: addresses, strides and P are multiples of 16 bytes.
// Variants   attention_forward<{bf16|f16}, {64|128|256}, 64>; attention_forward<{bf16|f16}, 128, 32>;
//            attention_forward<f32, {64|128}, 32>; attention_forward<f32, 256, 16>
#include "common/Attention.cuh"
#include "common/Fragments.cuh"
#include "common/Panels.cuh"

constexpr f32 kSlack = 8;                                     // p stays below 2⁸, far from the end of f16

template <typename T>
struct AttentionForwardArgs                                   // mirrored in CudaAttention.cs, field for field
{
    T* o; f32* lse; void* rest;
    AttentionShape<T> shape;
};

// The rows of a block: row x of a unit is query x / heads and head x % heads of the unit.
template <typename T>
struct QueryRows
{
    const T* from;                                            // of the unit's first head, at the sequence's first query
    i64 step, head;
    i32 heads, first, count;                                  // the tile's first row; the unit's rows

    __device__ inline i32 query(int row) const { return heads == 1 ? first + row : (first + row) / heads; }
    __device__ inline i32 head_of(int row) const { return heads == 1 ? 0 : (first + row) % heads; }
    __device__ inline const T* operator()(int row) const
    {
        const int inside = min(row, count - 1 - first);       // the division is of rows that exist
        return from + query(inside) * step + head_of(inside) * head;
    }
};

// Rows of a block in o and lse, which are dense.
struct AttentionOutput
{
    i64 at;                                                   // the row of the unit's first head, at the sequence's first query
    i32 H, heads, first, count;

    template <typename T>
    __device__ inline AttentionOutput(const AttentionShape<T>& shape, const AttentionPlace& place, int rows)
        : H(shape.H), heads(shape.H / shape.units), first(place.tile * rows), count(place.queries * heads) { at = (place.batch * shape.L + place.first) * H + place.unit * heads; }

    __device__ inline bool has(int row) const { return first + row < count; }
    __device__ inline i64 operator()(int row) const { return heads == 1 ? at + (i64)(first + row) * H : at + (i64)((first + row) / heads) * H + (first + row) % heads; }
};

// What a block multiplies, of 16-bit elements: on the tensor cores, from panels. D is the class of head sizes that registers are laid out for; products are of the
// columns that there are, in multiples of 16, or beyond 128 of 32.
template <typename T, int D, int Keys>
struct AttentionTiles
{
    static constexpr int kRowTiles = D <= 128 ? 2 : 1, kWarps = 4, kThreads = kWarps * kWarp, kRows = kWarps * 16 * kRowTiles, kRing = D <= 64 ? 4 : 2;
    static constexpr int kTogether = 2 / kRowTiles;           // panels of V that are multiplied in turn: four sums at a time wait for nothing
    using Queries = PanelTile<kRows, D>;
    using Pairs = PanelTile<Keys, D>;                         // of keys or values

    u8* sQ;                                                   // [kRows, 16·panels]; then o
    u32 across, along;                                        // this lane's row, of Q and of V; of K
    int warpRow, panels;

    __device__ inline AttentionTiles(u8* sMemory, int P) : sQ(sMemory), across(kept(panel_lane<true>())), along(kept(panel_lane<false>())), warpRow(threadIdx.x / kWarp * 16 * kRowTiles), panels((P + 16 * kTogether - 1) / (16 * kTogether) * kTogether) { }

    __device__ inline u8* slot(int i) const { return sQ + (Queries::kPanel + i * Pairs::kPanel) * panels; }

    __device__ inline void load(u8* sTile, const EvenRows<T>& from, int rows, int columns, bool isWide) const
    {
        if (!isWide) Pairs::template fill<kThreads, T>(sTile, from.seldom(), rows, columns, panels);
        // All rows of most tiles exist.
        else if (rows >= Keys && columns == 16 * panels) Pairs::template copy_whole<kThreads>(shared_address(sTile), from, panels);
        else Pairs::template copy<kThreads>(shared_address(sTile), from.seldom(), rows, columns, panels);
    }

    __device__ inline void load_queries(const QueryRows<T>& from, int columns, bool isWide) const
    {
        if (isWide) Queries::template copy<kThreads>(shared_address(sQ), from, from.count - from.first, columns, panels);
        else Queries::template fill<kThreads, T>(sQ, from, from.count - from.first, columns, panels);
    }

    // s = Q·Kᵀ of this warp's rows.
    __device__ inline void scores(f32 (&s)[kRowTiles][Keys / 8][4], const u8* sK) const
    {
        const u32 q = shared_address(sQ) + warpRow * 32 + across, key = shared_address(sK) + along;
        u32 a[kRowTiles][4];
        score_step<0>(s, a, q, key);
    }

    // Steps are instances, not a loop, so that the distances of loads are parts of their instructions. Step: 16 columns, and of these 16 keys.
    template <int Step>
    __device__ inline void score_step(f32 (&s)[kRowTiles][Keys / 8][4], u32 (&a)[kRowTiles][4], u32 q, u32 key) const
    {
        constexpr int K = Step / (Keys / 16), J = Step % (Keys / 16);
        if constexpr (J == 0)
        {
            if (K >= Pairs::kLeast && K % kTogether == 0 && K >= panels) return;
            Queries::template load<0, K, false>(a[0], q);
            if constexpr (kRowTiles == 2) Queries::template load<16, K, false>(a[kRowTiles - 1], q);
        }
        u32 b[4];
        Pairs::template load<16 * J, K, false>(b, key);
        #pragma unroll
        for (int i = 0; i < kRowTiles; i++)
        {
            mma_16x8x16_at<K == 0, T>(s[i][2 * J], a[i], b[0], b[1]);
            mma_16x8x16_at<K == 0, T>(s[i][2 * J + 1], a[i], b[2], b[3]);
        }
        if constexpr (Step + 1 < D / 16 * (Keys / 16)) score_step<Step + 1>(s, a, q, key);
    }

    struct Weights { u32 at[kRowTiles][Keys / 16][4]; };      // p as operand

    __device__ inline void keep(Weights& weights, const f32 (&p)[kRowTiles][Keys / 8][4]) const
    {
        #pragma unroll
        for (int i = 0; i < kRowTiles; i++)
            #pragma unroll
            for (int k = 0; k < Keys / 16; k++)
                #pragma unroll
                for (int part = 0; part < 4; part++) weights.at[i][k][part] = pair_of<T>(p[i][2 * k + part / 2][part % 2 * 2], p[i][2 * k + part / 2][part % 2 * 2 + 1]);
    }

    // o += p·V of this warp's rows.
    __device__ inline void add_values(f32 (&o)[kRowTiles][D / 8][4], const Weights& weights, const u8* sV) const
    {
        const u32 value = shared_address(sV) + across;
        value_step<0>(o, weights, value);
    }

    // Step: kTogether panels, of these 16 keys, and of these a panel.
    template <int Step>
    __device__ inline void value_step(f32 (&o)[kRowTiles][D / 8][4], const Weights& weights, u32 value) const
    {
        constexpr int kSteps = Keys / 16 * kTogether, J = Step / kSteps * kTogether + Step % kTogether, K = Step % kSteps / kTogether;
        if constexpr (Step % kSteps == 0)
            if (J >= Pairs::kLeast && J >= panels) return;
        u32 b[4];
        Pairs::template load<16 * K, J, true>(b, value);
        #pragma unroll
        for (int i = 0; i < kRowTiles; i++)
        {
            mma_16x8x16<T>(o[i][2 * J], weights.at[i][K], b[0], b[1]);
            mma_16x8x16<T>(o[i][2 * J + 1], weights.at[i][K], b[2], b[3]);
        }
        if constexpr (Step + 1 < Keys / 16 * (D / 16)) value_step<Step + 1>(o, weights, value);
    }

    // The rows of o through the place of their queries, which no other warp has read, so that they go out in whole lines. to(row) is null behind the last row.
    template <typename To>
    __device__ inline void store_rows(const f32 (&o)[kRowTiles][D / 8][4], const To& to, int columns, bool isWide) const
    {
        const int lane = threadIdx.x % kWarp;
        #pragma unroll
        for (int j = 0; j < D / 8; j++)
        {
            if (j >= 2 * panels) break;
            #pragma unroll
            for (int i = 0; i < kRowTiles; i++)
                #pragma unroll
                for (int half = 0; half < 2; half++)
                    *reinterpret_cast<u32*>(sQ + Queries::at(warpRow + 16 * i + 8 * half + lane / 4, j) + lane % 4 * 4) = pair_of<T>(o[i][j][2 * half], o[i][j][2 * half + 1]);
        }
        __syncwarp();                                         // this warp's rows of o are there
        for (int r = lane / 8; r < 16 * kRowTiles; r += kWarp / 8)
        {
            T* place = to(warpRow + r);
            if (!place) continue;
            for (int chunk = lane % 8; chunk * 8 < columns; chunk += 8)
            {
                const u8* from = sQ + Queries::at(warpRow + r, chunk);
                if (isWide)
                {
                    const uint4 words = *reinterpret_cast<const uint4*>(from);
                    store_words(place + chunk * 8, {words.x, words.y, words.z, words.w});
                }
                else
                    for (int v = 0; v < min(8, columns - chunk * 8); v++) place[chunk * 8 + v] = reinterpret_cast<const T*>(from)[v];
            }
        }
    }
};

// Of floats: by multiply-adds.
template <int D, int Keys>
struct AttentionTiles<f32, D, Keys>
{
    static constexpr int kRowTiles = 1, kWarps = D <= 128 ? 4 : 2, kThreads = kWarps * kWarp, kRows = kWarps * 16, kRing = 2, kPitch = D + 4, kScorePitch = Keys + 4;
    static constexpr int kQueryBytes = kRows * kPitch * 4, kTileBytes = Keys * kPitch * 4, kBytes = kQueryBytes + kRing * kTileBytes + kRows * kScorePitch * 4;

    u8* sQ;
    f32* sP;                                                  // [kRows, kScorePitch]
    int warpRow;

    __device__ inline AttentionTiles(u8* sMemory, int) : sQ(sMemory), sP(reinterpret_cast<f32*>(sMemory + kQueryBytes + kRing * kTileBytes)), warpRow(threadIdx.x / kWarp * 16) { }

    __device__ inline u8* slot(int i) const { return sQ + kQueryBytes + i * kTileBytes; }

    __device__ inline void load(u8* sTile, const EvenRows<f32>& from, int rows, int columns, bool isWide) const { fill_floats<Keys, D, kThreads>(sTile, from, rows, columns, isWide); }

    __device__ inline void load_queries(const QueryRows<f32>& from, int columns, bool isWide) const { fill_floats<kRows, D, kThreads>(sQ, from, from.count - from.first, columns, isWide); }

    __device__ inline void scores(f32 (&s)[1][Keys / 8][4], const u8* sK) const
    {
        #pragma unroll
        for (int j = 0; j < Keys / 8; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) s[0][j][part] = 0;
        multiply<false, false>(s[0], reinterpret_cast<const f32*>(sQ) + warpRow * kPitch, kPitch, reinterpret_cast<const f32*>(sK), kPitch, D, Keys);
    }

    struct Weights { };                                       // p stands in shared memory

    __device__ inline void keep(Weights&, const f32 (&p)[1][Keys / 8][4]) const
    {
        f32* own = sP + warpRow * kScorePitch;                // the barriers before K and before V stand between its reads and writes
        #pragma unroll
        for (int j = 0; j < Keys / 8; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) own[fragment_row(part) * kScorePitch + 8 * j + fragment_column(part)] = p[0][j][part];
    }

    __device__ inline void add_values(f32 (&o)[1][D / 8][4], const Weights&, const u8* sV) const
    {
        multiply<false, true>(o[0], sP + warpRow * kScorePitch, kScorePitch, reinterpret_cast<const f32*>(sV), kPitch, Keys, D);
    }

    template <typename To>
    __device__ inline void store_rows(const f32 (&o)[1][D / 8][4], const To& to, int columns, bool isWide) const
    {
        #pragma unroll
        for (int half = 0; half < 2; half++)
        {
            f32* place = to(warpRow + fragment_row(2 * half));
            if (!place) continue;
            #pragma unroll
            for (int j = 0; j < D / 8; j++)
            {
                const int column = 8 * j + fragment_column(0);
                if (isWide && column < columns) store<2>(place + column, {o[0][j][2 * half], o[0][j][2 * half + 1]});
                if (!isWide && column < columns) place[column] = o[0][j][2 * half];
                if (!isWide && column + 1 < columns) place[column + 1] = o[0][j][2 * half + 1];
            }
        }
    }
};

// The softmax of a warp's rows as their scores arrive. This lane has two rows of each 16, and a quarter of their keys.
template <int RowTiles>
struct OnlineSoftmax
{
    f32 reference[2 * RowTiles], sum[2 * RowTiles];           // exponents are taken from the reference; the sum is of this lane's keys

    __device__ inline OnlineSoftmax()
    {
        #pragma unroll
        for (int r = 0; r < 2 * RowTiles; r++)
        {
            reference[r] = -kInfinity;
            sum[r] = 0;
        }
    }

    // Scores become p, and o follows where a reference has moved.
    template <int J, int O>
    __device__ inline void next(f32 (&s)[RowTiles][J][4], f32 (&o)[RowTiles][O][4], f32 factor)
    {
        f32 scale[2 * RowTiles];
        bool isHigher = false;
        #pragma unroll
        for (int r = 0; r < 2 * RowTiles; r++)
        {
            const int i = r / 2, half = r % 2 * 2;
            f32 top = fmaxf(s[i][0][half], s[i][0][half + 1]);
            #pragma unroll
            for (int j = 1; j < J; j++) top = fmaxf(top, fmaxf(s[i][j][half], s[i][j][half + 1]));
            top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
            top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2)) * factor;
            const bool isRowHigher = top > reference[r] + kSlack;
            scale[r] = isRowHigher ? power_of_two(reference[r] - top) : 1.0f;
            reference[r] = isRowHigher ? top : reference[r];
            sum[r] *= scale[r];
            isHigher |= isRowHigher;
        }
        if (__any_sync(kAllLanes, isHigher))
            #pragma unroll
            for (int j = 0; j < O; j++)
                #pragma unroll
                for (int r = 0; r < 2 * RowTiles; r++)
                {
                    o[r / 2][j][r % 2 * 2] *= scale[r];
                    o[r / 2][j][r % 2 * 2 + 1] *= scale[r];
                }
        #pragma unroll
        for (int r = 0; r < 2 * RowTiles; r++)
        {
            const int i = r / 2, half = r % 2 * 2;
            const f32 from = reference[r] == -kInfinity ? 0.0f : -reference[r];
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = half; part < half + 2; part++)
                {
                    s[i][j][part] = power_of_two(fmaf(s[i][j][part], factor, from));
                    sum[r] += s[i][j][part];
                }
        }
    }
};

// Scores outside the mask become -∞. s begins at a key.
template <typename Rows, int RowTiles, int J>
__device__ inline void hide(f32 (&s)[RowTiles][J][4], i32 key, const Rows& rows, const AttentionMask& mask)
{
    const int thread = thread_again(), first = thread / kWarp * 16 * RowTiles + thread % kWarp / 4, column = key + thread % 4 * 2;
    #pragma unroll
    for (int r = 0; r < 2 * RowTiles; r++)
    {
        const i32 query = rows.query(first + 8 * r), low = mask.low(query) - column, high = mask.high(query) - column;
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int odd = 0; odd < 2; odd++)
                if (8 * j + odd < low || 8 * j + odd >= high) s[r / 2][j][r % 2 * 2 + odd] = -kInfinity;
    }
}

template <typename T, int D, int Keys>
__global__ void __launch_bounds__(AttentionTiles<T, D, Keys>::kThreads) attention_forward(const AttentionForwardArgs<T> args)
{
    using Tiles = AttentionTiles<T, D, Keys>;
    constexpr int kRowTiles = Tiles::kRowTiles, kSlots = Tiles::kRing / 2, kAhead = kSlots - 1;      // tiles of K, and as many of V
    extern __shared__ __align__(128) u8 sMemory[];            // Q, then the ring: tiles of K and V in turn
    const AttentionShape<T>& shape = args.shape;
    const AttentionPlace place(shape, blockIdx.x);
    const AttentionMask mask(shape, place);
    Tiles tiles(sMemory, shape.P);

    const i32 heads = shape.H / shape.units, head = place.unit * heads, group = head / (shape.H / shape.G);
    const QueryRows<T> rows = {
        shape.q + place.batch * shape.qBatch + place.first * shape.qStep + head * shape.qHead, shape.qStep, shape.qHead, heads, place.tile * Tiles::kRows, place.queries * heads
    };
    const i32 firstQuery = rows.query(0), lastQuery = rows.query(min(Tiles::kRows, rows.count - rows.first) - 1);
    // Tiles of keys that any of these queries sees; those from whole to wholeEnd are seen by all, without a mask.
    const i32 begin = mask.low(firstQuery) / Keys, end = (mask.high(lastQuery) + Keys - 1) / Keys;
    const i32 allLow = mask.low(lastQuery), allHigh = mask.high(firstQuery);
    EvenRows<T> keys(shape.k + place.batch * shape.kBatch + (place.first + begin * Keys) * shape.kStep + group * shape.kHead, shape.kStep);
    EvenRows<T> values(shape.v + place.batch * shape.vBatch + (place.first + begin * Keys) * shape.vStep + group * shape.vHead, shape.vStep);

    // Starts loading a tile; one behind the end leaves an empty group, so that the count of groups stays.
    const auto fetch = [&](EvenRows<T>& from, i32 tile, int isValue)
    {
        if (tile < end) tiles.load(tiles.slot((tile - begin) % kSlots * 2 + isValue), from, place.keys - tile * Keys, shape.P, shape.isWide);
        from.own += Keys * from.step;
        copy_async_commit();
    };

    f32 o[kRowTiles][D / 8][4] = {};
    OnlineSoftmax<kRowTiles> softmax;
    if (begin < end) tiles.load_queries(rows, shape.P, shape.isWide);
    fetch(keys, begin, 0);
    #pragma unroll
    for (int ahead = 0; ahead < kAhead; ahead++)
    {
        fetch(values, begin + ahead, 1);
        fetch(keys, begin + ahead + 1, 0);
    }
    for (i32 tile = begin; tile < end; tile++)
    {
        f32 s[kRowTiles][Keys / 8][4];
        copy_async_wait<2 * kAhead>();
        __syncthreads();                                      // K is there, and all have read the V whose place is filled next
        fetch(values, tile + kAhead, 1);
        tiles.scores(s, tiles.slot((tile - begin) % kSlots * 2));
        #pragma unroll
        for (int i = 0; i < kRowTiles; i++) bend(s[i], shape);
        if (tile * Keys < allLow || tile * Keys + Keys > allHigh)
            hide(s, tile * Keys, rows, mask);
        softmax.next(s, o, shape.factor);
        typename Tiles::Weights weights;
        tiles.keep(weights, s);
        copy_async_wait<2 * kAhead>();
        __syncthreads();                                      // V is there, and all have read the K whose place is filled next
        fetch(keys, tile + kAhead + 1, 0);
        tiles.add_values(o, weights, tiles.slot((tile - begin) % kSlots * 2 + 1));
    }

    const AttentionOutput output(shape, AttentionPlace(shape, block_again()), Tiles::kRows);
    #pragma unroll
    for (int r = 0; r < 2 * kRowTiles; r++)
    {
        softmax.sum[r] = row_sum(softmax.sum[r]);
        const f32 inverse = softmax.sum[r] == 0 ? 0.0f : __fdividef(1, softmax.sum[r]);
        #pragma unroll
        for (int j = 0; j < D / 8; j++)
        {
            o[r / 2][j][r % 2 * 2] *= inverse;
            o[r / 2][j][r % 2 * 2 + 1] *= inverse;
        }
    }
    const auto rows_of = [&](T* to) { return [&output, &shape, to](int row) { return output.has(row) ? to + output(row) * shape.P : (T*)nullptr; }; };
    tiles.store_rows(o, rows_of(args.o), shape.P, shape.isWide);
    if (sizeof(T) == 2 && args.rest)
    {
        __syncwarp();                                         // this warp's rows of o have been read
        #pragma unroll
        for (int i = 0; i < kRowTiles; i++)
            #pragma unroll
            for (int j = 0; j < D / 8; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) o[i][j][part] -= to_f32(from_f32<T>(o[i][j][part]));
        tiles.store_rows(o, rows_of(static_cast<T*>(args.rest)), shape.P, shape.isWide);
    }
    #pragma unroll
    for (int r = 0; r < 2 * kRowTiles; r++)
    {
        const int row = tiles.warpRow + r / 2 * 16 + fragment_row(r % 2 * 2);
        if (threadIdx.x % 4 != 0 || !output.has(row)) continue;
        const f32 more = log2f(softmax.sum[r]), lse = softmax.sum[r] == 0 ? -kInfinity : (softmax.reference[r] + more) * kLn2;
        args.lse[output(row)] = lse;
        if (sizeof(T) == 4 && args.rest) static_cast<f32*>(args.rest)[output(row)] = softmax.sum[r] == 0 ? 0.0f : (softmax.reference[r] - __fmul_rn(lse, kLog2E)) + more;
    }
}
