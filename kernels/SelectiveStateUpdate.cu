// SelectiveStateUpdate.cu
//
// Computes   one step of a Mamba layer for each sequence in its slot: u = silu(bias + Σ_k weight_k·input_k) over the last K inputs, the newest being x; of each group of
//            channels p = project·u, rows [r; B; C], each with RMSNorm without a weight where eps ≥ 0; Δ = softplus(dtProject·r + dtBias); A = −exp(logA); h = exp(Δ·A)·h + Δ·u·B,
//            y = (Σₙ C·h + D·u)·silu(z); the inputs move up by one.
// Source     Gu and Dao 2023, arXiv:2312.00752, section 3; the norms: Zuo et al. 2024, arXiv:2410.05355.
// Method     two launches: every channel of Δ needs the whole of p, and p all channels of u, so a wait for all blocks lies between them; one block that did both alone
//            would read both matrices on one multiprocessor. selective_state_project: a warp owns kColumns rows of p for up to Rows sequences; the block convolves kChunk
//            channels at a time into shared memory, for itself: that is K inputs and taps a channel, little beside a launch for it. selective_state_update: a block owns
//            32 channels of a sequence; it convolves them again and moves up their inputs, multiplies by dtProject with eight lanes to a channel, brings the states forward
//            four to a thread, and adds up those of a channel as SelectiveScanForward.cu does.
// Layout     x, z [B, D], rows any distance apart; y [B, D]; p [B, G, R + 2·N]; convolution [S, K − 1, D], states [S, D, N] float; slots [B] or null; project
//            [G, R + 2·N, D / G], dtProject [D, R] of type TW; weight [D, K], bias, skip, dtBias [D], logA [D, N] float; bias, skip, dtBias, z may be null.
// Launch     selective_state_project: grid G·ceil((R + 2·N) / (8·kColumns))·ceil(B / Rows), block 256, dynamic shared memory of Rows·kChunk elements; kColumns = Rows == 1 ? 1 : 4.
//            selective_state_update: grid B·G·ceil(D / G / 32), block 256, dynamic shared memory of R + 2·N + 32·(2 + ceil(N / 16)) + N·(32 + 8 / min(ceil(N / 4), 8)) floats.
// Traffic    selective_state_project: each of its blocks reads its rows of project once, and for each of its sequences D / G elements and (2·K − 1)·D / G floats, or
//            2·K·D / G with a bias; writes B·G·(R + 2·N) elements. selective_state_update: for each sequence reads x, z and D·R of dtProject, D·(2·K − 1 + 2·N) floats, D more for bias, skip and
//            dtBias each, and its group's p for every 32 channels; writes D elements and D·(K − 1 + N) floats.
// Precision  loads T, computes and accumulates f32. u, p and dtProject·r are rounded to T as the ops that they stand for do, and added in their order: the numbers are
//            those of causal_conv1d_forward, matmul_rows, matmul_rows and selective_scan_forward to the bit, but for the norms. Deterministic: no atomics.
// Limits     N ≤ 256; R + 2·N ≤ 4096; a slot outside the cache traps.
// Variants   selective_state_project<f32, {f32|bf16|f16}, {1|8}>; selective_state_project<bf16, {bf16|f32}, {1|8}>; selective_state_project<f16, {f16|f32}, {1|8}>;
//            selective_state_update<f32, {f32|bf16|f16}>; selective_state_update<bf16, {bf16|f32}>; selective_state_update<f16, {f16|f32}>
#include "common/Copy.cuh"
#include "common/Exponent.cuh"
#include "common/StateSlots.cuh"
#include "common/TimeStep.cuh"
#include "common/Warp.cuh"

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kChunk = 1024;                                  // channels that are convolved at a time: whole rounds of a warp along a row
constexpr int kAccess = 8;                                    // neighbouring elements of a row of a matrix that a lane takes, as in matmul_rows
constexpr int kStates = 16;                                   // of a channel that are added up one after the other

template <typename T, typename TW>
struct SelectiveStateArgs                                     // mirrored in CudaSelectiveStateUpdate.cs, field for field
{
    const T* x; const T* z; T* p; T* y;
    f32* convolution; f32* states; const void* slots;
    const f32* weight; const f32* bias; const TW* project; const TW* dtProject; const f32* logA; const f32* skip; const f32* dtBias;
    i64 xBatch, zBatch, slotCount;
    i32 batch, D, G, N, R, K, isLong, isProjectWide, isDtProjectWide, areStatesWide, isWeightWide;
    f32 eps;
};

// Neighbours k … of a row of a matrix that has `width`; 0 behind its end.
template <typename TW>
__device__ inline void load_row(f32 (&to)[kAccess], const TW* row, int k, int width, bool isWide)
{
    if (isWide && k + kAccess <= width)
    {
        load<kAccess>(to, row + k);
        return;
    }
    #pragma unroll
    for (int v = 0; v < kAccess; v++) to[v] = k + v < width ? to_f32(row[k + v]) : 0.0f;
}

template <typename T, typename TW, int Rows>
__global__ void __launch_bounds__(kThreads) selective_state_project(const SelectiveStateArgs<T, TW> args)
{
    constexpr int kColumns = Rows == 1 ? 1 : 4;
    extern __shared__ __align__(16) u8 sMemory[];
    T* sU = reinterpret_cast<T*>(sMemory);                    // [Rows, kChunk], 0 behind the last channel and of idle sequences
    const int height = args.R + 2 * args.N, blocks = (height + kWarps * kColumns - 1) / (kWarps * kColumns);
    const int lane = threadIdx.x % kWarp, first = (blockIdx.x % blocks * kWarps + threadIdx.x / kWarp) * kColumns, columns = min(kColumns, height - first);
    const int group = blockIdx.x / blocks % args.G, channels = args.D / args.G, channel = group * channels;
    const i64 b = (i64)(blockIdx.x / blocks / args.G) * Rows;
    const TW* project = args.project + ((i64)group * height + first) * channels;
    const int rows = (int)min((i64)Rows, args.batch - b);
    const StepTaps taps = { args.weight, args.bias, args.K, args.isWeightWide };
    f32 sum[Rows][kColumns] = {};
    for (int start = 0; start < channels; start += kChunk)
    {
        if (start > 0) __syncthreads();                       // the chunk before has been read by all
        const int width = min(kChunk, (channels - start + kAccess - 1) / kAccess * kAccess);
        for (int m = 0; m < rows; m++)
        {
            const i64 slot = slot_of(args.slots, args.isLong, args.slotCount, b + m);
            for (int c = threadIdx.x; c < width; c += kThreads)
                sU[m * kChunk + c] = from_f32<T>(slot < 0 || start + c >= channels ? 0.0f : convolve<false>(taps, args.convolution + slot * (args.K - 1) * args.D, args.D, args.x + (b + m) * args.xBatch, channel + start + c));
        }
        __syncthreads();                                      // u of the chunk is there
        for (int k = lane * kAccess; k < width; k += kWarp * kAccess)
        {
            f32 w[kColumns][kAccess];
            #pragma unroll
            for (int c = 0; c < kColumns; c++)
                if (c < columns) load_row(w[c], project + (i64)c * channels, start + k, channels, args.isProjectWide);
            #pragma unroll
            for (int m = 0; m < Rows; m++)
            {
                if (m >= rows) break;
                f32 u[kAccess];
                load<kAccess>(u, sU + m * kChunk + k);
                #pragma unroll
                for (int c = 0; c < kColumns; c++)
                    #pragma unroll
                    for (int v = 0; v < kAccess; v++) sum[m][c] = fmaf(u[v], w[c][v], sum[m][c]);
            }
        }
    }
    #pragma unroll
    for (int m = 0; m < Rows; m++)
    {
        if (m >= rows) break;
        #pragma unroll
        for (int c = 0; c < kColumns; c++)
        {
            const f32 value = warp_sum(sum[m][c]);
            if (lane == 0 && c < columns) args.p[((b + m) * args.G + group) * height + first + c] = from_f32<T>(value);
        }
    }
}

// A part of p, whole warps at a time: divided by the root of its mean square.
template <typename T>
__device__ inline void normalize(f32* sPart, int width, f32 eps)
{
    const int lane = threadIdx.x % kWarp;
    f32 sum = 0;
    for (int i = lane; i < width; i += kWarp) sum = fmaf(sPart[i], sPart[i], sum);
    const f32 s = 1.0f / sqrtf(warp_sum(sum) / width + eps);
    for (int i = lane; i < width; i += kWarp) sPart[i] = to_f32(from_f32<T>(sPart[i] * s));
}

template <typename T, typename TW>
__global__ void __launch_bounds__(kThreads) selective_state_update(const SelectiveStateArgs<T, TW> args)
{
    extern __shared__ __align__(16) u8 sMemory[];
    const int height = args.R + 2 * args.N, own = args.D / args.G, blocks = (own + kWarp - 1) / kWarp, parts = (args.N + kStates - 1) / kStates;
    f32* sP = reinterpret_cast<f32*>(sMemory);                // [R + 2·N]
    f32* sU = sP + height;                                    // [32]
    f32* sDelta = sU + kWarp;                                 // Δ·log2 e [32]
    f32* sY = sDelta + kWarp;                                 // [parts, 32]
    f32* sState = sY + parts * kWarp;                         // [N, 32], pitch apart
    const int quads = (args.N + 3) / 4, pitch = kWarp + 8 / min(max(quads, 1), 8);    // quads of up to 32 states, and the channels beside, that a warp stores lie in different banks
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, group = blockIdx.x / blocks % args.G;
    const int place = blockIdx.x % blocks * kWarp, first = group * own + place, channels = min(kWarp, own - place);
    const i64 b = blockIdx.x / blocks / args.G, slot = slot_of(args.slots, args.isLong, args.slotCount, b);
    if (slot < 0)
    {
        if (threadIdx.x < channels) args.y[b * args.D + first + threadIdx.x] = from_f32<T>(0);
        return;
    }
    for (int i = threadIdx.x; i < height; i += kThreads) sP[i] = to_f32(args.p[(b * args.G + group) * height + i]);
    if (threadIdx.x < channels)
    {
        const StepTaps taps = { args.weight, args.bias, args.K, args.isWeightWide };
        sU[lane] = convolve<true>(taps, args.convolution + slot * (args.K - 1) * args.D, args.D, args.x + b * args.xBatch, first + lane);
    }
    __syncthreads();                                          // u and p are there
    if (args.eps >= 0)
    {
        if (warp == 0) normalize<T>(sP, args.R, args.eps);
        else if (warp < 3) normalize<T>(sP + args.R + (warp - 1) * args.N, args.N, args.eps);
        __syncthreads();                                      // the parts of p have been normalised
    }
    {
        // A lane has the sums of four lanes of a warp that had the channel alone: they are added in the order of warp_sum.
        constexpr int kLanes = kWarps, kSums = kWarp / kLanes;    // of a channel, of a lane
        static_assert(kWarp * kLanes == kThreads && kSums == 4);
        const int c = threadIdx.x / kLanes;
        f32 sums[kSums] = {};
        if (c < channels)
            for (int start = lane % kLanes * kAccess; start < args.R; start += kWarp * kAccess)
                #pragma unroll
                for (int i = 0; i < kSums; i++)
                {
                    const int k = start + i * kLanes * kAccess;
                    if (k >= args.R) break;
                    f32 w[kAccess];
                    load_row(w, args.dtProject + (i64)(first + c) * args.R, k, args.R, args.isDtProjectWide);
                    f32 r[kAccess];
                    load_row(r, sP, k, args.R, true);
                    #pragma unroll
                    for (int v = 0; v < kAccess; v++) sums[i] = fmaf(r[v], w[v], sums[i]);
                }
        f32 sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
        #pragma unroll
        for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
        if (lane % kLanes == 0 && c < channels)
        {
            f32 delta[1] = {to_f32(from_f32<T>(sum))};
            scale_steps(delta, {args.dtBias ? kLog2E * args.dtBias[first + c] : 0.0f}, true);
            sDelta[c] = delta[0];
        }
    }
    __syncthreads();                                          // Δ is there
    for (int i = threadIdx.x; i < channels * quads; i += kThreads)
    {
        const int c = i / quads, n = (i - c * quads) * 4;
        const i64 at = (i64)(first + c) * args.N + n;
        const f32* logA = args.logA + at;
        f32* states = args.states + slot * args.D * args.N + at;
        const f32 delta = sDelta[c], input = delta * sU[c];
        f32 h[4] = {}, a[4] = {};
        if (args.areStatesWide)
        {
            load<4>(h, states);
            load<4>(a, logA);
        }
        else
            #pragma unroll
            for (int k = 0; k < 4; k++)
                if (n + k < args.N)
                {
                    h[k] = states[k];
                    a[k] = logA[k];
                }
        #pragma unroll
        for (int k = 0; k < 4; k++)
        {
            if (n + k >= args.N) break;
            h[k] = fmaf(power_of_two(delta * -expf(a[k])), h[k], input * (kLn2 * sP[args.R + n + k]));
            sState[(n + k) * pitch + c] = h[k];
            if (!args.areStatesWide) states[k] = h[k];
        }
        if (args.areStatesWide) store<4>(states, h);
    }
    __syncthreads();                                          // the states are there
    if (lane < channels)
        for (int part = warp; part < parts; part += kWarps)
        {
            const int end = min(args.N, (part + 1) * kStates);
            f32 y = part == 0 && args.skip ? args.skip[first + lane] * sU[lane] : 0.0f;
            for (int n = part * kStates; n < end; n++) y = fmaf(sState[n * pitch + lane], sP[args.R + args.N + n], y);
            sY[part * kWarp + lane] = y;
        }
    __syncthreads();                                          // the parts of y are there
    if (threadIdx.x >= channels) return;
    f32 y = 0;
    for (int part = 0; part < parts; part++) y += sY[part * kWarp + lane];
    if (args.z) y *= silu(to_f32(args.z[b * args.zBatch + first + lane]));
    args.y[b * args.D + first + lane] = from_f32<T>(y);
}
