namespace ZEngine.Training;

/// <summary>An endless order of training sequences: the sequence at a place depends on the place alone.</summary>
public abstract class SequenceSource
{
    /// <summary>Tokens of a sequence.</summary>
    public abstract int Length { get; }

    /// <summary>Sequences until every one has come once.</summary>
    public abstract long EpochLength { get; }

    /// <summary>All tokens are below this number.</summary>
    public abstract int Vocabulary { get; }

    /// <summary>A name for contents and order; a run goes on only over the data it began with.</summary>
    public abstract string Fingerprint { get; }

    /// <summary>Reads the sequence at a place.</summary>
    /// <param name="place">From 0 up.</param>
    /// <param name="tokens">Receives <see cref="Length"/> inputs.</param>
    /// <param name="targets">Receives the token that follows each input; -100 where it does not count.</param>
    public abstract void Read(long place, Span<int> tokens, Span<int> targets);
}
