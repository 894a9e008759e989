namespace ZEngine.Models;

/// <summary>Writes spaces as a visible character and cuts before it.</summary>
internal sealed class MetaspacePreTokenizer : PreTokenizer
{
    private readonly char _replacement;
    private readonly bool _splits;
    private readonly LiteralPattern _pattern;
    private readonly Func<Piece, ReadOnlySpan<char>, bool> _needsPrefix;
    private readonly PieceBuffer.Writer _write;

    public MetaspacePreTokenizer(char replacement, PrependScheme scheme, bool splits)
    {
        _replacement = replacement;
        _splits = splits;
        _pattern = new(replacement.ToString());
        _needsPrefix = (piece, text) => scheme != PrependScheme.Never && text[0] != replacement && text[0] != ' '
            && (scheme == PrependScheme.Always || piece.IsAtStart);
        _write = (from, to) =>
        {
            from.Replace(to, ' ', replacement);
            return from.Length;
        };
    }

    public override void Apply(PieceBuffer buffer)
    {
        buffer.Rewrite(_replacement, _needsPrefix, _write, growth: 1);
        if (_splits) buffer.Split(_pattern, SplitBehavior.MergedWithNext, isInverted: false);
    }
}
