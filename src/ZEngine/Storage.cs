namespace ZEngine;

/// <summary>A block of device memory, counted by the tensors that view it.</summary>
/// <remarks>
/// The last view to go returns the block to its device's pool. A storage that is collected while views were still
/// counted was leaked: the finalizer gives the block back and counts it in <see cref="Device.LeakedBuffers"/>.
/// </remarks>
internal sealed class Storage(Device device, nint address, long bytes, bool isPooled, IDisposable? lender = null)
{
    private int _views = 1;

    public Device Device { get; } = device;

    public nint Address { get; } = address;

    /// <summary>Usable bytes of the block; may exceed what was asked for.</summary>
    public long Bytes { get; } = bytes;

    /// <summary>Whether the block came from the device's pool; otherwise it is borrowed.</summary>
    public bool IsPooled { get; } = isPooled;

    /// <summary>Owner of borrowed memory, disposed with the last view.</summary>
    public IDisposable? Lender { get; } = lender;

    public bool IsShared => Volatile.Read(ref _views) > 1;

    public void AddView() => Interlocked.Increment(ref _views);

    public void RemoveView()
    {
        if (Interlocked.Decrement(ref _views) == 0) Device.Return(this);
    }

    /// <summary>Makes a returned block ready for its next life.</summary>
    public void Revive() => Volatile.Write(ref _views, 1);

    /// <summary>The block is gone: the finalizer has nothing to give back.</summary>
#pragma warning disable CA1816 // not a Dispose of its own: the device decides when a block goes
    public void Forget() => GC.SuppressFinalize(this);
#pragma warning restore CA1816

    ~Storage()
    {
        if (Volatile.Read(ref _views) > 0) Device.ReclaimLeaked(this);
    }
}
