namespace ZEngine.Models;

/// <summary>What one layer remembers of a sequence.</summary>
public abstract class LayerState : IDisposable
{
    /// <summary>Makes what was not made with the object, because it depends on how keys and values are dealt out to ranks.</summary>
    /// <param name="sharding">The ranks, or null for one.</param>
    /// <param name="keyValueType">The type in which keys and values are kept, or null for that of the activations.</param>
    public virtual void Allocate(KeyValueSharding? sharding, DType? keyValueType) { }

    /// <summary>Takes the tensors out of the scope they were made in: until then that scope gives them back if a later one does not fit.</summary>
    public abstract void Own();

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Gives the state's memory back.</summary>
    protected abstract void Dispose(bool disposing);

    /// <summary>Puts a new tensor in the place of an old one, which is given back; the state owns it from now on.</summary>
    internal static void Replace(ref Tensor current, Tensor next)
    {
        if (ReferenceEquals(current, next)) return;
        current.Dispose();
        current = TensorScope.Release(next);
    }

    internal static Tensor Zeros(Device device, params ReadOnlySpan<long> shape) => Tensor.Zeros(shape, DType.Float32, device);
}

/// <summary>The last inputs of a convolution and the state of a scan.</summary>
internal sealed class ScanState(Device device, ReadOnlySpan<long> convolution, ReadOnlySpan<long> scan) : LayerState
{
    private Tensor _convolution = Zeros(device, convolution), _scan = Zeros(device, scan);

    public Tensor Convolution { get => _convolution; set => Replace(ref _convolution, value); }

    public Tensor Scan { get => _scan; set => Replace(ref _scan, value); }

    public override void Own()
    {
        TensorScope.Release(_convolution);
        TensorScope.Release(_scan);
    }

    protected override void Dispose(bool disposing)
    {
        _convolution.Dispose();
        _scan.Dispose();
    }
}
