using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class CausalConv1dTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        bool hasSilu = x.Attrs.Text("activation") switch { "silu" => true, null => false, var other => throw new ArgumentException(other) };
        (Tensor y, Tensor final) = ZEngine.Ops.CausalConv1d(x["x"], x["weight"], x.Optional("bias"), hasSilu, x.States("initial_state"), x.Layout);
        Tensors outputs = new() { ["y"] = y, ["final_state"] = x.Last(final) };
        if (x.Layout is not null) outputs["final_states"] = final;
        return outputs;
    }

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("causal_conv1d", "one step").With("activation", "silu").Normal("x", [2, 1, 5]).Normal("weight", [5, 4]).Normal("bias", [5]).Normal("initial_state", [2, 3, 5]).Build(),
        Case("causal_conv1d", "two steps, three of state").Normal("x", [2, 2, 5]).Normal("weight", [5, 4]).Normal("initial_state", [2, 3, 5]).Build(),
        Case("causal_conv1d", "several blocks of time").With("activation", "silu").Normal("x", [1, 150, 20]).Normal("weight", [20, 3]).Normal("bias", [20]).Build(),
        Case("causal_conv1d", "one tap").With("activation", "silu").Normal("x", [1, 9, 3]).Normal("weight", [3, 1]).Build(),
        Case("causal_conv1d", "whole accesses").With("activation", "silu").Normal("x", [2, 40, 136]).Normal("weight", [136, 4]).Normal("bias", [136]).Normal("initial_state", [2, 3, 136]).Build(),
        Case("causal_conv1d", "whole accesses, packed").With("activation", "silu").With("cu_seqlens", new[] { 0, 1, 3, 30, 45 })
            .Normal("x", [1, 45, 16]).Normal("weight", [16, 4]).Normal("initial_state", [4, 3, 16]).Build(),
        Case("causal_conv1d", "whole accesses, two taps").Normal("x", [1, 21, 8]).Normal("weight", [8, 2]).Normal("bias", [8]).Build(),
        Case("causal_conv1d", "whole accesses, eight taps, packed").With("activation", "silu").With("cu_seqlens", new[] { 0, 2, 20, 33 })
            .Normal("x", [1, 33, 72]).Normal("weight", [72, 8]).Normal("initial_state", [3, 7, 72]).Build(),
        Case("causal_conv1d", "six taps, packed").With("activation", "silu").With("cu_seqlens", new[] { 0, 2, 3, 80, 90 })
            .Normal("x", [1, 90, 17]).Normal("weight", [17, 6]).Normal("bias", [17]).Normal("initial_state", [4, 5, 17]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    /// <summary>Options in any combination, and small sizes.</summary>
    public static IEnumerable<TheoryDataRow<OpCase, string>> RandomCases() => Times(Enumerable.Range(0, 16).Select(RandomCase));

    private static OpCase RandomCase(int seed)
    {
        var chance = new Chance(seed);
        int channels = chance.Of(1, 5, 8, 16, 33), taps = chance.Range(1, 8), length = chance.Of(1, 3, 20, 70), batch = chance.Of(1, 2);
        bool isPacked = length > 1 && chance.Flag();
        int[]? ends = isPacked ? chance.Boundaries(length) : null;
        if (isPacked) batch = 1;
        CaseBuilder c = Case("causal_conv1d", $"random options {seed}", seed + 1).With("activation", chance.Of("silu", null)).With("cu_seqlens", ends).Normal("x", [batch, length, channels]).Normal("weight", [channels, taps]);
        if (chance.Flag()) c = c.Normal("bias", [channels]);
        if (taps > 1 && chance.Flag()) c = c.Normal("initial_state", [isPacked ? ends!.Length - 1 : batch, taps - 1, channels]);
        return taps == 1 ? c.Build("y") : c.Build("y", isPacked ? "final_states" : "final_state");
    }

    [Theory]
    [MemberData(nameof(RandomCases))]
    public void Random_options_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    public static TheoryData<string> OpDevices => [.. Devices.OpNames];

    [Theory, MemberData(nameof(OpDevices))]
    public void Split_sequence_equals_whole(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        foreach ((long width, long taps) in (ReadOnlySpan<(long, long)>)[(9, 4), (16, 4), (16, 7), (8, 1)])
        foreach (long split in (ReadOnlySpan<long>)[1, 2, 11])
        {
            using TensorScope scope = TensorScope.Enter();
            Tensor x = Random(device, 1, 2, 20, width).To(type), w = Random(device, 2, width, taps);
            (Tensor whole, Tensor final) = ZEngine.Ops.CausalConv1d(x, w, hasSilu: true);
            (Tensor first, Tensor state) = ZEngine.Ops.CausalConv1d(x.Slice(1, 0, split), w, hasSilu: true);
            (Tensor second, Tensor last) = ZEngine.Ops.CausalConv1d(x.Slice(1, split, 20 - split), w, hasSilu: true, initialState: state);
            Assert.Equal(whole.To(DType.Float32).ToArray<float>(), ZEngine.Ops.Concat(1, first, second).To(DType.Float32).ToArray<float>());
            Assert.Equal(final.ToArray<float>(), last.ToArray<float>());
        }
    }

    private static Tensor Random(Device device, ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(7, stream)).To(device);

    /// <summary>Sequences shorter than the window and longer than a tile, whose borders are those of no tile.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void Packed_sequences_have_the_bits_and_gradients_of_each_alone(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        foreach ((long width, long taps, bool hasSilu) in (ReadOnlySpan<(long, long, bool)>)[(16, 4, true), (16, 4, false), (17, 4, true), (16, 7, true), (9, 2, false)])
        {
            using TensorScope scope = TensorScope.Enter();
            long[] lengths = [1, 3, 40, 2, 70];
            long length = lengths.Sum();
            PackedLaw.Holds(lengths, (x, state, all, layout) => ZEngine.Ops.CausalConv1d(x[0], all[0], all[1], hasSilu, state, layout), [Random(device, 1, 1, length, width).To(type)],
                Random(device, 2, lengths.Length, taps - 1, width), [Random(device, 3, width, taps), Random(device, 4, width)], Random(device, 5, 1, length, width).To(type), Random(device, 6, lengths.Length, taps - 1, width));
        }
    }

    [Fact]
    public void Rejects_a_state_of_another_width()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 5, 8], DType.Float32, Device.Cpu), w = Tensor.Zeros([8, 4], DType.Float32, Device.Cpu), state = Tensor.Zeros([2, 4, 8], DType.Float32, Device.Cpu);
        Assert.Equal("CausalConv1d: initialState must be Float32 [2, 3, 8], one state per sequence, got Float32 [2, 4, 8] on cpu.",
            Assert.Throws<ArgumentException>(() => ZEngine.Ops.CausalConv1d(x, w, initialState: state)).Message);
        Assert.Equal("CausalConv1d: packed sequences need B = 1, got 2.",
            Assert.Throws<ArgumentException>(() => ZEngine.Ops.CausalConv1d(x, w, layout: new SequenceLayout(0, 5))).Message);
    }

    [Fact]
    public void Sixteen_bits_round_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
        foreach ((long width, long taps) in (ReadOnlySpan<(long, long)>)[(24, 4), (24, 6), (13, 3)])
        {
            Tensor weight = counted.Normal(2, width, taps), bias = counted.Normal(3, width), state = counted.Normal(4, 3, taps - 1, width);
            counted.RoundsOnce(dtype, x => ZEngine.Ops.CausalConv1d(x[0], weight, bias, true, state, new SequenceLayout(0, 2, 11, 30)).Y, counted.Normal(1, 1, 30, width));
        }
    }

    /// <summary>Rows that stand 2³¹ elements apart, in memory that nothing touches between them, forward and backward.</summary>
    [Fact]
    public void Rows_beyond_two_to_the_31_elements_are_found()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long length = 5, width = 24;
        Tensor near = counted.Normal(1, 2, length, width).To(DType.BFloat16), weight = counted.Normal(2, width, 4), dy = counted.Normal(3, 2, length, width).To(DType.BFloat16);
        Tensor far = Tensor.Empty([2, 1L << 31], DType.BFloat16, counted.Device).Slice(1, 0, length * width);
        ZEngine.Ops.Copy(near.Reshape(2, length * width), far);
        float[][] Results(Tensor x)
        {
            using Tape tape = Tape.Begin();
            tape.Watch(x);
            tape.Watch(weight);
            (Tensor y, Tensor state) = ZEngine.Ops.CausalConv1d(x, weight, hasSilu: true);
            tape.Backward(y, dy);
            return [.. new[] { y, state, tape.GradientOf(x), tape.GradientOf(weight) }.Select(tensor => tensor.To(DType.Float32).ToArray<float>())];
        }
        float[][] want = Results(near), got = Results(far.Reshape(2, length, width));
        Assert.All(want, values => Assert.True(values[0] != 0 && values[^1] != 0));
        Assert.Equal(want, got);
    }

    /// <summary>A gradient whose steps are parts of rows so wide that they reach beyond 2³¹ elements.</summary>
    [Fact]
    public void Gradients_in_wider_rows_have_64_bits()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long length = 3, width = 24;
        Tensor x = counted.Normal(1, 2, length, width).To(DType.BFloat16), weight = counted.Normal(2, width, 4), dy = counted.Normal(3, 2, length, width).To(DType.BFloat16);
        var inputs = new CausalConv1dInputs(x, weight, null, null, HasSilu: true, null);
        Tensor wide = Tensor.Empty([2 * length, 1L << 30], DType.BFloat16, counted.Device).Slice(1, 0, width).Reshape(2, length, width);
        Assert.True((2 * length - 1) * wide.Strides[1] > 1L << 31);
        float[] Gradient(Tensor dx)
        {
            x.Backend.CausalConv1dBackward(inputs, dy, null, inputs with { X = dx, Weight = Tensor.EmptyLike(weight) }, null);
            return dx.To(DType.Float32).ToArray<float>();
        }
        float[] want = Gradient(Tensor.EmptyLike(x));
        Assert.Equal(want, Gradient(wide));
        Assert.True(want[0] != 0 && want[^1] != 0);
    }

    [Fact]
    public void Taps_that_the_weight_lacks_meet_no_input()
    {
        foreach (string name in Devices.Names)
        foreach (long width in (ReadOnlySpan<long>)[8, 5])
        {
            using TensorScope scope = TensorScope.Enter();
            Tensor x = Tensor.Zeros([1, 6, width], DType.Float32, Devices.Open(name)), weight = Tensor.Zeros([width, 2], DType.Float32, x.Device);
            ZEngine.Ops.Fill(x.Slice(1, 1, 1), float.NaN);
            float[] y = ZEngine.Ops.CausalConv1d(x, weight).Y.ToArray<float>();
            for (int i = 0; i < y.Length; i++) Assert.Equal(i / width is 1 or 2, float.IsNaN(y[i]));
        }
    }

    /// <summary>Tiles of 64 steps, so that the rings of shared memory are filled several times over, on a device small enough to choose them.</summary>
    [Fact]
    public void Long_tiles_equal_the_cpu()
    {
        using var counted = new CountedDevice(87);
        using TensorScope scope = TensorScope.Enter();
        foreach ((long width, long taps) in (ReadOnlySpan<(long, long)>)[(64, 4), (32, 6), (33, 4)])
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.Float32, DType.BFloat16])
        {
            Tensor Normal(ulong seed, params ReadOnlySpan<long> shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed));
            Tensor[] cpu = [Normal(1, 8, 512, width).To(dtype).To(DType.Float32), Normal(2, width, taps), Normal(3, width), Normal(4, 8, taps - 1, width)];
            Tensor dy = Normal(5, 8, 512, width).To(dtype).To(DType.Float32);
            float[][] Results(Device device, DType type)
            {
                Tensor[] x = [cpu[0].To(type).To(device), .. cpu[1..].Select(tensor => tensor.To(device))];
                using Tape tape = Tape.Begin();
                foreach (Tensor tensor in x) tape.Watch(tensor);
                (Tensor y, Tensor state) = ZEngine.Ops.CausalConv1d(x[0], x[1], x[2], true, x[3]);
                tape.Backward(y, dy.To(type).To(device));
                return [.. new[] { y, state, tape.GradientOf(x[0]), tape.GradientOf(x[1]), tape.GradientOf(x[2]), tape.GradientOf(x[3]) }.Select(tensor => tensor.To(DType.Float32).ToArray<float>())];
            }
            float[][] want = Results(Device.Cpu, DType.Float32), got = Results(counted.Device, dtype);
            double unit = dtype == DType.BFloat16 ? 1.0 / 128 : 1e-5;
            for (int k = 0; k < want.Length; k++)
            {
                double scale = Math.Sqrt(want[k].Average(w => (double)w * w));
                for (int i = 0; i < want[k].Length; i++)
                    if (!(Math.Abs(want[k][i] - got[k][i]) <= unit * Math.Max(Math.Abs(want[k][i]), scale))) Assert.Fail($"{dtype} result {k} at {i}: got {got[k][i]:R}, want {want[k][i]:R}");
            }
        }
    }

    [Fact]
    public void Rejects_more_taps_than_the_kernels_hold()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([1, 6, 4], DType.Float32, counted.Device), weight = Tensor.Zeros([4, 9], DType.Float32, counted.Device);
        Assert.Equal("CausalConv1d: K is 9, the kernels take at most 8 taps.", Assert.Throws<NotSupportedException>(() => ZEngine.Ops.CausalConv1d(x, weight)).Message);
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        // So little work that tiles have 8 steps. The first tile has no inputs before it, the last no steps behind it.
        const long length = 32, width = 128, taps = 4, tiles = 4, row = 4 * width, inner = (tiles - 1) * (taps - 1);
        Tensor x = tape.Watch(counted.Normal(1, 1, length, width)), weight = tape.Watch(counted.Normal(2, width, taps)), bias = tape.Watch(counted.Normal(3, width)), dy = counted.Normal(4, 1, length, width);
        Tensor y = ZEngine.Ops.CausalConv1d(x, weight, bias, true).Y;
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["causal_conv1d_forward"], forward);
        CountedDevice.Moved((length + inner + tiles * (taps + 1)) * row, (length + taps - 1) * row, forward[0]);
        CountedDevice.Are(["causal_conv1d_backward", "reduce_sums"], backward);
        CountedDevice.Moved((2 * (length + 2 * inner) + tiles * (taps + 1)) * row, (length + tiles * (taps + 1)) * row, backward[0]);
        CountedDevice.Moved(tiles * (taps + 1) * row, (taps + 1) * row, backward[1]);
        foreach (LaunchProfile launch in (ReadOnlySpan<LaunchProfile>)[forward[0], backward[0]])
        {
            (InstructionCounter steps, InstructionCounter load, InstructionCounter store) = (launch[InstructionClass.AsyncCopy], launch[InstructionClass.GlobalLoad], launch[InstructionClass.GlobalStore]);
            Assert.Equal((steps.Bytes, load.Bytes, store.Bytes), (32 * steps.Sectors, 32 * load.Sectors, 32 * store.Sectors));
            Assert.Equal(tiles * (taps + 1) * row, load.Bytes);                   // taps, and the bias by single floats
            CountedDevice.HasNoBankConflicts(launch);
        }
        Assert.Equal((length + taps - 1) * row / 32, forward[0][InstructionClass.GlobalStore].Sectors);
    }
}
