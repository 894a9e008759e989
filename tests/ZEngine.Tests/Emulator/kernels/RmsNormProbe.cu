// Row norms in three element widths: the memory-bound probes of the throughput bench.
typedef unsigned int u32; typedef unsigned short u16;
__device__ inline float widen(u16 h) { return __uint_as_float((u32)h << 16); }
__device__ inline u16 narrow(float f) { u16 r; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(f)); return r; }
__device__ inline float block_sum(float s)
{
    __shared__ float partial[32];
    for (int o = 16; o > 0; o >>= 1) s += __shfl_xor_sync(0xffffffff, s, o);
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = s;
    __syncthreads();
    s = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
    if (threadIdx.x < 32)
    {
        for (int o = 16; o > 0; o >>= 1) s += __shfl_xor_sync(0xffffffff, s, o);
        if (threadIdx.x == 0) partial[0] = s;
    }
    __syncthreads();
    return partial[0];
}
extern "C" __global__ void __launch_bounds__(256) rmsnorm_f32(const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y, int n)
{
    const float* row = x + (long long)blockIdx.x * n;
    float s = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) { float v = row[i]; s += v * v; }
    float r = rsqrtf(block_sum(s) / n + 1e-5f);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[(long long)blockIdx.x * n + i] = row[i] * r * w[i];
}
extern "C" __global__ void __launch_bounds__(256) rmsnorm_bf16(const u16* __restrict__ x, const u16* __restrict__ w, u16* __restrict__ y, int n)
{
    const u16* row = x + (long long)blockIdx.x * n;
    float s = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) { float v = widen(row[i]); s += v * v; }
    float r = rsqrtf(block_sum(s) / n + 1e-5f);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[(long long)blockIdx.x * n + i] = narrow(widen(row[i]) * r * widen(w[i]));
}
extern "C" __global__ void alu(u32* out, float* outf, int rounds)
{
    u32 h = blockIdx.x * blockDim.x + threadIdx.x; float f = h * 0.001f, g = 1.0f;
    for (int i = 0; i < rounds; i++) { h ^= h << 13; h ^= h >> 17; h ^= h << 5; h = h * 2654435761u + i; f = fmaf(f, 0.999f, g); g = fmaf(g, 0.5f, f * 0.25f); h += (u32)i; }
    out[blockIdx.x * blockDim.x + threadIdx.x] = h; outf[blockIdx.x * blockDim.x + threadIdx.x] = f + g;
}
