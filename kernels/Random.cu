// Random.cu
//
// Computes   y[i] = low + (high − low)·u(i), u(i) the upper 24 of the 32 random bits at index i; y[i] = mean + deviation·z(i), with z of a pair of indices
//            √(−2 ln a)·cos(2πb) and √(−2 ln a)·sin(2πb), a in (0, 1] and b in [0, 1) of 53 bits each.
// Source     Philox4x32-10: Salmon, Moraes, Dror and Shaw 2011, Parallel random numbers: as easy as 1, 2, 3, section 4. Box and Muller 1958.
// Method     each thread makes four neighbouring numbers, from one counter (uniform) or two (normal), and goes on by the size of the grid.
// Layout     y [n] float.
// Launch     grid up to 8 blocks a multiprocessor, block 256. No shared memory.
// Traffic    writes n floats.
// Precision  uniform numbers have the bits of src/ZEngine/RandomStream.cs; normal ones are worked out in double, as there, and rounded once.
// Limits     isWide: y is a multiple of 16, else it is written element by element.
// Variants   random_uniform; random_normal
#include "common/Copy.cuh"

constexpr int kThreads = 256;
constexpr int kV = 4;

struct RandomArgs                                             // mirrored in CudaRandom.cs, field for field
{
    f32* y;
    i64 n;
    u64 seed, stream;
    f32 offset, scale;
    i32 isWide, unused;
};

__device__ inline void philox(u32 (&word)[4], u64 counter, u64 seed, u64 stream)
{
    u32 a = (u32)counter, b = (u32)(counter >> 32), c = (u32)stream, d = (u32)(stream >> 32), key0 = (u32)seed, key1 = (u32)(seed >> 32);
    #pragma unroll
    for (int round = 0; round < 10; round++)
    {
        const u64 p = (u64)0xD2511F53u * a, q = (u64)0xCD9E8D57u * c;
        a = (u32)(q >> 32) ^ b ^ key0;
        b = (u32)q;
        c = (u32)(p >> 32) ^ d ^ key1;
        d = (u32)p;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    word[0] = a;
    word[1] = b;
    word[2] = c;
    word[3] = d;
}

// offset + scale·x with two roundings, as the CPU has it.
__device__ inline f32 placed(const RandomArgs& args, f32 x) { return __fadd_rn(args.offset, __fmul_rn(args.scale, x)); }

__device__ inline void write(const RandomArgs& args, i64 i, const f32 (&x)[kV])
{
    if (args.isWide && i + kV <= args.n)
    {
        store<kV>(args.y + i, x);
        return;
    }
    #pragma unroll
    for (int v = 0; v < kV; v++)
        if (i + v < args.n) args.y[i + v] = x[v];
}

__global__ void __launch_bounds__(kThreads) random_uniform(const RandomArgs args)
{
    const i64 threads = (i64)gridDim.x * kThreads;
    for (i64 i = ((i64)blockIdx.x * kThreads + threadIdx.x) * kV; i < args.n; i += threads * kV)
    {
        u32 word[4];
        philox(word, (u64)i / 4, args.seed, args.stream);
        f32 x[kV];
        #pragma unroll
        for (int v = 0; v < kV; v++) x[v] = placed(args, (f32)(word[v] >> 8) * 0x1p-24f);
        write(args, i, x);
    }
}

__global__ void __launch_bounds__(kThreads) random_normal(const RandomArgs args)
{
    const i64 threads = (i64)gridDim.x * kThreads;
    for (i64 i = ((i64)blockIdx.x * kThreads + threadIdx.x) * kV; i < args.n; i += threads * kV)
    {
        f32 x[kV];
        #pragma unroll
        for (int pair = 0; pair < 2; pair++)
        {
            u32 word[4];
            philox(word, (u64)i / 2 + pair, args.seed, args.stream);
            const u64 radiusBits = (u64)word[0] << 32 | word[1], angleBits = (u64)word[2] << 32 | word[3];
            const f64 radius = sqrt(-2.0 * log((f64)((radiusBits >> 11) + 1) * 0x1p-53));
            f64 sine, cosine;
            sincospi(2.0 * ((f64)(angleBits >> 11) * 0x1p-53), &sine, &cosine);
            x[2 * pair] = placed(args, (f32)(radius * cosine));
            x[2 * pair + 1] = placed(args, (f32)(radius * sine));
        }
        write(args, i, x);
    }
}
