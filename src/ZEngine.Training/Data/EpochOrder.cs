namespace ZEngine.Training;

/// <summary>A shuffled order that differs from epoch to epoch.</summary>
internal sealed class EpochOrder(long count, ulong seed)
{
    private Permutation? _order;
    private long _epoch = -1;

    /// <summary>Which of the elements stands at a place.</summary>
    public long this[long place]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(place);
            (long epoch, long within) = Math.DivRem(place, count);
            if (epoch != _epoch) (_order, _epoch) = (new Permutation(count, seed, (ulong)epoch), epoch);
            return _order![within];
        }
    }
}
