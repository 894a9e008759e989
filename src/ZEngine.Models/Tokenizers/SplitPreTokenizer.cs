namespace ZEngine.Models;

/// <summary>Cuts at the matches of a pattern.</summary>
internal sealed class SplitPreTokenizer(SplitPattern pattern, SplitBehavior behavior, bool isInverted) : PreTokenizer
{
    public override void Apply(PieceBuffer buffer) => buffer.Split(pattern, behavior, isInverted);
}
