using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Tests.Cuda;

/// <summary>A tiny Llama trains on the CUDA device as on the CPU, with the same bits twice, without waiting and without new memory.</summary>
public sealed class CudaTrainingTests
{
    private const int Steps = 6;

    internal static LanguageModel NewLlama(Device device, DType dtype = DType.Float32) => new Llama(
        new LlamaConfig { VocabularySize = 31, HiddenSize = 16, IntermediateSize = 24, Layers = 2, Heads = 4, KeyValueHeads = 2, HeadDimension = 4, InitializerRange = 0.3 }, device, seed: 3, dtype);

    public static TheoryData<string> DeviceNames => [.. Devices.Names.Where(name => name != "cpu")];

    [Theory, MemberData(nameof(DeviceNames))]
    public void Losses_equal_those_of_the_CPU(string name)
    {
        Device device = Devices.Open(name);
        long buffers = Devices.LiveBuffers(device);
        float[] want = Train(Device.Cpu), got = Train(device);
        // Each step's loss differs by the rounding of two Float32 paths, which the steps before carry on.
        for (int step = 0; step < Steps; step++) Assert.Equal(want[step], got[step], 2e-5f * (step + 1));
        Assert.True(got[^1] < got[0]);
        Assert.Equal(got, Train(device));
        Assert.Equal(buffers, Devices.LiveBuffers(device));
    }

    public static TheoryData<string, string, int> Hybrids => [.. from name in DeviceNames.Select(row => row.Data) from model in ((string, int)[])[("Zamba2", 50), ("Zamba", 12), ("Samba", 12)]
        select new TheoryDataRow<string, string, int>(name, model.Item1, model.Item2)];

    /// <summary>State-space layers beside a shared attention block or a window of attention: the scan, the convolution and their gradients over many steps.</summary>
    [Theory, MemberData(nameof(Hybrids))]
    public void Losses_of_a_hybrid_equal_those_of_the_CPU(string name, string model, int steps)
    {
        Device device = Devices.Open(name == "emulator" ? "scrambled emulator" : name);
        LanguageModel New(Device device) => model switch
        {
            "Zamba" => new Zamba(new ZambaConfig
            {
                VocabularySize = 31, HiddenSize = 8, Layers = 3, IntermediateSize = 12, StateSize = 6, TimeStepRank = 2, AttentionHeads = 2, KeyValueHeads = 2, InitializerRange = 0.3,
            }, device, seed: 3),
            "Samba" => new Samba(new SambaConfig
            {
                VocabularySize = 31, HiddenSize = 8, Layers = 2, IntermediateSize = 12, StateSize = 6, TimeStepRank = 2, Heads = 2, KeyValueHeads = 1, SlidingWindow = 5, InitializerRange = 0.3,
            }, device, seed: 3),
            _ => new Zamba2(new Zamba2Config
            {
                VocabularySize = 31, HiddenSize = 8, Layers = 2, HybridLayers = [1], IntermediateSize = 12, MambaHeads = 2, MambaHeadDimension = 8, StateSize = 6,
                AttentionHeads = 2, KeyValueHeads = 2, AdapterRank = 2, InitializerRange = 0.3,
            }, device, seed: 3),
        };
        float[] want = Train(New(Device.Cpu), steps), got = Train(New(device), steps);
        // As above, over more steps.
        for (int step = 0; step < steps; step++) Assert.Equal(want[step], got[step], 4e-5f * (step + 1));
        Assert.True(got[^1] < got[0] / (steps > 20 ? 2 : 1.02f));
        Assert.Equal(got, Train(New(device), steps));
    }

    /// <summary>What one Mamba-2 layer launches, forward and backward, and the bytes of its own kernels between the projections.</summary>
    /// <remarks>
    /// The peers have about 10 and 25 launches. Ours forward are the projection, the convolution of B and C, the scan with that of x, gate and weight of the norm, the projection, and the sum with the
    /// norm's factor and the next norm; backward two products for each projection, the norm with the sum and its weight, the gated norm, two of the scan, the convolution, and one
    /// that adds up the weights of these two.
    /// </remarks>
    [Fact]
    public void Launches_and_bytes_of_a_Mamba2_layer_are_counted()
    {
        LaunchProfile[][] Count(int layers)
        {
            using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.Counters });
            using CudaDevice device = Devices.OpenEmulated(driver);
            using LanguageModel model = new Mamba2(new Mamba2Config { VocabularySize = 32, HiddenSize = 64, Layers = layers, Heads = 4, HeadDimension = 32, StateSize = 64, IsTied = true }, device, seed: 3, DType.BFloat16);
            using Tensor tokens = Tensor.From<long>([.. Enumerable.Range(0, 128).Select(i => (long)(i * 7 % 31))], [1, 128], device);
            Tensor dy = ZEngine.Ops.RandomNormal([1, 128, 32], Device.Cpu, new RandomStream(4)).To(device).To(DType.BFloat16);
            device.Synchronize();
            int start = driver.Profiles.Count;
            using (TensorScope.Enter()) model.Forward(tokens);
            device.Synchronize();
            int made = driver.Profiles.Count;
            using Tape tape = Tape.Begin();
            Tensor logits = model.Forward(tokens);
            device.Synchronize();
            int forward = driver.Profiles.Count;
            tape.Backward(logits, dy.To(logits.DType));
            device.Synchronize();
            return [[.. driver.Profiles.Skip(made).Take(forward - made)], [.. driver.Profiles.Skip(forward)], [.. driver.Profiles.Skip(start).Take(made - start)]];
        }
        LaunchProfile[][] one = Count(1), two = Count(2);
        // The second layer's alone.
        string[] Names(LaunchProfile[] launches) => [.. launches.Select(launch => launch.Kernel)];
        int forward = Names(two[0]).Length - Names(one[0]).Length, backward = Names(two[1]).Length - Names(one[1]).Length;
        Assert.True(forward is > 3 and <= 5, $"{forward} launches forward: {string.Join(", ", Names(two[0]))}");
        Assert.True(backward is > 8 and <= 11, $"{backward} launches backward: {string.Join(", ", Names(two[1]))}");

        // Bytes per token of what stands between the projections, against each operand once: [z; x; B; C; dt] in, the normed y out.
        const long tokens = 128, inner = 128, channels = inner + 128, half = 2;
        long Moved(LaunchProfile[] launches) => launches.Where(launch => launch.Kernel.Contains("ssd_scan", StringComparison.Ordinal) || launch.Kernel.Contains("causal_conv1d", StringComparison.Ordinal)
            || launch.Kernel.Contains("rms_norm", StringComparison.Ordinal)).Sum(launch => launch.GlobalBytesRead + launch.GlobalBytesWritten);
        double least = tokens * half * (inner + channels + 4 + inner), moved = Moved(two[0]) - Moved(one[0]);
        double prefill = Moved(two[2]) - Moved(one[2]);
        TestContext.Current.SendDiagnosticMessage($"between the projections {moved / least:F3} of the least, in prefill {prefill / least:F3}; a layer forward {(Total(two[0]) - Total(one[0])) / 1e6:F2} MB, prefill {(Total(two[2]) - Total(one[2])) / 1e6:F2}, backward {(Total(two[1]) - Total(one[1])) / 1e6:F2}");
        Assert.InRange(moved / least, 1, 3.9);
        Assert.InRange(prefill / least, 1, 3.3);
        static long Total(LaunchProfile[] launches) => launches.Sum(launch => launch.GlobalBytesRead + launch.GlobalBytesWritten);
    }

    [Fact]
    public void A_step_neither_waits_nor_takes_memory_and_launches_a_fixed_number_of_kernels()
    {
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Checks = EmulatorChecks.None });
        using CudaDevice device = Devices.OpenEmulated(driver);
        using LanguageModel model = NewLlama(device);
        using var adam = new AdamW(model.Parameters);
        Step(model, adam);
        Step(model, adam);
        (long launches, long waits, long reserved) = (device.Launches, device.Waits, device.ReservedBytes);
        Step(model, adam);
        long perStep = device.Launches - launches;
        Step(model, adam);
        Assert.Equal(launches + 2 * perStep, device.Launches);
        Assert.Equal((waits, reserved), (device.Waits, device.ReservedBytes));
    }

    /// <summary>With 16-bit weights the activations have 16 bits too; the loss follows the Float32 run as closely as their rounding lets it.</summary>
    [Theory, MemberData(nameof(DeviceNames))]
    public void Sixteen_bit_model_trains_and_decodes(string name)
    {
        Device device = Devices.Open(name);
        float[] want = Train(Device.Cpu, DType.BFloat16), got = Train(device, DType.BFloat16);
        for (int step = 0; step < Steps; step++) Assert.Equal(want[step], got[step], want[step] * (float)Oracles.Close.BFloat16Epsilon * 2);
        Assert.True(got[^1] < got[0]);

        using LanguageModel model = NewLlama(device, DType.BFloat16);
        Assert.Equal(DType.BFloat16, model.ActivationType);
        int[] prompt = [3, 1, 4, 1, 5];
        using Session whole = model.NewSession(maxLength: 8), stepped = model.NewSession(maxLength: 8);
        float[] logits = whole.Append(prompt).ToArray();
        foreach (int token in prompt[..^1]) stepped.Append([token]);
        float[] last = stepped.Append(prompt.AsSpan(^1)).ToArray();
        float largest = logits.Max(MathF.Abs);
        for (int i = 0; i < logits.Length; i++) Assert.Equal(logits[i], last[i], largest * (float)Oracles.Close.BFloat16Epsilon * 2);
    }

    private static float[] Train(Device device, DType dtype = DType.Float32) => Train(NewLlama(device, dtype), Steps);

    private static float[] Train(LanguageModel created, int steps)
    {
        using LanguageModel model = created;
        using var adam = new AdamW(model.Parameters);
        var losses = new Tensor[steps];
        for (int step = 0; step < steps; step++) losses[step] = Step(model, adam);
        float[] values = [.. losses.Select(loss => loss.Item())];
        foreach (Tensor loss in losses) loss.Dispose();
        return values;
    }

    private static Tensor Step(LanguageModel model, AdamW adam)
    {
        Device device = model.Parameters[0].Value.Device;
        using Tape tape = Tape.Begin();
        // Every step sees the same tokens.
        long[] ids = [.. Enumerable.Range(0, 26).Select(i => (long)(i * 7 % 31))];
        Tensor tokens = Tensor.From<long>(ids, [2, 13], device);
        Tensor loss = ZEngine.Ops.CrossEntropy(model.Forward(tokens.Slice(1, 0, 12).Contiguous()), tokens.Slice(1, 1, 12).Contiguous());
        tape.Backward(loss);
        adam.Step(1e-2f, Gradients.Norm(model.Parameters), 1);
        return TensorScope.Release(loss);
    }
}
