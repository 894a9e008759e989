using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Emulator;

/// <summary>kernels/common/SsdConvolution.cuh: the convolution on the way into the scan against one before it.</summary>
public sealed class SsdConvolutionTests
{
    /// <summary>A call of the scan, and where it takes x from.</summary>
    private sealed record Call(DType Type, long Batch, long Length, long Heads, long P, long States, long Groups, long Taps, long Chunk, int[]? Starts, bool HasBias, bool HasState)
    {
        public long Inner => Heads * P;

        public long Sequences => Starts is null ? Batch : Starts.Length - 1;

        public override string ToString() => $"{Type} B {Batch} L {Length} H {Heads} P {P} N {States} K {Taps} Q {Chunk}{(Starts is null ? "" : $" packed {string.Join(' ', Starts)}")}";
    }

    private static readonly Call[] Calls =
    [
        new(DType.BFloat16, 1, 130, 2, 64, 64, 1, 4, 0, null, true, true),
        new(DType.BFloat16, 1, 70, 4, 64, 128, 1, 4, 0, null, true, false),
        new(DType.BFloat16, 1, 15, 2, 8, 16, 1, 4, 1, null, true, true),              // a chunk of one step: the window reaches back over three
        new(DType.BFloat16, 2, 20, 3, 8, 6, 1, 3, 2, null, false, true),
        new(DType.BFloat16, 1, 90, 2, 72, 40, 2, 4, 0, [0, 1, 3, 4, 70, 90], true, true),
        new(DType.BFloat16, 1, 90, 1, 37, 256, 1, 2, 16, [0, 2, 88, 90], true, false),
        new(DType.BFloat16, 1, 9, 2, 80, 136, 1, 1, 0, null, true, false),            // one tap: no state at all
        new(DType.Float32, 1, 70, 2, 40, 72, 1, 4, 0, [0, 3, 70], true, true),
        new(DType.Float16, 2, 66, 2, 37, 16, 1, 4, 0, null, true, true),
    ];

    public static TheoryData<int> Numbers => [.. Enumerable.Range(0, Calls.Length)];

    /// <summary>The whole of a layer between its projections, with sequences of one step among the packed ones, where the convolution is part of the scan.</summary>
    [Theory, InlineData(DType.BFloat16), InlineData(DType.Float32)]
    public void Packed_sequences_have_the_bits_of_each_alone(DType type)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long heads = 8, p = 8, n = 8, taps = 4, inner = heads * p, channels = inner + 2 * n;     // rows of whole accesses: the norm adds others in another order
        long[] lengths = [1, 30, 2, 1, 70];
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape);
        PackedLaw.Holds(lengths, (x, state, all, layout) =>
            {
                Mamba2ScanResult result = ZEngine.Ops.Mamba2Scan(
                    x[0], all[0], all[1], all[2], new Mamba2ScanOptions(1, 1e-5f, Scan: new SsdScanOptions(HasLogA: true, Layout: layout)), all[3], all[4], all[5], scanState: state);
                return (result.Y, result.ScanState);
            },
            [Normal(1, 1, lengths.Sum(), inner + channels + heads).To(type)], Normal(2, lengths.Length, heads, p, n),
            [Normal(3, heads), Normal(4, channels, 1, taps), Normal(5, inner), Normal(6, channels), Normal(7, heads), Normal(8, heads)],
            Normal(9, 1, lengths.Sum(), inner).To(type), Normal(10, lengths.Length, heads, p, n));
    }

    /// <summary>y, the final state, the states at borders, the convolution's final state and what it made of x; and the scan's launch.</summary>
    private static (float[][] Results, LaunchProfile Launch) Run(CountedDevice counted, Call call, bool isInScan, Func<Tensor, Tensor>? place = null)
    {
        using TensorScope scope = TensorScope.Enter();
        (long heads, long p, long n) = (call.Heads, call.P, call.States);
        Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => counted.Normal(seed, shape).To(call.Type);
        Tensor x = Normal(1, call.Batch, call.Length, call.Inner + 8).Slice(2, 8, call.Inner), dt = Normal(2, call.Batch, call.Length, heads), z = Normal(10, call.Batch, call.Length, heads, p);
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(5, heads)), -1), B = Normal(3, call.Batch, call.Length, call.Groups, n), C = Normal(4, call.Batch, call.Length, call.Groups, n);
        SequenceLayout? layout = call.Starts is null ? null : new SequenceLayout([.. call.Starts]);
        if (place is not null) x = place(x);
        // The states of wider convolutions.
        Tensor wide = counted.Normal(8, call.Sequences, call.Taps - 1, call.Inner + 8), last = Tensor.Empty([call.Sequences, call.Taps - 1, call.Inner + 8], DType.Float32, counted.Device);
        var convolution = new CausalConv1dInputs(
            x, counted.Normal(6, call.Inner, call.Taps), call.HasBias ? counted.Normal(7, call.Inner) : null, call.HasState ? wide.Slice(2, 0, call.Inner) : null, HasSilu: true, layout);
        Tensor convolved = Tensor.Empty([call.Batch, call.Length, call.Inner], call.Type, counted.Device), final = Tensor.Empty([call.Sequences, heads, p, n], DType.Float32, counted.Device);
        Tensor Heads(Tensor tensor) => tensor.Reshape(call.Batch, call.Length, heads, p);
        Backend backend = x.Backend;
        long chunk = backend.SsdChunkLength(call.Chunk, call.Length, p, n);
        var inputs = new SsdScanInputs(Heads(isInScan ? x : convolved), dt, A, B, C, counted.Normal(9, heads, p), z, null, null, new SsdScanOptions(ChunkLength: chunk, Layout: layout));
        Tensor y = Tensor.Empty([call.Batch, call.Length, heads, p], call.Type, counted.Device), states = backend.SsdStates(inputs), ungated = Tensor.EmptyLike(y);
        Tensor state = last.Slice(2, 0, call.Inner);
        states.Clear();                                       // not every place for a border is used
        if (!isInScan) backend.CausalConv1dForward(convolution, convolved, state);
        Assert.True(backend.SsdConvolves(inputs, call.Taps));
        counted.Launches();
        backend.SsdScanForward(inputs, y, final, states, ungated, null, isInScan ? new SsdInput(convolution, state, convolved) : null);
        LaunchProfile launch = Assert.Single(counted.Launches());
        return ([.. new[] { y, ungated, final, states, state.Contiguous(), convolved }.Select(tensor => tensor.To(DType.Float32).ToArray<float>())], launch);
    }

    /// <summary>In all types, over borders of chunks and of packed sequences, with and without states before them: not a bit differs.</summary>
    [Theory, MemberData(nameof(Numbers))]
    public void Gives_the_bits_of_a_convolution_before_the_scan(int number)
    {
        using var counted = new CountedDevice();
        float[][] want = Run(counted, Calls[number], isInScan: false).Results, got = Run(counted, Calls[number], isInScan: true).Results;
        for (int k = 0; k < want.Length; k++) Assert.True(want[k].AsSpan().SequenceEqual(got[k]), $"{Calls[number]}: result {k} differs");
        Assert.Contains(want[^1], value => value != 0);
    }

    /// <summary>Rows of the batch 2³¹ elements apart, in memory that nothing touches between them: the bits of rows that lie together.</summary>
    [Fact]
    public void Offsets_have_64_bits()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Call call = Calls[3];
        float[][] want = Run(counted, call, isInScan: true).Results, got = Run(counted, call, isInScan: true, near =>
        {
            Tensor far = Tensor.Empty([call.Batch, 1L << 31], near.DType, counted.Device).Slice(1, 0, call.Length * call.Inner);
            ZEngine.Ops.Copy(near.Reshape(call.Batch, -1), far);
            return far.Reshape(call.Batch, call.Length, call.Inner);
        }).Results;
        for (int k = 0; k < want.Length; k++) Assert.Equal(want[k], got[k]);
        Assert.True(want[0][0] != 0 && want[0][^1] != 0);
    }

    /// <summary>Beside the scan without it: taps, bias and states of the convolution, once; what it makes, where that is kept; an exponential and a reciprocal for each value.</summary>
    [Theory, InlineData(0), InlineData(1)]
    public void Costs_what_the_header_says(int number)
    {
        using var counted = new CountedDevice();
        Call call = Calls[number];
        LaunchProfile without = Run(counted, call, isInScan: false).Launch, with = Run(counted, call, isInScan: true).Launch;
        long state = (call.Taps - 1) * call.Inner * sizeof(float), taps = (call.Taps + 1) * call.Inner * sizeof(float), values = call.Length * call.Inner;
        Assert.Equal((taps + (call.HasState ? state : 0), state + 2 * values), (with.GlobalBytesRead - without.GlobalBytesRead, with.GlobalBytesWritten - without.GlobalBytesWritten));
        Assert.Equal((values, values), (with.Of("ex2").Threads - without.Of("ex2").Threads, with.Of("rcp").Threads - without.Of("rcp").Threads));
        Assert.Equal(without.MatrixFlops, with.MatrixFlops);
        Assert.Equal(with[InstructionClass.GlobalStore].Sectors, with.GlobalBytesWritten / 32);
        foreach (InstructionClass kind in (ReadOnlySpan<InstructionClass>)[InstructionClass.SharedLoad, InstructionClass.SharedStore])
        {
            (long bytes, long wavefronts) = (with[kind].Bytes - without[kind].Bytes, with[kind].Wavefronts - without[kind].Wavefronts);
            TestContext.Current.SendDiagnosticMessage($"{call}: {kind} {128.0 * wavefronts / bytes:F3} passes over the banks for each 128 bytes");
            Assert.InRange(128.0 * wavefronts / bytes, 0.99, 1.05);
        }
    }

    /// <summary>A layer between its projections, without gradients: two launches; against op by op 4·H·P bytes a step less, x that is neither written nor read back.</summary>
    [Theory, InlineData(false), InlineData(true)]
    public void Saves_a_layer_the_convolved_x(bool isTracked)
    {
        const long length = 128, heads = 2, p = 64, states = 64, taps = 4, inner = heads * p, channels = inner + 2 * states, half = 2;
        LaunchProfile[] Run(CountedDevice counted, bool isOne)
        {
            using Tape tape = Tape.Begin();
            Tensor projected = counted.Normal(1, 1, length, inner + channels + heads).To(DType.BFloat16), A = counted.Normal(2, heads), weight = counted.Normal(3, channels, 1, taps), norm = counted.Normal(4, inner);
            if (isTracked) tape.Watch(projected);
            var options = new SsdScanOptions(HasLogA: true);
            counted.Launches();
            if (isOne) ZEngine.Ops.Mamba2Scan(projected, A, weight, norm, new Mamba2ScanOptions(1, 1e-5f, DefersScale: true, Scan: options));
            else
            {
                Tensor[] parts = ZEngine.Ops.Split(projected, inner, channels, heads);
                Tensor[] xBC = ZEngine.Ops.Split(ZEngine.Ops.CausalConv1d(parts[1], weight.Reshape(channels, taps), hasSilu: true).Y, inner, states, states);
                ZEngine.Ops.SsdScan(
                    xBC[0].Reshape(1, length, heads, p), parts[2], A, xBC[1].Reshape(1, length, 1, states), xBC[2].Reshape(1, length, 1, states), z: parts[0].Reshape(1, length, heads, p), options: options);
            }
            return counted.Launches();
        }
        using var counted = new CountedDevice();
        LaunchProfile[] one = Run(counted, isOne: true), parts = Run(counted, isOne: false);
        CountedDevice.Are(["causal_conv1d_forward", "ssd_scan_forward"], one);
        CountedDevice.Are(["causal_conv1d_forward", "ssd_scan_forward"], parts);
        static long Moved(LaunchProfile[] launches) => launches.Sum(launch => launch.GlobalBytesRead + launch.GlobalBytesWritten);
        // x comes to the convolution once for each tile of 8 steps, and 3 steps of the one before; so do its taps and, for nothing, no bias. The weight of the norm and the squares are of the one op.
        const long tile = 8, rows = inner * half, tiles = length / tile, window = (tiles - 1) * (taps - 1) * rows, tapsOfTiles = (tiles - 1) * taps * inner * sizeof(float), squares = inner * sizeof(float) + length * inner / 32 * sizeof(float);
        Assert.Equal(length * rows * (isTracked ? 1 : 2) + window + tapsOfTiles - squares, Moved(parts) - Moved(one));
    }

    [Theory]
    [InlineData(8, 2048, 4, true), InlineData(8, 2048, 1, true)]
    [InlineData(8, 2048, 5, false)]                           // more taps than the kernel's window has
    [InlineData(1, 2048, 4, false)]                           // in segments
    [InlineData(1, 512, 4, true)]
    public void Is_chosen_by_sizes(int sequences, long length, int taps, bool convolves)
        => Assert.Equal(convolves, SsdPlan.For(128, 64, 80, 1, DType.BFloat16, sequences, length, 64, 132, 227 << 10).Convolves(taps));

    /// <summary>More taps than the kernel holds, and segments: the convolution is a launch of its own again, with all channels.</summary>
    [Theory, InlineData(5, 40), InlineData(4, 1100)]
    public void Is_apart_where_the_plan_says_so(long taps, long length)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long heads = 1, p = 8, states = 8, inner = heads * p, channels = inner + 2 * states;
        Tensor projected = counted.Normal(1, 1, length, inner + channels + heads).To(DType.BFloat16);
        counted.Launches();
        ZEngine.Ops.Mamba2Scan(projected, counted.Normal(2, heads), counted.Normal(3, channels, 1, taps), counted.Normal(4, inner), new Mamba2ScanOptions(1, 1e-5f, DefersScale: true));
        LaunchProfile[] launches = counted.Launches();
        Assert.Equal(length * channels * 2 + (taps - 1) * channels * sizeof(float), launches[0].GlobalBytesWritten);
        Assert.Contains("causal_conv1d_forward", launches[0].Kernel, StringComparison.Ordinal);
    }
}
