// SsdScanStep.cu
//
// Computes   one step of SsdScanForward.cu for each sequence that has one: Δ = clamp(softplus(dt + bias)),  S = exp(Δ·A)·S + Δ·B·xᵀ,  y = Sᵀ·C + D·x, times silu(z)
// Source     Dao and Gu 2024, arXiv:2405.21060, equation 1 with a scalar A per head.
// Method     a warp owns kChannelsOfWarp channels of a head and its lanes walk N, four neighbours each, in the order of StateUpdate.cu: the same bits, however rows are aligned.
// Layout     x, z [B, 1, H, P]; dt [B, 1, H]; B, C [B, 1, G, N], any strides but the last; y [B, 1, H, P]; initial, final [B, H, P, N] float. Of packed
//            sequences, all [1, L, ...], singles are the numbers of those of one step; else it is null, and L is 1.
// Launch     grid sequences·H·ceil(P / 32), block 256.
// Traffic    reads and writes N·P floats per head, reads 2·N elements for every 4 channels, and P elements (2·P with z), writes P; of each thread dt, its bias and A, and of packed sequences two numbers.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics.
// Limits     N ≤ 256, as for more steps; H·P, G, sequences and the grid below 2³¹. isStateWide: N is a multiple of 4, addresses and strides of B, C and the states are multiples of 16 bytes.
// Variants   ssd_scan_step<{f32|bf16|f16}>
#include "common/Ssd.cuh"

template <typename T>
struct SsdStepArgs                                            // mirrored in CudaSsdScan.cs, field for field
{
    T* y; f32* final; const f32* initial; const i64* singles;
    SsdShape<T> shape;
};

constexpr int kChannelsOfWarp = 4;

// Brings the state of a warp's channels forward by a step, four neighbours n at a time, and adds this lane's share of S·C: in the same order, whether isWide or not.
template <bool isWide, typename T>
__device__ inline void step_states(f32 (&sum)[kChannelsOfWarp], const SsdStepArgs<T>& args, i64 sequence, i64 row, i64 at, int head, int group, int channel, int channels, f32 step, f32 decay)
{
    const SsdShape<T>& shape = args.shape;
    const i64 state = shape.state(sequence, head) + (i64)channel * shape.N;
    const T* B = shape.b_at(row, at, group);
    const T* C = shape.c_at(row, at, group);
    const T* x = shape.x_at(row, at, head) + channel;
    for (int n = threadIdx.x % kWarp * 4; n < shape.N; n += kWarp * 4)
    {
        const int count = shape.N - n;
        f32 b[4], c[4];
        load_four<isWide>(b, B + n, count);
        load_four<isWide>(c, C + n, count);
        #pragma unroll
        for (int k = 0; k < kChannelsOfWarp; k++)
        {
            if (k >= channels) break;
            const i64 place = state + (i64)k * shape.N + n;
            const f32 input = step * to_f32(x[k]);
            f32 h[4] = {};
            if (args.initial) load_four<isWide>(h, args.initial + place, count);
            #pragma unroll
            for (int v = 0; v < 4; v++)
            {
                h[v] = fmaf(decay, h[v], input * b[v]);
                sum[k] = fmaf(h[v], c[v], sum[k]);
            }
            store_four<isWide>(args.final + place, h, count);
        }
    }
}

// Steps of sequences that have one each.
template <typename T>
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_step(const SsdStepArgs<T> args)
{
    const SsdShape<T>& shape = args.shape;
    constexpr int kChannels = kSsdThreads / kWarp * kChannelsOfWarp;
    const int slices = (shape.P + kChannels - 1) / kChannels, channel = blockIdx.x % slices * kChannels + threadIdx.x / kWarp * kChannelsOfWarp;
    const int head = blockIdx.x / slices % shape.H, group = head / (shape.H / shape.G), lane = threadIdx.x % kWarp;
    const i64 number = blockIdx.x / slices / shape.H, sequence = args.singles ? args.singles[number] : number, row = args.singles ? 0 : number, at = args.singles ? shape.starts[sequence] : 0;
    f32 step = to_f32(shape.dt[row * shape.dtBatch + at * shape.dtStep + head]) + (shape.dtBias ? shape.dtBias[head] : 0.0f);
    if (shape.hasSoftplus) step = softplus(step);
    step = step < shape.minDelta ? shape.minDelta : step > shape.maxDelta ? shape.maxDelta : step;
    const f32 decay = expf(step * shape.rate(head));
    const int channels = min(kChannelsOfWarp, shape.P - channel);
    const T* x = shape.x_at(row, at, head) + channel;
    f32 sum[kChannelsOfWarp] = {};
    if (shape.isStateWide) step_states<true>(sum, args, sequence, row, at, head, group, channel, channels, step, decay);
    else step_states<false>(sum, args, sequence, row, at, head, group, channel, channels, step, decay);
    #pragma unroll
    for (int k = 0; k < kChannelsOfWarp; k++)
    {
        f32 y = warp_sum(sum[k]);
        if (k >= channels || lane != 0) continue;
        const int c = channel + k;
        if (shape.D) y = fmaf(shape.D[shape.isSkipPerChannel ? head * shape.P + c : head], to_f32(x[k]), y);
        const i64 to = shape.dense(row, at, head) + c;
        if (shape.z) y *= silu(to_f32(shape.z_at(row, at, head)[c]));
        args.y[to] = from_f32<T>(y);
    }
}
