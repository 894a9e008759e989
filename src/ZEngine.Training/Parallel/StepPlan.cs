namespace ZEngine.Training;

/// <summary>Which sequences of a step a rank trains on. The step has Accumulation micro-batches of Batch sequences, whatever the number of ranks.</summary>
/// <remarks>
/// Where the ranks divide the micro-batches, each takes as many neighbours; otherwise each takes an equal part of every micro-batch.
/// In the first case, and with a power of two of micro-batches a rank, gradients are summed in one tree for any number of ranks: the bits are the same.
/// </remarks>
/// <param name="Rows">Sequences of a micro-batch on a rank.</param>
/// <param name="MicroBatches">Micro-batches on a rank.</param>
/// <param name="IsSplitByRows">Whether ranks share every micro-batch.</param>
internal readonly record struct StepPlan(int Rank, int Ranks, int Batch, int Accumulation, int Rows, int MicroBatches, bool IsSplitByRows)
{
    /// <summary>Sequences of a step.</summary>
    public long Sequences => (long)Batch * Accumulation;

    /// <summary>Whether the bits are those of one rank.</summary>
    public bool HasBitsOfOneRank => Ranks == 1 || !IsSplitByRows && (MicroBatches & (MicroBatches - 1)) == 0;

    /// <exception cref="ArgumentException">The ranks cannot share a step evenly.</exception>
    public static StepPlan Create(int rank, int ranks, int batch, int accumulation)
    {
        if (accumulation % ranks == 0) return new StepPlan(rank, ranks, batch, accumulation, batch, accumulation / ranks, false);
        if (batch % ranks == 0) return new StepPlan(rank, ranks, batch, accumulation, batch / ranks, accumulation, true);
        throw new ArgumentException($"Trainer: {ranks} ranks cannot share a step of {accumulation} micro-batches of {batch} sequences evenly; make the number of micro-batches (accumulation) or of sequences (batch) a multiple of {ranks}.");
    }

    /// <summary>The place of the first sequence of this rank's micro-batch <paramref name="i"/>, in a step that begins at <paramref name="position"/>.</summary>
    public long PlaceOf(long position, int i) => checked(position + (IsSplitByRows ? (long)i * Batch + (long)Rank * Rows : ((long)Rank * MicroBatches + i) * Batch));

    /// <summary>Values of all micro-batches of the step in the order of their sequences, from <c>[i][rank]</c>.</summary>
    public IEnumerable<T> InOrder<T>(T[][] values)
    {
        if (IsSplitByRows)
        {
            foreach (T[] ranks in values)
                foreach (T value in ranks) yield return value;
            yield break;
        }
        for (int rank = 0; rank < Ranks; rank++)
            foreach (T[] ranks in values) yield return ranks[rank];
    }
}
