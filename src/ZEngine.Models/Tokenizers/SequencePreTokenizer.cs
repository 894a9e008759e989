namespace ZEngine.Models;

/// <summary>One step after another.</summary>
internal sealed class SequencePreTokenizer(PreTokenizer[] steps) : PreTokenizer
{
    public override void Apply(PieceBuffer buffer)
    {
        foreach (PreTokenizer step in steps) step.Apply(buffer);
    }
}
