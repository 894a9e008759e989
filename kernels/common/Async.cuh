// Async.cuh: copies from global to shared memory that a thread starts and does not wait for (cp.async, sm_80 and newer).
#pragma once
#include "common/Types.cuh"

__device__ inline u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// A word to shared memory.
__device__ inline void store_shared(u32 to, u32 word) { asm volatile("st.shared.u32 [%0], %1;" :: "r"(to), "r"(word) : "memory"); }

// Starts a copy of 16 bytes, past the L1 cache; what is behind the first `bytes` is filled with zeros. Both addresses are multiples of 16.
__device__ inline void copy_async(u32 to, const void* from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}

// As above, whole, and at constant distances from two addresses: one instruction.
template <int To, int From>
__device__ inline void copy_async_at(u32 to, const void* from)
{
    asm volatile("cp.async.cg.shared.global [%0+%2], [%1+%3], 16;" :: "r"(to), "l"(__cvta_generic_to_global(from)), "n"(To), "n"(From) : "memory");
}

// Closes a group of copies.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most Groups of this thread's groups are still going on. Other threads' copies need a barrier after it.
template <int Groups>
__device__ inline void copy_async_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(Groups) : "memory"); }
