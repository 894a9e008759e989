// Ssd.cuh: what the kernels of the state-space dual scan share: sizes, chunks, the decays of a chunk, and tiles of its operands.
#pragma once
#include "common/Fragments.cuh"
#include "common/Pointwise.cuh"
#include "common/Sequences.cuh"

constexpr int kSteps = 64;                                    // most steps of a chunk: the side of the tiles
constexpr int kSsdThreads = 256;                              // 8 warps: 4 times 16 rows by 2 halves of the columns; a block has one or two such teams
constexpr int kSide = kSteps;                                 // of the tiles of a backward pass
constexpr int kSubtile = 16, kSubtiles = kSteps / kSubtile;
constexpr int kChunksOfBorder = 2;                            // of as many chunks the first has its state before it kept: that between follows from it

// The inputs. The last axis of x, dt, B, C and z is dense.
template <typename T>
struct SsdShape                                               // mirrored in CudaSsdScan.cs, field for field
{
    const T* x; const T* dt; const T* B; const T* C; const T* z;
    const f32* A; const f32* D; const f32* dtBias;
    const i64* starts; const i64* firstChunks;                // of packed sequences, one more than there are; null without
    i64 xBatch, xStep, xHead, dtBatch, dtStep, bBatch, bStep, bGroup, cBatch, cStep, cGroup, zBatch, zStep, zHead;
    i64 L;
    i32 H, P, G, N, Q, sequences, chunksPerRow;
    i32 hasSoftplus, hasLogA, isSkipPerChannel, isXWide, isBcWide, isYWide, isStateWide;
    f32 minDelta, maxDelta;

    __device__ inline const T* x_at(i64 row, i64 step, int head) const { return x + row * xBatch + step * xStep + head * xHead; }
    __device__ inline const T* b_at(i64 row, i64 step, int group) const { return B + row * bBatch + step * bStep + group * bGroup; }
    __device__ inline const T* c_at(i64 row, i64 step, int group) const { return C + row * cBatch + step * cStep + group * cGroup; }
    __device__ inline const T* z_at(i64 row, i64 step, int head) const { return z + row * zBatch + step * zStep + head * zHead; }

    // A of a head.
    __device__ inline f32 rate(int head) const { return hasLogA ? -expf(A[head]) : A[head]; }

    // (row, step, head, 0) of a contiguous [B, L, H, P], in elements; B·L·H·P may exceed 2³¹.
    __device__ inline i64 dense(i64 row, i64 step, int head) const { return ((row * L + step) * H + head) * P; }
    // (border, head, 0, 0) of states at borders [borders, H, N, P].
    __device__ inline i64 border(i64 number, int head) const { return (number * H + head) * (i64)N * P; }
    // (sequence, head, 0, 0) of states [n, H, P, N].
    __device__ inline i64 state(i64 sequence, int head) const { return (sequence * H + head) * (i64)P * N; }
};

// A sequence: its steps in a row of the batch, and the numbers of its first chunk and of the border before it. The last chunks of a sequence may be fewer than kChunksOfBorder, so
// that each leaves room for one border more.
struct SsdSequence
{
    i64 row, begin, end, firstChunk, firstBorder;

    template <typename T>
    __device__ inline SsdSequence(const SsdShape<T>& shape, i64 sequence)
    {
        const bool isPacked = shape.starts;
        row = isPacked ? 0 : sequence;
        begin = isPacked ? shape.starts[sequence] : 0;
        end = isPacked ? shape.starts[sequence + 1] : shape.L;
        firstChunk = isPacked ? shape.firstChunks[sequence] : sequence * shape.chunksPerRow;
        firstBorder = (firstChunk + sequence * (kChunksOfBorder - 1)) / kChunksOfBorder;
    }
};

// Δ and the decays of one chunk of one head. With s_i = Σ_{k≤i} Δ_k·A the state decays by exp(s_i - s_j) from step j to step i. Sums are made in
// double and kept as a float and its rounding error, so that differences are accurate however large they grow. Between sub-tiles of 16 steps a
// decay is a product of three factors, none above 1 where A ≤ 0, so that only pairs within a sub-tile need an exponential.
struct alignas(16) SsdDecays
{
    f32 raw[kSteps], delta[kSteps], high[kSteps], low[kSteps];
    f32 fromStart[kSteps], toEnd[kSteps];                     // exp(s_i), exp(s_end - s_j)
    f32 rowFactor[kSteps], columnFactor[kSteps];              // from the border before a sub-tile to i; from j to the end of its sub-tile
    f32 between[kSubtiles * kSubtiles];                       // [I, J]: from the end of J to the border before I, for J < I
    f32 total, rate;                                          // exp(s_end), A

    // One warp fills it for `steps` steps. Steps behind those have Δ = 0.
    template <typename T>
    __device__ inline void fill(const SsdShape<T>& shape, i64 row, i64 first, int steps, int head)
    {
        const int lane = threadIdx.x % kWarp;
        const f32 bias = shape.dtBias ? shape.dtBias[head] : 0.0f;
        const f64 a = shape.rate(head);
        f64 s[2];
        #pragma unroll
        for (int part = 0; part < 2; part++)
        {
            const int i = lane + kWarp * part;
            f32 value = 0, step = 0;
            if (i < steps)
            {
                value = to_f32(shape.dt[row * shape.dtBatch + (first + i) * shape.dtStep + head]) + bias;
                step = shape.hasSoftplus ? softplus(value) : value;
                step = step < shape.minDelta ? shape.minDelta : step > shape.maxDelta ? shape.maxDelta : step;    // NaN stays NaN
            }
            raw[i] = value;
            delta[i] = step;
            s[part] = step * a;
            #pragma unroll
            for (int distance = 1; distance < kWarp; distance *= 2)
            {
                const f64 before = __shfl_up_sync(kAllLanes, s[part], distance);
                if (lane >= distance) s[part] += before;
            }
        }
        s[1] += __shfl_sync(kAllLanes, s[0], kWarp - 1);
        const f64 last = at(s, kSteps - 1);
        #pragma unroll
        for (int part = 0; part < 2; part++)
        {
            const int i = lane + kWarp * part, tile = i / kSubtile;
            high[i] = (f32)s[part];
            low[i] = (f32)(s[part] - high[i]);
            const f64 before = at(s, tile * kSubtile - 1), after = at(s, tile * kSubtile + kSubtile - 1);
            rowFactor[i] = expf((f32)(s[part] - before));
            columnFactor[i] = expf((f32)(after - s[part]));
            fromStart[i] = rowFactor[i] * expf((f32)before);
            toEnd[i] = columnFactor[i] * expf((f32)(last - after));
        }
        const int I = lane / kSubtiles % kSubtiles, J = lane % kSubtiles;
        const f64 to = at(s, I * kSubtile - 1), from = at(s, J * kSubtile + kSubtile - 1);
        if (lane < kSubtiles * kSubtiles) between[lane] = J < I ? expf((f32)(to - from)) : 0.0f;
        if (lane > 0) return;
        total = expf((f32)last);
        rate = (f32)a;
    }

    // exp(s_i - s_j) for j ≤ i, else 0.
    __device__ inline f32 decay(int i, int j) const
    {
        const int I = i / kSubtile, J = j / kSubtile;
        if (I == J) return j <= i ? expf((high[i] - high[j]) + (low[i] - low[j])) : 0.0f;
        return I > J ? rowFactor[i] * between[I * kSubtiles + J] * columnFactor[j] : 0.0f;
    }

private:
    // The sum up to step i, of two to a lane; 0 before the first.
    __device__ static inline f64 at(const f64 (&s)[2], int i)
    {
        const f64 low = __shfl_sync(kAllLanes, s[0], i & kWarp - 1), high = __shfl_sync(kAllLanes, s[1], i & kWarp - 1);
        return i < 0 ? 0.0 : i < kWarp ? low : high;
    }
};

__device__ inline int round_up(int x, int to) { return (x + to - 1) / to * to; }

template <typename A, typename B> constexpr bool kIsSame = false;
template <typename A> constexpr bool kIsSame<A, A> = true;

// A state at the border of a chunk, as products take it.
template <typename T> using Border = typename TileOf<T>::Element;

// Square tiles.
template <typename T> constexpr int kPitch = kSide + kRowPad<Border<T>>;
template <typename T> constexpr int kTileElements = kSide * kPitch<T>;

// Of a pass backward: 16 × 8s of a warp, which has 16 rows by 32 columns of a tile; and a tile of floats in the order of the registers [J, kSsdThreads, 4].
constexpr int J = kSide / 16, kPartFloats = kSsdThreads * 4, kTileFloats = J * kPartFloats;

// A piece of a head in a pass backward: as many of its channels as a tile of kSteps rows takes in 9 KiB, of which a warp has half of the columns.
template <typename T> constexpr int kPiece = 128 / sizeof(Border<T>);
template <typename T> constexpr int kPiecePitch = kPiece<T> + kRowPad<Border<T>>;
template <typename T> constexpr int kPieceElements = kSteps * kPiecePitch<T>;
template <typename T> constexpr int kPieceParts = kPiece<T> / 16;
template <typename T> constexpr int kPieceFloats = kPieceParts<T> * kPartFloats;

// A team of Threads starts loading rows × columns of a matrix into a tile of Rows × Width, zero where there are none; only columns up to the next multiple of 16 are
// written. Wait with tile_wait, then a barrier.
template <int Width, int Rows = kSteps, int Threads = kSsdThreads, typename T, typename E>
__device__ inline void load_tile(E* sTile, const T* from, i64 rowStride, int rows, int columns, bool isWide)
{
    constexpr int kPitch = Width + kRowPad<E>, V = 16 / sizeof(T);
    const int used = round_up(columns, 16);
    if (kIsSame<T, E> && isWide)
    {
        #pragma unroll 1                                      // copies wait for nothing: more at a time would only take registers
        for (int i = threadIdx.x % Threads; i < Rows * Width / V; i += Threads)
        {
            const int r = i / (Width / V), c = i % (Width / V) * V;
            if (c >= used) continue;
            const int valid = r < rows ? max(0, min(V, columns - c)) : 0;
            copy_async(shared_address(sTile + r * kPitch + c), valid > 0 ? from + r * rowStride + c : from, valid * (int)sizeof(T));
        }
        return;
    }
    #pragma unroll 1
    for (int i = threadIdx.x % Threads; i < Rows * Width; i += Threads)
    {
        const int r = i / Width, c = i % Width;
        if (c < used) sTile[r * kPitch + c] = from_f32<E>(r < rows && c < columns ? to_f32(from[r * rowStride + c]) : 0.0f);
    }
}

__device__ inline void tile_wait()
{
    copy_async_commit();
    copy_async_wait<0>();                                     // this thread's copies are done; a barrier tells of the others'
}

// Two neighbours of a fragment to a row of shared memory.
template <typename E>
__device__ inline void put_pair(E* to, f32 a, f32 b)
{
    const f32 pair[2] = { a, b };
    stash<2>(to, pair);
}

// A team stores `rows` rows of a tile as the rows, `stride` elements apart, that begin at `to`, of which `columns` are the tile's.
template <int Width, int V, typename T, typename E>
__device__ inline void store_tile(T* to, const E* sTile, int rows, i64 stride, int columns)
{
    constexpr int kPitch = Width + kRowPad<E>;
    #pragma unroll 1
    for (int k = thread_again() % kSsdThreads; k < rows * (Width / V); k += kSsdThreads)
    {
        const int r = k / (Width / V), c = k % (Width / V) * V;
        if (c >= columns) continue;
        f32 value[V];
        load<V>(value, sTile + r * kPitch + c);
        store<V>(to + r * stride + c, value);
    }
}

template <int Width, typename T, typename E>
__device__ inline void store_tile(T* to, const E* sTile, int rows, i64 stride, int columns, bool isWide)
{
    if (isWide) store_tile<Width, 16 / sizeof(T)>(to, sTile, rows, stride, columns);
    else store_tile<Width, 1>(to, sTile, rows, stride, columns);
}

// A team loads dy of a piece behind the gate into a tile, V elements at a time; visit(at, dy before the gate, z) is told of those that are there.
template <int V, typename T, typename Visit>
__device__ inline void load_gated(const SsdShape<T>& shape, Border<T>* sTile, const T* dy, i64 row, i64 first, int steps, int head, int channel, Visit visit)
{
    const int used = round_up(min(kPiece<T>, shape.P - channel), 16);
    #pragma unroll 1
    for (int k = threadIdx.x % kSsdThreads; k < kSteps * kPiece<T> / V; k += kSsdThreads)
    {
        const int i = k / (kPiece<T> / V), p = k % (kPiece<T> / V) * V;
        if (p >= used) continue;
        f32 d[V] = {};
        if (i < steps && channel + p < shape.P)
        {
            const i64 at = shape.dense(row, first + i, head) + channel + p;
            f32 gate[V];
            load<V>(d, dy + at);
            load<V>(gate, shape.z_at(row, first + i, head) + channel + p);
            visit(at, d, gate);
            #pragma unroll
            for (int v = 0; v < V; v++) d[v] *= silu(gate[v]);
        }
        stash<V>(sTile + i * kPiecePitch<T> + p, d);
    }
}
