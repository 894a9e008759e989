namespace ZEngine.Models;

/// <summary>Puts a text before any text that is not empty.</summary>
internal sealed class PrependNormalizer(string prefix) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart) => text.Length == 0 ? text : prefix + text;
}
