// Tickets.cuh: blocks that find out which of them is the last.
#pragma once
#include "common/Types.cuh"

// Whether this is the last of `count` arrivals at a ticket, which is then ready for the next launch. One thread of a block calls it, after a
// barrier behind all that the block reads and writes.
__device__ inline bool is_last(u32* ticket, u32 count)
{
    __threadfence();                                          // what the block wrote can be seen, and what it was to read has been read
    if (atomicInc(ticket, count - 1) != count - 1) return false;
    __threadfence();                                          // so it is with all others
    return true;
}
