// Causal attention forward, D = 64, bf16, online softmax: one block of 4 warps per 64 queries, K and V tiles of 64 rows through cp.async.
typedef unsigned int u32; typedef unsigned short u16;
__device__ inline u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ inline void copy16(u32 to, const void* from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from)); }
__device__ inline void load4(u32* r, u32 a) { asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a)); }
__device__ inline void load4t(u32* r, u32 a) { asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a)); }
__device__ inline void multiply(float* c, const u32* a, const u32* b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline u32 pack(float low, float high) { u32 r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r; }
__device__ inline int swizzle(int row, int chunk) { return row * 64 + ((chunk ^ row) & 7) * 8; }

extern "C" __global__ void __launch_bounds__(128) attention_forward(const u16* __restrict__ Q, const u16* __restrict__ K, const u16* __restrict__ V, u16* __restrict__ O, int L, float scale)
{
    __shared__ __align__(128) u16 sQ[64 * 64], sK[2][64 * 64], sV[2][64 * 64];
    const int t = threadIdx.x, warp = t >> 5, lane = t & 31, q0 = blockIdx.x * 64;
    const long long head = (long long)blockIdx.y * L * 64;
    auto tile = [&](u16* to, const u16* from) { for (int i = 0; i < 4; i++) { int q = t + i * 128, r = q >> 3, ch = q & 7; copy16(shared_address(&to[swizzle(r, ch)]), from + r * 64 + ch * 8); } };
    tile(sQ, Q + head + (long long)q0 * 64);
    tile(sK[0], K + head); tile(sV[0], V + head);
    asm volatile("cp.async.commit_group;");
    float o[8][4] = {}, m[2] = {-1e30f, -1e30f}, l[2] = {0, 0};
    u32 q[4][4];
    const int tiles = blockIdx.x + 1;
    for (int j = 0; j < tiles; j++)
    {
        const int s = j & 1;
        if (j + 1 < tiles)
        {
            tile(sK[s ^ 1], K + head + (long long)(j + 1) * 4096); tile(sV[s ^ 1], V + head + (long long)(j + 1) * 4096);
            asm volatile("cp.async.commit_group;"); asm volatile("cp.async.wait_group 1;");
        }
        else asm volatile("cp.async.wait_group 0;");
        __syncthreads();
        if (j == 0) for (int k = 0; k < 4; k++) load4(q[k], shared_address(&sQ[swizzle(warp * 16 + (lane & 15), k * 2 + (lane >> 4))]));
        float p[8][4] = {};
        #pragma unroll
        for (int k = 0; k < 4; k++)
            #pragma unroll
            for (int n = 0; n < 4; n++)
            {
                u32 b[4];
                load4(b, shared_address(&sK[s][swizzle(n * 16 + (lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1))]));
                multiply(p[2 * n], q[k], b); multiply(p[2 * n + 1], q[k], b + 2);
            }
        #pragma unroll
        for (int h = 0; h < 2; h++)
        {
            const int row = q0 + warp * 16 + (lane >> 2) + h * 8;
            float top = m[h];
            for (int n = 0; n < 8; n++) for (int e = 0; e < 2; e++)
            {
                float& x = p[n][h * 2 + e];
                x = j * 64 + n * 8 + (lane & 3) * 2 + e <= row ? x * scale : -1e30f;
                top = fmaxf(top, x);
            }
            top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1)); top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
            const float keep = exp2f((m[h] - top) * 1.4426950408889634f);
            m[h] = top;
            float sum = 0;
            for (int n = 0; n < 8; n++) for (int e = 0; e < 2; e++) { float& x = p[n][h * 2 + e]; x = exp2f((x - top) * 1.4426950408889634f); sum += x; }
            sum += __shfl_xor_sync(0xffffffff, sum, 1); sum += __shfl_xor_sync(0xffffffff, sum, 2);
            l[h] = l[h] * keep + sum;
            for (int n = 0; n < 8; n++) { o[n][h * 2] *= keep; o[n][h * 2 + 1] *= keep; }
        }
        #pragma unroll
        for (int k = 0; k < 4; k++)
        {
            u32 a[4] = { pack(p[2 * k][0], p[2 * k][1]), pack(p[2 * k][2], p[2 * k][3]), pack(p[2 * k + 1][0], p[2 * k + 1][1]), pack(p[2 * k + 1][2], p[2 * k + 1][3]) };
            #pragma unroll
            for (int n = 0; n < 4; n++)
            {
                u32 b[4];
                load4t(b, shared_address(&sV[s][swizzle(k * 16 + (lane & 15), n * 2 + (lane >> 4))]));
                multiply(o[2 * n], a, b); multiply(o[2 * n + 1], a, b + 2);
            }
        }
        __syncthreads();
    }
    for (int n = 0; n < 8; n++) for (int h = 0; h < 2; h++)
        *(u32*)(O + head + (long long)(q0 + warp * 16 + (lane >> 2) + h * 8) * 64 + n * 8 + (lane & 3) * 2) = pack(o[n][h * 2] / l[h], o[n][h * 2 + 1] / l[h]);
}
