using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class GroupedExpertsTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        Tensor up = ZEngine.Ops.Concat(1, x["gate_proj"], x["up_proj"]);
        (Tensor y, Tensor aux, _) = ZEngine.Ops.Moe(x["x"], x["router"], up, x["down_proj"], new RouteOptions(x.Attrs.Int("top_k")!.Value, x.Attrs.Flag("normalize")));
        return new() { ["y"] = y, ["aux_loss"] = aux };
    }

    private static CaseBuilder Experts(string reason, int tokens, int width, int experts, int hidden, int topK, bool normalize) => Case("moe_swiglu", reason)
        .With("top_k", topK).With("normalize", normalize).Normal("x", [tokens, width]).Normal("router", [experts, width], 0.5)
        .Normal("gate_proj", [experts, hidden, width], 0.3).Normal("up_proj", [experts, hidden, width], 0.3).Normal("down_proj", [experts, width, hidden], 0.3);

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Experts("one token, some experts empty", 1, 5, 6, 7, 2, true).Build(),
        Experts("all experts", 9, 6, 3, 5, 3, true).Build(),
        Experts("one expert", 9, 6, 1, 5, 1, false).Build(),
        Experts("many tokens, odd sizes", 70, 17, 5, 23, 2, false).Build(),
        Experts("top one normalised: weights are 1", 12, 8, 4, 6, 1, true).Build("y"),
        Experts("equal logits go to the lower experts", 6, 4, 5, 3, 2, true).Constant("router", [5, 4], 0.25).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    private static Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(4, stream));

    [Theory]
    [InlineData(true, Pointwise.GeluTanh)]
    [InlineData(false, Pointwise.Relu2)]
    public void Equals_the_experts_one_by_one(bool isGated, Pointwise function)
    {
        using Tape tape = Tape.Begin();
        const int T = 11, D = 6, E = 4, F = 5;
        Tensor x = tape.Watch(Random(1, T, D)), logits = tape.Watch(Random(2, T, E)), up = tape.Watch(Random(3, E, isGated ? 2 * F : F, D)), down = tape.Watch(Random(4, E, D, F)), dy = Random(5, T, D);
        Routing routing = ZEngine.Ops.Route(logits, new RouteOptions(2, Score: RouterScore.Sigmoid, Scale: 1.5f));
        Tensor y = ZEngine.Ops.GroupedExperts(x, routing, up, down, function, isGated);
        int[] experts = routing.Experts.ToArray<int>();
        tape.Backward(y, dy);
        Tensor[] inputs = [x, logits, up, down];
        var got = new List<float[]> { y.ToArray<float>() };
        foreach (Tensor input in inputs) got.Add(tape.GradientOf(input).ToArray<float>());

        // The same from plain ops: every expert on every token, weighted by a mask of slots.
        using (Tape.NoGrad())
        {
            List<float[]> want = ByHand(x, logits, up, down, dy, experts, function, isGated);
            for (int i = 0; i < want.Count; i++)
            for (int j = 0; j < want[i].Length; j++) Assert.Equal(want[i][j], got[i][j], 2e-4f);
        }
    }

    private static List<float[]> ByHand(Tensor x, Tensor logits, Tensor up, Tensor down, Tensor dy, int[] experts, Pointwise function, bool isGated)
    {
        long tokens = x.Shape[0], count = up.Shape[0];
        using Tape tape = Tape.Begin();
        Tensor[] inputs = [x.Clone(), logits.Clone(), up.Clone(), down.Clone()];
        foreach (Tensor input in inputs) tape.Watch(input);
        var mask = new float[tokens * count];
        for (int i = 0; i < experts.Length; i++) mask[i / 2 * count + experts[i]] = 1;
        Tensor scores = ZEngine.Ops.Multiply(ZEngine.Ops.Map(Pointwise.Sigmoid, inputs[1]), Tensor.From<float>(mask, [tokens, count], Device.Cpu));
        Tensor weights = ZEngine.Ops.Scale(ZEngine.Ops.Divide(scores, ZEngine.Ops.Sum(scores, 1, keepAxis: true)), 1.5f), y = Tensor.Zeros(x.Shape, DType.Float32, Device.Cpu);
        for (long e = 0; e < count; e++)
        {
            Tensor hidden = ZEngine.Ops.MatMul(inputs[0], inputs[2].Slice(0, e, 1).Reshape(up.Shape[1], up.Shape[2]), transposeB: true);
            Tensor activated = isGated ? ZEngine.Ops.GatedActivation(hidden, function) : ZEngine.Ops.Map(function, hidden);
            Tensor output = ZEngine.Ops.MatMul(activated, inputs[3].Slice(0, e, 1).Reshape(down.Shape[1], down.Shape[2]), transposeB: true);
            y = ZEngine.Ops.Add(y, ZEngine.Ops.Multiply(output, weights.Slice(1, e, 1)));
        }
        tape.Backward(y, dy);
        var results = new List<float[]> { y.ToArray<float>() };
        foreach (Tensor input in inputs) results.Add(tape.GradientOf(input).ToArray<float>());
        return results;
    }

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    private static Tensor Random(Device device, ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, device, new RandomStream(4, stream));

    /// <summary>Sizes with tails, empty experts and several tiles of one expert; every pair of types; what the CPU makes of the same values.</summary>
    [Theory]
    [InlineData(1, 5, 6, 7, 2, true, DType.Float32, DType.Float32)]
    [InlineData(150, 17, 3, 23, 2, true, DType.Float32, DType.BFloat16)]
    [InlineData(90, 72, 4, 40, 3, true, DType.BFloat16, DType.BFloat16)]
    [InlineData(70, 19, 4, 33, 2, false, DType.BFloat16, DType.BFloat16)]
    [InlineData(0, 6, 3, 4, 2, true, DType.BFloat16, DType.BFloat16)]
    [InlineData(40, 24, 5, 16, 2, false, DType.Float16, DType.Float16)]
    [InlineData(40, 24, 5, 16, 2, true, DType.BFloat16, DType.Float32)]
    public void Devices_agree(int tokens, int width, int experts, int hidden, int slots, bool isGated, DType dtype, DType weightType)
    {
        (float scale, long rows) = (0.3f, (isGated ? 2 : 1) * hidden);
        float[][] Run(Device device, DType type)
        {
            using Tape tape = Tape.Begin();
            Tensor On(Tensor x, DType rounded, DType own) => x.To(rounded).To(own).To(device).Clone();
            Tensor x = tape.Watch(On(Random(1, tokens, width), dtype, type)), logits = tape.Watch(Random(device, 2, tokens, experts));
            Tensor up = tape.Watch(On(ZEngine.Ops.Scale(Random(3, experts, rows, width), scale), weightType, weightType)), down = tape.Watch(On(ZEngine.Ops.Scale(Random(4, experts, width, hidden), scale), weightType, weightType));
            Routing routing = ZEngine.Ops.Route(logits, new RouteOptions(slots));
            Tensor y = ZEngine.Ops.GroupedExperts(x, routing, up, down, isGated ? Pointwise.Silu : Pointwise.Relu2, isGated);
            tape.Backward(y, On(Random(5, tokens, width), dtype, type));
            return [Floats(y), Floats(tape.GradientOf(x)), Floats(tape.GradientOf(up)), Floats(tape.GradientOf(down)), Floats(tape.GradientOf(logits))];
        }
        static float[] Floats(Tensor x) => x.To(DType.Float32).ToArray<float>();
        float[][] want = Run(Device.Cpu, DType.Float32);
        foreach (string name in Devices.Names.Where(name => name != "cpu"))
        {
            float[][] got = Run(Devices.Open(name), dtype), again = name == "emulator" ? Run(Devices.Open("scrambled emulator"), dtype) : got;
            for (int i = 0; i < want.Length; i++)
            {
                Assert.Equal(got[i], again[i]);
                double size = 1e-9 + Math.Sqrt(want[i].Sum(w => (double)w * w) / Math.Max(1, want[i].Length)), tolerance = size * (dtype == DType.Float32 ? 1e-5 : dtype == DType.Float16 ? 1e-2 : 6e-2);
                for (int k = 0; k < want[i].Length; k++) Assert.Equal(want[i][k], got[i][k], tolerance + Math.Abs(want[i][k]) * tolerance / size);
            }
        }
    }

    [Fact]
    public void Launches_traffic_and_products_are_the_header_s()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const int T = 64, D = 64, E = 2, F = 64, K = 2, Rows = T * K;   // every token goes to both experts: one tile of rows for each
        Tensor New(ulong stream, params long[] shape) => Random(probe.Device, stream, shape).To(DType.BFloat16);
        Tensor x = New(1, T, D), up = New(3, E, 2 * F, D), down = New(4, E, D, F);
        Routing routing = ZEngine.Ops.Route(Random(probe.Device, 2, T, E), new RouteOptions(K));
        LaunchProfile[] forward = probe.Profile(() => ZEngine.Ops.GroupedExperts(x, routing, up, down));
        Assert.Equal(4, forward.Length);
        Assert.Equal(8L * Rows + 4 * (E + 1), forward[0].GlobalBytesWritten);
        Assert.Equal(4L * Rows * 2 * (E + 1) - 4L * Rows, forward[0].GlobalBytesRead);          // the block after the last expert's walks once
        CheckProduct(forward[1], Rows, 2 * F, D, E, 2L * Rows * 3 * F);
        CheckProduct(forward[2], Rows, D, F, E, 2L * Rows * D);
        Assert.Equal((2L * Rows * D) + (Rows * D / 8 * 8), forward[3].GlobalBytesRead);          // each access of 16 bytes reads its row and its weight
        Assert.Equal(2L * T * D, forward[3].GlobalBytesWritten);

        var inputs = new GroupedExpertsInputs(x, routing.Experts, routing.Weights, up, down, Pointwise.Silu, true, 0);
        Tensor hidden = New(6, Rows, 2 * F), dUp = Tensor.Empty(up.Shape, DType.Float32, probe.Device), dDown = Tensor.Empty(down.Shape, DType.Float32, probe.Device);
        LaunchProfile[] backward = probe.Profile(() => probe.Device.Backend.GroupedExpertsBackward(inputs, hidden, x, Tensor.EmptyLike(x), Tensor.EmptyLike(routing.Weights), dUp, dDown));
        Assert.Equal(7, backward.Length);
        CheckProduct(backward[1], Rows, F, D, E, 2L * Rows * F);
        Assert.Equal((2L * Rows * 3 * F) + (4 * Rows), backward[2].GlobalBytesWritten);
        Assert.Equal(2L * Rows * D * F, backward[3].MatrixFlops);
        Assert.Equal(4L * E * D * F, backward[3].GlobalBytesWritten);
        Assert.Equal(2L * Rows * D * 2 * F, backward[4].MatrixFlops);
        Assert.Equal(4L * E * 2 * F * D, backward[4].GlobalBytesWritten);
        CheckProduct(backward[5], Rows, D, 2 * F, E, 2L * Rows * D);
    }

    /// <summary>No padded product at whole tiles; operands once for each tile, with an index for each 16 bytes at most; matrices read from shared memory without conflicts.</summary>
    private static void CheckProduct(LaunchProfile product, int rows, int n, int k, int experts, long written)
    {
        Assert.Equal(2L * rows * n * k, product.MatrixFlops);
        Assert.Equal(written, product.GlobalBytesWritten);
        long tiles = n / 64, operands = (2L * rows * k * tiles) + (2L * experts * n * k);
        Assert.InRange(product.GlobalBytesRead, operands, operands * 3 / 2);
        Assert.Equal(4 * product[InstructionClass.MatrixLoad].Executions, product[InstructionClass.MatrixLoad].Wavefronts);
    }

    [Fact]
    public void An_expert_that_does_not_exist_is_an_error_on_a_gpu()
    {
        using var driver = new EmulatedCudaDriver();
        using ZEngine.Cuda.CudaDevice device = Devices.OpenEmulated(driver);
        using TensorScope scope = TensorScope.Enter();
        Tensor Zeros(params long[] shape) => Tensor.Zeros(shape, DType.Float32, device);
        Routing routing = ZEngine.Ops.Route(Zeros(5, 3), new RouteOptions(2)) with { Experts = Tensor.From<int>([0, 1, 2, 0, 1, 2, 0, 1, 2, -1], [5, 2], device) };
        device.Synchronize();
        ZEngine.Ops.GroupedExperts(Zeros(5, 6), routing, Zeros(3, 8, 6), Zeros(3, 6, 4));
        Assert.ThrowsAny<Exception>(device.Synchronize);
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void Skipped_experts_put_out_nothing(string device)
    {
        using Tape tape = Tape.Begin();
        Device on = Devices.Open(device);
        Tensor x = tape.Watch(Random(on, 1, 2, 3, 6)), logits = tape.Watch(Tensor.From<float>([0, 9, 0, 9, 0, 9, 0, 9, 0, 9, 1, 0], [2, 3, 2], on)), up = tape.Watch(Random(on, 3, 1, 8, 6)), down = tape.Watch(Random(on, 4, 1, 6, 4));
        Routing routing = ZEngine.Ops.Route(logits, new RouteOptions(1));
        Assert.Equal([1, 1, 1, 1, 1, 0], routing.Experts.ToArray<int>());
        Tensor y = ZEngine.Ops.GroupedExperts(x, routing, up, down, skipped: 1);
        tape.Backward(y, Random(on, 6, 2, 3, 6));
        Assert.All(y.ToArray<float>()[..30], value => Assert.Equal(0, value));
        Assert.All(y.ToArray<float>()[30..], value => Assert.NotEqual(0, value));
        Assert.All(tape.GradientOf(x).ToArray<float>()[..30], value => Assert.Equal(0, value));
        Assert.All(tape.GradientOf(up).ToArray<float>(), value => Assert.True(float.IsFinite(value)));
    }

    [Fact]
    public void No_tokens_give_no_output_and_zero_gradients()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Tensor.Zeros([0, 6], DType.Float32, Device.Cpu)), router = tape.Watch(Random(2, 3, 6)), up = tape.Watch(Random(3, 3, 8, 6)), down = tape.Watch(Random(4, 3, 6, 4));
        (Tensor y, Tensor aux, Tensor z) = ZEngine.Ops.Moe(x, router, up, down, new RouteOptions(2));
        Assert.Equal((0L, 0f, 0f), (y.Count, aux.Item(), z.Item()));
        tape.Backward(y, Tensor.Zeros([0, 6], DType.Float32, Device.Cpu));
        Assert.All(tape.GradientOf(up).ToArray<float>(), value => Assert.Equal(0, value));
    }

    [Fact]
    public void BFloat16_weights_equal_their_Float32_values()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Random(1, 9, 6), router = Random(2, 3, 6), up = Random(3, 3, 8, 6).To(DType.BFloat16), down = Random(4, 3, 6, 4).To(DType.BFloat16);
        float[] want = ZEngine.Ops.Moe(x, router, up.To(DType.Float32), down.To(DType.Float32), new RouteOptions(2)).Y.ToArray<float>(), got = ZEngine.Ops.Moe(x, router, up, down, new RouteOptions(2)).Y.ToArray<float>();
        for (int i = 0; i < want.Length; i++) Assert.Equal(want[i], got[i], 1e-4f);
    }

    [Fact]
    public void Rejects_sizes_that_differ()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor Zeros(params long[] shape) => Tensor.Zeros(shape, DType.Float32, Device.Cpu);
        string Message(Action call) => Assert.Throws<ArgumentException>(call).Message;
        Tensor x = Zeros(5, 6);
        Routing routing = ZEngine.Ops.Route(Zeros(5, 3), new RouteOptions(2));
        Assert.Equal("GroupedExperts: up must have 8 rows for 4 hidden channels with a gate, got [3, 4, 6].", Message(() => ZEngine.Ops.GroupedExperts(x, routing, Zeros(3, 4, 6), Zeros(3, 6, 4))));
        Assert.Equal("GroupedExperts: down must be [E, D, hidden], got [3, 5, 4]: D is 6 but axis 1 is 5.", Message(() => ZEngine.Ops.GroupedExperts(x, routing, Zeros(3, 8, 6), Zeros(3, 5, 4))));
        Assert.Equal("GroupedExperts: routing.Load knows 3 experts, 0 of them skipped, but there are weights for 2.", Message(() => ZEngine.Ops.GroupedExperts(x, routing, Zeros(2, 8, 6), Zeros(2, 6, 4))));
        Assert.Equal($"GroupedExperts: routing.Experts {Tensor.ShapeText(routing.Experts.Shape)} is for 5 tokens, but x has 4.", Message(() => ZEngine.Ops.GroupedExperts(Zeros(4, 6), routing, Zeros(3, 8, 6), Zeros(3, 6, 4))));
        Tensor wrong = Tensor.From<int>([0, 1, 2, 0, 1, 2, 0, 1, 2, -1], [5, 2], Device.Cpu);
        Assert.Equal("GroupedExperts: expert 9 of [5, 2] is -1, but there are 3 experts.", Message(() => ZEngine.Ops.GroupedExperts(x, routing with { Experts = wrong }, Zeros(3, 8, 6), Zeros(3, 6, 4))));
        Assert.StartsWith("GroupedExperts: Relu2 is not the activation of a gated unit;", Message(() => ZEngine.Ops.GroupedExperts(x, routing, Zeros(3, 8, 6), Zeros(3, 6, 4), Pointwise.Relu2)));
    }
}
