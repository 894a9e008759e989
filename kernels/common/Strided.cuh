// Strided.cuh: where an element of a strided tensor stands, from its number in row-major order.
#pragma once
#include "common/Types.cuh"

constexpr int kMaxAxes = 6;

struct StridedShape                                           // mirrored in StridedShape.cs, field for field
{
    i64 sizes[kMaxAxes], strides[kMaxAxes];                   // outermost first; unused axes in front have size 1
    i32 axes, is32;                                           // is32: every index fits 31 bits, so that 32-bit division serves

    __device__ inline i64 offset(i64 i) const
    {
        i64 at = 0;
        if (is32)
        {
            u32 rest = (u32)i;
            for (int axis = kMaxAxes - 1; axis >= kMaxAxes - axes; axis--)
            {
                const u32 size = (u32)sizes[axis], outer = rest / size;
                at += (i64)(rest - outer * size) * strides[axis];
                rest = outer;
            }
            return at;
        }
        for (int axis = kMaxAxes - 1; axis >= kMaxAxes - axes; axis--)
        {
            const i64 outer = i / sizes[axis];
            at += (i - outer * sizes[axis]) * strides[axis];
            i = outer;
        }
        return at;
    }
};
