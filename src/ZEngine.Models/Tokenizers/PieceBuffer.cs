namespace ZEngine.Models;

/// <summary>The text under preparation and its pieces, in buffers that are kept for the next text.</summary>
internal sealed class PieceBuffer
{
    private readonly List<(int Start, int End)> _matches = [];
    private readonly List<(int Start, int End, bool IsMatch)> _parts = [];
    private char[] _text = new char[256];
    private char[] _newText = new char[256];
    private List<Piece> _pieces = [];
    private List<Piece> _newPieces = [];
    private int _newLength;

    public List<Piece> Pieces => _pieces;

    public ReadOnlySpan<char> this[Piece piece] => _text.AsSpan(piece.Start, piece.End - piece.Start);

    /// <summary>Starts over with one piece.</summary>
    public void Set(ReadOnlySpan<char> text, bool isAtStart)
    {
        if (_text.Length < text.Length) _text = new char[text.Length * 2];
        text.CopyTo(_text);
        _pieces.Clear();
        if (!text.IsEmpty) _pieces.Add(new(0, text.Length, isAtStart));
    }

    /// <summary>Rewrites every piece: an optional prefix, then the piece through <paramref name="write"/>.</summary>
    /// <param name="prefix">What goes before a piece for which <paramref name="needsPrefix"/> holds.</param>
    /// <param name="needsPrefix">Receives the piece and its text.</param>
    /// <param name="write">Writes the new text of a piece into a span that is <paramref name="growth"/> times as long; returns the length.</param>
    /// <param name="growth">The most chars one char becomes.</param>
    public void Rewrite(char prefix, Func<Piece, ReadOnlySpan<char>, bool> needsPrefix, Writer write, int growth)
    {
        _newPieces.Clear();
        _newLength = 0;
        foreach (Piece piece in _pieces)
        {
            ReadOnlySpan<char> old = this[piece];
            int start = _newLength;
            int most = old.Length * growth + 1;
            if (_newText.Length - start < most) Array.Resize(ref _newText, Math.Max(_newText.Length * 2, start + most));
            if (needsPrefix(piece, old)) _newText[_newLength++] = prefix;
            _newLength += write(old, _newText.AsSpan(_newLength));
            _newPieces.Add(new(start, _newLength, piece.IsAtStart));
        }
        (_text, _newText) = (_newText, _text);
        (_pieces, _newPieces) = (_newPieces, _pieces);
    }

    public delegate int Writer(ReadOnlySpan<char> from, Span<char> to);

    /// <summary>Splits every piece; empty ones vanish.</summary>
    public void Split(SplitPattern pattern, SplitBehavior behavior, bool isInverted)
    {
        _newPieces.Clear();
        foreach (Piece piece in _pieces)
        {
            FindParts(pattern, this[piece], isInverted);
            switch (behavior)
            {
                case SplitBehavior.Isolated:
                case SplitBehavior.Removed:
                    foreach ((int start, int end, bool isMatch) in _parts)
                        if (behavior == SplitBehavior.Isolated || !isMatch) Emit(piece, start, end);
                    break;
                case SplitBehavior.Contiguous:
                    EmitRuns(piece, (before, now) => before == now);
                    break;
                case SplitBehavior.MergedWithPrevious:
                    EmitRuns(piece, (before, now) => now && !before);
                    break;
                case SplitBehavior.MergedWithNext:
                    EmitMergedWithNext(piece);
                    break;
                default: throw new InvalidOperationException($"Unknown split behavior {behavior}.");
            }
        }
        (_pieces, _newPieces) = (_newPieces, _pieces);
    }

    private void FindParts(SplitPattern pattern, ReadOnlySpan<char> text, bool isInverted)
    {
        _matches.Clear();
        _parts.Clear();
        pattern.FindAll(text, _matches);
        int done = 0;
        foreach ((int start, int end) in _matches)
        {
            if (done < start) _parts.Add((done, start, isInverted));
            _parts.Add((start, end, !isInverted));
            done = end;
        }
        if (done < text.Length) _parts.Add((done, text.Length, isInverted));
    }

    // Each part joins the piece before it when joins(kind of the part before, its own kind) holds.
    private void EmitRuns(Piece piece, Func<bool, bool, bool> joins)
    {
        int from = 0;
        for (int i = 1; i <= _parts.Count; i++)
        {
            if (i < _parts.Count && joins(_parts[i - 1].IsMatch, _parts[i].IsMatch)) continue;
            Emit(piece, _parts[from].Start, _parts[i - 1].End);
            from = i;
        }
    }

    // Seen from the end: a match joins what follows it, unless that is a match too.
    private void EmitMergedWithNext(Piece piece)
    {
        int from = 0;
        for (int i = 0; i < _parts.Count; i++)
        {
            bool joinsNext = _parts[i].IsMatch && i + 1 < _parts.Count && !_parts[i + 1].IsMatch;
            if (joinsNext) continue;
            Emit(piece, _parts[from].Start, _parts[i].End);
            from = i + 1;
        }
    }

    private void Emit(Piece piece, int start, int end)
    {
        if (start < end) _newPieces.Add(new(piece.Start + start, piece.Start + end, piece.IsAtStart && start == 0));
    }
}
