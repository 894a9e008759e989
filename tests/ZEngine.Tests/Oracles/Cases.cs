namespace ZEngine.Tests.Oracles;

/// <summary>Small cases of every op for the oracles' own tests, and cuts through the ones with a state.</summary>
internal static class Cases
{
    /// <summary>One case of the op with every optional input, L = <paramref name="length"/>, and that many initial states.</summary>
    public static OpCase Stateful(string op, int length, int states, int seed, params int[] ends)
    {
        CaseBuilder c = new CaseBuilder(op, "with state", seed).With("cu_seqlens", ends.Length == 0 ? null : ends);
        return op switch
        {
            "selective_scan" => c.With("softplus", true).Normal("u", [1, length, 4]).ExtremeDt("dt", [1, length, 4]).Decay("A", [4, 3])
                .Normal("B", [1, length, 2, 3]).Normal("C", [1, length, 2, 3]).Normal("D", [4]).Normal("z", [1, length, 4]).Normal("dt_bias", [4])
                .Normal("initial_state", [states, 4, 3]).Build(),
            "ssd" => c.With("softplus", true).With("dt_limit", new double?[] { 0, null }).Normal("x", [1, length, 4, 3]).ExtremeDt("dt", [1, length, 4])
                .Decay("A", [4]).Normal("B", [1, length, 2, 5]).Normal("C", [1, length, 2, 5]).Normal("D", [4, 3]).Normal("z", [1, length, 4, 3])
                .Normal("dt_bias", [4]).Normal("initial_state", [states, 4, 3, 5]).Build(),
            "causal_conv1d" => c.With("activation", "silu").Normal("x", [1, length, 5]).Normal("weight", [5, 4]).Normal("bias", [5])
                .Normal("initial_state", [states, 3, 5]).Build(),
            _ => throw new ArgumentException(op),
        };
    }

    /// <summary>Steps from to end (exclusive) of an unpacked case, without gradients, starting from that initial state (−1: none).</summary>
    public static OpCase Cut(OpCase whole, int from, int end, int state)
    {
        var inputs = new Dictionary<string, CaseTensor>();
        string[] sequences = ["u", "x", "dt", "B", "C", "z"];
        foreach ((string name, CaseTensor tensor) in whole.Inputs)
        {
            if (name == "initial_state" && state < 0) continue;
            OracleTensor<float> cut = name == "initial_state" ? Row(tensor.Floats, state)
                : sequences.Contains(name) ? Steps(tensor.Floats, from, end) : tensor.Floats;
            inputs[name] = new(cut.Data, cut.Shape);
        }
        var attrs = System.Text.Json.Nodes.JsonNode.Parse(whole.Attrs.GetRawText())!.AsObject();
        attrs.Remove("cu_seqlens");
        return new() { Name = whole.Name, Op = whole.Op, Attrs = System.Text.Json.JsonSerializer.SerializeToElement(attrs), Inputs = inputs };
    }

    /// <summary>x[:, from..end] of a batch of one.</summary>
    public static OracleTensor<T> Steps<T>(OracleTensor<T> x, int from, int end)
    {
        int size = x.Count / x.Shape[1];
        return new(x.Data[(from * size)..(end * size)], [1, end - from, .. x.Shape[2..]]);
    }

    /// <summary>x[row..row + 1].</summary>
    public static OracleTensor<T> Row<T>(OracleTensor<T> x, int row)
    {
        int size = x.Count / x.Shape[0];
        return new(x.Data[(row * size)..((row + 1) * size)], [1, .. x.Shape[1..]]);
    }

    /// <summary>Cases that between them take every branch of every oracle.</summary>
    public static IEnumerable<OpCase> All()
    {
        static CaseBuilder Case(string op, string reason) => new(op, reason, seed: 11);

        yield return Stateful("selective_scan", 7, 2, 1, 0, 3, 7);
        yield return Stateful("ssd", 7, 2, 2, 0, 3, 7);
        yield return Stateful("causal_conv1d", 7, 2, 3, 0, 2, 7);
        yield return Case("matmul", "a transposed, bias").With("transpose_a", true).Normal("a", [3, 4]).Normal("b", [3, 5]).Normal("bias", [5]).Build();
        foreach (string f in new[] { "sigmoid", "silu", "gelu", "gelu_tanh", "relu", "relu2" })
            yield return Case("matmul", $"bias, {f}").With("activation", f).Normal("a", [3, 4]).Normal("b", [4, 5]).Normal("bias", [5]).Build();
        yield return Case("matmul", "batched, b transposed").With("transpose_b", true).Normal("a", [2, 3, 4]).Normal("b", [2, 5, 4]).Build();
        foreach (string f in new[] { "exp", "sigmoid", "silu", "gelu", "gelu_tanh", "relu", "relu2", "softplus", "tanh", "square", "negate", "abs" })
            yield return Case("elementwise", f).With("function", f).Normal("x", [3, 7], deviation: 3).Build();
        foreach (string f in new[] { "log", "sqrt", "rsqrt", "reciprocal" })
            yield return Case("elementwise", f).With("function", f).Uniform("x", [3, 7], 0.5, 4).Build();
        foreach (string f in new[] { "add", "sub", "mul", "div", "max", "min" })
            yield return Case("elementwise", f).With("function", f).Normal("a", [2, 1, 5]).Uniform("b", [3, 1], 0.5, 2).Build();
        foreach (string f in new[] { "sum", "mean", "max" })
        {
            yield return Case("reduce", $"{f} of all").With("function", f).Normal("x", [3, 4]).Build();
            yield return Case("reduce", $"{f} inside").With("function", f).With("axis", 1).With("keep_axis", true).Normal("x", [3, 4, 2]).Build();
        }
        yield return Case("embedding", "an id twice").Normal("weight", [5, 3]).Integers("ids", [2, 2], [4, 1, 4, 0]).Build();
        yield return Case("rms_norm", "groups, gate before").With("gated", true).With("group_size", 3)
            .Normal("x", [2, 6]).Normal("z", [2, 6]).Normal("weight", [6]).Build();
        yield return Case("rms_norm", "gate after").With("gated", true).With("norm_before_gate", true)
            .Normal("x", [2, 5]).Normal("z", [2, 5]).Normal("weight", [5]).Build();
        yield return Case("layer_norm", "odd D").Normal("x", [3, 7]).Normal("weight", [7]).Normal("bias", [7]).Build();
        yield return Case("layer_norm", "no weight").With("eps", 1e-3).Normal("x", [3, 7]).Build();
        yield return Case("attention", "window, softcap, lse too").With("causal", true).With("window", 3).With("softcap", 2.0)
            .Normal("q", [1, 6, 4, 3]).Normal("k", [1, 8, 2, 3]).Normal("v", [1, 8, 2, 5]).Build("o", "lse");
        yield return Case("attention", "packed").With("causal", true).With("cu_seqlens", new[] { 0, 2, 6 })
            .Normal("q", [1, 6, 2, 3]).Normal("k", [1, 6, 1, 3]).Normal("v", [1, 6, 1, 3]).Build();
        yield return Case("tree_attention", "shards").With("shards", new[] { 0, 1, 1, 6 })
            .Normal("q", [1, 1, 2, 3]).Normal("k", [1, 6, 2, 3]).Normal("v", [1, 6, 2, 3]).Build("o", "lse");
        yield return Case("rope", "interleaved, partial, offset").With("style", "interleaved").With("rotary_dim", 4).With("position_offset", 1000)
            .Normal("x", [2, 3, 2, 6]).Build();
        yield return Case("rope", "half, positions").With("style", "half").Integers("positions", [2, 3], 90).Normal("x", [2, 3, 2, 6]).Build();
        yield return Case("gated_mlp_activation", "gelu").With("activation", "gelu").Normal("gate", [3, 5]).Normal("up", [3, 5]).Build();
        yield return Case("cross_entropy", "ignored, smoothed, z-loss").With("ignore_index", -100).With("label_smoothing", 0.1).With("z_loss", 0.01)
            .Normal("logits", [4, 5]).Integers("targets", [4], [0, -100, 4, 2]).Build();
        yield return Case("moe_swiglu", "top 2").With("top_k", 2).With("normalize", true).Normal("x", [5, 4]).Normal("router", [3, 4])
            .Normal("gate_proj", [3, 6, 4]).Normal("up_proj", [3, 6, 4]).Normal("down_proj", [3, 4, 6]).Build();
    }
}
