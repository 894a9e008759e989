// SsdScanStateBackward.cu
//
// Computes   the gradient dS_Q of the state behind each segment of time but the last, for SsdScanBackward.cu, from the last chunk of SsdScanForward.cu on:
//            dS_0 = exp(s_Q)·dS_Q + Σ_i exp(s_i)·C_i·dy_iᵀ, with dy behind the gate.
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6.
// Method     a team of 8 warps owns a unit, a piece of one head of one sequence, W channels, and 64·Tiles of its N, and walks the chunks backward with dS in registers. A block of two
//            teams has two units of a group, which share C. The terms and their order are those of SsdScanBackward.cu, so that segments change no bit.
// Layout     as SsdScanForward.cu; dy [B, L, H, P]; dfinal [n, H, P, N] float or null; carried [n, segments − 1, H, ceil(P / W), ceil(N / 64), W / 16, 256, 4] float, in the order of the
//            registers.
// Launch     grid sequences·H·ceil(P / W)·ceil(N / (64·Tiles)) / Units, W = 64 for bf16 and 32 for float tiles; block 256·Units; dynamic shared memory 18 to 35 KiB, see SsdPlan.
// Traffic    per step, for each 64·Tiles of N: a unit reads its part of P elements of dy and 1 of dt (with a gate also its part of z); a block reads its part of N of C. Writes N·P floats
//            per segment and head.
// Precision  loads T, accumulates f32, stores float; the decayed C is rounded to bf16 as an operand of products. Deterministic: no atomics.
// Limits     Q ≤ 64; as SsdScanForward.cu.
// Variants   ssd_scan_state_backward<{f32|bf16|f16}, 1, 1>; ssd_scan_state_backward<bf16, {1|2}, 2>
#include "common/Ssd.cuh"

template <typename T>
struct SsdStateBackwardArgs                                   // mirrored in CudaSsdScan.cs, field for field
{
    const T* dy; const f32* dfinal;
    f32* carried;
    SsdShape<T> shape;
    i32 segments, chunksOfSegment;
};

struct Nothing
{
    template <int V>
    __device__ inline void operator()(i64, const f32 (&)[V], const f32 (&)[V]) const { }
};

template <typename T, int Tiles, int Units>
__global__ void __launch_bounds__(kSsdThreads * Units, 1) ssd_scan_state_backward(const SsdStateBackwardArgs<T> args)
{
    constexpr int kSlice = kSide * Tiles, kPitchN = kSlice + kRowPad<Border<T>>, kParts = kPieceParts<T>;
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays[Units];
    const SsdShape<T>& shape = args.shape;
    const int own = Units == 1 ? 0 : threadIdx.x / kSsdThreads, warp = threadIdx.x % kSsdThreads / kWarp, m = warp / 2 * 16, p0 = warp % 2 * (kPiece<T> / 2);
    Border<T>* sC = reinterpret_cast<Border<T>*>(sMemory);    // [kSteps, kSlice]
    Border<T>* sDy = sC + kSteps * kPitchN + own * kPieceElements<T>;                      // [kSteps, W]
    SsdDecays& decays = sDecays[own];
    const int slicesN = (shape.N + kSlice - 1) / kSlice, pieces = (shape.P + kPiece<T> - 1) / kPiece<T>, blocks = shape.H * pieces / Units;
    const int n0 = blockIdx.x % slicesN * kSlice, unit = blockIdx.x / slicesN % blocks * Units + own, channel = unit % pieces * kPiece<T>, head = unit / pieces, group = head / (shape.H / shape.G);
    const i64 number = blockIdx.x / slicesN / blocks;
    const SsdSequence sequence(shape, number);
    const int width = min(kSlice, shape.N - n0), channels = min(kPiece<T>, shape.P - channel), columns = round_up(channels, 16) - p0;

    f32 dstate[Tiles][kParts][4];                             // rows n0 + 64·r + m …, columns channel + p0 …
    #pragma unroll
    for (int r = 0; r < Tiles; r++)
        #pragma unroll
        for (int j = 0; j < kParts; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = 64 * r + m + fragment_row(part), p = p0 + 8 * j + fragment_column(part);
                dstate[r][j][part] = args.dfinal && n < width && p < channels ? args.dfinal[shape.state(number, head) + (i64)(channel + p) * shape.N + n0 + n] : 0.0f;
            }

    const i64 chunks = (sequence.end - sequence.begin + shape.Q - 1) / shape.Q;
    for (i64 chunk = chunks - 1; chunk >= args.chunksOfSegment; chunk--)
    {
        const i64 first = sequence.begin + chunk * shape.Q;
        const int steps = (int)min((i64)shape.Q, sequence.end - first);
        __syncthreads();                                      // the tiles and the decays of the chunk behind have been read by all
        if (own == 0) load_tile<kSlice>(sC, shape.c_at(sequence.row, first, group) + n0, shape.cStep, steps, width, shape.isBcWide);
        if (warp == 0) decays.fill(shape, sequence.row, first, steps, head);
        if (!shape.z) load_tile<kPiece<T>>(sDy, args.dy + shape.dense(sequence.row, first, head) + channel, (i64)shape.H * shape.P, steps, channels, shape.isYWide);
        else if (shape.isYWide) load_gated<16 / sizeof(T)>(shape, sDy, args.dy, sequence.row, first, steps, head, channel, Nothing());
        else load_gated<1>(shape, sDy, args.dy, sequence.row, first, steps, head, channel, Nothing());
        tile_wait();
        __syncthreads();                                      // the tiles are there, and the decays
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
        {
            #pragma unroll
            for (int j = 0; j < kParts; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) dstate[r][j][part] *= decays.total;
            if (64 * r + m < width) multiply_scaled<true, true>(dstate[r], sC + 64 * r + m, kPitchN, sDy + p0, kPiecePitch<T>, round_up(steps, 16), columns, decays.fromStart);
        }
        if (chunk % args.chunksOfSegment != 0) continue;
        const i64 border = (number * (args.segments - 1) + chunk / args.chunksOfSegment - 1) * shape.H + head;
        #pragma unroll
        for (int r = 0; r < Tiles; r++)
        {
            const int slice = n0 / kSide + r, slices = (shape.N + kSide - 1) / kSide;
            if (slice >= slices) break;
            f32* to = args.carried + ((border * pieces + channel / kPiece<T>) * slices + slice) * kPieceFloats<T> + threadIdx.x % kSsdThreads * 4;
            #pragma unroll
            for (int j = 0; j < kParts; j++) store<4>(to + j * kPartFloats, dstate[r][j]);
        }
    }
}
