using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>Compiled kernels that are loaded into a device.</summary>
public sealed class CudaModule : IDisposable
{
    private readonly CudaDevice _device;
    private readonly CudaModuleHandle _handle;
    private readonly Dictionary<string, CudaKernel> _kernels = [];
    private readonly Lock _gate = new();
    private bool _isDisposed;

    internal CudaModule(CudaDevice device, ModuleImage image)
    {
        (_device, Image) = (device, image);
        _handle = device.Enter().LoadModule(image);
    }

    /// <summary>What was compiled: PTX, machine code, the compiler's log, registers and spills per kernel.</summary>
    public ModuleImage Image { get; }

    /// <summary>A kernel by the name it has in the source, or by the template instance asked for when it was compiled.</summary>
    public CudaKernel Kernel(string name)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            if (_kernels.TryGetValue(name, out CudaKernel? kernel)) return kernel;
            return _kernels[name] = new CudaKernel(_device, name, _device.Enter().GetFunction(_handle, Image.Lowered(name)));
        }
    }

    /// <summary>Unloads the module; waits for the device.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_isDisposed) return;
            _isDisposed = true;
        }
        _device.Kernels.Forget(this);
        if (!_device.IsDisposed) _device.Enter().UnloadModule(_handle);
    }
}
