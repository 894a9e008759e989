using System.Runtime.CompilerServices;
using ZEngine.Interop;

namespace ZEngine.Cuda;

/// <summary>A kernel of a loaded module.</summary>
public sealed class CudaKernel
{
    private readonly CudaDevice _device;
    private readonly CudaFunctionHandle _function;
    private readonly IReadOnlyList<(int Offset, int Bytes)> _parameters;
    private readonly int _argumentBytes;
    private int _dynamicShared;                                // allowed so far; static memory counts against the driver's default too, so there is no safe one

    internal CudaKernel(CudaDevice device, string name, CudaFunctionHandle function)
    {
        (_device, Name, _function) = (device, name, function);
        _parameters = device.Enter().GetParameters(function);
        _argumentBytes = _parameters.Count == 0 ? 0 : _parameters[^1].Offset + _parameters[^1].Bytes;
    }

    /// <summary>The name in the source.</summary>
    public string Name { get; }

    /// <summary>Launches the kernel on the device's stream.</summary>
    /// <param name="grid">Blocks.</param>
    /// <param name="block">Threads of a block.</param>
    /// <param name="arguments">One for each parameter: tensors as pointers to their first element, numbers as they are.</param>
    /// <exception cref="ArgumentException">The number of arguments or the size of one is not the kernel's.</exception>
    public void Launch(Dim3 grid, Dim3 block, params ReadOnlySpan<KernelArgument> arguments) => Launch(grid, block, 0, arguments);

    /// <summary>Launches the kernel with dynamic shared memory.</summary>
    /// <param name="grid">Blocks.</param>
    /// <param name="block">Threads of a block.</param>
    /// <param name="sharedBytes">Bytes of <c>extern __shared__</c> memory per block.</param>
    /// <param name="arguments">One for each parameter.</param>
    public void Launch(Dim3 grid, Dim3 block, int sharedBytes, params ReadOnlySpan<KernelArgument> arguments)
    {
        if (arguments.Length != _parameters.Count) throw new ArgumentException($"{Name}: has {_parameters.Count} parameters, got {arguments.Length} arguments.");
        Span<byte> buffer = stackalloc byte[_argumentBytes];
        for (int i = 0; i < arguments.Length; i++)
        {
            if (arguments[i].Bytes != _parameters[i].Bytes) throw new ArgumentException($"{Name}: parameter {i} has {_parameters[i].Bytes} bytes, the argument has {arguments[i].Bytes}.");
            if (arguments[i].Device is { } other && other != _device) throw new ArgumentException($"{Name}: argument {i} is on {other}, the kernel is on {_device}.");
            arguments[i].Write(buffer[_parameters[i].Offset..]);
        }
        Launch(grid, block, sharedBytes, (ReadOnlySpan<byte>)buffer);
    }

    /// <summary>Launches a kernel whose only parameter is a structure.</summary>
    internal unsafe void Launch<T>(Dim3 grid, Dim3 block, int sharedBytes, in T arguments) where T : unmanaged
    {
        if (sizeof(T) != _argumentBytes) throw new InvalidOperationException($"{Name}: {typeof(T).Name} has {sizeof(T)} bytes, the kernel's argument has {_argumentBytes}.");
        fixed (T* pointer = &arguments) Launch(grid, block, sharedBytes, new ReadOnlySpan<byte>(pointer, sizeof(T)));
    }

    private void Launch(Dim3 grid, Dim3 block, int sharedBytes, ReadOnlySpan<byte> arguments)
    {
        if (grid.Count == 0) return;                           // nothing to do is no error here, though CUDA says it is
        CudaDriver driver = _device.Enter();
        if (sharedBytes > Volatile.Read(ref _dynamicShared)) AllowShared(driver, sharedBytes);
        driver.Launch(_function, new LaunchConfiguration(grid, block, sharedBytes, _device.Stream), arguments);
        _device.Launched(Name);
    }

    private void AllowShared(CudaDriver driver, int bytes)
    {
        driver.SetAttribute(FunctionAttribute.MaxDynamicSharedSizeBytes, _function, bytes);
        Volatile.Write(ref _dynamicShared, bytes);
    }
}

/// <summary>An argument of a kernel: a tensor or a number.</summary>
public readonly struct KernelArgument
{
    private readonly ulong _bits;

    private KernelArgument(ulong bits, int bytes, CudaDevice? device = null) => (_bits, Bytes, Device) = (bits, bytes, device);

    internal int Bytes { get; }

    internal CudaDevice? Device { get; }

    /// <summary>A pointer to a tensor's first element.</summary>
    public static implicit operator KernelArgument(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        return tensor.Device is CudaDevice device
            ? new((ulong)tensor.Address, 8, device)
            : throw new ArgumentException($"A kernel's argument must be on a CUDA device, got {tensor}.");
    }

    /// <summary>A 32-bit number.</summary>
    public static implicit operator KernelArgument(int value) => new((uint)value, 4);

    /// <summary>A 64-bit number.</summary>
    public static implicit operator KernelArgument(long value) => new((ulong)value, 8);

    /// <summary>A float.</summary>
    public static implicit operator KernelArgument(float value) => new(BitConverter.SingleToUInt32Bits(value), 4);

    /// <summary>A double.</summary>
    public static implicit operator KernelArgument(double value) => new(BitConverter.DoubleToUInt64Bits(value), 8);

    /// <summary>A pointer to a tensor's first element.</summary>
    public static KernelArgument FromTensor(Tensor tensor) => tensor;

    internal void Write(Span<byte> to)
    {
        Span<byte> bytes = stackalloc byte[8];
        Unsafe.WriteUnaligned(ref bytes[0], _bits);            // little-endian: the low bytes come first
        bytes[..Bytes].CopyTo(to);
    }
}
