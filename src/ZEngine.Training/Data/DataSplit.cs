namespace ZEngine.Training;

/// <summary>Cuts a token source into blocks and holds one of every few out; which one depends on the seed and the place alone.</summary>
/// <param name="HeldOutEvery">Of so many blocks in a row one is held out; 20 holds 5 % out.</param>
/// <param name="BlockTokens">Tokens of a block.</param>
/// <param name="Seed">Chooses the blocks.</param>
/// <remarks>A window of tokens never crosses a border between the parts, so that nothing that is held out is ever trained on.</remarks>
public sealed record DataSplit(int HeldOutEvery = 20, int BlockTokens = 8192, ulong Seed = 0)
{
    /// <summary>The longest runs of tokens that belong to one part, in order.</summary>
    /// <exception cref="ArgumentException">A parameter is out of range.</exception>
    public IEnumerable<(long Start, long Length)> Runs(DataPart part, long count)
    {
        if (HeldOutEvery < 2 || BlockTokens < 2) throw new ArgumentException($"DataSplit: needs HeldOutEvery and BlockTokens of at least 2, got {this}.");
        if (part == DataPart.All) return [(0, count)];
        return part == DataPart.HeldOut ? HeldOut(count) : Train(count);
    }

    private IEnumerable<(long Start, long Length)> HeldOut(long count)
    {
        var random = new RandomStream(Seed, RandomStream.Of("ZEngine.Training.DataSplit"));
        long blocks = (count + BlockTokens - 1) / BlockTokens;
        for (long group = 0; group * HeldOutEvery < blocks; group++)
        {
            // A source of less than one group has its held-out block all the same.
            long block = group * HeldOutEvery + random.Below(group, group == 0 ? Math.Min(blocks, HeldOutEvery) : HeldOutEvery);
            if (block < blocks) yield return (block * BlockTokens, Math.Min(BlockTokens, count - block * BlockTokens));
        }
    }

    private IEnumerable<(long Start, long Length)> Train(long count)
    {
        long start = 0;
        foreach ((long heldOut, long length) in HeldOut(count))
        {
            if (heldOut > start) yield return (start, heldOut - start);
            start = heldOut + length;
        }
        if (start < count) yield return (start, count - start);
    }
}
