namespace ZEngine.Models;

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
