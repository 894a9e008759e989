using ZEngine.Cuda;
using ZEngine.Emulator;
using ZEngine.Interop;

namespace ZEngine.Tests.Cuda;

/// <summary>Memory in stream order, copies through page-locked memory, errors that say who and what.</summary>
public sealed class CudaDeviceTests : IDisposable
{
    private readonly EmulatedCudaDriver _driver = new(new EmulatorOptions { DeviceMemoryBytes = 256 << 20 });
    private readonly CudaDevice _device;

    public CudaDeviceTests() => _device = Devices.OpenEmulated(_driver);

    public void Dispose()
    {
        _device.Dispose();
        _driver.Dispose();
    }

    [Fact]
    public void Values_come_back_as_they_were()
    {
        using TensorScope scope = TensorScope.Enter();
        float[] values = [.. Enumerable.Range(0, 3_000_001).Select(i => i * 0.5f)];           // three staging slots, with a rest
        Tensor x = Tensor.From<float>(values, [values.Length], _device);
        Assert.Equal(values, x.ToArray<float>());
        Assert.Equal(values, x.To(Device.Cpu).ToArray<float>());
        Assert.Equal(values.Reverse().Take(3).Reverse(), x.Slice(0, values.Length - 3, 3).ToArray<float>());
    }

    [Fact]
    public void Memory_that_is_given_back_is_handed_out_again_and_joined_with_its_neighbours()
    {
        Tensor[] parts = [.. Enumerable.Range(0, 8).Select(_ => Tensor.Empty([1 << 18], DType.Float32, _device))];
        long reserved = _device.ReservedBytes;
        foreach (Tensor part in parts) part.Dispose();
        using (Tensor whole = Tensor.Empty([7 << 18], DType.Float32, _device)) Assert.Equal(reserved, _device.ReservedBytes);
        for (int i = 0; i < 100; i++)
            using (Tensor again = Tensor.Empty([1000 + 131 * i], DType.Float32, _device)) { }
        Assert.InRange(_device.ReservedBytes, reserved, reserved + (2 << 20));
        _device.Trim();
        Assert.Equal(0, _device.ReservedBytes);
        Assert.Equal(0, _device.LiveBuffers);
    }

    [Fact]
    public void Full_memory_names_who_holds_what_and_loses_nothing()
    {
        using Tensor held = Tensor.From<float>(new float[30 << 20], [30 << 20], _device);
        var e = Assert.Throws<InsufficientMemoryException>(() => Tensor.Empty([40L << 20], DType.Float32, _device));
        // Who holds what: tensors, the largest of them, graphs, the pool, others.
        Assert.Equal("cuda:0 (Emulated A100): no memory for a tensor of 167,772,160 bytes. Tensors hold 125,829,632 bytes in 1 buffers (most in 1 of 125,829,632 bytes), captured graphs 0 of them; "
            + "the pool has 127,926,272 bytes from the driver; the device has 140,509,184 of 268,435,456 bytes free, other processes and the driver hold 0.", e.Message);
        using Tensor small = Tensor.Empty([1 << 20], DType.Float32, _device);                 // the device goes on
        Assert.Equal(0, held.Slice(0, 100, 1).Item());
    }

    [Fact]
    public void Idle_memory_makes_way_for_what_does_not_fit_beside_it()
    {
        for (int i = 1; i <= 3; i++)
            using (Tensor big = Tensor.Empty([(i * 20L) << 20], DType.Float32, _device)) Assert.False(big.IsDisposed);
    }

    [Fact]
    public void Work_is_queued_and_the_host_waits_only_where_it_reads()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.From<float>([1, 2, 3, 4], [4], _device);
        (long launches, long waits) = (_device.Launches, _device.Waits);
        Tensor y = ZEngine.Ops.Scale(ZEngine.Ops.Add(x, x), 0.5f);
        Assert.Equal((launches + 2, waits), (_device.Launches, _device.Waits));
        Assert.Equal([1, 2, 3, 4], y.ToArray<float>());
        Assert.Equal(waits + 1, _device.Waits);
    }

    [Fact]
    public void Error_of_a_kernel_comes_with_the_next_wait_or_at_once_when_asked()
    {
        using var driver = new EmulatedCudaDriver();
        using CudaDevice device = Devices.OpenEmulated(driver, new CudaOptions { IsSynchronous = true });
        CudaModule module = device.Compile("extern \"C\" __global__ void beyond(float* x, int n) { x[n + threadIdx.x] = 1; }", "beyond.cu");
        using Tensor x = Tensor.Zeros([8], DType.Float32, device);
        var e = Assert.Throws<CudaException>(() => module.Kernel("beyond").Launch(1, 32, x, 8));
        Assert.Contains("launch of beyond", e.Message, StringComparison.Ordinal);
        Assert.Contains("beyond.cu", e.Message, StringComparison.Ordinal);
    }

    /// <summary>ZENGINE_SYNC=1 makes waiting after every launch the default.</summary>
    [Theory, InlineData("1", 1), InlineData("0", 0), InlineData(null, 0)]
    public void Variable_makes_launches_wait(string? value, long waitsOfLaunch)
    {
        string? before = Environment.GetEnvironmentVariable("ZENGINE_SYNC");
        try
        {
            Environment.SetEnvironmentVariable("ZENGINE_SYNC", value);
            using var driver = new EmulatedCudaDriver();
            using CudaDevice device = Devices.OpenEmulated(driver);
            using Tensor x = Tensor.Zeros([8], DType.Float32, device);
            long waits = device.Waits;
            ZEngine.Ops.Scale(x, 2).Dispose();
            Assert.Equal(waits + waitsOfLaunch, device.Waits);
        }
        finally
        {
            Environment.SetEnvironmentVariable("ZENGINE_SYNC", before);
        }
    }

    /// <summary>Tensors are parts of larger allocations, and the emulator knows each: a kernel that leaves its own, or reads one that was given back, is told which.</summary>
    [Fact]
    public void Kernel_that_leaves_its_tensor_is_told_so_though_the_pool_goes_on()
    {
        string Report(Func<Tensor, Tensor, KernelArgument[]> arguments, string source)
        {
            using var driver = new EmulatedCudaDriver();
            using CudaDevice device = Devices.OpenEmulated(driver, new CudaOptions { IsSynchronous = true });
            CudaModule module = device.Compile(source, "beyond.cu");
            using Tensor x = Tensor.Zeros([8], DType.Float32, device), neighbour = Tensor.Zeros([8], DType.Float32, device);
            return Assert.Throws<CudaException>(() => module.Kernel("beyond").Launch(1, 32, arguments(x, neighbour))).Message;
        }
        string beyond = Report((x, _) => [x], "extern \"C\" __global__ void beyond(float* x)\n{\n    x[threadIdx.x] = 1;\n}\n");
        foreach (string part in (string[])["OutOfBounds", "beyond.cu:3", "0 bytes past the end of", "tensor of 32 bytes"]) Assert.Contains(part, beyond, StringComparison.Ordinal);
        string after = Report((x, neighbour) =>
        {
            long address = neighbour.Address;
            neighbour.Dispose();
            return [x, address];
        }, "extern \"C\" __global__ void beyond(float* x, const float* y)\n{\n    if (threadIdx.x < 8)\n        x[threadIdx.x] = y[threadIdx.x];\n}\n");
        foreach (string part in (string[])["UseAfterFree", "beyond.cu:4", "in buffer #1 \"tensor of 32 bytes\" 32 B", "freed"]) Assert.Contains(part, after, StringComparison.Ordinal);
    }

    /// <summary>Who breaks a barrier reads which variable, which lines of the kernel, also through headers, and which threads.</summary>
    [Fact]
    public void Missing_barrier_is_reported_with_variable_lines_and_threads()
    {
        using var driver = new EmulatedCudaDriver();
        using CudaDevice device = Devices.OpenEmulated(driver, new CudaOptions { IsSynchronous = true });
        CudaModule module = device.Compile("""
            #include "common/Copy.cuh"
            extern "C" __global__ void turn(const float* x, float* y)
            {
                __shared__ __align__(16) float sRow[256];
                sRow[threadIdx.x] = x[threadIdx.x];
                float four[4];
                load<4>(four, sRow + (255 - threadIdx.x) / 4 * 4);
                y[threadIdx.x] = four[threadIdx.x % 4];
            }
            """, "turn.cu");
        using Tensor x = Tensor.Zeros([256], DType.Float32, device), y = Tensor.Zeros([256], DType.Float32, device);
        string report = Assert.Throws<CudaException>(() => module.Kernel("turn").Launch(1, 256, x, y)).Message;
        foreach (string part in (string[])["SharedRace: read after write of sRow + 0x", "kernel    turn  module turn.cu", "load inlined at turn.cu:7", "st.shared.f32  turn.cu:5", "thread (0,0,0)", "no barrier between"])
            Assert.Contains(part, report, StringComparison.Ordinal);
    }

    [Fact]
    public void Marks_are_reached_in_order_and_timed()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([1 << 16], DType.Float32, _device);
        using CudaEvent start = _device.Record(isTimed: true);
        ZEngine.Ops.Scale(x, 2);
        using CudaEvent end = _device.Record(isTimed: true);
        end.Wait();
        Assert.True(start.IsReached && end.IsReached);
        Assert.InRange(CudaEvent.ElapsedMs(start, end), 0, 60_000);
        start.Record();
        start.Wait();
        Assert.InRange(CudaEvent.ElapsedMs(end, start), 0, 60_000);
    }

    [Fact]
    public void Own_kernel_runs_under_the_tape()
    {
        const string source = """
            #include "common/Types.cuh"
            extern "C" __global__ void cube(const float* x, float* y, float factor, int n)
            {
                const int i = blockIdx.x * blockDim.x + threadIdx.x;
                if (i < n) y[i] = factor * x[i] * x[i] * x[i];
            }
            """;
        using CudaModule module = _device.Compile(source, "cube.cu");
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Tensor.From<float>([1, -2, 3], [3], _device));
        Tensor y = Tensor.EmptyLike(x);
        module.Kernel("cube").Launch(1, 32, x, y, 2f, 3);
        Tape.Record(y, [x], dy => [ZEngine.Ops.Multiply(dy, ZEngine.Ops.Scale(ZEngine.Ops.Multiply(x, x), 6))]);
        tape.Backward(ZEngine.Ops.Sum(y));
        Assert.Equal([2, -16, 54], y.ToArray<float>());
        Assert.Equal([6, 24, 54], tape.GradientOf(x).ToArray<float>());

        Assert.Contains("has 4 parameters, got 2", Assert.Throws<ArgumentException>(() => module.Kernel("cube").Launch(1, 32, x, x)).Message, StringComparison.Ordinal);
        Assert.Contains("parameter 2 has 4 bytes", Assert.Throws<ArgumentException>(() => module.Kernel("cube").Launch(1, 32, x, x, 2.0, 3)).Message, StringComparison.Ordinal);
        Assert.Contains("must be on a CUDA device", Assert.Throws<ArgumentException>(() => { using Tensor cpu = Tensor.Zeros([1], DType.Float32, Device.Cpu); module.Kernel("cube").Launch(1, 32, cpu, x, 2f, 3); }).Message, StringComparison.Ordinal);
        var wrong = Assert.Throws<NvrtcException>(() => _device.Compile("extern \"C\" __global__ void wrong() { nothing(); }", "wrong.cu"));
        Assert.StartsWith("wrong.cu(1): error:", wrong.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Tensors_of_two_devices_do_not_mix()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor here = Tensor.Zeros([2], DType.Float32, _device), there = Tensor.Zeros([2], DType.Float32, Device.Cpu);
        Assert.Contains("Add: b is on cpu but the tensors before it are on cuda:0", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Add(here, there)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Device_that_is_not_there_is_an_error()
    {
        Assert.Contains("There are 1 CUDA devices", Assert.Throws<ArgumentOutOfRangeException>(() => CudaDevice.Open(1, _driver)).Message, StringComparison.Ordinal);
        if (!CudaDevice.IsAvailable) Assert.Contains("CUDA driver", Assert.Throws<NativeLibraryException>(() => CudaDevice.Open(0)).Message, StringComparison.Ordinal);
    }

    /// <summary>A machine that has a driver and no compiler runs the PTX made when the assembly was packed; what is not in the pack is an error that names it.</summary>
    [Fact]
    public void Kernels_without_a_compiler_come_from_the_pack()
    {
        var stream = new MemoryStream();
        int count = PackedKernels.Write(stream, Interop.Compiler.Nvrtc, [80], name => name is "Elementwise.cu" or "GatedActivation.cu");
        stream.Position = 0;
        Dictionary<(int Architecture, string Expression), ModuleImage> pack = PackedKernels.Read(stream);
        Assert.Equal(count, pack.Count);
        using var driver = new EmulatedCudaDriver(new EmulatorOptions { Architecture = 89 });
        using CudaDevice device = CudaDevice.Open(0, driver, new CudaOptions { Compiler = () => throw new NativeLibraryException("It is hidden."), Pack = () => pack });
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.From<float>([1, 2, 3], [1, 3], device);
        Assert.Equal([2, 8, 18], ZEngine.Ops.GatedActivation(ZEngine.Ops.Add(x, x), x, Pointwise.Relu).ToArray<float>());
        var e = Assert.Throws<NativeLibraryException>(() => ZEngine.Ops.Sum(x));
        Assert.Contains("no compiler and no packed PTX for reduce", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("It is hidden.", e.Message, StringComparison.Ordinal);
    }
}
