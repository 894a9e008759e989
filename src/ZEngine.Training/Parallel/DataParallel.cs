namespace ZEngine.Training;

/// <summary>Makes one gradient of those of all micro-batches and all ranks, and one step of an optimizer of it.</summary>
/// <remarks>
/// Gradients are summed over micro-batches and then over ranks in one tree (<see cref="GradientTree"/>), in buckets that are exchanged
/// while the backward pass of the last micro-batch goes on. With a sharded optimizer (ZeRO-1) a rank gets the sum of its part alone, updates that
/// and gives the new values to the others: Rajbhandari et al. 2020, arXiv:1910.02054. Norms are summed segment by segment in the parameters'
/// order: the same bits with and without sharding, and for any number of ranks. Which ranks sum a parameter's gradient is the layout's table to say.
/// </remarks>
internal sealed class DataParallel : IDisposable
{
    /// <summary>Elements of the pieces in which parameters are dealt out to ranks.</summary>
    private readonly long _segment;

    private readonly Parameter[] _parameters;                  // trainable, in the model's order
    private readonly Communicator _world;
    private readonly bool _isSharded;
    private readonly GradientTree _tree;
    private readonly GradientBucket[] _buckets;
    private readonly Dictionary<Parameter, (int Bucket, int Index)> _places = [];
    private bool[] _hasGradient = [];
    private int _begun;

    /// <param name="parameters">Trainable or not.</param>
    /// <param name="world">All ranks.</param>
    /// <param name="layout">How they share the work.</param>
    /// <param name="isSharded">Whether they part the optimizer's state.</param>
    /// <param name="bucketBytes">Of gradients that are exchanged at once.</param>
    /// <param name="segment">Elements of the pieces in which parameters are dealt out.</param>
    public DataParallel(IReadOnlyList<Parameter> parameters, Communicator world, Layout layout, bool isSharded, long bucketBytes, long segment)
    {
        layout.RequireFit(world.Size);
        if (layout.Size != layout.Data || layout.Expert != 1) throw new NotSupportedException($"Trainer: ranks share the batch only so far; the layout is {layout}.");
        (_parameters, _world, _isSharded, _segment) = ([.. parameters.Where(parameter => parameter.IsTrainable)], world, isSharded && world.Size > 1, segment);
        _tree = new GradientTree(_parameters);
        _buckets = world.Size == 1 ? [] : Cut(bucketBytes, layout.JoinGradientGroups(world));
        for (int bucket = 0; bucket < _buckets.Length; bucket++)
            for (int i = 0; i < _buckets[bucket].Parameters.Count; i++) _places.Add(_buckets[bucket].Parameters[i], (bucket, i));
    }

    /// <summary>What this rank's optimizer keeps the state of; null for all of every parameter.</summary>
    public IReadOnlyList<ParameterRange>? Ranges => _isSharded ? [.. _buckets.SelectMany(bucket => bucket.Ranges[_world.Rank])] : null;

    /// <summary>The backward pass of one micro-batch.</summary>
    public void Backward(Tape tape, Tensor loss, Tensor gradient, bool isLast)
    {
        if (!isLast || _buckets.Length == 0) tape.Backward(loss, gradient);
        else tape.Backward(loss, gradient, OnFinal);
        if (!isLast) _tree.Push();
    }

    /// <summary>A micro-batch in which nothing counts.</summary>
    public void SkipBackward(bool isLast)
    {
        if (!isLast) _tree.Push();
    }

    /// <summary>Ends the exchange; the gradients of the step are there then, on every rank.</summary>
    public void Finish()
    {
        if (_buckets.Length == 0)
        {
            foreach (Parameter parameter in _parameters) _tree.Complete(parameter);
            return;
        }
        foreach (Parameter parameter in _parameters)
            if (!_buckets[_places[parameter].Bucket].IsFilled(_places[parameter].Index)) OnFinal(parameter);
        ShareWhoHasGradient();
        foreach (GradientBucket bucket in _buckets) bucket.Wait();
        if (_isSharded) return;
        for (int i = 0; i < _parameters.Length; i++)
        {
            (int bucket, int index) = _places[_parameters[i]];
            if (_hasGradient[i]) _parameters[i].SetGradient(_buckets[bucket].GradientOf(index));
        }
    }

    /// <summary>The norm of all gradients, the same on every rank.</summary>
    public Tensor Norm()
    {
        Device device = _parameters[0].Value.Device;
        // One pass over all on a device where every norm is a launch; its order is fixed too, but knows no segments.
        if (device != Device.Cpu && !_isSharded) return Gradients.Norm(_parameters);
        var norms = new Dictionary<(Parameter, long), float>();
        if (_buckets.Length == 0)
        {
            foreach (Parameter parameter in _parameters)
                if (parameter.Gradient is { } gradient) AddNorms(norms, gradient, new ParameterRange(parameter, 0, parameter.Count));
        }
        else GatherNorms(norms);
        double squares = 0;
        bool hasAny = false;
        foreach (Parameter parameter in _parameters)
            for (long start = 0; start < parameter.Count; start += _segment)
            {
                if (!norms.TryGetValue((parameter, start), out float norm)) continue;
                squares += (double)norm * norm;
                hasAny = true;
            }
        if (!hasAny) throw new InvalidOperationException("Trainer: no gradient reached any parameter.");
        return Tensor.Scalar((float)Math.Sqrt(squares), device);
    }

    /// <summary>The optimizer's step, on every rank or dealt out among them.</summary>
    public void Step(AdamW optimizer, float learningRate, Tensor norm, float clip)
    {
        if (!_isSharded)
        {
            optimizer.Step(learningRate, norm, clip);
            return;
        }
        foreach (GradientBucket bucket in _buckets)
            foreach (ParameterRange range in bucket.Ranges[_world.Rank])
                if (_hasGradient[Array.IndexOf(_parameters, range.Parameter)]) optimizer.SetGradient(range, bucket.GradientOf(range));
        optimizer.Step(learningRate, norm, clip);
        foreach (GradientBucket bucket in _buckets) bucket.GatherValues();
    }

    /// <summary>Forgets the step's gradients, whether it was completed or not.</summary>
    public void Clear()
    {
        _tree.Clear();
        foreach (Parameter parameter in _parameters) parameter.ClearGradient();
        foreach (GradientBucket bucket in _buckets) bucket.Reset();
        _begun = 0;
    }

    public void Dispose()
    {
        _tree.Dispose();
        foreach (GradientBucket bucket in _buckets) bucket.Dispose();
    }

    /// <summary>Buckets in the order in which a backward pass fills them: the last parameters first, each with one type of values and one group of ranks.</summary>
    private GradientBucket[] Cut(long bucketBytes, IReadOnlyDictionary<GradientClass, Communicator> groups)
    {
        var buckets = new List<(int First, List<Parameter> Parameters)>();
        foreach (var kind in _parameters.Index().GroupBy(item => (item.Item.Value.DType, groups[item.Item.GradientClass])))
        {
            var open = (First: -1, Parameters: new List<Parameter>());
            long bytes = 0;
            foreach ((int index, Parameter parameter) in kind.Reverse())
            {
                if (open.Parameters.Count > 0 && bytes + sizeof(float) * parameter.Count > bucketBytes)
                {
                    buckets.Add(open);
                    (open, bytes) = ((-1, []), 0);
                }
                open.Parameters.Add(parameter);
                open.First = index;
                bytes += sizeof(float) * parameter.Count;
            }
            buckets.Add(open);
        }
        return [.. buckets.OrderByDescending(bucket => bucket.First).Select(bucket => new GradientBucket(bucket.Parameters, _segment, groups[bucket.Parameters[0].GradientClass]))];
    }

    /// <summary>Buckets are exchanged in one order on all ranks, whenever they fill up.</summary>
    private void OnFinal(Parameter parameter)
    {
        if (!_places.TryGetValue(parameter, out (int Bucket, int Index) place)) return;
        _tree.Complete(parameter);
        if (_hasGradient.Length == 0) _hasGradient = new bool[_parameters.Length];
        _hasGradient[Array.IndexOf(_parameters, parameter)] = parameter.Gradient is not null;
        _buckets[place.Bucket].Fill(place.Index);
        for (; _begun < _buckets.Length && _buckets[_begun].IsFull; _begun++) _buckets[_begun].Begin(_isSharded);
    }

    /// <summary>A parameter has a gradient where it has one on some rank: elsewhere zeros were given.</summary>
    private void ShareWhoHasGradient()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor has = Tensor.From<byte>([.. _hasGradient.Select(own => (byte)(own ? 1 : 0))], [_hasGradient.Length], Device.Cpu);
        _world.AllReduce(has, ReduceOperation.Max);
        _hasGradient = [.. has.ToArray<byte>().Select(any => any != 0)];
    }

    private void GatherNorms(Dictionary<(Parameter, long), float> norms)
    {
        // Every rank works out its part: of a gradient that all have, or of the one that it alone has.
        var own = new Dictionary<(Parameter, long), float>();
        foreach (GradientBucket bucket in _buckets)
            foreach (ParameterRange range in bucket.Ranges[_world.Rank])
            {
                using Tensor gradient = bucket.GradientOf(range);
                AddNorms(own, gradient, range);
            }
        (Parameter Parameter, long Start)[][] owned =
        [
            .. Enumerable.Range(0, _world.Size).Select(rank =>
                (from bucket in _buckets from range in bucket.Ranges[rank] from start in Starts(range) select (range.Parameter, start)).ToArray()),
        ];
        using TensorScope scope = TensorScope.Enter();
        Tensor all = Tensor.Empty([owned.Sum(part => (long)part.Length)], DType.Float32, Device.Cpu);
        _world.AllGather(Tensor.From<float>([.. owned[_world.Rank].Select(place => own[place])], [owned[_world.Rank].Length], Device.Cpu), all, [.. owned.Select(part => (long)part.Length)]);
        foreach (((Parameter, long) place, float norm) in owned.SelectMany(part => part).Zip(all.ToArray<float>())) norms.Add(place, norm);
        for (int i = 0; i < _parameters.Length; i++)
            if (!_hasGradient[i])
                foreach (long start in Starts(new ParameterRange(_parameters[i], 0, _parameters[i].Count))) norms.Remove((_parameters[i], start));
    }

    private IEnumerable<long> Starts(ParameterRange range)
    {
        for (long start = range.Start; start < range.Start + range.Count; start += _segment) yield return start;
    }

    /// <param name="gradient">Of the range.</param>
    private void AddNorms(Dictionary<(Parameter, long), float> norms, Tensor gradient, ParameterRange range)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor flat = gradient.Reshape(-1);
        foreach (long start in Starts(range))
        {
            long count = Math.Min(_segment, range.Start + range.Count - start);
            norms.Add((range.Parameter, start), Ops.Norm([flat.Slice(0, start - range.Start, count)]).Item());
        }
    }
}
