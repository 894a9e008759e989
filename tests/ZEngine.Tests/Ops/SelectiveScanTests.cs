using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class SelectiveScanTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        (Tensor y, Tensor final) = ZEngine.Ops.SelectiveScan(
            x["u"], x["dt"], x["A"], x["B"], x["C"], x.Optional("D"), x.Optional("z"), x.Optional("dt_bias"), x.States("initial_state"), x.Attrs.Flag("softplus"), x.Layout);
        Tensors outputs = new() { ["y"] = y, ["final_state"] = x.Last(final) };
        if (x.Layout is not null) outputs["final_states"] = final;
        return outputs;
    }

    private static CaseBuilder Scan(string reason, int length, int channels, int n, int groups = 1, int batch = 1) => Case("selective_scan", reason).With("softplus", true)
        .Normal("u", [batch, length, channels]).Normal("dt", [batch, length, channels]).Decay("A", [channels, n])
        .Normal("B", [batch, length, groups, n]).Normal("C", [batch, length, groups, n]);

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Scan("one step", 1, 5, 7, batch: 2).Normal("D", [5]).Normal("z", [2, 1, 5]).Normal("initial_state", [2, 5, 7]).Build(),
        Scan("one step without gradients", 1, 70, 16, batch: 2).Normal("D", [70]).Normal("z", [2, 1, 70]).Normal("dt_bias", [70]).Normal("initial_state", [2, 70, 16]).Build("none"),
        Scan("one step, few states, no initial state", 1, 33, 5, groups: 3).Build("none"),
        Scan("one stretch exactly", 32, 16, 16).Build(),
        Scan("one step over a stretch, odd channels", 33, 37, 6).Normal("dt_bias", [37]).Build(),
        Scan("several blocks of channels", 40, 100, 4, batch: 2).Normal("D", [100]).Normal("z", [2, 40, 100]).Build(),
        Scan("one state", 50, 3, 1).Normal("D", [3]).Build(),
        Scan("groups wider than a block", 35, 80, 5, groups: 2).Normal("initial_state", [1, 80, 5]).Build(),
        Scan("a group for each channel", 20, 6, 9, groups: 6, batch: 2).Normal("initial_state", [2, 6, 9]).Normal("z", [2, 20, 6]).Build(),
        // Steps are hardly ever negative: a state that grows by e^70 carries the rounding of 70 into every bit, and no tolerance of the oracle's own rounding is wide enough.
        Scan("no softplus", 20, 4, 4).Uniform("dt", [1, 20, 4], -0.25, 1).With("softplus", false).Build(),
        Scan("whole accesses, several blocks", 37, 144, 16, batch: 2).Normal("D", [144]).Normal("z", [2, 37, 144]).Normal("dt_bias", [144]).Normal("initial_state", [2, 144, 16]).Build(),
        Scan("whole accesses, groups, packed", 50, 96, 8, groups: 2).With("cu_seqlens", new[] { 0, 16, 17, 50 }).Normal("initial_state", [3, 96, 8]).Normal("z", [1, 50, 96]).Build(),
        Scan("more states than a band", 35, 40, 40).Normal("D", [40]).Normal("z", [1, 35, 40]).Normal("initial_state", [1, 40, 40]).Build(),
        Scan("an odd number of states beyond a band", 19, 5, 37).Normal("z", [1, 19, 5]).Build(),
        Scan("as many states as the kernels hold", 18, 3, 256).Build(),
        Scan("extreme dt", 100, 8, 8).ExtremeDt("dt", [1, 100, 8]).Normal("dt_bias", [8]).Build(),
        Scan("decays next to 1", 130, 4, 8).Uniform("A", [4, 8], -1e-4, -1e-6).Build(),
        Scan("packed", 90, 20, 6).With("cu_seqlens", new[] { 0, 1, 3, 80, 90 }).Normal("initial_state", [4, 20, 6]).Normal("D", [20]).Normal("z", [1, 90, 20]).Build(),
        Scan("more sequences than parts", 40, 4, 3, batch: 1).With("cu_seqlens", Enumerable.Range(0, 41).ToArray()).Normal("initial_state", [40, 4, 3]).Normal("D", [4]).Normal("dt_bias", [4]).Build(),
        Scan("segments of time", 1100, 5, 3).Normal("D", [5]).Normal("z", [1, 1100, 5]).Normal("dt_bias", [5]).Normal("initial_state", [1, 5, 3]).Build(),
        Scan("segments, packed, groups, whole accesses", 1500, 16, 8, groups: 2).With("cu_seqlens", new[] { 0, 1030, 1031, 1320, 1500 }).Normal("initial_state", [4, 16, 8]).Normal("z", [1, 1500, 16]).Build(),
        Scan("segments, more states than a band, no initial state", 1025, 3, 20, batch: 2).Build(),
        Scan("segments, extreme dt", 1100, 4, 8).ExtremeDt("dt", [1, 1100, 4]).Normal("dt_bias", [4]).Build(),
        Scan("segments, decays next to 1", 1200, 4, 8).Uniform("A", [4, 8], -1e-4, -1e-6).Build(),
        Scan("many rows", 3, 4, 3, batch: 19).Normal("D", [4]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    /// <summary>Options in any combination, and small sizes.</summary>
    public static IEnumerable<TheoryDataRow<OpCase, string>> RandomCases() => Times(Enumerable.Range(0, 16).Select(RandomCase));

    private static OpCase RandomCase(int seed)
    {
        var chance = new Chance(seed);
        int groups = chance.Of(1, 2, 3), channels = groups * chance.Of(1, 4, 7, 8, 16), n = chance.Of(1, 4, 5, 8, 16, 19), length = chance.Of(1, 7, 32, 45), batch = chance.Of(1, 2);
        bool isPacked = length > 1 && chance.Flag(), hasSoftplus = chance.Flag();
        int[]? ends = isPacked ? chance.Boundaries(length) : null;
        if (isPacked) batch = 1;
        CaseBuilder c = Case("selective_scan", $"random options {seed}", seed + 1).With("softplus", hasSoftplus).With("cu_seqlens", ends).Normal("u", [batch, length, channels]).Decay("A", [channels, n])
            .Normal("B", [batch, length, groups, n]).Normal("C", [batch, length, groups, n]);
        // As in the case without softplus above, and a bias that leaves steps so.
        c = hasSoftplus ? c.Normal("dt", [batch, length, channels]) : c.Uniform("dt", [batch, length, channels], -0.125, 0.75);
        if (chance.Flag()) c = hasSoftplus ? c.Normal("dt_bias", [channels]) : c.Uniform("dt_bias", [channels], -0.125, 0.25);
        if (chance.Flag()) c = c.Normal("D", [channels]);
        if (chance.Flag()) c = c.Normal("z", [batch, length, channels]);
        if (chance.Flag()) c = c.Normal("initial_state", [isPacked ? ends!.Length - 1 : batch, channels, n]);
        return c.Build("y", isPacked ? "final_states" : "final_state");
    }

    [Theory]
    [MemberData(nameof(RandomCases))]
    public void Random_options_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    public static TheoryData<string> OpDevices => [.. Devices.OpNames];

    [Theory, MemberData(nameof(OpDevices))]
    public void Extreme_steps_give_no_NaN_forward_or_backward(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        foreach (int length in (ReadOnlySpan<int>)[200, 1100]) Extreme_steps_give_no_NaN(Devices.Open(name), type, length);
    }

    private static void Extreme_steps_give_no_NaN(Device device, DType type, int length)
    {
        using Tape tape = Tape.Begin();
        Tensor u = tape.Watch(Random(device, 1, 1, length, 2).To(type));
        var steps = new float[2 * length];
        for (int i = 0; i < steps.Length; i++) steps[i] = (i % 7) switch { 0 => 1e5f, 1 => -1e5f, 2 => 60, 3 => 1e30f, _ => 0.1f };
        Tensor dt = tape.Watch(Tensor.From<float>(steps, [1, length, 2], device).To(type)), A = tape.Watch(Tensor.From<float>([-1e4f, -1e-9f, -1f, -3e38f], [2, 2], device));
        Tensor B = tape.Watch(Random(device, 2, 1, length, 1, 2).To(type)), C = tape.Watch(Random(device, 3, 1, length, 1, 2).To(type));
        (Tensor y, Tensor final) = ZEngine.Ops.SelectiveScan(u, dt, A, B, C);
        Tensor dy = Tensor.Empty(y.Shape, type, device), dfinal = Tensor.Empty(final.Shape, DType.Float32, device);
        ZEngine.Ops.Fill(dy, 1e-20f / y.Count);
        ZEngine.Ops.Fill(dfinal, 1e-20f / final.Count);
        tape.Backward([y, final], [dy, dfinal]);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[y, final, tape.GradientOf(u), tape.GradientOf(dt), tape.GradientOf(A), tape.GradientOf(B), tape.GradientOf(C)])
            Assert.All(Floats(tensor), value => Assert.False(float.IsNaN(value)));
    }

    private static Tensor Random(Device device, ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(9, stream)).To(device);

    private static float[] Floats(Tensor tensor)
    {
        using NoGradient pause = Tape.NoGrad();
        return tensor.To(DType.Float32).ToArray<float>();
    }

    private static Tensor Decays(Device device, ulong stream, params long[] shape) => ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, Random(device, stream, shape)), -1);

    [Theory, MemberData(nameof(OpDevices))]
    public void Split_sequence_equals_whole(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        Tensor Typed(ulong stream, params long[] shape) => Random(device, stream, shape).To(type);
        Tensor u = Typed(1, 1, 90, 24), dt = Typed(2, 1, 90, 24), A = Decays(device, 3, 24, 16), B = Typed(4, 1, 90, 1, 16), C = Typed(5, 1, 90, 1, 16);
        (Tensor Y, Tensor State) Part(long from, long length, Tensor? state) =>
            ZEngine.Ops.SelectiveScan(u.Slice(1, from, length), dt.Slice(1, from, length), A, B.Slice(1, from, length), C.Slice(1, from, length), initialState: state);

        (Tensor whole, Tensor wholeState) = ZEngine.Ops.SelectiveScan(u, dt, A, B, C);
        (Tensor first, Tensor firstState) = Part(0, 20, null);
        (Tensor rest, Tensor restState) = Part(20, 70, firstState);
        Assert.Equal(Floats(whole), Floats(ZEngine.Ops.Concat(1, first, rest)));
        Assert.Equal(wholeState.ToArray<float>(), restState.ToArray<float>());

        Tensor? state = null;
        var decoded = new Tensor[90];
        for (int l = 0; l < 90; l++) (decoded[l], state) = Part(l, 1, state);
        float[] want = Floats(whole), got = Floats(ZEngine.Ops.Concat(1, decoded));
        if (name != "cpu") Assert.Equal(want, got);            // the CPU adds the states of a single step in another order
        for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], 2e-5f);
    }

    /// <summary>Sequences that are walked in segments, in others than a whole call of their length would be, beside such as are not.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void Packed_sequences_have_the_bits_and_gradients_of_each_alone(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        foreach ((long channels, long groups, long n, long[] lengths) in (ReadOnlySpan<(long, long, long, long[])>)[(16, 1, 4, [1024, 1040]), (72, 1, 20, [33, 1, 1025]), (6, 2, 5, [1100, 1, 31, 2060]), (24, 3, 8, [20, 33, 1])])
        {
            using TensorScope scope = TensorScope.Enter();
            long length = lengths.Sum();
            Assert.Equal(length > 1000, lengths.Any(each => ZEngine.Cuda.ScanSegments.For(n, channels / groups, groups, 1, each).Count > 1));
            Tensor Typed(ulong stream, params long[] shape) => Random(device, stream, shape).To(type);
            PackedLaw.Holds(lengths, (x, state, all, layout) => ZEngine.Ops.SelectiveScan(x[0], x[1], all[0], x[2], x[3], all[1], x[4], all[2], state, layout: layout),
                [Typed(1, 1, length, channels), Typed(2, 1, length, channels), Typed(4, 1, length, groups, n), Typed(5, 1, length, groups, n), Typed(7, 1, length, channels)],
                Random(device, 6, lengths.Length, channels, n), [Decays(device, 3, channels, n), Random(device, 8, channels), Random(device, 9, channels)],
                Typed(10, 1, length, channels), Random(device, 11, lengths.Length, channels, n));
        }
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void A_given_as_its_logarithm_gives_the_same_bits(string name)
    {
        Device device = Devices.Open(name);
        foreach (long length in (ReadOnlySpan<long>)[1, 19])
        {
            using TensorScope scope = TensorScope.Enter();
            Tensor logA = Random(device, 3, 37, 20), state = Random(device, 6, 2, 37, 20);
            Tensor u = Random(device, 1, 2, length, 37), dt = Random(device, 2, 2, length, 37), B = Random(device, 4, 2, length, 1, 20), C = Random(device, 5, 2, length, 1, 20);
            (Tensor Y, Tensor Final) Scan(Tensor log, bool hasLogA) => ZEngine.Ops.SelectiveScan(
                u, dt, hasLogA ? log : ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, log), -1), B, C, initialState: state, hasLogA: hasLogA);
            float[][] Values(bool hasLogA)
            {
                (Tensor y, Tensor final) = Scan(logA, hasLogA);
                return [y.ToArray<float>(), final.ToArray<float>()];
            }
            float[] Gradient(bool hasLogA)
            {
                using Tape tape = Tape.Begin();
                tape.Backward(Scan(tape.Watch(logA), hasLogA).Y, u);
                return tape.GradientOf(logA).ToArray<float>();
            }
            Assert.Equal(Values(false), Values(true));
            Assert.Equal(Gradient(false), Gradient(true));
        }
    }

    [Fact]
    public void A_sequence_gives_the_same_bits_alone_and_in_a_batch()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor u = counted.Normal(1, 120, 2, 64), dt = counted.Normal(2, 120, 2, 64), A = Decays(counted.Device, 3, 64, 16), B = counted.Normal(4, 120, 2, 1, 16), C = counted.Normal(5, 120, 2, 1, 16);
        float[] One(Tensor x) => x.Slice(0, 77, 1).Contiguous().ToArray<float>();
        (Tensor y, Tensor final) = ZEngine.Ops.SelectiveScan(u, dt, A, B, C);
        (Tensor alone, Tensor aloneFinal) = ZEngine.Ops.SelectiveScan(u.Slice(0, 77, 1), dt.Slice(0, 77, 1), A, B.Slice(0, 77, 1), C.Slice(0, 77, 1));
        Assert.Equal(One(y), alone.ToArray<float>());
        Assert.Equal(One(final), aloneFinal.ToArray<float>());
    }

    /// <summary>Segments are another order of additions, and a function of sizes alone.</summary>
    [Fact]
    public void Segments_of_time_give_the_same_bits_on_every_device_and_nearly_those_of_the_whole()
    {
        const int length = 1100, split = 300;
        float[] Bits(int architecture)
        {
            using var counted = new CountedDevice(architecture);
            using Tape tape = Tape.Begin();
            Tensor u = tape.Watch(counted.Normal(1, 1, length, 40)), dt = tape.Watch(counted.Normal(2, 1, length, 40)), A = tape.Watch(ZEngine.Ops.Scale(Decays(counted.Device, 3, 40, 8), 1e-3f)), B = tape.Watch(counted.Normal(4, 1, length, 1, 8)), C = tape.Watch(counted.Normal(5, 1, length, 1, 8));
            (Tensor y, Tensor final) = ZEngine.Ops.SelectiveScan(u, dt, A, B, C);
            Tensor State(long from, long count, Tensor? state) => ZEngine.Ops.SelectiveScan(u.Slice(1, from, count), dt.Slice(1, from, count), A, B.Slice(1, from, count), C.Slice(1, from, count), initialState: state).FinalState;
            // Each part alone is too short for segments.
            float[] want = State(split, length - split, State(0, split, null)).ToArray<float>(), got = final.ToArray<float>();
            Assert.NotEqual(want, got);
            for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], 3e-5f * (1 + Math.Abs(want[i])));
            tape.Backward([y, final], [counted.Normal(6, 1, length, 40), counted.Normal(7, 1, 40, 8)]);
            List<float> bits = [.. y.ToArray<float>(), .. got];
            foreach (Tensor x in (ReadOnlySpan<Tensor>)[u, dt, A, B, C]) bits.AddRange(tape.GradientOf(x).ToArray<float>());
            return [.. bits];
        }
        float[] first = Bits(80);
        Assert.Equal(first, Bits(80));
        Assert.Equal(first, Bits(90));
    }

    /// <summary>
    /// Segments join ends by the product of their decays, exp(A·ΣΔ), where the walk in one multiplies step by step: other roundings, and no fewer. Against float64 their error is at most
    /// twice that of the walk in one, of y, the final state and the gradient of u, also where states hardly decay.
    /// </summary>
    [Theory, InlineData(1f), InlineData(1e-2f), InlineData(1e-4f)]
    public void Segments_err_no_more_than_twice_as_much_as_the_walk_in_one(float rate)
    {
        const int length = 1100, split = 300, channels = 12, n = 8;
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        Tensor u = tape.Watch(counted.Normal(1, 1, length, channels)), dt = counted.Normal(2, 1, length, channels), A = ZEngine.Ops.Scale(Decays(counted.Device, 3, channels, n), rate), B = counted.Normal(4, 1, length, 1, n), C = counted.Normal(5, 1, length, 1, n), dy = counted.Normal(6, 1, length, channels);
        (Tensor Y, Tensor State) Scan(Tensor u, long from, long count, Tensor? state) => ZEngine.Ops.SelectiveScan(u.Slice(1, from, count), dt.Slice(1, from, count), A, B.Slice(1, from, count), C.Slice(1, from, count), initialState: state);
        counted.Launches();
        (Tensor y, Tensor final) = Scan(u, 0, length, null);
        CountedDevice.Are(["selective_scan_forward"], counted.Launches());
        tape.Backward(y, dy);
        float[][] segments = [y.ToArray<float>(), final.ToArray<float>(), tape.GradientOf(u).ToArray<float>()];
        // Each part alone is too short for segments.
        Tensor whole = tape.Watch(u.Clone());
        counted.Launches();
        (Tensor first, Tensor middle) = Scan(whole, 0, split, null);
        (Tensor second, Tensor last) = Scan(whole, split, length - split, middle);
        CountedDevice.Are(["selective_scan_forward", "selective_scan_forward"], counted.Launches());
        tape.Backward(ZEngine.Ops.Concat(1, first, second), dy);
        float[][] one = [[.. first.ToArray<float>(), .. second.ToArray<float>()], last.ToArray<float>(), tape.GradientOf(whole).ToArray<float>()];
        double[][] exact = Exact(u.ToArray<float>(), dt.ToArray<float>(), A.ToArray<float>(), B.ToArray<float>(), C.ToArray<float>(), dy.ToArray<float>(), length, channels, n);
        for (int k = 0; k < exact.Length; k++)
        {
            double Error(float[] got) => Math.Sqrt(exact[k].Zip(got, (want, value) => (want - value) * (want - value)).Sum() / exact[k].Sum(want => want * want));
            TestContext.Current.SendDiagnosticMessage($"A times {rate}, result {k}: error of segments {Error(segments[k]):E2}, in one {Error(one[k]):E2}");
            Assert.InRange(Error(segments[k]), 1e-12, 2 * Error(one[k]));
        }
    }

    /// <summary>y, the final state and the gradient of u in double precision.</summary>
    private static double[][] Exact(float[] u, float[] dt, float[] A, float[] B, float[] C, float[] dy, int length, int channels, int n)
    {
        double[] y = new double[length * channels], final = new double[channels * n], du = new double[length * channels];
        for (int d = 0; d < channels; d++)
        for (int s = 0; s < n; s++)
        {
            double h = 0, dh = 0;
            double Delta(int l) => Math.Max(dt[l * channels + d], 0) + Math.Log(1 + Math.Exp(-Math.Abs((double)dt[l * channels + d])));
            for (int l = 0; l < length; l++)
            {
                h = Math.Exp(Delta(l) * A[d * n + s]) * h + Delta(l) * u[l * channels + d] * B[l * n + s];
                y[l * channels + d] += C[l * n + s] * h;
            }
            final[d * n + s] = h;
            for (int l = length - 1; l >= 0; l--)
            {
                dh += dy[l * channels + d] * (double)C[l * n + s];
                du[l * channels + d] += dh * Delta(l) * B[l * n + s];
                dh *= Math.Exp(Delta(l) * A[d * n + s]);
            }
        }
        return [y, final, du];
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void Parts_of_wider_rows_equal_their_copies(string name)
    {
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        Tensor wide = Random(device, 1, 2, 40, 60), A = Decays(device, 2, 20, 8), bc = Random(device, 3, 2, 40, 19);
        Tensor u = wide.Slice(-1, 0, 20), dt = wide.Slice(-1, 20, 20), z = wide.Slice(-1, 40, 20), B = bc.Slice(-1, 3, 8).Reshape(2, 40, 1, 8), C = bc.Slice(-1, 11, 8).Reshape(2, 40, 1, 8);
        (Tensor y, Tensor final) = ZEngine.Ops.SelectiveScan(u, dt, A, B, C, z: z);
        (Tensor want, Tensor wantFinal) = ZEngine.Ops.SelectiveScan(u.Clone(), dt.Clone(), A, B.Clone(), C.Clone(), z: z.Clone());
        Assert.Equal(want.ToArray<float>(), y.ToArray<float>());
        Assert.Equal(wantFinal.ToArray<float>(), final.ToArray<float>());
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void Empty_sequence_keeps_its_state(string name)
    {
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        Tensor none = Tensor.Zeros([2, 0, 4], DType.Float32, device), A = Random(device, 1, 4, 3), bc = Tensor.Zeros([2, 0, 1, 3], DType.Float32, device), state = Random(device, 2, 2, 4, 3);
        (Tensor y, Tensor final) = ZEngine.Ops.SelectiveScan(none, none, A, bc, bc, initialState: state);
        Assert.Equal(0, y.Count);
        Assert.Equal(state.ToArray<float>(), final.ToArray<float>());
    }

    [Fact]
    public void Rejects_sizes_that_differ()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor Zeros(params long[] shape) => Tensor.Zeros(shape, DType.Float32, Device.Cpu);
        string Message(Action call) => Assert.Throws<ArgumentException>(call).Message;
        (Tensor u, Tensor A, Tensor B) = (Zeros(2, 17, 8), Zeros(8, 4), Zeros(2, 17, 1, 4));
        Assert.Equal("SelectiveScan: B must be [B, L, G, N], got [2, 17, 1, 3]: N is 4 but axis 3 is 3.", Message(() => ZEngine.Ops.SelectiveScan(u, u, A, Zeros(2, 17, 1, 3), B)));
        Assert.Equal("SelectiveScan: dt must be [B, L, D], got [2, 17, 4]: D is 8 but axis 2 is 4.", Message(() => ZEngine.Ops.SelectiveScan(u, Zeros(2, 17, 4), A, B, B)));
        Assert.Equal("SelectiveScan: G = 3 does not divide D = 8.", Message(() => ZEngine.Ops.SelectiveScan(u, u, A, Zeros(2, 17, 3, 4), Zeros(2, 17, 3, 4))));
        Assert.Equal("SelectiveScan: initialState must be Float32 [2, 8, 4], one state per sequence, got Float32 [2, 4, 8] on cpu.", Message(() => ZEngine.Ops.SelectiveScan(u, u, A, B, B, initialState: Zeros(2, 4, 8))));
        Assert.Equal("SelectiveScan: packed sequences need B = 1, got 2.", Message(() => ZEngine.Ops.SelectiveScan(u, u, A, B, B, layout: new SequenceLayout(0, 17))));
    }
}
