// Mma.cuh: tensor-core products of a warp and the matrix loads that feed them (sm_80 and newer).
//
// Fragments of m16n8k16, lane = 4·g + t: A (16 × 16) holds rows g and g + 8, columns 2t, 2t + 1, and the same plus 8; B (16 × 8) holds rows 2t, 2t + 1
// and plus 8 of column g; C (16 × 8, float) holds rows g and g + 8 of columns 2t, 2t + 1. PTX ISA, "Matrix Fragments for mma.m16n8k16".
#pragma once
#include "common/Async.cuh"

// Four 8 × 8 matrices of 16-bit elements; lanes 8i to 8i + 7 give the addresses of the rows of matrix i.
__device__ inline void load_matrices(u32 (&to)[4], u32 row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row) : "memory");
}

// As load_matrices, each matrix transposed.
__device__ inline void load_matrices_transposed(u32 (&to)[4], u32 row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row) : "memory");
}

// As above, at a constant distance from an address: one instruction.
template <int Offset, bool isTransposed>
__device__ inline void load_matrices_at(u32 (&to)[4], u32 row)
{
    if constexpr (isTransposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4+%5];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row), "n"(Offset) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4+%5];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row), "n"(Offset) : "memory");
}

template <typename T>
__device__ inline void mma_16x8x16(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);

// c = a·b, where mma_16x8x16 adds to c.
template <typename T>
__device__ inline void mma_16x8x16_first(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);

template <>
__device__ inline void mma_16x8x16<bf16>(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void mma_16x8x16<f16>(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void mma_16x8x16_first<bf16>(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
        : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

template <>
__device__ inline void mma_16x8x16_first<f16>(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
        : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

template <bool isFirst, typename T>
__device__ inline void mma_16x8x16_at(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1)
{
    if constexpr (isFirst) mma_16x8x16_first<T>(c, a, b0, b1);
    else mma_16x8x16<T>(c, a, b0, b1);
}

// The nearest TF32: 10 bits of mantissa.
__device__ inline u32 to_tf32(f32 x)
{
    u32 y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

// A (16 × 8) holds rows g and g + 8 of column t, then of column t + 4; B (8 × 8) holds rows t and t + 4 of column g; C as above.
__device__ inline void mma_16x8x8_tf32(f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Where the 16-byte chunk of a row of a tile stands in shared memory, in chunks: rows of Chunks chunks, exchanged so that the eight rows which a
// matrix load or eight neighbouring lanes touch lie in different banks.
template <int Chunks>
__device__ inline int swizzled(int row, int chunk)
{
    static_assert(Chunks == 4 || Chunks % 8 == 0, "rows of 64 bytes, or of a multiple of 128");
    return row * Chunks + (Chunks == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7));
}
