namespace ZEngine.Training;

/// <summary>Sums the gradients of micro-batches pairwise, in the tree in which ranks sum theirs: parted at the largest power of two below the number.</summary>
/// <remarks>Keeps one gradient of a parameter for every binary digit of the number of micro-batches.</remarks>
internal sealed class GradientTree(IReadOnlyList<Parameter> parameters) : IDisposable
{
    private readonly Dictionary<Parameter, List<Tensor?>> _levels = parameters.ToDictionary(parameter => parameter, _ => new List<Tensor?>());
    private int _count;

    /// <summary>Takes in the gradients of a micro-batch that is not the last; the parameters have none then.</summary>
    public void Push()
    {
        foreach ((Parameter parameter, List<Tensor?> levels) in _levels)
        {
            int level = 0;
            for (; (_count >> level & 1) != 0; level++)
            {
                Add(parameter, levels[level]);
                levels[level] = null;
            }
            while (levels.Count <= level) levels.Add(null);
            levels[level] = parameter.TakeGradient();
        }
        _count++;
    }

    /// <summary>Adds all that was taken in to the parameter's gradient, which is that of the last micro-batch; null counts as zero.</summary>
    public void Complete(Parameter parameter)
    {
        List<Tensor?> levels = _levels[parameter];
        for (int level = 0; level < levels.Count; level++)
        {
            Add(parameter, levels[level]);
            levels[level] = null;
        }
    }

    /// <summary>Forgets everything; the next step begins.</summary>
    public void Clear()
    {
        foreach (List<Tensor?> levels in _levels.Values)
        {
            foreach (Tensor? tensor in levels) tensor?.Dispose();
            levels.Clear();
        }
        _count = 0;
    }

    public void Dispose() => Clear();

    private static void Add(Parameter parameter, Tensor? left)
    {
        if (left is null) return;
        Tensor? right = parameter.TakeGradient();
        parameter.SetGradient(left);
        if (right is null) return;
        parameter.Accumulate(right);
        right.Dispose();
    }
}
