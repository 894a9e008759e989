// SsdConvolution.cuh: x of the state-space dual scan through a causal convolution with silu in shared memory, to the bit as CausalConv1d.cu leaves it.
#pragma once
#include "common/Ssd.cuh"

constexpr int kTaps = 4, kRowsOfThread = 8;                   // most taps; rows that a thread walks

struct SsdConvolution                                         // mirrored in CudaSsdScan.cs, field for field
{
    const f32* weight; const f32* bias; const f32* initial; f32* final;                   // weight is null without a convolution
    i64 stateStep;                                            // elements from one input of a state to the next
    i32 K;
};

// What a unit keeps of its channels: taps, the last at kTaps − 1; bias; and the last inputs before the chunk, of which kTaps − K are no inputs.
template <int Width>
struct SsdWindow
{
    f32 sTaps[kTaps][Width], sBias[Width], sBefore[kTaps - 1][Width];

    // A thread of a team has this column of this row of sBefore, and there is none for the last.
    static __device__ inline int row(int thread) { return thread % kSsdThreads / Width; }
    static __device__ inline int column(int thread) { return thread % Width; }
    static __device__ inline bool has_row(int thread) { return row(thread) < kTaps - 1; }

    // Channels from `first` on, of which `channels` exist, of a sequence.
    __device__ inline void open(const SsdConvolution& of, i64 sequence, int first, int channels)
    {
        for (int c = threadIdx.x % kSsdThreads; c < Width; c += kSsdThreads)
        {
            #pragma unroll
            for (int i = 0; i < kTaps; i++) sTaps[i][c] = c < channels && kTaps - i <= of.K ? of.weight[(i64)(first + c) * of.K + i - (kTaps - of.K)] : 0.0f;
            sBias[c] = of.bias && c < channels ? of.bias[first + c] : 0.0f;
        }
        const int thread = thread_again(), input = row(thread) - (kTaps - of.K);
        if (has_row(thread)) sBefore[row(thread)][column(thread)] = of.initial && input >= 0 && column(thread) < channels ? of.initial[(sequence * (of.K - 1) + input) * of.stateStep + first + column(thread)] : 0.0f;
    }

    // The last inputs are the state behind the sequence.
    __device__ inline void close(const SsdConvolution& of, i64 sequence, int first, int channels) const
    {
        const int thread = thread_again(), input = row(thread) - (kTaps - of.K);
        if (has_row(thread) && input >= 0 && column(thread) < channels) of.final[(sequence * (of.K - 1) + input) * of.stateStep + first + column(thread)] = sBefore[row(thread)][column(thread)];
    }

    // The first `steps` rows of a tile become what the convolution makes of them, rounded to T; the others stay 0. All threads of the block call it, when the rows are there.
    template <typename T, typename E>
    __device__ inline void convolve(E* sX, int K, int steps, int used)
    {
        constexpr int V = Width * kSteps / kRowsOfThread / kSsdThreads, kPitch = Width + kRowPad<E>;
        const int thread = thread_again(), c = thread % (Width / V) * V, first = thread % kSsdThreads / (Width / V) * kRowsOfThread, from = steps + row(thread) - (kTaps - 1);
        E* sRow = sX + first * kPitch + c;
        f32 window[kTaps][V], next = 0;
        if (c < used)
            #pragma unroll
            for (int i = 1; i < kTaps; i++)
            {
                if (first == 0) load<V>(window[i], &sBefore[i - 1][c]);
                else load<V>(window[i], sRow + (i - kTaps) * kPitch);
            }
        if (has_row(thread) && column(thread) < used) next = from < 0 ? sBefore[from + kTaps - 1][column(thread)] : to_f32(sX[from * kPitch + column(thread)]);
        __syncthreads();                                      // every thread has the rows before its own, which take the convolution's place
        if (has_row(thread)) sBefore[row(thread)][column(thread)] = next;
        if (c >= used) return;
        f32 taps[kTaps][V], bias[V];
        load<V>(bias, sBias + c);
        #pragma unroll
        for (int i = 0; i < kTaps; i++) load<V>(taps[i], sTaps[i] + c);
        #pragma unroll 1
        for (int r = 0; r < kRowsOfThread && first + r < steps; r++, sRow += kPitch)
        {
            f32 sum[V];
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                #pragma unroll
                for (int i = 0; i + 1 < kTaps; i++) window[i][v] = window[i + 1][v];
                sum[v] = bias[v];
            }
            load<V>(window[kTaps - 1], sRow);
            #pragma unroll
            for (int i = 0; i < kTaps; i++)
                if (kTaps - i <= K)
                    #pragma unroll
                    for (int v = 0; v < V; v++) sum[v] = fmaf(taps[i][v], window[i][v], sum[v]);
            #pragma unroll
            for (int v = 0; v < V; v++) sum[v] = to_f32(from_f32<T>(silu(sum[v])));
            stash<V>(sRow, sum);
        }
    }
};
