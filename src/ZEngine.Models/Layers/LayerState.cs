namespace ZEngine.Models;

/// <summary>What one layer remembers of a sequence.</summary>
public abstract class LayerState : IDisposable
{
    /// <summary>Makes what was not made with the object, because it depends on how keys and values are dealt out to ranks.</summary>
    /// <param name="sharding">The ranks, or null for one.</param>
    /// <param name="keyValueType">The type in which keys and values are kept, or null for that of the activations.</param>
    /// <param name="scanStateType">The type in which states of scans are kept, or null for Float32.</param>
    public virtual void Allocate(KeyValueSharding? sharding, DType? keyValueType, DType? scanStateType) { }

    /// <summary>Takes the tensors out of the scope they were made in: until then that scope gives them back if a later one does not fit.</summary>
    public abstract void Own();

    /// <summary>From now on the state stays where it is and changes in place, by what stands on the device alone, so that a captured step can be replayed.</summary>
    /// <exception cref="NotSupportedException">This state depends on numbers of the host.</exception>
    public abstract void StayInPlace();

    /// <summary>The tokens that a state counts which stays in place, read from the device; null where it counts none.</summary>
    public virtual long? ReadLength() => null;

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
/// <param name="device">Where it lives.</param>
/// <param name="convolution">Shape of the inputs.</param>
/// <param name="scan">Shape of the scan's state.</param>
/// <param name="groups">Groups that share B and C, where <see cref="Ops.StateUpdate"/> can bring the state forward; else 0.</param>
internal sealed class ScanState(Device device, ReadOnlySpan<long> convolution, ReadOnlySpan<long> scan, long groups = 0) : LayerState
{
    private readonly Tensor _tickets = Tensor.Zeros([convolution[0], groups], DType.Int32, device);
    private Tensor _convolution = Zeros(device, convolution), _scan = Zeros(device, scan);
    private bool _isInPlace;

    public Tensor Convolution { get => _convolution; set => Set(ref _convolution, value); }

    /// <summary>The scan's state as Float32, whatever it is kept in.</summary>
    public Tensor Scan { get => _scan.To(DType.Float32); set => Set(ref _scan, value); }

    /// <summary>The states as one step brings them forward in place; null where the layer is of another kind.</summary>
    public StateCache? InPlace => _tickets.Count > 0 ? new StateCache(_convolution, _scan, _tickets) : null;

    /// <summary>The same of a layer of selective scans, which count no tickets.</summary>
    public SelectiveStateCache? SelectiveInPlace => _tickets.Count == 0 ? new SelectiveStateCache(_convolution, _scan) : null;

    public override void Allocate(KeyValueSharding? sharding, DType? keyValueType, DType? scanStateType)
    {
        if (scanStateType is null or DType.Float32) return;
        if (_tickets.Count == 0) throw new NotSupportedException($"Session: a selective scan keeps its states as Float32, not as {scanStateType}.");
        Tensor scan = Tensor.Zeros(_scan.Shape, scanStateType.Value, _scan.Device);
        _scan.Dispose();
        _scan = scan;
    }

    public override void StayInPlace() => _isInPlace = true;

    public override void Own()
    {
        TensorScope.Release(_convolution);
        TensorScope.Release(_scan);
        TensorScope.Release(_tickets);
    }

    protected override void Dispose(bool disposing)
    {
        _convolution.Dispose();
        _scan.Dispose();
        _tickets.Dispose();
    }

    private void Set(ref Tensor current, Tensor next)
    {
        if (_isInPlace) Ops.Copy(next, current);
        else Replace(ref current, next.To(current.DType));
    }
}
