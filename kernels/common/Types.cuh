// Types.cuh: the scalar types of the kernels, and how they become float and back. Freestanding: NVRTC brings no headers.
#pragma once

typedef float f32;
typedef double f64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned long long u64;
typedef signed char i8;
typedef int i32;
typedef long long i64;

constexpr f32 kInfinity = __builtin_bit_cast(f32, 0x7f800000u);

// Ends the kernel with an error, which the host sees when it next waits.
__device__ inline void trap() { asm volatile("trap;"); }

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

// Element types as arguments: the values of DType in src/ZEngine/DType.cs.
enum ElementType { kFloat32, kBFloat16, kFloat16, kInt32, kInt64, kUInt8, kInt8 };

__device__ inline f32 to_f32(f32 x) { return x; }
__device__ inline f32 to_f32(i8 x) { return x; }
__device__ inline f32 to_f32(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ inline f32 to_f32(f16 x)
{
    f32 y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

template <typename T> __device__ inline T from_f32(f32 x);
template <> __device__ inline f32 from_f32<f32>(f32 x) { return x; }
template <> __device__ inline bf16 from_f32<bf16>(f32 x)
{
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ inline f16 from_f32<f16>(f32 x)
{
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Two numbers as 16-bit elements of a word, the first in the lower half.
template <typename T> __device__ inline u32 pair_of(f32 first, f32 second);
template <>
__device__ inline u32 pair_of<bf16>(f32 first, f32 second)
{
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
template <>
__device__ inline u32 pair_of<f16>(f32 first, f32 second)
{
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

// The elements of a word.
template <typename T> __device__ inline f32 low_of(u32 word) { return to_f32(T{(u16)word}); }
template <typename T> __device__ inline f32 high_of(u32 word) { return to_f32(T{(u16)(word >> 16)}); }
template <> __device__ inline f32 low_of<bf16>(u32 word) { return __uint_as_float(word << 16); }
template <> __device__ inline f32 high_of<bf16>(u32 word) { return __uint_as_float(word & 0xffff0000u); }

__device__ inline u32 bits_of(f32 x) { return __float_as_uint(x); }
__device__ inline u32 bits_of(bf16 x) { return x.bits; }
__device__ inline u32 bits_of(f16 x) { return x.bits; }
template <typename T> __device__ inline T of_bits(u32 word) { return T{(u16)word}; }
template <> __device__ inline f32 of_bits<f32>(u32 word) { return __uint_as_float(word); }

// An element of a floating-point type that is an argument.
__device__ inline f32 load_float(const void* from, int type, i64 i)
{
    switch (type)
    {
        case kFloat32: return static_cast<const f32*>(from)[i];
        case kBFloat16: return to_f32(static_cast<const bf16*>(from)[i]);
        default: return to_f32(static_cast<const f16*>(from)[i]);
    }
}
