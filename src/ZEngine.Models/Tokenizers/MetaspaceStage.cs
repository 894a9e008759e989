namespace ZEngine.Models;

/// <summary>Turns the replacement character into a space; where a prefix was prepended, the first token loses it instead.</summary>
internal sealed class MetaspaceStage(char replacement, bool hasPrefix, DecoderStage next) : DecoderStage(next)
{
    private bool _isLater;

    public override void Text(ReadOnlySpan<char> part)
    {
        for (int at; (at = part.IndexOf(replacement)) >= 0; part = part[(at + 1)..])
        {
            Next.Text(part[..at]);
            if (_isLater || !hasPrefix) Next.Text(" ");
        }
        Next.Text(part);
    }

    public override void EndToken()
    {
        _isLater = true;
        Next.EndToken();
    }
}
