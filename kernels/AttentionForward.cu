// AttentionForward.cu
//
// Computes   o[i] = Σ_j p[i,j]·v[j] with p[i,j] = exp(s[i,j] − lse[i]), lse[i] = ln Σ_j exp(s[i,j]), over the keys j that query i sees;
//            s[i,j] = scale·q[i]·k[j], or cap·tanh(scale·q[i]·k[j] / cap). A query that sees no key has o = 0 and lse = −∞.
// Source     Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1; online softmax over tiles: Dao et al. 2022, arXiv:2205.14135, and Dao 2023, arXiv:2307.08691.
// Method     a block owns a tile of queries of one head, or of all heads of a key head where they are few (a row is then a query and a head), and walks the tiles of
//            keys that any of them sees; no other tile is loaded. K and V pass, whole tiles or slices of them in turn, through a ring of buffers in shared memory,
//            filled by cp.async while the former one is multiplied. A warp owns 16 or 32 rows: their scores, p and o stay in its registers, and p feeds the
//            second product from there. Exponents are taken from a reference of each row, which follows its largest score only when that has grown by kSlack:
//            o is seldom scaled.
// Layout     q [B, L, H, P], k, v [B, S, G, P], any strides but the last; o [B, L, H, P]; lse [B, L, H] float; rest null, or of f32 [B, L, H], else as o in bytes; see AttentionShape.
// Launch     grid pairs·tiles, block 128 (64 for f32 of D = 256); dynamic shared memory (rows + ring·Slice)·columns elements, see AttentionPlan.
// Traffic    reads q once and of K and V the tiles that a tile of queries sees, from the L2 cache for all but the first; writes o, lse and rest once.
// Precision  loads T, accumulates f32, stores T. bf16, f16: p is rounded to T as operand of p·v, not in lse. f32: products are multiply-adds. exp by ex2.approx.
//            rest is what rounding took from lse·log2 e (f32), or of o the next 8 bits, see rest_of: the gradient needs it where keys are large. Deterministic: no atomics; a sequence gives the same
//            bits alone and packed with others.
// Limits     P ≤ D ≤ 256, D a class of head sizes. bf16, f16: columns are P and zeros up to a multiple of 16, beyond 128 of 32, in shared memory only. f32: D.
//            isWide: addresses, strides and P are multiples of 16 bytes.
// Variants   attention_forward<{bf16|f16}, {64|128|256}, 64, 64>; attention_forward<{bf16|f16}, 128, 64, 32>;
//            attention_forward<f32, {64|128}, 32, 32>; attention_forward<f32, 256, 16, 16>
#include "common/Attention.cuh"
#include "common/Fragments.cuh"
#include "common/Panels.cuh"

constexpr f32 kSlack = 8;                                     // p stays below 2⁸, far from the end of f16
constexpr f32 kLargest = 3.40282347e38f;                      // below every reference; and −∞ less it is −∞

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

    __device__ inline QueryRows(const AttentionShape<T>& shape, const AttentionPlace& place, int rows)
        : step(shape.qStep), head(shape.qHead), heads(shape.H / (i32)kept(shape.units)), first(place.tile * rows), count(place.queries * heads)
    {
        from = shape.q + place.batch * shape.qBatch + place.first * step + place.unit * heads * head;
    }

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
template <typename T, int D, int Keys, int Slice>
struct AttentionTiles
{
    static constexpr int kRowTiles = D <= 128 ? 2 : 1, kWarps = 4, kThreads = kWarps * kWarp, kRows = kWarps * 16 * kRowTiles, kRing = D <= 64 ? 4 : 2;
    static constexpr int kTogether = 2 / kRowTiles;           // panels of V that are multiplied in turn: four sums at a time wait for nothing
    using Queries = PanelTile<kRows, D>;
    using Pairs = PanelTile<Slice, D>;                        // of keys or values

    u8* sQ;                                                   // [kRows, 16·panels]; then o
    u32 across, along, copied;                                // this lane's row, of Q and of V; of K; this thread's first chunk of a copy
    int warpRow, panels;

    __device__ inline AttentionTiles(u8* sMemory, int P) : sQ(sMemory), across(kept(panel_lane<true>())), along(kept(panel_lane<false>())), copied(kept(Pairs::copied())), warpRow(threadIdx.x / kWarp * 16 * kRowTiles), panels((P + 16 * kTogether - 1) / (16 * kTogether) * kTogether) { }

    // Bytes from Q to a buffer of the ring.
    __device__ inline int slot(int i) const { return (Queries::kPanel + i * Pairs::kPanel) * panels; }

    // Whether rows are copied without a look at each, where all of a slice's exist.
    __device__ inline bool is_even(int columns, bool isWide) const { return isWide && columns == 16 * panels; }

    __device__ inline void load_whole(int slot, const EvenRows<T>& from) const { Pairs::template copy_whole<kThreads>(shared_address(sQ) + slot + copied, from, panels); }

    __device__ inline void load(int slot, const EvenRows<T>& from, int rows, int columns, bool isWide) const
    {
        if (isWide) Pairs::template copy<kThreads>(shared_address(sQ) + slot, from.seldom(), rows, columns, panels);
        else Pairs::template fill<kThreads, T>(sQ + slot, from.seldom(), rows, columns, panels);
    }

    __device__ inline void load_queries(const QueryRows<T>& from, int columns, bool isWide) const
    {
        if (isWide) Queries::template copy<kThreads>(shared_address(sQ), from, from.count - from.first, columns, panels);
        else Queries::template fill<kThreads, T>(sQ, from, from.count - from.first, columns, panels);
    }

    // s = Q·Kᵀ of this warp's rows and a slice of the keys.
    __device__ inline void scores(f32 (&s)[kRowTiles][Keys / 8][4], int slice, int slot) const
    {
        const u32 q = shared_address(sQ) + warpRow * 32 + across, key = shared_address(sQ) + slot + along;
        u32 a[kRowTiles][4];
        score_step<0>(s, slice * (Slice / 8), a, q, key);
    }

    // Steps are instances, not a loop, so that the distances of loads are parts of their instructions. Step: 16 columns, and of these 16 keys.
    template <int Step>
    __device__ inline void score_step(f32 (&s)[kRowTiles][Keys / 8][4], int first, u32 (&a)[kRowTiles][4], u32 q, u32 key) const
    {
        constexpr int K = Step / (Slice / 16), J = Step % (Slice / 16);
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
            mma_16x8x16_at<K == 0, T>(s[i][first + 2 * J], a[i], b[0], b[1]);
            mma_16x8x16_at<K == 0, T>(s[i][first + 2 * J + 1], a[i], b[2], b[3]);
        }
        if constexpr (Step + 1 < D / 16 * (Slice / 16)) score_step<Step + 1>(s, first, a, q, key);
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

    // o += p·V of this warp's rows and a slice of the keys.
    __device__ inline void add_values(f32 (&o)[kRowTiles][D / 8][4], const Weights& weights, int slice, int slot) const
    {
        const u32 value = shared_address(sQ) + slot + across;
        value_step<0>(o, weights, slice * (Slice / 16), value);
    }

    // Step: kTogether panels, of these 16 keys, and of these a panel.
    template <int Step>
    __device__ inline void value_step(f32 (&o)[kRowTiles][D / 8][4], const Weights& weights, int first, u32 value) const
    {
        constexpr int kSteps = Slice / 16 * kTogether, J = Step / kSteps * kTogether + Step % kTogether, K = Step % kSteps / kTogether;
        if constexpr (Step % kSteps == 0)
            if (J >= Pairs::kLeast && J >= panels) return;
        u32 b[4];
        Pairs::template load<16 * K, J, true>(b, value);
        #pragma unroll
        for (int i = 0; i < kRowTiles; i++)
        {
            mma_16x8x16<T>(o[i][2 * J], weights.at[i][first + K], b[0], b[1]);
            mma_16x8x16<T>(o[i][2 * J + 1], weights.at[i][first + K], b[2], b[3]);
        }
        if constexpr (Step + 1 < Slice / 16 * (D / 16)) value_step<Step + 1>(o, weights, first, value);
    }

    // The rows of o, or as bytes what rounding takes from them, through the place of their queries, which no other warp has read, so that they go out in whole lines.
    template <typename E>
    __device__ inline void store_rows(E* to, const f32 (&o)[kRowTiles][D / 8][4], const AttentionOutput& output, int columns, bool isWide) const
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
                {
                    u8* place = sQ + place_of<E>(warpRow + 16 * i + 8 * half + lane / 4, j) + lane % 4 * 2 * sizeof(E);
                    if constexpr (sizeof(E) == 2) *reinterpret_cast<u32*>(place) = pair_of<T>(o[i][j][2 * half], o[i][j][2 * half + 1]);
                    else *reinterpret_cast<u16*>(place) = (u16)(rest_of<T>(o[i][j][2 * half]) & 0xff | rest_of<T>(o[i][j][2 * half + 1]) << 8);
                }
        }
        __syncwarp();                                         // this warp's rows are there
        for (int r = lane / 8; r < 16 * kRowTiles; r += kWarp / 8)
        {
            if (!output.has(warpRow + r)) continue;
            E* place = to + output(warpRow + r) * columns;
            for (int chunk = lane % 8; chunk * 8 < columns; chunk += 8)
            {
                const u8* from = sQ + place_of<E>(warpRow + r, chunk);
                if (isWide)
                {
                    struct Words { u32 at[2 * sizeof(E)]; };
                    store_words(place + chunk * 8, __builtin_bit_cast(Words, load_pack<8>(reinterpret_cast<const E*>(from))).at);
                }
                else
                    for (int v = 0; v < min(8, columns - chunk * 8); v++) place[chunk * 8 + v] = reinterpret_cast<const E*>(from)[v];
            }
        }
    }

    // Of eight elements of a row: bytes take half of the room.
    template <typename E>
    __device__ static inline u32 place_of(int row, int chunk) { return sizeof(E) == 2 ? Queries::at(row, chunk) : Queries::at(row, chunk / 2) + chunk % 2 * 8; }
};

// Of floats: by multiply-adds.
template <int D, int Keys, int Slice>
struct AttentionTiles<f32, D, Keys, Slice>
{
    static_assert(Slice == Keys, "tiles pass whole");
    static constexpr int kRowTiles = 1, kWarps = D <= 128 ? 4 : 2, kThreads = kWarps * kWarp, kRows = kWarps * 16, kRing = 2, kPitch = D + 4, kScorePitch = Keys + 4;
    static constexpr int kQueryBytes = kRows * kPitch * 4, kTileBytes = Keys * kPitch * 4, kBytes = kQueryBytes + kRing * kTileBytes + kRows * kScorePitch * 4;

    u8* sQ;
    f32* sP;                                                  // [kRows, kScorePitch]
    int warpRow;

    __device__ inline AttentionTiles(u8* sMemory, int) : sQ(sMemory), sP(reinterpret_cast<f32*>(sMemory + kQueryBytes + kRing * kTileBytes)), warpRow(threadIdx.x / kWarp * 16) { }

    __device__ inline int slot(int i) const { return kQueryBytes + i * kTileBytes; }

    __device__ inline bool is_even(int, bool) const { return false; }
    __device__ inline void load_whole(int, const EvenRows<f32>&) const { }

    __device__ inline void load(int slot, const EvenRows<f32>& from, int rows, int columns, bool isWide) const { fill_floats<Keys, D, kThreads>(sQ + slot, from.seldom(), rows, columns, isWide); }

    __device__ inline void load_queries(const QueryRows<f32>& from, int columns, bool isWide) const { fill_floats<kRows, D, kThreads>(sQ, from, from.count - from.first, columns, isWide); }

    __device__ inline void scores(f32 (&s)[1][Keys / 8][4], int, int slot) const
    {
        #pragma unroll
        for (int j = 0; j < Keys / 8; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) s[0][j][part] = 0;
        multiply<false, false>(s[0], reinterpret_cast<const f32*>(sQ) + warpRow * kPitch, kPitch, reinterpret_cast<const f32*>(sQ + slot), kPitch, D, Keys);
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

    __device__ inline void add_values(f32 (&o)[1][D / 8][4], const Weights&, int, int slot) const
    {
        multiply<false, true>(o[0], sP + warpRow * kScorePitch, kScorePitch, reinterpret_cast<const f32*>(sQ + slot), kPitch, Keys, D);
    }

    __device__ inline void store_rows(f32* to, const f32 (&o)[1][D / 8][4], const AttentionOutput& output, int columns, bool isWide) const
    {
        #pragma unroll
        for (int half = 0; half < 2; half++)
        {
            const int row = warpRow + fragment_row(2 * half);
            if (!output.has(row)) continue;
            f32* place = to + output(row) * columns;
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
    f32 minus[2 * RowTiles], sum[2 * RowTiles];               // the reference that exponents are taken from, times −1; the sum is of this lane's keys

    __device__ inline OnlineSoftmax()
    {
        #pragma unroll
        for (int r = 0; r < 2 * RowTiles; r++)
        {
            minus[r] = kLargest;
            sum[r] = 0;
        }
    }

    // Scores become p, and o follows where a reference has moved.
    template <int J, int O>
    __device__ inline void next(f32 (&s)[RowTiles][J][4], f32 (&o)[RowTiles][O][4], f32 factor)
    {
        f32 top[2 * RowTiles];
        bool isHigher = false;
        #pragma unroll
        for (int r = 0; r < 2 * RowTiles; r++)
        {
            const int i = r / 2, half = r % 2 * 2;
            top[r] = fmaxf(s[i][0][half], s[i][0][half + 1]);
            #pragma unroll
            for (int j = 1; j < J; j++) top[r] = fmaxf(top[r], fmaxf(s[i][j][half], s[i][j][half + 1]));
            top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 1));
            top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 2)) * factor;
            isHigher |= top[r] + minus[r] > kSlack;
        }
        if (__any_sync(kAllLanes, isHigher))
            #pragma unroll
            for (int r = 0; r < 2 * RowTiles; r++)
            {
                const f32 rise = top[r] + minus[r], scale = rise > kSlack ? power_of_two(-rise) : 1.0f;
                minus[r] = rise > kSlack ? -top[r] : minus[r];
                sum[r] *= scale;
                #pragma unroll
                for (int j = 0; j < O; j++)
                {
                    o[r / 2][j][r % 2 * 2] *= scale;
                    o[r / 2][j][r % 2 * 2 + 1] *= scale;
                }
            }
        #pragma unroll
        for (int r = 0; r < 2 * RowTiles; r++)
        {
            const int i = r / 2, half = r % 2 * 2;
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = half; part < half + 2; part++)
                {
                    s[i][j][part] = power_of_two(fmaf(s[i][j][part], factor, minus[r]));
                    sum[r] += s[i][j][part];
                }
        }
    }
};

// Scores outside the mask become -∞. s begins at a key. Of most tiles all is seen: what the mask is made of is not kept in registers beside them.
template <typename T, int RowTiles, int J>
__device__ inline void hide(f32 (&s)[RowTiles][J][4], i32 key, const AttentionShape<T>& shape, int blockRows)
{
    const AttentionPlace place(shape, block_again());
    const AttentionMask mask(shape, place);
    const QueryRows<T> rows(shape, place, blockRows);
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

template <typename T, int D, int Keys, int Slice>
__global__ void __launch_bounds__(AttentionTiles<T, D, Keys, Slice>::kThreads, 2) attention_forward(const AttentionForwardArgs<T> args)
{
    using Tiles = AttentionTiles<T, D, Keys, Slice>;
    constexpr int kRowTiles = Tiles::kRowTiles, kRing = Tiles::kRing, kSlices = Keys / Slice, kStages = 2 * kSlices;     // of a tile: slices of K, and as many of V
    extern __shared__ __align__(128) u8 sMemory[];            // Q, then the ring
    const AttentionShape<T>& shape = args.shape;
    const AttentionPlace place(shape, blockIdx.x);
    const AttentionMask mask(shape, place);
    Tiles tiles(sMemory, shape.P);

    const QueryRows<T> rows(shape, place, Tiles::kRows);
    const i32 group = place.unit * rows.heads / (shape.H / shape.G);
    const i32 firstQuery = rows.query(0), lastQuery = rows.query(min(Tiles::kRows, rows.count - rows.first) - 1);
    // Tiles of keys that any of these queries sees; those from whole to wholeEnd are seen by all, without a mask.
    const i32 begin = mask.low(firstQuery) / Keys, end = (mask.high(lastQuery) + Keys - 1) / Keys;
    const i32 allLow = mask.low(lastQuery), allHigh = mask.high(firstQuery);
    EvenRows<T> keys(shape.k + place.batch * shape.kBatch + (place.first + begin * Keys) * shape.kStep + group * shape.kHead, shape.kStep);
    EvenRows<T> values(shape.v + place.batch * shape.vBatch + (place.first + begin * Keys) * shape.vStep + group * shape.vHead, shape.vStep);

    const i32 wholeTiles = tiles.is_even(shape.P, shape.isWide) ? min(end, place.keys / Keys) : begin;
    const auto slot = [&](i32 tile, int stage) { return tiles.slot(kStages % kRing == 0 ? stage % kRing : ((tile - begin) * kStages + stage) % kRing); };

    // Starts loading a stage counted from a tile's first; one behind the end leaves an empty group, so that the count of groups stays.
    const auto fetch = [&](i32 tile, int stage)
    {
        tile += stage / kStages;
        stage %= kStages;
        EvenRows<T>& from = stage < kSlices ? keys : values;
        const bool isWhole = tile < wholeTiles;
        if (isWhole) tiles.load_whole(slot(tile, stage), from);
        else if (tile < end) tiles.load(slot(tile, stage), from, AttentionPlace(shape, block_again()).keys - tile * Keys - stage % kSlices * Slice, shape.P, shape.isWide);
        from.own += Slice * from.step;
        copy_async_commit();
    };

    f32 o[kRowTiles][D / 8][4] = {};
    OnlineSoftmax<kRowTiles> softmax;
    if (begin < end) tiles.load_queries(rows, shape.P, shape.isWide);
    #pragma unroll
    for (int stage = 0; stage < kRing - 1; stage++) fetch(begin, stage);
    for (i32 tile = begin; tile < end; tile++)
    {
        f32 s[kRowTiles][Keys / 8][4];
        #pragma unroll
        for (int slice = 0; slice < kSlices; slice++)
        {
            copy_async_wait<kRing - 2>();
            __syncthreads();                                  // the slice of K is there, and all have read the one whose place is filled next
            fetch(tile, slice + kRing - 1);
            tiles.scores(s, slice, slot(tile, slice));
        }
        #pragma unroll
        for (int i = 0; i < kRowTiles; i++) bend(s[i], shape);
        if (tile * Keys < allLow || tile * Keys + Keys > allHigh)
            hide(s, tile * Keys, shape, Tiles::kRows);
        softmax.next(s, o, shape.factor);
        typename Tiles::Weights weights;
        tiles.keep(weights, s);
        #pragma unroll
        for (int slice = 0; slice < kSlices; slice++)
        {
            copy_async_wait<kRing - 2>();
            __syncthreads();                                  // the slice of V is there, and all have read the one whose place is filled next
            fetch(tile, kSlices + slice + kRing - 1);
            tiles.add_values(o, weights, slice, slot(tile, kSlices + slice));
        }
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
    tiles.store_rows(args.o, o, output, shape.P, shape.isWide);
    if constexpr (sizeof(T) == 2)
        if (args.rest)
        {
            __syncwarp();                                     // this warp's rows of o have been read
            tiles.store_rows(static_cast<i8*>(args.rest), o, output, shape.P, shape.isWide);
        }
    #pragma unroll
    for (int r = 0; r < 2 * kRowTiles; r++)
    {
        const int row = tiles.warpRow + r / 2 * 16 + fragment_row(r % 2 * 2);
        if (threadIdx.x % 4 != 0 || !output.has(row)) continue;
        const f32 more = log2f(softmax.sum[r]), lse = softmax.sum[r] == 0 ? -kInfinity : (more - softmax.minus[r]) * kLn2;
        args.lse[output(row)] = lse;
        if (sizeof(T) == 4 && args.rest) static_cast<f32*>(args.rest)[output(row)] = softmax.sum[r] == 0 ? 0.0f : (-softmax.minus[r] - __fmul_rn(lse, kLog2E)) + more;
    }
}
