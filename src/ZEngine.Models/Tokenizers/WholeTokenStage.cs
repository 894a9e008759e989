using System.Text;

namespace ZEngine.Models;

/// <summary>Base of the steps that need to see a token whole.</summary>
internal abstract class WholeTokenStage(DecoderStage next) : DecoderStage(next)
{
    private readonly StringBuilder _token = new();

    public override void Text(ReadOnlySpan<char> part) => _token.Append(part);

    public override void EndToken()
    {
        string token = _token.ToString();
        _token.Clear();
        Token(token);
    }

    protected abstract void Token(string token);

    protected void Emit(ReadOnlySpan<char> token)
    {
        Next.Text(token);
        Next.EndToken();
    }
}
