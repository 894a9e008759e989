namespace ZEngine.Models;

/// <summary>Writes the UTF-8 bytes in the byte alphabet.</summary>
internal sealed class ByteLevelNormalizer : Normalizer
{
    public override string Apply(string text, ref bool isAtStart)
    {
        var mapped = new char[text.Length * 3];
        return new(mapped, 0, ByteLevelPreTokenizer.WriteBytes(text, mapped));
    }
}
