// SelectiveScan.cuh: what the kernels of the selective scan share: sizes, the segment and channels of a block, states, rows.
#pragma once
#include "common/Async.cuh"
#include "common/Copy.cuh"
#include "common/Exponent.cuh"
#include "common/Pointwise.cuh"
#include "common/TimeStep.cuh"
#include "common/Turns.cuh"
#include "common/Warp.cuh"

constexpr int kInterval = 32;                                 // steps from one kept state to the next
constexpr int kMaxThreads = 640;                              // of their blocks there are at most 512; so many leave each 96 registers

// A segment of a packed sequence, steps [begin, end): its first kept state, and which of the segments of its sequence it is.
struct ScanSegment                                            // mirrored in CudaSelectiveScan.cs, field for field
{
    i64 begin, end, kept, sequence;
    i32 segment, segments;
};

struct SelectiveScanShape                                     // mirrored in CudaSelectiveScan.cs, field for field
{
    const f32* A; const f32* D; const f32* dtBias; const ScanSegment* packed; const f32* ends; const f32* deltas;
    i64 L, channels, uBatch, uStep, dtBatch, dtStep, zBatch, zStep, bBatch, bStep, bGroup, cBatch, cStep, cGroup, segmentSteps;
    i32 N, G, channelsPerGroup, blocksPerGroup, width, segments, hasSoftplus, areStatesWide;
};

// The segment of a sequence and the channels of a block.
struct ScanPlace
{
    i64 sequence, row, begin, end, kept, number, group, part, first; // the segment is [begin, end) of the row; its first kept state; its number among those of all sequences; the first channel
    i32 segment, segments, columns;

    ScanPlace() = default;

    __device__ inline ScanPlace(const SelectiveScanShape& shape, u32 block = blockIdx.x)
    {
        const u32 blocks = (u32)shape.G * shape.blocksPerGroup, inner = block % blocks, outer = block / blocks;
        number = outer;
        group = inner / shape.blocksPerGroup;
        part = inner % shape.blocksPerGroup;
        first = group * shape.channelsPerGroup + part * shape.width;
        columns = (i32)min((i64)shape.width, shape.channelsPerGroup - part * shape.width);
        if (shape.packed)
        {
            const ScanSegment& own = shape.packed[outer];
            sequence = own.sequence;
            row = 0;
            begin = own.begin;
            end = own.end;
            kept = own.kept;
            segment = own.segment;
            segments = own.segments;
        }
        else
        {
            segments = shape.segments;
            segment = outer % segments;
            sequence = row = outer / segments;
            begin = segment * shape.segmentSteps;             // whole intervals
            end = min(begin + shape.segmentSteps, shape.L);
            kept = sequence * ((shape.L + kInterval - 1) / kInterval) + begin / kInterval;
        }
    }

    // The number of the block.
    __device__ inline i64 word(const SelectiveScanShape& shape) const { return (number * shape.G + group) * shape.blocksPerGroup + part; }

    __device__ inline bool is_last() const { return segment + 1 == segments; }

    // Of the ends of segments, of which a sequence has one less than segments, the first of this sequence.
    __device__ inline i64 ends() const { return number - segment - sequence; }
};

// Δ·log2 e: exp(Δ·A) is 2 to its product with A. A rounding of A·log2 e would be the same at every step and add up; this one differs from step to step.
__device__ inline f32 scale_exponent(f32 delta) { return fmaf(delta, kLog2ERest, delta * kLog2E); }

// Neighbouring states from n on; those from N on are 0. isWritten: another block may have written them, so they come past the L1 cache.
template <bool isWritten = false, int S>
__device__ inline void load_states(f32 (&to)[S], const f32* from, i32 n, const SelectiveScanShape& shape)
{
    #pragma unroll
    for (int s = 0; s < S; s += 4)
    {
        f32 four[4] = {};
        if (shape.areStatesWide)
        {
            if (n + s < shape.N)
            {
                if constexpr (isWritten) load_written(four, from + n + s);
                else load<4>(four, from + n + s);
            }
        }
        else
            #pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + s + i < shape.N) four[i] = isWritten ? __ldcg(from + n + s + i) : from[n + s + i];
        #pragma unroll
        for (int i = 0; i < 4; i++) to[s + i] = four[i];
    }
}

template <int S>
__device__ inline void store_states(f32* to, const f32 (&from)[S], i32 n, const SelectiveScanShape& shape)
{
    #pragma unroll
    for (int s = 0; s < S; s += 4)
    {
        const f32 four[4] = {from[s], from[s + 1], from[s + 2], from[s + 3]};
        if (shape.areStatesWide)
        {
            if (n + s < shape.N) store<4>(to + n + s, four);
        }
        else
            #pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + s + i < shape.N) to[n + s + i] = four[i];
    }
}

// ΣΔ·log2 e of a segment, so that a state without decay keeps its 0 in the exponent.
__device__ inline f32 hold_delta(f32 sum) { return fminf(fmaxf(sum, -1e38f), 1e38f); }

// The state at the border of a segment: from the ends of those that were walked before it, `count` of them from `end` on in steps of `way`, in that order. Each
// end but the first was walked to from 0, and takes what came before it times its decay.
template <int S>
__device__ inline void join_ends(f32 (&h)[S], const f32 (&a)[S], const SelectiveScanShape& shape, i64 end, i64 d, i32 n, i32 count, i32 way)
{
    #pragma unroll
    for (int s = 0; s < S; s++) h[s] = 0;
    #pragma unroll 1
    for (i32 i = 0; i < count; i++, end += way)
    {
        const i64 at = end * shape.channels + d;
        const f32 scaled = __ldcg(shape.deltas + at);         // ΣΔ·log2 e
        f32 state[S];
        load_states<true>(state, shape.ends + at * shape.N, n, shape);
        #pragma unroll
        for (int s = 0; s < S; s++) h[s] = h[s] == 0.0f ? state[s] : fmaf(power_of_two(scaled * a[s]), h[s], state[s]);
    }
}

// What a thread has of rows of `width` elements, a power of two: V neighbours of a row, and those of every `rows`-th row behind it.
template <int V>
struct TileLane
{
    i32 row, column, rows;

    __device__ inline TileLane(i32 width)
    {
        const i32 chunks = width / V, shift = 31 - __clz(chunks);
        row = threadIdx.x >> shift;
        column = (threadIdx.x & (chunks - 1)) * V;
        rows = blockDim.x >> shift;
    }
};

// Where the i-th float stands, so that threads with eight neighbours each reach all banks: each 32 take the room of 36.
__device__ inline i32 spread(i32 i) { return i + i / 32 * 4; }

// dtBias of the neighbouring channels whose steps this thread scales, as scale_steps takes it.
template <int V>
__device__ inline void load_bias(f32 (&bias)[V], const SelectiveScanShape& shape, const ScanPlace& place)
{
    const TileLane<V> at(shape.width);
    #pragma unroll
    for (int v = 0; v < V; v++) bias[v] = shape.dtBias && at.column + v < place.columns ? (shape.hasSoftplus ? kLog2E : 1.0f) * shape.dtBias[place.first + at.column + v] : 0.0f;
}

template <bool isWide, typename T>
__device__ inline void fetch_access(T* sTo, const T* from)
{
    if constexpr (isWide) copy_async(shared_address(sTo), from, 16);
    else *sTo = *from;
}

// Rows of a tile to shared memory, `width` elements apart. isWide: they are under way.
template <bool isWide, typename T>
__device__ inline void fetch_channels(T* sTo, i32 width, const T* from, i64 stride, i32 rows, i32 columns)
{
    const TileLane<kVector<T, isWide>> at(width);
    if (at.column >= columns) return;
    for (i32 t = at.row; t < rows; t += at.rows) fetch_access<isWide>(sTo + t * width + at.column, from + t * stride + at.column);
}

// The same of N elements, not always a power of two; sTo has the rows of C behind those of B, `all` rows further on.
template <bool isWide, typename T>
__device__ inline void fetch_states(T* sTo, const T* B, i64 bStride, i32 rows, i32 N, const T* C = nullptr, i64 cStride = 0, i32 all = 0)
{
    constexpr int V = kVector<T, isWide>;
    const i32 chunks = N / V;
    for (i32 i = threadIdx.x; i < (C ? 2 : 1) * rows * chunks; i += blockDim.x)
    {
        i32 row = i / chunks;
        const i32 column = (i - row * chunks) * V;
        const bool isC = row >= rows;
        if (isC) row -= rows;
        fetch_access<isWide>(sTo + (isC ? all + row : row) * N + column, (isC ? C + row * cStride : B + row * bStride) + column);
    }
}
