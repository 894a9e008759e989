namespace ZEngine.Models;

/// <summary>One step of decoding. Tokens come in as parts of text, each token closed by <see cref="EndToken"/>; a step that joins tokens passes
/// their parts on at once, which is what lets text stream through steps that are defined on the whole.</summary>
internal abstract class DecoderStage(DecoderStage? next)
{
    protected DecoderStage Next => next!;

    public abstract void Text(ReadOnlySpan<char> part);

    public abstract void EndToken();

    public virtual void End() => Next.End();
}
