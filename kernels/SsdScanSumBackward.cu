// SsdScanSumBackward.cu
//
// Computes   the gradients of A, or of its logarithm: A·dA, of D and the bias as sums over chunks and, behind SsdScanChunkBackward.cu, those of B and C as sums over the shares of a group's heads.
// Source     SsdScanBackward.cu and SsdScanChunkBackward.cu leave the terms.
// Method     a thread adds up one element of dB and dC over the shares; a block adds up 32 columns of the sums of chunks, its warps taking turns with rows.
// Layout     dBShares, dCShares [shares, B, L, G, N] float; sums [chunks, H, 2 + skips] float: of dA, dBias, dD; dB, dC [B, L, G, N], steps dBStep and dCStep apart; logA [H] float or null; dA, dBias [H], dD [H, skips] float.
// Launch     grid ceil(H·(2 + skips) / 32) + ceil(B·L·G·N / 256), block 256.
// Traffic    reads 2·shares·N floats per step and group and all sums, and writes the gradients.
// Precision  adds f32, stores T. Deterministic: no atomics, fixed order of additions.
// Limits     none.
// Variants   ssd_scan_sum_backward<{f32|bf16|f16}>
#include "common/Columns.cuh"
#include "common/Grid.cuh"
#include "common/Ssd.cuh"

template <typename T>
struct SsdSumArgs                                             // mirrored in CudaSsdScan.cs, field for field
{
    const f32* dBShares; const f32* dCShares; const f32* sums;
    const f32* logA; T* dB; T* dC; f32* dA; f32* dBias; f32* dD;
    i64 chunks, count, rowWidth, dBStep, dCStep;              // count: elements of dB, rowWidth of a step
    i32 H, shares, sumsOfHead, columnBlocks;
};

template <typename T>
__global__ void __launch_bounds__(kSsdThreads) ssd_scan_sum_backward(const SsdSumArgs<T> args)
{
    __shared__ f32 sColumns[kColumnWarps][kWarp];
    if (blockIdx.x < args.columnBlocks)
    {
        const int column = blockIdx.x * kWarp + threadIdx.x % kWarp, width = args.H * args.sumsOfHead;
        const f32 sum = column_sum(args.sums, args.chunks, width, column, sColumns);
        if (threadIdx.x >= kWarp || column >= width) return;
        const int head = column / args.sumsOfHead, which = column % args.sumsOfHead;
        if (which == 0) args.dA[head] = args.logA ? -expf(args.logA[head]) * sum : sum;
        else if (which > 1) args.dD[head * (args.sumsOfHead - 2) + which - 2] = sum;
        else if (args.dBias) args.dBias[head] = sum;
        return;
    }
    const i64 i = (i64)(blockIdx.x - args.columnBlocks) * kSsdThreads + threadIdx.x;
    if (i >= args.count) return;
    f32 b = 0, c = 0;
    for (int share = 0; share < args.shares; share++)
    {
        b += args.dBShares[share * args.count + i];
        c += args.dCShares[share * args.count + i];
    }
    const Quotient at = divide(i, args.rowWidth);
    args.dB[at.quotient * args.dBStep + at.rest] = from_f32<T>(b);
    args.dC[at.quotient * args.dCStep + at.rest] = from_f32<T>(c);
}
