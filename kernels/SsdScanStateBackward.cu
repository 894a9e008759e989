// SsdScanStateBackward.cu
//
// Computes   the gradient dS_Q of the state behind every chunk of SsdScanForward.cu, from the last to the first: dS_0 = exp(s_Q)·dS_Q + Σ_i exp(s_i)·C_i·dy_iᵀ; that of the
//            initial state; and with a gate dz = dy·ungated·silu'(z) and dy behind it, dy·silu(z).
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6.
// Method     a team of 8 warps owns a unit, 64 channels of one head of one sequence, and 64·Tiles of its N, and walks the chunks backward with dS in registers, leaving dS_Q
//            of each; the first along N also computes the gate's gradient and leaves dy behind it. A block of two teams has two units of a group, which share C. isCarried: only dS
//            behind each segment of time but the last is left, for SsdScanBackward.cu, which adds up the same terms in the same order, so that segments change no bit.
// Layout     as SsdScanForward.cu; dy, ungated, dz, gated [B, L, H, P]; dstates [chunks, H, N, P], bf16 or float as the tiles; dfinal, dinitial [n, H, P, N] float;
//            carried [n, segments − 1, H, ceil(P / 64), ceil(N / 64), J, 256, 4] float, in the order of the registers.
// Launch     grid sequences·H·ceil(P / 64)·ceil(N / (64·Tiles)) / Units, block 256·Units; dynamic shared memory 27 to 71 KiB, see SsdPlan.
// Traffic    per step, for each 64·Tiles of N: a unit reads its part of P elements of dy and 1 of dt (with a gate also its part of z, and the first along N its part of the
//            ungated y, and it writes twice as much); a block reads its part of N of C. Writes N·P elements of dS per chunk and head,
//            or isCarried N·P floats per segment and head.
// Precision  loads T, accumulates f32, stores T; decayed dy and dS at borders are rounded to bf16 as operands of products. Deterministic: no atomics.
// Limits     Q ≤ 64.
// Variants   ssd_scan_state_backward<{f32|bf16|f16}, 1, 1, false>; ssd_scan_state_backward<bf16, 2, 2, false>; ssd_scan_state_backward<bf16, 1, 1, true>;
//            ssd_scan_state_backward<bf16, {1|2}, 2, true>
#include "common/Ssd.cuh"

template <typename T>
struct SsdStateBackwardArgs                                   // mirrored in CudaSsdScan.cs, field for field
{
    const T* dy; const T* ungated; const f32* dfinal;
    T* dz; T* gated; Border<T>* dstates; f32* dinitial; f32* carried;
    SsdShape<T> shape;
    i32 segments, chunksOfSegment;
};

// dy of a chunk behind the gate, as products take it, times exp(s_i), into a tile; where it is wanted and the block is the first along N, dy behind the gate and dz to global memory too.
template <int V, bool isWanted, typename T>
__device__ inline void load_gated(const SsdStateBackwardArgs<T>& args, Border<T>* sDy, const SsdDecays& sDecays, i64 row, i64 first, int steps, int head, int channel, bool isFirst)
{
    const SsdShape<T>& shape = args.shape;
    const int used = round_up(min(kSide, shape.P - channel), 16);
    #pragma unroll 1
    for (int k = threadIdx.x % kSsdThreads; k < kSteps * kSide / V; k += kSsdThreads)
    {
        const int i = k / (kSide / V), p = k % (kSide / V) * V;
        if (p >= used) continue;
        f32 d[V] = {};
        if (i < steps && channel + p < shape.P)
        {
            const i64 at = shape.dense(row, first + i, head) + channel + p;
            load<V>(d, args.dy + at);
            if (shape.z)
            {
                f32 gate[V], y[V], dz[V];
                load<V>(gate, shape.z_at(row, first + i, head) + channel + p);
                if (isWanted && isFirst) load<V>(y, args.ungated + at);
                #pragma unroll
                for (int v = 0; v < V; v++)
                {
                    if (isWanted && isFirst) dz[v] = d[v] * y[v] * silu_slope(gate[v]);
                    d[v] *= silu(gate[v]);
                }
                if (isWanted && isFirst)
                {
                    store<V>(args.dz + at, dz);
                    store<V>(args.gated + at, d);
                }
            }
            const f32 decay = sDecays.fromStart[i];
            #pragma unroll
            for (int v = 0; v < V; v++) d[v] = to_f32(from_f32<Border<T>>(d[v])) * decay;
        }
        stash<V>(sDy + i * kPitch<T> + p, d);
    }
}

template <typename T, int Tiles, int Units, bool isCarried>
__global__ void __launch_bounds__(kSsdThreads * Units) ssd_scan_state_backward(const SsdStateBackwardArgs<T> args)
{
    constexpr int kSlice = kSide * Tiles, kPitchN = kSlice + kRowPad<Border<T>>;
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays[Units];
    const SsdShape<T>& shape = args.shape;
    const int own = Units == 1 ? 0 : threadIdx.x / kSsdThreads, warp = threadIdx.x % kSsdThreads / kWarp, m = warp / 2 * 16, c0 = warp % 2 * 32;
    Border<T>* sC = reinterpret_cast<Border<T>*>(sMemory);    // [kSteps, kSlice]
    Border<T>* sDy = sC + kSteps * kPitchN + own * (1 + Tiles) * kTileElements<T>;         // [kSteps, kSide]
    Border<T>* sState = sDy + kTileElements<T>;               // [kSlice, kSide] dS on its way out
    SsdDecays& decays = sDecays[own];
    const int slicesN = (shape.N + kSlice - 1) / kSlice, slicesP = (shape.P + kSide - 1) / kSide, blocks = shape.H * slicesP / Units;
    const int n0 = blockIdx.x % slicesN * kSlice, unit = blockIdx.x / slicesN % blocks * Units + own, channel = unit % slicesP * kSide, head = unit / slicesP, group = head / (shape.H / shape.G);
    const i64 number = blockIdx.x / slicesN / blocks;
    const SsdSequence sequence(shape, number);
    const int width = min(kSlice, shape.N - n0), channels = min(kSide, shape.P - channel), columns = round_up(channels, 16) - c0;

    f32 dstate[Tiles][J][4];                                  // rows n0 + 64·r + m …, columns channel + c0 …
    #pragma unroll
    for (int r = 0; r < Tiles; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = 64 * r + m + fragment_row(part), p = c0 + 8 * j + fragment_column(part);
                dstate[r][j][part] = args.dfinal && n < width && p < channels ? args.dfinal[shape.state(number, head) + (i64)(channel + p) * shape.N + n0 + n] : 0.0f;
            }

    const i64 chunks = (sequence.end - sequence.begin + shape.Q - 1) / shape.Q;
    for (i64 chunk = chunks - 1; chunk >= (isCarried ? args.chunksOfSegment : 0); chunk--)
    {
        const i64 first = sequence.begin + chunk * shape.Q;
        const int steps = (int)min((i64)shape.Q, sequence.end - first);
        __syncthreads();                                      // the tiles, the decays and dS of the chunk behind have been read by all
        if (own == 0) load_tile<kSlice>(sC, shape.c_at(sequence.row, first, group) + n0, shape.cStep, steps, width, shape.isBcWide);
        if (warp == 0) decays.fill(shape, sequence.row, first, steps, head);
        if constexpr (!isCarried)
            #pragma unroll
            for (int r = 0; r < Tiles; r++)
                #pragma unroll
                for (int j = 0; j < J; j++)
                    #pragma unroll
                    for (int v = 0; v < 4; v += 2) put_pair(sState + (64 * r + m + fragment_row(v)) * kPitch<T> + c0 + 8 * j + fragment_column(v), dstate[r][j][v], dstate[r][j][v + 1]);
        __syncthreads();                                      // the decays are there, and dS
        if constexpr (!isCarried) store_tile<kSide>(args.dstates + shape.border(sequence.firstBorder + chunk, head) + (i64)n0 * shape.P + channel, sState, width, shape.P, channels, shape.isStateWide);
        if (shape.isYWide) load_gated<16 / sizeof(T), !isCarried>(args, sDy, decays, sequence.row, first, steps, head, channel, n0 == 0);
        else load_gated<1, !isCarried>(args, sDy, decays, sequence.row, first, steps, head, channel, n0 == 0);
        tile_wait();
        __syncthreads();                                      // the tiles are there
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
        {
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) dstate[r][j][part] *= decays.total;
            if (64 * r + m < width) multiply<true, true>(dstate[r], sC + 64 * r + m, kPitchN, sDy + c0, kPitch<T>, round_up(steps, 16), columns);
        }
        if (!isCarried || chunk % args.chunksOfSegment != 0) continue;
        f32* to = args.carried + (((number * (args.segments - 1) + chunk / args.chunksOfSegment - 1) * shape.H + head) * slicesP + channel / kSide) * (i64)(round_up(shape.N, kSide) * kSide);
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
            #pragma unroll
            for (int j = 0; j < J; j++) store<4>(to + (n0 / kSide + r) * kTileFloats + j * kPartFloats + threadIdx.x % kSsdThreads * 4, dstate[r][j]);
    }
    if (isCarried || !args.dinitial) return;
    #pragma unroll
    for (int r = 0; r < Tiles; r++)
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = 64 * r + m + fragment_row(part), p = c0 + 8 * j + fragment_column(part);
                if (n < width && p < channels) args.dinitial[shape.state(number, head) + (i64)(channel + p) * shape.N + n0 + n] = dstate[r][j][part];
            }
}
