namespace ZEngine.Training;

/// <summary>Two sources in a fixed proportion, such as new data and a replay of old data.</summary>
/// <remarks>
/// Of every (first share + second share) sequences in a row exactly so many come from each, evenly spread. Place g has a sequence of the
/// second source where ⌊(g + 1)·s₂ / (s₁ + s₂)⌋ exceeds ⌊g·s₂ / (s₁ + s₂)⌋; each source keeps its own order.
/// </remarks>
public sealed class MixedSequences : SequenceSource
{
    private readonly SequenceSource _first, _second;
    private readonly int _firstShare, _secondShare;

    /// <summary>Mixes two sources of equal length.</summary>
    /// <param name="first">Such as the new data.</param>
    /// <param name="firstShare">Its share, such as 40.</param>
    /// <param name="second">Such as the data of the first training phase.</param>
    /// <param name="secondShare">Its share, such as 60.</param>
    /// <exception cref="ArgumentException">The sources' sequences differ in length.</exception>
    public MixedSequences(SequenceSource first, int firstShare, SequenceSource second, int secondShare)
    {
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        ArgumentOutOfRangeException.ThrowIfLessThan(firstShare, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(secondShare, 1);
        if (first.Length != second.Length) throw new ArgumentException($"MixedSequences: the first source has sequences of {first.Length} tokens, the second of {second.Length}.", nameof(second));
        (_first, _firstShare, _second, _secondShare) = (first, firstShare, second, secondShare);
    }

    /// <inheritdoc/>
    public override int Length => _first.Length;

    /// <summary>Sequences until every one of both sources has come at least once.</summary>
    public override long EpochLength
    {
        get
        {
            // The first source is through after its last sequence, the second likewise; the later of the two counts.
            Int128 total = (Int128)_firstShare + _secondShare;
            Int128 first = (_first.EpochLength * total + _firstShare - 1) / _firstShare, second = (_second.EpochLength * total + _secondShare - 1) / _secondShare;
            return checked((long)Int128.Max(first, second));
        }
    }

    /// <inheritdoc/>
    public override int Vocabulary => Math.Max(_first.Vocabulary, _second.Vocabulary);

    /// <inheritdoc/>
    public override string Fingerprint => $"mix({_firstShare}*{_first.Fingerprint},{_secondShare}*{_second.Fingerprint})";

    /// <summary>Whether the sequence at a place is one of the second source, and which.</summary>
    public (bool IsSecond, long Place) At(long place)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(place);
        long before = SecondBefore(place);
        return SecondBefore(place + 1) > before ? (true, before) : (false, place - before);
    }

    /// <inheritdoc/>
    public override void Read(long place, Span<int> tokens, Span<int> targets)
    {
        (bool isSecond, long own) = At(place);
        (isSecond ? _second : _first).Read(own, tokens, targets);
    }

    private long SecondBefore(long place) => (long)((Int128)place * _secondShare / ((Int128)_firstShare + _secondShare));
}
