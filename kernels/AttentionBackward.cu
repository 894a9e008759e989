// AttentionBackward.cu
//
// Computes   with p[i,j] = exp(s[i,j] − lse[i]) of AttentionForward.cu, dp[i,j] = dO[i]·v[j], delta[i] = dO[i]·o[i] − dLse[i],
//            ds[i,j] = p[i,j]·(dp[i,j] − delta[i]), with a cap times 1 − tanh²:
//            dv[j] = Σ_i p[i,j]·dO[i],  dk[j] = scale·Σ_i ds[i,j]·q[i],  dq[i] = scale·Σ_j ds[i,j]·k[j]; dk and dv also over the query heads of a key head.
// Source     Dao et al. 2022, arXiv:2205.14135, appendix B.4; Dao 2023, arXiv:2307.08691, section 3.1.2.
// Method     attention_delta_backward: eight lanes to a row. attention_backward: a block owns a tile of keys of a key head and walks the tiles of queries of its
//            heads that see any of them, with dk and dv in registers: five products a tile, none of them twice. Blocks add their part of dq one after the other,
//            those of later keys first: each waits for the turn of the one before, which began before it, because blocks take their tiles by a ticket. Sums of dq
//            wait in the order of the registers that add them. The block whose turn is last writes dq.
// Layout     q, dq [B, L, H, P], k, v, dk, dv [B, S, G, P], of q, k, v any strides but the last; o, dO [B, L, H, P]; lse, dLse [B, L, H] float, dLse
//            may be null; rest as AttentionForward.cu left it; stats [B·H·tiles, kStats, rows]: lse·log2 e, delta, and of f32 rest; turns [B·H·tiles + 1], the last is the ticket;
//            sums [B·H·tiles, 2·units, threads, 4], a unit being 16 columns of a warp; see AttentionShape.
// Launch     attention_delta_backward grid pairs·tiles of queries, block 128. attention_backward grid pairs·tiles of keys, block 256 (128 for Keys 32 and 16);
//            dynamic shared memory of two tiles of scores, two of keys, and one or two stages of two tiles of queries, see AttentionPlan.
// Traffic    attention_delta_backward reads o, rest and dO once, writes stats, and dq of queries that see nothing. attention_backward reads k and v once, q, dO and stats of
//            the tiles that see a tile of keys, from the L2 cache; reads and writes sums between the turns of a tile of queries; writes dq, dk, dv once.
// Precision  loads T, accumulates f32, stores T. bf16, f16: p and ds are rounded to T as operands. f32: products are multiply-adds. rest gives lse and
//            o the digits that rounding took: delta and p would lack them where one key outweighs all others. Deterministic: no float atomics; turns fix the order of additions.
// Limits     P ≤ D ≤ 256, D a class of head sizes. bf16, f16: tiles have P columns and zeros up to a multiple of 16, at least 32, in shared memory only. f32: D.
//            isWide: addresses, strides and P are multiples of 16 bytes.
// Variants   attention_delta_backward<{f32|bf16|f16}>; attention_backward<{bf16|f16}, {64|128}, 128>; attention_backward<{bf16|f16}, 128, 64>; attention_backward<{bf16|f16}, 256, {64|32}>;
//            attention_backward<f32, {64|128}, 32>; attention_backward<f32, 256, 16>
#include "common/AttentionGradient.cuh"
#include "common/Turns.cuh"

constexpr int kDeltaThreads = 128, kLanesOfRow = 8;

template <typename T>
struct AttentionDeltaArgs                                     // mirrored in CudaAttentionBackward.cs, field for field
{
    const T* o; const T* dO; const f32* lse; const void* rest; const f32* dLse; T* dQ; f32* stats; u32* turns;
    AttentionShape<T> shape;                                  // of tiles of queries
    i32 rows, unused;
};

template <typename T>
__global__ void __launch_bounds__(kDeltaThreads) attention_delta_backward(const AttentionDeltaArgs<T> args)
{
    constexpr int V = 16 / sizeof(T), kStats = sizeof(T) == 4 ? 3 : 2;
    const AttentionShape<T>& shape = args.shape;
    const AttentionPlace place(shape, blockIdx.x);
    const i64 number = (place.batch * shape.H + place.unit) * shape.tiles + place.number;
    const int lane = threadIdx.x % kLanesOfRow;
    if (threadIdx.x == 0)
    {
        args.turns[number] = 0;
        if (blockIdx.x == 0) args.turns[(i64)shape.pairs * shape.tiles] = 0;
    }
    for (int row = threadIdx.x / kLanesOfRow; row < args.rows; row += kDeltaThreads / kLanesOfRow)
    {
        const i32 l = place.tile * args.rows + row;
        const bool isThere = l < place.queries;
        const i64 at = (place.batch * shape.L + place.first + (isThere ? l : 0)) * shape.H + place.unit;
        const f32 lse = isThere ? args.lse[at] : -kInfinity;
        f32 sum = 0;
        if (lse != -kInfinity)
        {
            if (shape.isWide)
                for (int p = lane * V; p < shape.P; p += kLanesOfRow * V)
                {
                    f32 o[V], d[V];
                    load<V>(o, args.o + at * shape.P + p);
                    if constexpr (kStats == 2)
                    {
                        const Pack<i8, V> rest = load_pack<V>(static_cast<const i8*>(args.rest) + at * shape.P + p);
                        #pragma unroll
                        for (int v = 0; v < V; v++) o[v] = with_rest<T>(o[v], rest.at[v]);
                    }
                    load<V>(d, args.dO + at * shape.P + p);
                    #pragma unroll
                    for (int v = 0; v < V; v++) sum = fmaf(o[v], d[v], sum);
                }
            else
                for (int p = lane; p < shape.P; p += kLanesOfRow)
                {
                    f32 o = to_f32(args.o[at * shape.P + p]);
                    if constexpr (kStats == 2) o = with_rest<T>(o, static_cast<const i8*>(args.rest)[at * shape.P + p]);
                    sum = fmaf(o, to_f32(args.dO[at * shape.P + p]), sum);
                }
        }
        else if (isThere)
            for (int p = lane; p < shape.P; p += kLanesOfRow) args.dQ[at * shape.P + p] = from_f32<T>(0);
        #pragma unroll
        for (int distance = kLanesOfRow / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
        if (lane != 0) continue;
        f32* stats = args.stats + number * kStats * args.rows + row;
        // A query that sees nothing has p = 0.
        stats[0] = lse == -kInfinity ? kInfinity : __fmul_rn(lse, kLog2E);
        stats[args.rows] = isThere && args.dLse ? sum - args.dLse[at] : sum;
        if constexpr (kStats == 3) stats[2 * args.rows] = isThere ? static_cast<const f32*>(args.rest)[at] : 0.0f;
    }
}

template <typename T>
struct AttentionBackwardArgs                                  // mirrored in CudaAttentionBackward.cs, field for field
{
    const T* dO; const f32* stats; u32* turns; f32* sums; T* dQ; T* dK; T* dV; const i64* firstQueryTiles;
    AttentionShape<T> shape;                                  // of tiles of keys
    i32 queryTiles, stages;
    f32 scale;
    i32 unused;
};

// A tile of queries on its way past a block, and whose turn it is to add to its dq.
struct QueryTurn
{
    i64 number;                                               // among all tiles of queries
    i32 head, first, before, isLast;                          // its first query; blocks that add before this one
};

// The tiles of queries that see a tile of keys: all of the first head's, then of the second's. It stands in shared memory, for the registers are full.
template <typename T, int Rows, int Keys>
struct QueryWalk
{
    AttentionPlace place;
    AttentionMask mask;
    i32 begin, count, heads, items;                           // tiles of a head, heads of the group, and all of them

    __device__ inline QueryWalk(const AttentionBackwardArgs<T>& args, u32 block) : place(args.shape, block), mask(args.shape, place)
    {
        const i32 key = place.tile * Keys, low = mask.isCausal ? max(0, key + 1 - mask.shift) : 0;
        const i32 high = mask.window > 0 ? min(place.queries - 1, key + Keys - 1 - mask.shift + mask.window) : place.queries - 1;
        begin = low / Rows;
        count = high < low ? 0 : high / Rows + 1 - begin;
        heads = args.shape.H / args.shape.G;
        items = count * heads;
    }

    __device__ inline QueryTurn operator()(const AttentionBackwardArgs<T>& args, i32 item) const
    {
        const i32 tile = begin + item % count, first = tile * Rows, last = min(first + Rows, place.queries) - 1;
        QueryTurn turn;
        turn.head = place.unit * heads + item / count;
        turn.number = (place.batch * args.shape.H + turn.head) * args.queryTiles + (args.firstQueryTiles ? args.firstQueryTiles[place.sequence] : 0) + tile;
        turn.first = first;
        turn.before = (mask.high(last) - 1) / Keys - place.tile;
        turn.isLast = mask.low(first) / Keys == place.tile;
        return turn;
    }
};

// Scores outside the mask become -∞; s begins at a key and a query.
template <typename Warps, int I, int J>
__device__ inline void hide(f32 (&s)[I][J][4], i32 key, i32 query, const Warps& warps, const AttentionMask& mask)
{
    #pragma unroll
    for (int j = 0; j < J; j++)
        #pragma unroll
        for (int odd = 0; odd < 2; odd++)
        {
            const i32 l = query + warps.query(j) + odd, low = mask.low(l), high = mask.high(l);
            #pragma unroll
            for (int i = 0; i < I; i++)
                #pragma unroll
                for (int half = 0; half < 2; half++)
                {
                    const i32 k = key + warps.key(i) + 8 * half;
                    if (k < low || k >= high) s[i][j][2 * half + odd] = -kInfinity;
                }
        }
}

// p to its tile; s becomes p, with a cap times the slope of the bend.
template <typename T, bool isBent, typename Tiles, int I, int J>
__device__ inline void weigh(f32 (&s)[I][J][4], const Tiles& tiles, u8* sP, const f32* sStats, const AttentionShape<T>& shape)
{
    #pragma unroll
    for (int j = 0; j < J; j++)
    {
        const u32 place = tiles.place(sP, j);
        f32 lse[2], rest[2] = {};
        load<2>(lse, sStats + tiles.query(j));
        if constexpr (Tiles::kStats == 3) load<2>(rest, sStats + 2 * Tiles::kRows + tiles.query(j));
        #pragma unroll
        for (int i = 0; i < I; i++)
            #pragma unroll
            for (int half = 0; half < 2; half++)
            {
                f32 p[2];
                #pragma unroll
                for (int odd = 0; odd < 2; odd++)
                {
                    f32& score = s[i][j][2 * half + odd];
                    f32 exponent = fmaf(score, shape.factor, -lse[odd]);
                    if constexpr (Tiles::kStats == 3) exponent -= rest[odd];
                    p[odd] = power_of_two(exponent);
                    if constexpr (isBent)
                    {
                        const f32 bent = p[odd] == 0 ? 0.0f : __fdividef(score, shape.cap);
                        score = p[odd] * fmaf(-bent, bent, 1.0f);
                    }
                    else score = p[odd];
                }
                tiles.put(place, i, half, p[0], p[1]);
            }
    }
}

// dq of the units from First on: this block's product and the sums of those before it. The last block writes dq.
template <int First, typename T, typename Tiles, typename Walk>
__device__ inline void add_part(const QueryTurn& turn, const u8* sDs, const u8* sK, const Tiles& tiles, const Walk& walk, const AttentionBackwardArgs<T>& args)
{
    constexpr int kUnits = Tiles::kPartUnits, kFloats = 4 * Tiles::kThreads;
    const AttentionShape<T>& shape = args.shape;
    f32 dq[2 * kUnits][4] = {};
    tiles.template transposed<First>(dq, sDs, sK);
    if (First == 0) await_turn(args.turns + turn.number, turn.before);
    f32* sums = args.sums + turn.number * (2 * tiles.units() * kFloats) + 2 * First * kFloats + threadIdx.x * 4;
    if (turn.before > 0)
        #pragma unroll
        for (int j = 0; j < 2 * kUnits && First + j / 2 < Tiles::kUnits; j++)
        {
            if (!tiles.has(First + j / 2)) break;
            add_written(dq[j], sums + j * kFloats);
        }
    if (!turn.isLast)
    {
        #pragma unroll
        for (int j = 0; j < 2 * kUnits && First + j / 2 < Tiles::kUnits; j++)
        {
            if (!tiles.has(First + j / 2)) break;
            store<4>(sums + j * kFloats, dq[j]);
        }
        return;
    }
    const i64 row = (walk.place.batch * shape.L + walk.place.first + turn.first) * shape.H + turn.head;
    #pragma unroll
    for (int half = 0; half < 2; half++)
    {
        const int own = tiles.rowWarp * 16 + fragment_row(2 * half);
        T* to = turn.first + own < walk.place.queries ? args.dQ + (row + (i64)own * shape.H) * shape.P : (T*)nullptr;
        #pragma unroll
        for (int unit = 0; unit < kUnits && First + unit < Tiles::kUnits; unit++)
            if (tiles.has(First + unit)) store_sums(to, tiles.column(First + unit), shape.P, dq[2 * unit], dq[2 * unit + 1], half, args.scale, shape.isWide);
    }
}

template <typename T, int D, int Keys>
__global__ void __maxnreg__(240) attention_backward(const AttentionBackwardArgs<T> args)
{
    using Tiles = GradientTiles<T, D, Keys>;
    constexpr int kRows = Tiles::kRows, kKeyTiles = Tiles::kKeyTiles, kScores = Tiles::kScores, kUnits = Tiles::kUnits, kStatBytes = Tiles::kStats * kRows * 4;
    extern __shared__ __align__(128) u8 sMemory[];            // p, ds, K, V; then the stages: Q, dO and the stats of their queries
    __shared__ __align__(8) u8 sWalk[sizeof(QueryWalk<T, kRows, Keys>)];
    __shared__ QueryTurn sTurns[2];                           // of the item that is there, and of the next or the one before
    const AttentionShape<T>& shape = args.shape;
    const Tiles tiles(shape.P);
    const int queryBytes = tiles.query_bytes(), stageBytes = 2 * queryBytes + kStatBytes;
    u8* sP = sMemory;
    u8* sDs = sP + Tiles::kScoreBytes;
    u8* sK = sDs + Tiles::kScoreBytes;
    u8* sV = sK + tiles.key_bytes();
    u8* sStages = sV + tiles.key_bytes();

    // A block that waits for another began after it, in whatever order blocks start.
    QueryWalk<T, kRows, Keys>& walk = *reinterpret_cast<QueryWalk<T, kRows, Keys>*>(sWalk);
    if (threadIdx.x == 0) walk = QueryWalk<T, kRows, Keys>(args, atomicAdd(args.turns + (i64)shape.H * (shape.pairs / shape.units) * args.queryTiles, 1u));
    __syncthreads();                                          // the walk is there
    const AttentionPlace& place = walk.place;

    // Starts loading an item; behind the last nothing.
    const auto fetch = [&](i32 item)
    {
        if (item < walk.items)
        {
            const QueryTurn turn = walk(args, item);
            if (threadIdx.x == 0) sTurns[item % 2] = turn;
            u8* sQ = sStages + (item & (args.stages - 1)) * stageBytes;
            u8* sStats = sQ + 2 * queryBytes;
            const i64 row = place.first + turn.first;
            #pragma unroll 1                                  // one after the other, in half of the code
            for (int isGradient = 0; isGradient < 2; isGradient++)
            {
                const T* from = isGradient ? args.dO + ((place.batch * shape.L + row) * shape.H + turn.head) * shape.P : shape.q + place.batch * shape.qBatch + row * shape.qStep + turn.head * shape.qHead;
                tiles.load_queries(sQ + isGradient * queryBytes, EvenRows<T>(from, isGradient ? (i64)shape.H * shape.P : shape.qStep), place.queries - turn.first, shape.P, shape.isWide);
            }
            if (threadIdx.x < kStatBytes / 16) copy_async(shared_address(sStats) + threadIdx.x * 16, args.stats + turn.number * Tiles::kStats * kRows + threadIdx.x * 4, 16);
        }
        copy_async_commit();
    };

    #pragma unroll 1
    for (int isValue = 0; isValue < 2; isValue++)
    {
        const i64 firstKey = place.first + place.tile * Keys;
        const T* from = isValue ? shape.v + place.batch * shape.vBatch + firstKey * shape.vStep + place.unit * shape.vHead : shape.k + place.batch * shape.kBatch + firstKey * shape.kStep + place.unit * shape.kHead;
        tiles.load_keys(isValue ? sV : sK, EvenRows<T>(from, isValue ? shape.vStep : shape.kStep), place.keys - place.tile * Keys, shape.P, shape.isWide);
    }
    fetch(0);

    f32 dk[kKeyTiles][2 * kUnits][4] = {}, dv[kKeyTiles][2 * kUnits][4] = {};
    // Tells of the turn of an item that all threads have added to.
    const auto give = [&](i32 item)
    {
        if (threadIdx.x != 0 || item < 0) return;
        const QueryTurn& turn = sTurns[item % 2];
        if (!turn.isLast) give_turn(args.turns + turn.number, turn.before + 1);
    };
    for (i32 item = 0; item < walk.items; item++)
    {
        copy_async_wait<0>();
        __syncthreads();                                      // Q, dO, stats and the turn are there; all have read p, ds and the stage that is filled next, and written their sums
        give(item - 1);
        if (args.stages == 2) fetch(item + 1);
        const QueryTurn& turn = sTurns[item % 2];
        const u8* sQ = sStages + (item & (args.stages - 1)) * stageBytes;
        const u8* sDo = sQ + queryBytes;
        const f32* sStats = reinterpret_cast<const f32*>(sDo + queryBytes);

        f32 s[kKeyTiles][kScores][4];
        tiles.scores(s, sK, sQ);
        #pragma unroll
        for (int i = 0; i < kKeyTiles; i++) bend(s[i], shape);
        const i32 key = place.tile * Keys;
        if (key + Keys > walk.mask.high(turn.first) || key < walk.mask.low(turn.first + kRows - 1)) hide(s, key, turn.first, tiles, walk.mask);
        if (shape.cap > 0) weigh<T, true>(s, tiles, sP, sStats, shape);
        else weigh<T, false>(s, tiles, sP, sStats, shape);
        f32 dp[kKeyTiles][kScores][4];
        tiles.scores(dp, sV, sDo);
        #pragma unroll
        for (int j = 0; j < kScores; j++)
        {
            const u32 to = tiles.place(sDs, j);
            f32 delta[2];
            load<2>(delta, sStats + kRows + tiles.query(j));
            #pragma unroll
            for (int i = 0; i < kKeyTiles; i++)
                #pragma unroll
                for (int half = 0; half < 2; half++)
                    tiles.put(to, i, half, s[i][j][2 * half] * (dp[i][j][2 * half] - delta[0]), s[i][j][2 * half + 1] * (dp[i][j][2 * half + 1] - delta[1]));
        }
        __syncthreads();                                      // p and ds are there
        tiles.add(dv, sP, sDo);
        tiles.add(dk, sDs, sQ);
        if (args.stages == 1)
        {
            __syncthreads();                                  // all have read Q and dO, whose place is filled next
            fetch(item + 1);
        }
        add_part<0>(turn, sDs, sK, tiles, walk, args);
        if constexpr (Tiles::kParts == 2)
            if (Tiles::kPartUnits < tiles.units()) add_part<Tiles::kPartUnits>(turn, sDs, sK, tiles, walk, args);
    }
    __syncthreads();                                          // all have written their sums
    give(walk.items - 1);
    const i32 key = place.tile * Keys;
    const i64 row = (place.batch * shape.S + place.first + key) * shape.G + place.unit;
    #pragma unroll
    for (int i = 0; i < kKeyTiles; i++)
        #pragma unroll
        for (int half = 0; half < 2; half++)
        {
            const int own = tiles.key(i) + 8 * half;
            const bool isThere = key + own < place.keys;
            const i64 at = (row + (i64)own * shape.G) * shape.P;
            #pragma unroll
            for (int unit = 0; unit < kUnits; unit++)
            {
                if (!tiles.has(unit)) break;
                store_sums(isThere ? args.dK + at : (T*)nullptr, tiles.column(unit), shape.P, dk[i][2 * unit], dk[i][2 * unit + 1], half, args.scale, shape.isWide);
                store_sums(isThere ? args.dV + at : (T*)nullptr, tiles.column(unit), shape.P, dv[i][2 * unit], dv[i][2 * unit + 1], half, 1, shape.isWide);
            }
        }
}
