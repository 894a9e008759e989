// SsdForward.cuh: what the kernels of the dual scan forward are told, and how a row of y leaves them.
#pragma once
#include "common/SsdConvolution.cuh"

template <typename T>
struct SsdForwardArgs                                         // mirrored in CudaSsdScan.cs, field for field
{
    T* y; T* ungated; f32* final; Border<T>* states; const f32* initial; const f32* carried; const f32* norm; f32* squares; T* convolved;
    SsdConvolution convolution;
    SsdShape<T> shape;
    i32 segments, chunksOfSegment, units;

    // The state of a head before a segment of a sequence [P, N]; null where it is zero.
    __device__ inline const f32* state_before(i64 sequence, int segment, int head) const
    {
        if (segment > 0) return carried + ((sequence * (segments - 1) + segment - 1) * shape.H + head) * (i64)shape.P * shape.N;
        return initial ? initial + shape.state(sequence, head) : nullptr;
    }

    // D of a channel.
    __device__ inline f32 skip(int head, int channel) const { return shape.D[shape.isSkipPerChannel ? head * shape.P + channel : head]; }
};

// V elements of y go past the gate z and the norm's weight, where there are any, to element `at`; neighbouring lanes add up the squares of Width channels, which the first of them stores. All
// lanes of a warp call it, with or without elements of their own.
template <int Width, int V, typename T>
__device__ inline void store_row(const SsdForwardArgs<T>& args, f32 (&value)[V], i64 at, const T* z, const f32* norm, f32* squares, bool isThere, bool isFirst)
{
    f32 sum = 0, factor[V];
    if (isThere)
    {
        if (args.shape.z)
        {
            load<V>(factor, z);
            if (args.ungated) store<V>(args.ungated + at, value);
            #pragma unroll
            for (int v = 0; v < V; v++) value[v] *= silu(factor[v]);
        }
        if (args.norm)
        {
            load<V>(factor, norm);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                sum = fmaf(value[v], value[v], sum);
                value[v] *= factor[v];
            }
        }
        store<V>(args.y + at, value);
    }
    if (!args.norm) return;
    #pragma unroll
    for (int distance = 1; distance < Width / V; distance *= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
    if (isThere && isFirst) *squares = sum;
}

// Where a thread is in the rows that it stores.
template <typename T>
struct SsdStorePlace
{
    int i, p;                                                 // its step and channel
    i64 at;
    const T* z;
    f32* squares;
};

// A thread's elements, V at a time, of Rows rows at `sY`, and on to those behind them.
template <int Width, int V, int Threads, int Rows, typename T>
__device__ inline void store_part(const SsdForwardArgs<T>& args, SsdStorePlace<T>& place, const f32* sY, int pitch, const f32* sNorm, int steps, int channels)
{
    constexpr int kPass = Threads * V / Width;                // rows
    static_assert(Rows % kPass == 0, "all lanes of a warp come to its sums");
    const SsdShape<T>& shape = args.shape;
    const f32* from = sY + place.i % Rows * pitch + place.p;
    #pragma unroll 1
    for (int k = 0; k < Rows / kPass; k++, from += kPass * pitch)
    {
        f32 value[V];
        load<V>(value, from);
        store_row<Width>(args, value, place.at, place.z, sNorm + place.p, place.squares, place.i < steps && place.p < channels, place.p == 0);
        place.i += kPass;
        place.at += (i64)kPass * shape.H * shape.P;
        place.z += kPass * shape.zStep;
        place.squares += (i64)kPass * shape.H * ((shape.P + Width - 1) / Width);
    }
}

// kSteps rows of y as a team of Threads has them in shared memory, `pitch` floats apart: Rows at a time, when put(number of those) has put them there. Rows of `steps` steps from `first` on exist.
template <int Width, int Threads, int Rows, typename T, typename Put>
__device__ inline void store_rows(const SsdForwardArgs<T>& args, const f32* sY, int pitch, const f32* sNorm, i64 row, i64 first, int steps, int head, int channel, int channels, const Put& put)
{
    constexpr int V = 16 / sizeof(T);
    const SsdShape<T>& shape = args.shape;
    const int thread = thread_again() % Threads, v = shape.isYWide ? V : 1, i = thread / (Width / v), p = thread % (Width / v) * v;
    SsdStorePlace<T> place{i, p, shape.dense(row, first + i, head) + channel + p, shape.z_at(row, first + i, head) + channel + p,
        args.squares + ((row * shape.L + first + i) * shape.H + head) * ((shape.P + Width - 1) / Width) + channel / Width};
    #pragma unroll
    for (int r = 0; r < kSteps / Rows; r++)
    {
        put(r);
        if (shape.isYWide) store_part<Width, V, Threads, Rows>(args, place, sY, pitch, sNorm, steps, channels);
        else store_part<Width, 1, Threads, Rows>(args, place, sY, pitch, sNorm, steps, channels);
    }
}
