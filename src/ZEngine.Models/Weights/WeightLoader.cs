using System.Runtime.InteropServices;

namespace ZEngine.Models;

/// <summary>Gives a model's parameters their values from a checkpoint folder; strict about names, shapes and types.</summary>
internal static class WeightLoader
{
    private const long LongestIgnored = 1 << 20;               // bytes; what models of the zoo do not need are short tables

    public static void Load(
        Module model, string folder, Device device, DType? dtype, bool isWritable, Func<string, string?> canonicalName, IReadOnlyList<StoredPart> parts, List<SafetensorsTensor> ignored, out WeightLayout layout)
    {
        using var lease = new MappingLease(WeightFiles.Open(folder, isWritable));
        WeightFiles files = lease.Files;
        layout = files.Layout;
        var parameters = model.Parameters.ToDictionary(parameter => parameter.Name);
        var sources = new Dictionary<string, string>();
        var aliases = new List<string>();
        HashSet<string> partNames = [.. parts.Select(part => part.Name)];
        foreach (string name in files.Names.Where(name => !partNames.Contains(name)))
        {
            (SafetensorsFile file, SafetensorsEntry entry) = files.Get(name);
            if (canonicalName(name) is not { } canonical)
            {
                ignored.Add(Ignored(file, entry));
                continue;
            }
            if (!parameters.ContainsKey(canonical)) throw WeightErrors.Tensor(file.Path, name, $"is not a parameter of {model.GetType().Name} as {ModelConfigFile.FileName} describes it.");
            if (canonical == name || !files.TryGet(canonical, out _, out _)) sources.TryAdd(canonical, name);
            if (canonical != name) aliases.Add(name);
        }
        foreach ((string name, Parameter parameter) in parameters)
        {
            StoredPart[] own = [.. parts.Where(part => part.Parameter == parameter)];
            if (own.Length > 0 && !sources.ContainsKey(name))
            {
                parameter.Materialize(Compose(files, folder, parameter, own, device, dtype));
                continue;
            }
            if (own.FirstOrDefault(part => files.TryGet(part.Name, out _, out _)) is { } twice) throw WeightErrors.Tensor(folder, twice.Name, $"is a part of {WeightErrors.Quote(name)}, which the files hold whole as well.");
            if (!sources.TryGetValue(name, out string? source)) throw WeightErrors.Tensor(folder, name, $"{Text(parameter.Shape)} is missing.");
            parameter.Materialize(Read(files, source, parameter, device, dtype, lease));
        }
        foreach (string alias in aliases) RequireEqual(files, alias, sources[canonicalName(alias)!]);
    }

    /// <summary>Puts a parameter together from its parts, in the type of the first of them.</summary>
    private static Tensor Compose(WeightFiles files, string folder, Parameter parameter, StoredPart[] parts, Device device, DType? dtype)
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor? whole = null;
        foreach (StoredPart part in parts)
        {
            if (!files.TryGet(part.Name, out SafetensorsFile? file, out SafetensorsEntry? entry)) throw WeightErrors.Tensor(folder, part.Name, $"{Text([.. part.Shape])} is missing.");
            if (!entry.Shape.AsSpan().SequenceEqual([.. part.Shape])) throw WeightErrors.Tensor(file.Path, part.Name, $"must be {Text([.. part.Shape])}, got {Text(entry.Shape)}.");
            if (entry.DType is not { IsFloat: true } stored) throw WeightErrors.Tensor(file.Path, part.Name, $"must be F32, BF16 or F16, got {entry.DTypeName}.");
            nint address = file.AddressOf(entry);
            if (address % stored.Size != 0) throw WeightErrors.Tensor(file.Path, part.Name, $"does not stand at a multiple of its element's {stored.Size} bytes.");
            whole ??= Tensor.Empty(parameter.Shape, parameter.IsMatrix ? dtype ?? stored : DType.Float32, Device.Cpu);
            using Tensor source = Tensor.Borrow(address, entry.Shape, stored);
            Ops.Copy(source, part.View(whole));
        }
        return scope.Keep(whole!.To(device));
    }

    /// <summary>A part of a parameter as a file is to hold it.</summary>
    public static SafetensorsTensor Stored(StoredPart part) => SafetensorsTensor.FromStream(part.Name, part.Parameter.Value.DType, [.. part.Shape], stream =>
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        part.View(part.Parameter.Value).WriteTo(stream);
    });

    private static Tensor Read(WeightFiles files, string name, Parameter parameter, Device device, DType? dtype, MappingLease lease)
    {
        (SafetensorsFile file, SafetensorsEntry entry) = files.Get(name);
        if (!parameter.Shape.SequenceEqual(entry.Shape)) throw WeightErrors.Tensor(file.Path, name, $"must be {Text(parameter.Shape)}, got {Text(entry.Shape)}.");
        if (entry.DType is not { IsFloat: true } stored) throw WeightErrors.Tensor(file.Path, name, $"must be F32, BF16 or F16, got {entry.DTypeName}.");

        nint address = file.AddressOf(entry);
        DType wanted = parameter.IsMatrix ? dtype ?? stored : DType.Float32;
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        if (address % stored.Size != 0) throw WeightErrors.Tensor(file.Path, name, $"does not stand at a multiple of its element's {stored.Size} bytes.");
        return scope.Keep(Tensor.Borrow(address, entry.Shape, stored, lease.Share()).To(wanted).To(device));
    }

    /// <summary>A tied tensor that a file stores twice must be the same twice, or one of the two would be lost.</summary>
    private static void RequireEqual(WeightFiles files, string alias, string source)
    {
        if (alias == source) return;
        (SafetensorsFile file, SafetensorsEntry entry) = files.Get(alias);
        (SafetensorsFile otherFile, SafetensorsEntry other) = files.Get(source);
        bool isEqual = entry.DTypeName == other.DTypeName && entry.Shape.AsSpan().SequenceEqual(other.Shape) && file.Bytes(entry).SequenceEqual(otherFile.Bytes(other));
        if (!isEqual) throw WeightErrors.Tensor(file.Path, alias, $"is tied to {WeightErrors.Quote(source)} in this model, but the file holds different values for them.");
    }

    /// <summary>A parameter as a file is to hold it.</summary>
    /// <param name="name">Its name there.</param>
    /// <param name="parameter">A vector that the file had in 16 bits, and that still fits them exactly, goes back in 16 bits: only the engine made it Float32.</param>
    /// <param name="was">The type in the file that was loaded, or null.</param>
    public static SafetensorsTensor Stored(string name, Parameter parameter, DType? was)
    {
        Tensor value = parameter.Value;
        if (parameter.IsMatrix || was is not { } narrow || narrow is not (DType.BFloat16 or DType.Float16) || value.DType != DType.Float32 || !Fits(value, narrow))
            return SafetensorsTensor.FromStream(name, value.DType, value.Shape, value.WriteTo);
        return SafetensorsTensor.FromStream(name, narrow, value.Shape, stream =>
        {
            using TensorScope scope = TensorScope.Enter();
            using NoGradient pause = Tape.NoGrad();
            value.To(narrow).WriteTo(stream);
        });
    }

    private static bool Fits(Tensor value, DType narrow)
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        return MemoryMarshal.AsBytes<float>(value.ToArray<float>()).SequenceEqual(MemoryMarshal.AsBytes<float>(value.To(narrow).To(DType.Float32).ToArray<float>()));
    }

    private static SafetensorsTensor Ignored(SafetensorsFile file, SafetensorsEntry entry)
    {
        if (entry.ByteCount > LongestIgnored) throw WeightErrors.Tensor(file.Path, entry.Name, $"is of no use to the model and has {entry.ByteCount} bytes, more than the {LongestIgnored} that are kept for saving it again.");
        return SafetensorsTensor.CopyOf(file, entry);
    }

    private static string Text(ReadOnlySpan<long> shape) => WeightErrors.Line($"[{string.Join(", ", shape.ToArray())}]");

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
