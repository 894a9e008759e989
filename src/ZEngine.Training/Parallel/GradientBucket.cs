namespace ZEngine.Training;

/// <summary>Gradients of neighbouring parameters in one buffer, so that ranks exchange few large messages.</summary>
internal sealed class GradientBucket : IDisposable
{
    private readonly Communicator _group;
    private readonly long[] _offsets;
    private readonly Tensor _buffer;
    private readonly bool[] _isFilled;
    private int _missing;
    private CollectiveWork? _work;
    private Tensor? _part;                                     // this rank's, while it is being summed

    /// <param name="parameters">One type of values, one device.</param>
    /// <param name="segment">Elements of the pieces in which a parameter is dealt out.</param>
    /// <param name="group">The ranks that sum these gradients.</param>
    public GradientBucket(IReadOnlyList<Parameter> parameters, long segment, Communicator group)
    {
        (Parameters, _group) = (parameters, group);
        _offsets = new long[parameters.Count];
        _isFilled = new bool[parameters.Count];
        for (int i = 0; i < _offsets.Length; Count += parameters[i++].Count) _offsets[i] = Count;
        Tensor first = parameters[0].Value;
        _buffer = TensorScope.Release(Tensor.Empty([Count], DType.Float32, first.Device));
        Ranges = Deal(segment, group.Size, out long[] counts);
        Counts = counts;
        Reset();
    }

    public IReadOnlyList<Parameter> Parameters { get; }

    /// <summary>Elements of all parameters.</summary>
    public long Count { get; }

    /// <summary>Elements of each rank's part; parts follow each other.</summary>
    public IReadOnlyList<long> Counts { get; }

    /// <summary>What of the parameters each rank has, in the order of the buffer.</summary>
    public IReadOnlyList<IReadOnlyList<ParameterRange>> Ranges { get; }

    /// <summary>Whether all gradients are in.</summary>
    public bool IsFull => _missing == 0;

    /// <summary>Puts a parameter's gradient, or zeros where it has none, into the buffer; the parameter has none then.</summary>
    public void Fill(int index)
    {
        if (_isFilled[index]) throw new InvalidOperationException($"GradientBucket: the gradient of {Parameters[index]} was final before.");
        (_isFilled[index], _missing) = (true, _missing - 1);
        using TensorScope scope = TensorScope.Enter();
        Tensor place = _buffer.Slice(0, _offsets[index], Parameters[index].Count);
        using Tensor? gradient = Parameters[index].TakeGradient();
        if (gradient is null) place.Clear();
        else Ops.Copy(gradient.Reshape(-1), place);
    }

    public bool IsFilled(int index) => _isFilled[index];

    /// <summary>Begins to sum over the ranks: all of it, or this rank's part alone.</summary>
    public void Begin(bool isSharded)
    {
        if (isSharded) _part = TensorScope.Release(_buffer.Slice(0, Counts.Take(_group.Rank).Sum(), Counts[_group.Rank]));
        _work = _part is null ? _group.BeginAllReduce(_buffer) : _group.BeginReduceScatter(_buffer, _part, Counts);
    }

    public void Wait()
    {
        CollectiveWork work = _work!;
        _work = null;
        work.Wait();
        _part?.Dispose();
        _part = null;
    }

    /// <summary>The parameter's gradient in the buffer, in its shape; the caller's.</summary>
    public Tensor GradientOf(int index)
    {
        using TensorScope scope = TensorScope.Enter();
        return TensorScope.Release(scope.Keep(_buffer.Slice(0, _offsets[index], Parameters[index].Count).Detach().Reshape(Parameters[index].Shape)));
    }

    /// <summary>The gradients of a range, [Count]; the caller's.</summary>
    public Tensor GradientOf(ParameterRange range)
    {
        using TensorScope scope = TensorScope.Enter();
        for (int i = 0; i < Parameters.Count; i++)
            if (Parameters[i] == range.Parameter) return TensorScope.Release(scope.Keep(_buffer.Slice(0, _offsets[i] + range.Start, range.Count)));
        throw new ArgumentException($"GradientBucket: {range.Parameter} is not in it.", nameof(range));
    }

    /// <summary>Brings every rank's part of the parameters' values to all ranks.</summary>
    public void GatherValues()
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor all = Tensor.Empty([Count], Parameters[0].Value.DType, _buffer.Device);
        long start = Counts.Take(_group.Rank).Sum();
        Tensor own = all.Slice(0, start, Counts[_group.Rank]);
        long at = 0;
        foreach (ParameterRange range in Ranges[_group.Rank])
        {
            Ops.Copy(range.Value, own.Slice(0, at, range.Count));
            at += range.Count;
        }
        _group.AllGather(own, all, Counts);
        for (int i = 0; i < Parameters.Count; i++) Ops.Copy(all.Slice(0, _offsets[i], Parameters[i].Count), Parameters[i].Value.Reshape(-1));
    }

    /// <summary>Empties it for the next step.</summary>
    public void Reset()
    {
        if (_work is not null) Wait();
        Array.Clear(_isFilled);
        _missing = _isFilled.Length;
    }

    /// <summary>Waits for what runs, whatever comes of it, and gives the memory back.</summary>
    public void Dispose()
    {
        try
        {
            if (_work is not null) Wait();
        }
        catch (CommunicatorException)
        {
            // The step that failed says so; here it only matters that nobody writes into the buffer any more.
        }
        _part?.Dispose();
        _buffer.Dispose();
    }

    /// <summary>Deals segments out in order, so that the ranks have about the same; a segment never crosses ranks, so that its norm does not depend on their number.</summary>
    private ParameterRange[][] Deal(long segment, int ranks, out long[] counts)
    {
        counts = new long[ranks];
        List<ParameterRange>[] parts = [.. Enumerable.Range(0, ranks).Select(_ => new List<ParameterRange>())];
        for (int i = 0; i < Parameters.Count; i++)
            for (long start = 0; start < Parameters[i].Count; start += segment)
            {
                long count = Math.Min(segment, Parameters[i].Count - start);
                int rank = (int)((Int128)(2 * (_offsets[i] + start) + count) * ranks / (2 * (Int128)Count));
                counts[rank] += count;
                if (parts[rank] is [.., var last] && last.Parameter == Parameters[i]) parts[rank][^1] = last with { Count = last.Count + count };
                else parts[rank].Add(new ParameterRange(Parameters[i], start, count));
            }
        return [.. parts.Select(part => part.ToArray())];
    }
}
