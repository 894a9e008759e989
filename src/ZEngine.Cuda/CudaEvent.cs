using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>A place in a device's stream.</summary>
public sealed class CudaEvent : IDisposable
{
    private readonly CudaDevice _device;
    private readonly CudaEventHandle _handle;
    private bool _isDisposed;

    internal CudaEvent(CudaDevice device, bool isTimed)
    {
        _device = device;
        _handle = device.Enter().CreateEvent(isTimed);
    }

    /// <summary>Whether the device has come this far.</summary>
    public bool IsReached => _device.Enter().EventQuery(_handle);

    /// <summary>Moves the mark to the end of the stream as it is now.</summary>
    public void Record() => _device.Enter().RecordEvent(_handle, _device.Stream);

    /// <summary>Waits until the device has come this far.</summary>
    public void Wait() => _device.Enter().EventSynchronize(_handle);

    /// <summary>Milliseconds of the device between two timed marks that were reached.</summary>
    public static float ElapsedMs(CudaEvent start, CudaEvent end)
    {
        ArgumentNullException.ThrowIfNull(start);
        ArgumentNullException.ThrowIfNull(end);
        return start._device.Enter().EventElapsedMs(start._handle, end._handle);
    }

    /// <summary>Gives the mark back.</summary>
    public void Dispose()
    {
        if (_isDisposed) return;
        _isDisposed = true;
        if (!_device.IsDisposed) _device.Enter().DestroyEvent(_handle);
    }
}
