using System.Text;

namespace ZEngine.Models;

/// <summary>Collects the text at the end of the chain.</summary>
internal sealed class TextStage() : DecoderStage(null)
{
    private readonly StringBuilder _text = new();

    public override void Text(ReadOnlySpan<char> part) => _text.Append(part);

    public override void EndToken() { }

    public override void End() { }

    public string Take()
    {
        string text = _text.ToString();
        _text.Clear();
        return text;
    }
}
