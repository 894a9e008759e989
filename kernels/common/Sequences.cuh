// Sequences.cuh: packed sequences in one row.
#pragma once
#include "common/Types.cuh"

// The sequence that step l belongs to. starts holds 0, then the end of each of count sequences, rising.
__device__ inline i32 sequence_of(const i64* starts, i32 count, i64 l)
{
    i32 first = 0, end = count;                               // starts[first] ≤ l < starts[end]
    while (end - first > 1)
    {
        const i32 middle = first + (end - first) / 2;
        if (starts[middle] <= l) first = middle;
        else end = middle;
    }
    return first;
}
