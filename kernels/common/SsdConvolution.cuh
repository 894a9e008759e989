// SsdConvolution.cuh: x of the state-space dual scan through a causal convolution with silu in shared memory, to the bit as CausalConv1d.cu leaves it.
#pragma once
#include "common/Ssd.cuh"

constexpr int kTaps = 4;                                      // most taps

struct SsdConvolution                                         // mirrored in CudaSsdScan.cs, field for field
{
    const f32* weight; const f32* bias; const f32* initial; f32* final;                   // weight is null without a convolution
    i64 stateStep;                                            // elements from one input of a state to the next
    i32 K;
};

// What a team of Threads keeps of its Width channels: taps, the last at kTaps − 1; bias; and the last inputs before the chunk, of which kTaps − K are no inputs. A thread walks the rows of a
// group, V channels of them.
template <int Width, int Threads, int V>
struct SsdWindow
{
    static constexpr int kGroups = Threads * V / Width, kInputs = (kTaps - 1) * Width;

    f32 sTaps[kTaps][Width], sBias[Width], sBefore[kTaps - 1][Width];

    static __device__ inline void sync()
    {
        if constexpr (Threads == kWarp) __syncwarp();
        else __syncthreads();
    }

    // Channels from `first` on, of which `channels` exist, of a sequence.
    __device__ inline void open(const SsdConvolution& of, i64 sequence, int first, int channels)
    {
        const int thread = thread_again() % Threads;
        for (int c = thread; c < Width; c += Threads)
        {
            #pragma unroll
            for (int i = 0; i < kTaps; i++) sTaps[i][c] = c < channels && kTaps - i <= of.K ? of.weight[(i64)(first + c) * of.K + i - (kTaps - of.K)] : 0.0f;
            sBias[c] = of.bias && c < channels ? of.bias[first + c] : 0.0f;
        }
        for (int k = thread; k < kInputs; k += Threads)
        {
            const int input = k / Width - (kTaps - of.K), c = k % Width;
            sBefore[k / Width][c] = of.initial && input >= 0 && c < channels ? of.initial[(sequence * (of.K - 1) + input) * of.stateStep + first + c] : 0.0f;
        }
    }

    // The last inputs are the state behind the sequence.
    __device__ inline void close(const SsdConvolution& of, i64 sequence, int first, int channels) const
    {
        for (int k = thread_again() % Threads; k < kInputs; k += Threads)
        {
            const int input = k / Width - (kTaps - of.K), c = k % Width;
            if (input >= 0 && c < channels) of.final[(sequence * (of.K - 1) + input) * of.stateStep + first + c] = sBefore[k / Width][c];
        }
    }

    // The first `steps` rows of a tile become what the convolution makes of them, rounded to T; the others stay 0. at(row, column) is an element of the tile. All threads of the team call it,
    // when the rows are there.
    template <typename T, typename At>
    __device__ inline void convolve(const At& at, int K, int steps, int used)
    {
        // Groups of a warp are an odd number of rows apart: rows at even distances may lie in the same banks.
        const int rows = (steps + kGroups - 1) / kGroups | (Threads == kWarp ? 1 : 0);
        const int thread = thread_again() % Threads, c = thread % (Width / V) * V, first = thread / (Width / V) * rows, end = min(steps, first + rows);
        f32 window[kTaps][V];
        if (c < used && first < end)
            #pragma unroll
            for (int i = 1; i < kTaps; i++)
            {
                const int row = first + i - kTaps;
                if (row < 0) load<V>(window[i], &sBefore[row + kTaps - 1][c]);
                else load<V>(window[i], at(row, c));
            }
        sync();                                               // every thread has the rows before its own, which take the convolution's place
        if (c >= used || first >= end) return;
        f32 taps[kTaps][V], bias[V];
        load<V>(bias, sBias + c);
        #pragma unroll
        for (int i = 0; i < kTaps; i++) load<V>(taps[i], sTaps[i] + c);
        #pragma unroll 1
        for (int row = first; row < end; row++)
        {
            f32 sum[V];
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                #pragma unroll
                for (int i = 0; i + 1 < kTaps; i++) window[i][v] = window[i + 1][v];
                sum[v] = bias[v];
            }
            load<V>(window[kTaps - 1], at(row, c));
            #pragma unroll
            for (int i = 0; i < kTaps; i++)
                if (kTaps - i <= K)
                    #pragma unroll
                    for (int v = 0; v < V; v++) sum[v] = fmaf(taps[i][v], window[i][v], sum[v]);
            #pragma unroll
            for (int v = 0; v < V; v++) sum[v] = to_f32(from_f32<T>(silu(sum[v])));
            stash<V>(at(row, c), sum);
        }
        if (end < steps) return;
        #pragma unroll
        for (int i = 1; i < kTaps; i++) stash<V>(&sBefore[i - 1][c], window[i]);           // which are before the next chunk
    }
};
