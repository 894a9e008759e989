// SsdScanForward.cu
//
// Computes   Δ = clamp(softplus(dt + bias)),  S_t = exp(Δ_t·A)·S_{t-1} + Δ_t·B_t·x_tᵀ,  y_t = S_tᵀ·C_t + D·x_t, times silu(z_t); by chunks of Q steps, with
//            s_i = Σ_{k≤i} Δ_k·A within a chunk:  y_i = Σ_{j≤i} (C_i·B_j)·exp(s_i − s_j)·Δ_j·x_j + exp(s_i)·S_0ᵀ·C_i,
//            S_Q = exp(s_Q)·S_0 + Σ_j exp(s_Q − s_j)·Δ_j·B_j·x_jᵀ
//            With a convolution, x_t = silu(bias + Σ_k weight_k·x'_{t − K + 1 + k}) of what comes in as x'; its final state is the last K − 1 of them, rows before a sequence its initial one.
//            For a norm behind the gate, y is then multiplied by norm, and the squares before that are added up over W channels: the rest is a factor of each row.
// Source     Dao and Gu 2024, arXiv:2405.21060, section 6.
// Method     ssd_scan_forward, in 16 bits (SsdScanForwardFloat.cu has the rest): a warp owns a unit, W channels p of one head of one sequence with all states n, and walks the chunks with S [p, n] in
//            registers, so that nothing between passes goes through global memory, and the state not even through shared memory: its sums, rounded, are the left side of a product as they are
//            (common/SsdWarp.cuh). So yᵀ is made, from S·Cᵀ and xᵀ·(C·Bᵀ)ᵀ; each fragment of B, C and C·Bᵀ serves all W channels. The four warps of a block have units of a group, which share the
//            tiles of B and C, and C·Bᵀ, of which each warp makes the columns of 16 steps from the fragments of C that it has at hand. Each warp puts its head's decays on C·Bᵀ when it takes a
//            fragment of it: those between sub-tiles as products of factors, those within sub-tiles on the diagonal, which need exponentials, once for all warps of a head. One warp of a head makes
//            Δ and the decays (common/Ssd.cuh). x is a warp's own in shared memory; D·x is added from its fragments, which stand as the sums of y do. y goes out through 2 KiB of a warp, 16 rows at
//            a time in whole lines, past the gate, while the next chunk is on its way.
//            A convolution works in a warp's tile of x: a lane walks 32 steps of two channels, with the rows before them in registers before others overwrite
//            them, and the last 3 rows stay for the next chunk. So no row is read twice, and each value is made once, as a unit has channels of its own. B and C come convolved:
//            all blocks of a group share them, and each would make 2·N values a step anew, 512 exponentials and reciprocals with 128 states where x takes 128. For the
//            backward pass the x that it worked with is left in `convolved`: to make it there again would take 2 for each value, 1.5 times, in a pass that no other
//            warps of a multiprocessor fill, for 2 bytes of it that are not written.
//            Where sequences are few and long they are walked in segments at once: ssd_scan_state_forward first makes the state at the start of each, a block for 64 × 64
//            of the state of a head, by the same additions in the same order, so that segments change no bit.
// Layout     convolution: weight [H·P, K], bias [H·P] or null, initial or null and final [n, K − 1, H·P] with steps stateStep apart, float; convolved [B, L, H, P] or null. norm [H·P], squares [B, L, H, ceil(P / W)] float or null; x, z [B, L, H, P]; dt [B, L, H]; B, C [B, L, G, N], any strides but the last; y, ungated [B, L, H, P]; initial, final [n, H, P, N] float;
//            states [borders, H, N, P], before the first of every two chunks, bf16 or float as the tiles; carried [n, segments − 1, H, P, N] float; ungated and states may be null.
// Launch     ssd_scan_forward grid sequences·segments·G·ceil(H / G·ceil(P / W) / units), W = 32, or 16 for more than 128 states; block 128, of whose warps `units` own channels: 4, or fewer
//            where shared memory has no room for the decays of as many heads; dynamic shared memory 56 to 113 KiB, see SsdPlan, two blocks on a multiprocessor that has room. ssd_scan_state_forward, before it where there are
//            segments: grid sequences·H·ceil(P / 64)·ceil(N / 64), block 256, 2 tiles of 64 × 64.
// Traffic    ssd_scan_forward, per step: a unit reads its part of P elements (twice with z), and writes its part of P (twice with ungated; with norm also a float for each W); a block reads 1 of dt for
//            each of its heads, and 2·N elements of B and C. Per border and head states take N·P elements; per segment and head the state is read, and per
//            sequence and head written, as N·P floats. ssd_scan_state_forward reads x for each 64 of N and B for each 64 of P, and writes N·P floats per segment but
//            the first; it leaves the last segment alone. A convolution adds (K + 1)·H·P floats of weight and bias and (K − 1)·H·P of each state for each sequence, and writes H·P elements a
//            step where they are kept: with its own launch before they would be read and written besides, and its tiles would read K − 1 rows of the ones before.
// Precision  loads T, accumulates f32, stores T. bf16: C·Bᵀ with its decay, the decayed x and the state before a product with C are rounded to bf16 as operands of products; the
//            state itself stays f32. ssd_scan_state_forward of f32 and f16: tiles are f32, products are multiply-adds. Sums of Δ·A are f64. Deterministic: no atomics; units, blocks and
//            segments change no bit.
//            A convolution gives the bits of CausalConv1d.cu, x rounded to T; it takes an exponential and a reciprocal a value.
// Limits     N ≤ 64·Tiles ≤ 256; Q ≤ 64; H·P, G, sequences, chunks of a sequence and grids below 2³¹. A convolution has at most 4 taps, and no segments: ssd_scan_state_forward would make its values once more for each 64 states. Where W does not divide P the
//            last unit of a head works on channels that are not there.
// Variants   ssd_scan_forward<bf16, {1|2|4}>; ssd_scan_state_forward<{f32|bf16|f16}>
#include "common/SsdForward.cuh"
#include "common/SsdWarp.cuh"

constexpr int kForwardWarps = 4, kForwardThreads = kForwardWarps * kWarp;

template <int Tiles> constexpr int kPartsOf = Tiles <= 2 ? 2 : 1;                         // of 16 channels, of a warp

// A warp's own.
template <typename T, int Tiles>
struct alignas(16) SsdForwardUnit
{
    static constexpr int kParts = kPartsOf<Tiles>, kWidth = 16 * kParts;

    T x[kSteps * kWidth];
    f32 skip[kWidth], norm[kWidth];                           // D of its channels; the norm's weight
    SsdWindow<kWidth, kWarp, 2> window;
    i32 head, channel, channels;                              // of its channels as many as there are: none where the warp only helps with what all units share
    i32 slot, mate, mates;                                    // its head in the block; the units of a head share its decays, each makes some: this one's number
};

// What goes out of a warp's registers, the other way round.
template <int Tiles>
union SsdForwardWay
{
    SsdTurn<kPartsOf<Tiles>> y;
    SsdStateRows<kPartsOf<Tiles>> states;
};

// Of a head of a block.
struct alignas(16) SsdForwardHead
{
    SsdDecays decays;
    SsdNear near;
    f32 column[kSteps], end[kSteps];                          // Δ_j times the decay from j to the end of its sub-tile, and to that of the chunk

    template <typename T>
    __device__ inline void fill(const SsdShape<T>& shape, i64 row, i64 first, int steps, int number)
    {
        decays.fill(shape, row, first, steps, number);
        #pragma unroll
        for (int i = threadIdx.x % kWarp; i < kSteps; i += kWarp)                          // which this lane has filled
        {
            column[i] = decays.columnFactor[i] * decays.delta[i];
            end[i] = decays.toEnd[i] * decays.delta[i];
        }
    }
};

// Shared memory of a block, and behind it a SsdForwardHead of each head; SsdPlan counts the same bytes.
template <typename T, int Tiles>
struct alignas(128) SsdForwardBlock
{
    static constexpr int kStates = 64 * Tiles, kPitch = kStates + kRowPad<T>;

    T C[kSteps * kPitch], B[kSteps * kPitch];
    union
    {
        SsdPairs pairs;
        SsdForwardWay<Tiles> ways[kForwardWarps];             // between chunks
    };
    SsdForwardUnit<T, Tiles> units[kForwardWarps];
    i64 sequence, row, begin, end, border;                    // the sequence and its segment, and the number of the border before the sequence
    i32 group, firstChunk, chunks;                            // and its first chunk's number

    __device__ inline SsdForwardHead& head(int slot) { return reinterpret_cast<SsdForwardHead*>(this + 1)[slot]; }
};

template <typename T, int Tiles>
__global__ void __launch_bounds__(kForwardThreads, 2) ssd_scan_forward(const SsdForwardArgs<T> args)
{
    using Block = SsdForwardBlock<T, Tiles>;
    constexpr int kParts = kPartsOf<Tiles>, kWidth = 16 * kParts, kEights = 8 * Tiles, kPitch = Block::kPitch;
    extern __shared__ __align__(128) u8 sMemory[];
    Block& block = *reinterpret_cast<Block*>(sMemory);
    const SsdShape<T>& shape = args.shape;
    const int warp = threadIdx.x / kWarp, slices = (shape.P + kWidth - 1) / kWidth, unitsOfGroup = shape.H / shape.G * slices, blocks = (unitsOfGroup + args.units - 1) / args.units;
    SsdForwardUnit<T, Tiles>& unit = block.units[warp];
    const SsdRows<T, kWidth> rows{unit.x};
    const int usedN = round_up(shape.N, 16);
    {
        const int group = blockIdx.x / blocks % shape.G, segment = blockIdx.x / blocks / shape.G % args.segments, firstUnit = blockIdx.x % blocks * args.units, endUnit = min(firstUnit + args.units, unitsOfGroup);
        const bool isOwner = firstUnit + warp < endUnit;
        const int number = min(firstUnit + warp, endUnit - 1), headOfGroup = number / slices, channel = number % slices * kWidth, firstMate = max(firstUnit, headOfGroup * slices);
        if (threadIdx.x % kWarp == 0)
        {
            unit.slot = headOfGroup - firstUnit / slices;
            unit.head = group * (shape.H / shape.G) + headOfGroup;
            unit.channel = channel;
            unit.channels = isOwner ? min(kWidth, shape.P - channel) : 0;
            unit.mate = isOwner ? number - firstMate : kSubtiles;
            unit.mates = min(endUnit, (headOfGroup + 1) * slices) - firstMate;
        }
        const i64 index = blockIdx.x / blocks / shape.G / args.segments;
        const SsdSequence sequence(shape, index);
        const int firstChunk = segment * args.chunksOfSegment;
        const i64 begin = sequence.begin + (i64)firstChunk * shape.Q, end = min(sequence.end, begin + (i64)args.chunksOfSegment * shape.Q);
        if (segment > 0 && begin >= sequence.end) return;     // a sequence with fewer segments
        if (threadIdx.x == 0)
        {
            block.sequence = index;
            block.row = sequence.row;
            block.begin = begin;
            block.end = end;
            block.border = sequence.firstBorder;
            block.group = group;
            block.firstChunk = firstChunk;
            block.chunks = (int)((end - begin + shape.Q - 1) / shape.Q);
        }
    }
    __syncthreads();                                          // the places are there

    for (int c = threadIdx.x % kWarp, head = unit.head, channel = unit.channel, channels = unit.channels; c < kWidth; c += kWarp)
    {
        unit.skip[c] = shape.D && c < channels ? args.skip(head, channel + c) : 0.0f;
        unit.norm[c] = args.norm && c < channels ? args.norm[head * shape.P + channel + c] : 0.0f;
    }
    if (args.convolution.weight) unit.window.open(args.convolution, block.sequence, unit.head * shape.P + unit.channel, unit.channels);

    f32 state[kParts][kEights][4];
    {
        const int channel = unit.channel, channels = unit.channels;
        const f32* from = args.state_before(block.sequence, block.firstChunk / args.chunksOfSegment, unit.head);
        #pragma unroll
        for (int part = 0; part < kParts; part++)
            #pragma unroll
            for (int e = 0; e < kEights; e++)
                #pragma unroll
                for (int v = 0; v < 4; v++)
                {
                    const int p = 16 * part + fragment_row(v), n = 8 * e + fragment_column(v);
                    state[part][e][v] = from && p < channels && n < shape.N ? from[(i64)(channel + p) * shape.N + n] : 0.0f;
                }
    }
    const auto first_of = [&](int chunk) { return block.begin + (i64)chunk * shape.Q; };
    const auto steps_of = [&](int chunk) { return (int)min((i64)shape.Q, block.end - first_of(chunk)); };
    const auto load_chunk = [&](int chunk)
    {
        const i64 row = block.row, first = first_of(chunk);
        const int steps = steps_of(chunk), group = block.group;
        copy_rows<Block::kStates, kForwardThreads>(block.C, shape.c_at(row, first, group), shape.cStep, steps, shape.N, shape.isBcWide);
        copy_rows<Block::kStates, kForwardThreads>(block.B, shape.b_at(row, first, group), shape.bStep, steps, shape.N, shape.isBcWide);
        rows.copy(shape.x_at(row, first, unit.head) + unit.channel, shape.xStep, steps, unit.channels, shape.isXWide);
        if (unit.mate == 0) block.head(unit.slot).fill(shape, row, first, steps, unit.head);
    };

    if (block.chunks > 0) load_chunk(0);
    for (int chunk = 0; chunk < block.chunks; chunk++)
    {
        if (args.states && (block.firstChunk + chunk) % kChunksOfBorder == 0)
        {
            Border<T>* to = args.states + shape.border(block.border + (block.firstChunk + chunk) / kChunksOfBorder, unit.head) + unit.channel;
            block.ways[warp].states.store(state, to, shape.P, shape.N, unit.channels, shape.isStateWide);
        }
        tile_wait();
        if (args.convolution.weight)
        {
            const int steps = steps_of(chunk);
            __syncwarp();                                     // x is there, which other lanes copied
            unit.window.template convolve<T>([&](int row, int column) { return rows.at(row, column); }, args.convolution.K, steps, round_up(unit.channels, 16));
            if (args.convolved)
            {
                __syncwarp();                                 // what the convolution made of it is there
                rows.store(args.convolved + shape.dense(block.row, first_of(chunk), unit.head) + unit.channel, (i64)shape.H * shape.P, steps, unit.channels, shape.isYWide);
            }
        }
        __syncthreads();                                      // the tiles and decays are there, and no states are on their way any more

        // C·S, and for this warp's 16 rows of B their products with C.
        f32 y[kParts][8][4] = {};
        {
            const int lane = thread_again() % kWarp, low = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
            const u32 sB = shared_address(block.B + (16 * warp + second + low) * kPitch + third), sC = shared_address(block.C + (third + low) * kPitch + second);
            f32* places[2];
            block.pairs.find(places, lane);
            #pragma unroll
            for (int half = 0; half < 2; half++)
            {
                f32 pairs[4][4] = {};
                #pragma unroll
                for (int k = 0; k < kEights / 2; k++)
                {
                    if (16 * k >= usedN) break;
                    u32 left[kParts][4], keys[4];
                    #pragma unroll
                    for (int part = 0; part < kParts; part++) left_of<T>(left[part], state[part][2 * k], state[part][2 * k + 1]);
                    if (2 * half + 1 >= warp) load_matrices(keys, sB + 16 * k * (int)sizeof(T));
                    #pragma unroll
                    for (int i = 0; i < 2; i++)
                    {
                        u32 right[4];
                        load_matrices(right, sC + ((32 * half + 16 * i) * kPitch + 16 * k) * (int)sizeof(T));
                        #pragma unroll
                        for (int part = 0; part < kParts; part++)
                        {
                            mma_16x8x16<T>(y[part][4 * half + 2 * i], left[part], right[0], right[1]);
                            mma_16x8x16<T>(y[part][4 * half + 2 * i + 1], left[part], right[2], right[3]);
                        }
                        if (2 * half + i < warp) continue;
                        mma_16x8x16<T>(pairs[2 * i], keys, right[0], right[1]);
                        mma_16x8x16<T>(pairs[2 * i + 1], keys, right[2], right[3]);
                    }
                }
                #pragma unroll
                for (int e = 0; e < 4; e++)
                    if (2 * half + e / 2 >= warp) SsdPairs::put(places, warp, 4 * half + e, pairs[e]);
            }
        }
        SsdForwardHead& own = block.head(unit.slot);
        #pragma unroll 1
        for (int d = unit.mate; d < kSubtiles; d += unit.mates) own.near.fill(own.decays, d);
        #pragma unroll
        for (int e = 0; e < 8; e++)
        {
            f32 factor[2];
            load<2>(factor, own.decays.fromStart + 8 * e + fragment_column(0));
            #pragma unroll
            for (int part = 0; part < kParts; part++) scale_columns(y[part][e], factor);
        }
        {
            const f32 total = own.decays.total;
            #pragma unroll
            for (int part = 0; part < kParts; part++)
                #pragma unroll
                for (int e = 0; e < kEights; e++)
                    #pragma unroll
                    for (int v = 0; v < 4; v++) state[part][e][v] *= total;
        }
        __syncthreads();                                      // C·Bᵀ and the decays near the diagonal are there

        #pragma unroll 1                                      // more at a time would spill
        for (int J = 0; J < kSubtiles; J++)
        {
            const int lane = thread_again() % kWarp;
            u32 left[kParts][4];
            #pragma unroll
            for (int part = 0; part < kParts; part++) rows.load_left(left[part], part, J, lane);
            #pragma unroll
            for (int I = 0; I < kSubtiles; I++)               // x stands as y does: D·x
            {
                if (I != J) continue;
                #pragma unroll
                for (int part = 0; part < kParts; part++)
                    #pragma unroll
                    for (int v = 0; v < 4; v++)
                    {
                        const f32 skip = unit.skip[16 * part + v % 2 * 8 + lane / 4];
                        f32 (&to)[4] = y[part][2 * I + v / 2];
                        to[v % 2 * 2] = fmaf(skip, low_of<T>(left[part][v]), to[v % 2 * 2]);
                        to[v % 2 * 2 + 1] = fmaf(skip, high_of<T>(left[part][v]), to[v % 2 * 2 + 1]);
                    }
            }
            {
                u32 toEnd[kParts][4];
                #pragma unroll
                for (int part = 0; part < kParts; part++) scale_left<T>(toEnd[part], left[part], own.end + 16 * J, lane);
                const u32 sB = shared_address(block.B + (16 * J + lane / 8 % 2 * 8 + lane % 8) * kPitch + lane / 16 * 8);
                #pragma unroll
                for (int e = 0; e < kEights; e += 2)
                {
                    if (8 * e >= usedN) break;
                    u32 right[4];
                    load_matrices_transposed(right, sB + 8 * e * (int)sizeof(T));
                    #pragma unroll
                    for (int part = 0; part < kParts; part++)
                    {
                        mma_16x8x16<T>(state[part][e], toEnd[part], right[0], right[1]);
                        mma_16x8x16<T>(state[part][e + 1], toEnd[part], right[2], right[3]);
                    }
                }
            }
            f32 column[2][2];
            #pragma unroll
            for (int v = 0; v < 2; v++) load<2>(column[v], own.column + 16 * J + 8 * v + lane % 4 * 2);
            #pragma unroll
            for (int I = 0; I < kSubtiles; I++)
            {
                if (I < J) continue;
                u32 right[4];
                #pragma unroll
                for (int half = 0; half < 2; half++)
                {
                    f32 decay[4];
                    if (I == J) load<4>(decay, own.near.pairs[I][half][lane]);
                    else
                    {
                        const f32 row = own.decays.rowFactor[16 * I + 8 * half + lane / 4] * own.decays.between[I * kSubtiles + J];
                        #pragma unroll
                        for (int v = 0; v < 4; v++) decay[v] = row * column[v / 2][v % 2];
                    }
                    #pragma unroll
                    for (int v = 0; v < 2; v++)
                    {
                        f32 pair[2];
                        load<2>(pair, block.pairs.pairs[SsdPairs::subtile(I, J)][2 * half + v][SsdPairs::place(lane)]);
                        right[2 * half + v] = pair_of<T>(pair[0] * decay[2 * v], pair[1] * decay[2 * v + 1]);
                    }
                }
                #pragma unroll
                for (int part = 0; part < kParts; part++)
                {
                    mma_16x8x16<T>(y[part][2 * I], left[part], right[0], right[1]);
                    mma_16x8x16<T>(y[part][2 * I + 1], left[part], right[2], right[3]);
                }
            }
        }
        __syncthreads();                                      // all tiles and decays have been read by all: the next chunk takes their places, and y that of C·Bᵀ
        if (chunk + 1 < block.chunks) load_chunk(chunk + 1);
        const i64 row = block.row, first = first_of(chunk);
        const int steps = steps_of(chunk);
        SsdTurn<kParts>& turn = block.ways[warp].y;
        const auto put = [&](int r)
        {
            if (r > 0) __syncwarp();                          // the rows before have been read
            #pragma unroll
            for (int part = 0; part < kParts; part++)
                #pragma unroll
                for (int half = 0; half < 2; half++) turn.put(part, half, y[part][2 * r + half]);
            __syncwarp();                                     // 16 rows are there
        };
        store_rows<kWidth, kWarp, 16>(args, turn.rows[0], SsdTurn<kParts>::kPitch, unit.norm, row, first, steps, unit.head, unit.channel, unit.channels, put);
        __syncwarp();                                         // the last rows have been read
    }

    if (block.end < SsdSequence(shape, block.sequence).end) return;
    if (args.convolution.weight) unit.window.close(args.convolution, block.sequence, unit.head * shape.P + unit.channel, unit.channels);
    const int channel = unit.channel, channels = unit.channels;
    f32* to = args.final + shape.state(block.sequence, unit.head) + (i64)channel * shape.N;
    const bool isEven = ((u64)args.final | shape.N * sizeof(f32)) % (2 * sizeof(f32)) == 0;
    #pragma unroll
    for (int part = 0; part < kParts; part++)
        #pragma unroll
        for (int e = 0; e < kEights; e++)
            #pragma unroll
            for (int v = 0; v < 4; v += 2)
            {
                const int p = 16 * part + fragment_row(v), n = 8 * e + fragment_column(v);
                if (p >= channels || n >= shape.N) continue;
                const f32 pair[2] = { state[part][e][v], state[part][e][v + 1] };
                if (isEven) store<2>(to + (i64)p * shape.N + n, pair);
                else
                {
                    to[(i64)p * shape.N + n] = pair[0];
                    if (n + 1 < shape.N) to[(i64)p * shape.N + n + 1] = pair[1];
                }
            }
}

template <typename T>
struct SsdStateForwardArgs                                    // mirrored in CudaSsdScan.cs, field for field
{
    const f32* initial; f32* carried;
    SsdShape<T> shape;
    i32 segments, chunksOfSegment;
};

template <typename T>
__global__ void __launch_bounds__(kSsdThreads, 2) ssd_scan_state_forward(const SsdStateForwardArgs<T> args)
{
    using E = Border<T>;
    constexpr int J = kSide / 16;
    extern __shared__ __align__(16) u8 sMemory[];
    __shared__ SsdDecays sDecays;
    E* sB = reinterpret_cast<E*>(sMemory);                    // [kSteps, kSide]
    E* sX = sB + kTileElements<T>;                             // [kSteps, kSide], then on its way to the end of the chunk
    const SsdShape<T>& shape = args.shape;
    const int slicesN = (shape.N + kSide - 1) / kSide, slicesP = (shape.P + kSide - 1) / kSide;
    const int n0 = blockIdx.x % slicesN * kSide, channel = blockIdx.x / slicesN % slicesP * kSide, head = blockIdx.x / slicesN / slicesP % shape.H, group = head / (shape.H / shape.G);
    const i64 number = blockIdx.x / slicesN / slicesP / shape.H;
    const SsdSequence sequence(shape, number);
    const int warp = threadIdx.x / kWarp, m = warp / 2 * 16, c0 = warp % 2 * 32;
    const int width = min(kSide, shape.N - n0), channels = min(kSide, shape.P - channel), usedP = round_up(channels, 16), columns = usedP - c0;

    f32 state[J][4];                                          // rows n0 + m …, columns channel + c0 …
    #pragma unroll
    for (int j = 0; j < J; j++)
        #pragma unroll
        for (int part = 0; part < 4; part++)
        {
            const int n = m + fragment_row(part), p = c0 + 8 * j + fragment_column(part);
            state[j][part] = args.initial && n < width && p < channels ? args.initial[shape.state(number, head) + (i64)(channel + p) * shape.N + n0 + n] : 0.0f;
        }

    const i64 stretch = (i64)args.chunksOfSegment * shape.Q;  // steps of a segment
    i64 first = sequence.begin;
    for (int segment = 1; sequence.begin + segment * stretch < sequence.end; segment++)
    {
        for (; first < sequence.begin + segment * stretch; first += shape.Q)
        {
            __syncthreads();                                  // the tiles and decays of the chunk before have been read by all
            load_tile<kSide>(sB, shape.b_at(sequence.row, first, group) + n0, shape.bStep, shape.Q, width, shape.isBcWide);
            load_tile<kSide>(sX, shape.x_at(sequence.row, first, head) + channel, shape.xStep, shape.Q, channels, shape.isXWide);
            if (warp == 0) sDecays.fill(shape, sequence.row, first, shape.Q, head);
            tile_wait();
            __syncthreads();                                  // the tiles and decays are there
            for (int k = threadIdx.x; k < kSteps * kSide / 2; k += kSsdThreads)
            {
                const int i = k / (kSide / 2), p = k % (kSide / 2) * 2;
                if (p >= usedP) continue;
                f32 x[2];
                load<2>(x, sX + i * kPitch<T> + p);
                const f32 decay = sDecays.toEnd[i] * sDecays.delta[i];
                put_pair(sX + i * kPitch<T> + p, x[0] * decay, x[1] * decay);
            }
            __syncthreads();                                  // the decayed x is there
            #pragma unroll
            for (int j = 0; j < J; j++)
                #pragma unroll
                for (int part = 0; part < 4; part++) state[j][part] *= sDecays.total;
            if (m < width) multiply<true, true>(state, sB + m, kPitch<T>, sX + c0, kPitch<T>, kSteps, columns);
        }
        f32* to = args.carried + ((number * (args.segments - 1) + segment - 1) * shape.H + head) * (i64)shape.P * shape.N;
        #pragma unroll
        for (int j = 0; j < J; j++)
            #pragma unroll
            for (int part = 0; part < 4; part++)
            {
                const int n = m + fragment_row(part), p = c0 + 8 * j + fragment_column(part);
                if (n < width && p < channels) to[(i64)(channel + p) * shape.N + n0 + n] = state[j][part];
            }
    }
}
