namespace ZEngine.Models;

/// <summary>The steps around the model, and their text in the file.</summary>
/// <param name="Normalizer">Rewrites the text; null when there is nothing to rewrite.</param>
/// <param name="PreTokenizer">Cuts the text; null when it stays whole.</param>
/// <param name="Prefix">Tokens before every text.</param>
/// <param name="Suffix">Tokens after every text.</param>
/// <param name="Decoder">Makes the decoding chain in front of an output.</param>
/// <param name="Raw">The JSON of the four sections, in the file's order.</param>
internal sealed record Pipeline(Normalizer? Normalizer, PreTokenizer? PreTokenizer, int[] Prefix, int[] Suffix,
    Func<DecoderStage, DecoderStage> Decoder, IReadOnlyDictionary<string, string> Raw);
