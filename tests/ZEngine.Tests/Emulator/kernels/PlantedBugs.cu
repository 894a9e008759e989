// Kernels with one planted bug each, and their correct twins: a line that ends in "//bug" is only in the faulty variant, one that ends in
// "//ok" only in the correct one, and "//here" marks the line the report must name. Above each kernel stands
// "case NAME KIND grid block dynamicSharedBytes n"; every kernel receives in[n] = 0..n-1 and out[n], never written.
typedef unsigned int u32; typedef unsigned short u16; typedef unsigned char u8;
#define KERNEL extern "C" __global__ void
#define SYNC __syncthreads()
__device__ inline u32 at(const void* p) { return (u32)__cvta_generic_to_shared(p); }
#define COPY16(to, from) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(at(to)), "l"(from) : "memory")
#define COPY4(to, from) asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at(to)), "l"(from) : "memory")
#define COMMIT asm volatile("cp.async.commit_group;" ::: "memory")
#define WAIT(n) asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory")

// ---- Shared memory without the order it needs ----
//case missing_barrier_read SharedRace 1 64 0 64
KERNEL missing_barrier_read(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x;
    s[t] = in[t];
    SYNC; //ok
    out[t] = s[63 - t]; //here
}
//case missing_barrier_write SharedRace 1 64 0 64
KERNEL missing_barrier_write(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x;
    s[t] = in[t]; SYNC;
    int v = s[63 - t];
    SYNC; //ok
    s[t] = v + 100; //here
    SYNC; out[t] = s[t];
}
//case loop_reuses_tile SharedRace 1 64 0 128
KERNEL loop_reuses_tile(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x, sum = 0;
    #pragma unroll 1
    for (int k = 0; k < n; k += 64)
    {
        s[t] = in[k + t]; //here
        SYNC;
        sum += s[63 - t];
        SYNC; //ok
    }
    out[t] = sum;
}
//case two_warps_write_one_cell SharedRace 1 64 0 64
KERNEL two_warps_write_one_cell(int* in, int* out, int n)
{
    __shared__ int s[2]; int t = threadIdx.x;
    if ((t & 31) == 0) s[0] = t; //bug //here
    if ((t & 31) == 0) s[t >> 5] = t; //ok
    SYNC; out[t] = s[0];
}
//case tree_without_barrier SharedRace 1 128 0 128
KERNEL tree_without_barrier(int* in, int* out, int n)
{
    __shared__ int s[128]; int t = threadIdx.x; s[t] = in[t]; SYNC;
    #pragma unroll 1
    for (int o = 64; o > 0; o >>= 1)
    {
        if (t < o) s[t] += s[t + o]; //here
        SYNC; //ok
    }
    SYNC; out[t] = s[0];
}
//case missing_syncwarp SharedRace 1 32 0 32
KERNEL missing_syncwarp(int* in, int* out, int n)
{
    __shared__ int s[32]; int t = threadIdx.x; s[t] = in[t];
    __syncwarp(); //ok
    out[t] = s[t ^ 1]; //here
}
//case volatile_warp_reduction SharedRace 1 32 0 32
KERNEL volatile_warp_reduction(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x; volatile int* v = s; v[t] = in[t]; v[t + 32] = 0; __syncwarp();
    #pragma unroll 1
    for (int o = 16; o > 0; o >>= 1)
    {
        int x = v[t + o]; //here
        __syncwarp(); //ok
        v[t] += x;
        __syncwarp(); //ok
    }
    out[t] = v[0]; //bug
    __syncwarp(); out[t] = v[0]; //ok
}
//case syncwarp_of_half SharedRace 1 32 0 32
KERNEL syncwarp_of_half(int* in, int* out, int n)
{
    __shared__ int s[32]; int t = threadIdx.x; s[t] = in[t];
    if (t < 16) __syncwarp(0xffff); else __syncwarp(0xffff0000); //bug
    __syncwarp(); //ok
    out[t] = s[31 - t]; //here
}
//case broadcast_without_barrier SharedRace 1 64 0 64
KERNEL broadcast_without_barrier(int* in, int* out, int n)
{
    __shared__ int base; int t = threadIdx.x;
    if (t == 0) base = in[7];
    SYNC; //ok
    out[t] = base + t; //here
}
//case partial_sums_reused SharedRace 1 64 0 64
KERNEL partial_sums_reused(int* in, int* out, int n)
{
    __shared__ int p[2]; int t = threadIdx.x, total = 0;
    #pragma unroll 1
    for (int k = 0; k < 2; k++)
    {
        int v = __reduce_add_sync(0xffffffff, in[t] + k);
        if ((t & 31) == 0) p[t >> 5] = v; //here
        SYNC;
        total += p[0] + p[1];
        SYNC; //ok
    }
    out[t] = total;
}
//case transpose_without_barrier SharedRace 1 256 0 256
KERNEL transpose_without_barrier(int* in, int* out, int n)
{
    __shared__ int s[16][17]; int x = threadIdx.x & 15, y = threadIdx.x >> 4;
    s[y][x] = in[y * 16 + x];
    SYNC; //ok
    out[y * 16 + x] = s[x][y]; //here
}
//case scan_in_place SharedRace 1 64 0 64
KERNEL scan_in_place(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x; s[t] = in[t]; SYNC;
    #pragma unroll 1
    for (int o = 1; o < 64; o <<= 1)
    {
        int v = t >= o ? s[t - o] : 0;
        SYNC; //ok
        s[t] += v; //here
        SYNC;
    }
    out[t] = s[t];
}
//case histogram_not_cleared_first SharedRace 1 64 0 64
KERNEL histogram_not_cleared_first(int* in, int* out, int n)
{
    __shared__ int h[64]; int t = threadIdx.x; h[t] = 0;
    SYNC; //ok
    atomicAdd(&h[63 - in[t]], 1); //here
    SYNC; out[t] = h[t];
}
//case histogram_read_too_early SharedRace 1 64 0 64
KERNEL histogram_read_too_early(int* in, int* out, int n)
{
    __shared__ int h[64]; int t = threadIdx.x; h[t] = 0; SYNC;
    atomicAdd(&h[(in[t] + 33) & 63], 1);
    SYNC; //ok
    out[t] = h[t]; //here
}
//case neighbouring_bytes SharedRace 1 64 0 64
KERNEL neighbouring_bytes(int* in, int* out, int n)
{
    __shared__ u8 s[64]; int t = threadIdx.x;
    s[t & 31] = (u8)t; //bug //here
    s[t] = (u8)t; //ok
    SYNC; out[t] = s[t & 31];
}
//case halves_in_place SharedRace 1 64 0 64
KERNEL halves_in_place(int* in, int* out, int n)
{
    __shared__ u16 s[64]; int t = threadIdx.x; s[t] = (u16)in[t]; SYNC;
    s[t] = (u16)(s[(t + 1) & 63] + 1); //bug //here
    s[t] = (u16)(s[t] + 1); //ok
    SYNC; out[t] = s[t];
}
//case wrong_stage SharedRace 1 64 0 256
KERNEL wrong_stage(int* in, int* out, int n)
{
    __shared__ int s[2][64]; int t = threadIdx.x, sum = 0; s[0][t] = in[t]; SYNC;
    #pragma unroll 1
    for (int k = 1; k < 4; k++)
    {
        s[(k + 1) & 1][t] = in[k * 64 + t]; //bug //here
        s[k & 1][t] = in[k * 64 + t]; //ok
        sum += s[(k + 1) & 1][63 - t];
        SYNC;
    }
    out[t] = sum;
}
//case flag_without_fence SharedRace 1 64 0 64
KERNEL flag_without_fence(int* in, int* out, int n)
{
    __shared__ int data; __shared__ volatile int flag; int t = threadIdx.x;
    if (t == 0) flag = 0;
    SYNC;
    if (t == 0)
    {
        data = in[5];
        __threadfence_block(); //ok
        flag = 1;
    }
    if (t == 32) { while (flag == 0) { } __threadfence_block(); out[0] = data; } //here
}
//case named_barrier_subset SharedRace 1 96 0 96
KERNEL named_barrier_subset(int* in, int* out, int n)
{
    __shared__ int s[96]; int t = threadIdx.x; s[t] = in[t];
    if (t < 64) asm volatile("bar.sync 1, 64;" ::: "memory"); //bug
    asm volatile("bar.sync 1, 96;" ::: "memory"); //ok
    out[t] = s[(t + 32) % 96]; //here
}
//case consumer_only_arrives SharedRace 1 64 0 64
KERNEL consumer_only_arrives(int* in, int* out, int n)
{
    __shared__ int s[32]; int t = threadIdx.x;
    if (t < 32) { s[t] = in[t]; asm volatile("bar.arrive 1, 64;" ::: "memory"); } //ok
    if (t < 32) { s[t] = in[t]; asm volatile("bar.sync 1, 64;" ::: "memory"); } //bug
    else
    {
        asm volatile("bar.sync 1, 64;" ::: "memory"); //ok
        asm volatile("bar.arrive 1, 64;" ::: "memory"); //bug
        out[t] = s[63 - t]; //here
    }
}
//case ring_slot_not_free BarrierCount 1 64 0 256
KERNEL ring_slot_not_free(int* in, int* out, int n)
{
    __shared__ int s[32]; int t = threadIdx.x, sum = 0;
    #pragma unroll 1
    for (int k = 0; k < 4; k++)
    {
        if (t < 32)
        {
            if (k > 0) asm volatile("bar.sync 2, 64;" ::: "memory"); //ok
            s[t] = in[k * 32 + t];
            asm volatile("bar.arrive 1, 64;" ::: "memory"); //here
        }
        else
        {
            asm volatile("bar.sync 1, 64;" ::: "memory");
            sum += s[63 - t];
            if (k < 3) asm volatile("bar.arrive 2, 64;" ::: "memory"); //ok
        }
    }
    out[t] = sum;
}

// ---- Barriers that not everyone reaches ----
//case barrier_in_branch DivergentBarrier 1 64 0 64
KERNEL barrier_in_branch(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x; s[t] = in[t];
    if (t < 16) { asm volatile("bar.sync 0;" ::: "memory"); out[t] = s[63 - t]; } //bug //here
    SYNC; if (t < 16) out[t] = s[63 - t]; //ok
}
//case barrier_for_one_warp DivergentBarrier 1 64 0 64
KERNEL barrier_for_one_warp(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (t < 32) //bug
    SYNC; //here
    out[t] = in[t];
}
//case lanes_return_before_barrier DivergentBarrier 1 64 0 60
KERNEL lanes_return_before_barrier(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x;
    if (t >= n) return; //bug
    s[t] = t < n ? in[t] : 0;
    SYNC; //here
    if (t < n) out[t] = s[n - 1 - t];
}
//case warp_returns_before_barrier DivergentBarrier 1 96 0 64
KERNEL warp_returns_before_barrier(int* in, int* out, int n)
{
    __shared__ int s[96]; int t = threadIdx.x;
    if (t >= n) return; //bug
    s[t] = t < n ? in[t] : 0;
    SYNC; //here
    if (t < n) out[t] = s[n - 1 - t];
}
//case barrier_expects_too_many BarrierCount 1 64 0 64
KERNEL barrier_expects_too_many(int* in, int* out, int n)
{
    asm volatile("bar.sync 1, 96;"); //bug //here
    asm volatile("bar.sync 1, 64;"); //ok
    out[threadIdx.x] = in[threadIdx.x];
}
//case barrier_count_of_threads BarrierCount 1 64 0 64
KERNEL barrier_count_of_threads(int* in, int* out, int n)
{
    asm volatile("bar.sync 1, %0;" :: "r"(n - 4)); //bug //here
    asm volatile("bar.sync 1, %0;" :: "r"(n)); //ok
    out[threadIdx.x] = in[threadIdx.x];
}
//case barrier_counts_differ BarrierCount 1 128 0 128
KERNEL barrier_counts_differ(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (t < 64) asm volatile("bar.sync 1, 128;"); else
    asm volatile("bar.sync 1, 96;"); //bug //here
    asm volatile("bar.sync 1, 128;"); //ok
    out[t] = in[t];
}
//case two_barriers_two_branches DivergentBarrier 1 32 0 32
KERNEL two_barriers_two_branches(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (in[t] & 1) { asm volatile("bar.sync 0;" ::: "memory"); out[t] = 1; } else { asm volatile("bar.sync 0;" ::: "memory"); out[t] = 2; } //bug //here
    SYNC; out[t] = in[t] & 1 ? 1 : 2; //ok
}
//case arrive_nobody_awaits BarrierCount 1 64 0 64
KERNEL arrive_nobody_awaits(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (t < 32) asm volatile("bar.arrive 1, 64;"); //here
    else asm volatile("bar.sync 1, 64;"); //ok
    out[t] = in[t];
}
//case wrong_barrier_number DivergentBarrier 1 64 0 64
KERNEL wrong_barrier_number(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (t < 32) asm volatile("bar.sync 1, 64;"); //here
    else asm volatile("bar.sync 2, 64;"); //bug
    else asm volatile("bar.sync 1, 64;"); //ok
    out[t] = in[t];
}

// ---- Bounds ----
//case store_past_end OutOfBounds 1 64 0 64
KERNEL store_past_end(int* in, int* out, int n)
{
    int t = threadIdx.x;
    out[t + 1] = in[t]; //bug //here
    out[t] = in[t]; //ok
}
//case load_past_end OutOfBounds 1 64 0 64
KERNEL load_past_end(int* in, int* out, int n)
{
    int t = threadIdx.x;
    out[t] = in[t + 1]; //bug //here
    out[t] = in[(t + 1) % n]; //ok
}
//case negative_index OutOfBounds 1 64 0 64
KERNEL negative_index(int* in, int* out, int n)
{
    int t = threadIdx.x;
    out[t] = in[t - 1]; //bug //here
    out[t] = in[t > 0 ? t - 1 : 0]; //ok
}
//case tail_not_guarded OutOfBounds 2 64 0 100
KERNEL tail_not_guarded(int* in, int* out, int n)
{
    int i = blockIdx.x * 64 + threadIdx.x;
    if (i < n) //ok
    out[i] = in[i]; //here
}
//case wrong_row_stride OutOfBounds 4 32 0 100
KERNEL wrong_row_stride(int* in, int* out, int n)
{
    int t = threadIdx.x; if (t >= 25) return;
    out[blockIdx.x * 32 + t] = in[blockIdx.x * 25 + t]; //bug //here
    out[blockIdx.x * 25 + t] = in[blockIdx.x * 25 + t]; //ok
}
//case vector_tail OutOfBounds 1 32 0 126
KERNEL vector_tail(int* in, int* out, int n)
{
    int t = threadIdx.x;
    int4 v = *(int4*)(in + 4 * t); out[t] = v.x + v.y + v.z + v.w; //bug //here
    if (4 * t + 3 < n) { int4 v = *(int4*)(in + 4 * t); out[t] = v.x + v.y + v.z + v.w; } //ok
}
//case shared_past_end OutOfBounds 1 64 0 64
KERNEL shared_past_end(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x;
    s[in[t] + 1] = t; //bug //here
    s[in[t]] = t; //ok
    SYNC; out[t] = s[(t + 1) & 63];
}
//case dynamic_shared_too_small OutOfBounds 1 64 256 64
KERNEL dynamic_shared_too_small(int* in, int* out, int n)
{
    extern __shared__ int dynamic[]; int t = threadIdx.x;
    dynamic[2 * in[t]] = t; SYNC; out[t] = dynamic[2 * in[t]]; //bug //here
    dynamic[in[t]] = t; SYNC; out[t] = dynamic[in[t]]; //ok
}
//case local_past_end OutOfBounds 1 32 0 32
KERNEL local_past_end(int* in, int* out, int n)
{
    int l[8], t = threadIdx.x;
    #pragma unroll 1
    for (int k = 0; k < 8; k++) l[(k + in[0]) & 7] = in[k];
    out[t] = l[in[t]]; //bug //here
    out[t] = l[in[t] & 7]; //ok
}
//case null_pointer OutOfBounds 1 32 0 32
KERNEL null_pointer(int* in, int* out, int n)
{
    int* p = n > 5 ? nullptr : in; //bug
    int* p = in; //ok
    out[threadIdx.x] = *(volatile int*)(p + threadIdx.x); //here
}
//case atomic_past_end OutOfBounds 1 32 0 32
KERNEL atomic_past_end(int* in, int* out, int n)
{
    int t = threadIdx.x; out[t] = 0; SYNC;
    atomicAdd(out + in[t] * 2, 1); //bug //here
    atomicAdd(out + in[t] / 2, 1); //ok
}
//case copy_source_past_end OutOfBounds 1 32 0 128
KERNEL copy_source_past_end(int* in, int* out, int n)
{
    __shared__ __align__(16) int s[128]; int t = threadIdx.x;
    COPY16(s + 4 * t, in + 4 * t + 4); //bug //here
    COPY16(s + 4 * t, in + 4 * t); //ok
    COMMIT; WAIT(0); SYNC; out[t] = s[127 - t];
}
//case copy_destination_past_end OutOfBounds 1 32 0 128
KERNEL copy_destination_past_end(int* in, int* out, int n)
{
    __shared__ __align__(16) int s[124]; int t = threadIdx.x;
    COPY16(s + 4 * t, in + 4 * t); //bug //here
    if (t < 31) COPY16(s + 4 * t, in + 4 * t); //ok
    COMMIT; WAIT(0); SYNC; out[t] = s[t];
}
//case index_overflows OutOfBounds 1 32 0 64
KERNEL index_overflows(int* in, int* out, int n)
{
    int big = n * 0x2000000, t = threadIdx.x; // 2^31 as int is negative
    out[t] = in[(long long)big / 0x2000000 + t]; //bug //here
    out[t] = in[(long long)n * 0x2000000 / 0x2000000 - 64 + t]; //ok
}

// ---- Alignment and windows ----
//case vector_at_odd_element Misaligned 1 8 0 64
KERNEL vector_at_odd_element(int* in, int* out, int n)
{
    int t = threadIdx.x;
    int4 v = *(int4*)(in + 4 * t + 1); //bug //here
    int4 v = *(int4*)(in + 4 * t + 4); //ok
    out[t] = v.x + v.w;
}
//case shared_vector_misaligned Misaligned 1 8 0 64
KERNEL shared_vector_misaligned(int* in, int* out, int n)
{
    __shared__ __align__(16) int s[64]; int t = threadIdx.x; for (int k = t; k < 64; k += 8) s[k] = in[k]; SYNC;
    int2 v = *(int2*)(s + in[t] * 2 + 1); //bug //here
    int2 v = *(int2*)(s + in[t] * 2); //ok
    out[t] = v.x + v.y;
}
//case copy_misaligned Misaligned 1 8 0 64
KERNEL copy_misaligned(int* in, int* out, int n)
{
    __shared__ __align__(16) int s[64]; int t = threadIdx.x;
    COPY16(s + 4 * t, in + 4 * t + 2); //bug //here
    COPY16(s + 4 * t, in + 4 * t + 4); //ok
    COMMIT; WAIT(0); SYNC; out[t] = s[t];
}
//case matrix_row_misaligned Misaligned 1 32 0 64
KERNEL matrix_row_misaligned(int* in, int* out, int n)
{
    __shared__ __align__(16) u16 s[8 * 9 + 8 * 8]; int t = threadIdx.x; for (int k = t; k < 136; k += 32) s[k] = (u16)in[k & 63]; SYNC;
    u32 r, a = at(s + (t & 7) * 9); //bug
    u32 r, a = at(s + (t & 7) * 8); //ok
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(a)); //here
    out[t] = r;
}
//case wrong_window WrongWindow 1 32 0 32
KERNEL wrong_window(int* in, int* out, int n)
{
    __shared__ int s[32]; int t = threadIdx.x; s[t] = in[t]; SYNC;
    int* p = s + (t ^ 1), v;
    asm volatile("ld.global.u32 %0, [%1];" : "=r"(v) : "l"(p)); //bug //here
    asm volatile("ld.u32 %0, [%1];" : "=r"(v) : "l"(p)); //ok
    out[t] = v;
}

// ---- Bytes nobody wrote ----
//case reads_its_output Uninitialised 1 32 0 32
KERNEL reads_its_output(int* in, int* out, int n)
{
    int t = threadIdx.x;
    out[t] += in[t]; //bug //here
    out[t] = in[t]; //ok
}
//case shared_never_written Uninitialised 1 32 0 32
KERNEL shared_never_written(int* in, int* out, int n)
{
    __shared__ int s[33]; int t = threadIdx.x; s[t] = in[t];
    if (t == 0) s[32] = 0; //ok
    SYNC; out[t] = s[t + 1]; //here
}
//case padding_not_cleared Uninitialised 1 64 0 50
KERNEL padding_not_cleared(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x;
    if (t < n) s[t] = in[t]; //bug
    s[t] = t < n ? in[t] : 0; //ok
    SYNC;
    if (t < n) out[t] = s[63 - t]; //here
}
//case local_partly_written Uninitialised 1 32 0 32
KERNEL local_partly_written(int* in, int* out, int n)
{
    int l[8], t = threadIdx.x;
    #pragma unroll 1
    for (int k = 0; k < 7; k++) l[in[k]] = k; //bug
    for (int k = 0; k < 8; k++) l[in[k]] = k; //ok
    out[t] = l[in[t] & 7]; //here
}
//case atomic_on_unwritten Uninitialised 1 32 0 32
KERNEL atomic_on_unwritten(int* in, int* out, int n)
{
    int t = threadIdx.x;
    out[t] = 0; SYNC; //ok
    atomicAdd(out + (t >> 1), in[t]); //here
}

// ---- Asynchronous copies ----
//case copy_without_wait AsyncInFlight 1 32 0 128
KERNEL copy_without_wait(int* in, int* out, int n)
{
    __shared__ __align__(16) int s[128]; int t = threadIdx.x;
    COPY16(s + 4 * t, in + 4 * t); COMMIT;
    WAIT(0); //ok
    SYNC;
    out[t] = s[127 - t]; //here
}
//case copy_not_committed AsyncInFlight 1 32 0 128
KERNEL copy_not_committed(int* in, int* out, int n)
{
    __shared__ __align__(16) int s[128]; int t = threadIdx.x;
    COPY16(s + 4 * t, in + 4 * t);
    COMMIT; //ok
    WAIT(0); SYNC;
    out[t] = s[127 - t]; //here
}
//case waits_for_one_group_less AsyncInFlight 1 32 0 128
KERNEL waits_for_one_group_less(int* in, int* out, int n)
{
    __shared__ int s[2][32]; int t = threadIdx.x;
    COPY4(&s[0][t], in + t); COMMIT; COPY4(&s[1][t], in + 32 + t); COMMIT;
    WAIT(1); //bug
    WAIT(0); //ok
    SYNC; out[t] = s[1][31 - t]; //here
}
//case copy_without_barrier SharedRace 1 64 0 64
KERNEL copy_without_barrier(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x; COPY4(s + t, in + t); COMMIT; WAIT(0);
    SYNC; //ok
    out[t] = s[63 - t]; //here
}
//case own_copy_not_awaited AsyncInFlight 1 32 0 32
KERNEL own_copy_not_awaited(int* in, int* out, int n)
{
    __shared__ int s[32]; int t = threadIdx.x; COPY4(s + t, in + t); COMMIT;
    WAIT(0); //ok
    out[t] = *(volatile int*)(s + t); //here
}
//case stage_still_read SharedRace 1 64 0 256
KERNEL stage_still_read(int* in, int* out, int n)
{
    __shared__ int s[64]; int t = threadIdx.x, sum = 0;
    #pragma unroll 1
    for (int k = 0; k < 3; k++)
    {
        COPY4(s + t, in + 64 * k + t); //here
        COMMIT; WAIT(0); SYNC; sum += s[63 - t];
        SYNC; //ok
    }
    out[t] = sum;
}
//case write_into_flying_copy AsyncInFlight 1 32 0 32
KERNEL write_into_flying_copy(int* in, int* out, int n)
{
    __shared__ int s[32]; int t = threadIdx.x; COPY4(s + t, in + t); COMMIT;
    WAIT(0); //ok
    *(volatile int*)(s + t) = 7; //here
    WAIT(0); __syncwarp(); out[t] = s[t];
}

// ---- Warp instructions ----
//case shuffle_from_outside ShuffleSource 1 32 0 32
KERNEL shuffle_from_outside(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (t < 16) out[t] = __shfl_sync(0xffff, in[t], 20); //bug //here
    if (t < 16) out[t] = __shfl_sync(0xffff, in[t], 12); //ok
}
//case lane_not_in_mask MemberMask 1 32 0 32
KERNEL lane_not_in_mask(int* in, int* out, int n)
{
    int t = threadIdx.x;
    out[t] = __shfl_xor_sync(0xffff, in[t], 1); //bug //here
    out[t] = __shfl_xor_sync(0xffffffff, in[t], 1); //ok
}
//case full_mask_in_branch MemberMask 1 32 0 32
KERNEL full_mask_in_branch(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (t < 16) { out[t] = __shfl_down_sync(0xffffffff, in[t], 1); } else { out[t] = __shfl_up_sync(0xffffffff, in[t], 1); } //bug //here
    int d = __shfl_down_sync(0xffffffff, in[t], 1), u = __shfl_up_sync(0xffffffff, in[t], 1); out[t] = t < 16 ? d : u; //ok
}
//case shuffle_of_exited_lane ShuffleSource 1 32 0 32
KERNEL shuffle_of_exited_lane(int* in, int* out, int n)
{
    int t = threadIdx.x, v = in[t];
    if (t >= 24) return; //bug
    v = __shfl_down_sync(0xffffffff, v, 8); //here
    if (t >= 24) return; //ok
    out[t] = v;
}
//case ballot_in_branch MemberMask 1 32 0 32
KERNEL ballot_in_branch(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (in[t] & 1) { out[t] = __ballot_sync(0xffffffff, t > 3); } else { out[t] = __all_sync(0xffffffff, t > 3); } //bug //here
    int b = __ballot_sync(0xffffffff, t > 3), a = __all_sync(0xffffffff, t > 3); out[t] = in[t] & 1 ? b : a; //ok
}
//case matrix_load_in_branch MemberMask 1 32 0 64
KERNEL matrix_load_in_branch(int* in, int* out, int n)
{
    __shared__ __align__(16) u16 s[64]; int t = threadIdx.x; s[t] = (u16)in[t]; s[t + 32] = 0; SYNC;
    u32 r = 0;
    if (t >= 16) return; //bug
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(at(s + (t & 7) * 8))); //here
    out[t] = r;
}
//case reduce_not_in_mask MemberMask 1 32 0 32
KERNEL reduce_not_in_mask(int* in, int* out, int n)
{
    int t = threadIdx.x;
    out[t] = __reduce_add_sync(0x7fffffff, (unsigned)in[t]); //bug //here
    out[t] = __reduce_add_sync(0xffffffff, (unsigned)in[t]); //ok
}

// ---- The rest ----
//case executes_trap Trap 1 32 0 32
KERNEL executes_trap(int* in, int* out, int n)
{
    int t = threadIdx.x;
    if (in[t] == 5) asm volatile("trap;"); //bug //here
    out[t] = in[t];
}
//case waits_for_ever Timeout 1 64 0 64
KERNEL waits_for_ever(int* in, int* out, int n)
{
    __shared__ volatile int flag; int t = threadIdx.x; if (t == 0) flag = 0; SYNC;
    if (t == 0) flag = 1; //ok
    while (flag == 0) { } //here
    out[t] = t;
}
//case read_only_but_written ReadOnlyWritten 1 64 0 64
KERNEL read_only_but_written(int* in, int* out, int n)
{
    int t = threadIdx.x; out[t] = in[t]; SYNC;
    int v = __ldg(out + 63 - t); //bug //here
    int v = out[63 - t]; //ok
    SYNC; out[t] = v;
}

// ---- Global memory within one launch (checked on request) ----
//case blocks_write_one_cell GlobalRace 2 32 0 64
KERNEL blocks_write_one_cell(int* in, int* out, int n)
{
    int t = threadIdx.x;
    out[t] = blockIdx.x; //bug //here
    out[blockIdx.x * 32 + t] = blockIdx.x; //ok
}
//case reads_other_blocks_output GlobalRace 2 32 0 64
KERNEL reads_other_blocks_output(int* in, int* out, int n)
{
    int i = blockIdx.x * 32 + threadIdx.x;
    if (blockIdx.x == 1) out[i] = in[i - 32]; //ok
    if (blockIdx.x == 1) out[i] = in[i - 32] + 1; //bug
    if (blockIdx.x == 0) in[i] = 3; //bug //here
}
//case global_flag_without_fence GlobalRace 2 32 0 64
KERNEL global_flag_without_fence(int* in, int* out, int n)
{
    if (threadIdx.x != 0) return;
    volatile int* flag = in;
    if (blockIdx.x == 0)
    {
        out[1] = 42;
        __threadfence(); //ok
        *flag = 1;
    }
    else { while (*flag == 0) { } __threadfence(); out[2] = out[1]; } //here
}
//case counter_read_plainly GlobalRace 2 32 0 64
KERNEL counter_read_plainly(int* in, int* out, int n)
{
    if (threadIdx.x != 0) return;
    atomicAdd(in + 3, 1);
    if (blockIdx.x == 1) out[0] = in[3]; //bug //here
    if (blockIdx.x == 1) out[0] = atomicAdd(in + 3, 0); //ok
}
//case block_reads_before_barrier GlobalRace 1 64 0 64
KERNEL block_reads_before_barrier(int* in, int* out, int n)
{
    int t = threadIdx.x; out[t] = in[t];
    SYNC; //ok
    int v = out[63 - t]; //here
    SYNC; out[t] = v;
}
