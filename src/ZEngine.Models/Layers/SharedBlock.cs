namespace ZEngine.Models;

/// <summary>A transformer block that several layers use: attention over the hidden state beside the token embedding, then a gated MLP, without residuals.</summary>
internal abstract class SharedBlock : Module
{
    /// <summary>Parameters beside what each use has of its own.</summary>
    public abstract long SharedCount { get; }

    /// <summary>Elements of the matrices among them.</summary>
    public abstract long SharedMatrixCount { get; }

    /// <param name="h">[B, L, D].</param>
    /// <param name="embedded">[B, L, D], the token embeddings.</param>
    /// <param name="use">J, counted over all layers that use a block.</param>
    /// <param name="rotary">Rotation of q and k, or null.</param>
    /// <param name="cache">Keys and values of this use so far, or null.</param>
    /// <param name="offset">Position of the first step.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    public abstract Tensor Forward(Tensor h, Tensor embedded, int use, RotaryEmbedding? rotary, KeyValueCache? cache, long offset, SequenceLayout? layout);
}

/// <summary>Zamba's shared block, which is the same at every use.</summary>
internal sealed class ZambaBlock : SharedBlock
{
    private readonly Parameter _inputNorm, _mlpNorm;
    private readonly SelfAttention _attention;
    private readonly GatedMlp _mlp;
    private readonly float _epsilon;

    public ZambaBlock(ZambaConfig config)
    {
        (int hidden, float range) = (config.HiddenSize, (float)config.InitializerRange);
        _epsilon = (float)config.NormEpsilon;
        _inputNorm = Register("input_layernorm.weight", Mamba2Mixer.Vector(2L * hidden, Initializer.Ones));
        _attention = Register("self_attn", new SelfAttention(new SelfAttentionOptions(
            2 * hidden, config.AttentionHeads, config.KeyValueHeads, config.AttentionHeadDimension, range, OutputSize: hidden, Scale: config.AttentionScale)));
        _mlpNorm = Register("pre_ff_layernorm.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones));
        _mlp = Register("feed_forward", new GatedMlp(hidden, config.IntermediateSize, range, Pointwise.Gelu));
    }

    public override long SharedCount => ParameterCount;

    public override long SharedMatrixCount => _attention.ParameterCount + _mlp.MatrixCount;

    public override Tensor Forward(Tensor h, Tensor embedded, int use, RotaryEmbedding? rotary, KeyValueCache? cache, long offset, SequenceLayout? layout)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor a = _attention.Forward(Ops.RmsNorm(Ops.Concat(-1, h, embedded), _inputNorm.Effective(), _epsilon), rotary, cache, offset, layout);
        return scope.Keep(_mlp.Forward(Ops.RmsNorm(a, _mlpNorm.Effective(), _epsilon)));
    }
}
