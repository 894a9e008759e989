// One room: the handles and plain values of the driver interface are a few lines each.
namespace ZEngine.Interop;

/// <summary>An address in device memory. Arithmetic is in bytes.</summary>
/// <param name="Address">The address as the device sees it.</param>
public readonly record struct DevicePointer(ulong Address)
{
    /// <summary>The null address.</summary>
    public static DevicePointer Null => default;

    /// <summary>The address <paramref name="bytes"/> further on.</summary>
    public static DevicePointer operator +(DevicePointer pointer, long bytes) => new(pointer.Address + (ulong)bytes);

    /// <inheritdoc/>
    public override string ToString() => $"0x{Address:X}";
}

/// <summary>A stream; the default value is the legacy default stream.</summary>
public readonly record struct CudaStreamHandle(nint Value);

/// <summary>An event.</summary>
public readonly record struct CudaEventHandle(nint Value);

/// <summary>A loaded module.</summary>
public readonly record struct CudaModuleHandle(nint Value);

/// <summary>A kernel of a loaded module.</summary>
public readonly record struct CudaFunctionHandle(nint Value);

/// <summary>A captured graph.</summary>
public readonly record struct CudaGraphHandle(nint Value);

/// <summary>A graph made ready to launch.</summary>
public readonly record struct CudaGraphExecHandle(nint Value);

/// <summary>Three extents, x fastest; of a grid, a block or a cluster.</summary>
public readonly record struct Dim3(int X, int Y = 1, int Z = 1)
{
    /// <summary>The product of the extents.</summary>
    public long Count => (long)X * Y * Z;

    /// <summary>A one-dimensional extent.</summary>
    public static implicit operator Dim3(int x) => new(x);

    /// <summary>A one-dimensional extent.</summary>
    public static Dim3 FromInt32(int x) => new(x);

    /// <inheritdoc/>
    public override string ToString() => $"({X},{Y},{Z})";
}

/// <summary>How a kernel is launched.</summary>
/// <param name="Grid">Blocks.</param>
/// <param name="Block">Threads of a block.</param>
/// <param name="DynamicSharedBytes">Bytes of <c>extern __shared__</c> memory per block.</param>
/// <param name="Stream">The stream that orders the launch.</param>
public readonly record struct LaunchConfiguration(Dim3 Grid, Dim3 Block, int DynamicSharedBytes = 0, CudaStreamHandle Stream = default)
{
    /// <summary>Blocks of a cluster; null launches without clusters.</summary>
    public Dim3? Cluster { get; init; }

    /// <summary>All blocks must be resident at once, so that the grid may synchronise with itself.</summary>
    public bool Cooperative { get; init; }
}

/// <summary>What a device is asked for; values are those of <c>CUdevice_attribute</c>.</summary>
public enum DeviceAttribute
{
    /// <summary>Largest number of threads in a block.</summary>
    MaxThreadsPerBlock = 1,
    /// <summary>Largest block extent in x.</summary>
    MaxBlockDimX = 2,
    /// <summary>Largest block extent in y.</summary>
    MaxBlockDimY = 3,
    /// <summary>Largest block extent in z.</summary>
    MaxBlockDimZ = 4,
    /// <summary>Largest grid extent in x.</summary>
    MaxGridDimX = 5,
    /// <summary>Largest grid extent in y.</summary>
    MaxGridDimY = 6,
    /// <summary>Largest grid extent in z.</summary>
    MaxGridDimZ = 7,
    /// <summary>Bytes of shared memory a block gets without opting in to more.</summary>
    MaxSharedMemoryPerBlock = 8,
    /// <summary>Threads of a warp.</summary>
    WarpSize = 10,
    /// <summary>32-bit registers a block can use.</summary>
    MaxRegistersPerBlock = 12,
    /// <summary>Clock in kHz.</summary>
    ClockRate = 13,
    /// <summary>Number of multiprocessors.</summary>
    MultiprocessorCount = 16,
    /// <summary>The bus that the device is on.</summary>
    PciBusId = 33,
    /// <summary>Its place on the bus.</summary>
    PciDeviceId = 34,
    /// <summary>Memory clock in kHz.</summary>
    MemoryClockRate = 36,
    /// <summary>Memory bus width in bits.</summary>
    GlobalMemoryBusWidth = 37,
    /// <summary>Bytes of level-2 cache.</summary>
    L2CacheSize = 38,
    /// <summary>Threads resident on a multiprocessor.</summary>
    MaxThreadsPerMultiprocessor = 39,
    /// <summary>The domain of the bus.</summary>
    PciDomainId = 50,
    /// <summary>Major compute capability.</summary>
    ComputeCapabilityMajor = 75,
    /// <summary>Minor compute capability.</summary>
    ComputeCapabilityMinor = 76,
    /// <summary>Bytes of shared memory of a multiprocessor.</summary>
    MaxSharedMemoryPerMultiprocessor = 81,
    /// <summary>32-bit registers of a multiprocessor.</summary>
    MaxRegistersPerMultiprocessor = 82,
    /// <summary>Whether cooperative launches are possible.</summary>
    CooperativeLaunch = 95,
    /// <summary>Bytes of shared memory a block can opt in to.</summary>
    MaxSharedMemoryPerBlockOptin = 97,
    /// <summary>Bytes of shared memory the system takes from each block.</summary>
    ReservedSharedMemoryPerBlock = 111,
    /// <summary>Whether stream-ordered allocation is possible.</summary>
    MemoryPoolsSupported = 115,
    /// <summary>Whether cluster launches are possible.</summary>
    ClusterLaunch = 120,
}

/// <summary>What a kernel is asked for; values are those of <c>CUfunction_attribute</c>.</summary>
public enum FunctionAttribute
{
    /// <summary>Largest block the kernel can be launched with.</summary>
    MaxThreadsPerBlock = 0,
    /// <summary>Bytes of static shared memory.</summary>
    SharedSizeBytes = 1,
    /// <summary>Bytes of local memory per thread.</summary>
    LocalSizeBytes = 3,
    /// <summary>Registers per thread.</summary>
    RegisterCount = 4,
    /// <summary>PTX version, major * 10 + minor.</summary>
    PtxVersion = 5,
    /// <summary>Architecture of the code, major * 10 + minor.</summary>
    BinaryVersion = 6,
    /// <summary>Bytes of dynamic shared memory a launch may ask for; settable.</summary>
    MaxDynamicSharedSizeBytes = 8,
    /// <summary>Share of the L1 that is preferred as shared memory, in percent; settable.</summary>
    PreferredSharedMemoryCarveout = 9,
    /// <summary>Allows cluster sizes beyond the portable 8; settable.</summary>
    NonPortableClusterSizeAllowed = 14,
}

/// <summary>The result codes of CUDA that this project raises or tests for; values are those of <c>CUresult</c>.</summary>
public enum CudaResult
{
    /// <summary>No error.</summary>
    Success = 0,
    /// <summary>An argument is out of range.</summary>
    InvalidValue = 1,
    /// <summary>The device has no memory left.</summary>
    OutOfMemory = 2,
    /// <summary>The driver was not initialised.</summary>
    NotInitialized = 3,
    /// <summary>No such device.</summary>
    InvalidDevice = 101,
    /// <summary>The module image cannot be used on this device.</summary>
    InvalidImage = 200,
    /// <summary>No context is current, or it is unusable.</summary>
    InvalidContext = 201,
    /// <summary>Peer access between the two devices is not possible.</summary>
    PeerAccessUnsupported = 217,
    /// <summary>The PTX cannot be compiled.</summary>
    InvalidPtx = 218,
    /// <summary>An invalid handle.</summary>
    InvalidHandle = 400,
    /// <summary>No symbol of this name.</summary>
    NotFound = 500,
    /// <summary>The work has not finished yet.</summary>
    NotReady = 600,
    /// <summary>A kernel accessed memory it does not own.</summary>
    IllegalAddress = 700,
    /// <summary>Registers, shared memory or threads of the launch exceed the device.</summary>
    LaunchOutOfResources = 701,
    /// <summary>A kernel ran too long.</summary>
    LaunchTimeout = 702,
    /// <summary>Peer access is enabled already.</summary>
    PeerAccessAlreadyEnabled = 704,
    /// <summary>Peer access is not enabled.</summary>
    PeerAccessNotEnabled = 705,
    /// <summary>A trap or assertion stopped a kernel.</summary>
    Assert = 710,
    /// <summary>A kernel used an address that is not a multiple of the access size.</summary>
    MisalignedAddress = 716,
    /// <summary>An address belongs to a window this instruction cannot reach.</summary>
    InvalidAddressSpace = 717,
    /// <summary>A kernel failed.</summary>
    LaunchFailed = 719,
    /// <summary>The grid does not fit on the device at once.</summary>
    CooperativeLaunchTooLarge = 720,
    /// <summary>The operation is not supported here.</summary>
    NotSupported = 801,
    /// <summary>The stream cannot be captured or its capture has failed.</summary>
    StreamCaptureInvalidated = 901,
    /// <summary>An operation that a capturing stream does not permit.</summary>
    StreamCaptureUnsupported = 900,
    /// <summary>The capture was not started on this stream, or never joined it.</summary>
    StreamCaptureUnjoined = 904,
    /// <summary>An unknown error.</summary>
    Unknown = 999,
}
