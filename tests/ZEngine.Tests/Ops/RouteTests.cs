using ZEngine.Emulator;

namespace ZEngine.Tests.Ops;

/// <summary>The parts of routing that the layer's oracle does not reach: the z-loss, sigmoid scores, a selection bias, given experts.</summary>
public sealed class RouteTests
{
    private static Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(7, stream));

    private static Tensor Random(Device device, ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, device, new RandomStream(7, stream));

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    private static double[] Softmax(ReadOnlySpan<float> logits)
    {
        double[] e = [.. logits.ToArray().Select(x => Math.Exp(x))];
        return [.. e.Select(x => x / e.Sum())];
    }

    /// <summary>A scalar of everything that is differentiable, in double: the weights against fixed numbers, and both losses.</summary>
    private static double Scalar(float[] logits, int experts, int[] chosen, int slots, float[] factors, RouteOptions options)
    {
        int tokens = logits.Length / experts;
        double result = 0, squares = 0;
        var mean = new double[experts];
        for (int t = 0; t < tokens; t++)
        {
            float[] row = logits[(t * experts)..((t + 1) * experts)];
            double[] scores = options.Score == RouterScore.Softmax ? Softmax(row) : [.. row.Select(x => 1 / (1 + Math.Exp(-(double)x)))];
            double lse = Math.Log(row.Sum(x => Math.Exp(x))), sum = 0;
            squares += lse * lse / tokens;
            for (int e = 0; e < experts; e++) mean[e] += scores[e] / tokens;
            for (int k = 0; k < slots; k++) sum += scores[chosen[t * slots + k]];
            for (int k = 0; k < slots; k++) result += factors[t * slots + k] * scores[chosen[t * slots + k]] / (options.Normalize ? sum : 1) * options.Scale;
        }
        for (int e = 0; e < experts; e++) result += 0.7 * experts * mean[e] * chosen.Count(c => c == e) / tokens;
        return result + 0.3 * squares;
    }

    [Theory]
    [InlineData(RouterScore.Softmax, true), InlineData(RouterScore.Softmax, false), InlineData(RouterScore.Sigmoid, true), InlineData(RouterScore.Sigmoid, false)]
    public void Weights_losses_and_gradients_equal_the_formulas(RouterScore score, bool normalize)
    {
        foreach (string name in Devices.Names) CheckFormulas(Devices.Open(name), score, normalize);
    }

    private static void CheckFormulas(Device device, RouterScore score, bool normalize)
    {
        var options = new RouteOptions(3, normalize, score, 2.5f);
        using Tape tape = Tape.Begin();
        const int T = 40, E = 7;
        Tensor logits = tape.Watch(Random(device, 1, T, E)), factors = Random(device, 2, T, 3);
        Routing routing = ZEngine.Ops.Route(logits, options);
        int[] chosen = routing.Experts.ToArray<int>();
        float[] values = logits.ToArray<float>(), f = factors.ToArray<float>();
        for (int t = 0; t < T; t++)
            Assert.Equal(Enumerable.Range(0, E).OrderByDescending(e => values[t * E + e]).Take(3), chosen[(3 * t)..(3 * t + 3)]);
        Assert.Equal(3, routing.Load.ToArray<float>().Sum(), 1e-5);

        Tensor loss = ZEngine.Ops.Add(ZEngine.Ops.Sum(ZEngine.Ops.Multiply(routing.Weights, factors)), ZEngine.Ops.Add(ZEngine.Ops.Scale(routing.AuxLoss, 0.7f), ZEngine.Ops.Scale(routing.ZLoss, 0.3f)));
        Assert.Equal(Scalar(values, E, chosen, 3, f, options), loss.Item(), 1e-4);
        tape.Backward(loss);
        float[] gradient = tape.GradientOf(logits).ToArray<float>();
        for (int i = 0; i < values.Length; i++)
        {
            float[] up = [.. values], down = [.. values];
            (up[i], down[i]) = (up[i] + 1e-2f, down[i] - 1e-2f);
            double slope = (Scalar(up, E, chosen, 3, f, options) - Scalar(down, E, chosen, 3, f, options)) / ((double)up[i] - down[i]);
            Assert.Equal(slope, gradient[i], 2e-4);
        }
    }

    /// <summary>More tokens than one block takes, more experts than lanes, every type of logits: what the CPU makes of the same values.</summary>
    [Theory]
    [InlineData(300, 40, 6, RouterScore.Softmax), InlineData(37, 70, 33, RouterScore.Sigmoid), InlineData(1, 1, 1, RouterScore.Softmax), InlineData(0, 5, 2, RouterScore.Softmax)]
    public void Devices_agree(int tokens, int experts, int slots, RouterScore score)
    {
        foreach (string name in Devices.Names.Where(name => name != "cpu"))
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.Float32, DType.BFloat16, DType.Float16])
        {
            var options = new RouteOptions(slots, true, score, 1.5f);
            Tensor? Bias(Device device) => score == RouterScore.Sigmoid ? Random(device, 3, experts) : null;
            float[][] Run(Device device, DType type)
            {
                using Tape tape = Tape.Begin();
                Tensor logits = tape.Watch(Random(Device.Cpu, 1, tokens, experts).To(dtype).To(type).To(device).Clone());
                Routing routing = ZEngine.Ops.Route(logits, options, Bias(device));
                tape.Backward([routing.Weights, routing.AuxLoss, routing.ZLoss], [Random(device, 2, tokens, slots), Tensor.Scalar(0.5f, device), Tensor.Scalar(0.25f, device)]);
                return [routing.Experts.To(DType.Float32).ToArray<float>(), routing.Weights.ToArray<float>(), routing.Load.ToArray<float>(), [routing.AuxLoss.Item(), routing.ZLoss.Item()],
                    tape.GradientOf(logits).To(DType.Float32).ToArray<float>()];
            }
            float[][] want = Run(Device.Cpu, DType.Float32), got = Run(Devices.Open(name), dtype);
            for (int i = 0; i < want.Length; i++)
            for (int k = 0; k < want[i].Length; k++)
                Assert.Equal(want[i][k], got[i][k], i < 4 || dtype == DType.Float32 ? 1e-6f * (1 + Math.Abs(want[i][k])) : 5e-3f * (1e-3f + Math.Abs(want[i][k])));
        }
    }

    [Fact]
    public void Traffic_is_the_header_s()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const int T = 64, E = 32, K = 4, P = 8;                // 8 warps of 8 blocks
        Tensor logits = Random(probe.Device, 1, T, E);
        Routing? routing = null;
        LaunchProfile[] stages = probe.Profile(() => routing = ZEngine.Ops.Route(logits, new RouteOptions(K)));
        Assert.Equal(2, stages.Length);
        Assert.Equal((8L * T * K) + (8 * P * (2 * E + 1)), stages[0].GlobalBytesWritten);
        // The logits for the largest and again for the sum; the chosen experts for every lane, once for the divisor and once for the weights.
        Assert.Equal((2L * 4 * T * E) + (2 * 32 * 4 * T * K), stages[0].GlobalBytesRead);
        Assert.Equal((8L * P * (2 * E + 1), 4L * E + 8), (stages[1].GlobalBytesRead, stages[1].GlobalBytesWritten));
        Tensor dLogits = Tensor.EmptyLike(logits);
        LaunchProfile backward = Assert.Single(probe.Profile(() => probe.Device.Backend.RouteBackward(new RouteInputs(logits, null, null, new RouteOptions(K)), routing!, routing!.Weights, null, null, dLogits)));
        Assert.Equal(4L * T * E, backward.GlobalBytesWritten);
        Assert.Equal(4L * T * E / 32, backward[InstructionClass.GlobalStore].Sectors);
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void Bias_changes_the_choice_and_not_the_weights(string device)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor logits = Tensor.From<float>([1, 2, 3, 3, 2, 1], [2, 3], Devices.Open(device)), bias = Tensor.From<float>([5, 0, 0], [3], Devices.Open(device));
        Routing routing = ZEngine.Ops.Route(logits, new RouteOptions(1, Normalize: false), bias);
        Assert.Equal([0, 0], routing.Experts.ToArray<int>());
        float[] weights = routing.Weights.ToArray<float>();
        Assert.Equal(Softmax([1, 2, 3])[0], weights[0], 1e-7);
        Assert.Equal(Softmax([1, 2, 3])[2], weights[1], 1e-7);
        Assert.Equal([2f / 2, 0, 0], routing.Load.ToArray<float>());
    }

    [Fact]
    public void Given_experts_get_the_weights_of_their_scores()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor logits = Random(1, 2, 5, 4), chosen = ZEngine.Ops.Route(logits, new RouteOptions(2)).Experts;
        Routing own = ZEngine.Ops.Route(logits, new RouteOptions(2)), given = ZEngine.Ops.Route(logits, new RouteOptions(2), experts: chosen.To(DType.Int64));
        Assert.Equal(own.Weights.ToArray<float>(), given.Weights.ToArray<float>());
        Assert.Equal(own.AuxLoss.Item(), given.AuxLoss.Item());
        Assert.Equal("Route: expert 1 of [1, 2] is 4, but there are 4 experts.",
            Assert.Throws<ArgumentException>(() => ZEngine.Ops.Route(Random(1, 1, 4), new RouteOptions(2), experts: Tensor.From<int>([0, 4], [1, 2], Device.Cpu))).Message);
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void Even_load_gives_an_auxiliary_loss_of_the_number_of_slots(string device)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor experts = Tensor.From<int>([0, 1, 2, 3, 0, 1, 2, 3], [4, 2], Devices.Open(device));
        Routing routing = ZEngine.Ops.Route(Tensor.Zeros([4, 4], DType.Float32, experts.Device), new RouteOptions(2), experts: experts);
        Assert.Equal(2, routing.AuxLoss.Item(), 1e-6f);
        Assert.Equal(MathF.Log(4) * MathF.Log(4), routing.ZLoss.Item(), 1e-6f);
    }

    [Theory, MemberData(nameof(DeviceNames))]
    public void Large_logits_and_vanishing_scores_stay_finite(string device)
    {
        using Tape tape = Tape.Begin();
        Device on = Devices.Open(device);
        Tensor logits = tape.Watch(Tensor.From<float>([1e4f, -1e4f, 0, -1e4f, -2e4f, -1e4f], [2, 3], on));
        foreach (RouterScore score in Enum.GetValues<RouterScore>())
        {
            Routing routing = ZEngine.Ops.Route(logits, new RouteOptions(2, Score: score));
            tape.Backward([routing.Weights, routing.ZLoss], [Random(on, 1, 2, 2), Tensor.Scalar(1, on)]);
            Assert.All(routing.Weights.ToArray<float>(), value => Assert.True(float.IsFinite(value)));
        }
        Assert.All(tape.GradientOf(logits).ToArray<float>(), value => Assert.True(float.IsFinite(value)));
    }

    [Fact]
    public void Rejects_more_slots_than_experts()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor logits = Random(1, 5, 4);
        string Message(Action call) => Assert.Throws<ArgumentException>(call).Message;
        Assert.Equal("Route: TopK must be from 1 to E = 4, got 5.", Message(() => ZEngine.Ops.Route(logits, new RouteOptions(5))));
        Assert.Equal("Route: TopK must be from 1 to E = 4, got 0.", Message(() => ZEngine.Ops.Route(logits, new RouteOptions(0))));
        Assert.Equal("Route: selectionBias must be [E], got [3]: E is 4 but axis 0 is 3.", Message(() => ZEngine.Ops.Route(logits, new RouteOptions(2), Random(2, 3))));
        Assert.Equal("Route: experts must be [5, 2], got [5, 1].", Message(() => ZEngine.Ops.Route(logits, new RouteOptions(2), experts: Tensor.Zeros([5, 1], DType.Int32, Device.Cpu))));
    }
}
