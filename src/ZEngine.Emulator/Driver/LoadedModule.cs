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
    private readonly Dictionary<string, ulong> _addresses = [];

    public LoadedModule(ModuleImage image, DeviceMemory memory, EmulatorOptions options)
    {
        Name = image.Name;
        Memory = memory;
        DecodedModule? shared = DecodedModule.Shared(image.Ptx, image.Name, options);
        Parsed = shared?.Parsed ?? PtxParser.Parse(image.Ptx, image.Name);
        PtxVariable[] variables = [.. Parsed.Globals.Variables.Values.Where(variable => variable.Space is Space.Global or Space.Const)];
        foreach (PtxVariable variable in variables)
        {
            Allocation allocation = memory.Allocate((ulong)variable.Bytes, $"{PtxParser.Demangle(variable.Name)} of {image.Name}")
                ?? throw new CudaException("cuModuleLoadData", CudaResult.OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", $"no room for variable {variable.Name}");
            _addresses[variable.Name] = allocation.Address;
            _owned.Add(allocation);
        }
        foreach (PtxVariable variable in variables) Initialise(variable);
        if (shared is null) foreach (PtxVariable variable in variables) variable.Address = _addresses[variable.Name];
        foreach (KernelProgram program in (shared ?? new DecodedModule(Parsed, options)).Kernels)
        {
            KernelProgram loaded = options.Deleted is { } deleted && deleted.Kernel == program.Name ? program.Without(deleted) : program;
            Kernels.Add(program.Name, new LoadedKernel(loaded, this, image.Resources.TryGetValue(program.Name, out KernelResources resources) ? resources : null));
        }
    }

    public string Name { get; }
    public DeviceMemory Memory { get; }
    public PtxModule Parsed { get; }
    public Dictionary<string, LoadedKernel> Kernels { get; } = [];

    /// <summary>A variable and where it lies; null where the module has none of that name.</summary>
    public (ulong Address, long Bytes)? Variable(string name) => _addresses.TryGetValue(name, out ulong address) ? (address, Parsed.Globals.Variables[name].Bytes) : null;

    // Variables without an initial value are zero by the rules of the language.
    private void Initialise(PtxVariable variable)
    {
        ulong address = _addresses[variable.Name];
        Memory.SetInitialised(address, (ulong)variable.Bytes, true);
        if (variable.Initial is null) return;
        byte[] initial = [.. variable.Initial];
        foreach ((int offset, string symbol, long addend) in variable.InitialAddresses ?? [])
        {
            if (!_addresses.TryGetValue(symbol, out ulong target)) throw new PtxUnsupportedException(variable.Name, $"its initial value holds the address of {symbol}, which is no global variable", Name);
            BitConverter.GetBytes(target + (ulong)addend).CopyTo(initial, offset);
        }
        fixed (byte* source = initial) Memory.Copy(address, source, (ulong)variable.Bytes);
    }

    public void Unload() => _owned.ForEach(Memory.Free);
}
