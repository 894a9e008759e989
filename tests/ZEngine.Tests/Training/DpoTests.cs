using ZEngine.CrashHost;
using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>The preference loss is its formula, begins at ln 2, and falls.</summary>
public sealed class DpoTests
{
    private static readonly double[] s_pc = [-12.5, -3.25, -40, -7], s_pr = [-10, -9.5, -4, -7], s_rc = [-12, -5, -39, -6], s_rr = [-11.5, -4, -41, -6];

    [Theory]
    [InlineData(0.1, 0)]
    [InlineData(0.5, 0.1)]
    [InlineData(2, 0.3)]
    public void Loss_and_gradients_are_those_of_the_formula(double beta, double smoothing)
    {
        using Tape tape = Tape.Begin();
        Tensor chosen = tape.Watch(Vector(s_pc)), rejected = tape.Watch(Vector(s_pr));
        Tensor loss = DpoLoss.Of(chosen, rejected, Vector(s_rc), Vector(s_rr), (float)beta, (float)smoothing);
        double expected = 0;
        var slopes = new double[4];
        for (int i = 0; i < 4; i++)
        {
            double x = beta * (s_pc[i] - s_pr[i] - (s_rc[i] - s_rr[i]));
            expected += ((1 - smoothing) * Math.Log(1 + Math.Exp(-x)) + smoothing * Math.Log(1 + Math.Exp(x))) / 4;
            slopes[i] = beta * ((smoothing - 1) / (1 + Math.Exp(x)) + smoothing / (1 + Math.Exp(-x))) / 4;
        }
        Assert.Equal(expected, loss.Item(), 1e-6 * Math.Max(1, expected) * 4);
        tape.Backward(loss);
        float[] dChosen = tape.GradientOf(chosen).ToArray<float>(), dRejected = tape.GradientOf(rejected).ToArray<float>();
        for (int i = 0; i < 4; i++)
        {
            Assert.Equal(slopes[i], dChosen[i], 1e-6);
            Assert.Equal(-slopes[i], dRejected[i], 1e-6);
        }
    }

    [Fact]
    public void Log_probabilities_are_sums_over_the_targets_that_count()
    {
        using TensorScope scope = TensorScope.Enter();
        float[] logits = [.. Enumerable.Range(0, 2 * 3 * 5).Select(i => 2 * new RandomStream(1).Normal(i))];
        int[] targets = [-100, 4, 0, 2, -100, -100];
        float[] sums = DpoLoss.LogProbabilities(Tensor.From<float>(logits, [2, 3, 5], Device.Cpu), Tensor.From<int>(targets, [2, 3], Device.Cpu)).ToArray<float>();
        for (int b = 0; b < 2; b++)
        {
            double want = 0;
            for (int l = 0; l < 3; l++)
                if (targets[b * 3 + l] is >= 0 and var target) want += logits[(b * 3 + l) * 5 + target] - Math.Log(Enumerable.Range(0, 5).Sum(v => Math.Exp(logits[(b * 3 + l) * 5 + v])));
            Assert.Equal(want, sums[b], 1e-5);
        }
    }

    [Theory]
    [InlineData("mamba2")]
    [InlineData("zamba2")]
    [InlineData("llama")]
    public void Loss_begins_at_ln_2_with_an_adapter_and_training_lowers_it(string kind)
    {
        using RunFolder straight = new(), stopped = new();
        (List<double> losses, byte[] weights) = Train(straight, int.MaxValue);
        Assert.Equal((float)Math.Log(2), (float)losses[0]);
        Assert.True(losses[^1] < 0.5, $"loss {losses[^1]}");
        Train(stopped, 9);
        Assert.Equal(weights, Train(stopped, int.MaxValue).Weights);

        (List<double> Losses, byte[] Weights) Train(RunFolder run, int cancelAfterStep)
        {
            using LanguageModel model = SmallModels.New(kind);
            byte[] before = RunFolder.Weights(model);
            using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 2 }, seed: 1);
            using var cancellation = new CancellationTokenSource();
            var losses = new List<double>();
            var trainer = new Trainer(model, Pairs(), Pairs(), run.Options(20) with { LearningRate = 1e-2f, Accumulation = 2 }, adapter, new DpoObjective(adapter, 0.5f));
            trainer.StepTaken += report =>
            {
                losses.Add(report.Loss);
                if (report.Step == cancelAfterStep) cancellation.Cancel();
            };
            trainer.Run(cancellation.Token);
            Assert.Equal(before, RunFolder.Weights(model));
            return (losses, RunFolder.Weights(adapter));
        }
    }

    [Fact]
    public void Gradient_equals_finite_differences_with_a_reference_of_its_own()
    {
        using TinyModel model = NewModel(7), reference = NewModel(8);
        var objective = new DpoObjective(reference, 0.3f, 0.1f);
        using (Tape tape = Tape.Begin()) tape.Backward(Loss(objective, model));
        foreach (Parameter parameter in model.Parameters)
        {
            float[] gradient = parameter.Gradient!.ToArray<float>(), value = parameter.Value.ToArray<float>();
            double norm = Math.Sqrt(gradient.Sum(g => (double)g * g));
            const double Step = 2e-2;
            double rise = (Along(Step) - Along(-Step)) / (2 * Step);
            parameter.Value.CopyFrom<float>(value);
            Assert.True(norm > 1e-3 && Math.Abs(rise - norm) < 0.01 * norm + 1e-4, $"{parameter}: gradient of norm {norm}, the loss rises by {rise}");

            double Along(double step)
            {
                using TensorScope scope = TensorScope.Enter();
                parameter.Value.CopyFrom<float>(value.Select((v, i) => (float)(v + step * gradient[i] / norm)).ToArray());
                return Loss(objective, model).Item();
            }
        }
        Assert.All(reference.Parameters, parameter => Assert.Null(parameter.Gradient));
        model.ClearGradients();
    }

    [Fact]
    public void Preferences_stand_in_pairs_and_are_read_from_lines_of_JSON()
    {
        using var run = new RunFolder();
        string path = Path.Combine(run.Path, "pairs.jsonl");
        File.WriteAllLines(path, Enumerable.Range(0, 7).Select(i => $$"""{"prompt": "{{(char)('a' + i)}}", "chosen": "x", "rejected": "yz"}"""));
        PreferenceSequences source = PreferenceSequences.FromFile(path, text => [.. text.Select(c => (int)c)], new AnswerOptions { Length = 4, Vocabulary = 256 });
        Assert.Equal("7 preferences with 21 tokens of answers in rows of 4; 0 answers cut", source.ToString());
        int[] tokens = new int[4], targets = new int[4];
        var prompts = new HashSet<int>();
        for (int pair = 0; pair < 7; pair++)
        {
            source.Read(2 * pair, tokens, targets);
            int prompt = tokens[0];
            Assert.True(prompts.Add(prompt));
            Assert.Equal(['x', -100, -100, -100], targets);
            source.Read(2 * pair + 1, tokens, targets);
            Assert.Equal(prompt, tokens[0]);
            Assert.Equal(['y', 'z', -100, -100], targets);
        }
    }

    [Fact]
    public void Rejects_what_does_not_fit()
    {
        using var run = new RunFolder();
        using LanguageModel model = SmallModels.New("mamba2"), other = SmallModels.New("mamba2");
        using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions(), 1);
        var windows = new TokenWindows(new TextTokens(SmallModels.Tokens(500), SmallModels.Vocabulary), RunFolder.Length, 1);
        Rejects("DpoObjective: needs PreferenceSequences, got TokenWindows.", () => new Trainer(model, windows, null, run.Options(5), adapter, new DpoObjective(adapter)));
        Rejects("DpoObjective: a pair takes two rows, so Batch must be even, got 3.", () => new Trainer(model, Pairs(), null, run.Options(5) with { Batch = 3 }, adapter, new DpoObjective(adapter)));
        Rejects("DpoObjective: the reference is the model that is trained;", () => new Trainer(other, Pairs(), null, run.Options(5), null, new DpoObjective(other)));
        Rejects("DpoObjective: the adapter belongs to another model", () => new Trainer(other, Pairs(), null, run.Options(5), null, new DpoObjective(adapter)));
        Rejects("DpoLoss: beta must be a positive number, got 0.", () => _ = new DpoObjective(adapter, 0));
        Rejects("DpoLoss: labelSmoothing must be from 0 to below 0.5, got 0.5.", () => _ = new DpoObjective(adapter, 0.1f, 0.5f));
        model.Parameters[0].IsTrainable = true;
        Assert.Contains("so the reference would move", Assert.Throws<InvalidOperationException>(() => new Trainer(model, Pairs(), null, run.Options(5), adapter, new DpoObjective(adapter)).Run(TestContext.Current.CancellationToken)).Message, StringComparison.Ordinal);

        static void Rejects(string message, Action action) => Assert.StartsWith(message, Assert.Throws<ArgumentException>(action).Message, StringComparison.Ordinal);
    }

    private static PreferenceSequences Pairs() => new(
        Enumerable.Range(0, 8).Select(i => new PreferencePair([i, i + 1], [i + 2, 30, i + 3], [i + 9, 29])), new AnswerOptions { Length = RunFolder.Length, Vocabulary = SmallModels.Vocabulary });

    private static TinyModel NewModel(ulong seed)
    {
        var model = new TinyModel(SmallModels.Vocabulary, scale: 3);
        model.Initialize(Device.Cpu, seed);
        return model;
    }

    private static Tensor Loss(DpoObjective objective, TinyModel model)
    {
        var stream = new TokenStream(Pairs(), 4);
        (Tensor tokens, Tensor targets) = stream.Next(Device.Cpu);
        stream.Dispose();
        return objective.Loss(model, tokens, targets);
    }

    private static Tensor Vector(double[] values) => Tensor.From<float>(Array.ConvertAll(values, value => (float)value), [values.Length], Device.Cpu);
}
