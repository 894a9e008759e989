using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Tests.Cuda;

/// <summary>A captured step does at each replay what it did the first time.</summary>
public sealed class CudaGraphTests : IDisposable
{
    private readonly EmulatedCudaDriver _driver = new();
    private readonly CudaDevice _device;

    public CudaGraphTests() => _device = Devices.OpenEmulated(_driver);

    public void Dispose()
    {
        _device.Dispose();
        _driver.Dispose();
    }

    [Fact]
    public void Replays_read_what_was_written_since()
    {
        using Tensor x = Tensor.From<float>([1, 2, 3], [3], _device);
        Tensor Step() { using TensorScope scope = TensorScope.Enter(); return scope.Keep(ZEngine.Ops.Add(ZEngine.Ops.Multiply(x, x), x)); }
        Step().Dispose();
        Tensor? y = null;
        using CudaGraph graph = _device.Capture(() => y = Step());
        long launches = _device.Launches;
        graph.Launch();
        Assert.Equal(launches + 1, _device.Launches);
        Assert.Equal([2, 6, 12], y!.ToArray<float>());
        x.CopyFrom<float>([4, 5, 6]);
        graph.Launch();
        Assert.Equal([20, 30, 42], y.ToArray<float>());
        y.Dispose();
    }

    [Fact]
    public void Memory_of_a_graph_is_not_handed_to_others()
    {
        using Tensor x = Tensor.From<float>([1, 2, 3], [3], _device);
        using (Tensor warm = ZEngine.Ops.Scale(x, 2)) { }
        long reserved = _device.ReservedBytes;
        Tensor? y = null;
        CudaGraph graph = _device.Capture(() =>
        {
            using Tensor middle = ZEngine.Ops.Scale(x, 2);                                    // goes back inside the capture, and is used at every replay
            y = ZEngine.Ops.Add(middle, x);
        });
        Tensor[] others = [.. Enumerable.Range(0, 50).Select(_ => Tensor.Zeros([3], DType.Float32, _device))];
        graph.Launch();
        Assert.Equal([3, 6, 9], y!.ToArray<float>());
        Assert.All(others, other => Assert.Equal([0, 0, 0], other.ToArray<float>()));
        foreach (Tensor other in others) other.Dispose();
        y.Dispose();
        graph.Dispose();
        Assert.Equal(reserved, _device.ReservedBytes);
        Assert.Throws<ObjectDisposedException>(graph.Launch);
    }

    [Fact]
    public void What_a_replay_could_not_do_is_an_error_and_leaves_the_device_whole()
    {
        using Tensor x = Tensor.From<float>([1, 2], [2], _device);
        Assert.Contains("must not copy to the host", Assert.Throws<InvalidOperationException>(() => _device.Capture(() => x.ToArray<float>())).Message, StringComparison.Ordinal);
        Assert.Contains("must not copy from the host", Assert.Throws<InvalidOperationException>(() => _device.Capture(() => x.CopyFrom<float>([3, 4]))).Message, StringComparison.Ordinal);
        Assert.Contains("must not wait", Assert.Throws<InvalidOperationException>(() => _device.Capture(_device.Synchronize)).Message, StringComparison.Ordinal);
        Assert.Contains("going on already", Assert.Throws<InvalidOperationException>(() => _device.Capture(() => _device.Capture(() => { }))).Message, StringComparison.Ordinal);
        Assert.Equal([1, 2], x.ToArray<float>());
    }

    public static TheoryData<string> DeviceNames => CudaTrainingTests.DeviceNames;

    [Theory, MemberData(nameof(DeviceNames))]
    public void Captured_training_steps_equal_plain_ones(string name)
    {
        var device = (CudaDevice)Devices.Open(name);
        float[] Train(bool isCaptured)
        {
            using LanguageModel model = CudaTrainingTests.NewLlama(device);
            using var adam = new AdamW(model.Parameters);
            using Tensor tokens = Tensor.From<long>([.. Enumerable.Range(0, 24).Select(i => (long)(i * 7 % 31))], [2, 12], device);
            void Step()
            {
                using Tape tape = Tape.Begin();
                Tensor loss = ZEngine.Ops.CrossEntropy(model.Forward(tokens), tokens);
                tape.Backward(loss);
                adam.Step(1e-2f, Gradients.Norm(model.Parameters), 1);
            }
            Step();                                            // makes the optimizer's state and compiles the kernels
            if (!isCaptured) for (int i = 0; i < 3; i++) Step();
            else
            {
                using CudaGraph graph = device.Capture(Step);
                for (int i = 0; i < 3; i++) graph.Launch();
                Assert.Equal(4, adam.StepCount);
            }
            return [.. model.Parameters.SelectMany(parameter => parameter.Value.ToArray<float>())];
        }
        Assert.Equal(Train(isCaptured: false), Train(isCaptured: true));
    }

    /// <summary>A graph of one token's step decodes as many tokens as it is launched for: nothing of it depends on how many came before.</summary>
    [Theory]
    [InlineData("Mamba2", DType.Float32), InlineData("Mamba2", DType.BFloat16), InlineData("Mamba", DType.Float32), InlineData("Mamba", DType.BFloat16), InlineData("Zamba2", DType.Float32), InlineData("Zamba2", DType.BFloat16),
     InlineData("Zamba", DType.Float32), InlineData("Zamba", DType.BFloat16), InlineData("Samba", DType.Float32), InlineData("Samba", DType.BFloat16)]
    public void Captured_token_steps_equal_plain_ones(string name, DType dtype)
    {
        using LanguageModel model = name switch
        {
            "Mamba2" => new Mamba2(Models.SmallModels.Mamba2, _device, 1, dtype),
            "Mamba" => new Mamba(Models.SmallModels.Mamba, _device, 1, dtype),
            "Zamba" => new Zamba(Models.SmallModels.Zamba, _device, 1, dtype),
            "Samba" => new Samba(Models.SmallModels.Samba, _device, 1, dtype),
            _ => new Zamba2(Models.SmallModels.Zamba2, _device, 1, dtype),
        };
        int[][] tokens = [[3, 1], [4, 1], [5, 9], [2, 6], [5, 3]];
        using Session plain = model.NewSession(batch: 2), captured = model.NewSession(batch: 2);
        using Tensor prompt = Tensor.From<int>([7, 8, 9, 10, 11, 12], [2, 3], _device), next = Tensor.From<int>(tokens[0], [2, 1], _device);
        plain.Append(prompt).Dispose();
        captured.Append(prompt).Dispose();
        captured.Step(next).Dispose();                         // compiles the kernels; from now on the state stays in place
        plain.Append(next).Dispose();
        Tensor? logits = null;
        using CudaGraph graph = _device.Capture(() => logits = captured.Step(next));
        foreach (int[] pair in tokens[1..])
        {
            next.CopyFrom<int>(pair);
            graph.Launch();
            using Tensor want = plain.Append(next);
            Assert.Equal(want.To(DType.Float32).ToArray<float>(), logits!.To(DType.Float32).ToArray<float>());
        }
        logits!.Dispose();

        // The graph has taken in tokens of which the host knows nothing; a text of several goes on behind them.
        using Tensor expected = plain.Append(prompt), got = captured.Append(prompt);
        Assert.Equal(expected.To(DType.Float32).ToArray<float>(), got.To(DType.Float32).ToArray<float>());
    }

    /// <summary>The kernels of a token's step, which neither waits nor takes memory.</summary>
    private string[] KernelsOfStep(LanguageModel model)
    {
        using Session session = model.NewSession();
        using Tensor token = Tensor.From<int>([3], [1, 1], _device);
        session.Step(token).Dispose();
        _device.Synchronize();
        int before = _driver.Profiles.Count;
        (long waits, long reserved) = (_device.Waits, _device.ReservedBytes);
        session.Step(token).Dispose();
        Assert.Equal((waits, reserved), (_device.Waits, _device.ReservedBytes));
        _device.Synchronize();
        return [.. _driver.Profiles.Skip(before).Select(profile => profile.Kernel)];
    }

    /// <summary>Of a Mamba layer's step two launches lie between the projections, Falcon-Mamba's norms among them.</summary>
    [Theory, InlineData(null), InlineData(1e-6)]
    public void A_token_step_of_Mamba_has_a_fixed_number_of_launches(double? epsilon)
    {
        MambaConfig config = Models.SmallModels.Mamba with { ProjectionNormEpsilon = epsilon };
        using LanguageModel model = new Mamba(config, _device, 1);
        string[] kernels = KernelsOfStep(model);
        // Embedding, last norm and head; of a layer the outer projections, the inner one with its convolution, the step, and the sum with its norm.
        Assert.Equal(3 + 5 * config.Layers, kernels.Length);
        // A single token that is appended goes the same way.
        using (Session plain = model.NewSession())
        {
            int before = _driver.Profiles.Count;
            plain.Append([3]);
            _device.Synchronize();
            Assert.Equal(kernels, _driver.Profiles.Skip(before).Select(profile => profile.Kernel));
        }
        foreach (string kernel in (string[])["selective_state_project", "selective_state_update"]) Assert.Equal(config.Layers, kernels.Count(name => name.Contains(kernel, StringComparison.Ordinal)));
    }

    /// <summary>Of a Mamba-2 layer's step one launch lies between the projections: the count of a token's launches says so.</summary>
    [Fact]
    public void A_token_step_of_Mamba2_has_a_fixed_number_of_launches()
    {
        using LanguageModel model = new Mamba2(Models.SmallModels.Mamba2, _device, 1);
        string[] kernels = KernelsOfStep(model);
        int layers = Models.SmallModels.Mamba2.Layers;
        Assert.Equal(layers, kernels.Count(kernel => kernel.Contains("state_update", StringComparison.Ordinal)));
        Assert.DoesNotContain(kernels, kernel => kernel.Contains("causal_conv1d", StringComparison.Ordinal) || kernel.Contains("ssd_scan", StringComparison.Ordinal));
        // Embedding, first norm and head; of a layer two projections, the step, the gated norm, and the sum with the next norm.
        Assert.Equal(3 + 5 * layers, kernels.Length);
    }

    /// <summary>The learning rate lies in the device's memory: replays follow a schedule, with the bits of plain steps.</summary>
    [Theory, MemberData(nameof(DeviceNames))]
    public void Captured_steps_follow_a_schedule(string name)
    {
        var device = (CudaDevice)Devices.Open(name);
        float[] rates = [1e-2f, 3e-2f, 0, 5e-3f];
        float[] Train(bool isCaptured)
        {
            using LanguageModel model = CudaTrainingTests.NewLlama(device);
            using var adam = new AdamW(model.Parameters);
            using Tensor tokens = Tensor.From<long>([.. Enumerable.Range(0, 8).Select(i => (long)(i * 7 % 31))], [1, 8], device), rate = Tensor.From<float>([rates[0]], [1], device);
            void Step(Action update)
            {
                using Tape tape = Tape.Begin();
                tape.Backward(ZEngine.Ops.CrossEntropy(model.Forward(tokens), tokens));
                update();
            }
            Step(() => adam.Step(rates[0]));
            if (!isCaptured)
            {
                foreach (float next in rates[1..]) Step(() => adam.Step(next));
            }
            else
            {
                using CudaGraph graph = device.Capture(() => Step(() => adam.Step(rate)));
                foreach (float next in rates[1..])
                {
                    rate.CopyFrom<float>([next]);
                    graph.Launch();
                }
                Assert.Equal(rates.Length, adam.StepCount);
            }
            return [.. model.Parameters.SelectMany(parameter => parameter.Value.ToArray<float>())];
        }
        Assert.Equal(Train(isCaptured: false), Train(isCaptured: true));
    }
}
