using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Tests.Models;

/// <summary>
/// A model trained on short texts reads longer ones with interpolated rotary frequencies, and cannot without. The task: a text begins with one of some
/// signs, noise follows, and every position must name the sign, so the attention has to find it across all distances.
/// </summary>
public sealed class RotaryExtensionTests
{
    private const int Signs = 12, Vocabulary = 24, Trained = 24, Factor = 4, Long = Trained * Factor, Batch = 24, TrainingSteps = 400;

    private static readonly LlamaConfig Config = new()
    {
        VocabularySize = Vocabulary, HiddenSize = 32, IntermediateSize = 32, Layers = 1, Heads = 2, KeyValueHeads = 2, HeadDimension = 16, InitializerRange = 0.1,
        Rotary = new RotaryOptions { Theta = 100 },
    };

    [Fact]
    public void Interpolation_extends_a_trained_context_and_nothing_else_does()
    {
        using var trained = new Llama(Config, Device.Cpu, seed: 5);
        Train(trained);
        (double shortLoss, double farLoss) = (Loss(trained, Trained).Mean, Loss(trained, Long).Far);
        var far = new Dictionary<RotaryScaling, double>();
        foreach (RotaryScaling scaling in (ReadOnlySpan<RotaryScaling>)[RotaryScaling.Linear, RotaryScaling.Dynamic, RotaryScaling.Yarn, RotaryScaling.Llama3])
        {
            using var extended = new Llama(Config with { Rotary = Config.Rotary with { Scaling = scaling, Factor = Factor, MaxPositions = Trained, OriginalMaxPositions = Trained } }, Device.Cpu, seed: 5);
            foreach ((Parameter from, Parameter to) in trained.Parameters.Zip(extended.Parameters)) to.Value.CopyFrom<float>(from.Value.ToArray<float>());
            far[scaling] = Loss(extended, Long).Far;
        }
        string figures = $"loss on {Trained} tokens {shortLoss:F4}; beyond {2 * Trained} of {Long}: plain {farLoss:F4}, {string.Join(", ", far.Select(entry => $"{entry.Key} {entry.Value:F4}"))}";
        TestContext.Current.SendDiagnosticMessage(figures);
        TestContext.Current.TestOutputHelper?.WriteLine(figures);
        Assert.InRange(shortLoss, 0, 0.1);
        Assert.InRange(farLoss, 1, double.MaxValue);
        foreach ((RotaryScaling scaling, double loss) in far) Assert.True(loss < farLoss / 2, $"{scaling}: {figures}");
    }

    private static (int[] Tokens, int[] Targets) Texts(ulong seed, int batch, int length)
    {
        var random = new RandomStream(seed);
        var tokens = new int[batch * length];
        var targets = new int[tokens.Length];
        for (int i = 0; i < tokens.Length; i++)
        {
            tokens[i] = i % length == 0 ? (int)random.Below(i, Signs) : Signs + (int)random.Below(i, Vocabulary - Signs);
            targets[i] = tokens[i - i % length];
        }
        return (tokens, targets);
    }

    private static void Train(Llama model)
    {
        using var adam = new AdamW(model.Parameters);
        for (int step = 0; step < TrainingSteps; step++)
        {
            using Tape tape = Tape.Begin();
            (int[] tokens, int[] targets) = Texts((ulong)(1000 + step), Batch, Trained);
            Tensor logits = model.Forward(Tensor.From<int>(tokens, [Batch, Trained], Device.Cpu));
            tape.Backward(ZEngine.Ops.CrossEntropy(logits, Tensor.From<int>(targets, [Batch, Trained], Device.Cpu)));
            adam.Step(3e-3f, Gradients.Norm(model.Parameters), 1);
        }
    }

    /// <summary>The mean loss of other texts, of all positions and of those beyond twice the trained length.</summary>
    private static (double Mean, double Far) Loss(Llama model, int length)
    {
        using TensorScope scope = TensorScope.Enter();
        const int texts = 16;
        (int[] tokens, int[] targets) = Texts(7, texts, length);
        Tensor logits = model.Forward(Tensor.From<int>(tokens, [texts, length], Device.Cpu)), wanted = Tensor.From<int>(targets, [texts, length], Device.Cpu);
        double all = ZEngine.Ops.CrossEntropy(logits, wanted).Item();
        if (length <= 2 * Trained) return (all, double.NaN);
        return (all, ZEngine.Ops.CrossEntropy(logits.Slice(1, 2 * Trained, length - 2 * Trained), wanted.Slice(1, 2 * Trained, length - 2 * Trained)).Item());
    }
}
