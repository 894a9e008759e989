using ZEngine.Models;

namespace ZEngine.CrashHost;

/// <summary>The smallest language model that has matrices, a bias and a table: embedding, linear, GELU, linear.</summary>
public sealed class TinyModel : LanguageModel
{
    private readonly Parameter _table, _up, _bias, _head;
    private readonly float _scale;

    public TinyModel(int vocabulary = 256, int width = 16, float scale = 1)
        : base(ModelConfigFile.Create([new("model_type", "tiny"), new("vocab_size", vocabulary), new("width", width), new("scale", scale)]))
    {
        (VocabularySize, _scale) = (vocabulary, scale);
        _table = Register("embedding.weight", new Parameter([vocabulary, width], Initializer.Normal(0.1f), isMatrix: true));
        _up = Register("up.weight", new Parameter([2 * width, width], Initializer.Normal(0.2f), isMatrix: true, isDecayed: true));
        _bias = Register("up.bias", new Parameter([2 * width], Initializer.Zeros));
        _head = Register("head.weight", new Parameter([vocabulary, 2 * width], Initializer.Normal(0.1f), isMatrix: true, isDecayed: true));
    }

    public override int VocabularySize { get; }

    /// <summary>Called before every forward pass.</summary>
    public Action? BeforeForward { get; set; }

    /// <summary>Called on the thread that writes a checkpoint, before it writes, with the folder.</summary>
    public Action<string>? BeforeSave { get; set; }

    public override IReadOnlyList<ModelPart> Parts => [new("all", 1, ParameterCount, 2 * (_up.Count + _head.Count))];

    protected override Parameter HeadWeight => _head;

    protected internal override LayerState[] NewLayerStates(int batch, long maxLength) => [];

    protected override Tensor Hidden(Tensor tokens, ModelState? state, SequenceLayout? layout)
    {
        BeforeForward?.Invoke();
        Tensor hidden = Ops.Scale(Ops.Embedding(_table.Value, tokens), _scale);
        return Ops.Map(Pointwise.Gelu, Ops.Linear(hidden, _up.Value, _bias.Value));
    }

    public override Action<string> PrepareSave(TensorCopies copies)
    {
        Action<string> write = base.PrepareSave(copies);
        return folder =>
        {
            BeforeSave?.Invoke(folder);
            write(folder);
        };
    }
}
