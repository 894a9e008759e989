using ZEngine.CrashHost;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>The optimizer does what its formula says, and nothing where it must not.</summary>
public sealed class AdamWTests
{
    [Fact]
    public void Steps_equal_the_formula_in_double()
    {
        using TinyModel model = RunFolder.NewModel();
        using var adam = new AdamW(model.Parameters, beta1: 0.8, beta2: 0.9, epsilon: 1e-6, weightDecay: 0.2);
        double[][] values = [.. model.Parameters.Select(Values)], first = [.. values.Select(value => new double[value.Length])], second = [.. values.Select(value => new double[value.Length])];
        for (int step = 1; step <= 5; step++)
        {
            Backward(model, step);
            for (int p = 0; p < values.Length; p++)
            {
                float[] gradient = model.Parameters[p].Gradient!.ToArray<float>();
                for (int i = 0; i < gradient.Length; i++)
                {
                    first[p][i] = 0.8 * first[p][i] + 0.2 * gradient[i];
                    second[p][i] = 0.9 * second[p][i] + 0.1 * gradient[i] * gradient[i];
                    double decay = model.Parameters[p].IsDecayed ? 0.01 * 0.2 * values[p][i] : 0;
                    values[p][i] -= decay + 0.01 * first[p][i] / (1 - Math.Pow(0.8, step)) / (Math.Sqrt(second[p][i] / (1 - Math.Pow(0.9, step))) + 1e-6);
                }
            }
            adam.Step(0.01f);
            Assert.All(model.Parameters, parameter => Assert.Null(parameter.Gradient));
        }
        Assert.Equal(5, adam.StepCount);
        for (int p = 0; p < values.Length; p++)
        {
            double[] found = Values(model.Parameters[p]);
            for (int i = 0; i < found.Length; i++) Assert.True(Math.Abs(found[i] - values[p][i]) < 1e-4, $"{model.Parameters[p]} at {i}: {found[i]}, want {values[p][i]}");
        }
    }

    [Fact]
    public void Parameter_without_gradient_in_the_first_step_is_an_error_that_names_it()
    {
        using TinyModel model = RunFolder.NewModel();
        using var adam = new AdamW(model.Parameters);
        Backward(model, 1);
        model.Parameters[2].ClearGradient();
        var error = Assert.Throws<InvalidOperationException>(() => adam.Step(0.1f));
        Assert.StartsWith("AdamW: no gradient reached up.bias [32] in the first step; freeze what the loss does not depend on", error.Message, StringComparison.Ordinal);
        Assert.Equal(0, adam.StepCount);
    }

    [Fact]
    public void Frozen_parameters_do_not_change_and_have_no_state()
    {
        using TinyModel model = RunFolder.NewModel();
        model.Parameters[0].IsTrainable = false;
        double[] before = Values(model.Parameters[0]);
        using var adam = new AdamW(model.Parameters);
        Backward(model, 1);
        adam.Step(0.1f);
        Assert.Equal(before, Values(model.Parameters[0]));
        Assert.DoesNotContain(adam.State, tensor => tensor.Key.StartsWith("embedding", StringComparison.Ordinal));
        model.Parameters[0].IsTrainable = true;
        Backward(model, 2);
        Assert.StartsWith("AdamW: embedding.weight [256, 16] was frozen when the optimizer was made", Assert.Throws<InvalidOperationException>(() => adam.Step(0.1f)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Sixteen_bit_values_are_the_rounded_masters()
    {
        using TinyModel model = RunFolder.NewModel(DType.BFloat16);
        using var adam = new AdamW(model.Parameters);
        // So small a rate that bfloat16 alone would never move.
        for (int step = 1; step <= 30; step++)
        {
            Backward(model, 1);
            adam.Step(1e-4f);
        }
        Dictionary<string, Tensor> state = adam.State.ToDictionary();
        Assert.Equal(3, state.Keys.Count(name => name.EndsWith(".master", StringComparison.Ordinal)));
        using Tensor rounded = state["up.weight.master"].To(DType.BFloat16);
        Assert.Equal(rounded.ToArray<BFloat16>(), model.Parameters[1].Value.ToArray<BFloat16>());
        using TinyModel fresh = RunFolder.NewModel(DType.BFloat16);
        Assert.NotEqual(fresh.Parameters[1].Value.ToArray<BFloat16>(), model.Parameters[1].Value.ToArray<BFloat16>());
    }

    [Theory]
    [InlineData(float.NaN)]
    [InlineData(float.PositiveInfinity)]
    public void Step_whose_norm_is_not_finite_changes_nothing(float spoiled)
    {
        using TinyModel model = RunFolder.NewModel();
        using var adam = new AdamW(model.Parameters);
        Backward(model, 1);
        adam.Step(0.1f);
        byte[] before = RunFolder.Weights(model);
        float[][] state = [.. adam.State.Skip(1).Select(tensor => tensor.Value.ToArray<float>())];
        Backward(model, 2);
        float[] gradient = model.Parameters[3].Gradient!.ToArray<float>();
        gradient[^1] = spoiled;
        model.Parameters[3].Gradient!.CopyFrom<float>(gradient);
        using Tensor norm = Gradients.Norm(model.Parameters);
        adam.Step(0.1f, norm, 1);
        Assert.False(float.IsFinite(norm.Item()));
        Assert.Equal(1, adam.StepCount);
        Assert.Equal(before, RunFolder.Weights(model));
        Assert.Equal(state, adam.State.Skip(1).Select(tensor => tensor.Value.ToArray<float>()));
    }

    [Fact]
    public void Clipping_beforehand_equals_clipping_within_the_step()
    {
        using TinyModel a = RunFolder.NewModel(), b = RunFolder.NewModel();
        Backward(a, 1);
        Backward(b, 1);
        using Tensor norm = Gradients.Norm(a.Parameters);
        float max = norm.Item() / 3;
        Assert.Equal(norm.Item(), Gradients.ClipNorm(b.Parameters, max));
        using (Tensor clipped = Gradients.Norm(b.Parameters)) Assert.Equal(max, clipped.Item(), max * 1e-5);
        using AdamW adamA = new(a.Parameters), adamB = new(b.Parameters);
        adamA.Step(0.1f, norm, max);
        adamB.Step(0.1f);
        Assert.Equal(RunFolder.Weights(a), RunFolder.Weights(b));
    }

    [Fact]
    public void State_of_a_file_continues_with_the_same_bits()
    {
        using var run = new RunFolder();
        string path = Path.Combine(run.Path, "optimizer.safetensors");
        using TinyModel a = RunFolder.NewModel(DType.BFloat16), b = RunFolder.NewModel(DType.BFloat16);
        using AdamW adamA = new(a.Parameters), adamB = new(b.Parameters);
        for (int step = 1; step <= 3; step++)
        {
            Backward(a, step);
            adamA.Step(0.1f);
        }
        adamA.Save(path);
        ZEngine.Models.WeightFiles.Save(run.Path, [.. a.Parameters.Select(parameter => ParameterFiles.ToSafetensors(parameter.Name, parameter.Value))]);
        ParameterFiles.Load(run.Path, b.Parameters);
        adamB.Load(path);
        Assert.Equal(3, adamB.StepCount);
        Backward(a, 4);
        Backward(b, 4);
        adamA.Step(0.1f);
        adamB.Step(0.1f);
        Assert.Equal(RunFolder.Weights(a), RunFolder.Weights(b));

        using var wide = new TinyModel(width: 8);
        wide.Initialize(Device.Cpu, 1);
        using var adamWide = new AdamW(wide.Parameters);
        Assert.Contains("tensor 'embedding.weight.first_moment' F32 [256, 16], but the model has it as Float32 [256, 8]", Assert.Throws<InvalidDataException>(() => adamWide.Load(path)).Message, StringComparison.Ordinal);
        Assert.Empty(adamWide.State);
        using TinyModel narrow = RunFolder.NewModel();
        using var adamNarrow = new AdamW(narrow.Parameters);
        Assert.Contains(".master' F32", Assert.Throws<InvalidDataException>(() => adamNarrow.Load(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void State_before_the_first_step_is_an_empty_file()
    {
        using var run = new RunFolder();
        string path = Path.Combine(run.Path, "optimizer.safetensors");
        using TinyModel model = RunFolder.NewModel();
        using AdamW a = new(model.Parameters), b = new(model.Parameters);
        a.Save(path);
        b.Load(path);
        Assert.Equal(0, b.StepCount);
        Assert.Empty(b.State);
    }

    [Fact]
    public void Rejects_options_that_are_out_of_range()
    {
        using TinyModel model = RunFolder.NewModel();
        Assert.StartsWith("AdamW: needs 0 <= Beta1 < 1", Assert.Throws<ArgumentException>(() => new AdamW(model.Parameters, default(AdamWOptions))).Message, StringComparison.Ordinal);
        Assert.StartsWith("AdamW: needs 0 <= Beta1 < 1", Assert.Throws<ArgumentException>(() => new AdamW(model.Parameters, weightDecay: double.NaN)).Message, StringComparison.Ordinal);
        using var adam = new AdamW(model.Parameters);
        Assert.Throws<ArgumentOutOfRangeException>(() => adam.Step(float.NaN));
        Assert.Throws<ArgumentOutOfRangeException>(() => Gradients.ClipNorm(model.Parameters, 0));
        Assert.StartsWith("Gradients.Norm: no parameter has a gradient", Assert.Throws<InvalidOperationException>(() => Gradients.Norm(model.Parameters)).Message, StringComparison.Ordinal);
    }

    private static void Backward(TinyModel model, int seed)
    {
        using Tape tape = Tape.Begin();
        int[] tokens = [.. Enumerable.Range(0, 24).Select(i => (int)(new RandomStream((ulong)seed).Bits(i) & 255))];
        Tensor logits = model.Forward(Tensor.From<int>(tokens, [2, 12], Device.Cpu));
        tape.Backward(ZEngine.Ops.CrossEntropy(logits, Tensor.From<int>([.. tokens.Reverse()], [2, 12], Device.Cpu)));
    }

    private static double[] Values(Parameter parameter) => Array.ConvertAll(parameter.Value.ToArray<float>(), value => (double)value);
}
