// AttentionGradient.cuh: what a block of the backward pass of attention multiplies, from tiles in shared memory: a block owns Keys keys, and kRows queries pass by.
// Warps are kRowWarps × kSides over every product. Scores stand transposed, [Keys, kRows]; a warp has half of their columns, and its side's share of the columns
// of dk, dv and dq in units of 16.
#pragma once
#include "common/Attention.cuh"
#include "common/Fragments.cuh"
#include "common/Panels.cuh"

template <int Keys>
struct GradientWarps
{
    static constexpr int kRows = Keys == 128 ? 64 : Keys, kKeyTiles = Keys == 128 ? 2 : 1, kRowWarps = Keys / 16 / kKeyTiles, kSides = Keys == 16 ? 4 : 2;
    static constexpr int kThreads = kSides * kRowWarps * kWarp;
    static constexpr int kScores = kRows / 16;                // 16 × 8 of scores that a warp has of each 16 keys

    int rowWarp, side;

    __device__ inline GradientWarps() : rowWarp(threadIdx.x / kWarp / kSides), side(threadIdx.x / kWarp % kSides) { }

    // With four sides two work out the same scores, and one of them writes.
    __device__ inline int score_side() const { return side % 2; }
    __device__ inline bool writes_scores() const { return side < 2; }

    // Where part 0 and 1 of a 16 × 8 of scores stand among the queries of the tile, and part 0 among its keys.
    __device__ inline int query(int j) const { return score_side() * (kRows / 2) + 8 * j + fragment_column(0); }
    __device__ inline int key(int i) const { return (rowWarp * kKeyTiles + i) * 16 + fragment_row(0); }
};

// Of 16-bit elements: on the tensor cores, from panels. D is the class of head sizes that registers are laid out for; products are of the columns that there are,
// in multiples of 16, and at least 32: a unit for each side.
template <typename T, int D, int Keys>
struct GradientTiles : GradientWarps<Keys>
{
    using Warps = GradientWarps<Keys>;
    using Warps::kRows, Warps::kKeyTiles, Warps::kThreads, Warps::kScores, Warps::rowWarp, Warps::side;
    using KeyTile = PanelTile<Keys, D>;
    using QueryTile = PanelTile<kRows, D>;
    using ScoreTile = PanelTile<Keys, kRows>;
    static constexpr int kUnits = D / 32, kStats = 2, kScoreBytes = ScoreTile::kPanel * (kRows / 16), kLeast = D <= 64 ? 2 : KeyTile::kLeast;
    // Of dq a warp sums so many units at a time: beside dk and dv there are no registers for more.
    static constexpr int kParts = kUnits * kKeyTiles > 5 ? 2 : 1, kPartUnits = (kUnits + kParts - 1) / kParts;

    // Bytes from a tile to what this lane takes of it: rows of keys on the left of a product, and of queries on the right; columns of this warp's queries; rows of the
    // side's first panel; and the place of the first 16 × 8 of its scores. Sums with a tile's address are made where they are needed, for the registers are full.
    u32 left, right, turned, sided, scored;
    int panels;

    __device__ inline GradientTiles(int P) : panels(max(kLeast, (P + 15) / 16))
    {
        const u32 across = panel_lane<true>(), along = panel_lane<false>();
        left = kept(rowWarp * 16 * kKeyTiles * 32 + across);
        right = kept(side * (kRows / 2) * 32 + along);
        turned = kept(rowWarp * ScoreTile::kPanel + (along ^ rowWarp % 4 * 32));
        sided = kept(across ^ side * 32);
        scored = kept(ScoreTile::at(this->key(0), side * kScores) + threadIdx.x % 4 * 4);
    }

    __device__ inline int key_bytes() const { return KeyTile::kPanel * panels; }
    __device__ inline int query_bytes() const { return QueryTile::kPanel * panels; }

    // First column of this warp's unit of 16.
    __device__ inline int column(int unit) const { return (2 * unit + side) * 16; }
    __device__ inline bool has(int unit) const { return 2 * unit + 1 < kLeast || 2 * unit + side < panels; }
    // Units of the side that has more.
    __device__ inline int units() const { return (panels + 1) / 2; }

    template <typename Tile>
    __device__ inline void load(u8* sTile, const EvenRows<T>& from, int rows, int columns, bool isWide) const
    {
        // All rows of most tiles exist.
        if (isWide && rows >= Tile::kPanel / 32 && columns == 16 * panels) return Tile::template copy_whole<kThreads>(shared_address(sTile) + Tile::copied(), from, panels);
        const int count = kept(panels);
        if (isWide) Tile::template copy<kThreads>(shared_address(sTile), from.seldom(), rows, columns, count);
        else Tile::template fill<kThreads, T>(sTile, from.seldom(), rows, columns, count);
    }
    __device__ inline void load_keys(u8* sTile, const EvenRows<T>& from, int rows, int columns, bool isWide) const { load<KeyTile>(sTile, from, rows, columns, isWide); }
    __device__ inline void load_queries(u8* sTile, const EvenRows<T>& from, int rows, int columns, bool isWide) const { load<QueryTile>(sTile, from, rows, columns, isWide); }

    // s = A·Bᵀ with A [Keys, P], B [kRows, P].
    __device__ inline void scores(f32 (&s)[kKeyTiles][kScores][4], const u8* sA, const u8* sB) const
    {
        u32 a[kKeyTiles][4];
        score_step<0>(s, a, kept(left) + shared_address(sA), kept(right) + shared_address(sB));
    }

    // This lane's place in the 16 × 8 of number j of its scores; and there parts 2·half and 2·half + 1 of those of key tile i.
    __device__ inline u32 place(const u8* sScores, int j) const { return (kept(scored) + shared_address(sScores) ^ j / 2 * 32 ^ j % 2 * 16) + j / 2 * ScoreTile::kPanel; }
    __device__ inline void put(u32 place, int i, int half, f32 first, f32 second) const
    {
        store_shared(place + (2 * i + half) * 256, pair_of<T>(first, second));
    }

    // sum += P·B of this warp's keys, with P [Keys, kRows], B [kRows, P].
    __device__ inline void add(f32 (&sum)[kKeyTiles][2 * kUnits][4], const u8* sScores, const u8* sB) const
    {
        u32 a[kKeyTiles][4];
        add_step<0>(sum, a, kept(left) + shared_address(sScores), side_of<QueryTile>(sB));
    }

    // sum += Pᵀ·B of 16 queries and the units from First on, with P [Keys, kRows], B [Keys, P].
    template <int First, int J>
    __device__ inline void transposed(f32 (&sum)[J][4], const u8* sScores, const u8* sB) const
    {
        u32 a[4];
        transposed_step<First, 0>(sum, a, kept(turned) + shared_address(sScores), side_of<KeyTile>(sB));
    }

private:
    // Steps are instances, not a loop, so that the distances of loads are parts of their instructions. Step: 16 columns, and of these 16 queries.
    template <int Step>
    __device__ inline void score_step(f32 (&s)[kKeyTiles][kScores][4], u32 (&a)[kKeyTiles][4], u32 left, u32 right) const
    {
        constexpr int K = Step / (kScores / 2), J = Step % (kScores / 2);
        if constexpr (J == 0)
        {
            if (K >= kLeast && K >= panels) return;
            KeyTile::template load<0, K, false>(a[0], left);
            if constexpr (kKeyTiles == 2) KeyTile::template load<16, K, false>(a[kKeyTiles - 1], left);
        }
        u32 b[4];
        QueryTile::template load<16 * J, K, false>(b, right);
        #pragma unroll
        for (int i = 0; i < kKeyTiles; i++)
        {
            mma_16x8x16_at<K == 0, T>(s[i][2 * J], a[i], b[0], b[1]);
            mma_16x8x16_at<K == 0, T>(s[i][2 * J + 1], a[i], b[2], b[3]);
        }
        if constexpr (Step + 1 < D / 16 * (kScores / 2)) score_step<Step + 1>(s, a, left, right);
    }

    // Step: 16 queries, and of these a unit.
    template <int Step>
    __device__ inline void add_step(f32 (&sum)[kKeyTiles][2 * kUnits][4], u32 (&a)[kKeyTiles][4], u32 left, u32 right) const
    {
        constexpr int K = Step / kUnits, U = Step % kUnits;
        if constexpr (U == 0)
        {
            ScoreTile::template load<0, K, false>(a[0], left);
            if constexpr (kKeyTiles == 2) ScoreTile::template load<16, K, false>(a[kKeyTiles - 1], left);
        }
        if (has(U))
        {
            u32 b[4];
            QueryTile::template load<16 * K, 2 * U, true>(b, right);
            #pragma unroll
            for (int i = 0; i < kKeyTiles; i++)
            {
                mma_16x8x16<T>(sum[i][2 * U], a[i], b[0], b[1]);
                mma_16x8x16<T>(sum[i][2 * U + 1], a[i], b[2], b[3]);
            }
        }
        if constexpr (Step + 1 < kRows / 16 * kUnits) add_step<Step + 1>(sum, a, left, right);
    }

    // Step: 16 keys, and of these a unit.
    template <int First, int Step, int J>
    __device__ inline void transposed_step(f32 (&sum)[J][4], u32 (&a)[4], u32 left, u32 right) const
    {
        constexpr int K = Step / (J / 2), U = Step % (J / 2);
        if constexpr (U == 0) ScoreTile::template load<16 * K, 0, true>(a, left);
        if constexpr (First + U < kUnits)
            if (has(First + U))
            {
                u32 b[4];
                KeyTile::template load<16 * K, 2 * (First + U), true>(b, right);
                mma_16x8x16<T>(sum[2 * U], a, b[0], b[1]);
                mma_16x8x16<T>(sum[2 * U + 1], a, b[2], b[3]);
            }
        if constexpr (Step + 1 < Keys / 16 * (J / 2)) transposed_step<First, Step + 1>(sum, a, left, right);
    }

    // A tile from this side's first panel on: its other panels have even distances from there.
    template <typename Tile>
    __device__ inline u32 side_of(const u8* sTile) const { return kept(sided) + side * Tile::kPanel + shared_address(sTile); }
};

// Of floats: by multiply-adds.
template <int D, int Keys>
struct GradientTiles<f32, D, Keys> : GradientWarps<Keys>
{
    using Warps = GradientWarps<Keys>;
    using Warps::kRows, Warps::kThreads, Warps::kScores, Warps::kSides, Warps::rowWarp, Warps::side;
    static constexpr int kPitch = D + 4, kScorePitch = kRows + 4, kUnits = D / 16 / kSides, kStats = 3, kScoreBytes = Keys * kScorePitch * 4, kParts = 1, kPartUnits = kUnits;

    __device__ inline GradientTiles(int) { }

    __device__ inline int key_bytes() const { return Keys * kPitch * 4; }
    __device__ inline int query_bytes() const { return kRows * kPitch * 4; }

    __device__ inline int column(int unit) const { return side * (D / kSides) + unit * 16; }
    __device__ inline bool has(int) const { return true; }
    __device__ inline int units() const { return kUnits; }

    __device__ inline void load_keys(u8* sTile, const EvenRows<f32>& from, int rows, int columns, bool isWide) const { fill_floats<Keys, D, kThreads>(sTile, from.seldom(), rows, columns, isWide); }
    __device__ inline void load_queries(u8* sTile, const EvenRows<f32>& from, int rows, int columns, bool isWide) const { fill_floats<kRows, D, kThreads>(sTile, from.seldom(), rows, columns, isWide); }

    __device__ static inline const f32* floats(const u8* sTile) { return reinterpret_cast<const f32*>(sTile); }

    __device__ inline void scores(f32 (&s)[1][kScores][4], const u8* sA, const u8* sB) const
    {
        #pragma unroll
        for (int j = 0; j < kScores; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) s[0][j][part] = 0;
        multiply<false, false>(s[0], floats(sA) + rowWarp * 16 * kPitch, kPitch, floats(sB) + this->score_side() * (kRows / 2) * kPitch, kPitch, D, kRows / 2);
    }

    __device__ inline u32 place(const u8* sScores, int j) const { return shared_address(sScores) + (this->key(0) * kScorePitch + this->query(j)) * 4; }
    __device__ inline void put(u32 place, int, int half, f32 first, f32 second) const
    {
        if (!this->writes_scores()) return;
        store_shared(place + 8 * half * kScorePitch * 4, __float_as_uint(first));
        store_shared(place + 8 * half * kScorePitch * 4 + 4, __float_as_uint(second));
    }

    __device__ inline void add(f32 (&sum)[1][2 * kUnits][4], const u8* sScores, const u8* sB) const
    {
        multiply<false, true>(sum[0], floats(sScores) + rowWarp * 16 * kScorePitch, kScorePitch, floats(sB) + column(0), kPitch, kRows, D / kSides);
    }

    template <int First, int J>
    __device__ inline void transposed(f32 (&sum)[J][4], const u8* sScores, const u8* sB) const
    {
        static_assert(First == 0 && J == 2 * kUnits, "in one part");
        multiply<true, true>(sum, floats(sScores) + rowWarp * 16, kScorePitch, floats(sB) + column(0), kPitch, Keys, D / kSides);
    }
};

// A row of a 16 × 16 of sums, 4 numbers of which this lane has, at a column of a row in memory: null for none, but every lane of the warp comes here.
// 16-bit elements: lanes exchange halves, so that each stores 8 bytes and four lanes fill a sector.
template <typename T>
__device__ inline void store_sums(T* to, int column, int columns, const f32 (&left)[4], const f32 (&right)[4], int half, f32 scale, bool isWide)
{
    const int t = threadIdx.x % 4;
    if constexpr (sizeof(T) == 4)
    {
        if (!to) return;
        #pragma unroll
        for (int side = 0; side < 2; side++)
        {
            const int c = column + 8 * side + 2 * t;
            const f32 pair[2] = {(side ? right : left)[2 * half] * scale, (side ? right : left)[2 * half + 1] * scale};
            if (isWide && c < columns) store<2>(to + c, pair);
            if (!isWide && c < columns) to[c] = pair[0];
            if (!isWide && c + 1 < columns) to[c + 1] = pair[1];
        }
    }
    else
    {
        const u32 first = pair_of<T>(left[2 * half] * scale, left[2 * half + 1] * scale), second = pair_of<T>(right[2 * half] * scale, right[2 * half + 1] * scale);
        const u32 got = __shfl_xor_sync(kAllLanes, t % 2 ? first : second, 1);
        const u32 words[2] = {t % 2 ? got : first, t % 2 ? second : got};
        const int c = column + t % 2 * 8 + t / 2 * 4;
        if (!to) return;
        if (isWide && c < columns) store_words(to + c, words);
        if (!isWide)
            #pragma unroll
            for (int v = 0; v < 4; v++)
                if (c + v < columns) to[c + v] = T{(u16)(words[v / 2] >> v % 2 * 16)};
    }
}
