using System.Text;

namespace ZEngine.Models;

/// <summary>One token per UTF-8 byte, the id being the byte; no special tokens. Byte sequences that are not UTF-8 decode to U+FFFD.</summary>
public sealed class ByteTokenizer : Tokenizer
{
    /// <inheritdoc/>
    public override int VocabularySize => 256;

    /// <inheritdoc/>
    public override string Decode(ReadOnlySpan<int> tokens, bool skipSpecialTokens = true)
    {
        var bytes = new byte[tokens.Length];
        for (int i = 0; i < bytes.Length; i++) bytes[i] = ToByte(tokens[i]);
        return Encoding.UTF8.GetString(bytes);
    }

    /// <summary>The byte's stand-in in the byte-level alphabet, the spelling that <see cref="Save"/> writes.</summary>
    /// <param name="token">The byte.</param>
    public override string TokenToText(int token) => ByteAlphabet.ToChar(ToByte(token)).ToString();

    /// <inheritdoc/>
    public override bool TryGetToken(string text, out int token)
    {
        ArgumentNullException.ThrowIfNull(text);
        token = text.Length == 1 ? ByteAlphabet.ToByte(text[0]) : -1;
        return token >= 0;
    }

    /// <inheritdoc/>
    public override bool IsSpecial(int token) => false;

    /// <inheritdoc/>
    public override void Save(string path)
    {
        var texts = new string[256];
        for (int b = 0; b < 256; b++) texts[b] = TokenToText(b);
        TokenizerWriter.Save(path, TokenizerWriter.ByteLevel(texts, [], [], useRegex: false), config: null);
    }

    private protected override void AppendTokens(ReadOnlySpan<char> text, List<int> tokens, bool addSpecialTokens)
    {
        Span<byte> bytes = stackalloc byte[4];
        foreach (Rune rune in text.EnumerateRunes())
        {
            int count = rune.EncodeToUtf8(bytes);
            for (int i = 0; i < count; i++) tokens.Add(bytes[i]);
        }
    }

    internal override DecoderStage StartDecoder(DecoderStage output) => new ByteLevelStage(output);

    private byte ToByte(int token) => token is >= 0 and < 256 ? (byte)token : throw NoSuchToken(token);
}
