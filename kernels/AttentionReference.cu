// AttentionReference.cu
//
// Computes   the softmax between the two products of attention. With v[j] = scale·s[i,j], or cap·tanh(scale·s[i,j] / cap), over the keys j that query i sees:
//            lse[i] = log Σ_j exp(v[j]), p[i,j] = exp(v[j] − lse[i]); backward, with dp[i,j] = dO[i]·V[j]:
//            ds[i,j] = p[i,j]·(dp[i,j] − Σ_j p[i,j]·dp[i,j] + dLse[i])·scale·(1 − tanh²(scale·s[i,j] / cap))
// Source     Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1; backward: Dao et al. 2022, arXiv:2205.14135, appendix B.4.
// Method     a block per query and head; the row of scores is read three times, for its largest value, for the sum, and to be written. The plain composition, scores whole in memory: what the
//            fused kernels of AttentionForward.cu and AttentionBackward.cu are measured and checked against. No op launches it.
// Layout     s, p, dp, ds [B, H, L, S] float; lse, dLse [B, L, H] float; cuSeqlens [sequences + 1].
// Launch     grid B·H·L, block 128. Static shared memory 16 bytes.
// Traffic    forward reads S floats a row from memory (and twice from the cache), writes S; backward reads 2·S, writes 2·S. Outside the mask it only writes.
// Precision  f32. Deterministic: no atomics, fixed order of additions.
// Limits     none beyond 64-bit sizes.
// Variants   attention_softmax_forward; attention_softmax_backward
#include "common/Block.cuh"
#include "common/Sequences.cuh"

constexpr int kThreads = 128;

struct AttentionRange                                         // mirrored in CudaAttentionReference.cs, field for field
{
    const i64* cuSeqlens;                                     // null where each row of the batch is one sequence
    i64 window;                                               // 0 for none
    i32 sequences, isCausal;

    // The keys that query l sees: [low, high), empty where high ≤ low. The causal mask is aligned to the end.
    __device__ inline void range(i64 l, i64 L, i64 S, i64& low, i64& high) const
    {
        low = 0;
        high = isCausal ? min(S, l + S - L + 1) : S;
        if (cuSeqlens)
        {
            const i32 sequence = sequence_of(cuSeqlens, sequences, l);
            low = cuSeqlens[sequence];
            high = min(high, cuSeqlens[sequence + 1]);
        }
        if (window > 0) low = max(low, high - window);
    }
};

struct AttentionSoftmaxArgs                                   // mirrored in CudaAttentionReference.cs, field for field
{
    f32* scores; f32* lse; f32* dp; const f32* dLse;          // forward: scores, lse; backward: scores, dp, dLse (may be null)
    i64 L, S;
    AttentionRange mask;
    i32 H;
    f32 scale, cap;
};

// One row of scores: a query of a head.
struct ScoreRow
{
    f32* s;
    i64 at, query, low, high;                                 // its place in the scores and in lse; the keys it sees
    f32 scale, cap;

    __device__ inline ScoreRow(const AttentionSoftmaxArgs& args) : scale(args.scale), cap(args.cap)
    {
        const i64 row = blockIdx.x, l = row % args.L, h = row / args.L % args.H, b = row / args.L / args.H;
        at = row * args.S;                                    // B·H·L·S exceeds 2³¹ soon
        query = (b * args.L + l) * args.H + h;
        s = args.scores + at;
        args.mask.range(l, args.L, args.S, low, high);
    }

    __device__ inline f32 value(i64 j) const { return cap > 0 ? cap * tanhf(s[j] * scale / cap) : s[j] * scale; }

    __device__ inline f32 largest(f32* sPartial) const
    {
        f32 most = -kInfinity;
        for (i64 j = low + threadIdx.x; j < high; j += kThreads) most = fmaxf(most, value(j));
        return block_max(most, sPartial);
    }
};

__global__ void __launch_bounds__(kThreads) attention_softmax_forward(const AttentionSoftmaxArgs args)
{
    __shared__ f32 sPartial[kThreads / kWarp];
    const ScoreRow row(args);
    const f32 most = row.largest(sPartial);
    f32 sum = 0;
    for (i64 j = row.low + threadIdx.x; j < row.high; j += kThreads) sum += expf(row.value(j) - most);
    sum = block_sum(sum, sPartial);                           // and its barriers: below a thread overwrites keys that others have read
    for (i64 j = threadIdx.x; j < args.S; j += kThreads) row.s[j] = j >= row.low && j < row.high ? expf(row.value(j) - most) / sum : 0.0f;
    if (threadIdx.x == 0) args.lse[row.query] = row.high > row.low ? most + logf(sum) : -kInfinity;
}

// The scores become p, dp becomes ds. The sums are made anew: lse, rounded to a float, would cost digits where it is large.
__global__ void __launch_bounds__(kThreads) attention_softmax_backward(const AttentionSoftmaxArgs args)
{
    __shared__ f32 sPartial[kThreads / kWarp];
    const ScoreRow row(args);
    f32* dp = args.dp + row.at;
    const f32 most = row.largest(sPartial);
    f32 sum = 0, product = 0;
    for (i64 j = row.low + threadIdx.x; j < row.high; j += kThreads)
    {
        const f32 e = expf(row.value(j) - most);
        sum += e;
        product = fmaf(e, dp[j], product);
    }
    sum = block_sum(sum, sPartial);
    const f32 delta = block_sum(product, sPartial) / sum - (args.dLse ? args.dLse[row.query] : 0.0f);
    for (i64 j = threadIdx.x; j < args.S; j += kThreads)
    {
        f32 p = 0, ds = 0;
        if (j >= row.low && j < row.high)
        {
            const f32 value = row.value(j), bent = args.cap > 0 ? value / args.cap : 0.0f;
            p = expf(value - most) / sum;
            ds = p * (dp[j] - delta) * args.scale * fmaf(-bent, bent, 1.0f);
        }
        row.s[j] = p;
        dp[j] = ds;
    }
}
