namespace ZEngine.Models;

/// <summary>Replaces one character by a text.</summary>
internal sealed class ReplaceCharStage(char pattern, string content, DecoderStage next) : DecoderStage(next)
{
    public override void Text(ReadOnlySpan<char> part)
    {
        for (int at; (at = part.IndexOf(pattern)) >= 0; part = part[(at + 1)..])
        {
            Next.Text(part[..at]);
            Next.Text(content);
        }
        Next.Text(part);
    }

    public override void EndToken() => Next.EndToken();
}
