using System.Runtime.InteropServices;

namespace ZEngine.Models;

/// <summary>Copies of tensors in host memory, made at one moment and written to files later, while the tensors themselves change.</summary>
public sealed unsafe class TensorCopies : IDisposable
{
    private readonly List<nint> _blocks = [];

    /// <summary>Bytes that the copies hold.</summary>
    public long Bytes { get; private set; }

    /// <summary>The tensor as it is now; valid until <see cref="Dispose"/>.</summary>
    public SafetensorsTensor Copy(SafetensorsTensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        nint block = (nint)NativeMemory.Alloc((nuint)Math.Max(1, tensor.ByteCount));
        _blocks.Add(block);
        Bytes += tensor.ByteCount;
        using (var stream = new UnmanagedMemoryStream((byte*)block, 0, tensor.ByteCount, FileAccess.Write)) tensor.WriteTo(stream);
        return SafetensorsTensor.FromMemory(tensor, block);
    }

    /// <summary>Frees the copies.</summary>
    public void Dispose()
    {
        foreach (nint block in _blocks) NativeMemory.Free((void*)block);
        _blocks.Clear();
        Bytes = 0;
    }
}
