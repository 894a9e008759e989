namespace ZEngine.Models;

/// <summary>Makes one token of all.</summary>
internal sealed class FuseStage(DecoderStage next) : DecoderStage(next)
{
    public override void Text(ReadOnlySpan<char> part) => Next.Text(part);

    public override void EndToken() { }

    public override void End()
    {
        Next.EndToken();
        Next.End();
    }
}
