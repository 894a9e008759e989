using ZEngine.Emulator.Checks;
using ZEngine.Emulator.Driver;
using ZEngine.Emulator.Execution;
using ZEngine.Emulator.Memory;
using ZEngine.Emulator.Ptx;
using ZEngine.Interop;

namespace ZEngine.Emulator;

public sealed partial class EmulatedCudaDriver
{
    /// <inheritdoc/>
    public override CudaModuleHandle LoadModule(ModuleImage image)
    {
        lock (_gate)
        {
            Usable("cuModuleLoadData");
            var module = new LoadedModule(image, Memory, Options);
            string target = module.Parsed.Target;
            int wanted = int.Parse(new string([.. target.SkipWhile(c => !char.IsAsciiDigit(c)).TakeWhile(char.IsAsciiDigit)]), System.Globalization.CultureInfo.InvariantCulture);
            bool isExact = target.EndsWith('a');
            if (wanted > Options.Architecture || isExact && wanted != Options.Architecture)
                throw Error("cuModuleLoadData", CudaResult.InvalidPtx, $"{image.Name} was compiled for {target}, the device is sm_{Options.Architecture}");
            Options.Observer?.Load(module.Kernels.Values.Select(kernel => kernel.Program));
            return new CudaModuleHandle(_modules.Add(module));
        }
    }

    /// <inheritdoc/>
    public override void UnloadModule(CudaModuleHandle module)
    {
        lock (_gate)
        {
            LoadedModule loaded = _modules.Remove(module.Value, "cuModuleUnload");
            _scheduler.RunAll(loaded.Memory.Device);
            loaded.Unload();
        }
    }

    /// <inheritdoc/>
    public override CudaFunctionHandle GetFunction(CudaModuleHandle module, string name)
    {
        LoadedModule loaded = _modules.Get(module.Value, "cuModuleGetFunction");
        if (!loaded.Kernels.TryGetValue(name, out LoadedKernel? kernel))
            throw Error("cuModuleGetFunction", CudaResult.NotFound, $"{loaded.Name} has no kernel {name}; it has {string.Join(", ", loaded.Kernels.Keys)}");
        return new CudaFunctionHandle(_functions.Add(kernel));
    }

    /// <inheritdoc/>
    public override (DevicePointer Pointer, ulong Bytes) GetGlobal(CudaModuleHandle module, string name)
    {
        LoadedModule loaded = _modules.Get(module.Value, "cuModuleGetGlobal");
        (ulong address, long bytes) = loaded.Variable(name) ?? throw Error("cuModuleGetGlobal", CudaResult.NotFound, $"{loaded.Name} has no variable {name}");
        return (new DevicePointer(address), (ulong)bytes);
    }

    /// <inheritdoc/>
    public override int GetAttribute(FunctionAttribute attribute, CudaFunctionHandle function)
    {
        LoadedKernel kernel = _functions.Get(function.Value, "cuFuncGetAttribute");
        return attribute switch
        {
            FunctionAttribute.MaxThreadsPerBlock => kernel.MaxThreads,
            FunctionAttribute.SharedSizeBytes => kernel.Program.StaticSharedBytes,
            FunctionAttribute.LocalSizeBytes => kernel.Resources?.StackBytes ?? kernel.Program.LocalBytes,
            FunctionAttribute.RegisterCount => kernel.Registers,
            FunctionAttribute.PtxVersion or FunctionAttribute.BinaryVersion => Options.Architecture,
            FunctionAttribute.MaxDynamicSharedSizeBytes => kernel.MaxDynamicShared,
            FunctionAttribute.PreferredSharedMemoryCarveout => kernel.PreferredCarveout,
            _ => 0,
        };
    }

    /// <inheritdoc/>
    public override void SetAttribute(FunctionAttribute attribute, CudaFunctionHandle function, int value)
    {
        LoadedKernel kernel = _functions.Get(function.Value, "cuFuncSetAttribute");
        switch (attribute)
        {
            case FunctionAttribute.MaxDynamicSharedSizeBytes:
                int most = _limits.SharedOptin - kernel.Program.StaticSharedBytes;
                if (value < 0 || value > most) throw Error("cuFuncSetAttribute", CudaResult.InvalidValue, $"{value} bytes of dynamic shared memory; sm_{Options.Architecture} leaves {most} beside {kernel.Program.StaticSharedBytes} static bytes");
                kernel.MaxDynamicShared = value;
                break;
            case FunctionAttribute.PreferredSharedMemoryCarveout:
                if (value is < -1 or > 100) throw Error("cuFuncSetAttribute", CudaResult.InvalidValue, $"a carve-out of {value} percent");
                kernel.PreferredCarveout = value;
                break;
            default:
                throw Error("cuFuncSetAttribute", CudaResult.InvalidValue, $"{attribute} cannot be set");
        }
    }

    /// <inheritdoc/>
    public override IReadOnlyList<(int Offset, int Bytes)> GetParameters(CudaFunctionHandle function) =>
        [.. _functions.Get(function.Value, "cuFuncGetParamInfo").Program.Entry.Parameters.Select(p => ((int)p.Address, (int)p.Bytes))];

    /// <inheritdoc/>
    public override int MaxActiveBlocks(CudaFunctionHandle function, int blockThreads, int dynamicSharedBytes)
    {
        LoadedKernel kernel = _functions.Get(function.Value, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
        return _limits.ActiveBlocks(blockThreads, kernel.Registers, kernel.Program.StaticSharedBytes + dynamicSharedBytes);
    }

    /// <inheritdoc/>
    public override void Launch(CudaFunctionHandle function, in LaunchConfiguration configuration, ReadOnlySpan<byte> arguments)
    {
        const string call = "cuLaunchKernelEx";
        lock (_gate)
        {
            Usable(call);
            LoadedKernel kernel = _functions.Get(function.Value, call);
            int active = Check(call, kernel, in configuration, arguments.Length);
            byte[] copy = arguments.ToArray();
            LaunchConfiguration c = configuration;
            Enqueue(call, configuration.Stream, PtxParser.Demangle(kernel.Program.Name), () => Execute(kernel, c, copy, active));
        }
    }

    /// <summary>What the driver refuses at once. The result is the number of blocks a multiprocessor can hold.</summary>
    private int Check(string call, LoadedKernel kernel, in LaunchConfiguration c, int argumentBytes)
    {
        string name = PtxParser.Demangle(kernel.Program.Name);
        CudaException Refuse(CudaResult result, string why) => Error($"{call}({name}, grid {_lastGrid}, block {_lastBlock})", result, why);
        (_lastGrid, _lastBlock) = (c.Grid, c.Block);
        if (kernel.Module.Memory.Device != CurrentDevice) throw Refuse(CudaResult.InvalidContext, $"the kernel was loaded on device {kernel.Module.Memory.Device}, the current device is {CurrentDevice}");
        if (c.Grid.X <= 0 || c.Grid.Y <= 0 || c.Grid.Z <= 0 || c.Block.X <= 0 || c.Block.Y <= 0 || c.Block.Z <= 0) throw Refuse(CudaResult.InvalidValue, "every extent must be positive");
        if (c.Grid.Y > 65535 || c.Grid.Z > 65535) throw Refuse(CudaResult.InvalidValue, "the grid's y and z end at 65535");
        if (c.Block.X > 1024 || c.Block.Y > 1024 || c.Block.Z > 64 || c.Block.Count > DeviceLimits.MaxThreads) throw Refuse(CudaResult.InvalidValue, "a block has at most 1024 threads, and 64 in z");
        int threads = (int)c.Block.Count;
        if (kernel.Program.Entry.RequiredThreads is { } required && required != (c.Block.X, c.Block.Y, c.Block.Z)) throw Refuse(CudaResult.InvalidValue, $"the kernel requires blocks of {required}");
        if (threads > kernel.MaxThreads)
            throw Refuse(CudaResult.LaunchOutOfResources, $"{threads} threads, but launch bounds and {kernel.Registers} registers per thread allow {kernel.MaxThreads}");
        if (c.DynamicSharedBytes < 0 || c.DynamicSharedBytes > kernel.MaxDynamicShared)
            throw Refuse(CudaResult.InvalidValue, $"{c.DynamicSharedBytes} bytes of dynamic shared memory, but the kernel is set for {kernel.MaxDynamicShared} (MaxDynamicSharedSizeBytes)");
        if (argumentBytes != kernel.Program.ParameterBytes)
            throw Refuse(CudaResult.InvalidValue, $"{argumentBytes} bytes of arguments, but the kernel's parameters take {kernel.Program.ParameterBytes}");
        if (c.Cluster is { Count: > 1 } || kernel.Program.Entry.RequiredCluster is not null) throw Refuse(CudaResult.NotSupported, "the emulator has no clusters yet");
        int active = _limits.ActiveBlocks(threads, kernel.Registers, kernel.Program.StaticSharedBytes + c.DynamicSharedBytes);
        if (active == 0) throw Refuse(CudaResult.LaunchOutOfResources, "not even one block fits on a multiprocessor");
        if (c.Cooperative && c.Grid.Count > (long)active * _limits.Multiprocessors)
            throw Refuse(CudaResult.CooperativeLaunchTooLarge, $"{c.Grid.Count} blocks must be resident at once, {(long)active * _limits.Multiprocessors} fit");
        return active;
    }

    private Dim3 _lastGrid, _lastBlock;

    private Touches? Execute(LoadedKernel kernel, LaunchConfiguration configuration, byte[] arguments, int active)
    {
        DeviceMemory memory = kernel.Module.Memory;
        EmulatorOptions options = Options.Deleted is { } deleted && deleted.Kernel != kernel.Program.Name ? _besides : Options;
        bool tracks = TracksStreams(memory.Device) || Options.Checks.HasFlag(EmulatorChecks.Footprints) || Options.Checks.HasFlag(EmulatorChecks.StreamRaces) && kernel.Program.UsesReadOnlyPath;
        int resident = (int)Math.Min(active, (configuration.Grid.Count + _limits.Multiprocessors - 1) / _limits.Multiprocessors);
        int l1Bytes = _limits.L1Bytes(resident, kernel.Program.StaticSharedBytes + configuration.DynamicSharedBytes);
        var launch = new KernelLaunch(
            kernel.Program, configuration, arguments, options, memory, _limits.Multiprocessors, active * _limits.Multiprocessors, l1Bytes,
            address => Peer(memory.Device, address), tracks);
        launch.Execute();
        Launches++;
        Instructions = (Instructions.Warp + launch.WarpInstructions, Instructions.Thread + launch.ThreadInstructions);
        _scheduler.Time += 0.002 + launch.WarpInstructions * 1e-6;
        if (launch.Profile is not null) _profiles.Add(launch.Profile);
        if (launch.Printed.Length > 0) (Options.DeviceOutput ?? Console.Out).Write(launch.Printed);
        Options.Observer?.Launch(kernel.Program, launch.Profile);
        AddLaunchFaults(memory.Device, PtxParser.Demangle(kernel.Program.Name), launch.Reports);
        return TracksStreams(memory.Device) ? launch.Touches : null;
    }
}
