using ZEngine.Tests.Oracles;

namespace ZEngine.Tests.Ops;

/// <summary>Runs a case on a device and compares outputs and gradients with the reference; then checks that threads and repetition change no bit, and that no buffer is left.</summary>
internal static class EngineOp
{
    public delegate Dictionary<string, Tensor> Application(EngineInputs x);

    /// <summary>How the engine computes an op of the golden folder; null where there is no such op yet.</summary>
    public static Application? For(string op) => op switch
    {
        "matmul" => MatMulTests.Apply,
        "elementwise" or "activation" => ElementwiseTests.Apply,
        "reduce" => ReduceTests.Apply,
        "embedding" => EmbeddingTests.Apply,
        "rms_norm" => RmsNormTests.Apply,
        "causal_conv1d" => CausalConv1dTests.Apply,
        "ssd" => SsdScanTests.Apply,
        "attention" => AttentionTests.Apply,
        "rope" => RopeTests.Apply,
        "gated_mlp_activation" => GatedActivationTests.Apply,
        "cross_entropy" => CrossEntropyTests.Apply,
        "adamw" => AdamWTests.Apply,
        "selective_scan" => SelectiveScanTests.Apply,
        "layer_norm" => LayerNormTests.Apply,
        "tree_attention" => TreeAttentionTests.Apply,
        "moe_swiglu" => GroupedExpertsTests.Apply,
        _ => null,
    };

    public static void Check(OpCase c, string deviceName, Application? application = null)
    {
        Application apply = application ?? For(c.Op) ?? throw new ArgumentException($"There is no op {c.Op}.");
        Device device = Devices.Open(deviceName);
        long buffers = Devices.LiveBuffers(device);
        int threads = CpuDevice.Threads;
        try
        {
            Results first = Run(c, device, apply);
            var reference = new OracleReference(c);
            foreach ((string name, float[] values) in first.Outputs) reference.CheckOutput(name, values);
            foreach ((string name, float[] values) in first.Gradients)
                if (c.InputGradients.Count == 0 || c.InputGradients.ContainsKey(name)) reference.CheckInputGradient(name, values);
            if (deviceName == "cpu")
            {
                foreach (int count in (ReadOnlySpan<int>)[1, 3])
                {
                    CpuDevice.Threads = count;
                    SameBits(c, first, Run(c, device, apply), $"with {count} threads");
                }
            }
            else if (deviceName == "emulator") SameBits(c, first, Run(c, Devices.Open("scrambled emulator"), apply), "in another order of warps and blocks");
            else SameBits(c, first, Run(c, device, apply), "the second time");
        }
        finally
        {
            CpuDevice.Threads = threads;
        }
        Assert.Equal(buffers, device.LiveBuffers);
    }

    private static Results Run(OpCase c, Device device, Application apply)
    {
        using Tape tape = Tape.Begin();
        var inputs = new EngineInputs(c, device);
        if (c.OutputGradients.Count > 0)
            foreach ((_, Tensor tensor) in inputs.Floats) tape.Watch(tensor);
        Dictionary<string, Tensor> outputs = apply(inputs);
        var results = new Results();
        foreach ((string name, Tensor output) in outputs) results.Outputs[name] = output.ToArray<float>();
        if (c.OutputGradients.Count == 0) return results;

        string[] names = [.. c.OutputGradients.Keys];
        Tensor[] gradients = [.. names.Select(name => Tensor.From<float>(c.OutputGradients[name].Floats.Data, outputs[name].Shape, device))];
        tape.Backward([.. names.Select(name => outputs[name])], gradients);
        foreach ((string name, Tensor input) in inputs.Floats) results.Gradients[name] = tape.GradientOf(input).ToArray<float>();
        return results;
    }

    private static void SameBits(OpCase c, Results first, Results again, string how)
    {
        foreach ((string name, float[] values) in first.Outputs) Same(name, values, again.Outputs[name]);
        foreach ((string name, float[] values) in first.Gradients) Same("the gradient of " + name, values, again.Gradients[name]);

        void Same(string name, float[] values, float[] other)
        {
            if (!values.AsSpan().SequenceEqual(other)) // NaN would have failed before
                Assert.Fail($"{c.Name}: {name} has other bits {how}.");
        }
    }

    private sealed class Results
    {
        public Dictionary<string, float[]> Outputs { get; } = [];
        public Dictionary<string, float[]> Gradients { get; } = [];
    }
}
