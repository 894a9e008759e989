using ZEngine.Models;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Models;

/// <summary>What holds for every model, whatever its weights: the ways to compute a text agree.</summary>
public sealed class ModelLawTests
{
    private const int Length = 23;

    public static TheoryData<string> Models => SmallModels.Names;

    [Theory, MemberData(nameof(Models))]
    public void Prefill_and_decode_equal_the_full_forward(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        int[] tokens = SmallModels.Tokens(model, Length);
        float[] full = SmallModels.Logits(model, tokens);
        foreach (int prompt in (int[])[1, 2, 9, Length])
        {
            using Session session = model.NewSession(maxLength: Length);
            SmallModels.Same($"after a prompt of {prompt}", session.Append(tokens.AsSpan(0, prompt)), SmallModels.Row(model, full, prompt - 1));
            for (int i = prompt; i < Length; i++)
                SmallModels.Same($"prompt {prompt}, token {i}", session.Append([tokens[i]]), SmallModels.Row(model, full, i));
            Assert.Equal(Length, session.Length);
        }
    }

    [Theory, MemberData(nameof(Models))]
    public void Prefill_in_pieces_equals_one_piece(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        int[] tokens = SmallModels.Tokens(model, Length);
        float[] full = SmallModels.Logits(model, tokens);
        foreach (int[] pieces in (int[][])[[5, 1, 2, 8, 7], [1, 22], [20, 3]])
        {
            using Session session = model.NewSession(maxLength: Length);
            int at = 0;
            foreach (int piece in pieces)
            {
                ReadOnlySpan<float> logits = session.Append(tokens.AsSpan(at, piece));
                SmallModels.Same($"pieces {string.Join(' ', pieces)} at {at}", logits, SmallModels.Row(model, full, (at += piece) - 1));
            }
        }
    }

    [Theory, MemberData(nameof(Models))]
    public void Batch_of_three_equals_three_sessions(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        int[][] texts = [.. Enumerable.Range(0, 3).Select(i => SmallModels.Tokens(model, Length, (ulong)i + 20))];
        using Session batch = model.NewSession(batch: 3, maxLength: Length);
        Session[] single = [.. texts.Select(_ => model.NewSession(maxLength: Length))];
        foreach ((int at, int count) in ((int, int)[])[(0, 9), (9, 1), (10, 1), (11, 12)])
        {
            using TensorScope scope = TensorScope.Enter();
            int[] step = [.. texts.SelectMany(text => text[at..(at + count)])];
            float[] got = batch.Append(Tensor.From<int>(step, [3, count], Device.Cpu)).ToArray<float>();
            for (int i = 0; i < 3; i++) SmallModels.Same($"text {i} at {at}", SmallModels.Row(model, got, i), single[i].Append(texts[i].AsSpan(at, count)));
        }
        foreach (Session session in single) session.Dispose();
    }

    [Theory, MemberData(nameof(Models))]
    public void Packed_sequences_equal_separate_ones(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        int[] tokens = SmallModels.Tokens(model, 20), ends = [0, 7, 8, 20];
        float[] weights = [.. Enumerable.Range(0, 20 * model.VocabularySize).Select(i => MathF.Sin(i))];
        (float[] packed, Dictionary<string, float[]> packedGradients) = Run(model, tokens, weights, new SequenceLayout(0, 7, 8, 20));

        var separate = new List<float>();
        var sums = new Dictionary<string, float[]>();
        for (int i = 0; i < 3; i++)
        {
            (float[] logits, Dictionary<string, float[]> gradients) = Run(model, tokens[ends[i]..ends[i + 1]], weights[(ends[i] * model.VocabularySize)..(ends[i + 1] * model.VocabularySize)], null);
            separate.AddRange(logits);
            foreach ((string parameter, float[] gradient) in gradients)
                sums[parameter] = sums.TryGetValue(parameter, out float[]? sum) ? [.. sum.Zip(gradient, (a, b) => a + b)] : gradient;
        }
        SmallModels.Same("logits", packed, separate.ToArray());
        Assert.Equal(model.Parameters.Count, packedGradients.Count);
        // The sums of gradients run over 20 positions on top, and the way back is twice as long.
        foreach ((string parameter, float[] gradient) in packedGradients) SmallModels.Same($"gradient of {parameter}", gradient, sums[parameter], share: 4e-4);
    }

    [Theory, MemberData(nameof(Models))]
    public void Recomputed_and_scoped_gradients_have_the_bits_of_plain_ones(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        int[] tokens = SmallModels.Tokens(model, Length);
        float[] weights = [.. Enumerable.Range(0, Length * model.VocabularySize).Select(i => MathF.Cos(i))];
        (float[] logits, Dictionary<string, float[]> plain) = Run(model, tokens, weights, null);
        Same(Run(model, tokens, weights, null, static (model, tokens) => Tape.Recompute([tokens], inputs => model.Forward(inputs[0]))));
        Same(Run(model, tokens, weights, null, static (model, tokens) =>
        {
            using TensorScope scope = TensorScope.Enter();
            return scope.Keep(model.Forward(tokens));
        }));

        void Same((float[] Logits, Dictionary<string, float[]> Gradients) run)
        {
            Assert.Equal(logits, run.Logits);
            foreach ((string parameter, float[] gradient) in plain) Assert.True(gradient.AsSpan().SequenceEqual(run.Gradients[parameter]), parameter);
        }
    }

    [Theory, MemberData(nameof(Models))]
    public void Every_parameter_gets_a_gradient_that_matches_a_difference(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        int[] tokens = SmallModels.Tokens(model, 9);
        float[] weights = [.. Enumerable.Range(0, 9 * model.VocabularySize).Select(i => MathF.Sin(3 * i))];
        (_, Dictionary<string, float[]> gradients) = Run(model, tokens, weights, null);
        var noise = new Noise(5);
        foreach (Parameter parameter in model.Parameters)
        {
            float[] values = parameter.Value.ToArray<float>(), direction = [.. values.Select(_ => (float)noise.Normal())];
            double slope = direction.Zip(gradients[parameter.Name], (d, g) => (double)d * g).Sum(), scale = Math.Sqrt(gradients[parameter.Name].Sum(g => (double)g * g));
            Assert.True(scale > 0, $"{parameter.Name} has no gradient");
            double Loss(float step)
            {
                parameter.Value.CopyFrom<float>([.. values.Zip(direction, (v, d) => v + step * d)]);
                return SmallModels.Logits(model, tokens).Zip(weights, (y, w) => (double)y * w).Sum();
            }
            float step = (float)Math.Min(1e-2, 0.02 / scale);               // the loss moves by about 0.02, a hundred times its rounding
            double difference = (Loss(step) - Loss(-step)) / (2 * step);
            parameter.Value.CopyFrom<float>(values);
            // Rounding and the cubic term stay near 10⁻² of the slope's typical size, |g|; a wrong term is off by about |g|.
            Assert.True(Math.Abs(difference - slope) <= 0.05 * scale + 0.01, $"{parameter.Name}: slope {slope:G4}, difference {difference:G4}, |g| {scale:G4}");
        }
    }

    private static (float[] Logits, Dictionary<string, float[]> Gradients) Run(
        LanguageModel model, int[] tokens, float[] weights, SequenceLayout? layout, Func<LanguageModel, Tensor, Tensor>? forward = null)
    {
        model.ClearGradients();
        using Tape tape = Tape.Begin();
        Tensor input = Tensor.From<int>(tokens, [1, tokens.Length], Device.Cpu);
        Tensor logits = forward is null ? model.Forward(input, layout) : forward(model, input);
        tape.Backward(logits, Tensor.From<float>(weights, logits.Shape, Device.Cpu));
        return (logits.ToArray<float>(), model.Parameters.Where(parameter => parameter.Gradient is not null).ToDictionary(parameter => parameter.Name, parameter => parameter.Gradient!.ToArray<float>()));
    }
}
