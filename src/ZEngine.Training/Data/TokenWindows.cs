namespace ZEngine.Training;

/// <summary>Windows of equal length over one part of a token source, in an order that depends on the seed and the epoch alone.</summary>
/// <remarks>
/// A window has <see cref="Length"/> inputs and as many targets, one token later: neighbours share one token. Windows stand side by
/// side within a run of the part and never leave it; what is left at a run's end, less than a window, is not used.
/// </remarks>
public sealed class TokenWindows : SequenceSource
{
    private readonly TokenSource _source;
    private readonly (long Start, long Length)[] _runs;
    private readonly long[] _firstWindows;                     // number of the first window of each run
    private readonly int[] _window;
    private readonly EpochOrder _order;

    /// <summary>Windows over a source that somebody else owns.</summary>
    /// <param name="source">The tokens.</param>
    /// <param name="length">Inputs of a window.</param>
    /// <param name="seed">Chooses the order.</param>
    /// <param name="part">Which part of the source.</param>
    /// <param name="split">How the source is parted; null for the default of <see cref="DataSplit"/>.</param>
    /// <exception cref="ArgumentException">The part has no window of this length.</exception>
    public TokenWindows(TokenSource source, int length, ulong seed, DataPart part = DataPart.All, DataSplit? split = null)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentOutOfRangeException.ThrowIfLessThan(length, 1);
        split ??= new DataSplit();
        (_source, Length, Seed, Part) = (source, length, seed, part);
        _runs = [.. split.Runs(part, source.Count).Where(run => run.Length > length)];
        _firstWindows = new long[_runs.Length];
        for (int run = 0; run < _runs.Length; run++)
        {
            _firstWindows[run] = EpochLength;
            EpochLength += (_runs[run].Length - 1) / length;
        }
        if (EpochLength == 0)
            throw new ArgumentException($"TokenWindows: the part {part} of {source.Count} tokens has no window of {length} + 1 tokens (blocks of {split.BlockTokens}, one of {split.HeldOutEvery} held out); give more text, shorter windows or other blocks.", nameof(length));
        _window = new int[length + 1];
        _order = new EpochOrder(EpochLength, seed);
        Fingerprint = $"windows({source.Fingerprint},length={length},seed={seed},part={part}{(part == DataPart.All ? "" : $",every={split.HeldOutEvery},block={split.BlockTokens},split={split.Seed}")})";
    }

    /// <inheritdoc/>
    public override int Length { get; }

    /// <summary>Chooses the order.</summary>
    public ulong Seed { get; }

    /// <summary>Which part of the source is read.</summary>
    public DataPart Part { get; }

    /// <inheritdoc/>
    public override long EpochLength { get; }

    /// <inheritdoc/>
    public override int Vocabulary => _source.Vocabulary;

    /// <inheritdoc/>
    public override string Fingerprint { get; }

    /// <summary>Where in the source the window at a place begins.</summary>
    public long StartOf(long place)
    {
        long window = _order[place];
        int run = Array.BinarySearch(_firstWindows, window);
        if (run < 0) run = ~run - 1;
        return _runs[run].Start + (window - _firstWindows[run]) * Length;
    }

    /// <inheritdoc/>
    public override void Read(long place, Span<int> tokens, Span<int> targets)
    {
        _source.Read(StartOf(place), _window);
        _window.AsSpan(0, Length).CopyTo(tokens);
        _window.AsSpan(1).CopyTo(targets);
    }

    /// <summary>The entropy, in nats a token, of how often each token occurs in the part: no model that ignores context has a lower loss on it.</summary>
    public double UnigramEntropy()
    {
        var counts = new long[Vocabulary];
        long total = 0;
        var piece = new int[1 << 16];
        foreach ((long start, long length) in _runs)
        {
            for (long at = 0; at < length; at += piece.Length)
            {
                Span<int> tokens = piece.AsSpan(0, (int)Math.Min(piece.Length, length - at));
                _source.Read(start + at, tokens);
                foreach (int token in tokens) counts[token]++;
                total += tokens.Length;
            }
        }
        double entropy = 0;
        foreach (long count in counts)
            if (count > 0) entropy -= (double)count / total * Math.Log((double)count / total);
        return entropy;
    }
}
