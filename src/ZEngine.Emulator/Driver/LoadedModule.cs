using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Memory;
using ZEngine.Emulator.Ptx;
using ZEngine.Interop;

namespace ZEngine.Emulator.Driver;

// The resources are what the compiler reported.
internal sealed class LoadedKernel(KernelProgram program, LoadedModule module, KernelResources? resources)
{
    public KernelProgram Program => program;
    public LoadedModule Module => module;
    public KernelResources? Resources => resources;
    public int MaxDynamicShared = Math.Max(0, DeviceLimits.SharedDefault - program.StaticSharedBytes);
    public int PreferredCarveout = -1;

    public int Registers => resources?.Registers ?? 0;

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
        DecodedModule decoded = DecodedModule.Of(image.Ptx, image.Name, options, Place);
        Parsed = decoded.Parsed;
        foreach (KernelProgram program in decoded.Kernels)
        {
            KernelProgram loaded = options.Deleted is { } deleted && deleted.Kernel == program.Name ? program.Without(deleted) : program;
            Kernels.Add(program.Name, new LoadedKernel(loaded, this, image.Resources.TryGetValue(program.Name, out KernelResources resources) ? resources : null));
        }
    }

    /// <summary>Gives a module's variables their memory; false when it has none.</summary>
    private bool Place(PtxModule parsed)
    {
        PtxVariable[] variables = [.. parsed.Globals.Variables.Values.Where(variable => variable.Space is Space.Global or Space.Const)];
        foreach (PtxVariable variable in variables)
        {
            Allocation allocation = Memory.Allocate((ulong)variable.Bytes, $"{PtxParser.Demangle(variable.Name)} of {Name}")
                ?? throw new CudaException("cuModuleLoadData", CudaResult.OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", $"no room for variable {variable.Name}");
            variable.Address = allocation.Address;
            _owned.Add(allocation);
        }
        foreach (PtxVariable variable in variables) Initialise(parsed, variable);
        return variables.Length > 0;
    }

    public string Name { get; }
    public DeviceMemory Memory { get; }
    public PtxModule Parsed { get; }
    public Dictionary<string, LoadedKernel> Kernels { get; } = [];

    // Variables without an initial value are zero by the rules of the language.
    private void Initialise(PtxModule parsed, PtxVariable variable)
    {
        Memory.SetInitialised(variable.Address, (ulong)variable.Bytes, true);
        if (variable.Initial is null) return;
        foreach ((int offset, string symbol, long addend) in variable.InitialAddresses ?? [])
        {
            if (!parsed.Globals.Variables.TryGetValue(symbol, out PtxVariable? target) || target.Space is not (Space.Global or Space.Const))
                throw new PtxUnsupportedException(variable.Name, $"its initial value holds the address of {symbol}, which is no global variable", Name);
            BitConverter.GetBytes(target.Address + (ulong)addend).CopyTo(variable.Initial, offset);
        }
        fixed (byte* source = variable.Initial) Memory.Copy(variable.Address, source, (ulong)variable.Bytes);
    }

    public void Unload() => _owned.ForEach(Memory.Free);
}
