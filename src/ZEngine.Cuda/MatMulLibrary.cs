using System.Collections.Concurrent;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>cuBLASLt on a device, with the ways it has found so far; or nothing, where there is no such library or none is wanted.</summary>
internal sealed class MatMulLibrary : IDisposable
{
    private readonly CublasLt? _library;
    private readonly nint _handle;
    private readonly ConcurrentDictionary<CublasLtProduct, CublasLtPlan?> _plans = [];

    /// <summary>Opens the library on a device.</summary>
    /// <param name="device">The device.</param>
    /// <param name="servesLibraries">Whether the device's memory may be handed to a library.</param>
    /// <exception cref="CublasLtException">The library is there and does not work on this device.</exception>
    public MatMulLibrary(CudaDevice device, bool servesLibraries)
    {
        if (!device.Options.UsesCublasLt) Description = "own kernels: cuBLASLt is turned off";
        else if (!servesLibraries) Description = "own kernels: the driver is none that cuBLASLt could use";
        else
        {
            try
            {
                _library = device.Options.CublasLt();
            }
            catch (NativeLibraryException missing)
            {
                Description = $"own kernels: {missing.Message}";
                return;
            }
            device.Enter();
            _handle = _library.CreateHandle();
            Description = $"cuBLASLt {_library.Version} at {_library.LibraryPath}";
        }
    }

    public string Description { get; }

    public bool IsPresent => _library is not null;

    /// <summary>How the library computes a product; null where it does not.</summary>
    public CublasLtPlan? Plan(in CublasLtProduct product)
    {
        if (_library is null) return null;
        if (_plans.TryGetValue(product, out CublasLtPlan? plan)) return plan;
        lock (_plans)
            return _plans.TryGetValue(product, out plan) ? plan : _plans[product] = _library.Plan(_handle, product);
    }

    public void Dispose()
    {
        foreach (CublasLtPlan? plan in _plans.Values) plan?.Dispose();
        _plans.Clear();
        _library?.DestroyHandle(_handle);
    }
}
