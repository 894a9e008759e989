// RmsNorm.cu
//
// Computes   u = x, or u = x·silu(z) where the gate acts before the norm; s[r,g] = 1/√(Σ_d u[r,d]²/N + eps) over the N channels of group g;
//            y[r,d] = weight[d]·u[r,d]·s[r,g], times silu(z[r,d]) where the gate acts after it. With n[r,d] = dy[r,d] (·silu(z[r,d]) after):
//            du[r,d] = s·(weight[d]·n[r,d] − u[r,d]·s²/N·Σ_d weight[d]·n[r,d]·u[r,d]),  dweight[d] = Σ_r n[r,d]·u[r,d]·s.
//            With a residual: sum = x·factor + residual, rounded to T, is what is normalised, with factor[r] = 1/√(Σ_p squares[r,p]/count + squaresEps), or 1; then
//            dx, of the sum, has dsum added, dadded = dx·factor, and dsquares[r] = −½·factor³/count·Σ_d dx[r,d]·added[r,d]. Where the scan has put gate and weight
//            on and left s to such a sum, dgateSquares is its gradient: du = weight·n + 2·u·dgateSquares, dweight[d] = Σ_r n[r,d]·u[r,d].
// Source     Zhang and Sennrich 2019, arXiv:1910.07467, equation 4; gated: Dao and Gu 2024, arXiv:2405.21060, section 7.
// Method     forward: a block per row and group. backward: blocks of a group of channels walk rows r = block, block + P, …, and leave their sums of dweight in `slots` rows: those of one row add to it
//            one after the other, in the order of their tickets, and reduce_sums of Reduce.cu adds the rows in order. A thread takes kHeld accesses of a row at a time, the last of them whole. Of these u (forward),
//            x, dy and z (backward) stay in registers, so up to kHeld·V·block channels are read once; of what comes before, u waits in shared memory, and x, dy and z are read a second time, from the
//            cache. dweight of a thread's last access adds up in a register, that of the others in shared memory, without conflicts. A thread reads only what it wrote itself.
// Layout     x, z, residual, dz, added [R, D] with rows xStride, zStride, … apart; y, sum, dy, dsum, dx, dadded [R, D]; weight [D] float; s [R, D/N], squares
//            [R, parts], factor, dsquares, dgateSquares [R] float; partial [slots, D] float, of dweight; turns [slots, D/N], zero before, and the ticket. residual, squares, dsum, added, dgateSquares may
//            be null. rest: elements before the last kHeld accesses of all threads, rounded up to as many.
// Launch     forward grid R·D/N, dynamic shared memory of a float for each channel of N beyond kHeld·V·block; backward grid P·D/N, P ≤ R and four blocks a multiprocessor, slots ≤ one of them, with a float for
//            each channel beyond V·block; block 32 to 256, whole warps; V = 16 bytes (isWide) or 1 element. Static shared memory 32 bytes forward, 48 backward. N 5120 of 16 bits: 4 and 12 KiB.
// Traffic    forward reads R·D elements (2·R·D with a gate) and R·D floats, writes R·D elements and R·D/N floats; backward reads 2·R·D elements (3·R·D with
//            a gate), 2·R·D floats of weight and s for every thread, writes R·D elements (2·R·D); P·D floats go into the slots, one after the other, (P − slots)·D of them from the L2 cache, and a word
//            a block. A residual is R·D elements more to read and, as the sum, to write, and R·parts floats with squares; backward dsum and added are R·D more to read, dadded R·D to write.
//            Channels beyond kHeld·V·block are read twice backward, the second time from the cache.
// Precision  loads T, computes and accumulates f32, stores T. Deterministic: no float atomics, turns fix the order of additions.
// Limits     isWide: D, N, strides and addresses are multiples of 16 bytes; the dynamic shared memory fits a block. R·D/N and R + P < 2³¹. A residual: no gate, N = D.
// Variants   rms_norm_forward<{f32|bf16|f16}, {true|false}>; rms_norm_backward<{f32|bf16|f16}, {true|false}, {0|1|2}>
#include "common/Block.cuh"
#include "common/Copy.cuh"
#include "common/FloatRow.cuh"
#include "common/Pointwise.cuh"
#include "common/Turns.cuh"
#include "common/Words.cuh"

constexpr int kMaxThreads = 256;
constexpr int kHeld = 2;                                      // accesses of a row that a thread has in registers: CudaBackend.RmsNormHeld

enum Gate { kNoGate, kGateBefore, kGateAfter };

template <typename T>
struct RmsNormArgs                                            // mirrored in CudaRmsNorm.cs, field for field
{
    const T* x; const T* z; const T* residual; const f32* weight; const f32* squares;
    T* y; T* sum; f32* s; f32* factor;
    i64 xStride, zStride, residualStride;
    i32 D, N, rest, gate, parts, count;
    f32 eps, squaresEps;
};

template <typename T, bool isWide>
__global__ void __launch_bounds__(kMaxThreads, 5) rms_norm_forward(const RmsNormArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    using Words = PackedWords<T, V>;
    constexpr int kEach = Words::kEach;
    __shared__ f32 sPartial[kMaxThreads / kWarp];
    extern __shared__ __align__(16) f32 sU[];                 // [N] less what registers hold
    const int groups = args.D / args.N;
    const i64 r = blockIdx.x / groups;                        // R·D may exceed 2³¹
    const int first = blockIdx.x % groups * args.N;
    const T* x = args.x + r * args.xStride + first;
    const T* z = args.z + r * args.zStride + first;
    f32 sum = 0, factor = 1;
    if (args.squares)
    {
        f32 own = 0;
        for (int p = threadIdx.x; p < args.parts; p += blockDim.x) own += args.squares[r * args.parts + p];
        factor = 1.0f / sqrtf(block_sum(own, sPartial) / args.count + args.squaresEps);
        if (threadIdx.x == 0) args.factor[r] = factor;
    }
    const int step = blockDim.x * V, last = args.N - kHeld * step + threadIdx.x * V;
    const FloatRow<V> row{sU, args.N - kHeld * step};
    f32 u[kHeld][V];                                          // of the last accesses; what comes before waits in shared memory
    #pragma unroll 1
    for (int from = last - args.rest; ; from += kHeld * step)
    {
        Words words[kHeld];
        #pragma unroll
        for (int a = 0; a < kHeld; a++)
            if (from >= -a * step) words[a].load(x + from + a * step);
        #pragma unroll
        for (int a = 0; a < kHeld; a++)
        {
            const int d = from + a * step;
            if (d < 0) continue;
            Words other;                                      // the gate, or the residual and then the sum
            if (args.gate == kGateBefore) other.load(z + d);
            if (args.residual) other.load(args.residual + r * args.residualStride + d);
            #pragma unroll
            for (int i = 0; i < Words::kCount; i++)
            {
                f32 word[kEach], with[kEach];
                words[a].open(word, i);
                other.open(with, i);
                #pragma unroll
                for (int v = 0; v < kEach; v++)
                    if (args.residual) word[v] = fmaf(word[v], factor, with[v]);
                    else if (args.gate == kGateBefore) word[v] *= silu(with[v]);
                if (args.residual)
                {
                    other.close(i, word);
                    other.open(word, i);                      // what is normalised is rounded
                }
                #pragma unroll
                for (int v = 0; v < kEach; v++)
                {
                    sum = fmaf(word[v], word[v], sum);
                    u[a][i * kEach + v] = word[v];
                }
            }
            if (args.residual) other.store(args.sum + r * args.D + d);
            if (from != last) row.stash(d, u[a]);
        }
        if (from == last) break;
    }
    const f32 s = 1.0f / sqrtf(block_sum(sum, sPartial) * reciprocal(args.N) + args.eps);
    T* y = args.y + r * args.D + first;
    #pragma unroll 1
    for (int from = last; ; from -= kHeld * step)
    {
        #pragma unroll
        for (int a = 0; a < kHeld; a++)
        {
            const int d = from + a * step;
            if (d < 0) continue;
            if (from != last) row.load(u[a], d);
            f32 g[V], w[V];
            load<V>(w, args.weight + first + d);
            if (args.gate == kGateAfter) load<V>(g, z + d);
            #pragma unroll
            for (int v = 0; v < V; v++)
            {
                u[a][v] = w[v] * (u[a][v] * s);
                if (args.gate == kGateAfter) u[a][v] *= silu(g[v]);
            }
            store<V>(y + d, u[a]);
        }
        if (from < step) break;                               // the accesses before these begin below 0
    }
    if (threadIdx.x == 0) args.s[blockIdx.x] = s;
}

template <typename T>
struct RmsNormBackwardArgs                                    // mirrored in CudaRmsNorm.cs, field for field
{
    const T* x; const T* z; const f32* weight; const T* dy; const f32* s; const T* dsum; const T* added; const f32* factor; const f32* dgateSquares;
    T* dx; T* dz; T* dadded; f32* dsquares; f32* partial; u32* turns;
    i64 xStride, zStride, dzStride, addedStride;
    i32 R, P, D, N, groups, rest, slots, count;
};

template <typename T, bool isWide, int Gate>
__global__ void __launch_bounds__(kMaxThreads, 4) rms_norm_backward(const RmsNormBackwardArgs<T> args)
{
    constexpr int V = kVector<T, isWide>;
    using Words = PackedWords<T, V>;
    constexpr int kEach = Words::kEach, kQuad = FloatRow<V>::kQuad;
    __shared__ f32 sPartial[kMaxThreads / kWarp];
    __shared__ u32 sTicket;
    extern __shared__ __align__(16) f32 sWeight[];            // [N] this block's share of dweight, less what registers hold
    if (threadIdx.x == 0) sTicket = atomicAdd(args.turns + args.slots * args.groups, 1u);
    __syncthreads();                                          // all know the block's number
    const int first = sTicket % args.groups * args.N;
    const int step = blockDim.x * V, last = args.N - kHeld * step + threadIdx.x * V;
    const FloatRow<V> row{sWeight, args.N - step};
    f32 share[V] = {};                                        // of a thread's last access
    #pragma unroll 1
    for (int d = last + (kHeld - 2) * step; d >= 0; d -= step) row.stash(d, share);
    for (int r = sTicket / args.groups; r < args.R; r += args.P)
    {
        const f32 s = Gate == kGateBefore && args.dgateSquares ? 1.0f : args.s[(i64)r * args.groups + sTicket % args.groups];
        f32 sum = 0;
        const auto of = [&](i64 stride, int d) { return (int)kept(r) * stride + d; };     // R·D may exceed 2³¹; no register keeps an address from pass to pass
        const auto meet = [&](int d, const Words& wordsX, const Words& wordsDy, const Words& wordsZ, bool isHeld)
        {
            #pragma unroll
            for (int q = 0; q < V; q += kQuad)
            {
                f32 w[kQuad], old[kQuad];
                load<kQuad>(w, args.weight + first + d + q);
                if (isHeld)
                    #pragma unroll
                    for (int v = 0; v < kQuad; v++) old[v] = share[q + v];
                else load<kQuad>(old, row.quad(d, q));
                #pragma unroll
                for (int i = 0; i < kQuad / kEach; i++)
                {
                    f32 u[kEach], n[kEach], g[kEach];
                    wordsX.open(u, q / kEach + i);
                    wordsDy.open(n, q / kEach + i);
                    if constexpr (Gate != kNoGate) wordsZ.open(g, q / kEach + i);
                    #pragma unroll
                    for (int v = 0; v < kEach; v++)
                    {
                        const int at = i * kEach + v;
                        if constexpr (Gate == kGateBefore) u[v] *= silu(g[v]);
                        if constexpr (Gate == kGateAfter) n[v] *= silu(g[v]);
                        const f32 product = n[v] * u[v];
                        sum = fmaf(w[at], product, sum);
                        old[at] = fmaf(product, s, old[at]);
                    }
                }
                if (isHeld)
                    #pragma unroll
                    for (int v = 0; v < kQuad; v++) share[q + v] = old[v];
                else stash<kQuad>(row.quad(d, q), old);
            }
        };
        Words wordsX[kHeld], wordsDy[kHeld], wordsZ[kHeld];
        const auto take = [&](int from)
        {
            const T* x = args.x + of(args.xStride, first);
            const T* z = args.z + of(args.zStride, first);
            const T* dy = args.dy + of(args.D, first);
            #pragma unroll
            for (int a = 0; a < kHeld; a++)
                if (from >= -a * step)
                {
                    wordsX[a].load(x + from + a * step);
                    wordsDy[a].load(dy + from + a * step);
                    if constexpr (Gate != kNoGate) wordsZ[a].load(z + from + a * step);
                }
        };
        #pragma unroll 1
        for (int from = last - args.rest; ; from += kHeld * step)
        {
            take(from);
            #pragma unroll
            for (int a = 0; a < kHeld; a++)
                if (from >= -a * step) meet(from + a * step, wordsX[a], wordsDy[a], wordsZ[a], a == kHeld - 1 && from == last);
            if (from == last) break;
        }
        const f32 k = Gate == kGateBefore && args.dgateSquares ? -2.0f * args.dgateSquares[r] : block_sum(sum, sPartial) * s * s * reciprocal(args.N);
        const bool isAdded = Gate == kNoGate && args.added;
        const f32 factor = isAdded ? args.factor[r] : 0.0f;
        f32 meets = 0;                                        // Σ of the sum's gradient times what was added
        const auto leave = [&](int d, Words& wordsX, const Words& wordsDy, Words& wordsZ)
        {
            Words wordsSum, wordsAdded;
            if constexpr (Gate == kNoGate)
            {
                if (args.dsum) wordsSum.load(args.dsum + of(args.D, d));
                if (isAdded) wordsAdded.load(args.added + of(args.addedStride, d));
            }
            #pragma unroll
            for (int q = 0; q < V; q += kQuad)
            {
                f32 w[kQuad];
                load<kQuad>(w, args.weight + first + d + q);
                #pragma unroll
                for (int i = 0; i < kQuad / kEach; i++)
                {
                    const int word = q / kEach + i;
                    f32 u[kEach], n[kEach], g[kEach];
                    wordsX.open(u, word);
                    wordsDy.open(n, word);
                    if constexpr (Gate != kNoGate) wordsZ.open(g, word);
                    #pragma unroll
                    for (int v = 0; v < kEach; v++)
                    {
                        const f32 weight = w[i * kEach + v], value = u[v];
                        if constexpr (Gate == kNoGate) u[v] = s * (weight * n[v] - value * k);
                        else
                        {
                            const f32 open = sigmoid(g[v]), gate = g[v] * open, slope = open * fmaf(g[v], 1.0f - open, 1.0f);
                            if constexpr (Gate == kGateBefore)
                            {
                                const f32 du = s * (weight * n[v] - value * gate * k);
                                u[v] = du * gate;
                                g[v] = du * value * slope;
                            }
                            else
                            {
                                const f32 scaled = s * weight * n[v];
                                u[v] = scaled * gate - s * (value * k);
                                g[v] = scaled * value * slope;
                            }
                        }
                    }
                    if constexpr (Gate == kNoGate)
                    {
                        f32 more[kEach];
                        if (args.dsum)
                        {
                            wordsSum.open(more, word);
                            #pragma unroll
                            for (int v = 0; v < kEach; v++) u[v] += more[v];
                        }
                        if (isAdded)
                        {
                            wordsAdded.open(more, word);
                            #pragma unroll
                            for (int v = 0; v < kEach; v++)
                            {
                                meets = fmaf(u[v], more[v], meets);
                                more[v] = u[v] * factor;
                            }
                            wordsAdded.close(word, more);
                        }
                    }
                    wordsX.close(word, u);
                    if constexpr (Gate != kNoGate) wordsZ.close(word, g);
                }
            }
            wordsX.store(args.dx + of(args.D, first + d));
            if constexpr (Gate != kNoGate) wordsZ.store(args.dz + of(args.dzStride, first + d));
            if (isAdded) wordsAdded.store(args.dadded + of(args.D, d));
        };
        #pragma unroll 1
        for (int from = last; ; take(from))
        {
            #pragma unroll
            for (int a = 0; a < kHeld; a++)
                if (from >= -a * step) leave(from + a * step, wordsX[a], wordsDy[a], wordsZ[a]);
            if (from < step) break;                           // the accesses before these begin below 0
            from -= kHeld * step;
        }
        if (!isAdded) continue;
        meets = block_sum(meets, sPartial);
        if (threadIdx.x == 0) args.dsquares[r] = meets * (-0.5f * factor * factor * factor / args.count);
    }
    const u32 block = sTicket / args.groups, slot = block % args.slots, link = block / args.slots;
    f32* partial = args.partial + (i64)slot * args.D + first;
    u32* turn = args.turns + slot * args.groups + sTicket % args.groups;
    await_turn(turn, link);
    #pragma unroll 1
    for (int d = last + (kHeld - 1) * step; d >= 0; d -= step)
    {
        if (d < row.N) row.load(share, d);
        if (link > 0)
            #pragma unroll
            for (int q = 0; q < V; q += kQuad)
                if constexpr (kQuad == 4) add_written(reinterpret_cast<f32 (&)[4]>(share[q]), partial + d + q);
                else share[q] += __ldcg(partial + d);
        store<V>(partial + d, share);
    }
    __syncthreads();                                          // all have added
    if (threadIdx.x == 0) give_turn(turn, link + 1);
}
