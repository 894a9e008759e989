// Approximate.cuh: functions as the hardware has them. The exact ones are several instructions and the call of a slow path, around which the compiler needs
// registers for everything at once.
#pragma once
#include "common/Types.cuh"

// 1 / x within a unit in the last place, for |x| from 2⁻¹²⁶ on; 0 for infinity.
__device__ inline f32 reciprocal(f32 x)
{
    f32 y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// √x within a unit in the last place, of subnormal numbers too.
__device__ inline f32 square_root(f32 x)
{
    f32 y;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
