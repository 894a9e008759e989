using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Cuda;

/// <summary>What the selective scan's kernels cost: launches, bytes, exponentials, registers; and what they refuse.</summary>
public sealed class SelectiveScanKernelTests
{
    private const long Length = 32, Channels = 128, States = 16;

    /// <summary>Inputs of [1, 32, 128] with 16 states, and everything that is optional.</summary>
    private sealed class Inputs(CountedDevice counted, DType dtype, long length = Length)
    {
        public Tensor U { get; } = counted.Normal(1, 1, length, Channels).To(dtype);
        public Tensor Dt { get; } = counted.Normal(2, 1, length, Channels).To(dtype);
        public Tensor Z { get; } = counted.Normal(3, 1, length, Channels).To(dtype);
        public Tensor B { get; } = counted.Normal(4, 1, length, 1, States).To(dtype);
        public Tensor C { get; } = counted.Normal(5, 1, length, 1, States).To(dtype);
        public Tensor A { get; } = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(6, Channels, States)), -1);
        public Tensor D { get; } = counted.Normal(7, Channels);
        public Tensor Bias { get; } = counted.Normal(8, Channels);
        public Tensor Initial { get; } = counted.Normal(9, 1, Channels, States);

        public (Tensor Y, Tensor FinalState) Scan() => ZEngine.Ops.SelectiveScan(U, Dt, A, B, C, D, Z, Bias, Initial);

        public void Watch(scoped in Tape tape)
        {
            foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[U, Dt, Z, B, C, A, D, Bias, Initial]) tape.Watch(tensor);
        }
    }

    [Theory]
    [InlineData(DType.BFloat16)]
    [InlineData(DType.Float32)]
    public void Traffic_equals_the_header(DType dtype)
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        var x = new Inputs(counted, dtype);
        x.Watch(tape);
        Tensor dy = counted.Normal(10, 1, Length, Channels).To(dtype);
        counted.Launches();
        Tensor y = x.Scan().Y;
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();

        // So few channels that a forward block has 32 of them.
        const long vector = 4 * Channels, state = vector * States, intervals = Length / 32, forwardBlocks = Channels / 32, backwardBlocks = Channels / 64, sums = (States + 2) * vector;
        long rows = Length * dtype.Size, turns = (backwardBlocks - 1) * 2 * Length * States * 4, told = (backwardBlocks - 1) * Length / 16 * 4;
        CountedDevice.Are(["selective_scan_forward"], forward);
        CountedDevice.Moved(rows * (3 * Channels + 2 * States * forwardBlocks) + 2 * state + 3 * vector, rows * Channels + state + intervals * state, forward[0]);
        CountedDevice.Are(["selective_scan_backward", "selective_scan_sum_backward"], backward);
        Assert.Equal((rows * (4 * Channels + 2 * States * backwardBlocks) + (1 + intervals) * state + 2 * vector + turns, rows * 3 * Channels + rows * 2 * States + turns + told + sums + state), (Read(backward[0]), backward[0].GlobalBytesWritten));
        CountedDevice.Moved(sums, state + 2 * vector, backward[1]);

        // Rows come and go in accesses of 16 bytes and whole sectors.
        InstructionCounter copies = forward[0].Of("cp.async.cg");
        Assert.Equal((16 * copies.Threads, copies.Bytes / 32), (copies.Bytes, copies.Sectors));
        copies = backward[0].Of("cp.async.cg");
        Assert.Equal((16 * copies.Threads, copies.Bytes / 32), (copies.Bytes, copies.Sectors));
        Assert.Equal(0, forward[0][InstructionClass.Atomic].Executions);
        Assert.Equal(backwardBlocks, backward[0][InstructionClass.Atomic].Executions);     // a ticket each
    }

    /// <summary>What a launch reads but for looks at whose turn it is.</summary>
    private static long Read(LaunchProfile launch) => launch.GlobalBytesRead - launch.Of("ld.volatile").Bytes;

    /// <summary>
    /// What the multiprocessors read and write against what any scan must, and what of it is memory's: the sums for B and C that blocks hand on stay in the L2 cache, and all other places
    /// are read once and written once. KERNELS.md's targets are 1.3 and 1.5 to the multiprocessors, 1.05 and 1.15 of memory. What is over them in the forward pass of training are the kept
    /// states, 2 bytes a step and channel of 8. One for 64 steps (1.13), with the state between made by one more walk, was built: 2.4 exponentials in place of 1.9, and forward and backward
    /// together an estimated time of 7 in a hundred more on an H200; one for 128 (1.06) 9 in a hundred (bench/README.md).
    /// </summary>
    [Fact]
    public void Bytes_stay_near_the_least()
    {
        using var counted = new CountedDevice();
        const long length = 512, half = 2, state = 4 * Channels * States, parameters = 8 * Channels, matrices = 2 * length * States * half, kept = length / 32 * state;
        long forward = 0, training = 0, backward = 0, ofMemory = 0;
        using (TensorScope scope = TensorScope.Enter())
        {
            var x = new Inputs(counted, DType.BFloat16, length);
            counted.Launches();
            x.Scan();
            forward = Bytes(counted.Launches());
        }
        using (Tape tape = Tape.Begin())
        {
            var x = new Inputs(counted, DType.BFloat16, length);
            x.Watch(tape);
            Tensor dy = counted.Normal(10, 1, length, Channels).To(DType.BFloat16);
            counted.Launches();
            Tensor y = x.Scan().Y;
            training = Bytes(counted.Launches());
            tape.Backward(y, dy);
            LaunchProfile[] launches = counted.Launches();
            backward = Bytes(launches);
            // B and C come to each of the two blocks; sums for them go from one to the other.
            ofMemory = backward - matrices - 2 * 2 * length * States * 4;
        }
        const double leastForward = 4 * length * Channels * half + matrices + 3 * state + parameters, leastBackward = 7 * length * Channels * half + 2 * matrices + 3 * state + 2 * parameters;
        TestContext.Current.SendDiagnosticMessage($"bytes against the least: forward {forward / leastForward:F2}, in training {training / leastForward:F2}; backward {backward / leastBackward:F2}, of memory {ofMemory / leastBackward:F2}");
        Assert.InRange(forward / leastForward, 1, 1.3);
        Assert.Equal(kept, training - forward);
        Assert.InRange(backward / leastBackward, 1, 1.5);
        Assert.InRange(ofMemory / leastBackward, 1, 1.15);

        static long Bytes(LaunchProfile[] launches) => launches.Sum(launch => Read(launch) + launch.GlobalBytesWritten);
    }

    /// <summary>The same of a layer, 8 sequences of 2048 steps with 5120 channels, from the traffic of the headers.</summary>
    [Fact]
    public void Bytes_of_a_layer_meet_the_targets()
    {
        const double steps = 8 * 2048, channels = 5120, half = 2, n = States, state = 4 * n * channels, blocks = channels / 64;
        double states = 8 * 3 * state, least = steps * (7 * channels * half + 4 * n * half) + states, kept = steps / 32 * state, turns = steps * (blocks - 1) * 2 * n * 4;
        double forward = steps * (4 * channels * half + 2 * n * half * channels / 128), leastForward = steps * (4 * channels * half + 2 * n * half);
        double backward = steps * (7 * channels * half + 2 * n * half * blocks + 2 * n * half) + kept + 2 * turns + states;
        Assert.Equal((1.06, 1.25, 1.49, 1.14), (Math.Round(forward / leastForward, 2), Math.Round((forward + kept) / leastForward - (forward / leastForward - 1), 2), Math.Round(backward / least, 2), Math.Round((least + kept) / least, 2)));
    }

    /// <summary>Few channels and many steps: forward another walk in the same launch and backward one more launch, which read their rows once more and leave one state for at least 256 steps.</summary>
    [Fact]
    public void Traffic_of_segments_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const long length = 1024, segments = 4, steps = 256;
        var x = new Inputs(counted, DType.BFloat16, length);
        x.Watch(tape);
        Tensor dy = counted.Normal(10, 1, length, Channels).To(DType.BFloat16);
        counted.Launches();
        Tensor y = x.Scan().Y;
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["selective_scan_forward"], forward);
        CountedDevice.Are(["selective_scan_state", "selective_scan_backward", "selective_scan_sum_backward"], backward);

        const long half = 2, vector = 4 * Channels, state = vector * States, end = state + vector, joins = segments * (segments - 1) / 2;
        const long forwardBlocks = Channels / 32, backwardBlocks = Channels / 64, matrix = half * States, rows = half * Channels, sums = (States + 2) * vector, turns = (backwardBlocks - 1) * 2 * length * States * 4, told = (backwardBlocks - 1) * length / 16 * 4;
        long first = (segments - 1) * steps * (2 * rows + matrix * forwardBlocks) + state, second = length * (3 * rows + 2 * matrix * forwardBlocks) + segments * (state + 3 * vector) + state + joins * end;
        Assert.Equal((first + second, (segments - 1) * (end + 4 * forwardBlocks) + length * rows + (1 + length / 32) * state), (Read(forward[0]), forward[0].GlobalBytesWritten));
        Assert.Equal(segments * forwardBlocks, forward[0][InstructionClass.Atomic].Executions);            // a ticket each
        CountedDevice.Moved((segments - 1) * (steps * (3 * rows + matrix * forwardBlocks) + state + vector), (segments - 1) * end, backward[0]);
        Assert.Equal(
            (length * (4 * rows + 2 * matrix * backwardBlocks + state / 32) + segments * (state + 2 * vector) + joins * (state + 4 * vector) + turns, length * (3 * rows + 2 * matrix) + turns + told + segments * sums + state),
            (Read(backward[1]), backward[1].GlobalBytesWritten));
        CountedDevice.Moved(segments * sums, state + 2 * vector, backward[2]);
        // One exponential for each step, channel and state of the segments that are walked twice; beside the states softplus, and backward the gate. Forward those of all steps too, and of ends that are joined
        // to another.
        Assert.Equal(((segments - 1) * steps * (States + 1) + length * (States + 2) + (joins - (segments - 1)) * States) * Channels, forward[0].Of("ex2").Threads);
        Assert.Equal((segments - 1) * steps * Channels * (States + 2), backward[0].Of("ex2").Threads);
    }

    /// <summary>What 64 steps more cost a block of 64 channels backward: with more states than a band, states twice, B of the first halves, and for each stretch A and what waits in `carry`.</summary>
    [Theory, InlineData(16), InlineData(32), InlineData(256)]
    public void Traffic_of_bands_equals_the_header(long n)
    {
        using var counted = new CountedDevice();
        const long channels = 64, steps = 64, half = 2, single = 4;
        (long Read, long Written) Count(long length)
        {
            using Tape tape = Tape.Begin();
            Tensor Half(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(DType.BFloat16);
            Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(6, channels, n)), -1), dy = Half(10, 1, length, channels);
            Tensor y = ZEngine.Ops.SelectiveScan(tape.Watch(Half(1, 1, length, channels)), Half(2, 1, length, channels), A, Half(4, 1, length, 1, n), Half(5, 1, length, 1, n)).Y;
            counted.Launches();
            tape.Backward(y, dy);
            LaunchProfile backward = counted.Launches()[0];
            return (Read(backward), backward.GlobalBytesWritten);
        }
        ((long Read, long Written) one, (long Read, long Written) two) = (Count(steps), Count(2 * steps));
        long states = n * channels * single, bands = n > 16 ? 1 : 0;
        Assert.Equal(
            (steps * (3 * channels + 2 * n) * half + steps / 32 * states + bands * (steps / 32 * (states + 16 * n * half) + steps / 16 * 3 * states), steps * (2 * channels + 2 * n) * half + bands * steps / 16 * 2 * states),
            (two.Read - one.Read, two.Written - one.Written));
    }

    [Fact]
    public void Segments_are_for_few_channels_and_long_sequences_and_a_function_of_sizes()
    {
        // Channels and sequences that fill a GPU, and sequences that are not long: walked whole.
        Assert.Equal(new ScanSegments(1, 2048), ScanSegments.For(16, 5120, 1, 8, 2048));
        Assert.Equal(new ScanSegments(1, 1023), ScanSegments.For(16, 64, 1, 1, 1023));
        Assert.Equal(new ScanSegments(1, 0), ScanSegments.For(16, 64, 1, 1, 0));
        // A sequence of the small Mamba: 48 warps, ten segments of whole stretches. More states are more warps; so are more sequences.
        Assert.Equal(new ScanSegments(8, 256), ScanSegments.For(16, 1536, 1, 1, 2048));
        Assert.Equal(new ScanSegments(10, 832), ScanSegments.For(16, 1536, 1, 1, 8192));
        Assert.Equal(new ScanSegments(5, 1664), ScanSegments.For(32, 1536, 1, 1, 8192));
        Assert.Equal(new ScanSegments(5, 1664), ScanSegments.For(16, 1536, 1, 2, 8192));
        Assert.Equal(new ScanSegments(1, 8192), ScanSegments.For(16, 1536, 1, 3, 8192));
        Assert.Equal(new ScanSegments(32, 2048), ScanSegments.For(16, 128, 1, 1, 65536));
        foreach (int size in (ReadOnlySpan<int>)[2, 4]) Assert.InRange(SelectiveScanPlan.For(16, 5120, 8, 132).SharedBytes(16, size), 0, 48 << 10);
        Assert.Equal(21_504, SelectiveScanPlan.For(16, 5120, 8, 132).SegmentSharedBytes(16, 2));
    }

    [Fact]
    public void Exponentials_and_float_operations_of_a_state_and_step_are_counted()
    {
        using var counted = new CountedDevice();
        LaunchProfile Count(long length, bool isBackward)
        {
            using Tape tape = Tape.Begin();
            var x = new Inputs(counted, DType.BFloat16, length);
            x.Watch(tape);
            Tensor dy = counted.Normal(10, 1, length, Channels).To(DType.BFloat16);
            counted.Launches();
            Tensor y = x.Scan().Y;
            LaunchProfile forward = counted.Launches()[0];
            tape.Backward(y, dy);
            return isBackward ? counted.Launches()[0] : forward;
        }
        foreach ((bool isBackward, double exponentials, long others, double operations) in (ReadOnlySpan<(bool, double, long, double)>)[(false, 1, 2, 5), (true, 1.875, 3, 21)])
        {
            LaunchProfile one = Count(32, isBackward), two = Count(64, isBackward);    // whole intervals
            long steps = 32 * Channels;                        // beside the states: softplus, the gate, and backward their slopes
            Assert.Equal(steps * (exponentials * States + others), two.Of("ex2").Threads - one.Of("ex2").Threads);
            double floats = (two[InstructionClass.Float].Threads - one[InstructionClass.Float].Threads) / (double)(steps * States);
            (InstructionCounter load, InstructionCounter store) = (two[InstructionClass.SharedLoad], two[InstructionClass.SharedStore]);
            if (isBackward) Assert.True(load.Bytes >= 110 * load.Wavefronts && store.Bytes >= 85 * store.Wavefronts, "shared memory moves 128 bytes a pass at most");
            else Assert.InRange(128.0 * (load.Wavefronts + store.Wavefronts) / (load.Bytes + store.Bytes), 1, 1.05);
            TestContext.Current.SendDiagnosticMessage($"float operations of a step, channel and state with gate, skip and softplus, {(isBackward ? "backward" : "forward")}: {floats:F2}");
            Assert.InRange(floats, 4, operations);
        }
    }

    /// <summary>What one state more costs a step and channel: the recurrence, its share of sums, and the part of a channel's work that threads of other states repeat.</summary>
    [Fact]
    public void Float_operations_of_a_state_are_few()
    {
        using var counted = new CountedDevice();
        (long Forward, long Backward) Count(long states, long length)
        {
            using Tape tape = Tape.Begin();
            Tensor u = tape.Watch(counted.Normal(1, 1, length, Channels)), dt = tape.Watch(counted.Normal(2, 1, length, Channels)), B = tape.Watch(counted.Normal(4, 1, length, 1, states)), C = tape.Watch(counted.Normal(5, 1, length, 1, states));
            Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(6, Channels, states)), -1), dy = counted.Normal(10, 1, length, Channels);
            counted.Launches();
            Tensor y = ZEngine.Ops.SelectiveScan(u, dt, A, B, C).Y;
            long forward = counted.Launches()[0][InstructionClass.Float].Threads;
            tape.Backward(y, dy);
            return (forward, counted.Launches()[0][InstructionClass.Float].Threads);
        }
        (long Forward, long Backward) Steps(long states) => (Count(states, 64).Forward - Count(states, 32).Forward, Count(states, 64).Backward - Count(states, 32).Backward);
        ((long Forward, long Backward) one, (long Forward, long Backward) some, (long Forward, long Backward) more) = (Steps(16), Steps(32), Steps(48));
        // With more than 16 states the first quarters of an interval are walked again before its first half, which takes 3 operations a state for 3 of 8 steps more.
        const double elements = 32.0 * 16 * Channels, again = 3 * 3 / 8.0;
        double forward = (more.Forward - some.Forward) / elements, backward = (more.Backward - some.Backward) / elements - again;
        TestContext.Current.SendDiagnosticMessage($"float operations of a step, channel and state: forward {forward:F2}, backward {backward:F2}; with all else of a channel {one.Forward / elements:F2} and {one.Backward / elements:F2}");
        Assert.InRange(forward, 4, 5);
        Assert.InRange(backward, 13, 15);
    }

    [Fact]
    public void A_decode_step_is_one_launch_that_reads_the_states_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        var x = new Inputs(counted, DType.BFloat16, 1);
        counted.Launches();
        x.Scan();
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["selective_scan_forward"], launches);
        const long state = 4 * Channels * States;
        CountedDevice.Moved(2 * (3 * Channels + 2 * States * Channels / 32) + 2 * state + 12 * Channels, 2 * Channels + state, launches[0]);
    }

    [Fact]
    public void Sixteen_bits_round_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
        foreach ((long width, long n) in (ReadOnlySpan<(long, long)>)[(40, 8), (13, 5)])
        {
            Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(6, width, n)), -1), D = counted.Normal(7, width), state = counted.Normal(9, 2, width, n);
            counted.RoundsOnce(dtype, x => ZEngine.Ops.SelectiveScan(x[0], x[1], A, x[3], x[4], D, x[2], initialState: state, layout: new SequenceLayout(0, 7, 30)).Y,
                counted.Normal(1, 1, 30, width), counted.Normal(2, 1, 30, width), counted.Normal(3, 1, 30, width), counted.Normal(4, 1, 30, 1, n), counted.Normal(5, 1, 30, 1, n));
        }
    }

    /// <summary>Rows that stand 2³⁰ elements apart, in memory that nothing touches between them.</summary>
    [Theory]
    [InlineData(3)]
    [InlineData(1030)]
    public void Rows_beyond_two_to_the_31_elements_are_found(long length)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long batch = 3, width = 8, tall = (1L << 30) / width;
        Tensor all = Tensor.Empty([batch, tall, width], DType.BFloat16, counted.Device);
        Assert.True(all.Strides[0] * (batch - 1) >= 1L << 31);
        Tensor Rows(ulong seed, long first)
        {
            Tensor values = counted.Normal(seed, batch, length, width).To(DType.BFloat16);
            for (long b = 0; b < batch; b++) ZEngine.Ops.Copy(values.Slice(0, b, 1), all.Slice(0, b, 1).Slice(1, first, length));
            return all.Slice(1, first, length);
        }
        Tensor[] far = [Rows(1, 0), Rows(2, tall - length), Rows(3, 2 * length), Rows(4, tall / 2), Rows(5, 4 * length)];
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(6, width, width)), -1);
        float[][] Results(Func<Tensor, Tensor> choose)
        {
            using Tape tape = Tape.Begin();
            Tensor[] x = [.. far.Select(choose)];
            foreach (Tensor tensor in x) tape.Watch(tensor);
            Tensor y = ZEngine.Ops.SelectiveScan(x[0], x[1], A, x[3].Reshape(batch, length, 1, width), x[4].Reshape(batch, length, 1, width), z: x[2]).Y;
            tape.Backward(y, counted.Normal(11, batch, length, width).To(DType.BFloat16));
            var results = new List<float[]> { y.To(DType.Float32).ToArray<float>() };
            foreach (Tensor tensor in x) results.Add(tape.GradientOf(tensor).To(DType.Float32).ToArray<float>());
            return [.. results];
        }
        float[][] want = Results(tensor => tensor.Clone()), got = Results(tensor => tensor);
        for (int k = 0; k < want.Length; k++)
        {
            Assert.Equal(want[k], got[k]);
            Assert.NotEqual(0, got[k][0]);
            Assert.NotEqual(0, got[k][^1]);
        }
    }

    [Fact]
    public void Rejects_more_states_than_the_kernels_hold()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([1, 2, 4], DType.Float32, counted.Device), A = Tensor.Zeros([4, 257], DType.Float32, counted.Device), B = Tensor.Zeros([1, 2, 1, 257], DType.Float32, counted.Device);
        Assert.Equal("SelectiveScan: N is 257, the kernels take at most 256 states.", Assert.Throws<NotSupportedException>(() => ZEngine.Ops.SelectiveScan(x, x, A, B, B)).Message);
    }

    [Fact]
    public void Plan_shares_B_and_C_among_as_many_channels_as_the_device_can_spare()
    {
        Assert.Equal(new SelectiveScanPlan(16, 1, 128), SelectiveScanPlan.For(16, 5120, 8, 132));
        Assert.Equal(new SelectiveScanPlan(16, 1, 32), SelectiveScanPlan.For(16, 5120, 1, 132));
        Assert.Equal(new SelectiveScanPlan(8, 1, 32), SelectiveScanPlan.For(4, 10, 1000, 132));
        Assert.Equal(new SelectiveScanPlan(16, 16, 32), SelectiveScanPlan.For(256, 5120, 8, 132));
        Assert.Equal((18_944, 16_128), (SelectiveScanPlan.For(16, 5120, 8, 132).SharedBytes(16, 2), SelectiveScanPlan.For(16, 5120, 8, 132).SharedBytes(16, 4)));
        Assert.InRange(SelectiveScanPlan.For(256, 5120, 8, 132).SharedBytes(256, 4), 0, 99 << 10);           // of a block of sm_86
    }

    [Theory]
    [InlineData("sm_80")]
    [InlineData("sm_86")]
    [InlineData("sm_89")]
    [InlineData("sm_90")]
    public void Registers_and_shared_memory_leave_room_for_four_blocks_forward_and_two_backward(string architecture)
    {
        // Of sm_86, with 1 KiB each that is the driver's.
        foreach (int size in (ReadOnlySpan<int>)[2, 4]) Assert.InRange(4 * (SelectiveScanPlan.For(16, 5120, 8, 132).SharedBytes(16, size) + 1024), 0, 100 << 10);
        // Of sm_80 two blocks of 16 bits with 1 KiB each that is the driver's, of sm_86 one.
        Assert.InRange(2 * (SelectiveScanPlan.BackwardSharedBytes(2) + 1024), 0, 164 << 10);
        Assert.InRange(SelectiveScanPlan.BackwardSharedBytes(4), 0, 96 << 10);
        foreach ((string file, string name, int most) in (ReadOnlySpan<(string, string, int)>)[("SelectiveScanForward.cu", "selective_scan_forward<bf16, 16, true, false>", 96), ("SelectiveScanForward.cu", "selective_scan_forward<f32, 16, true, true>", 96), ("SelectiveScanState.cu", "selective_scan_state<bf16, 16, true>", 96), ("SelectiveScanState.cu", "selective_scan_state<f32, 16, true>", 96), ("SelectiveScanBackward.cu", "selective_scan_backward<bf16, true>", 168), ("SelectiveScanBackward.cu", "selective_scan_backward<f32, true>", 168)])
        {
            ModuleImage image = Compiler.CompileKernel(file, architecture, name);
            KernelResources used = image.Resources[image.Lowered(name)];
            Assert.True(used.Registers <= most && used.SpillLoadBytes + used.SpillStoreBytes + used.StackBytes == 0, $"{name} on {architecture}: {used}");
        }
    }
}
