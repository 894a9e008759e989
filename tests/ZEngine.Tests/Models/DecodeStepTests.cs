using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Models;
using ZEngine.Tests.Ops;

namespace ZEngine.Tests.Models;

/// <summary>One token of a session: what it launches, that a captured token replays, and what keys and values in bytes change.</summary>
public sealed class DecodeStepTests
{
    private const int Prompt = 9, Steps = 8;

    private static Llama NewLlama(Device device, int window = 0)
    {
        LlamaConfig config = SmallModels.Llama with { SlidingWindow = window };
        var model = new Llama(config);
        SmallModels.Fill(model, 3);
        if (device == Device.Cpu) return model;
        using Llama source = model;
        var moved = new Llama(config, device, 3);
        foreach ((Parameter from, Parameter to) in model.Parameters.Zip(moved.Parameters)) to.Value.CopyFrom<float>(from.Value.ToArray<float>());
        return moved;
    }

    [Fact]
    public void A_layers_rotation_append_and_attention_are_one_launch()
    {
        using var counted = new CountedDevice();
        using LanguageModel model = NewLlama(counted.Device);
        using Session session = model.NewSession(maxLength: 40);
        session.Append(SmallModels.Tokens(model, Prompt));
        counted.Launches();
        session.Append([5]);
        string[] kernels = [.. counted.Launches().Select(launch => launch.Kernel)];
        Assert.Equal(SmallModels.Llama.Layers, kernels.Count(kernel => kernel.Contains("attention_decode", StringComparison.Ordinal)));
        Assert.DoesNotContain(kernels, kernel => kernel.Contains("rope", StringComparison.Ordinal) || kernel.Contains("copy", StringComparison.Ordinal) || kernel.Contains("append", StringComparison.Ordinal));
    }

    /// <summary>With a window the keys stand in a ring of 8 positions, which these tokens go through twice.</summary>
    [Theory, InlineData(0), InlineData(7)]
    public void A_captured_token_replays_with_the_positions_of_each(int window)
    {
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.None });
        using CudaDevice device = Devices.OpenEmulated(driver);
        using LanguageModel model = NewLlama(device, window);
        int[] tokens = SmallModels.Tokens(model, Prompt + Steps);
        using Session plain = model.NewSession(maxLength: 40);
        plain.Append(tokens.AsSpan(0, Prompt));
        using ModelState state = NewState(model);
        using (TensorScope scope = TensorScope.Enter()) model.NextLogits(Tensor.From<int>(tokens.AsSpan(0, Prompt), [1, Prompt], device), state);
        using Tensor next = Tensor.From<int>([0], [1, 1], device);
        using (Session warm = model.NewSession(maxLength: 40)) warm.Append([1]);
        Tensor? logits = null;
        using CudaGraph graph = device.Capture(() => logits = model.NextLogits(next, state));
        float[] last = [];
        for (int i = Prompt; i < Prompt + Steps; i++)
        {
            next.CopyFrom<int>([tokens[i]]);
            long launches = device.Launches;
            graph.Launch();
            Assert.Equal(launches + 1, device.Launches);
            Assert.Equal(plain.Append([tokens[i]]).ToArray(), last = logits!.ToArray<float>());
        }
        logits!.Dispose();
        using LanguageModel host = NewLlama(Device.Cpu, window);
        float[] want = SmallModels.Logits(host, tokens);
        SmallModels.Same("the last token", last, SmallModels.Row(host, want, tokens.Length - 1), 2e-4);
    }

    private static ModelState NewState(LanguageModel model)
    {
        using TensorScope scope = TensorScope.Enter();
        LayerState[] layers = model.NewLayerStates(1, 40);
        foreach (LayerState layer in layers) layer.Allocate(null, null, null);
        foreach (LayerState layer in layers) layer.Own();
        return new ModelState(layers);
    }

    public static TheoryData<string> Attentive => ["llama", "mistral, window, biases", "zamba2, one block, attention adapters, rope", "zamba2, two blocks, odd sizes, K 2", "zamba", "samba"];

    /// <summary>
    /// An element of a key or value is off by at most 1/254 of its row's largest. These models, random and of few channels, pass that on to 1 to 4 % of their
    /// logits' size in the mean of all steps: not nothing, and far from another model.
    /// </summary>
    [Theory, MemberData(nameof(Attentive))]
    public void Keys_and_values_in_bytes_move_logits_by_little(string name)
    {
        using LanguageModel model = SmallModels.New(name);
        int[] tokens = SmallModels.Tokens(model, 40);
        using Session exact = model.NewSession(maxLength: 40), bytes = model.NewSession(maxLength: 40, keyValueType: DType.Int8);
        double square = 0, difference = 0;
        // The second piece reads the first from its bytes; then token by token.
        foreach ((int at, int count) in (IEnumerable<(int, int)>)[(0, 9), (9, 7), .. Enumerable.Range(16, 24).Select(i => (i, 1))])
        {
            float[] want = exact.Append(tokens.AsSpan(at, count)).ToArray(), got = bytes.Append(tokens.AsSpan(at, count)).ToArray();
            if (at == 0) Assert.Equal(want, got);              // a prompt meets its own keys as they are
            square += want.Sum(x => (double)x * x);
            difference += want.Zip(got, (a, b) => (double)(a - b) * (a - b)).Sum();
        }
        double share = Math.Sqrt(difference / square);
        TestContext.Current.SendDiagnosticMessage($"{name}: logits in bytes are off by {share:P2} of their size");
        Assert.InRange(share, 1e-5, 0.06);
    }

    /// <summary>States of 16 bits are rounded once a piece and once a step: an 8th or 11th bit of a part of what a layer gives.</summary>
    [Theory]
    [InlineData("mamba2", DType.BFloat16), InlineData("mamba2", DType.Float16), InlineData("zamba2, two blocks, odd sizes, K 2", DType.BFloat16)]
    public void States_of_scans_in_16_bits_move_logits_by_little(string name, DType type)
    {
        using LanguageModel model = SmallModels.New(name);
        int[] tokens = SmallModels.Tokens(model, 40);
        using Session exact = model.NewSession(maxLength: 40), halves = model.NewSession(maxLength: 40, scanStateType: type), inPlace = model.NewSession(maxLength: 40, scanStateType: type);
        double square = 0, difference = 0;
        foreach ((int at, int count) in (IEnumerable<(int, int)>)[(0, 9), (9, 7), .. Enumerable.Range(16, 24).Select(i => (i, 1))])
        {
            float[] want = exact.Append(tokens.AsSpan(at, count)).ToArray(), got = halves.Append(tokens.AsSpan(at, count)).ToArray();
            if (at == 0) Assert.Equal(want, got);              // a prompt is walked in floats
            square += want.Sum(x => (double)x * x);
            difference += want.Zip(got, (a, b) => (double)(a - b) * (a - b)).Sum();
            using TensorScope scope = TensorScope.Enter();
            Tensor piece = Tensor.From<int>(tokens.AsSpan(at, count), [1, count], model.Device);
            Assert.Equal(got, (count == 1 ? inPlace.Step(piece) : inPlace.Append(piece)).ToArray<float>());
        }
        double share = Math.Sqrt(difference / square);
        TestContext.Current.SendDiagnosticMessage($"{name}: logits with states of {type} are off by {share:P3} of their size");
        Assert.InRange(share, 1e-6, type == DType.BFloat16 ? 1.0 / 128 : 1.0 / 1024);
    }

    [Fact]
    public void Types_of_keys_and_states_that_there_are_not_are_told()
    {
        using LanguageModel llama = SmallModels.New("llama"), mamba = SmallModels.New("mamba");
        Assert.Equal("Session: keyValueType must be Int8, or null for the type of the activations, got Float16.", Assert.Throws<ArgumentException>(() => llama.NewSession(keyValueType: DType.Float16)).Message);
        Assert.Equal("Session: scanStateType must be Float32, BFloat16 or Float16, got Int8.", Assert.Throws<ArgumentException>(() => llama.NewSession(scanStateType: DType.Int8)).Message);
        Assert.Equal("Session: a selective scan keeps its states as Float32, not as BFloat16.", Assert.Throws<NotSupportedException>(() => mamba.NewSession(scanStateType: DType.BFloat16)).Message);
    }
}
