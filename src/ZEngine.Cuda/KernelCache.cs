using System.Collections.Concurrent;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>The engine's kernels on one device: compiled when first asked for, from disk where an earlier process did, or from the PTX packed with the assembly where there is no compiler.</summary>
internal sealed class KernelCache : IDisposable
{
    private readonly CudaDevice _device;
    private readonly CompileCache _disk;
    private readonly Lock _gate = new();
    private readonly ConcurrentDictionary<string, CudaKernel> _kernels = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, CudaKernel>.AlternateLookup<ReadOnlySpan<char>> _byText;
    private readonly List<CudaModule> _modules = [];

    public KernelCache(CudaDevice device, string? folder)
    {
        _device = device;
        _disk = new CompileCache(folder);
        _byText = _kernels.GetAlternateLookup<ReadOnlySpan<char>>();
    }

    /// <summary>The instance of a template of a kernel file.</summary>
    public CudaKernel Get(string file, ReadOnlySpan<char> expression) =>
        _byText.TryGetValue(expression, out CudaKernel? kernel) ? kernel : Load(file, expression.ToString());

    public void Dispose()
    {
        lock (_gate)
        {
            foreach (CudaModule module in _modules.ToArray()) module.Dispose();     // each takes itself out of the list
            _modules.Clear();
            _kernels.Clear();
        }
    }

    /// <summary>Compiles source text that is not of this assembly.</summary>
    public CudaModule Compile(CompileRequest request)
    {
        var module = new CudaModule(_device, _disk.Compile(_device.Options.Compiler(), request));
        lock (_gate) _modules.Add(module);
        return module;
    }

    public void Forget(CudaModule module)
    {
        lock (_gate) _modules.Remove(module);
    }

    private CudaKernel Load(string file, string expression)
    {
        lock (_gate)
        {
            if (_kernels.TryGetValue(expression, out CudaKernel? kernel)) return kernel;
            KernelSources sources = KernelSources.Current;
            if (!sources.Variants[file].Contains(expression))
                throw new InvalidOperationException($"{file}: {expression} is asked for, but the header's Variants do not list it.");
            var module = new CudaModule(_device, Image(sources, file, expression));
            _modules.Add(module);
            return _kernels[expression] = module.Kernel(expression);
        }
    }

    private ModuleImage Image(KernelSources sources, string file, string expression)
    {
        Nvrtc nvrtc;
        try
        {
            nvrtc = _device.Options.Compiler();
        }
        catch (NativeLibraryException missing)
        {
            return PackedKernels.Find(_device.Options.Pack(), expression, _device.Architecture)
                ?? throw new NativeLibraryException($"{file}: there is no compiler and no packed PTX for {expression} on sm_{_device.Architecture}. {missing.Message}");
        }
        return _disk.Compile(nvrtc, sources.Request(file, ArchitectureFor(nvrtc), expression));
    }

    /// <summary>The device's own architecture, or the newest below it that this NVRTC knows, as PTX that the driver finishes.</summary>
    private string ArchitectureFor(Nvrtc nvrtc)
    {
        if (nvrtc.Architectures.Contains(_device.Architecture)) return $"sm_{_device.Architecture}";
        int[] older = [.. nvrtc.Architectures.Where(architecture => architecture <= _device.Architecture)];
        return older.Length > 0 ? $"compute_{older.Max()}"
            : throw new NotSupportedException($"{_device}: NVRTC {nvrtc.Version} at {nvrtc.LibraryPath} compiles for sm_{nvrtc.Architectures.Min()} and newer, the device is sm_{_device.Architecture}.");
    }
}
