namespace ZEngine;

/// <summary>What a device computes. Every op adds its own slice of this class in its contract file.</summary>
/// <remarks>Backends receive checked, allocated tensors and only compute.</remarks>
public abstract partial class Backend
{
    private protected Backend() { }

    /// <summary>Element types that activations may have on this device.</summary>
    internal abstract bool AcceptsActivation(DType dtype);

    /// <summary>A tensor whose rows begin where the device reads them best; between them there may be gaps.</summary>
    internal virtual Tensor EmptyRows(ReadOnlySpan<long> shape, DType dtype, Device device) => Tensor.Empty(shape, dtype, device);
}
