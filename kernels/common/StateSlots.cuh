// StateSlots.cuh: what the kernels of a token's step share: the slot of a sequence, and its convolution.
#pragma once
#include "common/Copy.cuh"
#include "common/Pointwise.cuh"

// Where the states of sequence b stand: below 0 it is idle. A slot that does not exist ends the kernel.
__device__ inline i64 slot_of(const void* slots, bool isLong, i64 slotCount, i64 b)
{
    const i64 slot = !slots ? b : isLong ? static_cast<const i64*>(slots)[b] : static_cast<const i32*>(slots)[b];
    if (slot >= slotCount) trap();
    return slot;
}

// Depthwise taps [channels, K] and their bias, or null. isWide: K is 4, and the taps of a channel are one access.
struct StepTaps { const f32* weight; const f32* bias; i32 K, isWide; };

// A channel of the convolution: silu of its sum, rounded as causal_conv1d_forward does. Where `moves`, its inputs move up by one.
template <bool moves, typename T>
__device__ inline f32 convolve(const StepTaps& step, f32* inputs, i64 width, const T* x, int channel)
{
    f32 sum = step.bias ? step.bias[channel] : 0.0f, last;
    const f32* taps = step.weight + (i64)channel * step.K;
    inputs += channel;
    const auto meet = [&](int k, f32 tap)
    {
        const f32 input = inputs[k * width];
        sum = fmaf(tap, input, sum);
        if (moves && k > 0) inputs[(k - 1) * width] = input;
    };
    if (step.isWide)
    {
        f32 four[4];
        load<4>(four, taps);
        #pragma unroll
        for (int k = 0; k < 3; k++) meet(k, four[k]);
        last = four[3];
    }
    else
    {
        for (int k = 0; k < step.K - 1; k++) meet(k, taps[k]);
        last = taps[step.K - 1];
    }
    const f32 newest = to_f32(x[channel]);
    if (moves && step.K > 1) inputs[(step.K - 2) * width] = newest;
    return to_f32(from_f32<T>(silu(fmaf(last, newest, sum))));
}
