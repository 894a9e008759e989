// SsdScanForward.cu
//
// Computes   Δ = clamp(softplus(dt + bias)),  S_t = exp(Δ_t·A)·S_{t-1} + Δ_t·B_t·x_tᵀ,  y_t = S_tᵀ·C_t + D·x_t, times silu(z_t); by chunks of Q steps, with
//            s_i = Σ_{k≤i} Δ_k·A within a chunk:  y_i = Σ_{j≤i} (C_i·B_j)·exp(s_i − s_j)·Δ_j·x_j + exp(s_i)·S_0ᵀ·C_i,
//            S_Q = exp(s_Q)·S_0 + Σ_j exp(s_Q − s_j)·Δ_j·B_j·x_jᵀ
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6.
// Method     ssd_scan_forward: a block owns one head of one sequence and W of its channels, and walks the chunks with the state in registers, so that nothing
//            between passes through global memory. C·Bᵀ, C·S and later the two products with x run on the tensor cores (bf16) or as multiply-adds, from tiles in shared
//            memory, where a copy of the state stands too. C and B come in slices of kSlice of N. One warp makes Δ and the decays meanwhile (see
//            common/Ssd.cuh). y goes out through shared memory, in whole lines, past the gate.
//            ssd_scan_step: one step of each sequence; a warp owns channels and its lanes walk N.
// Layout     x, z [B, L, H, P]; dt [B, L, H]; B, C [B, L, G, N], any strides but the last; y, ungated [B, L, H, P]; initial, final [n, H, P, N] float;
//            states [chunks, H, N, P] float, before each chunk; ungated and states may be null.
// Launch     ssd_scan_forward grid sequences·H·ceil(P / W), W = 64 for bf16 and 32 for float tiles; block 256; dynamic shared memory 45 to 88 KiB, see SsdPlan.
//            ssd_scan_step grid sequences·H·ceil(P / 32), block 256.
// Traffic    ssd_scan_forward, per step and head: reads P elements (2·P with z), 1 of dt and ceil(P / W)·2·N of B and C (more than a slice of N: 3·N − kSlice),
//            writes P elements (2·P with ungated); per chunk and head writes N·P floats of states; per sequence and head reads and writes N·P floats.
//            The heads of a group read the same B and C, from the L2 cache. ssd_scan_step reads and writes N·P floats per head, and 2·N elements for every 4 channels.
// Precision  loads T, accumulates f32, stores T. bf16: C·Bᵀ with its decay, the decayed x and the copy of the state are rounded to bf16 as operands of products; the
//            state itself stays f32. f32 and f16: tiles are f32, products are multiply-adds. Sums of Δ·A are f64. Deterministic: no atomics.
// Limits     N ≤ 64·Tiles ≤ 256; Q ≤ 64.
// Variants   ssd_scan_forward<{f32|bf16|f16}, {1|2|4}>; ssd_scan_step<{f32|bf16|f16}>
#include "common/Ssd.cuh"

template <typename T>
struct SsdForwardArgs                                         // mirrored in CudaSsdScan.cs, field for field
{
    T* y; T* ungated; f32* final; f32* states; const f32* initial;
    SsdShape<T> shape;
};

// Shared memory of a block; SsdPlan counts the same bytes.
template <typename T, int Tiles>
struct SsdForwardTiles
{
    using E = typename TileOf<T>::Element;
    static constexpr int kWidth = sizeof(E) == 2 ? 64 : 32;                               // W, channels of a block
    static constexpr int kSlice = sizeof(E) == 2 && Tiles > 1 ? 128 : 64;                 // of N
    static constexpr int kSlices = Tiles * 64 / kSlice;
    static constexpr int kPitchN = kSlice + kRowPad<E>, kPitchP = kWidth + kRowPad<E>, kPitchG = kSteps + kRowPad<E>, kPitchY = kWidth + 4;
    static_assert(kSlices == 1 || kPitchY * sizeof(f32) <= kPitchN * sizeof(E), "with several slices y stays clear of B");

    E* sC;                                                    // [kSteps, kSlice]; then C·Bᵀ with its decay, [kSteps, kSteps]
    E* sB;                                                    // [kSteps, kSlice]
    E* sX;                                                    // [kSteps, kWidth]
    E* sDecayed;                                              // [kSteps, kWidth] x on its way to the end of the chunk
    E* sState;                                                // [64·Tiles, kWidth]
    f32* sY;                                                  // [kSteps, kWidth] over sC and sB

    __device__ inline SsdForwardTiles(u8* sMemory)
    {
        sC = reinterpret_cast<E*>(sMemory);
        sB = sC + kSteps * kPitchN;
        sX = sB + kSteps * kPitchN;
        sDecayed = sX + kSteps * kPitchP;
        sState = sDecayed + kSteps * kPitchP;
        sY = reinterpret_cast<f32*>(sMemory);
    }
};

// Rows of y from shared memory, past the gate, V elements at a time.
template <int V, int Width, typename T>
__device__ inline void store_rows(const SsdForwardArgs<T>& args, const f32* sY, int pitch, i64 row, i64 first, int steps, int head, int channel)
{
    const SsdShape<T>& shape = args.shape;
    #pragma unroll 1
    for (int k = threadIdx.x; k < kSteps * Width / V; k += kSsdThreads)
    {
        const int i = k / (Width / V), p = k % (Width / V) * V;
        if (i >= steps || channel + p >= shape.P) continue;
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
        store<V>(args.y + at, value);
    }
}

template <typename T, int Tiles>
__global__ void __launch_bounds__(kSsdThreads, Tiles < 4 ? 2 : 1) ssd_scan_forward(const SsdForwardArgs<T> args)
{
    using Memory = SsdForwardTiles<T, Tiles>;
    using E = typename Memory::E;
    constexpr int kWidth = Memory::kWidth, kSlice = Memory::kSlice, kPitchN = Memory::kPitchN, kPitchP = Memory::kPitchP, kPitchG = Memory::kPitchG, kPitchY = Memory::kPitchY;
    constexpr int J = kWidth / 16, kTilesOfSlice = kSlice / 64;
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays;
    __shared__ f32 sSkip[kWidth];                             // D of the block's channels
    const Memory memory(sMemory);
    const SsdShape<T>& shape = args.shape;
    const int slices = (shape.P + kWidth - 1) / kWidth, channel = blockIdx.x % slices * kWidth, head = blockIdx.x / slices % shape.H, group = head / (shape.H / shape.G);
    const i64 number = blockIdx.x / slices / shape.H;
    const SsdSequence sequence(shape, number);
    const int warp = threadIdx.x / kWarp, m = warp / 2 * 16, half = warp % 2;              // this warp's rows, and its half of the columns
    const int channels = min(kWidth, shape.P - channel), usedP = round_up(channels, 16), usedN = round_up(shape.N, 16), lastSlice = Memory::kSlices == 1 ? 0 : (usedN - 1) / kSlice;
    const int p0 = half * (kWidth / 2), columns = usedP - p0;

    for (int c = threadIdx.x; c < kWidth; c += kSsdThreads) sSkip[c] = shape.D && c < channels ? shape.D[shape.isSkipPerChannel ? head * shape.P + channel + c : head] : 0.0f;

    // Rows n = 64·r + m … of the state by columns p0 ….
    f32 state[Tiles][J][4];
    #pragma unroll
    for (int r = 0; r < Tiles; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = 64 * r + m + fragment_row(part), p = p0 + 8 * j + fragment_column(part);
                state[r][j][part] = args.initial && n < shape.N && p < channels ? args.initial[shape.state(number, head) + (i64)(channel + p) * shape.N + n] : 0.0f;
            }

    f32* border = args.states + shape.border(sequence.firstChunk, head) + channel;
    for (i64 first = sequence.begin; first < sequence.end; first += shape.Q, border += (i64)shape.H * shape.N * shape.P)
    {
        const int steps = (int)min((i64)shape.Q, sequence.end - first);
        __syncthreads();                                      // the chunk before has left shared memory
        const auto load_slice = [&](int slice, bool hasC)
        {
            const int n = slice * kSlice, width = min(kSlice, shape.N - n);
            if (hasC) load_tile<kSlice>(memory.sC, shape.c_at(sequence.row, first, group) + n, shape.cStep, steps, width, shape.isBcWide);
            load_tile<kSlice>(memory.sB, shape.b_at(sequence.row, first, group) + n, shape.bStep, steps, width, shape.isBcWide);
        };
        if (warp == 0) sDecays.fill(shape, sequence.row, first, steps, head);
        load_tile<kWidth>(memory.sX, shape.x_at(sequence.row, first, head) + channel, shape.xStep, steps, channels, shape.isXWide);
        load_slice(0, true);
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int v = 0; v < 4; v += 2)
                {
                    const int n = 64 * r + m + fragment_row(v), p = p0 + 8 * j + fragment_column(v);
                    put_pair(memory.sState + n * kPitchP + p, state[r][j][v], state[r][j][v + 1]);
                    if (args.states && n < shape.N) store_pair(border + (i64)n * shape.P + p, state[r][j][v], state[r][j][v + 1], channels - p, shape.isStateWide);
                }

        f32 products[4][4] = {}, y[J][4] = {};                // C·Bᵀ: rows m …, columns 32·half …
        for (int slice = 0; slice <= lastSlice; slice++)
        {
            if (Memory::kSlices > 1 && slice > 0)
            {
                __syncthreads();                              // the slice before has been read by all
                load_slice(slice, true);
            }
            tile_wait();
            __syncthreads();                                  // the tiles, the state and the decays are there
            const int depth = min(kSlice, usedN - slice * kSlice);
            multiply<false, false>(products, memory.sC + m * kPitchN, kPitchN, memory.sB + 32 * half * kPitchN, kPitchN, depth, m + 16 - 32 * half);
            multiply<false, true>(y, memory.sC + m * kPitchN, kPitchN, memory.sState + slice * kSlice * kPitchP + p0, kPitchP, depth, columns);
        }
        __syncthreads();                                      // C has been read by all; C·Bᵀ goes into its place
        #pragma unroll
        for (int j = 0; j < 4; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2)
            {
                const int i = m + fragment_row(v), k = 32 * half + 8 * j + fragment_column(v);
                put_pair(memory.sC + i * kPitchG + k, products[j][v] * sDecays.decay(i, k) * sDecays.delta[k], products[j][v + 1] * sDecays.decay(i, k + 1) * sDecays.delta[k + 1]);
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
                const f32 decay = sDecays.toEnd[i] * sDecays.delta[i];
                put_pair(memory.sDecayed + i * kPitchP + p, x[0] * decay, x[1] * decay);
                #pragma unroll
                for (int k = 0; k < 2; k++) y[j][v + k] = fmaf(y[j][v + k], sDecays.fromStart[i], sSkip[p + k] * x[k]);
            }
        __syncthreads();                                      // C·Bᵀ with its decay and the decayed x are there
        multiply<false, true>(y, memory.sC + m * kPitchG, kPitchG, memory.sX + p0, kPitchP, m + 16, columns);
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) state[r][j][part] *= sDecays.total;
        #pragma unroll
        for (int slice = Memory::kSlices - 1; slice >= 0; slice--)
        {
            if (slice > lastSlice) continue;
            if (slice < Memory::kSlices - 1 && slice < lastSlice)
            {
                __syncthreads();                              // the slice before has been read by all
                load_slice(slice, false);
                tile_wait();
                __syncthreads();                              // this slice of B is there
            }
            #pragma unroll
            for (int r = 0; r < kTilesOfSlice; r++)
                if (slice * kSlice + 64 * r + m < usedN)
                    multiply<true, true>(state[slice * kTilesOfSlice + r], memory.sB + 64 * r + m, kPitchN, memory.sDecayed + p0, kPitchP, kSteps, columns);
        }
        // y goes into the place of C·Bᵀ, which all left before they waited for another slice.
        if (Memory::kSlices == 1) __syncthreads();            // B and C·Bᵀ have been read by all; y goes into their place
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2) put_pair(memory.sY + (m + fragment_row(v)) * kPitchY + p0 + 8 * j + fragment_column(v), y[j][v], y[j][v + 1]);
        __syncthreads();                                      // y is complete
        if (shape.isYWide) store_rows<16 / sizeof(T), kWidth>(args, memory.sY, kPitchY, sequence.row, first, steps, head, channel);
        else store_rows<1, kWidth>(args, memory.sY, kPitchY, sequence.row, first, steps, head, channel);
    }

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

constexpr int kChannelsOfWarp = 4;

// Brings the state of a warp's channels forward by a step, V neighbours n at a time, and adds this lane's share of S·C.
template <int V, typename T>
__device__ inline void step_states(f32 (&sum)[kChannelsOfWarp], const SsdForwardArgs<T>& args, i64 row, int head, int group, int channel, int channels, f32 step, f32 decay)
{
    const SsdShape<T>& shape = args.shape;
    const i64 at = shape.state(row, head) + (i64)channel * shape.N;
    const T* B = shape.b_at(row, 0, group);
    const T* C = shape.c_at(row, 0, group);
    const T* x = shape.x_at(row, 0, head) + channel;
    for (int n = threadIdx.x % kWarp * V; n < shape.N; n += kWarp * V)
    {
        f32 b[V], c[V];
        load<V>(b, B + n);
        load<V>(c, C + n);
        #pragma unroll
        for (int k = 0; k < kChannelsOfWarp; k++)
        {
            if (k >= channels) break;
            const i64 place = at + (i64)k * shape.N + n;
            const f32 input = step * to_f32(x[k]);
            f32 state[V] = {};
            if (args.initial) load<V>(state, args.initial + place);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                state[v] = fmaf(decay, state[v], input * b[v]);
                sum[k] = fmaf(state[v], c[v], sum[k]);
            }
            store<V>(args.final + place, state);
        }
    }
}

// Steps of sequences that have one each.
template <typename T>
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_step(const SsdForwardArgs<T> args)
{
    const SsdShape<T>& shape = args.shape;
    constexpr int kChannels = kSsdThreads / kWarp * kChannelsOfWarp;
    const int slices = (shape.P + kChannels - 1) / kChannels, channel = blockIdx.x % slices * kChannels + threadIdx.x / kWarp * kChannelsOfWarp;
    const int head = blockIdx.x / slices % shape.H, group = head / (shape.H / shape.G), lane = threadIdx.x % kWarp;
    const i64 row = blockIdx.x / slices / shape.H;
    f32 step = to_f32(shape.dt[row * shape.dtBatch + head]) + (shape.dtBias ? shape.dtBias[head] : 0.0f);
    if (shape.hasSoftplus) step = softplus(step);
    step = step < shape.minDelta ? shape.minDelta : step > shape.maxDelta ? shape.maxDelta : step;
    const f32 decay = expf(step * shape.A[head]);
    const int channels = min(kChannelsOfWarp, shape.P - channel);
    const T* x = shape.x_at(row, 0, head) + channel;
    f32 sum[kChannelsOfWarp] = {};
    if (shape.isStateWide) step_states<4>(sum, args, row, head, group, channel, channels, step, decay);
    else step_states<1>(sum, args, row, head, group, channel, channels, step, decay);
    #pragma unroll
    for (int k = 0; k < kChannelsOfWarp; k++)
    {
        f32 y = warp_sum(sum[k]);
        if (k >= channels || lane != 0) continue;
        const int c = channel + k;
        if (shape.D) y = fmaf(shape.D[shape.isSkipPerChannel ? head * shape.P + c : head], to_f32(x[k]), y);
        const i64 to = shape.dense(row, 0, head) + c;
        if (shape.z)
        {
            if (args.ungated) args.ungated[to] = from_f32<T>(y);
            y *= silu(to_f32(shape.z_at(row, 0, head)[c]));
        }
        args.y[to] = from_f32<T>(y);
    }
}
