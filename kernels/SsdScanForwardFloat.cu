// SsdScanForwardFloat.cu
//
// Computes   what SsdScanForward.cu does, in tiles of floats: of f32, and of f16, whose range is too small for products of intermediate results.
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6.
// Method     ssd_scan_forward_float: a block of 8 warps owns W = 32 channels of one head of one sequence, and walks the chunks with the state in registers, so that nothing between passes goes
//            through global memory. C·Bᵀ, C·S and later the two products with x are multiply-adds from tiles in shared memory, where a copy of the state stands too; the
//            decayed x takes its place, then y, which goes out in whole lines, past the gate, while the next chunk is on its way. C and B come in slices of 64 of
//            N. One warp makes Δ and the decays (common/Ssd.cuh). The states of segments come from ssd_scan_state_forward, and a convolution works in the tile of x, as SsdScanForward.cu says:
//            a thread walks 8 steps of a channel. Multiply-adds need whole rows and columns of both sides in a lane, which sums in registers are not: hence a kernel of its own.
// Layout     as SsdScanForward.cu; states and carried in floats.
// Launch     ssd_scan_forward_float grid sequences·segments·H·ceil(P / 32), block 256; dynamic shared memory 61 to 79 KiB, see SsdPlan, and 3.4 KiB besides.
// Traffic    per step: a block reads its part of P elements (twice with z), 1 of dt, and 2·N of B and C, and of B 64 more for each 64 of N but the last, and writes its part of P (twice with ungated; with norm also a float);
//            states, segments and a convolution as SsdScanForward.cu.
// Precision  loads T, works in f32, stores T. Sums of Δ·A are f64. Deterministic: no atomics; blocks and segments change no bit. A convolution gives the bits of CausalConv1d.cu, x rounded to T.
// Limits     as SsdScanForward.cu
// Variants   ssd_scan_forward_float<{f32|f16}, {1|2|4}>
#include "common/SsdForward.cuh"

constexpr int kWidth = 32, kSlice = 64;                       // channels of a block; of N
constexpr int kPitchN = kSlice + kRowPad<f32>, kPitchP = kWidth + kRowPad<f32>, kPitchG = kSteps + kRowPad<f32>, kPitchY = kWidth + 4;

// Shared memory of a block; SsdPlan counts the same bytes.
template <int Tiles>
struct SsdForwardTiles
{
    static constexpr int kRows = Tiles == 1 ? 2 * kSteps : Tiles * 64;                    // of what stands in the place of the state
    static_assert(kPitchY * kSteps <= kRows * kPitchP, "y fits into the place of the state");

    f32* sC;                                                  // [kSteps, kSlice]; then C·Bᵀ with its decay [kSteps, kSteps]
    f32* sB;                                                  // [kSteps, kSlice]
    f32* sX;                                                  // [kSteps, kWidth]
    f32* sState;                                              // [64·Tiles, kWidth]; then x on its way to the end of the chunk, [kSteps, kWidth]; then y [kSteps, kWidth]

    __device__ inline SsdForwardTiles(u8* sMemory)
    {
        sC = reinterpret_cast<f32*>(sMemory);
        sB = sC + kSteps * kPitchN;
        sX = sB + kSteps * kPitchN;
        sState = sX + kSteps * kPitchP;
    }
};

// Calls visit(element, n, p) for this thread's part of a state, whose rows are n = 64·r + m … and columns p0 ….
template <int Tiles, int J, typename Visit>
__device__ __forceinline__ void for_state(f32 (&state)[Tiles][J][4], int m, int p0, Visit visit)
{
    #pragma unroll
    for (int r = 0; r < Tiles; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++) visit(state[r][j][part], 64 * r + m + fragment_row(part), p0 + 8 * j + fragment_column(part));
}

template <typename T, int Tiles>
__global__ void __launch_bounds__(kSsdThreads, Tiles <= 2 ? 2 : 1) ssd_scan_forward_float(const SsdForwardArgs<T> args)
{
    constexpr int J = kWidth / 16, kSlices = Tiles * 64 / kSlice, kColumns = 32;          // kColumns: of C·Bᵀ, for a warp
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays decays;
    __shared__ f32 sSkip[kWidth];                             // D of a block's channels
    __shared__ __align__(16) f32 sNorm[kWidth];               // the norm's weight of them
    __shared__ __align__(16) SsdWindow<kWidth, kSsdThreads, 1> window;
    const SsdShape<T>& shape = args.shape;
    const int slices = (shape.P + kWidth - 1) / kWidth, blocks = shape.H * slices, unit = blockIdx.x % blocks;
    const int channel = unit % slices * kWidth, head = unit / slices, group = head / (shape.H / shape.G), segment = blockIdx.x / blocks % args.segments;
    const i64 number = blockIdx.x / blocks / args.segments;
    const SsdSequence sequence(shape, number);
    const i64 firstChunk = (i64)segment * args.chunksOfSegment, begin = sequence.begin + firstChunk * shape.Q, end = min(sequence.end, begin + (i64)args.chunksOfSegment * shape.Q);
    if (segment > 0 && begin >= sequence.end) return;         // a sequence with fewer segments
    const SsdForwardTiles<Tiles> memory(sMemory);
    const int warp = threadIdx.x / kWarp, m = warp / 2 * 16, half = warp % 2;                   // this warp's rows, and its half of the columns
    const int channels = min(kWidth, shape.P - channel), usedP = round_up(channels, 16), usedN = round_up(shape.N, 16), lastSlice = kSlices == 1 ? 0 : (usedN - 1) / kSlice;
    const int p0 = half * (kWidth / 2), columns = usedP - p0, q0 = half * kColumns;

    for (int c = threadIdx.x; c < kWidth; c += kSsdThreads)
    {
        sSkip[c] = shape.D && c < channels ? args.skip(head, channel + c) : 0.0f;
        sNorm[c] = args.norm && c < channels ? args.norm[head * shape.P + channel + c] : 0.0f;
    }

    if (args.convolution.weight) window.open(args.convolution, number, head * shape.P + channel, channels);

    f32 state[Tiles][J][4];                                   // rows n = 64·r + m … by columns p0 …
    const f32* from = args.state_before(number, segment, head);
    for_state(state, m, p0, [&](f32& element, int n, int p) { element = from && n < shape.N && p < channels ? from[(i64)(channel + p) * shape.N + n] : 0.0f; });

    const auto load_slice = [&](i64 first, int slice, bool hasC)
    {
        const int n = slice * kSlice, width = min(kSlice, shape.N - n), steps = (int)min((i64)shape.Q, end - first);
        if (hasC) load_tile<kSlice>(memory.sC, shape.c_at(sequence.row, first, group) + n, shape.cStep, steps, width, shape.isBcWide);
        load_tile<kSlice>(memory.sB, shape.b_at(sequence.row, first, group) + n, shape.bStep, steps, width, shape.isBcWide);
    };
    const auto load_chunk = [&](i64 first)
    {
        const int steps = (int)min((i64)shape.Q, end - first);
        load_tile<kWidth>(memory.sX, shape.x_at(sequence.row, first, head) + channel, shape.xStep, steps, channels, shape.isXWide);
        load_slice(first, 0, true);
        if (warp == 0) decays.fill(shape, sequence.row, first, steps, head);
    };

    if (begin < end) load_chunk(begin);
    for (i64 first = begin; first < end; first += shape.Q)
    {
        const int steps = (int)min((i64)shape.Q, end - first);
        if (first > begin) __syncthreads();                   // y of the chunk before has left shared memory
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int v = 0; v < 4; v += 2) put_pair(memory.sState + (64 * r + m + fragment_row(v)) * kPitchP + p0 + 8 * j + fragment_column(v), state[r][j][v], state[r][j][v + 1]);

        f32 products[kColumns / 8][4] = {}, y[J][4] = {};     // C·Bᵀ: rows m …, columns q0 …
        for (int slice = 0; slice <= lastSlice; slice++)
        {
            if (kSlices > 1 && slice > 0)
            {
                __syncthreads();                              // the slice before has been read by all
                load_slice(first, slice, true);
            }
            tile_wait();
            __syncthreads();                                  // the tiles, the state, the decays and the taps are there
            if (slice == 0 && args.convolution.weight)
                window.template convolve<T>([&](int row, int column) { return memory.sX + row * kPitchP + column; }, args.convolution.K, steps, usedP);
            const int depth = min(kSlice, usedN - slice * kSlice);
            multiply<false, false>(products, memory.sC + m * kPitchN, kPitchN, memory.sB + q0 * kPitchN, kPitchN, depth, m + 16 - q0);
            multiply<false, true>(y, memory.sC + m * kPitchN, kPitchN, memory.sState + slice * kSlice * kPitchP + p0, kPitchP, depth, columns);
        }
        if (args.states)
        {
            const SsdSequence of(shape, number);              // anew: registers are short
            const i64 chunk = (first - of.begin) / shape.Q;
            if (chunk % kChunksOfBorder == 0)
                store_tile<kWidth>(args.states + shape.border(of.firstBorder + chunk / kChunksOfBorder, head) + channel, memory.sState, shape.N, shape.P, channels, shape.isStateWide);
        }
        __syncthreads();                                      // C and the state have been read by all; C·Bᵀ and the decayed x go into their places. x is convolved
        #pragma unroll
        for (int j = 0; j < kColumns / 8; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2)
            {
                const int i = m + fragment_row(v), k = q0 + 8 * j + fragment_column(v);
                put_pair(memory.sC + i * kPitchG + k, products[j][v] * decays.decay(i, k) * decays.delta[k], products[j][v + 1] * decays.decay(i, k + 1) * decays.delta[k + 1]);
            }
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2)
            {
                const int i = m + fragment_row(v), p = p0 + 8 * j + fragment_column(v);
                if (p >= usedP) continue;
                f32 x[2];
                load<2>(x, memory.sX + i * kPitchP + p);
                const f32 decay = decays.toEnd[i] * decays.delta[i];
                put_pair(memory.sState + i * kPitchP + p, x[0] * decay, x[1] * decay);
                #pragma unroll
                for (int k = 0; k < 2; k++) y[j][v + k] = fmaf(y[j][v + k], decays.fromStart[i], sSkip[p + k] * x[k]);
            }
        __syncthreads();                                      // C·Bᵀ with its decay and the decayed x are there
        multiply<false, true>(y, memory.sC + m * kPitchG, kPitchG, memory.sX + p0, kPitchP, m + 16, columns);
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) state[r][j][part] *= decays.total;
        #pragma unroll
        for (int slice = kSlices - 1; slice >= 0; slice--)
        {
            if (slice > lastSlice) continue;
            if (slice < kSlices - 1 && slice < lastSlice)
            {
                __syncthreads();                              // the slice before has been read by all
                load_slice(first, slice, false);
                tile_wait();
                __syncthreads();                              // this slice of B is there
            }
            if (slice * kSlice + m < usedN) multiply<true, true>(state[slice], memory.sB + m, kPitchN, memory.sState + p0, kPitchP, kSteps, columns);
        }
        if (args.convolved) store_tile<kWidth>(args.convolved + shape.dense(sequence.row, first, head) + channel, memory.sX, steps, (i64)shape.H * shape.P, channels, shape.isYWide);
        __syncthreads();                                      // all tiles have been read by all: the next chunk and y take their places
        if (first + shape.Q < end) load_chunk(first + shape.Q);
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_pair(memory.sState + (m + fragment_row(v)) * kPitchY + p0 + 8 * j + fragment_column(v), y[j][v], y[j][v + 1]);
        __syncthreads();                                      // y is complete
        const auto none = [](int) { };                        // all rows are there
        store_rows<kWidth, kSsdThreads, kSteps>(args, memory.sState, kPitchY, sNorm, sequence.row, first, steps, head, channel, channels, none);
    }

    if (end < sequence.end) return;
    if (args.convolution.weight) window.close(args.convolution, number, head * shape.P + channel, channels);
    f32* to = args.final + shape.state(number, head);
    for_state(state, m, p0, [&](f32& element, int n, int p) { if (n < shape.N && p < channels) to[(i64)(channel + p) * shape.N + n] = element; });
}
