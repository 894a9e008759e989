using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class SsdScanTests
{
    internal static Tensors Apply(EngineInputs x) => Apply(x, x.Attrs.Int("chunk_length") ?? 0);

    private static Tensors Apply(EngineInputs x, long chunkLength)
    {
        double?[]? limit = x.Attrs.Numbers("dt_limit");
        var options = new SsdScanOptions(x.Attrs.Flag("softplus"), (float)(limit?[0] ?? double.NegativeInfinity), (float)(limit?[1] ?? double.PositiveInfinity), chunkLength, x.Layout);
        (Tensor y, Tensor final) = ZEngine.Ops.SsdScan(x["x"], x["dt"], x["A"], x["B"], x["C"], x.Optional("D"), x.Optional("z"), x.Optional("dt_bias"), x.States("initial_state"), options);
        Tensors outputs = new() { ["y"] = y, ["final_state"] = x.Last(final) };
        if (x.Layout is not null) outputs["final_states"] = final;
        return outputs;
    }

    private static CaseBuilder Scan(string reason, int length, int heads, int p, int n, int groups = 1, int batch = 1) => Case("ssd", reason).With("softplus", true)
        .Normal("x", [batch, length, heads, p]).Normal("dt", [batch, length, heads]).Decay("A", [heads]).Normal("B", [batch, length, groups, n]).Normal("C", [batch, length, groups, n]);

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Scan("one step", 1, 2, 3, 5, batch: 2).Normal("D", [2]).Normal("z", [2, 1, 2, 3]).Normal("initial_state", [2, 2, 3, 5]).Build(),
        Scan("one step of one sequence, rows of odd sizes", 1, 1, 3, 5).Normal("D", [1]).Build(),
        Scan("one chunk exactly", 64, 2, 8, 16).Build(),
        Scan("one step over a chunk", 65, 2, 8, 6).Normal("dt_bias", [2]).Build(),
        Scan("odd sizes, more heads than a block", 37, 6, 5, 7, groups: 1).Normal("D", [6, 5]).Build(),
        Scan("groups", 70, 6, 4, 9, groups: 2, batch: 2).Normal("D", [6]).Normal("initial_state", [2, 6, 4, 9]).Build(),
        Scan("a gate and limits", 40, 2, 6, 4).With("dt_limit", new double?[] { 0.3, 1.2 }).Normal("z", [1, 40, 2, 6]).Build(),
        Scan("no softplus", 20, 2, 4, 4).With("softplus", false).Build(),
        Scan("extreme dt", 100, 2, 4, 8).ExtremeDt("dt", [1, 100, 2]).Build(),
        Scan("decays next to 1", 130, 2, 4, 8).Uniform("A", [2], -1e-4, -1e-6).Build(),
        Scan("several slices of channels and states", 20, 2, 72, 136).Normal("D", [2, 72]).Normal("z", [1, 20, 2, 72]).Normal("initial_state", [1, 2, 72, 136]).Build(),
        Scan("several slices of channels, few states", 20, 2, 72, 40).Normal("D", [2, 72]).Normal("z", [1, 20, 2, 72]).Build(),
        Scan("several slices of channels, two of states", 70, 1, 68, 72).Normal("D", [1]).Build(),
        Scan("the most states, odd channels", 9, 1, 37, 256).Normal("dt_bias", [1]).Build(),
        Scan("the widest heads", 9, 2, 128, 20).Normal("D", [2, 128]).Normal("initial_state", [1, 2, 128, 20]).Build(),
        Scan("packed", 90, 4, 4, 6).With("cu_seqlens", new[] { 0, 1, 3, 80, 90 }).Normal("initial_state", [4, 4, 4, 6]).Normal("D", [4]).Build(),
        Scan("packed, groups, limits, a gate, D per channel", 60, 6, 8, 8, groups: 3).With("cu_seqlens", new[] { 0, 17, 18, 60 }).With("dt_limit", new double?[] { 0.3, 1.2 })
            .Normal("z", [1, 60, 6, 8]).Normal("D", [6, 8]).Normal("dt_bias", [6]).Normal("initial_state", [3, 6, 8, 8]).Build("y", "final_states"),
    ]);

    /// <summary>Options in any combination, and small sizes.</summary>
    public static IEnumerable<TheoryDataRow<OpCase, string>> RandomCases() => Times(Enumerable.Range(0, 16).Select(RandomCase));

    private static OpCase RandomCase(int seed)
    {
        var chance = new Chance(seed);
        int groups = chance.Of(1, 2, 3), heads = groups * chance.Range(1, 3), p = chance.Of(3, 8, 17), n = chance.Of(4, 5, 8, 20), length = chance.Of(1, 7, 32, 45), batch = chance.Of(1, 2);
        bool isPacked = length > 1 && chance.Flag(), hasSoftplus = chance.Flag();
        int[]? ends = isPacked ? chance.Boundaries(length) : null;
        if (isPacked) batch = 1;
        CaseBuilder c = Case("ssd", $"random options {seed}", seed + 1).With("softplus", hasSoftplus).With("cu_seqlens", ends).With("chunk_length", chance.Of(0, 4, 16, 23)).With("dt_limit", chance.Of<double?[]?>(null, [0.3, 1.2], [0, null]))
            .Normal("x", [batch, length, heads, p]).Decay("A", [heads]).Normal("B", [batch, length, groups, n]).Normal("C", [batch, length, groups, n]);
        // Without softplus steps are hardly ever negative: a state that grows carries its rounding into every bit.
        c = hasSoftplus ? c.Normal("dt", [batch, length, heads]) : c.Uniform("dt", [batch, length, heads], -0.125, 0.75);
        if (chance.Flag()) c = hasSoftplus ? c.Normal("dt_bias", [heads]) : c.Uniform("dt_bias", [heads], -0.125, 0.25);
        if (chance.Flag()) c = chance.Flag() ? c.Normal("D", [heads]) : c.Normal("D", [heads, p]);
        if (chance.Flag()) c = c.Normal("z", [batch, length, heads, p]);
        if (chance.Flag()) c = c.Normal("initial_state", [isPacked ? ends!.Length - 1 : batch, heads, p, n]);
        return c.Build("y", isPacked ? "final_states" : "final_state");
    }

    [Theory]
    [MemberData(nameof(RandomCases))]
    public void Random_options_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Theory]
    [InlineData(1), InlineData(2), InlineData(7), InlineData(16), InlineData(100), InlineData(257), InlineData(1000)]
    public void Chunk_length_does_not_change_the_result(int chunk)
    {
        foreach (string device in Devices.OpNames)
            if (EngineOp.Takes("ssd", device)) EngineOp.Check(OpCase.Golden("ssd_chunk_edges"), device, x => Apply(x, chunk));
    }

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    public static TheoryData<string> OpDevices => [.. Devices.OpNames.Where(device => EngineOp.Takes("ssd", device))];

    [Theory]
    [MemberData(nameof(OpDevices))]
    public void Extreme_steps_give_no_NaN_forward_or_backward(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using Tape tape = Tape.Begin();
        Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(stream)).To(device).To(type);
        Tensor x = tape.Watch(Random(1, 1, 200, 2, 8));
        var steps = new float[400];
        for (int i = 0; i < steps.Length; i++) steps[i] = (i % 7) switch { 0 => 1e5f, 1 => -1e5f, 2 => 60, _ => 0.1f };
        Tensor dt = tape.Watch(Tensor.From<float>(steps, [1, 200, 2], device).To(type)), A = tape.Watch(Tensor.From<float>([-1e4f, -1e-9f], [2], device));
        Tensor B = tape.Watch(Random(2, 1, 200, 1, 8)), C = tape.Watch(Random(3, 1, 200, 1, 8));
        (Tensor y, Tensor final) = ZEngine.Ops.SsdScan(x, dt, A, B, C);
        Tensor dy = Tensor.Empty(y.Shape, type, device), dfinal = Tensor.Empty(final.Shape, DType.Float32, device);
        ZEngine.Ops.Fill(dy, 1f / y.Count);
        ZEngine.Ops.Fill(dfinal, 1f / final.Count);
        tape.Backward([y, final], [dy, dfinal]);
        foreach (Tensor tensor in (ReadOnlySpan<Tensor>)[y, final, tape.GradientOf(x), tape.GradientOf(dt), tape.GradientOf(A), tape.GradientOf(B), tape.GradientOf(C)])
        {
            using NoGradient pause = Tape.NoGrad();
            Assert.All(tensor.To(DType.Float32).ToArray<float>(), value => Assert.True(float.IsFinite(value), value.ToString()));
        }
    }

    /// <summary>Boundaries in the middle of chunks, with all options.</summary>
    [Theory]
    [MemberData(nameof(OpDevices))]
    public void Packed_sequences_have_the_bits_and_gradients_of_each_alone(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(9, stream)).To(device);
        foreach ((long heads, long groups, long p, long n, long[] lengths) in (ReadOnlySpan<(long, long, long, long, long[])>)[(4, 2, 8, 16, [20, 70, 2]), (3, 1, 17, 5, [33, 1, 7])])
        {
            using TensorScope scope = TensorScope.Enter();
            long length = lengths.Sum();
            PackedLaw.Holds(lengths, (x, state, all, layout) => ZEngine.Ops.SsdScan(x[0], x[1], all[0], x[2], x[3], all[1], x[4], all[2], state, new SsdScanOptions(MinDelta: 0.1f, MaxDelta: 2, Layout: layout)),
                [Random(1, 1, length, heads, p).To(type), Random(2, 1, length, heads).To(type), Random(4, 1, length, groups, n).To(type), Random(5, 1, length, groups, n).To(type), Random(7, 1, length, heads, p).To(type)],
                Random(6, lengths.Length, heads, p, n), [ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, Random(3, heads)), -1), Random(8, heads, p), Random(11, heads)],
                Random(10, 1, length, heads, p).To(type), Random(12, lengths.Length, heads, p, n));
        }
    }

    /// <summary>A sequence in three parts, each from the final state of the one before: the bounds of the whole, of outputs and of gradients that go through the parts.</summary>
    [Theory]
    [MemberData(nameof(OpDevices))]
    public void Parts_that_carry_their_state_are_as_near_as_the_whole(string deviceName) => EngineOp.Check(
        Scan("in parts", 90, 4, 8, 16, groups: 2).Normal("D", [4]).Normal("z", [1, 90, 4, 8]).Normal("dt_bias", [4]).Normal("initial_state", [1, 4, 8, 16]).Build(), deviceName, x =>
        {
            Tensor? state = x["initial_state"];
            var parts = new List<Tensor>();
            foreach ((long from, long length) in (ReadOnlySpan<(long, long)>)[(0, 20), (20, 1), (21, 69)])
            {
                Tensor Part(string name) => x[name].Slice(1, from, length);
                (Tensor y, state) = ZEngine.Ops.SsdScan(Part("x"), Part("dt"), x["A"], Part("B"), Part("C"), x["D"], Part("z"), x["dt_bias"], state);
                parts.Add(y);
            }
            return new Tensors { ["y"] = ZEngine.Ops.Concat(1, [.. parts]), ["final_state"] = state };
        });

    /// <summary>One step reads rows whose places are multiples of 16 bytes in wide accesses, and others element by element: in the same order.</summary>
    [Theory]
    [MemberData(nameof(OpDevices))]
    public void One_step_has_the_same_bits_wherever_rows_stand(string deviceName)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(9, stream)).To(device);
        foreach (long n in (ReadOnlySpan<long>)[8, 72, 132])
        {
            Tensor bc = Random(1, 2, 1, 2 * n + 1).To(type), x = Random(2, 2, 1, 3, 51).To(type), dt = Random(3, 2, 1, 3).To(type), A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, Random(4, 3)), -1), state = Random(5, 2, 3, 51, n);
            Tensor B = bc.Slice(-1, 1, n).Reshape(2, 1, 1, n), C = bc.Slice(-1, n + 1, n).Reshape(2, 1, 1, n);
            (Tensor odd, Tensor oddState) = ZEngine.Ops.SsdScan(x, dt, A, B, C, initialState: state);
            (Tensor even, Tensor evenState) = ZEngine.Ops.SsdScan(x, dt, A, B.Clone(), C.Clone(), initialState: state);
            Assert.Equal(even.To(DType.Float32).ToArray<float>(), odd.To(DType.Float32).ToArray<float>());
            Assert.Equal(evenState.ToArray<float>(), oddState.ToArray<float>());
        }
    }

    [Theory]
    [MemberData(nameof(DeviceNames))]
    public void Logarithm_of_A_gives_the_same_and_a_gradient_of_its_own(string name)
    {
        Device device = Devices.Open(name);
        using Tape tape = Tape.Begin();
        Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(9, stream)).To(device);
        foreach (long length in (ReadOnlySpan<long>)[1, 70])
        {
            Tensor logA = tape.Watch(Random(3, 4)), A = tape.Watch(ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, logA.Detach()), -1));
            Tensor x = Random(1, 2, length, 4, 8), dt = Random(2, 2, length, 4), B = Random(4, 2, length, 2, 16), C = Random(5, 2, length, 2, 16), state = Random(6, 2, 4, 8, 16), dy = Random(7, 2, length, 4, 8);
            Tensor want = ZEngine.Ops.SsdScan(x, dt, A, B, C, initialState: state).Y, got = ZEngine.Ops.SsdScan(x, dt, logA, B, C, initialState: state, options: new SsdScanOptions(HasLogA: true)).Y;
            Near(want, got, 1e-6);
            using (Tape.NoGrad()) Near(want, ZEngine.Ops.SsdScan(x, dt, logA, B, C, initialState: state, options: new SsdScanOptions(HasLogA: true)).Y, 1e-6);
            tape.Backward([want, got], [dy, dy]);
            using (Tape.NoGrad()) Near(ZEngine.Ops.Multiply(tape.GradientOf(A), A), tape.GradientOf(logA), 1e-5);
        }
    }

    /// <summary>A layer between its projections as one op and as its parts: the same numbers and the same gradients, on both ways of the norm.</summary>
    [Theory]
    [MemberData(nameof(DeviceNames))]
    public void Mamba2_scan_equals_its_parts(string name)
    {
        foreach (DType dtype in name == "cpu" ? [DType.Float32] : (ReadOnlySpan<DType>)[DType.Float32, DType.BFloat16])
        foreach (bool isPacked in (ReadOnlySpan<bool>)[false, true])
        foreach ((long heads, long p, long groups, long states, bool defers) in ((long, long, long, long, bool)[])[(4, 8, 1, 16, true), (4, 8, 2, 16, false), (3, 40, 1, 5, true), (2, 72, 1, 72, true)])
        {
            Device device = Devices.Open(name);
            Tensor[] want = Layer(device, dtype, isPacked, heads, p, groups, states, defers, isOne: false), got = Layer(device, dtype, isPacked, heads, p, groups, states, defers, isOne: true);
            for (int i = 0; i < want.Length; i++)
            {
                Near(want[i], got[i], dtype == DType.Float32 ? 2e-5 : 8 * Oracles.Close.BFloat16Epsilon);
                want[i].Dispose();
                got[i].Dispose();
            }
        }
    }

    /// <summary>Mixed, projected, added to a residual and normalised; then the gradients of everything, and the final states.</summary>
    private static Tensor[] Layer(Device device, DType dtype, bool isPacked, long heads, long p, long groups, long states, bool defers, bool isOne)
    {
        const long length = 70, hidden = 16, taps = 4;
        (long inner, long batch) = (heads * p, isPacked ? 1 : 2);
        long channels = inner + 2 * groups * states, sequences = 2;
        var layout = isPacked ? new SequenceLayout(0, 3, length) : null;
        using Tape tape = Tape.Begin();
        ulong stream = 0;
        Tensor Random(DType type, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(5, ++stream)).To(DType.BFloat16).To(type).To(device);
        Tensor[] x =
        [
            Random(dtype, batch, length, inner + channels + heads), Random(DType.Float32, heads), Random(DType.Float32, channels, 1, taps), Random(DType.Float32, inner), Random(DType.Float32, channels),
            Random(DType.Float32, heads), Random(DType.Float32, heads), Random(DType.Float32, sequences, taps - 1, channels), Random(DType.Float32, sequences, heads, p, states),
            Random(dtype, hidden, inner), Random(dtype, batch, length, hidden), Random(DType.Float32, hidden),
        ];
        foreach (Tensor tensor in x) tape.Watch(tensor);
        var options = new SsdScanOptions(Layout: layout, HasLogA: true);
        Tensor mixed, conv, scan;
        RowScale? scale = null;
        if (isOne)
        {
            (mixed, scale, conv, scan) = ZEngine.Ops.Mamba2Scan(x[0], x[1], x[2], x[3], new Mamba2ScanOptions(groups, 1e-5f, defers ? 0 : inner / groups, defers, options), x[4], x[5], x[6], x[7], x[8]);
            Assert.Equal(defers, scale is not null);
        }
        else
        {
            Tensor[] parts = ZEngine.Ops.Split(x[0], inner, channels, heads);
            (Tensor c, conv) = ZEngine.Ops.CausalConv1d(parts[1], x[2].Reshape(channels, taps), x[4], hasSilu: true, x[7], layout);
            Tensor[] xBC = ZEngine.Ops.Split(c, inner, groups * states, groups * states);
            (Tensor y, scan) = ZEngine.Ops.SsdScan(
                xBC[0].Reshape(batch, length, heads, p), parts[2], x[1], xBC[1].Reshape(batch, length, groups, states), xBC[2].Reshape(batch, length, groups, states), x[5], dtBias: x[6], initialState: x[8], options: options);
            mixed = ZEngine.Ops.RmsNorm(y.Reshape(batch, length, inner), x[3], 1e-5f, parts[0], groupSize: defers ? 0 : inner / groups);
        }
        (Tensor normed, Tensor sum) = ZEngine.Ops.AddRmsNorm(ZEngine.Ops.Linear(mixed, x[9]), x[10], x[11], 1e-5f, scale);
        tape.Backward([normed, sum, conv, scan], [Random(dtype, batch, length, hidden), Random(dtype, batch, length, hidden), Random(DType.Float32, conv.Shape.ToArray()), Random(DType.Float32, scan.Shape.ToArray())]);
        List<Tensor> results = [normed, sum, conv, scan];
        foreach (Tensor tensor in x) results.Add(tape.GradientOf(tensor));
        return [.. results.Select(result => TensorScope.Release(result.To(DType.Float32).Clone()))];
    }

    private static void Near(Tensor want, Tensor got, double tolerance)
    {
        Assert.Equal(want.Shape.ToArray(), got.Shape.ToArray());
        float[] wanted = want.To(DType.Float32).ToArray<float>(), gotten = got.To(DType.Float32).ToArray<float>();
        double scale = Math.Sqrt(wanted.Average(w => (double)w * w));
        for (int i = 0; i < wanted.Length; i++)
            if (!(Math.Abs(wanted[i] - gotten[i]) <= tolerance * (4 * scale + Math.Abs(wanted[i])))) Assert.Fail($"{want} at {i}: got {gotten[i]:R}, want {wanted[i]:R}");
    }

    [Theory]
    [MemberData(nameof(DeviceNames))]
    public void Split_sequence_equals_whole_and_packed_equals_separate(string name)
    {
        Device device = Devices.Open(name);
        using TensorScope scope = TensorScope.Enter();
        Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(9, stream)).To(device);
        Tensor x = Random(1, 1, 90, 4, 8), dt = Random(2, 1, 90, 4), A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, Random(3, 4)), -1), B = Random(4, 1, 90, 1, 16), C = Random(5, 1, 90, 1, 16);
        (Tensor Y, Tensor State) Part(long from, long length, Tensor? state) =>
            ZEngine.Ops.SsdScan(x.Slice(1, from, length), dt.Slice(1, from, length), A, B.Slice(1, from, length), C.Slice(1, from, length), initialState: state);

        (Tensor packed, Tensor finals) = ZEngine.Ops.SsdScan(x, dt, A, B, C, options: new SsdScanOptions(Layout: new SequenceLayout(0, 20, 90)));
        (Tensor first, Tensor firstState) = Part(0, 20, null);
        (Tensor second, Tensor secondState) = Part(20, 70, null);
        Assert.Equal(ZEngine.Ops.Concat(1, first, second).ToArray<float>(), packed.ToArray<float>());
        Assert.Equal(ZEngine.Ops.Concat(0, firstState, secondState).ToArray<float>(), finals.ToArray<float>());

        (Tensor whole, Tensor wholeState) = ZEngine.Ops.SsdScan(x, dt, A, B, C);
        (Tensor rest, Tensor restState) = Part(20, 70, firstState);
        float[] joined = ZEngine.Ops.Concat(1, first, rest).ToArray<float>(), want = whole.ToArray<float>();
        for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], joined[i], 2e-5f);
        float[] wantState = wholeState.ToArray<float>(), gotState = restState.ToArray<float>();
        for (int i = 0; i < wantState.Length; i++) Assert.Equal(wantState[i], gotState[i], 2e-5f);
    }

    /// <summary>Sequences whose last chunks are 1 to 4 behind the eighth, in chunks of 4 steps: the backward pass makes the states between those that are kept.</summary>
    private static readonly int[] s_endings = [0, 33, 73, 117, 165, 168];

    private static OpCase Endings(int states) => Scan("sequences of 9 to 12 chunks and of one", s_endings[^1], 2, 8, states).With("cu_seqlens", s_endings).Normal("initial_state", [5, 2, 8, states]).Normal("z", [1, s_endings[^1], 2, 8]).Build();

    public static IEnumerable<TheoryDataRow<OpCase, string>> EndingCases() => Times([Endings(256), Endings(100)]);

    [Theory]
    [MemberData(nameof(EndingCases))]
    public void Sequences_end_anywhere_between_kept_states(OpCase c, string device) => EngineOp.Check(c, device, x => Apply(x, 4));

    /// <summary>What a packed sequence gives, and the gradients of it, are those of the sequence by itself, to the bit.</summary>
    [Theory]
    [InlineData("cpu", DType.Float32), InlineData("emulator", DType.Float32), InlineData("emulator", DType.BFloat16), InlineData("emulator", DType.Float16)]
    public void Packed_gradients_equal_separate(string name, DType type)
    {
        const long p = 8, n = 256, heads = 2;
        Device device = Devices.Open(name);
        long length = s_endings[^1], count = s_endings.Length - 1;
        Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(9, stream)).To(device);
        using TensorScope scope = TensorScope.Enter();
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, Random(3, heads)), -1);
        Tensor[] all = [.. new[] { Random(1, 1, length, heads, p), Random(2, 1, length, heads), Random(4, 1, length, 1, n), Random(5, 1, length, 1, n), Random(6, 1, length, heads, p) }.Select(tensor => tensor.To(type))];
        Tensor states = Random(7, count, heads, p, n), dStates = Random(8, count, heads, p, n);
        float[][] Results(long from, long steps, long sequence, long sequences, SequenceLayout? layout)
        {
            using Tape tape = Tape.Begin();
            Tensor[] x = [.. all.Take(4).Select(tensor => tensor.Slice(1, from, steps)), states.Slice(0, sequence, sequences)];
            foreach (Tensor input in x) tape.Watch(input);
            (Tensor y, Tensor final) = ZEngine.Ops.SsdScan(x[0], x[1], A, x[2], x[3], initialState: x[4], options: new SsdScanOptions(ChunkLength: 4, Layout: layout));
            tape.Backward([y, final], [all[4].Slice(1, from, steps), dStates.Slice(0, sequence, sequences)]);
            var results = new List<float[]> { y.To(DType.Float32).ToArray<float>(), final.ToArray<float>() };
            foreach (Tensor input in x) results.Add(tape.GradientOf(input).To(DType.Float32).ToArray<float>());
            return [.. results];
        }
        float[][] packed = Results(0, length, 0, count, new SequenceLayout([.. s_endings.Select(at => (long)at)]));
        float[][][] separate = [.. Enumerable.Range(0, (int)count).Select(i => Results(s_endings[i], s_endings[i + 1] - s_endings[i], i, 1, null))];
        for (int k = 0; k < packed.Length; k++) Assert.Equal(separate.SelectMany(results => results[k]), packed[k]);
    }

    [Fact]
    public void Rejects_sizes_that_differ()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor Zeros(params long[] shape) => Tensor.Zeros(shape, DType.Float32, Device.Cpu);
        (Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C) = (Zeros(2, 17, 4, 8), Zeros(2, 17, 4), Zeros(4), Zeros(2, 17, 1, 5), Zeros(2, 17, 1, 3));
        Assert.Equal("SsdScan: C must be [B, L, G, N], got [2, 17, 1, 3]: N is 5 but axis 3 is 3.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.SsdScan(x, dt, A, B, C)).Message);
        Assert.Equal("SsdScan: dt must be [B, L, H], got [2, 17, 4, 1]: it has 4 axes.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.SsdScan(x, dt.Reshape(2, 17, 4, 1), A, B, B)).Message);
        Tensor three = Zeros(2, 17, 3, 5);
        Assert.Equal("SsdScan: G = 3 does not divide H = 4.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.SsdScan(x, dt, A, three, three)).Message);
    }

    [Fact]
    public void Float16_is_worked_on_in_Float32()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor A = ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Exp, counted.Normal(9, 2)), -1), D = counted.Normal(8, 2), state = counted.Normal(7, 1, 2, 5, 6);
        // Float16 inputs are worked on in Float32: only results are rounded.
        counted.RoundsOnce(DType.Float16, x => ZEngine.Ops.SsdScan(x[0], x[1], A, x[2], x[3], D, initialState: state, options: new SsdScanOptions(ChunkLength: 16)).Y,
            counted.Normal(1, 1, 20, 2, 5), counted.Normal(2, 1, 20, 2), counted.Normal(3, 1, 20, 1, 6), counted.Normal(4, 1, 20, 1, 6));
    }

    [Fact]
    public void Rejects_more_states_than_the_kernels_hold()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor Zeros(params long[] shape) => Tensor.Zeros(shape, DType.Float32, counted.Device);
        Tensor wide = Zeros(1, 3, 1, 257);
        Assert.Equal("SsdScan: N is 257, the kernels take at most 256 states.",
            Assert.Throws<NotSupportedException>(() => ZEngine.Ops.SsdScan(Zeros(1, 3, 2, 4), Zeros(1, 3, 2), Zeros(2), wide, wide)).Message);
    }

    [Theory]
    [InlineData(64, 64, 1, 4, 63904), InlineData(128, 64, 2, 4, 80288), InlineData(256, 64, 4, 4, 95568), InlineData(256, 8, 4, 1, 95568), InlineData(128, 8, 2, 4, 93760)]
    public void Tiles_of_16_bits_fit_the_smallest_multiprocessor(int states, int channels, int tiles, int units, int bytes)
    {
        const int Shared = 99 << 10, Static = 3408;           // in floats: decays, D, the norm's weight and the convolution's window
        ZEngine.Cuda.SsdPlan half = ZEngine.Cuda.SsdPlan.For(states, channels, 80, 1, DType.BFloat16, 8, 2048, 64, 132, Shared);
        Assert.Equal((tiles, units, bytes), (half.Tiles, half.Units, half.SharedBytes));
        Assert.InRange(half.SharedBytes, 1, Shared);
        foreach (DType type in (ReadOnlySpan<DType>)[DType.Float32, DType.Float16]) Assert.InRange(ZEngine.Cuda.SsdPlan.For(states, channels, 80, 1, type, 8, 2048, 64, 132, Shared).SharedBytes + Static, 1, Shared);
    }

    [Theory]
    [InlineData(8, 80, 2048, 1, 32)]                          // 320 blocks: a sequence each
    [InlineData(1, 80, 2048, 4, 8)]                           // 40 blocks: no segment shorter than 8 chunks
    [InlineData(1, 80, 65536, 7, 147)]                        // twice the multiprocessors
    [InlineData(1, 80, 512, 1, 8)]                            // too short
    [InlineData(0, 80, 2048, 1, 32)]
    public void Few_long_sequences_are_walked_in_segments(int sequences, int heads, long length, int segments, int chunks)
    {
        ZEngine.Cuda.SsdPlan plan = ZEngine.Cuda.SsdPlan.For(128, 64, heads, 1, DType.BFloat16, sequences, length, 64, 132, 227 << 10);
        Assert.Equal((4, segments, chunks), (plan.Units, plan.Segments, plan.ChunksOfSegment));
    }

    /// <summary>As one long sequence is walked in segments and one among many is not, on a device of few multiprocessors.</summary>
    [Fact]
    public void Segments_change_no_bit()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        long many = counted.Device.Multiprocessors;
        foreach (DType type in (ReadOnlySpan<DType>)[DType.Float32, DType.BFloat16])
        {
            Tensor Repeat(Tensor one) => ZEngine.Ops.Concat(0, [.. Enumerable.Repeat(one, (int)many)]);
            Tensor x = counted.Normal(1, 1, 70, 1, 8).To(type), dt = counted.Normal(2, 1, 70, 1).To(type), B = counted.Normal(3, 1, 70, 1, 6).To(type), A = counted.Normal(4, 1), state = counted.Normal(5, 1, 1, 8, 6);
            counted.Launches();
            (Tensor y, Tensor final) = ZEngine.Ops.SsdScan(x, dt, A, B, B, initialState: state, options: new SsdScanOptions(ChunkLength: 4));
            CountedDevice.Are(["ssd_scan_state_forward", "ssd_scan_forward"], counted.Launches());
            (Tensor Y, Tensor Final) all = ZEngine.Ops.SsdScan(Repeat(x), Repeat(dt), A, Repeat(B), Repeat(B), initialState: Repeat(state), options: new SsdScanOptions(ChunkLength: 4));
            CountedDevice.Are(["ssd_scan_forward"], [.. counted.Launches().Where(launch => launch.Kernel.Contains("ssd", StringComparison.Ordinal))]);
            Assert.Equal(y.To(DType.Float32).ToArray<float>(), all.Y.Slice(0, many - 1, 1).To(DType.Float32).ToArray<float>());
            Assert.Equal(final.ToArray<float>(), all.Final.Slice(0, many - 1, 1).ToArray<float>());
        }
    }
}
