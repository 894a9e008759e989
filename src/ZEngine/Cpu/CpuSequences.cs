namespace ZEngine;

/// <summary>The sequences of a batch, packed or not, as ranges of time steps in a row of the batch.</summary>
internal readonly struct CpuSequences(long batch, long length, SequenceLayout? layout)
{
    public long Count => layout?.Count ?? batch;

    public long LongestLength
    {
        get
        {
            if (layout is null) return length;
            long longest = 0;
            for (int i = 0; i < layout.Count; i++) longest = Math.Max(longest, layout.End(i) - layout.Start(i));
            return longest;
        }
    }

    /// <summary>The row of the batch that holds sequence <paramref name="index"/>, and its time steps there.</summary>
    public (long Row, long Begin, long End) this[long index] => layout is null ? (index, 0, length) : (0, layout.Start((int)index), layout.End((int)index));
}
