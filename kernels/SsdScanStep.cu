// SsdScanStep.cu
//
// Computes   one step of SsdScanForward.cu for each sequence: Δ = clamp(softplus(dt + bias)),  S = exp(Δ·A)·S + Δ·B·xᵀ,  y = Sᵀ·C + D·x, times silu(z)
// Source     Dao and Gu 2024, arXiv:2405.21060, equation 1 with a scalar A per head.
// Method     a warp owns kChannelsOfWarp channels of a head and its lanes walk N.
// Layout     x, z [B, 1, H, P]; dt [B, 1, H]; B, C [B, 1, G, N], any strides but the last; y, ungated [B, 1, H, P]; initial, final [B, H, P, N] float.
// Launch     grid B·H·ceil(P / 32), block 256.
// Traffic    reads and writes N·P floats per head, reads 2·N elements for every 4 channels, and P elements (2·P with z), writes P.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no atomics.
// Limits     H·P < 2³¹.
// Variants   ssd_scan_step<{f32|bf16|f16}>
#include "common/Ssd.cuh"

template <typename T>
struct SsdStepArgs                                            // mirrored in CudaSsdScan.cs, field for field
{
    T* y; T* ungated; f32* final; const f32* initial;
    SsdShape<T> shape;
};

constexpr int kChannelsOfWarp = 4;

// Brings the state of a warp's channels forward by a step, V neighbours n at a time, and adds this lane's share of S·C.
template <int V, typename T>
__device__ inline void step_states(f32 (&sum)[kChannelsOfWarp], const SsdStepArgs<T>& args, i64 row, int head, int group, int channel, int channels, f32 step, f32 decay)
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
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_step(const SsdStepArgs<T> args)
{
    const SsdShape<T>& shape = args.shape;
    constexpr int kChannels = kSsdThreads / kWarp * kChannelsOfWarp;
    const int slices = (shape.P + kChannels - 1) / kChannels, channel = blockIdx.x % slices * kChannels + threadIdx.x / kWarp * kChannelsOfWarp;
    const int head = blockIdx.x / slices % shape.H, group = head / (shape.H / shape.G), lane = threadIdx.x % kWarp;
    const i64 row = blockIdx.x / slices / shape.H;
    f32 step = to_f32(shape.dt[row * shape.dtBatch + head]) + (shape.dtBias ? shape.dtBias[head] : 0.0f);
    if (shape.hasSoftplus) step = softplus(step);
    step = step < shape.minDelta ? shape.minDelta : step > shape.maxDelta ? shape.maxDelta : step;
    const f32 decay = expf(step * shape.rate(head));
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
