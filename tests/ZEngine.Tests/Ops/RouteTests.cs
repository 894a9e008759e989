namespace ZEngine.Tests.Ops;

/// <summary>The parts of routing that the layer's oracle does not reach: the z-loss, sigmoid scores, a selection bias, given experts.</summary>
public sealed class RouteTests
{
    private static Tensor Random(ulong stream, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(7, stream));

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
        var options = new RouteOptions(3, normalize, score, 2.5f);
        using Tape tape = Tape.Begin();
        const int T = 40, E = 7;
        Tensor logits = tape.Watch(Random(1, T, E)), factors = Random(2, T, 3);
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

    [Fact]
    public void Bias_changes_the_choice_and_not_the_weights()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor logits = Tensor.From<float>([1, 2, 3, 3, 2, 1], [2, 3], Device.Cpu), bias = Tensor.From<float>([5, 0, 0], [3], Device.Cpu);
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

    [Fact]
    public void Even_load_gives_an_auxiliary_loss_of_the_number_of_slots()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor experts = Tensor.From<int>([0, 1, 2, 3, 0, 1, 2, 3], [4, 2], Device.Cpu);
        Routing routing = ZEngine.Ops.Route(Tensor.Zeros([4, 4], DType.Float32, Device.Cpu), new RouteOptions(2), experts: experts);
        Assert.Equal(2, routing.AuxLoss.Item(), 1e-6f);
        Assert.Equal(MathF.Log(4) * MathF.Log(4), routing.ZLoss.Item(), 1e-6f);
    }

    [Fact]
    public void Large_logits_and_vanishing_scores_stay_finite()
    {
        using Tape tape = Tape.Begin();
        Tensor logits = tape.Watch(Tensor.From<float>([1e4f, -1e4f, 0, -1e4f, -2e4f, -1e4f], [2, 3], Device.Cpu));
        foreach (RouterScore score in Enum.GetValues<RouterScore>())
        {
            Routing routing = ZEngine.Ops.Route(logits, new RouteOptions(2, Score: score));
            tape.Backward([routing.Weights, routing.ZLoss], [Random(1, 2, 2), Tensor.Scalar(1, Device.Cpu)]);
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
