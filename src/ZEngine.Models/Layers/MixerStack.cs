namespace ZEngine.Models;

/// <summary>What stands in a layer of a pure state-space model.</summary>
internal abstract class Mixer : Module
{
    /// <summary>Floating-point operations of the forward pass per token.</summary>
    public abstract long FlopsPerToken { get; }

    /// <summary>Bytes of state that a sequence keeps.</summary>
    public abstract long StateBytes { get; }

    public abstract ScanState NewState(Device device, long batch);

    /// <param name="x">[B, L, D], normalised.</param>
    /// <param name="state">Conv and SSM state, brought up to date; or null.</param>
    /// <param name="layout">Boundaries of packed sequences, or null.</param>
    /// <param name="defersScale">Whether a factor of each row may be left to the norm that follows.</param>
    /// <returns>[B, L, D], and the factor that is left, or null.</returns>
    public abstract (Tensor Y, RowScale? Scale) Forward(Tensor x, ScanState? state, SequenceLayout? layout, bool defersScale);
}

/// <summary>A language model that is a stack of state-space mixers, each behind a norm: h += Mixer(RMS(h)).</summary>
public abstract class MixerStack : LanguageModel
{
    private readonly Parameter _embedding, _finalNorm;
    private readonly Parameter? _head;
    private readonly (Parameter Norm, Mixer Mixer)[] _layers;
    private readonly float _epsilon;
    private readonly string _layerName;

    private protected MixerStack(
        ModelConfigFile file, string layerName, long vocabulary, long hidden, int layers, bool isTied, double epsilon, double initializerRange, Func<Mixer> newMixer) : base(file)
    {
        (_epsilon, _layerName, _layers) = ((float)epsilon, layerName, new (Parameter, Mixer)[layers]);
        _embedding = Register("backbone.embeddings.weight", Mamba2Mixer.Matrix(vocabulary, hidden, (float)initializerRange));
        for (int i = 0; i < layers; i++)
            _layers[i] = (
                Register($"backbone.layers.{i}.norm.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones)),
                Register($"backbone.layers.{i}.mixer", newMixer()));
        _finalNorm = Register("backbone.norm_f.weight", Mamba2Mixer.Vector(hidden, Initializer.Ones));
        if (!isTied) _head = Register("lm_head.weight", Mamba2Mixer.Matrix(vocabulary, hidden, (float)initializerRange));
    }

    /// <inheritdoc/>
    public override int VocabularySize => (int)_embedding.Shape[0];

    /// <inheritdoc/>
    public override IReadOnlyList<ModelPart> Parts =>
    [
        new("embedding", 1, _embedding.Count, 0),
        new(_layerName, _layers.Length, _layers.Sum(layer => layer.Mixer.ParameterCount + layer.Norm.Count),
            _layers.Sum(layer => layer.Mixer.FlopsPerToken), _layers.Sum(layer => layer.Mixer.StateBytes)),
        new(_head is null ? "head (tied)" : "head", 1, (_head?.Count ?? 0) + _finalNorm.Count, 2 * _embedding.Count),
    ];

    /// <inheritdoc/>
    protected override Parameter HeadWeight => _head ?? _embedding;

    /// <inheritdoc/>
    protected internal override LayerState[] NewLayerStates(int batch, long maxLength) => [.. _layers.Select(layer => layer.Mixer.NewState(Device, batch))];

    /// <inheritdoc/>
    protected override Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout)
    {
        var stream = new ResidualStream(Ops.Embedding(_embedding.Effective(), tokens), NormOf(0), _epsilon);
        for (int i = 0; i < _layers.Length; i++)
        {
            using TensorScope scope = TensorScope.Enter();
            (Tensor y, RowScale? scale) = _layers[i].Mixer.Forward(stream.Normed, (ScanState?)state?.Layers[i], layout, defersScale: true);
            stream.Add(scope, y, NormOf(i + 1), scale);
        }
        return stream.Normed;
    }

    /// <summary>The norm before a layer, or the last.</summary>
    private Parameter NormOf(int layer) => layer < _layers.Length ? _layers[layer].Norm : _finalNorm;

    /// <inheritdoc/>
    protected override string? CanonicalName(string name) => name switch
    {
        "lm_head.weight" when _head is null => _embedding.Name,
        "backbone.embedding.weight" => _embedding.Name,
        _ => base.CanonicalName(name),
    };
}
