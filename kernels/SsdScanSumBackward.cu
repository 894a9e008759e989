// SsdScanSumBackward.cu
//
// Computes   the gradients of A, or of its logarithm: A·dA, of D and the bias as sums over chunks.
// Source     SsdScanBackward.cu leaves the terms.
// Method     a block adds up 32 columns, its warps taking turns with rows.
// Layout     sums [chunks, H, 2 + skips] float: of dA, dBias, dD; logA [H] float or null; dA, dBias [H], dD [H, skips] float.
// Launch     grid ceil(H·(2 + skips) / 32), block 256.
// Traffic    reads all sums, and writes the gradients.
// Precision  float. Deterministic: no atomics, fixed order of additions.
// Limits     H·(2 + skips) < 2³¹.
// Variants   ssd_scan_sum_backward
#include "common/Columns.cuh"
#include "common/Ssd.cuh"

struct SsdSumArgs                                             // mirrored in CudaSsdScan.cs, field for field
{
    const f32* sums;
    const f32* logA; f32* dA; f32* dBias; f32* dD;
    i64 chunks;
    i32 H, sumsOfHead;
};

__global__ void __launch_bounds__(kSsdThreads) ssd_scan_sum_backward(const SsdSumArgs args)
{
    __shared__ f32 sColumns[kColumnWarps][kWarp];
    const u32 column = blockIdx.x * kWarp + threadIdx.x % kWarp, width = (u32)args.H * args.sumsOfHead;
    const f32 sum = column_sum(args.sums, args.chunks, width, column, sColumns);
    if (threadIdx.x >= kWarp || column >= width) return;
    const u32 head = column / args.sumsOfHead, which = column % args.sumsOfHead;
    if (which == 0) args.dA[head] = args.logA ? -expf(args.logA[head]) * sum : sum;
    else if (which > 1) args.dD[head * (args.sumsOfHead - 2) + which - 2] = sum;
    else if (args.dBias) args.dBias[head] = sum;
}
