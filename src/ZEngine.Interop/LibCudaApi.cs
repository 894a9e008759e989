using System.Runtime.InteropServices;

namespace ZEngine.Interop;

/// <summary>
/// The entry points of libcuda, under their native names. The suffixes are those of CUDA 12; drivers of CUDA 13 still export them.
/// </summary>
internal sealed unsafe class LibCudaApi
{
    private readonly nint _library;

    public LibCudaApi(nint library, string path)
    {
        _library = library;
        Path = path;
        cuInit = (delegate* unmanaged<uint, int>)Export("cuInit");
        cuGetErrorName = (delegate* unmanaged<int, byte**, int>)Export("cuGetErrorName");
        cuGetErrorString = (delegate* unmanaged<int, byte**, int>)Export("cuGetErrorString");
        cuDriverGetVersion = (delegate* unmanaged<int*, int>)Export("cuDriverGetVersion");
        cuDeviceGetCount = (delegate* unmanaged<int*, int>)Export("cuDeviceGetCount");
        cuDeviceGet = (delegate* unmanaged<int*, int, int>)Export("cuDeviceGet");
        cuDeviceGetName = (delegate* unmanaged<byte*, int, int, int>)Export("cuDeviceGetName");
        cuDeviceGetAttribute = (delegate* unmanaged<int*, int, int, int>)Export("cuDeviceGetAttribute");
        cuDevicePrimaryCtxRetain = (delegate* unmanaged<nint*, int, int>)Export("cuDevicePrimaryCtxRetain");
        cuDevicePrimaryCtxRelease = (delegate* unmanaged<int, int>)Export("cuDevicePrimaryCtxRelease_v2");
        cuCtxSetCurrent = (delegate* unmanaged<nint, int>)Export("cuCtxSetCurrent");
        cuCtxSynchronize = (delegate* unmanaged<int>)Export("cuCtxSynchronize");
        cuCtxEnablePeerAccess = (delegate* unmanaged<nint, uint, int>)Export("cuCtxEnablePeerAccess");
        cuDeviceCanAccessPeer = (delegate* unmanaged<int*, int, int, int>)Export("cuDeviceCanAccessPeer");
        cuMemGetInfo = (delegate* unmanaged<nuint*, nuint*, int>)Export("cuMemGetInfo_v2");
        cuMemAlloc = (delegate* unmanaged<ulong*, nuint, int>)Export("cuMemAlloc_v2");
        cuMemFree = (delegate* unmanaged<ulong, int>)Export("cuMemFree_v2");
        cuMemAllocAsync = (delegate* unmanaged<ulong*, nuint, nint, int>)Export("cuMemAllocAsync");
        cuMemFreeAsync = (delegate* unmanaged<ulong, nint, int>)Export("cuMemFreeAsync");
        cuMemHostAlloc = (delegate* unmanaged<nint*, nuint, uint, int>)Export("cuMemHostAlloc");
        cuMemFreeHost = (delegate* unmanaged<nint, int>)Export("cuMemFreeHost");
        cuMemcpyHtoDAsync = (delegate* unmanaged<ulong, nint, nuint, nint, int>)Export("cuMemcpyHtoDAsync_v2");
        cuMemcpyDtoHAsync = (delegate* unmanaged<nint, ulong, nuint, nint, int>)Export("cuMemcpyDtoHAsync_v2");
        cuMemcpyAsync = (delegate* unmanaged<ulong, ulong, nuint, nint, int>)Export("cuMemcpyAsync");
        cuMemsetD8Async = (delegate* unmanaged<ulong, byte, nuint, nint, int>)Export("cuMemsetD8Async");
        cuMemsetD16Async = (delegate* unmanaged<ulong, ushort, nuint, nint, int>)Export("cuMemsetD16Async");
        cuMemsetD32Async = (delegate* unmanaged<ulong, uint, nuint, nint, int>)Export("cuMemsetD32Async");
        cuModuleLoadData = (delegate* unmanaged<nint*, byte*, int>)Export("cuModuleLoadData");
        cuModuleUnload = (delegate* unmanaged<nint, int>)Export("cuModuleUnload");
        cuModuleGetFunction = (delegate* unmanaged<nint*, nint, byte*, int>)Export("cuModuleGetFunction");
        cuModuleGetGlobal = (delegate* unmanaged<ulong*, nuint*, nint, byte*, int>)Export("cuModuleGetGlobal_v2");
        cuFuncGetAttribute = (delegate* unmanaged<int*, int, nint, int>)Export("cuFuncGetAttribute");
        cuFuncSetAttribute = (delegate* unmanaged<nint, int, int, int>)Export("cuFuncSetAttribute");
        cuFuncGetParamInfo = (delegate* unmanaged<nint, nuint, nuint*, nuint*, int>)Optional("cuFuncGetParamInfo");
        cuOccupancyMaxActiveBlocksPerMultiprocessor = (delegate* unmanaged<int*, nint, int, nuint, int>)Export("cuOccupancyMaxActiveBlocksPerMultiprocessor");
        cuLaunchKernelEx = (delegate* unmanaged<CUlaunchConfig*, nint, void**, void**, int>)Export("cuLaunchKernelEx");
        cuStreamCreate = (delegate* unmanaged<nint*, uint, int>)Export("cuStreamCreate");
        cuStreamDestroy = (delegate* unmanaged<nint, int>)Export("cuStreamDestroy_v2");
        cuStreamSynchronize = (delegate* unmanaged<nint, int>)Export("cuStreamSynchronize");
        cuStreamQuery = (delegate* unmanaged<nint, int>)Export("cuStreamQuery");
        cuStreamWaitEvent = (delegate* unmanaged<nint, nint, uint, int>)Export("cuStreamWaitEvent");
        cuLaunchHostFunc = (delegate* unmanaged<nint, nint, nint, int>)Export("cuLaunchHostFunc");
        cuEventCreate = (delegate* unmanaged<nint*, uint, int>)Export("cuEventCreate");
        cuEventDestroy = (delegate* unmanaged<nint, int>)Export("cuEventDestroy_v2");
        cuEventRecord = (delegate* unmanaged<nint, nint, int>)Export("cuEventRecord");
        cuEventSynchronize = (delegate* unmanaged<nint, int>)Export("cuEventSynchronize");
        cuEventQuery = (delegate* unmanaged<nint, int>)Export("cuEventQuery");
        cuEventElapsedTime = (delegate* unmanaged<float*, nint, nint, int>)Export("cuEventElapsedTime");
        cuStreamBeginCapture = (delegate* unmanaged<nint, int, int>)Export("cuStreamBeginCapture_v2");
        cuStreamEndCapture = (delegate* unmanaged<nint, nint*, int>)Export("cuStreamEndCapture");
        cuGraphInstantiate = (delegate* unmanaged<nint*, nint, ulong, int>)Export("cuGraphInstantiateWithFlags");
        cuGraphLaunch = (delegate* unmanaged<nint, nint, int>)Export("cuGraphLaunch");
        cuGraphDestroy = (delegate* unmanaged<nint, int>)Export("cuGraphDestroy");
        cuGraphExecDestroy = (delegate* unmanaged<nint, int>)Export("cuGraphExecDestroy");
    }

    public string Path { get; }

    public readonly delegate* unmanaged<uint, int> cuInit;
    public readonly delegate* unmanaged<int, byte**, int> cuGetErrorName, cuGetErrorString;
    public readonly delegate* unmanaged<int*, int> cuDriverGetVersion, cuDeviceGetCount;
    public readonly delegate* unmanaged<int*, int, int> cuDeviceGet;
    public readonly delegate* unmanaged<byte*, int, int, int> cuDeviceGetName;
    public readonly delegate* unmanaged<int*, int, int, int> cuDeviceGetAttribute, cuDeviceCanAccessPeer;
    public readonly delegate* unmanaged<nint*, int, int> cuDevicePrimaryCtxRetain;
    public readonly delegate* unmanaged<int, int> cuDevicePrimaryCtxRelease;
    public readonly delegate* unmanaged<nint, int> cuCtxSetCurrent, cuMemFreeHost, cuModuleUnload, cuStreamDestroy, cuStreamSynchronize, cuStreamQuery;
    public readonly delegate* unmanaged<nint, int> cuEventDestroy, cuEventSynchronize, cuEventQuery, cuGraphDestroy, cuGraphExecDestroy;
    public readonly delegate* unmanaged<int> cuCtxSynchronize;
    public readonly delegate* unmanaged<nint, uint, int> cuCtxEnablePeerAccess;
    public readonly delegate* unmanaged<nuint*, nuint*, int> cuMemGetInfo;
    public readonly delegate* unmanaged<ulong*, nuint, int> cuMemAlloc;
    public readonly delegate* unmanaged<ulong, int> cuMemFree;
    public readonly delegate* unmanaged<ulong*, nuint, nint, int> cuMemAllocAsync;
    public readonly delegate* unmanaged<ulong, nint, int> cuMemFreeAsync;
    public readonly delegate* unmanaged<nint*, nuint, uint, int> cuMemHostAlloc;
    public readonly delegate* unmanaged<ulong, nint, nuint, nint, int> cuMemcpyHtoDAsync;
    public readonly delegate* unmanaged<nint, ulong, nuint, nint, int> cuMemcpyDtoHAsync;
    public readonly delegate* unmanaged<ulong, ulong, nuint, nint, int> cuMemcpyAsync;
    public readonly delegate* unmanaged<ulong, byte, nuint, nint, int> cuMemsetD8Async;
    public readonly delegate* unmanaged<ulong, ushort, nuint, nint, int> cuMemsetD16Async;
    public readonly delegate* unmanaged<ulong, uint, nuint, nint, int> cuMemsetD32Async;
    public readonly delegate* unmanaged<nint*, byte*, int> cuModuleLoadData;
    public readonly delegate* unmanaged<nint*, nint, byte*, int> cuModuleGetFunction;
    public readonly delegate* unmanaged<ulong*, nuint*, nint, byte*, int> cuModuleGetGlobal;
    public readonly delegate* unmanaged<int*, int, nint, int> cuFuncGetAttribute;
    public readonly delegate* unmanaged<nint, int, int, int> cuFuncSetAttribute;
    /// <summary>Since CUDA 12.4; null before.</summary>
    public readonly delegate* unmanaged<nint, nuint, nuint*, nuint*, int> cuFuncGetParamInfo;
    public readonly delegate* unmanaged<int*, nint, int, nuint, int> cuOccupancyMaxActiveBlocksPerMultiprocessor;
    public readonly delegate* unmanaged<CUlaunchConfig*, nint, void**, void**, int> cuLaunchKernelEx;
    public readonly delegate* unmanaged<nint*, uint, int> cuStreamCreate, cuEventCreate;
    public readonly delegate* unmanaged<nint, nint, uint, int> cuStreamWaitEvent;
    public readonly delegate* unmanaged<nint, nint, nint, int> cuLaunchHostFunc;
    public readonly delegate* unmanaged<nint, nint, int> cuEventRecord, cuGraphLaunch;
    public readonly delegate* unmanaged<float*, nint, nint, int> cuEventElapsedTime;
    public readonly delegate* unmanaged<nint, int, int> cuStreamBeginCapture;
    public readonly delegate* unmanaged<nint, nint*, int> cuStreamEndCapture;
    public readonly delegate* unmanaged<nint*, nint, ulong, int> cuGraphInstantiate;

    private nint Optional(string name) => NativeLibrary.TryGetExport(_library, name, out nint address) ? address : 0;

    private nint Export(string name) =>
        Optional(name) is var address and not 0 ? address : throw new NativeLibraryException($"{Path} has no function {name}; a driver of CUDA 12 or 13 is needed.");
}

/// <summary>CUlaunchConfig of cuda.h.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct CUlaunchConfig
{
    public uint GridX, GridY, GridZ, BlockX, BlockY, BlockZ, SharedBytes;
    public nint Stream;
    public CUlaunchAttribute* Attributes;
    public uint AttributeCount;
}

/// <summary>CUlaunchAttribute of cuda.h: an identifier, and a value of up to 64 bytes at offset 8.</summary>
[StructLayout(LayoutKind.Explicit, Size = 72)]
internal struct CUlaunchAttribute
{
    public const int CooperativeId = 2, ClusterDimensionId = 4;

    [FieldOffset(0)] public int Id;
    [FieldOffset(8)] public uint X;
    [FieldOffset(12)] public uint Y;
    [FieldOffset(16)] public uint Z;
}
