// SsdScanForward.cu
//
// Computes   Δ = clamp(softplus(dt + bias)),  S_t = exp(Δ_t·A)·S_{t-1} + Δ_t·B_t·x_tᵀ,  y_t = S_tᵀ·C_t + D·x_t, times silu(z_t); by chunks of Q steps, with
//            s_i = Σ_{k≤i} Δ_k·A within a chunk:  y_i = Σ_{j≤i} (C_i·B_j)·exp(s_i − s_j)·Δ_j·x_j + exp(s_i)·S_0ᵀ·C_i,
//            S_Q = exp(s_Q)·S_0 + Σ_j exp(s_Q − s_j)·Δ_j·B_j·x_jᵀ
//            With a convolution, x_t = silu(bias + Σ_k weight_k·x'_{t − K + 1 + k}) of what comes in as x'; its final state is the last K − 1 of them, rows before a sequence its initial one.
//            For a norm behind the gate, y is then multiplied by norm, and the squares before that are added up over 32 channels: the rest is a factor of each row.
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6.
// Method     ssd_scan_forward: a team of 8 warps owns a unit, W channels of one head of one sequence, and walks the chunks with the state in registers, so that
//            nothing between passes through global memory. A block of two teams has two units of a group, which share the tiles of B and C and C·Bᵀ. C·Bᵀ, C·S and
//            later the two products with x run on the tensor cores (bf16) or as multiply-adds, from tiles in shared memory, where a copy of the state stands too; the
//            decayed x takes its place, then y, which goes out in whole lines, past the gate, while the next chunk is on its way. C and B come in slices of kSlice of
//            N. One warp of a team makes Δ and the decays (see common/Ssd.cuh).
//            A convolution works in the tile of x before C·Bᵀ is made: a thread walks 8 steps of its channels, with the rows before them in registers before others overwrite
//            them, and the last 3 rows stay for the next chunk. So no row is read twice, and each value is made once, as a unit has channels of its own. B and C come convolved:
//            all blocks of a group share them, and each would make 2·N values a step anew, 512 exponentials and reciprocals with 128 states where x takes 128. For the
//            backward pass the x that it worked with is left in `convolved`: to make it there again would take 2 for each value, 1.5 times, in a pass that no other
//            warps of a multiprocessor fill, for 2 bytes of it that are not written.
//            Where sequences are few and long they are walked in segments at once: ssd_scan_state_forward first makes the state at the start of each, a block for 64 × 64
//            of the state of a head, by the same additions in the same order, so that segments change no bit.
// Layout     convolution: weight [H·P, K], bias [H·P] or null, initial or null and final [n, K − 1, H·P] with steps stateStep apart, float; convolved [B, L, H, P] or null. norm [H·P], squares [B, L, H, ceil(P / 32)] float or null; x, z [B, L, H, P]; dt [B, L, H]; B, C [B, L, G, N], any strides but the last; y, ungated [B, L, H, P]; initial, final [n, H, P, N] float;
//            states [borders, H, N, P], before the first of every two chunks, bf16 or float as the tiles; carried [n, segments − 1, H, P, N] float; ungated and states may be null.
// Launch     ssd_scan_forward grid sequences·segments·H·ceil(P / W) / Units, W = 64 for bf16 and 32 for float tiles; block 256·Units; dynamic shared memory 45 to 91 KiB,
//            see SsdPlan, and 4.6 KiB a unit. ssd_scan_state_forward, before it where there are segments: grid sequences·H·ceil(P / 64)·ceil(N / 64), block 256, 2 tiles of 64 × 64.
// Traffic    ssd_scan_forward, per step: a unit reads its part of P elements (twice with z) and 1 of dt, and writes its part of P (twice with ungated; with norm also a float for each 32); a block reads
//            2·N elements of B and C (where N > kSlice 3·N − kSlice). Per border and head states take N·P elements; per segment and head the state is read, and per
//            sequence and head written, as N·P floats. ssd_scan_state_forward reads x for each 64 of N and B for each 64 of P, and writes N·P floats per segment but
//            the first; it leaves the last segment alone. A convolution adds (K + 1)·H·P floats of weight and bias and (K − 1)·H·P of each state for each sequence, and writes H·P elements a
//            step where they are kept: with its own launch before they would be read and written besides, and its tiles would read K − 1 rows of the ones before.
// Precision  loads T, accumulates f32, stores T. bf16: C·Bᵀ with its decay, the decayed x and the copy of the state are rounded to bf16 as operands of products; the
//            state itself stays f32. f32 and f16: tiles are f32, products are multiply-adds. Sums of Δ·A are f64. Deterministic: no atomics; units, teams and segments
//            change no bit.
//            A convolution gives the bits of CausalConv1d.cu, x rounded to T; it takes an exponential and a reciprocal a value.
// Limits     N ≤ 64·Tiles ≤ 256; Q ≤ 64. A convolution has at most 4 taps, and no segments: ssd_scan_state_forward would make its values once more for each 64 states.
// Variants   ssd_scan_forward<{f32|bf16|f16}, {1|2|4}, 1>; ssd_scan_forward<bf16, {1|2}, 2>; ssd_scan_state_forward<{f32|bf16|f16}>
#include "common/SsdConvolution.cuh"

template <typename T>
struct SsdForwardArgs                                         // mirrored in CudaSsdScan.cs, field for field
{
    T* y; T* ungated; f32* final; Border<T>* states; const f32* initial; const f32* carried; const f32* norm; f32* squares; T* convolved;
    SsdConvolution convolution;
    SsdShape<T> shape;
    i32 segments, chunksOfSegment;
};

// Shared memory of a block; SsdPlan counts the same bytes.
template <typename T, int Tiles, int Units>
struct SsdForwardTiles
{
    using E = Border<T>;
    static constexpr int kWidth = sizeof(E) == 2 ? 64 : 32;                               // W, channels of a unit
    static constexpr int kSlice = sizeof(E) == 2 && Tiles > 1 ? 128 : 64;                 // of N
    static constexpr int kSlices = Tiles * 64 / kSlice;
    static constexpr int kPitchN = kSlice + kRowPad<E>, kPitchP = kWidth + kRowPad<E>, kPitchG = kSteps + kRowPad<E>, kPitchY = kWidth + 4;
    static constexpr int kRows = Tiles == 1 ? 2 * kSteps : Tiles * 64;                    // of what stands in the place of the state
    static_assert(kPitchY * sizeof(f32) * kSteps <= kRows * kPitchP * sizeof(E), "y fits into the place of the state");
    static_assert(Units == 1 || kPitchG == kPitchP, "so does C·Bᵀ of the second unit, behind the decayed x");

    E* sC;                                                    // [kSteps, kSlice]
    E* sB;                                                    // [kSteps, kSlice]
    E* sX;                                                    // [kSteps, kWidth]
    E* sState;                                                // [64·Tiles, kWidth]; then x on its way to the end of the chunk, [kSteps, kWidth]
    f32* sY;                                                  // [kSteps, kWidth] over sState

    __device__ inline SsdForwardTiles(u8* sMemory, int unit)
    {
        sC = reinterpret_cast<E*>(sMemory);
        sB = sC + kSteps * kPitchN;
        sX = sB + kSteps * kPitchN + unit * (kSteps + kRows) * kPitchP;
        sState = sX + kSteps * kPitchP;
        sY = reinterpret_cast<f32*>(sState);
    }

    // C·Bᵀ with the decay of a unit [kSteps, kSteps], seen from this team's unit: the first one's in the place of C.
    __device__ inline E* pairs(int unit, int own) const { return unit == 0 ? sC : sState + (unit - own) * (kSteps + kRows) * kPitchP + kSteps * kPitchP; }
};

constexpr int kPart = 32;                                     // channels of a row whose squares are added up

// Rows of y from shared memory, past the gate and the norm's weight, V elements at a time; neighbouring lanes add up the squares of a part of a row.
template <int V, int Width, typename T>
__device__ inline void store_rows(const SsdForwardArgs<T>& args, const f32* sY, const f32* sNorm, int pitch, i64 row, i64 first, int steps, int head, int channel)
{
    const SsdShape<T>& shape = args.shape;
    #pragma unroll 1
    for (int k = threadIdx.x % kSsdThreads; k < kSteps * Width / V; k += kSsdThreads)
    {
        const int i = k / (Width / V), p = k % (Width / V) * V;
        const bool isThere = i < steps && channel + p < shape.P;
        f32 squares = 0;
        if (isThere)
        {
            const i64 at = shape.dense(row, first + i, head) + channel + p;
            f32 value[V], gate[V];
            load<V>(value, sY + i * pitch + p);
            if (shape.z)
            {
                load<V>(gate, shape.z_at(row, first + i, head) + channel + p);
                if (args.ungated) store<V>(args.ungated + at, value);
                #pragma unroll
                for (int v = 0; v < V; v++) value[v] *= silu(gate[v]);
            }
            if (args.norm)
            {
                load<V>(gate, sNorm + p);
                #pragma unroll
                for (int v = 0; v < V; v++)
                {
                    squares = fmaf(value[v], value[v], squares);
                    value[v] *= gate[v];
                }
            }
            store<V>(args.y + at, value);
        }
        if (!args.norm) continue;
        #pragma unroll
        for (int distance = 1; distance < kPart / V; distance *= 2) squares += __shfl_xor_sync(kAllLanes, squares, distance);
        if (isThere && p % kPart == 0) args.squares[((row * shape.L + first + i) * shape.H + head) * ((shape.P + kPart - 1) / kPart) + (channel + p) / kPart] = squares;
    }
}

// Of a multiprocessor at least. One team of two tiles in 16 bits, which works where heads are odd in number or too few for two, would spill 8 bytes with two.
template <typename T, int Tiles, int Units> constexpr int kBlocksOf = Units == 1 && (Tiles == 1 || Tiles == 2 && sizeof(Border<T>) == 4) ? 2 : 1;

template <typename T, int Tiles, int Units>
__global__ void __launch_bounds__(kSsdThreads * Units, kBlocksOf<T, Tiles, Units>) ssd_scan_forward(const SsdForwardArgs<T> args)
{
    using Memory = SsdForwardTiles<T, Tiles, Units>;
    using E = typename Memory::E;
    constexpr int kWidth = Memory::kWidth, kSlice = Memory::kSlice, kPitchN = Memory::kPitchN, kPitchP = Memory::kPitchP, kPitchG = Memory::kPitchG, kPitchY = Memory::kPitchY;
    constexpr int J = kWidth / 16, kTilesOfSlice = kSlice / 64, kColumns = 32 / Units;    // kColumns: of C·Bᵀ, for a warp
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays[Units];
    __shared__ f32 sSkip[Units][kWidth];                      // D of a unit's channels
    __shared__ __align__(16) f32 sNorm[Units][kWidth];        // the norm's weight of them
    __shared__ __align__(16) SsdWindow<kWidth> sWindows[Units];
    const SsdShape<T>& shape = args.shape;
    const int own = Units == 1 ? 0 : threadIdx.x / kSsdThreads, thread = Units == 1 ? threadIdx.x : threadIdx.x % kSsdThreads, slices = (shape.P + kWidth - 1) / kWidth, blocks = shape.H * slices / Units;
    const int unit = blockIdx.x % blocks * Units + own, channel = unit % slices * kWidth, head = unit / slices, group = head / (shape.H / shape.G), segment = blockIdx.x / blocks % args.segments;
    const i64 number = blockIdx.x / blocks / args.segments;
    const SsdSequence sequence(shape, number);
    const i64 firstChunk = (i64)segment * args.chunksOfSegment, begin = sequence.begin + firstChunk * shape.Q, end = min(sequence.end, begin + (i64)args.chunksOfSegment * shape.Q);
    if (segment > 0 && begin >= sequence.end) return;         // a sequence with fewer segments
    const Memory memory(sMemory, own);
    SsdDecays& decays = sDecays[own];
    const int warp = thread / kWarp, m = warp / 2 * 16, half = warp % 2;                   // this warp's rows, and its half of the columns
    const int channels = min(kWidth, shape.P - channel), usedP = round_up(channels, 16), usedN = round_up(shape.N, 16), lastSlice = Memory::kSlices == 1 ? 0 : (usedN - 1) / kSlice;
    const int p0 = half * (kWidth / 2), columns = usedP - p0, q0 = half * 32 + own * kColumns;

    for (int c = thread; c < kWidth; c += kSsdThreads)
    {
        sSkip[own][c] = shape.D && c < channels ? shape.D[shape.isSkipPerChannel ? head * shape.P + channel + c : head] : 0.0f;
        sNorm[own][c] = args.norm && c < channels ? args.norm[head * shape.P + channel + c] : 0.0f;
    }

    SsdWindow<kWidth>& window = sWindows[own];
    if (args.convolution.weight) window.open(args.convolution, number, head * shape.P + channel, channels);

    // Rows n = 64·r + m … of the state by columns p0 ….
    f32 state[Tiles][J][4];
    const f32* from = segment > 0 ? args.carried + ((number * (args.segments - 1) + segment - 1) * shape.H + head) * (i64)shape.P * shape.N : args.initial ? args.initial + shape.state(number, head) : nullptr;
    #pragma unroll
    for (int r = 0; r < Tiles; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = 64 * r + m + fragment_row(part), p = p0 + 8 * j + fragment_column(part);
                state[r][j][part] = from && n < shape.N && p < channels ? from[(i64)(channel + p) * shape.N + n] : 0.0f;
            }

    // With two teams the first loads C, the second B.
    const auto load_slice = [&](i64 first, int slice, bool hasC)
    {
        const int n = slice * kSlice, width = min(kSlice, shape.N - n), steps = (int)min((i64)shape.Q, end - first);
        if (hasC && own == 0) load_tile<kSlice>(memory.sC, shape.c_at(sequence.row, first, group) + n, shape.cStep, steps, width, shape.isBcWide);
        if (Units == 1 || own == 1) load_tile<kSlice>(memory.sB, shape.b_at(sequence.row, first, group) + n, shape.bStep, steps, width, shape.isBcWide);
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
            if (Memory::kSlices > 1 && slice > 0)
            {
                __syncthreads();                              // the slice before has been read by all
                load_slice(first, slice, true);
            }
            tile_wait();
            __syncthreads();                                  // the tiles, the state, the decays and the taps are there
            if (slice == 0 && args.convolution.weight) window.template convolve<T>(memory.sX, args.convolution.K, steps, usedP);
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
        for (int u = 0; u < Units; u++)
            #pragma unroll
            for (int j = 0; j < kColumns / 8; j++)
                #pragma unroll
                for (int v = 0; v < 4; v += 2)
                {
                    const int i = m + fragment_row(v), k = q0 + 8 * j + fragment_column(v);
                    const SsdDecays& of = sDecays[u];
                    put_pair(memory.pairs(u, own) + i * kPitchG + k, products[j][v] * of.decay(i, k) * of.delta[k], products[j][v + 1] * of.decay(i, k + 1) * of.delta[k + 1]);
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
                for (int k = 0; k < 2; k++) y[j][v + k] = fmaf(y[j][v + k], decays.fromStart[i], sSkip[own][p + k] * x[k]);
            }
        __syncthreads();                                      // C·Bᵀ with its decay and the decayed x are there
        multiply<false, true>(y, memory.pairs(own, own) + m * kPitchG, kPitchG, memory.sX + p0, kPitchP, m + 16, columns);
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) state[r][j][part] *= decays.total;
        #pragma unroll
        for (int slice = Memory::kSlices - 1; slice >= 0; slice--)
        {
            if (slice > lastSlice) continue;
            if (slice < Memory::kSlices - 1 && slice < lastSlice)
            {
                __syncthreads();                              // the slice before has been read by all
                load_slice(first, slice, false);
                tile_wait();
                __syncthreads();                              // this slice of B is there
            }
            #pragma unroll
            for (int r = 0; r < kTilesOfSlice; r++)
                if (slice * kSlice + 64 * r + m < usedN)
                    multiply<true, true>(state[slice * kTilesOfSlice + r], memory.sB + 64 * r + m, kPitchN, memory.sState + p0, kPitchP, kSteps, columns);
        }
        if (args.convolved) store_tile<kWidth>(args.convolved + shape.dense(sequence.row, first, head) + channel, memory.sX, steps, (i64)shape.H * shape.P, channels, shape.isYWide);
        __syncthreads();                                      // all tiles have been read by all: the next chunk and y take their places
        if (first + shape.Q < end) load_chunk(first + shape.Q);
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_pair(memory.sY + (m + fragment_row(v)) * kPitchY + p0 + 8 * j + fragment_column(v), y[j][v], y[j][v + 1]);
        __syncthreads();                                      // y is complete
        if (shape.isYWide) store_rows<16 / sizeof(T), kWidth>(args, memory.sY, sNorm[own], kPitchY, sequence.row, first, steps, head, channel);
        else store_rows<1, kWidth>(args, memory.sY, sNorm[own], kPitchY, sequence.row, first, steps, head, channel);
    }

    if (end < sequence.end) return;
    if (args.convolution.weight) window.close(args.convolution, number, head * shape.P + channel, channels);
    #pragma unroll
    for (int r = 0; r < Tiles; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = 64 * r + m + fragment_row(part), p = p0 + 8 * j + fragment_column(part);
                if (n < shape.N && p < channels) args.final[shape.state(number, head) + (i64)(channel + p) * shape.N + n] = state[r][j][part];
            }
}

template <typename T>
struct SsdStateForwardArgs                                    // mirrored in CudaSsdScan.cs, field for field
{
    const f32* initial; f32* carried;
    SsdShape<T> shape;
    i32 segments, chunksOfSegment;
};

template <typename T>
__global__ void __launch_bounds__(kSsdThreads, 2) ssd_scan_state_forward(const SsdStateForwardArgs<T> args)
{
    using E = Border<T>;
    constexpr int J = kSide / 16;
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays;
    E* sB = reinterpret_cast<E*>(sMemory);                    // [kSteps, kSide]
    E* sX = sB + kTileElements<T>;                             // [kSteps, kSide], then on its way to the end of the chunk
    const SsdShape<T>& shape = args.shape;
    const int slicesN = (shape.N + kSide - 1) / kSide, slicesP = (shape.P + kSide - 1) / kSide;
    const int n0 = blockIdx.x % slicesN * kSide, channel = blockIdx.x / slicesN % slicesP * kSide, head = blockIdx.x / slicesN / slicesP % shape.H, group = head / (shape.H / shape.G);
    const i64 number = blockIdx.x / slicesN / slicesP / shape.H;
    const SsdSequence sequence(shape, number);
    const int warp = threadIdx.x / kWarp, m = warp / 2 * 16, c0 = warp % 2 * 32;
    const int width = min(kSide, shape.N - n0), channels = min(kSide, shape.P - channel), usedP = round_up(channels, 16), columns = usedP - c0;

    f32 state[J][4];                                          // rows n0 + m …, columns channel + c0 …
    #pragma unroll
    for (int j = 0; j < J; j++)
        #pragma unroll
        for (int part = 0; part < 4; part++)
        {
            const int n = m + fragment_row(part), p = c0 + 8 * j + fragment_column(part);
            state[j][part] = args.initial && n < width && p < channels ? args.initial[shape.state(number, head) + (i64)(channel + p) * shape.N + n0 + n] : 0.0f;
        }

    const i64 stretch = (i64)args.chunksOfSegment * shape.Q;  // steps of a segment
    i64 first = sequence.begin;
    for (int segment = 1; sequence.begin + segment * stretch < sequence.end; segment++)
    {
        for (; first < sequence.begin + segment * stretch; first += shape.Q)
        {
            __syncthreads();                                  // the tiles and decays of the chunk before have been read by all
            load_tile<kSide>(sB, shape.b_at(sequence.row, first, group) + n0, shape.bStep, shape.Q, width, shape.isBcWide);
            load_tile<kSide>(sX, shape.x_at(sequence.row, first, head) + channel, shape.xStep, shape.Q, channels, shape.isXWide);
            if (warp == 0) sDecays.fill(shape, sequence.row, first, shape.Q, head);
            tile_wait();
            __syncthreads();                                  // the tiles and decays are there
            for (int k = threadIdx.x; k < kSteps * kSide / 2; k += kSsdThreads)
            {
                const int i = k / (kSide / 2), p = k % (kSide / 2) * 2;
                if (p >= usedP) continue;
                f32 x[2];
                load<2>(x, sX + i * kPitch<T> + p);
                const f32 decay = sDecays.toEnd[i] * sDecays.delta[i];
                put_pair(sX + i * kPitch<T> + p, x[0] * decay, x[1] * decay);
            }
            __syncthreads();                                  // the decayed x is there
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) state[j][part] *= sDecays.total;
            if (m < width) multiply<true, true>(state, sB + m, kPitch<T>, sX + c0, kPitch<T>, kSteps, columns);
        }
        f32* to = args.carried + ((number * (args.segments - 1) + segment - 1) * shape.H + head) * (i64)shape.P * shape.N;
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = m + fragment_row(part), p = c0 + 8 * j + fragment_column(part);
                if (n < width && p < channels) to[(i64)(channel + p) * shape.N + n0 + n] = state[j][part];
            }
    }
}
