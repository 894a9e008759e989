// Scans and divergence: shared-memory inclusive scan, linear recurrence by warp shuffles, data-dependent loops, decoupled look-back.
extern "C" __global__ void scan_shared(const float* x, float* y)
{
    __shared__ float s[2][256];
    const int t = threadIdx.x; const long long at = (long long)blockIdx.x * 256 + t;
    int p = 0; s[0][t] = x[at]; __syncthreads();
    for (int o = 1; o < 256; o <<= 1) { float v = s[p][t]; if (t >= o) v += s[p][t - o]; s[p ^ 1][t] = v; p ^= 1; __syncthreads(); }
    y[at] = s[p][t];
}
extern "C" __global__ void scan_linear(const float* a, const float* b, float* h)
{
    const int lane = threadIdx.x & 31; const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    float A = a[at], B = b[at];
    for (int o = 1; o < 32; o <<= 1)
    {
        float A0 = __shfl_up_sync(0xffffffff, A, o), B0 = __shfl_up_sync(0xffffffff, B, o);
        if (lane >= o) { B = A * B0 + B; A = A * A0; }
    }
    h[at] = B;
}
extern "C" __global__ void collatz(const unsigned* n, unsigned* steps)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, x = n[i], k = 0;
    while (x != 1) { x = x & 1 ? 3 * x + 1 : x >> 1; k++; }
    steps[i] = k;
}
// Each block adds its sum to its predecessor's, which it waits for. A ticket gives blocks their number in the order in which they start.
extern "C" __global__ void look_back(const int* x, int* y, volatile int* flags, int* sums, unsigned* ticket)
{
    __shared__ int s[128], base, number;
    const int t = threadIdx.x;
    if (t == 0) number = (int)atomicAdd(ticket, 1);
    __syncthreads();
    const int b = number;
    s[t] = x[b * 128 + t];
    __syncthreads();
    for (int o = 1; o < 128; o <<= 1) { int v = t >= o ? s[t - o] : 0; __syncthreads(); s[t] += v; __syncthreads(); }
    if (t == 0)
    {
        int before = 0;
        if (b > 0) { while (flags[b - 1] == 0) { } __threadfence(); before = sums[b - 1]; }
        sums[b] = before + s[127];
        __threadfence();
        flags[b] = 1;
        base = before;
    }
    __syncthreads();
    y[b * 128 + t] = base + s[t];
}
