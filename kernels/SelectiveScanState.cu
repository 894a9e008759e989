// SelectiveScanState.cu
//
// Computes   what segments of a sequence need of each other, so that all can be walked back at once: for every segment but the first, the gradient G of the state before
//            it, walked back as in SelectiveScanBackward.cu, G[n] = exp(Δ·A[d,n])·(G[n] + dy[t,d]·silu(z[t,d])·C[t,n]), the last segment from the gradient of the
//            final state and the others from 0, and ΣΔ·log2 e. exp(A·ΣΔ) is the decay of all steps of a segment.
// Source     Blelloch 1990, "Prefix sums and their applications", section 1.4, as Gu and Dao 2023, arXiv:2312.00752, section 3.3.2 use it: the recurrence is associative.
// Method     as SelectiveScanForward.cu: S states of a channel to a thread, C shared by the channels of a block, the rows of the next tile on their way. No
//            outputs: 3 float operations and 1 exponential for each step, channel and state. The kernel that comes after joins the ends, in order.
// Layout     dy [B, L, D], C [B, L, G, N], dt, z [B, L, D], with the given strides, the last axis dense; z may be null; dfinal [sequences, D, N] float or null; ends
//            [segments − sequences, D, N], deltas [segments − sequences, D] float, of all sequences; A, dtBias, packed as in SelectiveScanForward.cu.
// Launch     grid segments·G·blocksPerGroup, of all segments: blocks of those that need not be walked end at once; block width·parts with parts = ceil(N / S) and width 32 to 128; dynamic shared memory of two stages of
//            kSteps·(3·width + N) elements, and kSteps·(2·width + S·parts) floats.
// Traffic    reads (2, or 3 with z)·D + G·N·blocksPerGroup elements a step of its segments; each of those reads A, and dtBias for each part, and writes N·D + D floats. A
//            block of packed sequences reads a record of 40 bytes.
// Precision  loads T, computes and accumulates f32; exp as in SelectiveScanForward.cu. The sum is added tile by tile and held to ±1e38, so that a state without decay keeps
//            its 0 in the exponent. Deterministic: no atomics, fixed order of additions.
// Limits     as SelectiveScanForward.cu; segments are of whole intervals.
// Variants   selective_scan_state<{f32|bf16|f16}, {8|16}, {true|false}>
#include "common/SelectiveScan.cuh"

constexpr int kSteps = 8;                                     // of a tile

template <typename T>
struct SelectiveScanStateArgs                              // mirrored in CudaSelectiveScan.cs, field for field
{
    const T* dy; const T* dt; const T* z; const T* C; const f32* dfinal; f32* ends; f32* deltas;
    i64 dyBatch, dyStep;
    SelectiveScanShape shape;
};

// The shared memory of a block, and what it does for a tile.
template <typename T, bool isWide>
struct SegmentTile
{
    T* sRows;                                                 // two stages of dy, dt, z [kSteps, width] and C [kSteps, N] as they are
    f32* sDelta; f32* sInput; f32* sC;                        // Δ·log2 e, and dy behind the gate [kSteps, width]; C [kSteps, padded]
    i32 width, N, padded;

    __device__ inline SegmentTile(u8* sMemory, const SelectiveScanShape& shape, int S) : width(shape.width), N(shape.N), padded(blockDim.x / shape.width * S)
    {
        sRows = reinterpret_cast<T*>(sMemory);
        sDelta = reinterpret_cast<f32*>(rows_of(2));
        sInput = sDelta + kSteps * width;
        sC = sInput + kSteps * width;
    }

    __device__ inline T* rows_of(int stage) const { return sRows + stage * kSteps * (3 * width + N); }
    __device__ inline T* dy(int stage) const { return rows_of(stage); }
    __device__ inline T* dt(int stage) const { return rows_of(stage) + kSteps * width; }
    __device__ inline T* z(int stage) const { return rows_of(stage) + 2 * kSteps * width; }
    __device__ inline T* c(int stage) const { return rows_of(stage) + 3 * kSteps * width; }

    __device__ inline void fetch(int stage, const SelectiveScanStateArgs<T>& args, const ScanPlace& place, i64 step)
    {
        const SelectiveScanShape& shape = args.shape;         // B·L·D may exceed 2³¹
        const i32 rows = (i32)min((i64)kSteps, place.end - step);
        fetch_channels<isWide>(dy(stage), width, args.dy + place.row * args.dyBatch + step * args.dyStep + place.first, args.dyStep, rows, place.columns);
        fetch_channels<isWide>(dt(stage), width, args.dt + place.row * shape.dtBatch + step * shape.dtStep + place.first, shape.dtStep, rows, place.columns);
        if (args.z) fetch_channels<isWide>(z(stage), width, args.z + place.row * shape.zBatch + step * shape.zStep + place.first, shape.zStep, rows, place.columns);
        fetch_states<isWide>(c(stage), args.C + place.row * shape.cBatch + step * shape.cStep + place.group * shape.cGroup, shape.cStep, rows, N);
        copy_async_commit();
    }

    // Δ, what enters the gradient, and C as floats with zeros behind the last state.
    __device__ inline void prepare(int stage, bool hasSoftplus, bool hasGate, i32 columns, i32 rows, const f32 (&bias)[1])
    {
        const TileLane<1> at(width);
        if (at.column < columns)
            for (i32 t = at.row; t < rows; t += at.rows)
            {
                const i32 i = t * width + at.column;
                f32 delta[1] = {to_f32(dt(stage)[i])}, enters = to_f32(dy(stage)[i]);
                scale_steps(delta, bias, hasSoftplus);
                if (hasGate) enters *= silu(to_f32(z(stage)[i]));
                sDelta[i] = delta[0];
                sInput[i] = enters;
            }
        for (int i = threadIdx.x; i < rows * padded; i += blockDim.x)
        {
            const i32 t = i / padded, n = i - t * padded;
            sC[i] = n < N ? to_f32(c(stage)[t * N + n]) : 0.0f;
        }
    }

    // The gradients of one channel's states through the tile. Returns ΣΔ·log2 e.
    template <int S>
    __device__ inline f32 walk(f32 (&g)[S], const f32 (&a)[S], i32 rows) const
    {
        const int column = threadIdx.x % width, part = threadIdx.x / width;
        f32 sum = 0;
        const f32* sOwn = sDelta + (rows - 1) * width + column;                          // and what enters, kSteps rows behind
        const f32* sRow = sC + (rows - 1) * padded + part * S;
        #pragma unroll 1                                      // the states of one step are work enough at a time
        for (int i = 0; i < rows; i++, sOwn -= width, sRow -= padded)
        {
            const f32 delta = *sOwn, enters = sOwn[kSteps * width];
            sum += delta;
            #pragma unroll
            for (int s = 0; s < S; s += 4)
            {
                f32 four[4];
                load<4>(four, sRow + s);
                #pragma unroll
                for (int k = 0; k < 4; k++) g[s + k] = power_of_two(delta * a[s + k]) * fmaf(enters, four[k], g[s + k]);
            }
        }
        return sum;
    }
};

template <typename T, int S, bool isWide>
__global__ void __launch_bounds__(kMaxThreads, 1) selective_scan_state(const SelectiveScanStateArgs<T> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    const SelectiveScanShape& shape = args.shape;
    const ScanPlace place(shape);
    if (place.segment == 0) return;                           // nobody waits for its end
    const int c = threadIdx.x % shape.width, n = threadIdx.x / shape.width * S;
    const bool isActive = c < place.columns;                  // idle threads stay for the barriers
    const i64 d = place.first + c, to = (place.ends() + place.segment - 1) * shape.channels + d;
    SegmentTile<T, isWide> tile(sMemory, shape, S);
    const i64 tiles = (place.end - place.begin + kSteps - 1) / kSteps;
    i64 step = place.begin + (tiles - 1) * kSteps;
    int stage = 0;
    tile.fetch(stage, args, place, step);
    f32 g[S] = {}, a[S] = {}, bias[1];
    if (isActive)
    {
        load_states(a, shape.A + d * shape.N, n, shape);
        if (args.dfinal && place.is_last()) load_states(g, args.dfinal + (place.sequence * shape.channels + d) * shape.N, n, shape);
    }
    load_bias(bias, shape, place);
    f32 sum = 0;
    for (i64 left = tiles; left > 0; left--, stage ^= 1)
    {
        const i32 rows = (i32)min((i64)kSteps, place.end - step);
        copy_async_wait<0>();
        __syncthreads();                                      // the tile's rows are there, and what was made of the last one's has been read by all
        step -= kSteps;
        if (left > 1) tile.fetch(stage ^ 1, args, place, step);
        tile.prepare(stage, shape.hasSoftplus, args.z, place.columns, rows, bias);
        __syncthreads();                                      // Δ, what enters and C are there
        if (isActive) sum += tile.walk(g, a, rows);
    }
    if (!isActive) return;
    store_states(args.ends + to * shape.N, g, n, shape);
    if (n == 0) args.deltas[to] = hold_delta(sum);
}
