using ZEngine.Models;

namespace ZEngine.Training;

/// <summary>Moves tensors between safetensors files and live models, by name, with nothing assumed.</summary>
public static class ParameterFiles
{
    private const int PieceBytes = 16 << 20;

    /// <summary>A tensor to be written to a file, read from its device piece by piece when its turn comes.</summary>
    public static SafetensorsTensor ToSafetensors(string name, Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        return SafetensorsTensor.FromStream(name, tensor.DType, tensor.Shape, tensor.WriteTo);
    }

    /// <summary>Overwrites the values of parameters with the tensors of a folder's weight files; a failed check changes nothing.</summary>
    /// <param name="folder">Holds <c>model.safetensors</c>, or an index and shards.</param>
    /// <param name="parameters">Every one must be in the files with its shape and type.</param>
    /// <remarks>A tensor that is no parameter is accepted only where it is a tied copy: bit for bit equal to one that is.</remarks>
    /// <exception cref="InvalidDataException">A tensor is missing, superfluous, or of another shape or type; one line that names it.</exception>
    public static void Load(string folder, IReadOnlyList<Parameter> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        using WeightFiles files = WeightFiles.Open(folder, isWritable: false);
        var entries = new Dictionary<string, (SafetensorsFile File, SafetensorsEntry Entry)>(StringComparer.Ordinal);
        foreach (string name in files.Names)
            if (files.TryGet(name, out SafetensorsFile? file, out SafetensorsEntry? entry)) entries.Add(name, (file, entry));
        var wanted = new HashSet<string>(parameters.Select(parameter => parameter.Name), StringComparer.Ordinal);
        SafetensorsEntry[] own = [.. entries.Values.Select(place => place.Entry).Where(entry => wanted.Contains(entry.Name) || !IsTiedCopy(entry.Name, entries, wanted))];
        RequireSame(folder, [.. parameters.Select(parameter => new KeyValuePair<string, Tensor>(parameter.Name, parameter.Value))], own);
        foreach (Parameter parameter in parameters)
        {
            (SafetensorsFile file, SafetensorsEntry entry) = entries[parameter.Name];
            Copy(file, entry, parameter.Value);
        }
    }

    /// <summary>Holds the entries of a file to the tensors that are expected, by name, shape and type.</summary>
    internal static void RequireSame(string path, IReadOnlyList<KeyValuePair<string, Tensor>> tensors, IReadOnlyList<SafetensorsEntry> entries)
    {
        var byName = entries.ToDictionary(entry => entry.Name, StringComparer.Ordinal);
        foreach ((string name, Tensor tensor) in tensors)
        {
            if (!byName.Remove(name, out SafetensorsEntry? entry))
                throw new InvalidDataException($"{path}: tensor '{name}' is missing; the model has it as {tensor}. It is the checkpoint of another model.");
            if (entry.DType != tensor.DType || !tensor.Shape.SequenceEqual(entry.Shape))
                throw new InvalidDataException($"{path}: tensor {entry}, but the model has it as {tensor}. It is the checkpoint of another model.");
        }
        foreach (string name in byName.Keys)
            throw new InvalidDataException($"{path}: tensor {byName[name]} is not part of the model. It is the checkpoint of another model.");
    }

    /// <summary>Copies an entry's elements into a tensor of the same type and count.</summary>
    internal static void Copy(SafetensorsFile file, SafetensorsEntry entry, Tensor tensor) => Copy(file, entry, 0, tensor);

    /// <summary>Copies an entry's elements from <paramref name="start"/> on into a tensor of the same type.</summary>
    internal static void Copy(SafetensorsFile file, SafetensorsEntry entry, long start, Tensor tensor)
    {
        nint address = file.AddressOf(entry) + (nint)(start * tensor.DType.Size);
        switch (tensor.DType)
        {
            case DType.Float32: Copy<float>(address, tensor); break;
            case DType.BFloat16: Copy<BFloat16>(address, tensor); break;
            case DType.Float16: Copy<Half>(address, tensor); break;
            case DType.Int32: Copy<int>(address, tensor); break;
            case DType.Int64: Copy<long>(address, tensor); break;
            case DType.UInt8: Copy<byte>(address, tensor); break;
            default: Copy<sbyte>(address, tensor); break;
        }
    }

    private static unsafe void Copy<T>(nint address, Tensor tensor) where T : unmanaged
    {
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Tensor flat = tensor.Reshape(-1);
        long piece = PieceBytes / sizeof(T);
        for (long at = 0; at < tensor.Count; at += piece)
        {
            int count = (int)Math.Min(piece, tensor.Count - at);
            flat.Slice(0, at, count).CopyFrom(new ReadOnlySpan<T>((T*)address + at, count));
        }
    }

    private static bool IsTiedCopy(string name, Dictionary<string, (SafetensorsFile File, SafetensorsEntry Entry)> entries, HashSet<string> wanted)
    {
        (SafetensorsFile file, SafetensorsEntry entry) = entries[name];
        foreach ((string other, (SafetensorsFile otherFile, SafetensorsEntry otherEntry)) in entries)
        {
            if (wanted.Contains(other) && otherEntry.DTypeName == entry.DTypeName && otherEntry.Shape.AsSpan().SequenceEqual(entry.Shape)
                && AreEqual(file.AddressOf(entry), otherFile.AddressOf(otherEntry), entry.ByteCount)) return true;
        }
        return false;
    }

    private static unsafe bool AreEqual(nint a, nint b, long byteCount)
    {
        for (long at = 0; at < byteCount; at += PieceBytes)
        {
            int count = (int)Math.Min(PieceBytes, byteCount - at);
            if (!new ReadOnlySpan<byte>((byte*)a + at, count).SequenceEqual(new ReadOnlySpan<byte>((byte*)b + at, count))) return false;
        }
        return true;
    }
}
