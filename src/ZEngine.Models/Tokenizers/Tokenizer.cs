using System.Runtime.InteropServices;

namespace ZEngine.Models;

/// <summary>Turns text into token ids and back. Instances are immutable and may be used from several threads at once.</summary>
/// <remarks>Text is Unicode; an unpaired surrogate, which no UTF-8 file can hold, is read as U+FFFD.</remarks>
public abstract class Tokenizer
{
    /// <summary>Reads a Hugging Face <c>tokenizer.json</c>.</summary>
    /// <param name="path">The file, or the folder that holds it. A <c>tokenizer_config.json</c> beside it names the special roles.</param>
    /// <returns>A tokenizer that gives the ids the file describes.</returns>
    /// <exception cref="InvalidDataException">The file is damaged, contradicts itself, or asks for something that is not supported;
    /// the message names the file and the place in it.</exception>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    public static Tokenizer Load(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string file = Directory.Exists(path) ? Path.Combine(path, "tokenizer.json") : path;
        byte[] json = File.ReadAllBytes(file);
        string config = Path.Combine(Path.GetDirectoryName(Path.GetFullPath(file))!, SpecialRoles.ConfigFileName);
        byte[]? configJson = File.Exists(config) ? File.ReadAllBytes(config) : null;
        return TokenizerReader.Read(json, file, configJson, config);
    }

    /// <summary>One more than the largest token id: the rows an embedding table needs.</summary>
    public abstract int VocabularySize { get; }

    /// <summary>The token that opens a text, when the files name one.</summary>
    public int? BosToken { get; private protected init; }

    /// <summary>The token that ends a text, when the files name one.</summary>
    public int? EosToken { get; private protected init; }

    /// <summary>The token that fills up a batch, when the files name one.</summary>
    public int? PadToken { get; private protected init; }

    /// <summary>The ids of <paramref name="text"/>.</summary>
    /// <param name="text">Any text, of any length.</param>
    /// <param name="addSpecialTokens">Whether the tokens the file's post-processor puts around a text are added. Special tokens that
    /// are written out in the text are recognised in either case.</param>
    public int[] Encode(string text, bool addSpecialTokens = true)
    {
        ArgumentNullException.ThrowIfNull(text);
        var tokens = new List<int>(text.Length / 3 + 4);
        Encode(text.AsSpan(), tokens, addSpecialTokens);
        return [.. tokens];
    }

    /// <summary>Appends the ids of <paramref name="text"/> to <paramref name="tokens"/>; on an exception the list is as it was.</summary>
    /// <param name="text">Any text, of any length.</param>
    /// <param name="tokens">Where the ids go.</param>
    /// <param name="addSpecialTokens">As in <see cref="Encode(string, bool)"/>.</param>
    /// <remarks>Once warm it allocates nothing per word, unless the file has a normalizer or an unusual regular expression.</remarks>
    public void Encode(ReadOnlySpan<char> text, List<int> tokens, bool addSpecialTokens = true)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        int before = tokens.Count;
        try
        {
            AppendTokens(UnicodeText.WellFormed(text), tokens, addSpecialTokens);
        }
        catch
        {
            CollectionsMarshal.SetCount(tokens, before);
            throw;
        }
    }

    /// <summary>The text of <paramref name="tokens"/>.</summary>
    /// <param name="tokens">Ids below <see cref="VocabularySize"/>.</param>
    /// <param name="skipSpecialTokens">Whether special tokens leave no trace in the text.</param>
    /// <exception cref="ArgumentOutOfRangeException">An id stands for no token.</exception>
    public virtual string Decode(ReadOnlySpan<int> tokens, bool skipSpecialTokens = true)
    {
        var decoder = new StreamingDecoder(this, skipSpecialTokens);
        foreach (int token in tokens) decoder.Accept(token);
        return decoder.Flush();
    }

    /// <summary>The text of one token by itself, special or not. A token that holds part of a character gives U+FFFD.</summary>
    /// <param name="token">The id.</param>
    public string Decode(int token) => Decode([token], skipSpecialTokens: false);

    /// <summary>The token as the vocabulary spells it, before any decoding: <c>Ġthe</c>, <c>▁the</c>, <c>&lt;0x0A&gt;</c>; an added token that is looked for in normalized text as it stands there.</summary>
    /// <param name="token">The id.</param>
    /// <exception cref="ArgumentOutOfRangeException">The id stands for no token.</exception>
    public abstract string TokenToText(int token);

    /// <summary>Finds the token that the vocabulary spells <paramref name="text"/>.</summary>
    /// <param name="text">The spelling, as <see cref="TokenToText"/> gives it; an added token's own, before any normalization.</param>
    /// <param name="token">The id, or -1.</param>
    public abstract bool TryGetToken(string text, out int token);

    /// <summary>Whether the file marks <paramref name="token"/> as special, which is what decoding skips.</summary>
    /// <param name="token">The id.</param>
    public abstract bool IsSpecial(int token);

    /// <summary>Writes a <c>tokenizer.json</c> that <see cref="Load"/> reads to the same behaviour.</summary>
    /// <param name="path">A name that ends in <c>.json</c> is the file; anything else is a folder, made if missing, which also receives
    /// the special roles in <c>tokenizer_config.json</c>.</param>
    public abstract void Save(string path);

    /// <summary>A decoder that takes one token at a time, for text that is shown while it is generated.</summary>
    /// <param name="skipSpecialTokens">Whether special tokens leave no trace in the text.</param>
    public StreamingDecoder NewStreamingDecoder(bool skipSpecialTokens = true) => new(this, skipSpecialTokens);

    private protected abstract void AppendTokens(ReadOnlySpan<char> text, List<int> tokens, bool addSpecialTokens);

    internal abstract DecoderStage StartDecoder(DecoderStage output);

    private protected ArgumentOutOfRangeException NoSuchToken(int token) =>
        new(nameof(token), token, $"No token has this id; the vocabulary holds {VocabularySize} ids.");
}
