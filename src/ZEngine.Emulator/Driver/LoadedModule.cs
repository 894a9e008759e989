using ZEngine.Emulator.Decode;
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Memory;
using ZEngine.Emulator.Ptx;
using ZEngine.Interop;

namespace ZEngine.Emulator.Driver;

internal sealed class LoadedKernel(KernelProgram program, LoadedModule module)
{
    public KernelProgram Program => program;
    public LoadedModule Module => module;
    public int MaxDynamicShared = Math.Max(0, DeviceLimits.SharedDefault - program.StaticSharedBytes);
    public int PreferredCarveout = -1;

    public int Registers => program.Resources?.Registers ?? 0;

    public int MaxThreads
    {
        get
        {
            (int x, int y, int z) = program.Entry.RequiredThreads ?? program.Entry.MaxThreads ?? (DeviceLimits.MaxThreads, 1, 1);
            int byRegisters = Registers == 0 ? DeviceLimits.MaxThreads : DeviceLimits.Registers / DeviceLimits.RegistersOfWarp(Registers) * 32;
            return Math.Min(Math.Min(x * y * z, byRegisters), DeviceLimits.MaxThreads);
        }
    }
}

/// <summary>A module with its variables in device memory and its kernels decoded. Anything unsupported fails here.</summary>
internal sealed unsafe class LoadedModule
{
    private readonly List<Allocation> _owned = [];

    public LoadedModule(ModuleImage image, DeviceMemory memory, EmulatorOptions options)
    {
        Name = image.Name;
        Memory = memory;
        Parsed = PtxParser.Parse(image.Ptx, image.Name);
        foreach (PtxVariable variable in Parsed.Globals.Variables.Values)
        {
            if (variable.Space is not (Space.Global or Space.Const)) continue;
            Allocation allocation = memory.Allocate((ulong)variable.Bytes, $"{PtxParser.Demangle(variable.Name)} of {image.Name}")
                ?? throw new CudaException("cuModuleLoadData", CudaResult.OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", $"no room for variable {variable.Name}");
            variable.Address = allocation.Address;
            _owned.Add(allocation);
        }
        foreach (PtxVariable variable in Parsed.Globals.Variables.Values)
            if (variable.Space is Space.Global or Space.Const) Initialise(variable);
        foreach (PtxFunction function in Parsed.Functions.Values)
        {
            if (!function.IsEntry) continue;
            KernelProgram program = Decoder.Decode(Parsed, function, options);
            if (image.Resources.TryGetValue(function.Name, out KernelResources resources)) program.Resources = resources;
            Kernels.Add(function.Name, new LoadedKernel(program, this));
        }
    }

    public string Name { get; }
    public DeviceMemory Memory { get; }
    public PtxModule Parsed { get; }
    public Dictionary<string, LoadedKernel> Kernels { get; } = [];

    // Variables without an initial value are zero by the rules of the language.
    private void Initialise(PtxVariable variable)
    {
        Memory.SetInitialised(variable.Address, (ulong)variable.Bytes, true);
        if (variable.Initial is null) return;
        foreach ((int offset, string symbol, long addend) in variable.InitialAddresses ?? [])
        {
            if (!Parsed.Globals.Variables.TryGetValue(symbol, out PtxVariable? target) || target.Space is not (Space.Global or Space.Const))
                throw new PtxUnsupportedException(variable.Name, $"its initial value holds the address of {symbol}, which is no global variable", Name);
            BitConverter.GetBytes(target.Address + (ulong)addend).CopyTo(variable.Initial, offset);
        }
        fixed (byte* source = variable.Initial) Memory.Copy(variable.Address, source, (ulong)variable.Bytes);
    }

    public void Unload() => _owned.ForEach(Memory.Free);
}
