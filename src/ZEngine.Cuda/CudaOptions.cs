namespace ZEngine.Cuda;

/// <summary>How a <see cref="CudaDevice"/> behaves.</summary>
public sealed record CudaOptions
{
    /// <summary>Environment variable: <c>1</c> makes <see cref="IsSynchronous"/> the default.</summary>
    public const string SyncVariable = "ZENGINE_SYNC";

    /// <summary>Wait after every launch, so that an asynchronous fault names the kernel that made it. For debugging: it is slow.</summary>
    public bool IsSynchronous { get; init; } = Environment.GetEnvironmentVariable(SyncVariable) == "1";

    /// <summary>Let products of Float32 round their operands to TF32 (10 bits of mantissa) for the tensor cores. Off: full Float32.</summary>
    public bool AllowsTf32 { get; init; }

    /// <summary>
    /// Let cuBLASLt compute matrix products where this machine has it and it takes them (<see cref="CudaDevice.MatMulSource"/>); the engine's own kernels compute
    /// all others: those of few rows, of operands of two types, of a 16-bit result with a bias, and those with an activation that is not <see cref="Pointwise.Relu"/> or, where
    /// the result has 16 bits or TF32 is allowed, <see cref="Pointwise.GeluTanh"/>. <c>ZENGINE_CUBLASLT=off</c> makes false the default.
    /// </summary>
    /// <remarks>Either way gives the same bits at each run, but not the bits of the other.</remarks>
    public bool UsesCublasLt { get; init; } = Environment.GetEnvironmentVariable(Interop.NativeLibraries.CublasLtVariable) != Interop.NativeLibraries.Off;

    /// <summary>Folder for compiled kernels; null for the user's cache folder.</summary>
    public string? CacheFolder { get; init; }

    /// <summary>The compiler; tests hide it.</summary>
    internal Func<Interop.Nvrtc> Compiler { get; init; } = Interop.Nvrtc.Load;

    /// <summary>The library of matrix products; tests put a stub here.</summary>
    internal Func<Interop.CublasLt> CublasLt { get; init; } = Interop.CublasLt.Load;

    /// <summary>The packed kernels by architecture and instance, for machines without a compiler.</summary>
    internal Func<IReadOnlyDictionary<(int Architecture, string Expression), Interop.ModuleImage>> Pack { get; init; } = () => PackedKernels.Own;
}
