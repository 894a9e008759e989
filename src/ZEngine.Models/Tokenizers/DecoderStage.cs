using System.Text;

namespace ZEngine.Models;

/// <summary>One step of decoding. Tokens come in as parts of text, each token closed by <see cref="EndToken"/>; a step that joins tokens passes
/// their parts on at once, which is what lets text stream through steps that are defined on the whole.</summary>
internal abstract class DecoderStage(DecoderStage? next)
{
    protected DecoderStage Next => next!;

    public abstract void Text(ReadOnlySpan<char> part);

    public abstract void EndToken();

    public virtual void End() => Next.End();
}

/// <summary>Collects the text at the end of the chain.</summary>
internal sealed class TextStage() : DecoderStage(null)
{
    private readonly StringBuilder _text = new();

    public override void Text(ReadOnlySpan<char> part) => _text.Append(part);

    public override void EndToken() { }

    public override void End() { }

    public string Take()
    {
        string text = _text.ToString();
        _text.Clear();
        return text;
    }
}

/// <summary>Puts a space between tokens: what a file without a decoder asks for.</summary>
internal sealed class JoinStage(DecoderStage next) : DecoderStage(next)
{
    private bool _isLater;
    private bool _isOpen;

    public override void Text(ReadOnlySpan<char> part)
    {
        Open();
        Next.Text(part);
    }

    public override void EndToken()
    {
        Open();
        _isOpen = false;
    }

    private void Open()
    {
        if (_isOpen) return;
        _isOpen = true;
        if (_isLater) Next.Text(" ");
        _isLater = true;
    }
}

/// <summary>Makes one token of all.</summary>
internal sealed class FuseStage(DecoderStage next) : DecoderStage(next)
{
    public override void Text(ReadOnlySpan<char> part) => Next.Text(part);

    public override void EndToken() { }

    public override void End()
    {
        Next.EndToken();
        Next.End();
    }
}

/// <summary>Reads the byte alphabet back and makes one token of all bytes. A token with a character outside the alphabet is plain text.</summary>
internal sealed class ByteLevelStage(DecoderStage next) : DecoderStage(next)
{
    private readonly StringBuilder _token = new();
    private readonly Decoder _utf8 = Encoding.UTF8.GetDecoder();
    private byte[] _bytes = new byte[64];
    private char[] _chars = new char[64];

    public override void Text(ReadOnlySpan<char> part) => _token.Append(part);

    public override void EndToken()
    {
        Reserve(_token.Length * 3);
        int count = 0;
        foreach (ReadOnlyMemory<char> chunk in _token.GetChunks())
            foreach (char c in chunk.Span)
            {
                int value = ByteAlphabet.ToByte(c);
                if (value < 0)
                {
                    count = Encoding.UTF8.GetBytes(_token.ToString(), _bytes);
                    goto decoded;
                }
                _bytes[count++] = (byte)value;
            }
        decoded:
        _token.Clear();
        int chars = _utf8.GetChars(_bytes.AsSpan(0, count), _chars, flush: false);
        if (chars > 0) Next.Text(_chars.AsSpan(0, chars));
    }

    public override void End()
    {
        int chars = _utf8.GetChars([], _chars, flush: true);
        if (chars > 0) Next.Text(_chars.AsSpan(0, chars));
        Next.EndToken();
        Next.End();
    }

    private void Reserve(int bytes)
    {
        if (_bytes.Length >= bytes) return;
        _bytes = new byte[bytes * 2];
        _chars = new char[Encoding.UTF8.GetMaxCharCount(_bytes.Length)];
    }
}

/// <summary>Base of the steps that need to see a token whole.</summary>
internal abstract class WholeTokenStage(DecoderStage next) : DecoderStage(next)
{
    private readonly StringBuilder _token = new();

    public override void Text(ReadOnlySpan<char> part) => _token.Append(part);

    public override void EndToken()
    {
        string token = _token.ToString();
        _token.Clear();
        Token(token);
    }

    protected abstract void Token(string token);

    protected void Emit(ReadOnlySpan<char> token)
    {
        Next.Text(token);
        Next.EndToken();
    }
}

/// <summary>Turns runs of <c>&lt;0xAB&gt;</c> tokens into text. A run that is not UTF-8 gives one U+FFFD per byte.</summary>
internal sealed class ByteFallbackStage(DecoderStage next) : WholeTokenStage(next)
{
    private static readonly UTF8Encoding Strict = new(false, throwOnInvalidBytes: true);
    private readonly List<byte> _run = [];

    public override void End()
    {
        EndRun();
        Next.End();
    }

    protected override void Token(string token)
    {
        if (token.Length == 6 && token.StartsWith("<0x", StringComparison.Ordinal) && token[5] == '>'
            && char.IsAsciiHexDigit(token[3]) && char.IsAsciiHexDigit(token[4]))
        {
            _run.Add(Convert.ToByte(token.Substring(3, 2), 16));
            return;
        }
        EndRun();
        Emit(token);
    }

    private void EndRun()
    {
        if (_run.Count == 0) return;
        byte[] bytes = [.. _run];
        _run.Clear();
        if (System.Text.Unicode.Utf8.IsValid(bytes)) Emit(Strict.GetString(bytes));
        else foreach (byte _ in bytes) Emit("\uFFFD");
    }
}

/// <summary>Replaces one character by a text.</summary>
internal sealed class ReplaceCharStage(char pattern, string content, DecoderStage next) : DecoderStage(next)
{
    public override void Text(ReadOnlySpan<char> part)
    {
        for (int at; (at = part.IndexOf(pattern)) >= 0; part = part[(at + 1)..])
        {
            Next.Text(part[..at]);
            Next.Text(content);
        }
        Next.Text(part);
    }

    public override void EndToken() => Next.EndToken();
}

/// <summary>Replaces every match of a pattern by a text; holds each token until it is whole.</summary>
internal sealed class ReplaceStage(SplitPattern pattern, string content, DecoderStage next) : WholeTokenStage(next)
{
    protected override void Token(string token) => Emit(pattern.Replace(token, content));
}

/// <summary>Cuts up to <paramref name="start"/> copies of a character from a token's front and up to <paramref name="stop"/> from its end.</summary>
internal sealed class StripStage(char content, int start, int stop, DecoderStage next) : DecoderStage(next)
{
    private int _cutFront;
    private bool _isPastFront;
    private int _held;                                          // trailing copies that may turn out to be the end

    public override void Text(ReadOnlySpan<char> part)
    {
        while (!_isPastFront && !part.IsEmpty)
        {
            if (_cutFront == start || part[0] != content) _isPastFront = true;
            else
            {
                _cutFront++;
                part = part[1..];
            }
        }
        if (part.IsEmpty) return;

        int body = part.Length;
        while (body > 0 && part.Length - body < stop && part[body - 1] == content) body--;
        int trailing = part.Length - body;
        int release = body > 0 ? _held : Math.Max(0, _held + trailing - stop);
        for (int i = 0; i < release; i++) Next.Text([content]);
        Next.Text(part[..body]);
        _held = body > 0 ? trailing : _held + trailing - release;
    }

    public override void EndToken()
    {
        _cutFront = _held = 0;
        _isPastFront = false;
        Next.EndToken();
    }
}

/// <summary>Turns the replacement character into a space; where a prefix was prepended, the first token loses it instead.</summary>
internal sealed class MetaspaceStage(char replacement, bool hasPrefix, DecoderStage next) : DecoderStage(next)
{
    private bool _isLater;

    public override void Text(ReadOnlySpan<char> part)
    {
        for (int at; (at = part.IndexOf(replacement)) >= 0; part = part[(at + 1)..])
        {
            Next.Text(part[..at]);
            if (_isLater || !hasPrefix) Next.Text(" ");
        }
        Next.Text(part);
    }

    public override void EndToken()
    {
        _isLater = true;
        Next.EndToken();
    }
}
