using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ZEngine.Interop;
using Xunit;

namespace ZEngine.Tests.Interop;

/// <summary>The binding to libcuda against a stub in C: what arrives there is what was meant, field by field.</summary>
public sealed unsafe class LibCudaDriverTests
{
    private static readonly NativeStub Stub = new("libcuda_stub.c");

    private static LibCudaDriver Open() => new(Stub.Path);

    [Fact]
    public void Structures_have_the_sizes_of_the_header()
    {
        using LibCudaDriver driver = Open();
        var size = (delegate* unmanaged<int, nuint>)Stub.Symbol("stub_size");
        Assert.Equal((int)size(0), sizeof(CUlaunchConfig));
        Assert.Equal((int)size(1), sizeof(CUlaunchAttribute));
    }

    [Fact]
    public void A_launch_arrives_field_by_field()
    {
        using LibCudaDriver driver = Open();
        CudaModuleHandle module = driver.LoadModule(new ModuleImage { Name = "m", Architecture = "sm_80", Ptx = "." });
        Assert.Equal(0x200 + '.', module.Value);
        CudaFunctionHandle function = driver.GetFunction(module, "known");
        CudaStreamHandle stream = driver.CreateStream();
        Assert.Equal(0x501, stream.Value);
        driver.Launch(function, new LaunchConfiguration(new Dim3(1, 2, 3), new Dim3(4, 5, 6), 7, stream) { Cluster = new Dim3(8, 9, 10), Cooperative = true }, new byte[] { 11, 12, 13 });
        var launch = (byte*)((delegate* unmanaged<nint>)Stub.Symbol("stub_launch"))();
        var config = Unsafe.Read<CUlaunchConfig>(launch);
        Assert.Equal(new uint[] { 1, 2, 3, 4, 5, 6, 7 }, new[] { config.GridX, config.GridY, config.GridZ, config.BlockX, config.BlockY, config.BlockZ, config.SharedBytes });
        Assert.Equal((stream.Value, 2u), (config.Stream, config.AttributeCount));
        var attributes = (CUlaunchAttribute*)(launch + sizeof(CUlaunchConfig));
        Assert.Equal((2, 1u), (attributes[0].Id, attributes[0].X));
        Assert.Equal((4, 8u, 9u, 10u), (attributes[1].Id, attributes[1].X, attributes[1].Y, attributes[1].Z));
        byte* arguments = launch + sizeof(CUlaunchConfig) + 4 * sizeof(CUlaunchAttribute);
        Assert.Equal([11, 12, 13], new ReadOnlySpan<byte>(arguments, 3).ToArray());
        Assert.Equal(3ul, *(ulong*)(arguments + 256));
    }

    [Fact]
    public void Copies_and_fills_move_bytes()
    {
        using LibCudaDriver driver = Open();
        DevicePointer a = driver.Allocate(64), b = driver.Allocate(64);
        driver.CopyToDevice<int>(a, [.. Enumerable.Range(0, 16)]);
        driver.CopyOnDeviceAsync(b, a, 64, default);
        driver.FillAsync(b + 4, 0xABCD, 2, 1, default);
        driver.FillAsync(b + 8, 0x12345678, 4, 1, default);
        driver.FillAsync(b + 12, 0xEE, 1, 4, default);
        int[] back = new int[16];
        driver.CopyToHost<int>(back, b);
        Assert.Equal([0, 0xABCD, 0x12345678, unchecked((int)0xEEEEEEEE), 4, 5], back[..6]);
        driver.Free(a);
        driver.Free(b);
    }

    [Fact]
    public void Queries_answer_and_devices_switch()
    {
        using LibCudaDriver driver = Open();
        Assert.Equal((2, 12040), (driver.DeviceCount, driver.Version));
        Assert.Equal("Stub 1", driver.DeviceName(1));
        Assert.Equal(1075, driver.GetAttribute(DeviceAttribute.ComputeCapabilityMajor, 1));
        Assert.Equal((123ul, 456ul), driver.MemoryInfo());
        Assert.False(driver.StreamQuery(driver.CreateStream()));
        Assert.True(driver.StreamQuery(driver.CreateStream(nonBlocking: false)));
        Assert.Equal([(0, 8), (8, 4)], driver.GetParameters(new CudaFunctionHandle(1)));
        Assert.Equal(11, driver.GetAttribute(FunctionAttribute.RegisterCount, new CudaFunctionHandle(1)));
        driver.SetAttribute(FunctionAttribute.MaxDynamicSharedSizeBytes, new CudaFunctionHandle(1), 65536);
        driver.EnablePeerAccess(1);
        driver.CurrentDevice = 1;
        Assert.Equal(1, driver.CurrentDevice);
        bool called = false;
        driver.LaunchHostFunction(default, () => called = true);
        Assert.True(called);
        Assert.Equal(1.5f, driver.EventElapsedMs(driver.CreateEvent(timing: true), driver.CreateEvent(timing: true)));
    }

    [Fact]
    public void Failures_carry_call_name_and_message()
    {
        using LibCudaDriver driver = Open();
        CudaException memory = Assert.Throws<CudaException>(() => driver.Allocate(1ul << 50));
        Assert.Equal(CudaResult.OutOfMemory, memory.Result);
        Assert.Contains("cuMemAlloc", memory.Message, StringComparison.Ordinal);
        Assert.Contains("CUDA_ERROR_OUT_OF_MEMORY (2): out of memory", memory.Message, StringComparison.Ordinal);
        Assert.Contains("cuModuleGetFunction(unknown): CUDA_ERROR_NOT_FOUND", Assert.Throws<CudaException>(() => driver.GetFunction(default, "unknown")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_library_names_itself()
    {
        NativeLibraryException missing = Assert.Throws<NativeLibraryException>(() => new LibCudaDriver("/nowhere/libcuda.so.1"));
        Assert.Contains(NativeLibraries.CudaVariable, missing.Message, StringComparison.Ordinal);
    }
}
