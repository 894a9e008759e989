namespace ZEngine;

/// <summary>The record behind a <see cref="Tape"/>.</summary>
internal sealed class TapeState(TensorScope.Owned scope)
{
    [ThreadStatic] public static TapeState? Current;

    private readonly List<Node> _nodes = [];
    private readonly List<Slot> _slots = [];
    public bool IsClosed { get; private set; }

    /// <summary>Where tensors live that the backward pass needs.</summary>
    public TensorScope.Owned Scope { get; } = scope;

    public bool Tracks(Tensor tensor) => tensor.Parameter is { IsTrainable: true } || tensor.Tracking.Tape == this;

    public bool TracksAny(ReadOnlySpan<Tensor?> tensors)
    {
        foreach (Tensor? tensor in tensors)
            if (tensor is not null && Tracks(tensor)) return true;
        return false;
    }

    public void Watch(Tensor tensor)
    {
        if (tensor.Tracking.Tape != this) NewSlot(tensor);
        _slots[tensor.Tracking.Slot] = _slots[tensor.Tracking.Slot] with { IsWatched = true };
    }

    public void Add(ReadOnlySpan<Tensor> outputs, ReadOnlySpan<Tensor?> inputs, ReadOnlySpan<Tensor?> saved, Func<Tensor?[], Tensor?[]> backward, bool isOpaque = false)
    {
        var targets = new Target[inputs.Length];
        for (int i = 0; i < inputs.Length; i++) targets[i] = TargetOf(inputs[i]);
        foreach (Tensor? tensor in saved)
            if (tensor is { Parameter: null }) tensor.Keeper = this;
        int first = _slots.Count;
        foreach (Tensor output in outputs) NewSlot(output);
        _nodes.Add(new Node(first, outputs.Length, targets, backward, isOpaque));
    }

    public void Backward(ReadOnlySpan<Tensor> outputs, ReadOnlySpan<Tensor> gradients, Action<Parameter>? isFinal = null)
    {
        try
        {
            Run(outputs, gradients, isFinal);
        }
        catch
        {
            // A pass that broke off leaves nothing behind for the next one.
            for (int i = 0; i < _slots.Count; i++) _slots[i] = _slots[i] with { Gradient = null };
            throw;
        }
    }

    private void Run(ReadOnlySpan<Tensor> outputs, ReadOnlySpan<Tensor> gradients, Action<Parameter>? isFinal)
    {
        for (int i = 0; i < outputs.Length; i++)
        {
            if (!Tracks(outputs[i])) throw new ArgumentException($"Tape.Backward: {outputs[i]} was not recorded by this tape.");
            if (!gradients[i].Shape.SequenceEqual(outputs[i].Shape))
                throw new ArgumentException($"Tape.Backward: the gradient must have the output's shape {Tensor.ShapeText(outputs[i].Shape)}, got {gradients[i]}.");
            if (gradients[i].IsDisposed) throw new ObjectDisposedException(nameof(gradients), $"Tape.Backward: the gradient, {gradients[i]}, was disposed, by hand or with the scope that owned it.");
            if (!gradients[i].DType.IsFloat || gradients[i].Device != outputs[i].Device)
                throw new ArgumentException($"Tape.Backward: the gradient must be a floating-point type on the output's device, {outputs[i]}, got {gradients[i]}.");
            // Another handle, so that the caller's tensor counts as shared and is never added to in place.
            Accumulate(TargetOf(outputs[i]), gradients[i].Detach());
        }
        UseCounts? uses = isFinal is null ? null : new UseCounts(_nodes, isFinal);
        for (int i = _nodes.Count - 1; i >= 0; i--)
        {
            Node node = _nodes[i];
            RunNode(node);
            uses?.Passed(node);
        }
        for (int i = 0; i < _slots.Count; i++) Consume(i);     // what no node produced: the watched leaves
    }

    public Tensor? GradientOf(Tensor tensor) => tensor.Tracking.Tape == this ? _slots[tensor.Tracking.Slot].Total : null;

    /// <summary>From here on nothing is tracked or kept.</summary>
    public void Close()
    {
        IsClosed = true;
        _nodes.Clear();
        _slots.Clear();
    }

    private void RunNode(Node node)
    {
        bool isReached = false;
        var gradients = new Tensor?[node.Outputs];
        for (int i = 0; i < node.Outputs; i++)
        {
            gradients[i] = _slots[node.FirstOutput + i].Gradient;
            isReached |= gradients[i] is not null;
        }
        if (!isReached) return;

        using (TensorScope temporaries = TensorScope.Enter())
        {
            Tensor?[] results = node.Backward(gradients);
            if (IsClosed) throw new InvalidOperationException("Tape.Backward: the tape was disposed during its own backward pass.");
            if (results.Length != node.Inputs.Length)
                throw new InvalidOperationException($"Tape.Record: backward returned {results.Length} gradients for {node.Inputs.Length} inputs.");
            for (int i = 0; i < results.Length; i++)
            {
                if (results[i] is not { } result || !node.Inputs[i].IsTracked) continue;
                RequireGradientOf(node.Inputs[i], result, i);
                bool isRepeated = NeedsCopy(node, results, i);
                // A tensor that was not made here may be the op's own for good: another handle makes it count as shared.
                bool isOurs = temporaries.TryKeep(result);
                Accumulate(node.Inputs[i], isRepeated ? temporaries.Keep(result.Clone()) : isOurs ? result : temporaries.Keep(result.Detach()));
            }
        }
        for (int i = 0; i < node.Outputs; i++) Consume(node.FirstOutput + i);
    }

    /// <summary>Whether the gradient of input i is also that of one before it which adds to it: a parameter keeps what it gets, and one slot gets both. Others share it.</summary>
    private static bool NeedsCopy(Node node, Tensor?[] results, int i)
    {
        Target own = node.Inputs[i];
        for (int other = 0; other < i; other++)
            if (ReferenceEquals(results[other], results[i]) && (own.Parameter is not null || node.Inputs[other].Parameter is not null || node.Inputs[other] == own)) return true;
        return false;
    }

    private void RequireGradientOf(Target target, Tensor gradient, int input)
    {
        Tensor of = target.Parameter?.Value ?? _slots[target.Slot].Of;
        if (!gradient.DType.IsFloat || !gradient.Shape.SequenceEqual(of.Shape))
            throw new InvalidOperationException($"Tape.Record: backward returned {gradient} as the gradient of input {input}, {of}.");
    }

    private void Accumulate(Target target, Tensor gradient)
    {
        if (target.Parameter is { } parameter)
        {
            parameter.Accumulate(gradient);
            return;
        }
        Slot slot = _slots[target.Slot];
        _slots[target.Slot] = slot with { Gradient = Sum(slot.Gradient, gradient) };
    }

    /// <summary>A slot's gradient has been used: a watched one is added to its total, another is given back.</summary>
    private void Consume(int index)
    {
        Slot slot = _slots[index];
        if (slot.Gradient is not { } gradient) return;
        if (slot is { IsWatched: true, Total: null })
        {
            Scope.Tensors.Add(TensorScope.Release(gradient));  // as long as the tape, whatever scope is open now
            _slots[index] = slot with { Gradient = null, Total = gradient };
            return;
        }
        _slots[index] = slot with { Gradient = null, Total = slot.Total is { } total ? Sum(total, gradient) : null };
        if (--gradient.GradientUses == 0 && !IsNeeded(gradient)) gradient.Dispose();
    }

    /// <summary>Whether somebody other than a gradient slot reads the tensor: then it must neither change nor go.</summary>
    private static bool IsNeeded(Tensor tensor) => tensor.Keeper is { IsClosed: false } || tensor.Parameter is not null;

    /// <summary>Adds in place where nobody else can see the sum, and claims the result for one slot.</summary>
    private Tensor Sum(Tensor? sum, Tensor gradient)
    {
        if (sum is null)
        {
            gradient.GradientUses++;
            return gradient;
        }
        if (ReferenceEquals(sum, gradient) || sum.GradientUses > 1 || sum.Storage.IsShared || !sum.IsContiguous || IsNeeded(sum))
        {
            Tensor copy = TensorScope.Release(sum.Clone());
            Scope.Tensors.Add(copy);                           // it must outlive the node that is being run
            sum.GradientUses--;
            copy.GradientUses++;
            sum = copy;
        }
        sum.Backend.Accumulate(gradient, sum);
        return sum;
    }

    private Target TargetOf(Tensor? tensor)
    {
        if (tensor?.Parameter is { IsTrainable: true } parameter) return new Target(parameter, -1);
        return tensor?.Tracking.Tape == this ? new Target(null, tensor.Tracking.Slot) : new Target(null, -1);
    }

    private void NewSlot(Tensor tensor)
    {
        tensor.Tracking = (this, _slots.Count);
        _slots.Add(new Slot(tensor, null, null, false));
    }

    /// <summary>An op; one that is opaque may use any parameter.</summary>
    private sealed record Node(int FirstOutput, int Outputs, Target[] Inputs, Func<Tensor?[], Tensor?[]> Backward, bool IsOpaque);

    /// <summary>Counts down how often parameters are still to be met.</summary>
    private sealed class UseCounts
    {
        private readonly Action<Parameter> _isFinal;
        private readonly Dictionary<Parameter, int> _uses = [];
        private readonly List<Parameter> _ready = [];
        private int _opaque;

        public UseCounts(List<Node> nodes, Action<Parameter> isFinal)
        {
            _isFinal = isFinal;
            foreach (Node node in nodes)
            {
                if (node.IsOpaque) _opaque++;
                foreach (Target target in node.Inputs)
                    if (target.Parameter is { } parameter) _uses[parameter] = _uses.GetValueOrDefault(parameter) + 1;
            }
        }

        public void Passed(Node node)
        {
            if (node.IsOpaque) _opaque--;
            foreach (Target target in node.Inputs)
                if (target.Parameter is { } parameter && --_uses[parameter] == 0) _ready.Add(parameter);
            if (_opaque > 0) return;
            foreach (Parameter parameter in _ready) _isFinal(parameter);
            _ready.Clear();
        }
    }

    /// <summary>Where the gradient of an input goes: to a parameter, to a slot, or nowhere.</summary>
    private readonly record struct Target(Parameter? Parameter, int Slot)
    {
        public bool IsTracked => Parameter is not null || Slot >= 0;
    }

    private readonly record struct Slot(Tensor Of, Tensor? Gradient, Tensor? Total, bool IsWatched);
}
