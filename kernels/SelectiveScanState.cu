// SelectiveScanState.cu
//
// Computes   what segments of a sequence need of each other, so that all can be walked at once. Forward, for every segment but the last: its last state h, walked as
//            in SelectiveScanForward.cu, the first segment from the initial state and the others from 0, and ΣΔ·log2 e. Backward, for every segment but the first: the
//            gradient G of the state before it, walked back as in SelectiveScanBackward.cu, G[n] = exp(Δ·A[d,n])·(G[n] + dy[t,d]·silu(z[t,d])·C[t,n]), the last
//            segment from the gradient of the final state and the others from 0, and the same sum. exp(A·ΣΔ) is the decay of all steps of a segment.
// Source     Blelloch 1990, "Prefix sums and their applications", section 1.4, as Gu and Dao 2023, arXiv:2312.00752, section 3.3.2 use it: the recurrence is associative.
// Method     as SelectiveScanForward.cu: S states of a channel to a thread, B (or C) shared by the channels of a block, the rows of the next tile on their way. No
//            outputs: 3 float operations and 1 exponential for each step, channel and state. The kernels that come after join the ends, in order.
// Layout     input [B, L, D] is u or dy, matrix [B, L, G, N] is B or C, dt, z [B, L, D], with the given strides, the last axis dense; z is null forward; first
//            [sequences, D, N] float or null; ends [segments − sequences, D, N], deltas [segments − sequences, D] float, of all sequences; A, dtBias, packed as in SelectiveScanForward.cu.
// Launch     grid segments·G·blocksPerGroup, of all segments: blocks of those that need not be walked end at once; block width·parts with parts = ceil(N / S) and width 32 to 128; dynamic shared memory of two stages of
//            kSteps·(3·width + N) elements, and kSteps·(2·width + S·parts) floats.
// Traffic    reads (2, or 3 with z)·D + G·N·blocksPerGroup elements a step of its segments; each of those reads A, and dtBias for each part, and writes N·D + D floats. A
//            block of packed sequences reads a record of 40 bytes.
// Precision  loads T, computes and accumulates f32; exp as in SelectiveScanForward.cu. The sum is added tile by tile and held to ±1e38, so that a state without decay keeps
//            its 0 in the exponent. Deterministic: no atomics, fixed order of additions.
// Limits     as SelectiveScanForward.cu; segments are of whole intervals.
// Variants   selective_scan_state<{f32|bf16|f16}, {8|16}, {true|false}, {true|false}>
#include "common/SelectiveScan.cuh"

constexpr int kSteps = 8;                                     // of a tile
constexpr f32 kMostDelta = 1e38f;

template <typename T>
struct SelectiveScanStateArgs                              // mirrored in CudaSelectiveScan.cs, field for field
{
    const T* input; const T* dt; const T* z; const T* matrix; const f32* first; f32* ends; f32* deltas;
    i64 inputBatch, inputStep, matrixBatch, matrixStep, matrixGroup;
    SelectiveScanShape shape;
};

// The shared memory of a block, and what it does for a tile.
template <typename T, bool isBackward>
struct SegmentTile
{
    T* sRows;                                                 // two stages of input, dt, z [kSteps, width] and the matrix [kSteps, N] as they are
    f32* sDelta; f32* sInput; f32* sMatrix;                   // Δ·log2 e, and Δ·log2 e·u or dy behind the gate [kSteps, width]; B·ln 2 or C [kSteps, padded]
    i32 width, N, padded;

    __device__ inline SegmentTile(u8* sMemory, const SelectiveScanShape& shape, int S) : width(shape.width), N(shape.N), padded(blockDim.x / shape.width * S)
    {
        sRows = reinterpret_cast<T*>(sMemory);
        sDelta = reinterpret_cast<f32*>(rows_of(2));
        sInput = sDelta + kSteps * width;
        sMatrix = sInput + kSteps * width;
    }

    __device__ inline T* rows_of(int stage) const { return sRows + stage * kSteps * (3 * width + N); }
    __device__ inline T* input(int stage) const { return rows_of(stage); }
    __device__ inline T* dt(int stage) const { return rows_of(stage) + kSteps * width; }
    __device__ inline T* z(int stage) const { return rows_of(stage) + 2 * kSteps * width; }
    __device__ inline T* matrix(int stage) const { return rows_of(stage) + 3 * kSteps * width; }

    template <bool isWide>
    __device__ inline void fetch(int stage, const SelectiveScanStateArgs<T>& args, const ScanPlace& place, i64 step)
    {
        const SelectiveScanShape& shape = args.shape;         // B·L·D may exceed 2³¹
        const i32 rows = (i32)min((i64)kSteps, place.end - step);
        fetch_channels<isWide>(input(stage), width, args.input + place.row * args.inputBatch + step * args.inputStep + place.first, args.inputStep, rows, place.columns);
        fetch_channels<isWide>(dt(stage), width, args.dt + place.row * shape.dtBatch + step * shape.dtStep + place.first, shape.dtStep, rows, place.columns);
        if (isBackward && args.z) fetch_channels<isWide>(z(stage), width, args.z + place.row * shape.zBatch + step * shape.zStep + place.first, shape.zStep, rows, place.columns);
        fetch_states<isWide>(matrix(stage), args.matrix + place.row * args.matrixBatch + step * args.matrixStep + place.group * args.matrixGroup, args.matrixStep, rows, N);
        copy_async_commit();
    }

    // Δ, what enters the state, and the matrix as floats with zeros behind the last state.
    __device__ inline void prepare(int stage, const SelectiveScanShape& shape, bool hasGate, const ScanPlace& place, i32 rows, const f32 (&bias)[1])
    {
        const int column = threadIdx.x % width, parts = blockDim.x / width;
        if (column < place.columns)
            for (int t = threadIdx.x / width; t < rows; t += parts)
            {
                const int at = t * width + column;
                f32 delta[1] = {to_f32(dt(stage)[at])}, enters = to_f32(input(stage)[at]);
                scale_steps(delta, bias, shape.hasSoftplus);
                if (!isBackward) enters *= delta[0];
                else if (hasGate) enters *= silu(to_f32(z(stage)[at]));
                sDelta[at] = delta[0];
                sInput[at] = enters;
            }
        for (int i = threadIdx.x; i < rows * padded; i += blockDim.x)
        {
            const int t = i / padded, n = i - t * padded;
            sMatrix[i] = n < N ? (isBackward ? 1.0f : kLn2) * to_f32(matrix(stage)[t * N + n]) : 0.0f;
        }
    }

    // One channel's states, or their gradients, through the tile. Returns ΣΔ.
    template <int S>
    __device__ inline f32 walk(f32 (&h)[S], const f32 (&a)[S], i32 rows) const
    {
        const int column = threadIdx.x % width, part = threadIdx.x / width;
        f32 sum = 0;
        const int first = isBackward ? rows - 1 : 0, way = isBackward ? -1 : 1;
        const f32* sOwn = sDelta + first * width + column;    // and what enters, kSteps rows behind
        const f32* sRow = sMatrix + first * padded + part * S;
        #pragma unroll 1                                      // the states of one step are work enough at a time
        for (int i = 0; i < rows; i++, sOwn += way * width, sRow += way * padded)
        {
            const f32 delta = *sOwn, enters = sOwn[kSteps * width];
            sum += delta;
            #pragma unroll
            for (int s = 0; s < S; s += 4)
            {
                f32 four[4];
                load<4>(four, sRow + s);
                #pragma unroll
                for (int k = 0; k < 4; k++)
                {
                    const f32 decay = power_of_two(delta * a[s + k]);
                    h[s + k] = isBackward ? decay * fmaf(enters, four[k], h[s + k]) : fmaf(decay, h[s + k], enters * four[k]);
                }
            }
        }
        return sum;
    }
};

template <typename T, int S, bool isWide, bool isBackward>
__global__ void __launch_bounds__(kMaxThreads, 1) selective_scan_state(const SelectiveScanStateArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    const SelectiveScanShape& shape = args.shape;
    const ScanPlace place(shape);
    if (isBackward ? place.segment == 0 : place.is_last()) return;                        // nobody waits for its end
    const int c = threadIdx.x % shape.width, n = threadIdx.x / shape.width * S;
    const bool isActive = c < place.columns;                  // idle threads stay for the barriers
    const i64 d = place.first + c, to = (place.ends() + place.segment - (isBackward ? 1 : 0)) * shape.channels + d;
    SegmentTile<T, isBackward> tile(sMemory, shape, S);
    const i64 tiles = (place.end - place.begin + kSteps - 1) / kSteps;
    i64 step = isBackward ? place.begin + (tiles - 1) * kSteps : place.begin;
    int stage = 0;
    tile.template fetch<isWide>(stage, args, place, step);
    f32 h[S] = {}, a[S] = {};
    if (isActive)
    {
        load_states(a, shape.A + d * shape.N, n, shape);
        if (args.first && (isBackward ? place.is_last() : place.segment == 0)) load_states(h, args.first + (place.sequence * shape.channels + d) * shape.N, n, shape);
    }
    f32 bias[1];
    load_bias(bias, shape, place);
    f32 sum = 0;
    for (i64 left = tiles; left > 0; left--, stage ^= 1)
    {
        const i32 rows = (i32)min((i64)kSteps, place.end - step);
        copy_async_wait<0>();
        __syncthreads();                                      // the tile's rows are there, and what was made of the last one's has been read by all
        step += isBackward ? -kSteps : kSteps;
        if (left > 1) tile.template fetch<isWide>(stage ^ 1, args, place, step);
        tile.prepare(stage, shape, args.z, place, rows, bias);
        __syncthreads();                                      // Δ, what enters and the matrix are there
        if (isActive) sum += tile.walk(h, a, rows);
    }
    if (!isActive) return;
    store_states(args.ends + to * shape.N, h, n, shape);
    if (n == 0) args.deltas[to] = fminf(fmaxf(sum, -kMostDelta), kMostDelta);
}
