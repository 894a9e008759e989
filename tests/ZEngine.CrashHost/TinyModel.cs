using ZEngine.Models;

namespace ZEngine.CrashHost;

/// <summary>The smallest language model that has matrices, a bias and a table: embedding, linear, GELU, linear.</summary>
public sealed class TinyModel : LanguageModel
{
    private readonly Parameter _table, _up, _bias, _head;
    private readonly int _width;
    private readonly float _scale;

    public TinyModel(int vocabulary = 256, int width = 16, float scale = 1)
    {
        (VocabularySize, _width, _scale) = (vocabulary, width, scale);
        _table = Register("embedding.weight", new Parameter([vocabulary, width], Initializer.Normal(0.1f), isMatrix: true));
        _up = Register("up.weight", new Parameter([2 * width, width], Initializer.Normal(0.2f), isMatrix: true, isDecayed: true));
        _bias = Register("up.bias", new Parameter([2 * width], Initializer.Zeros));
        _head = Register("head.weight", new Parameter([vocabulary, 2 * width], Initializer.Normal(0.1f), isMatrix: true, isDecayed: true));
    }

    public override int VocabularySize { get; }

    /// <summary>Called before every forward pass.</summary>
    public Action? BeforeForward { get; set; }

    /// <summary>Called before every save, with the folder.</summary>
    public Action<string>? BeforeSave { get; set; }

    public override Tensor Forward(Tensor tokens, SequenceLayout? layout = null)
    {
        BeforeForward?.Invoke();
        Tensor hidden = Ops.Scale(Ops.Embedding(_table.Value, tokens), _scale);
        return Ops.Linear(Ops.Map(Pointwise.Gelu, Ops.Linear(hidden, _up.Value, _bias.Value)), _head.Value);
    }

    public override void Save(string folder)
    {
        BeforeSave?.Invoke(folder);
        ModelConfigFile.Create([new("model_type", "tiny"), new("vocab_size", VocabularySize), new("width", _width), new("scale", _scale)]).Save(Path.Combine(folder, ModelConfigFile.FileName));
        WeightFiles.Save(folder, [.. Parameters.Select(parameter => Training.ParameterFiles.ToSafetensors(parameter.Name, parameter.Value))]);
    }
}
