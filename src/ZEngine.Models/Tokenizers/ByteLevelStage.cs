using System.Text;

namespace ZEngine.Models;

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
