namespace ZEngine.Models;

/// <summary>Gives a model's parameters their values from a checkpoint folder; strict about names, shapes and types.</summary>
internal static class WeightLoader
{
    public static void Load(
        Module model, string folder, Device device, DType? dtype, bool isWritable, Func<string, string?> canonicalName, List<string> aliases, out WeightLayout layout)
    {
        using var lease = new MappingLease(WeightFiles.Open(folder, isWritable));
        WeightFiles files = lease.Files;
        layout = files.Layout;
        var parameters = model.Parameters.ToDictionary(parameter => parameter.Name);
        var sources = new Dictionary<string, string>();
        foreach (string name in files.Names)
        {
            if (canonicalName(name) is not { } canonical) continue;
            if (!parameters.ContainsKey(canonical)) throw new InvalidDataException($"{folder}: tensor '{name}' is not a parameter of {model.GetType().Name}.");
            if (canonical == name || !files.TryGet(canonical, out _, out _)) sources.TryAdd(canonical, name);
            if (canonical != name) aliases.Add(name);
        }
        foreach ((string name, Parameter parameter) in parameters)
        {
            if (!sources.TryGetValue(name, out string? source)) throw new InvalidDataException($"{folder}: tensor '{name}' {Text(parameter.Shape)} is missing.");
            parameter.Materialize(Read(files, folder, source, parameter, device, dtype, lease));
        }
        foreach (string alias in aliases) RequireEqual(files, folder, alias, sources[canonicalName(alias)!]);
    }

    private static Tensor Read(WeightFiles files, string folder, string name, Parameter parameter, Device device, DType? dtype, MappingLease lease)
    {
        (SafetensorsFile file, SafetensorsEntry entry) = files.Get(name);
        if (!parameter.Shape.SequenceEqual(entry.Shape)) throw new InvalidDataException($"{folder}: tensor '{name}' must be {Text(parameter.Shape)}, got {Text(entry.Shape)}.");
        if (entry.DType is not { IsFloat: true } stored) throw new InvalidDataException($"{folder}: tensor '{name}' must be F32, BF16 or F16, got {entry.DTypeName}.");

        nint address = file.AddressOf(entry);
        DType wanted = parameter.IsMatrix ? dtype ?? stored : DType.Float32;
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        if (address % stored.Size != 0) throw new InvalidDataException($"{folder}: tensor '{name}' does not stand at a multiple of its element's {stored.Size} bytes.");
        return scope.Keep(Tensor.Borrow(address, entry.Shape, stored, lease.Share()).To(wanted).To(device));
    }

    /// <summary>A tied tensor that a file stores twice must be the same twice, or one of the two would be lost.</summary>
    private static void RequireEqual(WeightFiles files, string folder, string alias, string source)
    {
        if (alias == source) return;
        (SafetensorsFile file, SafetensorsEntry entry) = files.Get(alias);
        (SafetensorsFile otherFile, SafetensorsEntry other) = files.Get(source);
        bool isEqual = entry.DTypeName == other.DTypeName && entry.Shape.AsSpan().SequenceEqual(other.Shape) && file.Bytes(entry).SequenceEqual(otherFile.Bytes(other));
        if (!isEqual) throw new InvalidDataException($"{folder}: tensors '{alias}' and '{source}' are tied in this model, but the file holds different values for them.");
    }

    private static string Text(ReadOnlySpan<long> shape) => $"[{string.Join(", ", shape.ToArray())}]";

    /// <summary>Keeps the mapped files open as long as a tensor borrows from them.</summary>
    private sealed class MappingLease(WeightFiles files) : IDisposable
    {
        private int _shares = 1;

        public WeightFiles Files { get; } = files;

        public IDisposable Share()
        {
            Interlocked.Increment(ref _shares);
            return new OneShare(this);
        }

        public void Dispose()
        {
            if (Interlocked.Decrement(ref _shares) == 0) Files.Dispose();
        }

        private sealed class OneShare(MappingLease lease) : IDisposable
        {
            public void Dispose() => lease.Dispose();
        }
    }
}
