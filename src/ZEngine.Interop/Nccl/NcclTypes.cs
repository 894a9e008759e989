// Types of nccl.h, as a library of version 2.18 or later takes them.
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>What names a communicator to be: made by one rank, brought to the others by other means.</summary>
[InlineArray(Bytes)]
public struct NcclUniqueId
{
    /// <summary>Its size.</summary>
    public const int Bytes = 128;

    private byte _first;
}

/// <summary>Element types, stable since NCCL 2.10.</summary>
public enum NcclType
{
    /// <summary>8-bit signed.</summary>
    Int8 = 0,
    /// <summary>8-bit unsigned.</summary>
    UInt8 = 1,
    /// <summary>32-bit signed.</summary>
    Int32 = 2,
    /// <summary>64-bit signed.</summary>
    Int64 = 4,
    /// <summary>binary16.</summary>
    Float16 = 6,
    /// <summary>binary32.</summary>
    Float32 = 7,
    /// <summary>The upper half of a binary32.</summary>
    BFloat16 = 9,
}

/// <summary>Reductions.</summary>
public enum NcclOperation
{
    /// <summary>The sum.</summary>
    Sum = 0,
    /// <summary>The largest.</summary>
    Max = 2,
    /// <summary>The smallest.</summary>
    Min = 3,
}

/// <summary>Results that mean something above the binding; every other but success is an error.</summary>
public enum NcclResult
{
    /// <summary>Done.</summary>
    Success = 0,
    /// <summary>A non-blocking communicator is still at it.</summary>
    InProgress = 7,
}

/// <summary>
/// The newest ncclConfig_t. Libraries copy what they know of it by the size it states, and reset what is newer than the version it states: with the
/// prefix of 2.18 every library from there on takes it, as long as what 2.26 put into its padding reads "undefined".
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct NcclConfig
{
    private const int Undefined = int.MinValue, PrefixBytes = 48, PrefixVersion = 21805;
    private const uint Magic = 0xcafebeef;

    public nuint Size;
    public uint MagicNumber;
    public int Version;
    public int Blocking, CgaClusterSize, MinCtas, MaxCtas;
    public nint NetName;
    public int SplitShare, TrafficClass;
    public nint CommName;
    public int CollnetEnable, CtaPolicy, ShrinkShare, NvlsCtas, ChannelsPerNetPeer, NvlinkCentricScheduling, GraphUsageMode, RmaContexts, MaxP2pPeers, GraphStreamOrdering;

    /// <summary>A non-blocking communicator: the only kind that is safe to abort.</summary>
    public static NcclConfig NonBlocking
    {
        get
        {
            // INT_MIN is NCCL's "undefined"; its own macro says so.
            var config = new NcclConfig { Size = PrefixBytes, MagicNumber = Magic, Version = PrefixVersion, Blocking = 0 };
            config.CgaClusterSize = config.MinCtas = config.MaxCtas = config.SplitShare = config.TrafficClass = Undefined;
            config.CollnetEnable = config.CtaPolicy = config.ShrinkShare = config.NvlsCtas = config.ChannelsPerNetPeer = config.NvlinkCentricScheduling = Undefined;
            config.GraphUsageMode = config.RmaContexts = config.MaxP2pPeers = config.GraphStreamOrdering = Undefined;
            return config;
        }
    }
}
