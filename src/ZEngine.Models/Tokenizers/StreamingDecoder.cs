namespace ZEngine.Models;

/// <summary>Decodes token by token. What <see cref="Push"/> and <see cref="Flush"/> return, put together, is exactly
/// <see cref="Tokenizer.Decode(ReadOnlySpan{int}, bool)"/> of all tokens, and no piece ends inside a character.</summary>
/// <remarks>Text is held back only while a later token can still change it: the bytes of an unfinished character, a run of byte-fallback
/// tokens (which the file format decodes as one, so one bad byte spoils the run), a trailing space that may be stripped.
/// Not safe for use from several threads.</remarks>
public sealed class StreamingDecoder
{
    private readonly Tokenizer _tokenizer;
    private readonly bool _skipSpecialTokens;
    private readonly TextStage _text = new();
    private DecoderStage _first;

    internal StreamingDecoder(Tokenizer tokenizer, bool skipSpecialTokens)
    {
        _tokenizer = tokenizer;
        _skipSpecialTokens = skipSpecialTokens;
        _first = tokenizer.StartDecoder(_text);
    }

    /// <summary>Adds one token and returns the text that became certain; often empty.</summary>
    /// <param name="token">The id.</param>
    /// <exception cref="ArgumentOutOfRangeException">The id stands for no token.</exception>
    public string Push(int token)
    {
        Accept(token);
        return _text.Take();
    }

    /// <summary>Returns the text still held back and starts over, ready for a new sequence.</summary>
    public string Flush()
    {
        _first.End();
        _first = _tokenizer.StartDecoder(_text);
        return _text.Take();
    }

    internal void Accept(int token)
    {
        string text = _tokenizer.TokenToText(token);
        if (_skipSpecialTokens && _tokenizer.IsSpecial(token)) return;
        _first.Text(text);
        _first.EndToken();
    }
}
