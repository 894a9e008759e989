// Rope.cu
//
// Computes   (a, b) → (a·cos − b·sin, b·cos + a·sin) for pairs of channels; cos and sin of row offset + l − start of l's sequence. The inverse has −sin.
// Source     Su et al. 2021, arXiv:2104.09864, section 3.2.
// Method     a head is cut into units: V pairs, or V channels that only move. Each thread takes one unit of one step for several heads, so that the
//            cosines and sines are read once for all of them. The step's sequence is found by bisection.
// Layout     x [B, L, H, P] with any strides but that of P; y [B, L, H, P]; cosine, sine [positions, pairs] float; starts [sequences + 1] or null.
//            Half: channel i with i + pairs. Interleaved: 2·i with 2·i + 1. Channels from 2·pairs on do not rotate.
// Launch     grid ceil(items / 256), an item for each unit of each step and group of heads; block 256, 6 of them to a multiprocessor by registers. No shared memory.
// Traffic    reads B·L·H·P elements and 2·pairs floats for each step and group of heads, writes B·L·H·P elements.
// Precision  loads T, computes f32, stores T. Deterministic.
// Limits     fewer than 2³¹ items. Accesses are of 16 bytes where pairs, P, strides and addresses are multiples of them, else of one element.
// Variants   rope<{f32|bf16|f16}>
#include "common/Sequences.cuh"
#include "common/Words.cuh"

constexpr int kThreads = 256;
constexpr int kBlocks = 6;                                    // of a multiprocessor at least: at most 40 registers

template <typename T>
struct RopeArgs                                               // mirrored in CudaRope.cs, field for field
{
    const T* x; const f32* cosine; const f32* sine; const i64* starts; T* y;
    i64 offset, batchStride, stepStride, headBytes, channelBytes, pairBytes;       // headBytes from a head to the next of x, channelBytes of y, pairBytes between halves
    i32 L, H, P, pairs, headsPerThread, items, sequences, isHalf, isWide;
    f32 sign;
};

// Distances in bytes, which are added as they are: those in elements need registers for what they are in bytes.
template <typename T>
__device__ inline T* bytes_on(T* at, i64 bytes) { return (T*)((u8*)at + bytes); }

__device__ inline void rotate(f32& a, f32& b, f32 c, f32 s)
{
    const f32 first = a;
    a = first * c - b * s;
    b = b * c + first * s;
}

// The heads of one step that a thread rotates or moves; x and y stand at the thread's channels.
template <typename T>
struct Heads
{
    const T* x; T* y;
    i32 count;

    template <typename Turn>
    __device__ inline void each(const RopeArgs<T>& args, Turn turn)
    {
        #pragma unroll 1                                      // more at once needs more registers than 40
        for (; count > 0; count--)
        {
            turn(x, y);
            x = bytes_on(x, args.headBytes);
            y = bytes_on(y, args.channelBytes);
        }
    }
};

// The cosines and sines of N pairs.
template <int N>
struct Angles
{
    f32 c[N], s[N];

    template <typename T>
    __device__ inline Angles(const RopeArgs<T>& args, i64 at)
    {
        load<N>(c, args.cosine + at);
        load<N>(s, args.sine + at);
        #pragma unroll
        for (int v = 0; v < N; v++) s[v] *= args.sign;
    }
};

template <int V, typename T>
__device__ inline void rotate_units(const RopeArgs<T>& args)
{
    using Words = PackedWords<T, V>;
    constexpr int kEach = Words::kEach;
    const u32 item = blockIdx.x * kThreads + threadIdx.x;
    if (item >= (u32)args.items) return;
    const u32 pairs = args.pairs, pairWidth = V == 1 && !args.isHalf ? 2 : V;             // channels of a unit that rotates, or of its first half
    const u32 rotating = (args.isHalf ? pairs : 2 * pairs) / pairWidth, units = rotating + (args.P - 2 * pairs) / V;
    const u32 groups = (args.H + args.headsPerThread - 1) / args.headsPerThread;
    const u32 group = item / units, unit = item - group * units, step = group / groups, b = step / args.L, l = step - b * args.L;
    const u32 head = (group - step * groups) * args.headsPerThread;
    const bool isTurned = unit < rotating;
    const u32 channel = isTurned ? unit * pairWidth : 2 * pairs + (unit - rotating) * V;
    Heads<T> heads
    {
        bytes_on(args.x + b * args.batchStride + l * args.stepStride + channel, head * args.headBytes),
        args.y + ((i64)step * args.H + head) * args.P + channel, min(args.headsPerThread, args.H - (i32)head),
    };
    const i64 position = args.offset + l - (args.starts ? args.starts[sequence_of(args.starts, args.sequences, l)] : 0);
    const i64 angle = position * pairs + (args.isHalf ? channel : channel / 2);
    if (!isTurned)
        heads.each(args, [](const T* x, T* y)
        {
            Words words;
            words.load(x);
            words.store(y);
        });
    else if (args.isHalf)
    {
        const Angles<V> angles(args, angle);
        heads.each(args, [&](const T* x, T* y)
        {
            Words first, second;
            first.load(x);
            second.load(bytes_on(x, args.pairBytes));
            #pragma unroll
            for (int i = 0; i < Words::kCount; i++)
            {
                f32 a[kEach], b[kEach];
                first.open(a, i);
                second.open(b, i);
                #pragma unroll
                for (int v = 0; v < kEach; v++) rotate(a[v], b[v], angles.c[i * kEach + v], angles.s[i * kEach + v]);
                first.close(i, a);
                second.close(i, b);
            }
            second.store(bytes_on(y, args.pairBytes));
            first.store(y);
        });
    }
    else if constexpr (V == 1)                            // x or y is not aligned for both of a pair at once
    {
        const Angles<1> angles(args, angle);
        heads.each(args, [&](const T* x, T* y)
        {
            f32 a = to_f32(x[0]), b = to_f32(x[1]);
            rotate(a, b, angles.c[0], angles.s[0]);
            y[0] = from_f32<T>(a);
            y[1] = from_f32<T>(b);
        });
    }
    else
    {
        const Angles<V / 2> angles(args, angle);
        heads.each(args, [&](const T* x, T* y)
        {
            Words words;
            words.load(x);
            #pragma unroll
            for (int pair = 0; pair < V / 2; pair++)
            {
                f32 a, b;
                words.open_pair(a, b, pair);
                rotate(a, b, angles.c[pair], angles.s[pair]);
                words.close_pair(pair, a, b);
            }
            words.store(y);
        });
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) rope(const RopeArgs<T> args)
{
    if (args.isWide) rotate_units<kVector<T, true>>(args);
    else rotate_units<1>(args);
}
