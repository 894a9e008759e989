// Exponent.cuh: powers of two, and the constants that make other exponentials of them.
#pragma once
#include "common/Types.cuh"

constexpr f32 kLog2E = 1.44269502f, kLog2ERest = 1.92596299e-8f, kLn2 = 0.693147181f;   // log2 e is the sum of the first two

// 2 units in the last place; 0 below 2⁻¹²⁶.
__device__ inline f32 power_of_two(f32 x)
{
    f32 y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
