// StateUpdate.cu
//
// Computes   for each sequence in its slot: c = silu(bias + Σ_k weight_k·input_k) over the last K inputs, the newest being x; with [x; B; C] = c,
//            Δ = clamp(softplus(dt + dtBias)),  S = exp(Δ·A)·S + Δ·B·xᵀ,  y = Sᵀ·C + D·x, times silu(z); the inputs move up by one.
// Source     Gu and Dao 2023, arXiv:2312.00752, figure 3; Dao and Gu 2024, arXiv:2405.21060, section 7.
// Method     a block owns some units of a group of a sequence, each up to 32 channels of a head: it convolves them and B and C of their group into shared memory; then, unit by unit, a
//            warp owns 4 channels, whose states it has all under way at once, and 2^laneBits of its lanes walk the states of one, 16 bytes each. A block moves up the inputs of its own
//            channels; those of B and C, which all blocks of a group read, the last of them to arrive.
// Layout     x [B, D], dt [B, H], z [B, H·P], rows any distance apart; y [B, H·P]; convolution [S, K − 1, D] float, states [S, H, P, N] of type TS; tickets [S, G], zero before and
//            after; slots [B] or null; weight [D, K], bias [D], A, D, dtBias [H] float.
// Launch     grid B·G·ceil(H / G·ceil(P / 32) / units), block 256; dynamic shared memory of 2·N' + 32·units floats with N' the next multiple of 16 bytes of states; static 80 bytes.
// Traffic    per sequence and head: reads and writes N·P states and (K − 1)·P floats of the inputs, reads K·P of the taps, and P of the bias, and for every 32 channels dt, A and dtBias; every block reads
//            2·N·(2·K − 1) floats of inputs and taps, 2·N of the bias and 2·N elements of x. Per sequence and group reads 2·N·(K − 2) floats and 2·N elements once more and
//            writes 2·N·(K − 1) floats. Reads H·P elements of x and of z, writes H·P. Under way in a warp: 2 KiB of states.
// Precision  loads T, computes and accumulates f32; c is rounded to T as causal_conv1d_forward does, y is of the state before it is rounded to TS, and stored as T. Atomics only on tickets, whose
//            order changes nothing but who moves the inputs of B and C. Deterministic; the same bits however many units a block has.
// Limits     N ≤ 256; units ≤ 8; a slot outside the cache traps.
// Variants   state_update<{f32|bf16|f16}, {f32|bf16|f16}>
#include "common/Copy.cuh"
#include "common/FloatRow.cuh"
#include "common/StateSlots.cuh"
#include "common/Tickets.cuh"
#include "common/Warp.cuh"
#include "common/Words.cuh"

constexpr int kThreads = 256, kChannelsOfWarp = 4, kChannels = kThreads / kWarp * kChannelsOfWarp, kMostUnits = 8;

template <typename T, typename TS>
struct StateUpdateArgs                                        // mirrored in CudaStateUpdate.cs, field for field
{
    const T* x; const T* dt; const T* z; T* y;
    f32* convolution; TS* states; u32* tickets; const void* slots;
    const f32* weight; const f32* bias; const f32* A; const f32* skip; const f32* dtBias;
    i64 xBatch, dtBatch, zBatch, slotCount;
    i32 H, P, G, N, K, hasSoftplus, hasLogA, isLong, isStateWide, isWeightWide, units, laneBits;
    f32 minDelta, maxDelta;
};

template <typename TS> constexpr int kBlocks = sizeof(TS) == 4 ? 4 : 3;   // of a multiprocessor: states of 16 bits take 80 registers

// Moves a channel's inputs up by one.
template <typename T, typename TS>
__device__ inline void move_up(const StateUpdateArgs<T, TS>& args, f32* inputs, i64 width, const T* x, int channel)
{
    inputs += channel;
    for (int k = 1; k < args.K - 1; k++) inputs[(k - 1) * width] = inputs[k * width];
    if (args.K > 1) inputs[(args.K - 2) * width] = to_f32(x[channel]);
}

// What a block does: of a sequence and group some units of up to kChannels channels of a head.
struct Place
{
    i64 b;
    i32 group, firstHead, slices, blocksOfGroup, first, count; // slices: units of a head; first, count: of the group's units those of the block

    template <typename Args>
    __device__ inline Place(const Args& args, u32 block) : slices((args.P + kChannels - 1) / kChannels)
    {
        const i32 heads = args.H / args.G, all = heads * slices;
        blocksOfGroup = (all + args.units - 1) / args.units;
        const u32 groups = block / blocksOfGroup;
        first = (i32)(block - groups * blocksOfGroup) * args.units;
        count = min(args.units, all - first);
        b = groups / args.G;
        group = groups % args.G;
        firstHead = group * heads;
    }

    // The channel, of all heads', that thread i of the block's units has; below 0 where the head has none.
    __device__ inline i32 channel(i32 i, i32 P) const
    {
        const i32 unit = first + i / kChannels, head = unit / slices, p = (unit - head * slices) * kChannels + i % kChannels;
        return p < P ? (firstHead + head) * P + p : -1;
    }
};

// The convolution of a sequence.
template <typename T>
struct StepInputs
{
    f32* state; const T* x;                                   // [K − 1, width], [width]
    i64 width;

    template <typename Args>
    __device__ inline StepInputs(const Args& args, i64 b, i64 slot) : x(args.x + b * args.xBatch), width((i64)args.H * args.P + 2 * args.G * args.N) { state = args.convolution + slot * (args.K - 1) * width; }
};

// V neighbouring states as words, of which there are `count` or more; of fewer the others are 0. isWide: in one access, there are all.
template <bool isWide, int V, typename TS>
__device__ inline void load_states(PackedWords<TS, V>& words, const TS* from, int count)
{
    using Words = PackedWords<TS, V>;
    if constexpr (isWide) words.load(from);
    else
        #pragma unroll
        for (int i = 0; i < Words::kCount; i++)
        {
            f32 x[Words::kEach];
            #pragma unroll
            for (int e = 0; e < Words::kEach; e++) x[e] = i * Words::kEach + e < count ? to_f32(from[i * Words::kEach + e]) : 0.0f;
            words.close(i, x);
        }
}

template <bool isWide, int V, typename TS>
__device__ inline void store_states(TS* to, const PackedWords<TS, V>& words, int count)
{
    using Words = PackedWords<TS, V>;
    if constexpr (isWide) words.store(to);
    else
        #pragma unroll
        for (int i = 0; i < Words::kCount; i++)
        {
            f32 x[Words::kEach];
            words.open(x, i);
            #pragma unroll
            for (int e = 0; e < Words::kEach; e++)
                if (i * Words::kEach + e < count) to[i * Words::kEach + e] = from_f32<TS>(x[e]);
        }
}

// Brings the states of a warp's channels forward by a step, V neighbours n at a time, and adds this lane's share of S·C: in the same order, whether isWide or not. 2^laneBits lanes
// walk a channel, each of them 2^(laneBits − 3) neighbouring channels one after the other.
template <bool isWide, int V, typename TS>
__device__ inline void step_states(f32 (&sum)[kChannelsOfWarp], TS* states, const f32* sX, const FloatRow<V>& B, const FloatRow<V>& C, int N, int laneBits, int channels, f32 step, f32 decay)
{
    const int lanes = 1 << laneBits, first = thread_again() % kWarp >> laneBits << (laneBits - 3), count = kChannelsOfWarp >> (5 - laneBits);
    for (int n = (thread_again() & (lanes - 1)) * V; n < N; n += lanes * V)
    {
        const int rest = N - n;
        using Words = PackedWords<TS, V>;
        Words words[kChannelsOfWarp];                         // all are under way before the first is worked on
        #pragma unroll
        for (int k = 0; k < kChannelsOfWarp; k++)
            if (k < count && first + k < channels) load_states<isWide>(words[k], states + (first + k) * N + n, rest);
        f32 b[V], c[V];
        B.load(b, n);
        C.load(c, n);
        #pragma unroll
        for (int k = 0; k < kChannelsOfWarp; k++)
        {
            if (k >= count || first + k >= channels) break;
            const f32 input = step * sX[first + k];
            #pragma unroll
            for (int i = 0; i < Words::kCount; i++)
            {
                f32 state[Words::kEach];
                words[k].open(state, i);
                #pragma unroll
                for (int e = 0; e < Words::kEach; e++)
                {
                    const int v = i * Words::kEach + e;
                    state[e] = fmaf(decay, state[e], input * b[v]);
                    sum[k] = fmaf(state[e], c[v], sum[k]);
                }
                words[k].close(i, state);
            }
            store_states<isWide>(states + (first + k) * N + n, words[k], rest);
        }
    }
}

// Half of the lanes keep a, the others b, and each adds what its partner does not keep.
__device__ inline f32 halve(f32 a, f32 b, int distance)
{
    const bool isUpper = thread_again() & distance;
    return (isUpper ? b : a) + __shfl_xor_sync(kAllLanes, isUpper ? a : b, distance);
}

// The sums of a warp's channels over their lanes, in the order of warp_sum: eight lanes receive that of channel lane / 8.
__device__ inline f32 sum_channels(const f32 (&sum)[kChannelsOfWarp], int laneBits)
{
    f32 total = sum[0];
    if (laneBits == 5) total = halve(halve(sum[0], sum[2], 16), halve(sum[1], sum[3], 16), 8);
    else if (laneBits == 4) total = halve(sum[0], sum[1], 8);
    #pragma unroll
    for (int distance = 4; distance > 0; distance /= 2) total += __shfl_xor_sync(kAllLanes, total, distance);
    return total;
}

template <typename T, typename TS>
__global__ void __launch_bounds__(kThreads, kBlocks<TS>) state_update(const StateUpdateArgs<T, TS> args)
{
    constexpr int V = 16 / sizeof(TS);
    extern __shared__ __align__(16) f32 sMemory[];
    __shared__ bool sIsLast;
    __shared__ f32 sStep[kMostUnits], sDecay[kMostUnits];
    const int padded = (args.N + V - 1) / V * V, inner = args.H * args.P;
    const FloatRow<V> B{sMemory, padded}, C{sMemory + padded, padded};
    f32* sX = sMemory + 2 * padded;                           // [units, kChannels]
    const Place place(args, blockIdx.x);
    const i64 slot = slot_of(args.slots, args.isLong, args.slotCount, place.b);
    T* y = args.y + place.b * inner;                          // B·H·P may exceed 2³¹
    if (slot < 0)
    {
        for (int i = threadIdx.x; i < place.count * kChannels; i += kThreads)
        {
            const int channel = place.channel(i, args.P);
            if (channel >= 0) y[channel] = from_f32<T>(0);
        }
        return;
    }
    const StepInputs<T> inputs(args, place.b, slot);
    const StepTaps taps = { args.weight, args.bias, args.K, args.isWeightWide };
    for (int i = threadIdx.x; i < 2 * args.N + place.count * kChannels; i += kThreads)
    {
        const int n = i - place.count * kChannels;
        if (n < 0)
        {
            const int channel = place.channel(i, args.P);
            if (channel >= 0) sX[i] = convolve<true>(taps, inputs.state, inputs.width, inputs.x, channel);
        }
        else
        {
            const int isC = n >= args.N, at = n - isC * args.N;
            *FloatRow<V>{sMemory + isC * padded, padded}.place(at) = convolve<false>(taps, inputs.state, inputs.width, inputs.x, inner + (isC * args.G + place.group) * args.N + at);
        }
    }
    if (threadIdx.x < place.count)
    {
        const int head = place.firstHead + (place.first + threadIdx.x) / place.slices;
        f32 step = to_f32(args.dt[place.b * args.dtBatch + head]) + (args.dtBias ? args.dtBias[head] : 0.0f);
        if (args.hasSoftplus) step = softplus(step);
        step = step < args.minDelta ? args.minDelta : step > args.maxDelta ? args.maxDelta : step;            // NaN stays NaN
        sStep[threadIdx.x] = step;
        sDecay[threadIdx.x] = expf(step * (args.hasLogA ? -expf(args.A[head]) : args.A[head]));
    }
    if (threadIdx.x < 2 * (padded - args.N))                  // what is behind the last state meets zeros
        *FloatRow<V>{sMemory + threadIdx.x % 2 * padded, padded}.place(args.N + threadIdx.x / 2) = 0;
    __syncthreads();                                          // x, B, C and the steps are there, and the inputs have been read
    if (threadIdx.x == 0) sIsLast = is_last(args.tickets + slot * args.G + place.group, place.blocksOfGroup);

    int head = place.firstHead + place.first / place.slices, slice = place.first % place.slices * kChannels;
    #pragma unroll 1
    for (int u = 0; u < place.count; u++)
    {
        const int first = thread_again() / kWarp * kChannelsOfWarp, channels = min(kChannelsOfWarp, args.P - slice - first), channel = head * args.P + slice + first;
        TS* states = args.states + (slot * args.H * args.P + channel) * args.N;
        f32 sum[kChannelsOfWarp] = {};
        if (args.isStateWide) step_states<true, V>(sum, states, sX + u * kChannels + first, B, C, args.N, args.laneBits, channels, sStep[u], sDecay[u]);
        else step_states<false, V>(sum, states, sX + u * kChannels + first, B, C, args.N, args.laneBits, channels, sStep[u], sDecay[u]);
        const f32 total = sum_channels(sum, args.laneBits);
        const int c = thread_again() % kWarp / 8;
        if (thread_again() % 8 == 0 && c < channels)
        {
            f32 value = total;
            if (args.skip) value = fmaf(args.skip[head], sX[u * kChannels + first + c], value);
            if (args.z) value *= silu(to_f32(args.z[place.b * args.zBatch + channel + c]));
            y[channel + c] = from_f32<T>(value);
        }
        slice += kChannels;
        if (slice < args.P) continue;
        slice = 0;
        head++;
    }

    __syncthreads();                                          // whether this block is the last is known
    if (!sIsLast) return;
    const Place again(args, block_again());
    const StepInputs<T> moved(args, again.b, slot_of(args.slots, args.isLong, args.slotCount, again.b));
    for (int n = threadIdx.x; n < 2 * args.N; n += kThreads) move_up(args, moved.state, moved.width, moved.x, args.H * args.P + (n / args.N * args.G + again.group) * args.N + n % args.N);
}
