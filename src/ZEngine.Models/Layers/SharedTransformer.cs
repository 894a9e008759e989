namespace ZEngine.Models;

/// <summary>Zamba2's shared block: attention over the hidden state beside the token embedding, then a gated MLP; low-rank adapters differ from use to use.</summary>
internal sealed class SharedTransformer : SharedBlock
{
    private readonly Zamba2Config _config;
    private readonly Parameter _inputNorm, _query, _key, _value, _output, _mlpNorm, _gateUp, _down;
    private readonly Dictionary<int, Adapters> _adapters = [];

    /// <param name="config">Sizes.</param>
    /// <param name="block">Which of the shared blocks: it serves the uses J with J mod the number of blocks equal to it.</param>
    public SharedTransformer(Zamba2Config config, int block)
    {
        _config = config;
        (long hidden, long wide, long mlp, float range) = (config.HiddenSize, 2L * config.HiddenSize, config.IntermediateSize, (float)config.InitializerRange);
        long keyWidth = (long)config.KeyValueHeads * config.AttentionHeadDimension;
        _inputNorm = Register("input_layernorm.weight", Mamba2Mixer.Vector(wide, Initializer.Ones));
        _query = Register("self_attn.q_proj.weight", Mamba2Mixer.Matrix(wide, wide, range));
        _key = Register("self_attn.k_proj.weight", Mamba2Mixer.Matrix(keyWidth, wide, range));
        _value = Register("self_attn.v_proj.weight", Mamba2Mixer.Matrix(keyWidth, wide, range));
        _output = Register("self_attn.o_proj.weight", Mamba2Mixer.Matrix(hidden, wide, range));
        _mlpNorm = Register("pre_ff_layernorm.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones));
        _gateUp = Register("feed_forward.gate_up_proj.weight", Mamba2Mixer.Matrix(2 * mlp, hidden, range));
        _down = Register("feed_forward.down_proj.weight", Mamba2Mixer.Matrix(hidden, mlp, range));
        (SharedCount, SharedMatrixCount) = (ParameterCount, ParameterCount - _inputNorm.Count - _mlpNorm.Count);
        for (int use = block; use < config.HybridLayers.Count; use += config.SharedBlocks)
        {
            LowRank Adapter(string name, long rows, long columns) => new(
                Register($"{name}.{use}.0.weight", Mamba2Mixer.Matrix(config.AdapterRank, columns, range)),
                Register($"{name}.{use}.1.weight", Mamba2Mixer.Matrix(rows, config.AdapterRank, range)));
            _adapters[use] = new Adapters(
                config.HasAttentionAdapters ? Adapter("self_attn.linear_q_adapter_list", wide, wide) : null,
                config.HasAttentionAdapters ? Adapter("self_attn.linear_k_adapter_list", keyWidth, wide) : null,
                config.HasAttentionAdapters ? Adapter("self_attn.linear_v_adapter_list", keyWidth, wide) : null,
                Adapter("feed_forward.gate_up_proj_adapter_list", 2 * mlp, hidden));
        }
    }

    public override long SharedCount { get; }

    public override long SharedMatrixCount { get; }

    public override Tensor Forward(Tensor h, Tensor embedded, int use, RotaryEmbedding? rotary, KeyValueCache? cache, long offset, SequenceLayout? layout)
    {
        Adapters adapters = _adapters[use];
        using TensorScope scope = TensorScope.Enter();
        Tensor u = Ops.RmsNorm(Ops.Concat(-1, h, embedded), _inputNorm.Effective(), (float)_config.NormEpsilon);
        Tensor q = Heads(Adapted(u, _query, adapters.Query), _config.AttentionHeads), k = Heads(Adapted(u, _key, adapters.Key), _config.KeyValueHeads);
        Tensor v = Heads(Adapted(u, _value, adapters.Value), _config.KeyValueHeads);
        var options = new AttentionOptions(Scale: _config.AttentionScale, Layout: layout);
        Tensor o = KeyValueCache.Attend(cache, q, k, v, rotary, offset, options);
        Tensor a = _output.Project(o.Reshape(h.Shape[0], h.Shape[1], -1));
        Tensor gateUp = Adapted(Ops.RmsNorm(a, _mlpNorm.Effective(), (float)_config.NormEpsilon), _gateUp, adapters.GateUp);
        return scope.Keep(_down.Project(Ops.GatedActivation(gateUp, Pointwise.Gelu)));
    }

    private static Tensor Heads(Tensor x, long heads) => x.Reshape(x.Shape[0], x.Shape[1], heads, -1);

    private static Tensor Adapted(Tensor x, Parameter weight, LowRank? adapter)
    {
        Tensor y = weight.Project(x);
        return adapter is null ? y : Ops.Add(y, adapter.Up.Project(adapter.Down.Project(x)));
    }

    private sealed record LowRank(Parameter Down, Parameter Up);

    private sealed record Adapters(LowRank? Query, LowRank? Key, LowRank? Value, LowRank GateUp);
}
