namespace ZEngine.Models;

/// <summary>A step that cuts prepared text into pieces or rewrites them.</summary>
internal abstract class PreTokenizer
{
    public abstract void Apply(PieceBuffer buffer);
}
