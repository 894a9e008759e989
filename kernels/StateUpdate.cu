// StateUpdate.cu
//
// Computes   for each sequence in its slot: c = silu(bias + Σ_k weight_k·input_k) over the last K inputs, the newest being x; with [x; B; C] = c,
//            Δ = clamp(softplus(dt + dtBias)),  S = exp(Δ·A)·S + Δ·B·xᵀ,  y = Sᵀ·C + D·x, times silu(z); the inputs move up by one.
// Source     Gu and Dao 2023, arXiv:2312.00752, figure 3; Dao and Gu 2024, arXiv:2405.21060, section 7.
// Method     a block owns 32 channels of a head of a sequence: it convolves them and B and C of their group into shared memory; then a warp owns 4 channels and its
//            lanes walk N. A block moves up the inputs of its own channels; those of B and C, which all blocks of a group read, the last of them to arrive.
// Layout     x [B, D], dt [B, H], z [B, H·P], rows any distance apart; y [B, H·P]; convolution [S, K − 1, D], states [S, H, P, N] float; tickets [S, G], zero before and
//            after; slots [B] or null; weight [D, K], bias [D], A, D, dtBias [H] float.
// Launch     grid B·H·ceil(P / 32), block 256; dynamic shared memory of 2·N + 32 floats.
// Traffic    per sequence and head: reads and writes N·P floats of the state and (K − 1)·P of the inputs, reads K·P of the taps, and P of the bias; for every 32 channels reads
//            2·N·(2·K − 1) floats of inputs and taps, 2·N of the bias, 2·N elements of x, and dt, A and dtBias. Per sequence and group reads 2·N·(K − 2) floats and 2·N elements once more and
//            writes 2·N·(K − 1) floats. Reads H·P elements of x and of z, writes H·P.
// Precision  loads T, computes and accumulates f32; c is rounded to T as causal_conv1d_forward does, y is stored as T. Atomics only on tickets, whose order changes
//            nothing but who moves the inputs of B and C. Deterministic.
// Limits     N ≤ 256; a slot outside the cache traps.
// Variants   state_update<{f32|bf16|f16}>
#include "common/Copy.cuh"
#include "common/StateSlots.cuh"
#include "common/Tickets.cuh"
#include "common/Warp.cuh"

constexpr int kThreads = 256, kChannelsOfWarp = 4, kChannels = kThreads / kWarp * kChannelsOfWarp;

template <typename T>
struct StateUpdateArgs                                        // mirrored in CudaStateUpdate.cs, field for field
{
    const T* x; const T* dt; const T* z; T* y;
    f32* convolution; f32* states; u32* tickets; const void* slots;
    const f32* weight; const f32* bias; const f32* A; const f32* skip; const f32* dtBias;
    i64 xBatch, dtBatch, zBatch, slotCount;
    i32 H, P, G, N, K, hasSoftplus, hasLogA, isLong, isStateWide, isWeightWide;
    f32 minDelta, maxDelta;
};

// Moves a channel's inputs up by one.
template <typename T>
__device__ inline void move_up(const StateUpdateArgs<T>& args, f32* inputs, i64 width, const T* x, int channel)
{
    inputs += channel;
    for (int k = 1; k < args.K - 1; k++) inputs[(k - 1) * width] = inputs[k * width];
    if (args.K > 1) inputs[(args.K - 2) * width] = to_f32(x[channel]);
}

// Brings the state of a warp's channels forward by a step, four neighbours n at a time, and adds this lane's share of S·C: in the same order, whether isWide or not.
template <bool isWide>
__device__ inline void step_states(f32 (&sum)[kChannelsOfWarp], f32* states, const f32* sX, const f32* sB, const f32* sC, int N, int channels, f32 step, f32 decay)
{
    for (int n = threadIdx.x % kWarp * 4; n < N; n += kWarp * 4)
    {
        const int count = N - n;
        f32 b[4], c[4];
        load_four<isWide>(b, sB + n, count);
        load_four<isWide>(c, sC + n, count);
        #pragma unroll
        for (int k = 0; k < kChannelsOfWarp; k++)
        {
            if (k >= channels) break;
            const f32 input = step * sX[k];
            f32 state[4];
            load_four<isWide>(state, states + (i64)k * N + n, count);
            #pragma unroll
            for (int v = 0; v < 4; v++)
            {
                state[v] = fmaf(decay, state[v], input * b[v]);
                sum[k] = fmaf(state[v], c[v], sum[k]);
            }
            store_four<isWide>(states + (i64)k * N + n, state, count);
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 4) state_update(const StateUpdateArgs<T> args)
{
    extern __shared__ __align__(16) f32 sMemory[];
    __shared__ bool sIsLast;
    f32* sB = sMemory;                                        // [N]
    f32* sC = sB + args.N;                                    // [N]
    f32* sX = sC + args.N;                                    // [kChannels]
    const int slices = (args.P + kChannels - 1) / kChannels, slice = blockIdx.x % slices * kChannels, head = blockIdx.x / slices % args.H, headsOfGroup = args.H / args.G, group = head / headsOfGroup;
    const i64 b = blockIdx.x / slices / args.H, slot = slot_of(args.slots, args.isLong, args.slotCount, b);
    const int lane = threadIdx.x % kWarp, first = threadIdx.x / kWarp * kChannelsOfWarp, inner = args.H * args.P;
    T* y = args.y + b * inner + head * args.P + slice;        // B·H·P may exceed 2³¹
    const int mine = min(kChannels, args.P - slice);
    if (slot < 0)
    {
        if (threadIdx.x < mine) y[threadIdx.x] = from_f32<T>(0);
        return;
    }
    const i64 width = inner + 2 * args.G * args.N;
    f32* inputs = args.convolution + slot * (args.K - 1) * width;
    const T* x = args.x + b * args.xBatch;
    const StepTaps taps = { args.weight, args.bias, args.K, args.isWeightWide };
    for (int i = threadIdx.x; i < 2 * args.N + mine; i += kThreads)
    {
        const int n = i - mine, channel = n < 0 ? head * args.P + slice + i : inner + (n / args.N * args.G + group) * args.N + n % args.N;
        if (n < 0) sX[i] = convolve<true>(taps, inputs, width, x, channel);
        else sB[n] = convolve<false>(taps, inputs, width, x, channel);
    }
    __syncthreads();                                          // x, B and C are there, and the inputs have been read
    if (threadIdx.x == 0) sIsLast = is_last(args.tickets + slot * args.G + group, headsOfGroup * slices);

    f32 step = to_f32(args.dt[b * args.dtBatch + head]) + (args.dtBias ? args.dtBias[head] : 0.0f);
    if (args.hasSoftplus) step = softplus(step);
    step = step < args.minDelta ? args.minDelta : step > args.maxDelta ? args.maxDelta : step;                // NaN stays NaN
    const f32 decay = expf(step * (args.hasLogA ? -expf(args.A[head]) : args.A[head]));
    const int channels = min(kChannelsOfWarp, mine - first);
    f32* states = args.states + ((slot * args.H + head) * args.P + slice + first) * (i64)args.N;
    f32 sum[kChannelsOfWarp] = {};
    if (args.isStateWide) step_states<true>(sum, states, sX + first, sB, sC, args.N, channels, step, decay);
    else step_states<false>(sum, states, sX + first, sB, sC, args.N, channels, step, decay);
    #pragma unroll
    for (int k = 0; k < kChannelsOfWarp; k++)
    {
        f32 value = warp_sum(sum[k]);
        if (k >= channels || lane != 0) continue;
        if (args.skip) value = fmaf(args.skip[head], sX[first + k], value);
        if (args.z) value *= silu(to_f32(args.z[b * args.zBatch + head * args.P + slice + first + k]));
        y[first + k] = from_f32<T>(value);
    }

    __syncthreads();                                          // whether this block is the last is known
    if (!sIsLast) return;
    for (int n = threadIdx.x; n < 2 * args.N; n += kThreads) move_up(args, inputs, width, x, inner + (n / args.N * args.G + group) * args.N + n % args.N);
}
