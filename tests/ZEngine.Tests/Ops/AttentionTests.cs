using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class AttentionTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        var options = new AttentionOptions(x.Attrs.Flag("causal"), (float?)x.Attrs.Number("scale"), x.Attrs.Int("window") ?? 0, (float)(x.Attrs.Number("softcap") ?? 0), x.Layout);
        (Tensor o, Tensor lse) = ZEngine.Ops.Attention(x["q"], x["k"], x["v"], options);
        return new() { ["o"] = o, ["lse"] = lse };
    }

    private static CaseBuilder Scores(string reason, int queries, int keys, int heads, int groups, int p, int batch = 1) => Case("attention", reason).With("causal", true)
        .Normal("q", [batch, queries, heads, p]).Normal("k", [batch, keys, groups, p]).Normal("v", [batch, keys, groups, p]);

    /// <summary>Scores of about 16384·scale ± 256·|scale|, without a rounding of their own: what is lost is lost in the softmax.</summary>
    private static CaseBuilder ExactScores(string reason, int queries, int keys, double scale) => Case("attention", reason).With("causal", true).With("scale", scale)
        .Whole("q", [1, queries, 2, 16], 30, 34).Whole("k", [1, keys, 1, 16], 30, 34).Normal("v", [1, keys, 1, 16]);

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Scores("one query, one key", 1, 1, 1, 1, 3).Build("o", "lse"),
        Scores("edges of the tiles", 49, 65, 2, 1, 16).Build("o", "lse"),
        Scores("several tiles, odd head", 100, 130, 2, 2, 13).Build(),
        Scores("decode, grouped", 1, 300, 4, 2, 16, batch: 2).Build("o", "lse"),
        Scores("decode of three, window", 3, 290, 2, 1, 8).With("window", 20).Build(),
        Scores("window", 60, 60, 2, 1, 8).With("window", 7).Build(),
        Scores("window shorter than a tile's offset", 20, 200, 2, 1, 8).With("window", 3).Build(),
        Scores("soft cap, lse too", 40, 70, 2, 1, 8).With("softcap", 3.0).Build("o", "lse"),
        Scores("no mask", 33, 20, 2, 1, 8).With("causal", false).Build("o", "lse"),
        Scores("queries that see nothing", 10, 4, 2, 1, 8).Build("o"),
        Scores("packed", 120, 120, 4, 2, 8).With("cu_seqlens", new[] { 0, 1, 50, 120 }).Build("o", "lse"),
        Scores("packed, window", 120, 120, 2, 1, 8).With("cu_seqlens", new[] { 0, 30, 120 }).With("window", 11).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    /// <summary>Every head size that the kernels are made for; forward and back, in all types.</summary>
    public static IEnumerable<TheoryDataRow<OpCase, string>> HeadSizes() => Times([.. Enumerable.Range(2, 31).Select(i => Scores($"heads of {8 * i} channels", 9, 21, 2, 1, 8 * i).Build("o"))]);

    [Theory]
    [MemberData(nameof(HeadSizes))]
    public void Every_head_size_equals_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    /// <summary>
    /// Their gradients only in Float32: dq is Σ ds·k with Σ ds = 0 and every k near 32, so that a rounding of ds to 16 bits, as of any operand of a tensor core, counts
    /// 32 times what it would among keys around 0.
    /// </summary>
    public static IEnumerable<TheoryDataRow<OpCase, string>> LargeScores() => Times(Large(hasGradients: true)).Where(row => Devices.OfOp(row.Data.Item2).Type == DType.Float32)
        .Concat(Times(Large(hasGradients: false)).Where(row => Devices.OfOp(row.Data.Item2).Type != DType.Float32));

    private static OpCase Finish(CaseBuilder builder, bool hasGradients, params string[] outputs) => builder.Build(hasGradients ? outputs : ["none"]);

    private static IEnumerable<OpCase> Large(bool hasGradients) =>
    [
        Finish(ExactScores("scores of 256", 70, 130, 1.0 / 64), hasGradients, "o", "lse"),
        Finish(ExactScores("scores of -256", 70, 130, -1.0 / 64), hasGradients, "o", "lse"),
        Finish(ExactScores("scores of 1024, decode", 3, 300, 1.0 / 16), hasGradients),
        Finish(ExactScores("scores of 256, packed", 90, 90, 1.0 / 64).With("cu_seqlens", new[] { 0, 30, 90 }), hasGradients),
        Finish(ExactScores("scores of 256, soft cap", 70, 70, 1.0 / 64).With("softcap", 1024.0), hasGradients),
    ];

    [Theory]
    [MemberData(nameof(LargeScores))]
    public void Large_scores_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    public static TheoryData<string> OpDevices => [.. Devices.OpNames];

    /// <summary>q, k, v and dO of one sequence.</summary>
    private static Tensor[] Inputs(string deviceName, long length, long heads, long groups, long channels)
    {
        (string name, DType type) = Devices.OfOp(deviceName);
        Device device = Devices.Open(name);
        return [.. new[] { heads, groups, groups, heads }.Select((count, i) => ZEngine.Ops.RandomNormal([1, length, count, channels], Device.Cpu, new RandomStream((ulong)i + 1)).To(device).To(type))];
    }

    /// <summary>A window is a mask: each query gets, with the gradients, what it gets from the keys of its window alone.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void A_window_is_a_mask(string deviceName)
    {
        const int L = 90, Window = 37;
        using TensorScope scope = TensorScope.Enter();
        Tensor[] x = Inputs(deviceName, L, heads: 2, groups: 1, channels: 16);
        (float[][] Forward, float[][] Gradients) Run(AttentionOptions options, int from, int query, int count)
        {
            using Tape tape = Tape.Begin();
            Tensor q = tape.Watch(x[0].Slice(1, query, count).Clone()), k = tape.Watch(x[1].Slice(1, from, query + count - from).Clone()), v = tape.Watch(x[2].Slice(1, from, query + count - from).Clone());
            (Tensor o, Tensor lse) = ZEngine.Ops.Attention(q, k, v, options);
            tape.Backward(o, x[3].Slice(1, query, count).Clone());
            using NoGradient pause = Tape.NoGrad();
            float[] Floats(Tensor tensor) => tensor.To(DType.Float32).ToArray<float>();
            return ([Floats(o), Floats(lse)], [Floats(tape.GradientOf(q)), Floats(tape.GradientOf(k)), Floats(tape.GradientOf(v))]);
        }
        (float[][] forward, float[][] gradients) = Run(new AttentionOptions(Window: Window), 0, 0, L);
        float tolerance = x[0].DType == DType.Float32 ? 1e-5f : 0.03f;
        float[] dK = new float[L * 16], dV = new float[L * 16];
        for (int l = 0; l < L; l++)
        {
            int from = Math.Max(0, l + 1 - Window);
            (float[][] alone, float[][] own) = Run(new AttentionOptions(IsCausal: false), from, l, 1);
            for (int i = 0; i < 32; i++) Assert.Equal(alone[0][i], forward[0][l * 32 + i], tolerance);
            for (int h = 0; h < 2; h++) Assert.Equal(alone[1][h], forward[1][l * 2 + h], tolerance);
            for (int i = 0; i < 32; i++) Assert.Equal(own[0][i], gradients[0][l * 32 + i], tolerance);
            for (int i = 0; i < own[1].Length; i++) (dK[from * 16 + i], dV[from * 16 + i]) = (dK[from * 16 + i] + own[1][i], dV[from * 16 + i] + own[2][i]);
        }
        for (int i = 0; i < dK.Length; i++)
        {
            Assert.Equal(dK[i], gradients[1][i], 4 * tolerance);
            Assert.Equal(dV[i], gradients[2][i], 4 * tolerance);
        }
    }

    /// <summary>Heads in another order give outputs and gradients in that order, to the bit; key heads go along with the query heads that share them.</summary>
    [Theory, MemberData(nameof(OpDevices))]
    public void Heads_in_another_order_give_their_bits_in_that_order(string deviceName)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor[] x = Inputs(deviceName, 70, heads: 4, groups: 2, channels: 24);
        static Tensor Swapped(Tensor tensor)
        {
            using NoGradient pause = Tape.NoGrad();
            long half = tensor.Shape[2] / 2;
            return ZEngine.Ops.Concat(2, tensor.Slice(2, half, half), tensor.Slice(2, 0, half));
        }
        float[][] Run(Tensor[] inputs, Func<Tensor, Tensor> order)
        {
            using Tape tape = Tape.Begin();
            foreach (Tensor tensor in inputs.AsSpan(0, 3)) tape.Watch(tensor);
            (Tensor o, Tensor lse) = ZEngine.Ops.Attention(inputs[0], inputs[1], inputs[2]);
            tape.Backward(o, inputs[3]);
            var all = new List<Tensor> { o.Detach(), lse.Detach() };
            foreach (Tensor tensor in inputs.AsSpan(0, 3)) all.Add(tape.GradientOf(tensor));
            using NoGradient pause = Tape.NoGrad();
            return [.. all.Select(tensor => order(tensor).To(DType.Float32).ToArray<float>())];
        }
        Assert.Equal(Run(x, Swapped), Run([.. x.Select(Swapped)], tensor => tensor));
    }

    [Fact]
    public void Query_that_sees_no_key_gives_zero_and_minus_infinity()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor q = ZEngine.Ops.RandomNormal([1, 60, 2, 8], Device.Cpu, new RandomStream(1)), k = ZEngine.Ops.RandomNormal([1, 2, 2, 8], Device.Cpu, new RandomStream(2));
        (Tensor o, Tensor lse) = ZEngine.Ops.Attention(q, k, k);
        Assert.All(o.Slice(1, 0, 58).ToArray<float>(), value => Assert.Equal(0, value));
        Assert.All(lse.Slice(1, 0, 58).ToArray<float>(), value => Assert.Equal(float.NegativeInfinity, value));
        Assert.All(lse.Slice(1, 58, 2).ToArray<float>(), value => Assert.True(float.IsFinite(value)));
    }

    [Fact]
    public void Cache_with_room_to_spare_equals_its_copy()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor cache = ZEngine.Ops.RandomNormal([2, 100, 2, 8], Device.Cpu, new RandomStream(1)), part = cache.Slice(1, 0, 70);
        foreach (long queries in (ReadOnlySpan<long>)[1, 20])
        {
            Tensor q = ZEngine.Ops.RandomNormal([2, queries, 4, 8], Device.Cpu, new RandomStream(2));
            Assert.Equal(ZEngine.Ops.Attention(q, part.Clone(), part.Clone()).O.ToArray<float>(), ZEngine.Ops.Attention(q, part, part).O.ToArray<float>());
        }
    }

    [Fact]
    public void Rejects_a_window_without_a_mask()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor q = Tensor.Zeros([1, 4, 2, 8], DType.Float32, Device.Cpu);
        Assert.Equal("Attention: a window needs a causal mask.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Attention(q, q, q, new AttentionOptions(IsCausal: false, Window: 3))).Message);
        Assert.Equal("Attention: G = 2 does not divide H = 3.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Attention(Tensor.Zeros([1, 4, 3, 8], DType.Float32, Device.Cpu), q, q)).Message);
    }
}
