using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>A tensor of an optimizer's state as the parameters define it, whoever keeps which part.</summary>
/// <param name="Name">Without a range.</param>
/// <param name="Shape">Of the whole.</param>
internal readonly record struct StateKey(string Name, long[] Shape)
{
    public long Count => Shape.Aggregate(1L, (count, size) => count * size);
}

/// <summary>An optimizer's state in the files of one or several ranks: a tensor may lie in parts, in any of the files.</summary>
internal sealed class StoredState : IDisposable
{
    private readonly IReadOnlyList<string> _paths;
    private readonly List<SafetensorsFile> _files = [];
    private readonly Dictionary<string, List<(StateRange Range, SafetensorsFile File, SafetensorsEntry Entry)>> _parts = new(StringComparer.Ordinal);

    private StoredState(IReadOnlyList<string> paths) => _paths = paths;

    /// <summary>Whether no step was taken yet.</summary>
    public bool IsEmpty => _parts.Count == 0;

    private string Place => _paths.Count == 1 ? _paths[0] : $"{_paths[0]} and {_paths.Count - 1} more";

    public static StoredState Open(IReadOnlyList<string> paths)
    {
        var state = new StoredState(paths);
        try
        {
            foreach (string path in paths)
            {
                SafetensorsFile file = SafetensorsFile.Open(path, isWritable: false);
                state._files.Add(file);
                foreach (SafetensorsEntry entry in file.Entries)
                {
                    StateRange range = StateRange.Parse(entry.Name, entry.Shape.Aggregate(1L, (count, size) => count * size));
                    if (!state._parts.TryGetValue(range.Name, out var parts)) state._parts.Add(range.Name, parts = []);
                    parts.Add((range, file, entry));
                }
            }
            return state;
        }
        catch
        {
            state.Dispose();
            throw;
        }
    }

    /// <summary>Holds the files to what is expected: every tensor once, whole, and no other.</summary>
    /// <param name="everywhere">What every file has for itself, such as the number of steps.</param>
    /// <param name="keys">The rest.</param>
    /// <exception cref="InvalidDataException">One line that names the tensor.</exception>
    public void RequireAll(string everywhere, IReadOnlyCollection<StateKey> keys)
    {
        if (!_parts.TryGetValue(everywhere, out var own) || own.Count != _files.Count || own.Any(part => part.Entry.DType != DType.Int64 || part.Range.Count != 1))
            throw new InvalidDataException($"{Place}: tensor '{everywhere}' is missing or no number.");
        var rest = new HashSet<string>(_parts.Keys.Where(name => name != everywhere), StringComparer.Ordinal);
        foreach (StateKey key in keys)
        {
            string expected = $"the model has it as {DType.Float32} [{string.Join(", ", key.Shape)}]";
            if (!rest.Remove(key.Name)) throw new InvalidDataException($"{Place}: tensor '{key.Name}' is missing; {expected}. It is the checkpoint of another model.");
            long at = 0;
            foreach ((StateRange range, _, SafetensorsEntry entry) in _parts[key.Name].OrderBy(part => part.Range.Start))
            {
                bool isWhole = entry.Name == key.Name;
                if (entry.DType != DType.Float32 || isWhole && !key.Shape.SequenceEqual(entry.Shape)) throw new InvalidDataException($"{Place}: tensor {entry}, but {expected}. It is the checkpoint of another model.");
                if (range.Start != at || range.Count != entry.Shape.Aggregate(1L, (count, size) => count * size)) throw new InvalidDataException($"{Place}: the parts of tensor '{key.Name}' leave a gap or overlap at element {at}; {expected}.");
                at += range.Count;
            }
            if (at != key.Count) throw new InvalidDataException($"{Place}: the parts of tensor '{key.Name}' have {at} elements together, but {expected}. It is the checkpoint of another model.");
        }
        foreach (string name in rest)
            throw new InvalidDataException($"{Place}: tensor {_parts[name][0].Entry} is not part of the model. It is the checkpoint of another model.");
    }

    /// <summary>Copies the elements from <paramref name="start"/> on into a tensor, from whichever parts have them.</summary>
    public void CopyTo(string name, Tensor tensor, long start)
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor flat = tensor.Reshape(-1);
        foreach ((StateRange range, SafetensorsFile file, SafetensorsEntry entry) in _parts[name])
        {
            long begin = Math.Max(start, range.Start), end = Math.Min(start + tensor.Count, range.Start + range.Count);
            if (begin < end) ParameterFiles.Copy(file, entry, begin - range.Start, flat.Slice(0, begin - start, end - begin));
        }
    }

    public void Dispose()
    {
        foreach (SafetensorsFile file in _files) file.Dispose();
    }
}
