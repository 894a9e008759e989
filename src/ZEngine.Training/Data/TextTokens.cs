using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace ZEngine.Training;

/// <summary>Tokens in memory, from text files or from an array.</summary>
/// <remarks>Takes four bytes a token; for texts beyond a few hundred megabytes write <see cref="BinaryTokens"/> instead.</remarks>
public sealed class TextTokens : TokenSource
{
    private readonly int[] _tokens;

    /// <summary>Takes an array over.</summary>
    /// <exception cref="ArgumentException">There are none, or a token is not from 0 to the vocabulary - 1.</exception>
    public TextTokens(int[] tokens, int vocabulary)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        if (tokens.Length == 0) throw new ArgumentException("TextTokens: there are no tokens.", nameof(tokens));
        for (int i = 0; i < tokens.Length; i++)
            if (tokens[i] < 0 || tokens[i] >= vocabulary) throw new ArgumentException($"TextTokens: token {tokens[i]} at {i} is not from 0 to {vocabulary - 1}.", nameof(tokens));
        (_tokens, Vocabulary) = (tokens, vocabulary);
        Fingerprint = Convert.ToHexStringLower(SHA256.HashData(MemoryMarshal.AsBytes(tokens.AsSpan())));
    }

    /// <inheritdoc/>
    public override long Count => _tokens.Length;

    /// <inheritdoc/>
    public override int Vocabulary { get; }

    /// <inheritdoc/>
    public override string Fingerprint { get; }

    /// <summary>Reads text files one after the other, in the order given, every byte a token: a vocabulary of 256.</summary>
    public static TextTokens FromFiles(IEnumerable<string> files) => FromFiles(files, null, 256);

    /// <summary>Reads text files one after the other, in the order given.</summary>
    /// <param name="files">UTF-8; a byte order mark is left out.</param>
    /// <param name="tokenize">Turns a file's text into tokens; null takes every byte of the file as a token.</param>
    /// <param name="vocabulary">All tokens are below this number.</param>
    /// <param name="separator">A token put behind every file, such as the end of a text; null for none.</param>
    /// <exception cref="InvalidDataException">A file is not UTF-8, or the files hold no token or too many.</exception>
    /// <exception cref="IOException">A file is missing or cannot be read.</exception>
    public static TextTokens FromFiles(IEnumerable<string> files, Func<string, int[]>? tokenize, int vocabulary, int? separator = null)
    {
        ArgumentNullException.ThrowIfNull(files);
        var tokens = new List<int>();
        int fileCount = 0;
        foreach (string file in files)
        {
            fileCount++;
            byte[] bytes = File.ReadAllBytes(file);
            ReadOnlySpan<byte> text = bytes.AsSpan().StartsWith(Encoding.UTF8.Preamble) ? bytes.AsSpan(3) : bytes;
            if (tokens.Count > Array.MaxLength - text.Length - 1L) throw new InvalidDataException($"{file}: with this file the text has more tokens than memory holds in one piece; write a binary token file (BinaryTokens.Write) and train on that.");
            Append(tokens, text, tokenize, file);
            if (separator is { } end) tokens.Add(end);
        }
        if (fileCount == 0) throw new InvalidDataException("No text file was given.");
        if (tokens.Count == (separator is null ? 0 : fileCount)) throw new InvalidDataException($"The {fileCount} text files are empty.");
        return new TextTokens([.. tokens], vocabulary);
    }

    /// <inheritdoc/>
    protected override void Copy(long start, Span<int> tokens) => _tokens.AsSpan((int)start, tokens.Length).CopyTo(tokens);

    private static void Append(List<int> tokens, ReadOnlySpan<byte> text, Func<string, int[]>? tokenize, string file)
    {
        if (tokenize is null)
        {
            tokens.EnsureCapacity(tokens.Count + text.Length);
            foreach (byte token in text) tokens.Add(token);
            return;
        }
        try
        {
            tokens.AddRange(tokenize(new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(text)));
        }
        catch (DecoderFallbackException e)
        {
            throw new InvalidDataException($"{file}: not UTF-8 at byte {e.Index}; convert the file, or train on bytes.", e);
        }
    }
}
