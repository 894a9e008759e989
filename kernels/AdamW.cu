// AdamW.cu
//
// Computes   g ← c·g with c = min(1, maxNorm / norm), m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², p ← p − η·λ·p,
//            p ← p − η·(m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε), and the value from p in its own type; t ← t + 1. All of it for every parameter, or none
//            of it where the norm is not finite. The norm itself: √Σ x² over all elements of several tensors.
// Source     Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
// Method     one launch for all parameters: a table lists their addresses, and the first block of each; a block finds its parameter there. The step
//            counter is read by all blocks and written by the one that finishes last, which a ticket tells. norm_squares leaves a sum for each block,
//            norm_total adds them up in order.
// Layout     parts [count] AdamWPart, parts [count] NormPart; every tensor dense; master, g, m, v float; partial [P] double; ticket 0 before the launch; η is *rate where that is given, which a captured step reads anew at each
//            replay.
// Launch     adamw grid Σ ceil(n / 8192), at least 1; norm_squares grid P = Σ ceil(n / chunk); norm_total one block; block 256. Static shared memory 128 bytes.
// Traffic    adamw reads 16 bytes and writes 12 bytes for a parameter, and the value where it is not p itself: 30 bytes for a bf16 value, 28 for f32.
//            norm reads 4 bytes for an element, writes and reads 8·P.
// Precision  f32 as src/ZEngine/Cpu/CpuAdamW.cs; bias corrections in double. Squares are summed in f32 over 16 accesses, then in double. Deterministic:
//            the ticket's order changes nothing but who writes the counter.
// Limits     isWide: all addresses of a part are multiples of 16 (a 16-bit value's of 8). chunk is a multiple of 1024.
// Variants   adamw; norm_squares; norm_total
#include "common/Approximate.cuh"
#include "common/Block.cuh"
#include "common/Copy.cuh"

constexpr int kThreads = 256;
constexpr int kBlocks = 6;                                    // of a multiprocessor at least: at most 40 registers
constexpr int kV = 4;
constexpr int kChunk = 8192;                                  // elements of a block
constexpr int kRun = 16;                                      // accesses whose squares are summed in f32


// Addresses in a table are distances from a pointer that the host passes as null: of what begins at a parameter the compiler knows that it is global
// memory. It would split 16-byte accesses through pointers that it loads from the table.
template <typename T>
__device__ inline T* at(u8* memory, i64 address) { return reinterpret_cast<T*>(memory + address); }

struct AdamWPart                                              // mirrored in CudaAdamW.cs, field for field
{
    i64 value, p, g, m, v;                                    // value is 0 where it is p itself
    i64 n, firstBlock;
    i32 type, isDecayed, isWide, unused;
};

struct AdamWArgs                                              // mirrored in CudaAdamW.cs, field for field
{
    u8* memory; const AdamWPart* parts; u32* ticket; i64* step; const f32* norm; const f32* rate;
    f64 beta1, beta2, learningRate, weightDecay;
    f32 epsilon, maxNorm;
    i32 count, unused;
};

// What the update of every element needs.
struct Update { f32 gradientScale, beta1, rest1, beta2, rest2, epsilon, rate, secondScale, decay; };

__device__ inline f64 power(f64 x, i64 n)
{
    f64 y = 1;
    for (; n > 0; n /= 2, x *= x)
        if (n % 2 == 1) y *= x;
    return y;
}

__device__ inline Update update_of(const AdamWArgs& args, i64 taken, f32 norm)
{
    const f64 learningRate = args.rate ? *args.rate : args.learningRate;
    Update u;
    u.gradientScale = args.maxNorm > 0 && norm > args.maxNorm ? args.maxNorm / norm : 1.0f;
    u.beta1 = (f32)args.beta1;
    u.rest1 = (f32)(1 - args.beta1);
    u.beta2 = (f32)args.beta2;
    u.rest2 = (f32)(1 - args.beta2);
    u.epsilon = args.epsilon;
    u.rate = (f32)(learningRate / (1 - power(args.beta1, taken)));
    u.secondScale = (f32)(1 / (1 - power(args.beta2, taken)));
    u.decay = (f32)(learningRate * args.weightDecay);
    return u;
}

// The last of count parts that begins at this block or before. Parts are not empty.
template <typename Part>
__device__ inline int part_of(const Part* parts, int count, i64 block)
{
    int low = 0, high = count - 1;
    while (low < high)
    {
        const int middle = (low + high + 1) / 2;
        if (parts[middle].firstBlock <= block) low = middle;
        else high = middle - 1;
    }
    return low;
}

template <int V>
__device__ inline void step(u8* memory, const volatile AdamWPart& part, const volatile Update& u, i64 i)
{
    f32 p[V], g[V], m[V], v[V];
    load<V>(p, at<f32>(memory, part.p) + i);
    load<V>(g, at<f32>(memory, part.g) + i);
    load<V>(m, at<f32>(memory, part.m) + i);
    load<V>(v, at<f32>(memory, part.v) + i);
    #pragma unroll
    for (int k = 0; k < V; k++)
    {
        g[k] *= u.gradientScale;
        m[k] = fmaf(u.rest1, g[k], u.beta1 * m[k]);
        v[k] = fmaf(u.rest2 * g[k], g[k], u.beta2 * v[k]);
        if (part.isDecayed) p[k] -= u.decay * p[k];
        p[k] -= __fdividef(u.rate * m[k], square_root(v[k] * u.secondScale) + u.epsilon);
    }
    store<V>(at<f32>(memory, part.m) + i, m);
    store<V>(at<f32>(memory, part.v) + i, v);
    store<V>(at<f32>(memory, part.p) + i, p);
    if (part.value == 0) return;
    if (part.type == kFloat32)
    {
        store<V>(at<f32>(memory, part.value) + i, p);
        return;
    }
    u64 word = 0;                                             // one access; the compiler would not merge the elements
    #pragma unroll
    for (int k = 0; k < V; k++) word |= (u64)(part.type == kBFloat16 ? from_f32<bf16>(p[k]).bits : from_f32<f16>(p[k]).bits) << 16 * k;
    if (V == kV) *at<u64>(memory, part.value + i * 2) = word;
    else *at<u16>(memory, part.value + i * 2) = (u16)word;
}

// Where this block's elements of its part begin, and how many they are.
__device__ inline i64 begin_of(const volatile AdamWPart& part) { return (block_again() - part.firstBlock) * kChunk; }
__device__ inline int count_of(const volatile AdamWPart& part) { return (int)min(part.n - begin_of(part), (i64)kChunk); }

template <int V>
__device__ inline void walk(u8* memory, const volatile AdamWPart& part, const volatile Update& u, int first, int last)
{
    const i64 begin = begin_of(part);
    #pragma unroll 1
    for (int i = first + thread_again() * V; i < last; i += kThreads * V) step<V>(memory, part, u, begin + i);
}

__global__ void __launch_bounds__(kThreads, kBlocks) adamw(const AdamWArgs args)
{
    __shared__ AdamWPart sPart;
    __shared__ Update sUpdate;
    __shared__ i64 sTaken;
    const f32 norm = args.norm ? *args.norm : 0.0f;
    if (!(fabsf(norm) < kInfinity)) return;                   // the same for every thread of the grid
    if (threadIdx.x == 0)
    {
        const i64 taken = sTaken = *args.step + 1;
        sUpdate = update_of(args, taken, norm);
        if (args.count > 0) sPart = args.parts[part_of(args.parts, args.count, blockIdx.x)];
        else sPart.n = sPart.firstBlock = 0;
    }
    __syncthreads();                                          // the part and the numbers of the update are there
    const volatile AdamWPart& part = sPart;                   // volatile: numbers of the whole block would take half of a thread's registers
    const volatile Update& update = sUpdate;
    walk<kV>(args.memory, part, update, 0, part.isWide ? count_of(part) / kV * kV : 0);
    walk<1>(args.memory, part, update, part.isWide ? count_of(part) / kV * kV : 0, count_of(part));
    if (thread_again() != 0) return;
    __threadfence();                                          // this block has read the counter
    if (atomicAdd(args.ticket, 1u) != gridDim.x - 1) return;
    __threadfence();                                          // so has every other
    *args.step = sTaken;
}

struct NormPart                                               // mirrored in CudaAdamW.cs, field for field
{
    i64 x, n, firstBlock;
    i32 isWide, unused;
};

struct NormArgs                                               // mirrored in CudaAdamW.cs, field for field
{
    u8* memory; const NormPart* parts; f64* partial; f32* norm;
    i64 chunk;
    i32 count, P;
};

__global__ void __launch_bounds__(kThreads) norm_squares(const NormArgs args)
{
    __shared__ NormPart sPart;
    __shared__ f64 sPartial[kThreads / kWarp];
    if (threadIdx.x == 0) sPart = args.parts[part_of(args.parts, args.count, blockIdx.x)];
    __syncthreads();                                          // the part is there
    const f32* x = at<f32>(args.memory, sPart.x);
    const i64 begin = (blockIdx.x - sPart.firstBlock) * args.chunk, end = min(sPart.n, begin + args.chunk), wideEnd = sPart.isWide ? end / kV * kV : begin;
    f64 sum = 0;
    for (i64 i = begin + threadIdx.x * kV; i < wideEnd;)
    {
        f32 run[kV] = {};
        #pragma unroll 4
        for (int k = 0; k < kRun && i < wideEnd; k++, i += kThreads * kV)
        {
            f32 value[kV];
            load<kV>(value, x + i);
            #pragma unroll
            for (int v = 0; v < kV; v++) run[v] = fmaf(value[v], value[v], run[v]);
        }
        sum += (f64)((run[0] + run[1]) + (run[2] + run[3]));
    }
    for (i64 i = wideEnd + threadIdx.x; i < end; i += kThreads) sum += (f64)(x[i] * x[i]);
    sum = block_sum(sum, sPartial);
    if (threadIdx.x == 0) args.partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) norm_total(const NormArgs args)
{
    __shared__ f64 sPartial[kThreads / kWarp];
    f64 sum = 0;
    for (int p = threadIdx.x; p < args.P; p += kThreads) sum += args.partial[p];
    sum = block_sum(sum, sPartial);
    if (threadIdx.x == 0) *args.norm = (f32)sqrt(sum);
}
