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

    /// <summary>
    /// Whether an op is tested on a device of <see cref="Devices.OpNames"/>: the optimizer keeps Float32 state, a router that rounds its scores may choose
    /// other experts, and a tree of attentions rounds each shard's result before it merges them. The device without cuBLASLt is there for products alone.
    /// </summary>
    public static bool Takes(string op, string deviceName) => (op == "matmul" || Devices.OfOp(deviceName).Device != Devices.OwnProducts)
        && (Devices.OfOp(deviceName).Type == DType.Float32 || op is not ("adamw" or "moe_swiglu" or "tree_attention"));

    public static void Check(OpCase c, string deviceName, Application? application = null)
    {
        Application apply = application ?? For(c.Op) ?? throw new ArgumentException($"There is no op {c.Op}.");
        (string name, DType type) = Devices.OfOp(deviceName);
        OracleReference reference = OracleReference.Of(c, type);
        c = reference.Case;
        Device device = Devices.Open(name);
        long buffers = Devices.LiveBuffers(device);
        int threads = CpuDevice.Threads;
        try
        {
            Results first = Compare(reference, device, type, apply);
            if (name == "cpu")
            {
                foreach (int count in (ReadOnlySpan<int>)[1, 3])
                {
                    CpuDevice.Threads = count;
                    SameBits(c, first, Run(c, device, type, apply), $"with {count} threads");
                }
            }
            else if (name == "emulator") SameBits(c, first, Run(c, Devices.Open("scrambled emulator"), type, apply), "in another order of warps and blocks");
            else SameBits(c, first, Run(c, device, type, apply), "the second time");
        }
        finally
        {
            CpuDevice.Threads = threads;
        }
        Assert.Equal(buffers, device.LiveBuffers);
    }

    /// <summary>Runs a case once and compares with its reference, whose inputs are rounded to the type already.</summary>
    public static Results Compare(OracleReference reference, Device device, DType type, Application? application = null)
    {
        OpCase c = reference.Case;
        Results results = Run(c, device, type, application ?? For(c.Op)!);
        foreach ((string output, float[] values) in results.Outputs) reference.CheckOutput(output, values, EpsilonOf(results.Types[output]));
        foreach ((string input, float[] values) in results.Gradients)
            if (c.InputGradients.Count == 0 || c.InputGradients.ContainsKey(input)) reference.CheckInputGradient(input, values, EpsilonOf(results.Types["d" + input]));
        return results;
    }

    /// <summary>The distance from 1 to a result's next number: its own last rounding. What else 16-bit activations lose is measured, see <see cref="Oracle.Plain"/>.</summary>
    private static double EpsilonOf(DType result) => result == DType.BFloat16 ? Close.BFloat16Epsilon : Close.Float32Epsilon;

    private static Results Run(OpCase c, Device device, DType type, Application apply)
    {
        using Tape tape = Tape.Begin();
        var inputs = new EngineInputs(c, device, type);
        if (c.OutputGradients.Count > 0)
            foreach ((_, Tensor tensor) in inputs.Floats) tape.Watch(tensor);
        Dictionary<string, Tensor> outputs = apply(inputs);
        var results = new Results();
        foreach ((string name, Tensor output) in outputs) results.Add(results.Outputs, name, name, output);
        if (c.OutputGradients.Count == 0) return results;

        string[] names = [.. c.OutputGradients.Keys];
        Tensor[] gradients = [.. names.Select(name => Tensor.From<float>(c.OutputGradients[name].Floats.Data, outputs[name].Shape, device).To(outputs[name].DType))];
        tape.Backward([.. names.Select(name => outputs[name])], gradients);
        foreach ((string name, Tensor input) in inputs.Floats) results.Add(results.Gradients, name, "d" + name, tape.GradientOf(input));
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

    internal sealed class Results
    {
        public Dictionary<string, float[]> Outputs { get; } = [];
        public Dictionary<string, float[]> Gradients { get; } = [];
        public Dictionary<string, DType> Types { get; } = [];

        public void Add(Dictionary<string, float[]> to, string name, string typeName, Tensor tensor)
        {
            Types[typeName] = tensor.DType;
            using NoGradient pause = Tape.NoGrad();
            to[name] = tensor.To(DType.Float32).ToArray<float>();
        }
    }
}
