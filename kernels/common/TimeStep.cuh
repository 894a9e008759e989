// TimeStep.cuh: steps of the selective scan. Δ stands times log2 e, so that its product with A is a decay's power of two, and B times ln 2, so that both with u are Δ·u·B.
#pragma once
#include "common/Approximate.cuh"
#include "common/Exponent.cuh"

// Δ·log2 e of dt and the bias, which with softplus comes times log2 e: without, a bias that takes away from dt leaves all digits. log2(1 + 2^x) as max(x, 0) + log2(1 + e), e = 2^-|x|; log2(1 + e) / e, which e up to 1 needs only, is a quotient of polynomials of the least
// largest relative error, 2e-8: 3 float operations fewer than a polynomial alone.
template <int V>
__device__ inline void scale_steps(f32 (&x)[V], const f32 (&bias)[V], bool hasSoftplus)
{
    if (!hasSoftplus)
    {
        #pragma unroll
        for (int v = 0; v < V; v++) x[v] = kLog2E * (x[v] + bias[v]);
        return;
    }
    #pragma unroll
    for (int v = 0; v < V; v++)
    {
        x[v] = fmaf(x[v], kLog2E, bias[v]);
        const f32 e = power_of_two(__uint_as_float(__float_as_uint(x[v]) | 0x80000000u));
        const f32 above = e * fmaf(fmaf(0.178554252f, e, 1.25109601f), e, 1.44269502f), below = fmaf(fmaf(fmaf(0.031094566f, e, 0.474059045f), e, 1.36719167f), e, 1.0f);
        x[v] = fmaf(above, reciprocal(below), fmaxf(x[v], 0.0f));
    }
}
