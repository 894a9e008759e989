// Many styles in one file: atomics, local arrays, 64-bit index maths, the math library, conversions, bit operations, calls through pointers
// to several memories, named barriers, switch statements, structures, half arithmetic in inline PTX. Each kernel writes out[i].
typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned short u16;
__constant__ float table[4] = {0.5f, 1.5f, 2.5f, 3.5f};
__device__ int counter = 5;
#define ID int i = blockIdx.x * blockDim.x + threadIdx.x
extern "C" __global__ void math(const float* x, float* out, int n)
{
    ID; float v = x[i];
    out[i] = sinf(v) + cosf(v * 100.0f) + expf(v) + logf(fabsf(v) + 1) + powf(fabsf(v) + 0.1f, 1.3f) + tanhf(v) + erff(v) + atan2f(v, 2) + sqrtf(fabsf(v))
        + rsqrtf(fabsf(v) + 1) + fmodf(v, 0.3f) + floorf(v) + ceilf(v) + rintf(v) + truncf(v) + log1pf(fabsf(v)) + expm1f(v) + cbrtf(v) + __expf(v) + __fdividef(v, 3) + exp2f(v) + log2f(fabsf(v) + 1) + hypotf(v, 1);
}
extern "C" __global__ void doubles(const float* x, float* out, int n)
{
    ID; double v = x[i];
    out[i] = (float)(sqrt(fabs(v)) + exp(v) + log(fabs(v) + 1) + sin(v) + v / 3 + fma(v, v, 1.0) + floor(v) + pow(fabs(v) + 1, 0.5));
}
extern "C" __global__ void integers(const float* x, float* out, int n)
{
    ID; int a = (int)(x[i] * 1e6f); u32 b = (u32)a; u64 c = ((u64)b << 17) * 0x9E3779B97F4A7C15ull; long long d = (long long)a * a;
    int r = a / 7 + a % 11 + (int)(b / 13) + (int)(c / 1000003) + (int)(c % 77) + (int)(d / (a | 1)) + __popc(b) + __clz(b) + __ffs(a) + __brev(b) + __byte_perm(b, a, 0x3614)
        + __funnelshift_l(b, a, 9) + min(a, 4) + max(b, 9u) + abs(a) + __popcll(c) + __clzll((long long)c) + __mulhi(a, a) + (int)__umulhi(b, b) + (int)__umul64hi(c, c) + __sad(a, 5, b) + __dp4a(a, a, 3);
    switch (a & 7) { case 0: r += 3; break; case 1: r ^= 5; break; case 2: r *= 7; break; case 3: r -= 11; break; case 5: r <<= 2; break; default: r = ~r; }
    out[i] = (float)(r & 0xFFFF);
}
extern "C" __global__ void local_arrays(const float* x, float* out, int n)
{
    ID; float v[16]; for (int k = 0; k < 16; k++) v[k] = x[(i + k) % n];
    for (int k = 0; k < 15; k++) for (int j = 0; j < 15 - k; j++) if (v[j] > v[j + 1]) { float t = v[j]; v[j] = v[j + 1]; v[j + 1] = t; }
    out[i] = v[(int)(fabsf(x[i]) * 15) & 15] + table[i & 3];
}
__noinline__ __device__ float pick(const float* p, int k, float4 extra) { return p[k] + extra.y; }
extern "C" __global__ void calls(const float* x, float* out, int n)
{
    __shared__ float s[32]; ID; float l[8]; s[threadIdx.x & 31] = 1.0f; __syncthreads();
    for (int k = 0; k < 8; k++) l[k] = x[(i + k) % n];
    const float* p = i % 3 == 0 ? s : i % 3 == 1 ? l : x;
    out[i] = pick(p, i & 7, make_float4(1, 2, 3, 4));
}
extern "C" __global__ void atomics(const float* x, float* out, int n)
{
    __shared__ int s[4]; __shared__ float f; __shared__ u64 w; ID; if (threadIdx.x < 4) s[threadIdx.x] = 0; if (threadIdx.x == 0) { f = 0; w = 0; } __syncthreads();
    atomicAdd(&s[0], 1); atomicMax(&s[1], i & 15); atomicOr(&s[2], 1 << (i & 31)); atomicAdd(&f, 0.5f); atomicAdd(&w, 3ull); atomicCAS(&s[3], 0, 7); atomicExch(&s[3], 9); atomicInc((u32*)&s[3], 100);
    u32 m = __match_any_sync(0xffffffff, i & 3); int any = __any_sync(0xffffffff, i == 5), total = __syncthreads_count(i & 1), all = __syncthreads_and(i >= 0), some = __syncthreads_or(i == 3);
    __syncthreads();
    out[i] = s[0] + s[1] + __popc(s[2]) + f + (float)w + __popc(m) + any * 0 + total + all + some * 0 + __reduce_max_sync(0xffffffff, (u32)(i & 31)) + counter;
}
extern "C" __global__ void halves(const float* x, float* out, int n)
{
    ID; u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x[i])); u32 p = h | (u32)h << 16, q; asm("fma.rn.f16x2 %0, %1, %1, %1;" : "=r"(q) : "r"(p));
    asm("{ .reg .pred p; setp.lt.u32 p, %0, 5; @p add.u32 %0, %0, 1; LOOP: bra DONE; DONE: }" : "+r"(q)); asm("{ .reg .pred p; setp.lt.u32 p, %0, 6; @!p add.u32 %0, %0, 0; LOOP: bra DONE; DONE: }" : "+r"(q));
    float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"((u16)q)); out[i] = y;
}
template <typename T> struct View { T* data; long long stride; int rows; __device__ T& at(int r, int c) const { return data[r * stride + c]; } };
extern "C" __global__ void structures(const float* x, float* out, View<const float> view, int n) { ID; out[i] = view.at(i % view.rows, i / view.rows) + __ldcs(x + i) + __ldg(x + (i + 1) % n); }
