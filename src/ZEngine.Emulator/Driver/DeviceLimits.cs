using ZEngine.Interop;

namespace ZEngine.Emulator.Driver;

/// <summary>What a launch may ask of an architecture (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").</summary>
internal sealed record DeviceLimits(int Architecture, int Multiprocessors, int ThreadsPerMultiprocessor, int BlocksPerMultiprocessor, int SharedPerMultiprocessor, int SharedOptin, string Name)
{
    public const int SharedDefault = 48 * 1024, ReservedShared = 1024, Registers = 65536, MaxThreads = 1024;

    public static DeviceLimits Of(int architecture) => architecture switch
    {
        80 => new(80, 108, 2048, 32, 164 * 1024, 163 * 1024, "Emulated A100"),
        86 => new(86, 84, 1536, 16, 100 * 1024, 99 * 1024, "Emulated A40"),
        87 => new(87, 16, 1536, 16, 164 * 1024, 163 * 1024, "Emulated Orin"),
        89 => new(89, 128, 1536, 24, 100 * 1024, 99 * 1024, "Emulated L40"),
        90 => new(90, 132, 2048, 32, 228 * 1024, 227 * 1024, "Emulated H100"),
        _ => throw new ArgumentOutOfRangeException(nameof(architecture), architecture, "the emulator knows sm_80, 86, 87, 89 and 90"),
    };

    public int Get(DeviceAttribute attribute) => attribute switch
    {
        DeviceAttribute.MaxThreadsPerBlock or DeviceAttribute.MaxBlockDimX or DeviceAttribute.MaxBlockDimY => MaxThreads,
        DeviceAttribute.MaxBlockDimZ => 64,
        DeviceAttribute.MaxGridDimX => int.MaxValue,
        DeviceAttribute.MaxGridDimY or DeviceAttribute.MaxGridDimZ => 65535,
        DeviceAttribute.MaxSharedMemoryPerBlock => SharedDefault,
        DeviceAttribute.WarpSize => 32,
        DeviceAttribute.MaxRegistersPerBlock or DeviceAttribute.MaxRegistersPerMultiprocessor => Registers,
        DeviceAttribute.ClockRate => 1_410_000,
        DeviceAttribute.MultiprocessorCount => Multiprocessors,
        DeviceAttribute.MemoryClockRate => 1_215_000,
        DeviceAttribute.GlobalMemoryBusWidth => 5120,
        DeviceAttribute.L2CacheSize => 40 << 20,
        DeviceAttribute.MaxThreadsPerMultiprocessor => ThreadsPerMultiprocessor,
        DeviceAttribute.ComputeCapabilityMajor => Architecture / 10,
        DeviceAttribute.ComputeCapabilityMinor => Architecture % 10,
        DeviceAttribute.MaxSharedMemoryPerMultiprocessor => SharedPerMultiprocessor,
        DeviceAttribute.CooperativeLaunch or DeviceAttribute.MemoryPoolsSupported => 1,
        DeviceAttribute.MaxSharedMemoryPerBlockOptin => SharedOptin,
        DeviceAttribute.ReservedSharedMemoryPerBlock => ReservedShared,
        DeviceAttribute.ClusterLaunch or DeviceAttribute.PciDeviceId or DeviceAttribute.PciDomainId => 0,
        _ => throw new ArgumentOutOfRangeException(nameof(attribute), attribute, "the emulator has no such attribute"),
    };

    /// <summary>Blocks of a kernel that fit on one multiprocessor.</summary>
    public int ActiveBlocks(int threads, int registers, int sharedBytes)
    {
        int warps = (threads + 31) / 32;
        int blocks = Math.Min(BlocksPerMultiprocessor, ThreadsPerMultiprocessor / (warps * 32));
        blocks = Math.Min(blocks, Registers / Math.Max(1, RegistersOfWarp(registers) * warps));
        return Math.Min(blocks, SharedPerMultiprocessor / (sharedBytes + ReservedShared));
    }

    /// <summary>What resident blocks leave to the L1 cache of the memory that it shares with them: 28 KiB beside the most that is shared.</summary>
    public int L1Bytes(int blocks, int sharedBytes) => 28 * 1024 + SharedPerMultiprocessor - blocks * (sharedBytes + ReservedShared);

    // Registers are given out in units of 256 per warp.
    public static int RegistersOfWarp(int registers) => (registers * 32 + 255) / 256 * 256;
}
