using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Emulator;

/// <summary>kernels/SsdScan*.cu: what they move and multiply against the count by hand, and places beyond 2³¹ elements.</summary>
public sealed class SsdScanKernelTests
{
    private const long L = 128, H = 2, P = 64, N = 64, Q = 64, Chunks = L / Q, Half = 2, Float = 4;

    /// <summary>A lane of the warp that makes the decays asks for A and the bias of its head.</summary>
    private const long ScalarsOfChunk = 32 * Float * 2;

    private static SsdScanInputs Inputs(CountedDevice counted)
    {
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, H)), -1);
        return new(Normal(1, 1, L, H, P), Normal(2, 1, L, H), A, Normal(3, 1, L, 1, N), Normal(4, 1, L, 1, N), counted.Normal(6, H, P), Normal(7, 1, L, H, P), counted.Normal(8, H), null, new SsdScanOptions());
    }

    private static (Tensor Y, Tensor FinalState) Scan(SsdScanInputs x) => ZEngine.Ops.SsdScan(x.X, x.Dt, x.A, x.B, x.C, x.D, x.Z, x.DtBias, x.InitialState, x.Options);

    [Fact]
    public void Traffic_equals_the_headers()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        SsdScanInputs x = Inputs(counted);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[x.X, x.Dt, x.A, x.B, x.C, x.D!, x.Z!, x.DtBias!]) tape.Watch(tensor);
        Tensor dy = counted.Normal(9, 1, L, H, P).To(DType.BFloat16);
        counted.Launches();
        Tensor y = Scan(x).Y;
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();

        CountedDevice.Are(["ssd_scan_forward"], forward);
        // Both heads share a block, so B, C and their product.
        const long skip = P * Float, state = N * P * Float, border = N * P * Half, row = P * Half, inputs = 2 * N * Half;
        CountedDevice.Moved(H * (L * (2 * row + Half) + Chunks * ScalarsOfChunk + skip) + L * inputs, H * (L * 2 * row + border + state), forward[0]);
        // C·Bᵀ and its product with x below the diagonal, in 16 × 16 tiles; C·S and Bᵀ·x whole.
        const long lower = Q * (Q + 16) / 2;
        Assert.Equal(2 * Chunks * (lower * N + H * (lower * P + 2 * Q * N * P)), forward[0].MatrixFlops);
        Assert.Equal(forward[0][InstructionClass.GlobalStore].Sectors, forward[0].GlobalBytesWritten / 32);

        CountedDevice.Are(["ssd_scan_backward", "ssd_scan_sum_backward"], backward);
        // One block has both heads, B and C, and dS in shared memory. Of each head: x, dy, z and y before the gate, dt; D for dx. The state before both chunks is zero; for that between them
        // x, dt and B once more.
        const long between = Q * (row + Half) + ScalarsOfChunk, ofHead = Q * (4 * row + Half) + ScalarsOfChunk + skip;
        CountedDevice.Moved(Chunks * (H * ofHead + Q * inputs) + (H * between) + (Q * N * Half), Chunks * (H * (Q * (2 * row + Half) + (2 + P) * Float) + Q * 2 * N * Half), backward[0]);
        Assert.Equal(2 * (Chunks * (H * (lower * 2 * P + 4 * Q * N * P) + lower * 3 * N) + H * Q * N * P), backward[0].MatrixFlops);
        CountedDevice.Moved(Chunks * H * (2 + P) * Float, H * (2 + P) * Float, backward[1]);
        Assert.All(forward, launch => Assert.Equal(0, launch[InstructionClass.Atomic].Executions));
        Assert.Equal(1, backward[0][InstructionClass.Atomic].Executions);                  // a block's ticket
    }

    /// <summary>Of a chunk more, in floats: x, dt, A by each lane, and B and C, of which B comes again but for its last 64.</summary>
    [Theory, InlineData(64), InlineData(100), InlineData(200)]
    public void Traffic_of_floats_equals_the_header(long n)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        long Read(long length)
        {
            Tensor x = counted.Normal(1, 1, length, 1, 32), dt = counted.Normal(2, 1, length, 1), B = counted.Normal(3, 1, length, 1, n), C = counted.Normal(4, 1, length, 1, n);
            counted.Launches();
            ZEngine.Ops.SsdScan(x, dt, counted.Normal(5, 1), B, C);
            return counted.Launches()[^1].GlobalBytesRead;
        }
        Assert.Equal(Q * (32 + 1 + 2 * n + 64 * ((n - 1) / 64)) * Float + 32 * Float, Read(2 * Q) - Read(Q));
    }

    /// <summary>KERNELS.md's targets for a layer's shapes: two heads of 64 channels and 128 states share B, C and C·Bᵀ.</summary>
    [Fact]
    public void Forward_costs_what_the_targets_allow()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long heads = 4, states = 128;
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        Tensor x = Normal(1, 1, L, heads, P), dt = Normal(2, 1, L, heads), B = Normal(3, 1, L, 1, states), C = Normal(4, 1, L, 1, states), A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1);
        counted.Launches();
        Scan(new SsdScanInputs(x, dt, A, B, C, null, null, null, null, new SsdScanOptions()));
        LaunchProfile launch = Assert.Single(counted.Launches());
        // Of a layer of 80 heads: what each block moved, 40 times, against everything once.
        const long layer = 80, least = L * (2 * layer * P + layer + 2 * states) * Half, final = heads * P * states * Float;
        double moved = (launch.GlobalBytesRead + launch.GlobalBytesWritten - final) * (layer / (double)heads) / least;
        Assert.InRange(moved, 1, 2.0);
        Assert.True(launch.MatrixFlops <= 1.15 * L * (heads * (2 * Q * P + 4 * P * states) + 2 * Q * states), "tensor-core operations against the formula");
        double special = (launch.Of("ex2").Threads + launch.Of("lg2").Threads + launch.Of("rcp").Threads) / (double)(L * heads);
        Assert.InRange(special, 1, 16);
        Assert.Equal(0, launch[InstructionClass.Atomic].Executions);
        Assert.Equal(launch[InstructionClass.GlobalStore].Sectors, launch.GlobalBytesWritten / 32);
    }

    /// <summary>What ssd_scan_backward costs, by its header: whole chunks without gate, D, bias and initial state.</summary>
    /// <param name="Read">Bytes that come to the multiprocessors.</param>
    /// <param name="Written">Bytes that leave them.</param>
    /// <param name="Flops">Operations of products, on the tensor cores in 16 bits.</param>
    /// <param name="Scratch">Bytes of memory beside operands and results.</param>
    /// <param name="Memory">Bytes of memory, each place once where it is read and once where it is written.</param>
    private readonly record struct SweepCost(double Read, double Written, double Flops, double Scratch, double Memory)
    {
        public static SweepCost Of(SsdSweepPlan plan, DType type, double sequences, double steps, double heads, double states, double groups)
        {
            double element = type.Size, inTile = SsdPlan.ElementBytes(type), chunks = steps / Q, between = Math.Floor(chunks / 2), ofGroup = heads / groups, lower = Q * (Q + 16) / 2.0, more = plan.Passes - 1;
            double pieces = P / (double)SsdPlan.Piece(type), slices = Math.Ceiling(states / 64), slot = SsdPlan.SlotFloats(type) * Float, tile = 64 * 64 * Float, handed = (pieces * slot) + (SsdSweepPlan.HandedSums * Float);
            double perGroup = sequences * groups, perHead = sequences * heads, border = states * P * inTile, ofB = Q * states * element, scalars = ScalarsOfChunk / 2, row = (P * element) + element;
            // Slots of dS in global memory.
            double outside = perGroup * Enumerable.Range(0, plan.Shares).Sum(share => Math.Max(0, (Math.Min(plan.Heads, ofGroup - (share * plan.Heads)) * pieces * slices) - plan.SharedSlots));
            double turns = perGroup * chunks * (plan.Shares - 1) * 2 * slices * tile;
            // For C·Bᵀ, which the last pass makes, B and C of the passes before once more.
            double twice = more * plan.Slices * 64 / states;
            double read = (perHead * chunks * ((plan.Passes * ((Q * (row + (P * element))) + scalars)) + border)) - (perHead * Math.Min(2, chunks) * border) + (perHead * between * plan.Passes * ((Q * row) + scalars))
                + (between * ofB * (plan.IsBeforeKept ? perGroup * plan.Shares : perHead * pieces)) + (perGroup * chunks * plan.Shares * 2 * ofB * (1 + twice)) + (outside * chunks * slot) + (perHead * chunks * more * handed) + turns;
            double written = (perHead * chunks * ((Q * row) + (2 * Float))) + (perGroup * chunks * 2 * ofB) + (outside * (chunks + plan.Segments) * slot) + (perHead * chunks * more * handed) + turns
                + (perGroup * chunks * (plan.Shares - 1) * plan.Passes * Float);
            double flops = 2 * ((perHead * ((chunks * ((lower * (plan.Passes + 1) * P) + (4 * Q * states * P))) + (between * Q * states * P))) + (perGroup * chunks * plan.Shares * lower * 3 * states));
            double scratch = (outside * plan.Segments * slot) + (plan.Shares > 1 ? perGroup * chunks * 2 * slices * tile : 0) + (perHead * chunks * 2 * Float) + (perHead * (plan.Segments - 1) * pieces * slices * slot)
                + (more > 0 ? perHead * plan.Segments * handed : 0);
            double once = (perHead * ((steps * ((3 * P) + 2) * element) + ((Math.Ceiling(chunks / 2) - 1) * border))) + (perGroup * steps * 4 * states * element);
            // Segments: dy, dt and C once more.
            double again = plan.Segments > 1 ? (perHead * steps * row) + (perGroup * steps * states * element) : 0;
            return new(read, written, flops, scratch, once + again + (2 * scratch));
        }
    }

    /// <summary>
    /// The sweep costs what is counted by hand: blocks that take turns, dS in shared and in global memory, states between borders, B of the chunk before kept or not, one pass and several.
    /// Multiply-adds in floats, where there are no tensor cores, are more: those of sums and factors besides.
    /// </summary>
    [Theory]
    [InlineData(DType.BFloat16, 64, 80, 1), InlineData(DType.BFloat16, 128, 80, 1), InlineData(DType.BFloat16, 128, 86, 1), InlineData(DType.BFloat16, 128, 90, 1)]
    [InlineData(DType.BFloat16, 256, 80, 1), InlineData(DType.BFloat16, 256, 86, 2), InlineData(DType.Float32, 64, 86, 1), InlineData(DType.Float32, 128, 80, 1), InlineData(DType.Float32, 128, 86, 2)]
    [InlineData(DType.Float32, 256, 80, 2), InlineData(DType.Float32, 256, 86, 4), InlineData(DType.Float32, 256, 90, 1), InlineData(DType.Float16, 128, 80, 1)]
    public void Sweep_costs_what_its_header_says(DType type, long states, int architecture, int passes)
    {
        using var counted = new CountedDevice(architecture);
        using Tape tape = Tape.Begin();
        long heads = states == 256 ? 5 : 9, steps = 3 * Q;
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(type);
        Tensor x = Normal(1, 1, steps, heads, P), dt = Normal(2, 1, steps, heads), B = Normal(3, 1, steps, 1, states), C = Normal(4, 1, steps, 1, states);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1), dy = Normal(6, 1, steps, heads, P);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[x, dt, A, B, C]) tape.Watch(tensor);
        Tensor y = Scan(new SsdScanInputs(x, dt, A, B, C, null, null, null, null, new SsdScanOptions())).Y;
        counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["ssd_scan_backward", "ssd_scan_sum_backward"], launches);
        SsdSweepPlan plan = SsdSweepPlan.For((int)states, (int)P, (int)heads, 1, type, 1, steps, (int)Q, counted.Device.Multiprocessors, counted.Device.SharedBytesPerBlock);
        Assert.Equal((4, heads == 5 ? 2 : 3, passes), (plan.Heads, plan.Shares, plan.Passes));
        SweepCost cost = SweepCost.Of(plan, type, 1, steps, heads, states, 1);
        bool isTensor = SsdPlan.ElementBytes(type) == 2;
        Assert.Equal((cost.Written, isTensor ? cost.Flops : 0), (launches[0].GlobalBytesWritten, launches[0].MatrixFlops));
        if (!isTensor) Assert.InRange(launches[0].Of("fma").Threads, cost.Flops / 2, 1.1 * cost.Flops / 2);
        Assert.Equal(cost.Read, launches[0].GlobalBytesRead - launches[0].Of("ld.volatile.global").Bytes);          // but for looks at whose turn it is
        Assert.Equal(plan.Shares, launches[0][InstructionClass.Atomic].Executions);        // a ticket each
    }

    /// <summary>
    /// The backward pass of a layer, 8 sequences of 2048 steps with 80 heads, against KERNELS.md's targets: bytes of memory at most 1.6 times the least, bytes to the multiprocessors 3,
    /// operations of products 1.2 times the formula, scratch a quarter of x. With 128 states in 16 bits and 99 KiB of shared memory no dS fits there, and 3.0 would take all heads in one
    /// block. States at every border would give 3.0 (84 multiprocessors), but 1.75 of memory; dS at every border besides, chunks all at once, gave 2.7 and 3.4, and scratch of two x.
    /// With 256 states in 16 bits a head's dS is 1 KB a step, 2.5 times the least, and its states 0.5 KB, and no multiprocessor holds both and the sums of dB and dC, 2 KB a step and block:
    /// two chunks at a time would halve the former, but take twice the sums, for which there is no place. States at every fourth border would give memory 1.5, but recomputing three from
    /// one, 1.5 times x and B of a head more, reads 2.3 more; two passes where one fits read 1.0 to 1.2 more. Before there was a sweep of them these were memory 5.6, read 10.3, scratch 5.0.
    /// Floats double the least and not dS: they meet the targets but where shared memory holds B and C of 64 states only, and with 256. Float16 has its states, dS and tiles in floats.
    /// Memory's bytes hold where the L2 cache holds the slots of all blocks that run, at most 21 MB with 128 states here; with 6 MB of it, as some of sm_86 have, dS adds up to 2.6 (1.3 with 64).
    /// </summary>
    [Theory]
    [InlineData(DType.BFloat16, 64, 108, 163, 1.20, 1.70, 0.86, 0.08), InlineData(DType.BFloat16, 64, 84, 99, 1.23, 2.03, 0.85, 0.11), InlineData(DType.BFloat16, 64, 128, 99, 1.22, 2.19, 0.87, 0.10), InlineData(DType.BFloat16, 64, 132, 227, 1.19, 1.54, 0.87, 0.05)]
    [InlineData(DType.BFloat16, 128, 108, 163, 1.43, 2.99, 0.90, 0.20), InlineData(DType.BFloat16, 128, 84, 99, 1.44, 3.46, 0.89, 0.23), InlineData(DType.BFloat16, 128, 128, 99, 1.44, 3.74, 0.91, 0.23), InlineData(DType.BFloat16, 128, 132, 227, 1.39, 2.59, 0.91, 0.14)]
    [InlineData(DType.BFloat16, 256, 108, 163, 1.85, 5.91, 0.92, 0.43), InlineData(DType.BFloat16, 256, 84, 99, 1.90, 7.48, 0.94, 0.51), InlineData(DType.BFloat16, 256, 128, 99, 1.90, 8.13, 0.97, 0.51), InlineData(DType.BFloat16, 256, 132, 227, 1.84, 5.60, 0.94, 0.41)]
    [InlineData(DType.Float32, 64, 108, 163, 1.18, 1.52, 0.86, 0.04), InlineData(DType.Float32, 64, 84, 99, 1.19, 1.93, 0.85, 0.06), InlineData(DType.Float32, 64, 128, 99, 1.19, 2.03, 0.87, 0.06), InlineData(DType.Float32, 64, 132, 227, 1.17, 1.41, 0.87, 0.03)]
    [InlineData(DType.Float32, 128, 108, 163, 1.37, 2.46, 0.90, 0.11), InlineData(DType.Float32, 128, 84, 99, 1.39, 4.20, 0.94, 0.14), InlineData(DType.Float32, 128, 128, 99, 1.39, 4.44, 0.96, 0.14), InlineData(DType.Float32, 128, 132, 227, 1.36, 2.35, 0.91, 0.09)]
    [InlineData(DType.Float32, 256, 108, 163, 1.74, 5.27, 0.95, 0.26), InlineData(DType.Float32, 256, 84, 99, 1.74, 8.54, 1.00, 0.26), InlineData(DType.Float32, 256, 128, 99, 1.74, 9.05, 1.02, 0.26), InlineData(DType.Float32, 256, 132, 227, 1.71, 5.26, 0.94, 0.21)]
    [InlineData(DType.Float16, 128, 108, 163, 1.74, 3.88, 0.90, 0.23), InlineData(DType.Float16, 128, 84, 99, 1.78, 5.92, 0.94, 0.29), InlineData(DType.Float16, 128, 128, 99, 1.78, 6.25, 0.96, 0.29), InlineData(DType.Float16, 128, 132, 227, 1.71, 3.58, 0.91, 0.18)]
    public void Backward_of_a_layer_costs_what_the_targets_allow(DType type, int states, int multiprocessors, int kibibytes, double memory, double read, double flops, double scratch)
    {
        const int sequences = 8, steps = 2048, heads = 80;
        SsdSweepPlan plan = SsdSweepPlan.For(states, (int)P, heads, 1, type, sequences, steps, (int)Q, multiprocessors, kibibytes << 10);
        SweepCost cost = SweepCost.Of(plan, type, sequences, steps, heads, states, 1);
        double tokens = sequences * (double)steps, element = type.Size;
        double least = tokens * element * ((heads * ((3 * P) + 2)) + (4 * states)), formula = tokens * ((heads * ((4 * Q * P) + (10.0 * P * states))) + (6.0 * Q * states));
        Assert.Equal((memory, read, flops, scratch), (Math.Round(cost.Memory / least, 2), Math.Round(cost.Read / least, 2), Math.Round(cost.Flops / formula, 2), Math.Round(cost.Scratch / (tokens * heads * P * element), 2)));
        Assert.True(flops <= 1.2);
        bool isMet = type != DType.Float16 && states <= 128;
        Assert.Equal(isMet, memory <= 1.6 && scratch <= 0.25);
        Assert.Equal(isMet && (states == 64 || kibibytes > 99), read <= 3);
    }
    /// <summary>As one sequence is walked backward in segments, of an odd number of chunks, and one among several is not: the same gradients, that of the state before it too.</summary>
    [Theory]
    [InlineData(DType.BFloat16), InlineData(DType.Float32)]
    public void Segments_change_no_bit_of_gradients(DType type)
    {
        using var counted = new CountedDevice(87);
        using TensorScope scope = TensorScope.Enter();
        const long steps = 66, p = 8, n = 6, many = 9;
        Assert.Equal((1, 2, 9), (SsdSweepPlan.For(6, 8, 1, 1, DType.BFloat16, (int)many, steps, 4, 16, 163 << 10).Segments, SsdSweepPlan.For(6, 8, 1, 1, DType.BFloat16, 1, steps, 4, 16, 163 << 10).Segments, SsdSweepPlan.For(6, 8, 1, 1, DType.BFloat16, 1, steps, 4, 16, 163 << 10).ChunksOfSegment));
        Tensor Typed(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(type);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, 1)), -0.01f); // so slow that what is rounded of dS behind one segment is seen before the other
        Tensor[] of = [Typed(1, 1, steps, 1, p), Typed(2, 1, steps, 1), Typed(3, 1, steps, 1, n), Typed(4, 1, steps, 1, n), Typed(6, 1, steps, 1, p), counted.Normal(7, 1, 1, p, n), Typed(8, 1, steps, 1, p), counted.Normal(9, 1, 1, p, n)];
        float[][] Gradients(Tensor[] x, params string[] kernels)
        {
            var inputs = new SsdScanInputs(x[0], x[1], A, x[2], x[3], null, x[4], null, x[5], new SsdScanOptions(ChunkLength: 4));
            (Tensor y, Tensor ungated, Tensor final, Tensor states) = (Tensor.EmptyLike(x[0]), Tensor.EmptyLike(x[0]), Tensor.EmptyLike(x[5]), x[0].Backend.SsdStates(inputs));
            x[0].Backend.SsdScanForward(inputs, y, final, states, ungated);
            SsdScanInputs d = inputs.EmptyLike();
            counted.Launches();
            x[0].Backend.SsdScanBackward(inputs, states, ungated, x[6], x[7], d);
            CountedDevice.Are(kernels, counted.Launches());
            return [.. new[] { d.X, d.Dt, d.B, d.C, d.Z!, d.InitialState! }.Select(tensor => tensor.Slice(0, tensor.Shape[0] - 1, 1).To(DType.Float32).ToArray<float>())];
        }
        float[][] one = Gradients(of, "ssd_scan_state_backward", "ssd_scan_backward", "ssd_scan_sum_backward");
        float[][] last = Gradients([.. of.Select(tensor => ZEngine.Ops.Concat(0, [.. Enumerable.Repeat(tensor, (int)many)]))], "ssd_scan_backward", "ssd_scan_sum_backward");
        for (int k = 0; k < one.Length; k++) Assert.Equal(last[k], one[k]);
    }

    /// <summary>So many packed sequences that rows of a batch would have more heads to a block, which rounds sums for B and C in other places; and chunks of several sequences in segments.</summary>
    [Theory]
    [InlineData(DType.BFloat16, 16, 5, 3), InlineData(DType.Float32, 16, 5, 3), InlineData(DType.BFloat16, 2, 3, 34)]
    public void Packed_sequences_have_the_gradients_of_each_alone(DType type, long heads, int sequences, long each)
    {
        using var counted = new CountedDevice(87);
        using TensorScope scope = TensorScope.Enter();
        const long p = 8, n = 8;
        int Heads(int rows, bool isPacked) => SsdSweepPlan.For((int)n, (int)p, (int)heads, 1, type, rows, each, (int)each, counted.Device.Multiprocessors, counted.Device.SharedBytesPerBlock, isPacked).Heads;
        Assert.Equal((Heads(1, false), heads == 16), (Heads(sequences, true), Heads(sequences, false) != Heads(1, false)));
        long length = sequences * each;
        Tensor Typed(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(type);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1);
        PackedLaw.Holds([.. Enumerable.Repeat(each, sequences)],
            (x, state, all, layout) => ZEngine.Ops.SsdScan(x[0], x[1], all[0], x[2], x[3], z: x[4], initialState: state, options: new SsdScanOptions(ChunkLength: each < 16 ? 0 : 2, Layout: layout)),
            [Typed(1, 1, length, heads, p), Typed(2, 1, length, heads), Typed(3, 1, length, 1, n), Typed(4, 1, length, 1, n), Typed(6, 1, length, heads, p)], counted.Normal(8, sequences, heads, p, n), [A],
            Typed(7, 1, length, heads, p), counted.Normal(9, sequences, heads, p, n));
    }

    /// <summary>A device with less shared memory walks the states in more passes, by another instance of the kernel: the same gradients, but for how the compiler joins products and sums.</summary>
    [Theory]
    [InlineData(DType.BFloat16, 200, 1, 2), InlineData(DType.Float32, 72, 1, 2), InlineData(DType.Float32, 200, 2, 4)]
    public void Passes_give_the_same_gradients(DType type, long states, int passes, int more)
    {
        float[][] Gradients(int architecture, int passes)
        {
            using var counted = new CountedDevice(architecture);
            using Tape tape = Tape.Begin();
            const long steps = 40, p = 40;
            Assert.Equal(passes, SsdSweepPlan.For((int)states, (int)p, 2, 1, type, 1, steps, 16, counted.Device.Multiprocessors, counted.Device.SharedBytesPerBlock).Passes);
            Tensor Typed(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(type);
            Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, 2)), -1);
            Tensor[] x = [Typed(1, 1, steps, 2, p), Typed(2, 1, steps, 2), A, Typed(3, 1, steps, 1, states), Typed(4, 1, steps, 1, states), Typed(6, 1, steps, 2, p), counted.Normal(7, 1, 2, p, states)];
            foreach (Tensor tensor in x) tape.Watch(tensor);
            (Tensor y, Tensor final) = Scan(new SsdScanInputs(x[0], x[1], x[2], x[3], x[4], null, x[5], null, x[6], new SsdScanOptions(ChunkLength: 16)));
            tape.Backward([y, final], [Typed(8, 1, steps, 2, p), counted.Normal(9, 1, 2, p, states)]);
            var gradients = new List<float[]>();
            foreach (Tensor tensor in x) gradients.Add(tape.GradientOf(tensor).To(DType.Float32).ToArray<float>());
            return [.. gradients];
        }
        float[][] few = Gradients(80, passes), many = Gradients(86, more);
        double epsilon = type == DType.Float32 ? 1e-6 : Oracles.Close.BFloat16Epsilon;
        for (int k = 0; k < few.Length; k++)
        {
            double scale = Math.Sqrt(few[k].Average(value => (double)value * value));
            for (int i = 0; i < few[k].Length; i++) Assert.True(Math.Abs(few[k][i] - many[k][i]) <= epsilon * (scale + Math.Abs(few[k][i])), $"gradient {k} at {i}: {few[k][i]:R}, {many[k][i]:R}");
        }
    }

    /// <summary>Blocks for every multiprocessor but never more than one: by heads as long as four of them share a block, then by segments of time.</summary>
    [Theory]
    [InlineData(8, 80, 1, 2048, 5, 16, 1), InlineData(32, 80, 1, 2048, 8, 10, 1), InlineData(2, 80, 1, 2048, 4, 20, 3), InlineData(1, 80, 1, 65536, 4, 20, 6), InlineData(1, 80, 1, 512, 4, 20, 1)]
    [InlineData(8, 64, 8, 2048, 4, 2, 1), InlineData(1, 2, 2, 100, 1, 1, 1), InlineData(0, 4, 1, 100, 4, 1, 1)]
    public void Sweeps_fill_the_device_once(int sequences, int heads, int groups, long steps, int own, int shares, int segments)
    {
        SsdSweepPlan plan = SsdSweepPlan.For(128, 64, heads, groups, DType.BFloat16, sequences, steps, 64, 132, 227 << 10);
        Assert.Equal((own, shares, segments), (plan.Heads, plan.Shares, plan.Segments));
    }

    /// <summary>Registers and shared memory leave a block of two teams, or two of one, on a multiprocessor of every architecture.</summary>
    [Theory]
    [InlineData("sm_80", 163), InlineData("sm_86", 99), InlineData("sm_89", 99), InlineData("sm_90", 227)]
    public void Blocks_fit_every_architecture(string architecture, int kibibytes)
    {
        (string, string, int, int) Sweep(DType type, string name, int states)
        {
            SsdSweepPlan plan = SsdSweepPlan.For(states, 64, 80, 1, type, 8, 2048, 64, 132, kibibytes << 10);
            return ("SsdScanBackward.cu", $"ssd_scan_backward<{name}, {plan.Slices}, {(plan.Passes == 1 ? "true" : "false")}>", 255, plan.SharedBytes);
        }
        foreach ((string file, string name, int registers, int shared) in (ReadOnlySpan<(string, string, int, int)>)
        [
            ("SsdScanForward.cu", "ssd_scan_forward<bf16, 1>", 255, SsdPlan.For(64, 64, 80, 1, DType.BFloat16, 8, 2048, 64, 132, 99 << 10).SharedBytes),
            ("SsdScanForward.cu", "ssd_scan_forward<bf16, 2>", 255, SsdPlan.For(128, 64, 80, 1, DType.BFloat16, 8, 2048, 64, 132, 99 << 10).SharedBytes),
            ("SsdScanForward.cu", "ssd_scan_forward<bf16, 4>", 255, SsdPlan.For(256, 64, 80, 1, DType.BFloat16, 8, 2048, 64, 132, 99 << 10).SharedBytes),
            ("SsdScanForwardFloat.cu", "ssd_scan_forward_float<f32, 2>", 128, SsdPlan.For(128, 64, 80, 1, DType.Float32, 8, 2048, 64, 132, 99 << 10).SharedBytes),
            ("SsdScanForward.cu", "ssd_scan_state_forward<bf16>", 128, 2 * SsdPlan.TileBytes(DType.BFloat16)),
            ("SsdScanStateBackward.cu", "ssd_scan_state_backward<bf16, 2, 2>", 128, SsdPlan.StateShared(2, 2, DType.BFloat16)),
            ("SsdScanStateBackward.cu", "ssd_scan_state_backward<f32, 1, 1>", 128, SsdPlan.StateShared(1, 1, DType.Float32)),
            Sweep(DType.BFloat16, "bf16", 64), Sweep(DType.BFloat16, "bf16", 128), Sweep(DType.BFloat16, "bf16", 256),
            Sweep(DType.Float32, "f32", 64), Sweep(DType.Float32, "f32", 128), Sweep(DType.Float32, "f32", 256), Sweep(DType.Float16, "f16", 128),
        ])
        {
            ModuleImage image = Compiler.CompileKernel(file, architecture, name);
            KernelResources used = image.Resources[image.Lowered(name)];
            Assert.True(used.Registers <= registers && used.SpillLoadBytes + used.SpillStoreBytes + used.StackBytes == 0, $"{name} on {architecture}: {used}");
            Assert.InRange(shared + used.SharedBytes, 1, kibibytes << 10);
        }
    }

    [Fact]
    public void A_step_is_one_launch_that_reads_and_writes_the_state_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long batch = 3;
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
        Tensor A = counted.Normal(5, H), state = counted.Normal(6, batch, H, P, N), B = Normal(3, batch, 1, 1, N);
        var x = new SsdScanInputs(Normal(1, batch, 1, H, P), Normal(2, batch, 1, H), A, B, B, null, null, null, state, new SsdScanOptions());
        counted.Launches();
        Scan(x);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["ssd_scan_step"], launches);
        LaunchProfile step = launches[0];
        // Four channels of a warp read B and C once; 16 of its lanes have 4 states each, and ask for each channel's x. dt and A are asked for by every thread; the lane that writes y reads nothing more.
        const long warps = P / 4, perHead = N * P * Float + warps * (2 * N * Half + 16 * 4 * Half) + warps * 32 * (Half + Float);
        CountedDevice.Moved(batch * H * perHead, batch * H * (N * P * Float + P * Half), step);
    }

    /// <summary>Rows so far apart that x, dt, B, C and z reach beyond 2³¹ elements, most of which nobody ever touches.</summary>
    [Theory]
    [InlineData(3), InlineData(40)]                           // a chunk, and enough of them for segments
    public void Offsets_have_64_bits(long length)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long far = 1L << 31, heads = 2, p = 8, n = 8;
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1);
        Tensor dy = counted.Normal(8, 2, length, heads, p).To(DType.BFloat16), memory = Tensor.Empty([2, far], DType.BFloat16, counted.Device);
        Tensor[] near = [counted.Normal(1, 2, length, heads, p), counted.Normal(3, 2, length, 1, n), counted.Normal(4, 2, length, 1, n), counted.Normal(6, 2, length, heads, p), counted.Normal(2, 2, length, heads)];
        near = [.. near.Select(tensor => tensor.To(DType.BFloat16))];
        long at = 0;
        Tensor Spread(Tensor tensor)
        {
            long inner = tensor.Count / 2;
            Tensor spread = memory.Slice(1, at, inner);
            at += inner;
            ZEngine.Ops.Copy(tensor.Reshape(2, inner), spread);
            return spread.Reshape(tensor.Shape.ToArray());
        }
        float[][] Results(Tensor[] x)
        {
            using Tape tape = Tape.Begin();
            foreach (Tensor tensor in x) tape.Watch(tensor);
            (Tensor y, Tensor final) = Scan(new SsdScanInputs(x[0], x[4], A, x[1], x[2], null, x[3], null, null, new SsdScanOptions(ChunkLength: length < 16 ? 0 : 2)));
            tape.Backward(y, dy);
            var results = new List<float[]> { y.To(DType.Float32).ToArray<float>(), final.ToArray<float>() };
            foreach (Tensor tensor in x) results.Add(tape.GradientOf(tensor).To(DType.Float32).ToArray<float>());
            return [.. results];
        }
        Tensor[] spread = [.. near.Select(Spread)];
        Assert.All(spread, tensor => Assert.True(tensor.Strides[0] >= far));
        float[][] want = Results(near), got = Results(spread);
        for (int k = 0; k < want.Length; k++)
        {
            Assert.Equal(want[k], got[k]);
            Assert.NotEqual(0, got[k][0]);
            Assert.NotEqual(0, got[k][^1]);
        }
    }

    /// <summary>Channels of all heads, and sums of a chunk over them, that 32 bits cannot count.</summary>
    [Fact]
    public void Sizes_beyond_32_bits_are_refused()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor Of(DType type, params ReadOnlySpan<long> shape) => Tensor.Empty(shape, type, counted.Device);
        SsdScanInputs Inputs(long heads, long p) => new(
            Of(DType.BFloat16, 1, 1, heads, p), Of(DType.BFloat16, 1, 1, heads), Of(DType.Float32, heads), Of(DType.BFloat16, 1, 1, 1, 1), Of(DType.BFloat16, 1, 1, 1, 1), Of(DType.Float32, heads, p),
            null, null, null, new SsdScanOptions(ChunkLength: 1));
        SsdScanInputs channels = Inputs(1 << 16, 1 << 15), sums = Inputs(1 << 29, 2);
        Assert.Contains("SsdScan: H·P is 2,147,483,648", Assert.Throws<NotSupportedException>(
            () => channels.X.Backend.SsdScanForward(channels, Tensor.EmptyLike(channels.X), Of(DType.Float32, 1, 1 << 16, 1 << 15, 1), null, null)).Message, StringComparison.Ordinal);
        Assert.Contains("SsdScan: H·(2 + skips) is 2,147,483,648", Assert.Throws<NotSupportedException>(
            () => sums.X.Backend.SsdScanBackward(sums, sums.X.Backend.SsdStates(sums), null, sums.X, null, sums)).Message, StringComparison.Ordinal);
    }

    /// <summary>Gradients whose steps are parts of rows so wide that they reach beyond 2³¹ elements: the bits of those that lie together.</summary>
    [Theory]
    [InlineData(DType.BFloat16), InlineData(DType.Float32)]
    public void Gradients_in_wider_rows_have_64_bits(DType type)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long far = 1L << 30, batch = 2, length = 3, heads = 2, p = 8, n = 8;
        Tensor Typed(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(type);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1), x = Typed(1, batch, length, heads, p), dy = Typed(6, batch, length, heads, p);
        var inputs = new SsdScanInputs(x, Typed(2, batch, length, heads), A, Typed(3, batch, length, 1, n), Typed(4, batch, length, 1, n), null, null, null, null, new SsdScanOptions(ChunkLength: 2));
        Tensor y = Tensor.EmptyLike(x), final = Tensor.Empty([batch, heads, p, n], DType.Float32, counted.Device), states = x.Backend.SsdStates(inputs);
        x.Backend.SsdScanForward(inputs, y, final, states, null);
        Tensor memory = Tensor.Empty([batch * length, far], type, counted.Device);
        long at = 0;
        Tensor Spread(Tensor like)
        {
            long inner = like.Count / (batch * length), first = at;
            at += (inner + 7) / 8 * 8;
            return memory.Slice(1, first, inner).Reshape(like.Shape.ToArray());
        }
        float[][] Gradients(SsdScanInputs d)
        {
            x.Backend.SsdScanBackward(inputs, states, null, dy, null, d);
            return [.. new[] { d.X, d.Dt, d.B, d.C }.Select(tensor => tensor.To(DType.Float32).ToArray<float>())];
        }
        SsdScanInputs near = inputs.EmptyLike(), wide = inputs.EmptyLike() with { X = Spread(inputs.X), Dt = Spread(inputs.Dt), B = Spread(inputs.B), C = Spread(inputs.C) };
        Assert.True((batch * length - 1) * wide.X.Strides[1] > 1L << 31);
        float[][] want = Gradients(near), got = Gradients(wide);
        for (int k = 0; k < want.Length; k++)
        {
            Assert.Equal(want[k], got[k]);
            Assert.True(got[k][0] != 0 && got[k][^1] != 0);
        }
    }
}
