// Rope.cu
//
// Computes   (a, b) → (a·cos − b·sin, b·cos + a·sin) for pairs of channels; cos and sin of row offset + l − start of l's sequence. The inverse has −sin.
// Source     Su et al. 2021, arXiv:2104.09864, section 3.2.
// Method     a head is cut into units: V pairs, or V channels that only move. Each thread takes one unit of one step for several heads, so that the
//            cosines and sines are read once for all of them, and goes on by the size of the grid. The step's sequence is found by bisection.
// Layout     x [B, L, H, P] with any strides but that of P; y [B, L, H, P]; cosine, sine [positions, pairs] float; starts [sequences + 1] or null.
//            Half: channel i with i + pairs. Interleaved: 2·i with 2·i + 1. Channels from 2·pairs on do not rotate.
// Launch     grid up to 8 blocks a multiprocessor, block 256. No shared memory.
// Traffic    reads B·L·H·P elements and 2·pairs floats for each step and group of heads, writes B·L·H·P elements.
// Precision  loads T, computes f32, stores T. Deterministic.
// Limits     accesses are of 16 bytes where pairs, P, strides and addresses are multiples of them, else of one element.
// Variants   rope<{f32|bf16|f16}>
#include "common/Copy.cuh"
#include "common/Grid.cuh"
#include "common/Sequences.cuh"

constexpr int kThreads = 256;

template <typename T>
struct RopeArgs                                               // mirrored in CudaRope.cs, field for field
{
    const T* x; const f32* cosine; const f32* sine; const i64* starts; T* y;
    i64 B, L, H, P, pairs, offset, batchStride, stepStride, headStride, headsPerThread;
    i32 sequences, isHalf, isWide;
    f32 sign;
};

// The heads of one step that a thread rotates or moves.
template <typename T>
struct Heads
{
    const T* x; T* y;
    const f32* cosine; const f32* sine;                       // of the step's position
    i64 count, headStride, P, pairs;
    f32 sign;

    // Channels i … i + V − 1 with those pairs further on.
    template <int V> __device__ inline void rotate_halves(i64 i) const
    {
        f32 c[V], s[V];
        load<V>(c, cosine + i);
        load<V>(s, sine + i);
        #pragma unroll 2                                      // more at once spills
        for (i64 h = 0; h < count; h++)
        {
            f32 a[V], b[V];
            load<V>(a, x + h * headStride + i);
            load<V>(b, x + h * headStride + pairs + i);
            #pragma unroll
            for (int v = 0; v < V; v++) rotate(a[v], b[v], c[v], s[v]);
            store<V>(y + h * P + i, a);
            store<V>(y + h * P + pairs + i, b);
        }
    }

    // Channels i … i + V − 1 among themselves.
    template <int V> __device__ inline void rotate_neighbours(i64 i) const
    {
        f32 c[V / 2], s[V / 2];
        load<V / 2>(c, cosine + i / 2);
        load<V / 2>(s, sine + i / 2);
        #pragma unroll 2                                      // more at once spills
        for (i64 h = 0; h < count; h++)
        {
            f32 u[V];
            load<V>(u, x + h * headStride + i);
            #pragma unroll
            for (int v = 0; v < V; v += 2) rotate(u[v], u[v + 1], c[v / 2], s[v / 2]);
            store<V>(y + h * P + i, u);
        }
    }

    // The pair of channels i and i + 1, where x or y is not aligned for both at once.
    __device__ inline void rotate_pair(i64 i) const
    {
        const f32 c = cosine[i / 2], s = sine[i / 2];
        #pragma unroll 2                                      // more at once spills
        for (i64 h = 0; h < count; h++)
        {
            f32 a = to_f32(x[h * headStride + i]), b = to_f32(x[h * headStride + i + 1]);
            rotate(a, b, c, s);
            y[h * P + i] = from_f32<T>(a);
            y[h * P + i + 1] = from_f32<T>(b);
        }
    }

    template <int V> __device__ inline void move(i64 i) const
    {
        #pragma unroll 2                                      // more at once spills
        for (i64 h = 0; h < count; h++)
        {
            f32 u[V];
            load<V>(u, x + h * headStride + i);
            store<V>(y + h * P + i, u);
        }
    }

    __device__ inline void rotate(f32& a, f32& b, f32 c, f32 s) const
    {
        const f32 first = a;
        a = first * c - b * (sign * s);
        b = b * c + first * (sign * s);
    }
};

template <int V, typename T>
__device__ inline void rotate_units(const RopeArgs<T>& args)
{
    const int pairWidth = V == 1 && !args.isHalf ? 2 : V;     // channels of a unit that rotates, or of its first half
    const i64 rotating = (args.isHalf ? args.pairs : 2 * args.pairs) / pairWidth, units = rotating + (args.P - 2 * args.pairs) / V;
    const i64 groups = (args.H + args.headsPerThread - 1) / args.headsPerThread, items = args.B * args.L * groups * units;
    for (i64 item = first_item(); item < items; item += item_step())
    {
        const Quotient unit = divide(item, units), group = divide(unit.quotient, groups), step = divide(group.quotient, args.L);
        const i64 b = step.quotient, l = step.rest, h = group.rest * args.headsPerThread;
        const i64 position = args.offset + l - (args.starts ? args.starts[sequence_of(args.starts, args.sequences, l)] : 0);
        const Heads<T> heads
        {
            args.x + b * args.batchStride + l * args.stepStride + h * args.headStride, args.y + ((b * args.L + l) * args.H + h) * args.P,
            args.cosine + position * args.pairs, args.sine + position * args.pairs,
            min(args.headsPerThread, args.H - h), args.headStride, args.P, args.pairs, args.sign,
        };
        if (unit.rest >= rotating) heads.template move<V>(2 * args.pairs + (unit.rest - rotating) * V);
        else if (args.isHalf) heads.template rotate_halves<V>(unit.rest * V);
        else if (V == 1) heads.rotate_pair(unit.rest * 2);
        else heads.template rotate_neighbours<V == 1 ? 2 : V>(unit.rest * V);
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) rope(const RopeArgs<T> args)
{
    if (args.isWide) rotate_units<kVector<T, true>>(args);
    else rotate_units<1>(args);
}
