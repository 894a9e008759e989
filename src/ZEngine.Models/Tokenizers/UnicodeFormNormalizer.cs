using System.Text;

namespace ZEngine.Models;

/// <summary>A Unicode normalization form.</summary>
internal sealed class UnicodeFormNormalizer(NormalizationForm form) : Normalizer
{
    public override string Apply(string text, ref bool isAtStart) => UnicodeNormalizer.Normalize(text, form);
}
