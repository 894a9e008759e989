// C[M,N] = A[M,K] · B[K,N], bf16 in, f32 out: 64 x 64 tiles, cp.async in two stages, ldmatrix, mma.sync. M, N multiples of 64, K of 32.
typedef unsigned int u32; typedef unsigned short u16;
__device__ inline u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ inline void copy16(u32 to, const void* from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from)); }
__device__ inline void commit() { asm volatile("cp.async.commit_group;"); }
template <int N> __device__ inline void wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N)); }
__device__ inline void load4(u32* r, u32 a) { asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a)); }
__device__ inline void load4t(u32* r, u32 a) { asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a)); }
__device__ inline void multiply(float* c, const u32* a, const u32* b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// 16-byte chunks are permuted so that eight rows of a matrix fall into different banks.
__device__ inline int swizzle_a(int row, int chunk) { return row * 32 + ((chunk ^ (row >> 1)) & 3) * 8; }
__device__ inline int swizzle_b(int row, int chunk) { return row * 64 + ((chunk ^ row) & 7) * 8; }

extern "C" __global__ void __launch_bounds__(128) gemm_bf16(const u16* __restrict__ A, const u16* __restrict__ B, float* __restrict__ C, int M, int N, int K)
{
    __shared__ __align__(128) u16 sA[2][64 * 32], sB[2][32 * 64];
    const int t = threadIdx.x, warp = t >> 5, lane = t & 31;
    const int row0 = blockIdx.y * 64, column0 = blockIdx.x * 64, wm = (warp >> 1) * 32, wn = (warp & 1) * 32;
    float c[2][4][4] = {};
    auto stage = [&](int s, int k0)
    {
        for (int i = 0; i < 2; i++) { int q = t + i * 128, r = q >> 2, ch = q & 3; copy16(shared_address(&sA[s][swizzle_a(r, ch)]), A + (long long)(row0 + r) * K + k0 + ch * 8); }
        for (int i = 0; i < 2; i++) { int q = t + i * 128, r = q >> 3, ch = q & 7; copy16(shared_address(&sB[s][swizzle_b(r, ch)]), B + (long long)(k0 + r) * N + column0 + ch * 8); }
        commit();
    };
    stage(0, 0);
    for (int k0 = 0, s = 0; k0 < K; k0 += 32, s ^= 1)
    {
        if (k0 + 32 < K) { stage(s ^ 1, k0 + 32); wait<1>(); } else wait<0>();
        __syncthreads();                                          // the tile that everyone's copies filled
        #pragma unroll
        for (int kk = 0; kk < 2; kk++)
        {
            u32 a[2][4], b[2][4];
            for (int i = 0; i < 2; i++) load4(a[i], shared_address(&sA[s][swizzle_a(wm + i * 16 + (lane & 15), kk * 2 + (lane >> 4))]));
            for (int j = 0; j < 2; j++) load4t(b[j], shared_address(&sB[s][swizzle_b(kk * 16 + (lane & 15), wn / 8 + j * 2 + (lane >> 4))]));
            for (int i = 0; i < 2; i++) for (int j = 0; j < 4; j++) multiply(c[i][j], a[i], &b[j >> 1][(j & 1) * 2]);
        }
        __syncthreads();                                          // before the next copies overwrite this stage
    }
    for (int i = 0; i < 2; i++) for (int j = 0; j < 4; j++)
    {
        int r = row0 + wm + i * 16 + (lane >> 2), q = column0 + wn + j * 8 + (lane & 3) * 2;
        float2* p = (float2*)(C + (long long)r * N + q);
        *p = make_float2(c[i][j][0], c[i][j][1]);
        p = (float2*)(C + (long long)(r + 8) * N + q);
        *p = make_float2(c[i][j][2], c[i][j][3]);
    }
}
