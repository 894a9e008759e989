using System.Runtime.InteropServices;
using ZEngine.Emulator;
using ZEngine.Interop;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Emulator;

/// <summary>An emulated GPU with a module on it: what a kernel test needs and no more.</summary>
internal sealed class Machine : IDisposable
{
    private readonly CudaModuleHandle _module;

    public Machine(string source, EmulatorOptions? options = null, params string[] compileOptions)
        : this(Compiler.Compile(source, $"sm_{(options ?? new()).Architecture}", compileOptions), options)
    {
    }

    public Machine(ModuleImage image, EmulatorOptions? options = null)
    {
        Image = image;
        Driver = new EmulatedCudaDriver(options);
        _module = Driver.LoadModule(image);
    }

    public EmulatedCudaDriver Driver { get; }
    public ModuleImage Image { get; }
    public IReadOnlyList<FaultReport> Faults => Driver.Faults;
    public LaunchProfile Profile => Driver.Profiles[^1];

    public DevicePointer Upload<T>(T[] data, string name = "input") where T : unmanaged
    {
        DevicePointer pointer = Empty<T>(data.Length, name);
        Driver.CopyToDevice<T>(pointer, data);
        return pointer;
    }

    public DevicePointer Empty<T>(int count, string name = "output") where T : unmanaged
    {
        DevicePointer pointer = Driver.Allocate((ulong)count * (ulong)Marshal.SizeOf<T>());
        Driver.NameAllocation(pointer, name);
        return pointer;
    }

    public T[] Download<T>(DevicePointer pointer, int count) where T : unmanaged
    {
        var data = new T[count];
        Driver.CopyToHost<T>(data, pointer);
        return data;
    }

    /// <summary>Queues a launch; arguments are laid out by the kernel's own parameter offsets.</summary>
    public void Launch(string kernel, LaunchConfiguration configuration, params object[] arguments)
    {
        CudaFunctionHandle function = Driver.GetFunction(_module, Image.Lowered(kernel));
        IReadOnlyList<(int Offset, int Bytes)> parameters = Driver.GetParameters(function);
        byte[] buffer = new byte[parameters.Count == 0 ? 0 : parameters[^1].Offset + parameters[^1].Bytes];
        for (int k = 0; k < arguments.Length; k++)
        {
            byte[] bytes = arguments[k] switch
            {
                DevicePointer p => BitConverter.GetBytes(p.Address), int x => BitConverter.GetBytes(x), uint x => BitConverter.GetBytes(x),
                long x => BitConverter.GetBytes(x), ulong x => BitConverter.GetBytes(x), float x => BitConverter.GetBytes(x), double x => BitConverter.GetBytes(x),
                byte[] x => x, _ => throw new ArgumentException($"argument {k} of type {arguments[k].GetType()}"),
            };
            bytes.CopyTo(buffer, parameters[k].Offset);
        }
        if (configuration.DynamicSharedBytes > 48 * 1024) Driver.SetAttribute(FunctionAttribute.MaxDynamicSharedSizeBytes, function, configuration.DynamicSharedBytes);
        Driver.Launch(function, configuration, buffer);
    }

    /// <summary>Launches, waits, and gives back the findings instead of throwing.</summary>
    public IReadOnlyList<FaultReport> Run(string kernel, LaunchConfiguration configuration, params object[] arguments)
    {
        Launch(kernel, configuration, arguments);
        try
        {
            Driver.Synchronize();
        }
        catch (EmulatorFaultException)
        {
            // What it found is in the driver's list.
        }
        return Driver.Faults;
    }

    public void Dispose() => Driver.Dispose();
}
