namespace ZEngine.Models;

/// <summary>Puts a space between tokens: what a file without a decoder asks for.</summary>
internal sealed class JoinStage(DecoderStage next) : DecoderStage(next)
{
    private bool _isLater;
    private bool _isOpen;

    public override void Text(ReadOnlySpan<char> part)
    {
        Open();
        Next.Text(part);
    }

    public override void EndToken()
    {
        Open();
        _isOpen = false;
    }

    private void Open()
    {
        if (_isOpen) return;
        _isOpen = true;
        if (_isLater) Next.Text(" ");
        _isLater = true;
    }
}
