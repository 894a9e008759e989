using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>The trainer trains adapters as it trains models: checkpoints, resume and all.</summary>
public sealed class LoraTrainerTests
{
    private static readonly string[] s_targets = ["in_proj", "out_proj", "conv1d", "A_log", "D", "dt_bias"];

    [Theory]
    [InlineData(false, DType.Float32)]
    [InlineData(true, DType.Float32)]
    [InlineData(false, DType.BFloat16)]
    public void Adapter_learns_and_resumes_with_the_same_bits(bool trainsNorms, DType dtype)
    {
        using RunFolder straight = new(), stopped = new();
        (byte[] adapter, byte[] model, List<double> losses) = Train(straight, trainsNorms, dtype);
        Assert.True(losses[^1] < losses[0] - 0.3, $"loss {losses[0]} to {losses[^1]}");
        Train(stopped, trainsNorms, dtype, cancelAfterStep: 4);
        Train(stopped, trainsNorms, dtype, cancelAfterStep: 7);
        (byte[] adapterAgain, byte[] modelAgain, _) = Train(stopped, trainsNorms, dtype);
        Assert.Equal(adapter, adapterAgain);
        Assert.Equal(model, modelAgain);
        Assert.Equal(straight.Metrics(), stopped.Metrics());
        string newest = Path.Combine(straight.Checkpoints, "step-000000012");
        Assert.Equal(trainsNorms, File.Exists(Path.Combine(newest, "model.safetensors")));
        Assert.Equal(!trainsNorms, File.Exists(Path.Combine(newest, "base.json")));
        using LanguageModel fresh = SmallModels.New("mamba2", dtype);
        Assert.Equal(!trainsNorms, RunFolder.Weights(fresh).AsSpan().SequenceEqual(model));
        using LoraAdapter loaded = LoraAdapter.Load(newest, fresh);
        Assert.Equal(adapter, RunFolder.Weights(loaded));
    }

    [Fact]
    public void Checkpoint_of_another_base_or_adapter_is_refused()
    {
        using var run = new RunFolder();
        Train(run, false, DType.Float32, cancelAfterStep: 4);
        Assert.Contains("base.json: the adapter was trained on a model whose weights have the hash ", Refuses(baseSeed: 4, new LoraOptions { Rank = 2, Targets = s_targets }), StringComparison.Ordinal);
        Assert.Contains("was trained with adapter lora(rank=2,alpha=16,parameters=12), now it is lora(rank=3,alpha=16,parameters=12).", Refuses(3, new LoraOptions { Rank = 3, Targets = s_targets }), StringComparison.Ordinal);
        Assert.Contains("now it is none.", Refuses(3, null), StringComparison.Ordinal);
        Assert.Contains("was trained with an adapter, now there is none.", Refuses(3, null, acceptChanges: true), StringComparison.Ordinal);

        string Refuses(ulong baseSeed, LoraOptions? lora, bool acceptChanges = false)
        {
            using LanguageModel model = SmallModels.New("mamba2", seed: baseSeed);
            using LoraAdapter? adapter = lora is null ? null : LoraAdapter.Attach(model, lora, seed: 1);
            var trainer = new Trainer(model, Data(), Data(), Options(run) with { AcceptChanges = acceptChanges }, adapter);
            return Assert.Throws<InvalidDataException>(() => trainer.Run(TestContext.Current.CancellationToken)).Message;
        }
    }

    [Fact]
    public void Adapter_must_be_given_and_be_the_models()
    {
        using var run = new RunFolder();
        using LanguageModel model = SmallModels.New("mamba2"), other = SmallModels.New("mamba2");
        using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions(), 1);
        Assert.Contains("give the trainer its adapter", Assert.Throws<ArgumentException>(() => new Trainer(model, Data(), null, Options(run))).Message, StringComparison.Ordinal);
        Assert.StartsWith("Trainer: the adapter is not attached to the model.", Assert.Throws<ArgumentException>(() => new Trainer(other, Data(), null, Options(run), adapter)).Message, StringComparison.Ordinal);
        adapter.Detach();
        Assert.Throws<ArgumentException>(() => new Trainer(model, Data(), null, Options(run), adapter));
    }

    private static TrainingOptions Options(RunFolder run) => run.Options(12) with { LearningRate = 2e-2f };

    private static TokenWindows Data() => new(new TextTokens([.. Enumerable.Range(0, 900).Select(i => i % 13)], SmallModels.Vocabulary), RunFolder.Length, 1);

    private static (byte[] Adapter, byte[] Model, List<double> Losses) Train(RunFolder run, bool trainsNorms, DType dtype, int cancelAfterStep = int.MaxValue)
    {
        using LanguageModel model = SmallModels.New("mamba2", dtype);
        using LoraAdapter adapter = LoraAdapter.Attach(model, new LoraOptions { Rank = 2, Targets = s_targets }, seed: 1);
        if (trainsNorms)
            foreach (Parameter parameter in model.Parameters) parameter.IsTrainable = parameter.Name.Contains("norm", StringComparison.Ordinal);
        using var cancellation = new CancellationTokenSource();
        var losses = new List<double>();
        var trainer = new Trainer(model, Data(), Data(), Options(run), adapter);
        trainer.StepTaken += report =>
        {
            losses.Add(report.Loss);
            if (report.Step == cancelAfterStep) cancellation.Cancel();
        };
        trainer.Run(cancellation.Token);
        return (RunFolder.Weights(adapter), RunFolder.Weights(model), losses);
    }
}
