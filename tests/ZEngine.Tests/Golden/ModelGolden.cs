using ZEngine.Models;
using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Golden;

/// <summary>Tiny checkpoints and what transformers computed with them: logits, loss, every gradient, greedy tokens with the cache. A new folder under the golden folder's <c>models</c> is a new case.</summary>
public sealed class ModelGolden
{
    /// <summary>Stated by the golden folder: logits absolute, gradients relative to the tensor's largest entry.</summary>
    private const float LogitBound = 2e-4f, GradientBound = 1e-3f;

    private static readonly string[] Supported = ["falcon_mamba", "llama", "mamba", "mamba2", "mistral", "mixtral", "samba", "zamba", "zamba2"];

    public static IEnumerable<TheoryDataRow<string, string>> Cases() =>
        from folder in GoldenFolder.Cases("models")
        where Supported.Contains(ModelConfigFile.Open(Path.Combine(folder, "config.json")).String("model_type"))
        from device in Devices.Names
        select new TheoryDataRow<string, string>(Path.GetFileName(folder), device) { TestDisplayName = $"Golden model {Path.GetFileName(folder)} on {device}" };

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Cases))]
    public void Case_is_reproduced(string name, string deviceName)
    {
        string folder = Path.Combine(GoldenFolder.Path, "models", name);
        Device device = Devices.Open(deviceName);
        Dictionary<string, CaseTensor> expected = SafeTensorsReader.Read(Path.Combine(folder, "expected.safetensors"));
        long buffers = Devices.LiveBuffers(device);
        using (LanguageModel model = LanguageModel.Load(folder, device))
        {
            TrainingPass(name, model, device, expected);
            GreedyTokens(name, model, expected);
            Assert.Empty(model.Config.UnreadKeys);
        }
        Assert.Equal(buffers, device.LiveBuffers);
    }

    private static void TrainingPass(string name, LanguageModel model, Device device, Dictionary<string, CaseTensor> expected)
    {
        OracleTensor<long> ids = expected["input_ids"].Integers;
        (int batch, int length) = (ids.Shape[0], ids.Shape[1]);
        using Tape tape = Tape.Begin();
        Tensor tokens = Tensor.From<long>(ids.Data, [batch, length], device);
        Tensor logits = model.Forward(tokens);
        Near($"{name}: logits", logits.ToArray<float>(), expected["logits"].Floats.Data, LogitBound);
        Tensor loss = ZEngine.Ops.CrossEntropy(logits.Slice(1, 0, length - 1), tokens.Slice(1, 1, length - 1));
        Near($"{name}: loss", [loss.Item()], expected["loss"].Floats.Data, LogitBound);
        tape.Backward(loss);
        foreach (Parameter parameter in model.Parameters)
        {
            if (!expected.TryGetValue("grad." + parameter.Name, out CaseTensor? want)) Assert.Fail($"{name}: expected.safetensors has no gradient of {parameter.Name}.");
            Assert.NotNull(parameter.Gradient);
            float largest = want.Floats.Data.Max(MathF.Abs);
            Near($"{name}: grad.{parameter.Name}", parameter.Gradient.ToArray<float>(), want.Floats.Data, GradientBound * largest);
        }
        model.ClearGradients();
    }

    private static void GreedyTokens(string name, LanguageModel model, Dictionary<string, CaseTensor> expected)
    {
        int[] prompt = [.. expected["prompt_ids"].Integers.Data.Select(id => (int)id)], want = [.. expected["generated_ids"].Integers.Data.Select(id => (int)id)];
        using (Session session = model.NewSession(maxLength: want.Length))
        {
            int[] got = [.. prompt, .. session.Generate(prompt, SamplingOptions.Greedy with { MaxNewTokens = want.Length - prompt.Length })];
            if (!want.AsSpan().SequenceEqual(got)) Assert.Fail($"{name}: generated_ids: got {string.Join(' ', got)}, want {string.Join(' ', want)}");
        }
        OracleTensor<float> steps = expected["step_logits"].Floats;
        using Session stepped = model.NewSession(maxLength: want.Length);
        for (int step = 0; step < steps.Shape[0]; step++)
        {
            ReadOnlySpan<float> logits = stepped.Append(step == 0 ? prompt : [want[prompt.Length + step - 1]]);
            Near($"{name}: step_logits[{step}]", logits, steps.Data.AsSpan(step * steps.Shape[1], steps.Shape[1]), LogitBound);
        }
    }

    private static void Near(string what, ReadOnlySpan<float> got, ReadOnlySpan<float> want, float bound)
    {
        if (got.Length != want.Length) Assert.Fail($"{what}: got {got.Length} values, want {want.Length}");
        int worst = 0;
        for (int i = 0; i < got.Length; i++) if (!(MathF.Abs(got[i] - want[i]) <= MathF.Abs(got[worst] - want[worst]))) worst = i;
        if (got.Length > 0 && !(MathF.Abs(got[worst] - want[worst]) <= bound)) Assert.Fail($"{what}: worst at [{worst}]: got {got[worst]}, want {want[worst]}, off by {MathF.Abs(got[worst] - want[worst]):G3} > {bound:G3}");
    }
}
