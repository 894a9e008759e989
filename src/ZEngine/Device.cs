namespace ZEngine;

/// <summary>Where tensors live and ops run: the CPU, or a CUDA device.</summary>
/// <remarks>The set of devices is closed; a device of one's own is not possible, an op of one's own is (<see cref="Tape.Record(Tensor, ReadOnlySpan{Tensor}, Func{Tensor, Tensor[]})"/>).</remarks>
public abstract class Device : IDisposable
{
    private long _liveBuffers, _liveBytes, _peakBytes, _leakedBuffers;

    private protected Device(string name) => Name = name;

    /// <summary>The CPU of this process. Disposing it does nothing.</summary>
    public static Device Cpu => CpuDevice.Instance;

    /// <summary>For example <c>cpu</c> or <c>cuda:0</c>.</summary>
    public string Name { get; }

    /// <summary>Buffers that tensors hold now.</summary>
    public long LiveBuffers => Interlocked.Read(ref _liveBuffers);

    /// <summary>Bytes that tensors hold now, as rounded up by the pool.</summary>
    public long LiveBytes => Interlocked.Read(ref _liveBytes);

    /// <summary>The largest <see cref="LiveBytes"/> since the process began or <see cref="ResetPeak"/>.</summary>
    public long PeakBytes => Interlocked.Read(ref _peakBytes);

    /// <summary>Buffers that the garbage collector found undisposed. More than zero is a bug of the caller.</summary>
    public long LeakedBuffers => Interlocked.Read(ref _leakedBuffers);

    internal abstract Backend Backend { get; }

    /// <summary>The type of the activations of a model whose weights have a floating-point type: the same where the device computes in it, else Float32.</summary>
    public DType ActivationType(DType weights) => Backend.AcceptsActivation(weights) ? weights : DType.Float32;

    /// <summary>Starts a new measurement of <see cref="PeakBytes"/>.</summary>
    public void ResetPeak() => Interlocked.Exchange(ref _peakBytes, LiveBytes);

    /// <summary>Gives the memory that the pool holds idle back to the system.</summary>
    public abstract void Trim();

    /// <summary>Waits until all work given to the device is done.</summary>
    public abstract void Synchronize();

    /// <summary>Gives a device's resources back; the CPU has none to give.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>Gives the resources of a derived device back.</summary>
    protected virtual void Dispose(bool disposing) { }

    /// <summary>A storage of at least <paramref name="bytes"/> bytes, contents undefined.</summary>
    internal Storage Allocate(long bytes)
    {
        Storage storage = Rent(bytes);
        Count(storage, +1);
        return storage;
    }

    /// <summary>Memory of somebody else, seen as a storage until its last view goes.</summary>
    internal Storage Borrow(nint address, long bytes, IDisposable? lender)
    {
        var storage = new Storage(this, address, bytes, isPooled: false, lender);
        Count(storage, +1);
        return storage;
    }

    internal void Return(Storage storage)
    {
        Count(storage, -1);
        if (storage.IsPooled) Recycle(storage);
        else
        {
            storage.Forget();
            storage.Lender?.Dispose();
        }
    }

    /// <summary>Called by the finalizer: the storage object is dead, its block is not.</summary>
    internal void ReclaimLeaked(Storage storage)
    {
        Interlocked.Increment(ref _leakedBuffers);
        Count(storage, -1);
        if (storage.IsPooled) Recycle(new Storage(this, storage.Address, storage.Bytes, isPooled: true));
    }

    private protected abstract Storage Rent(long bytes);

    private protected abstract void Recycle(Storage storage);

    internal abstract void CopyFromHost(ReadOnlySpan<byte> source, nint destination);

    internal abstract void CopyToHost(nint source, Span<byte> destination);

    internal abstract void Clear(nint address, long bytes);

    private void Count(Storage storage, int sign)
    {
        Interlocked.Add(ref _liveBuffers, sign);
        long live = Interlocked.Add(ref _liveBytes, sign * storage.Bytes);
        long peak = Interlocked.Read(ref _peakBytes);
        while (live > peak)
        {
            long seen = Interlocked.CompareExchange(ref _peakBytes, live, peak);
            if (seen == peak) break;
            peak = seen;
        }
    }
}
