using ZEngine.Emulator;
using ZEngine.Interop;
using Xunit;

namespace ZEngine.Tests.Emulator;

/// <summary>What the emulated driver does around kernels: streams, events, graphs, pools, limits, addresses beyond 2^31 elements.</summary>
public sealed unsafe class DriverTests
{
    private const string Source = """
        extern "C" __global__ void increment(int* x, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] += 1; }
        extern "C" __global__ void far(const float* x, float* out, long long at) { out[threadIdx.x] = x[at + threadIdx.x] + 1; }
        extern "C" __global__ void __launch_bounds__(64) bounded(int* x) { x[threadIdx.x] = 1; }
        """;

    [Fact]
    public void A_missing_event_is_a_stream_race_and_an_event_is_none()
    {
        foreach (bool hasEvent in (bool[])[true, false])
        {
            for (ulong seed = 1; seed <= 4; seed++)
            {
                using var machine = new Machine(Source, new EmulatorOptions { Seed = seed });
                DevicePointer x = machine.Upload(new int[64], "x");
                CudaStreamHandle first = machine.Driver.CreateStream(), second = machine.Driver.CreateStream();
                machine.Launch("increment", new LaunchConfiguration(1, 64, 0, first), x, 64);
                CudaEventHandle done = machine.Driver.CreateEvent();
                machine.Driver.RecordEvent(done, first);
                if (hasEvent) machine.Driver.StreamWaitEvent(second, done);
                machine.Launch("increment", new LaunchConfiguration(1, 64, 0, second), x, 64);
                if (hasEvent)
                {
                    machine.Driver.Synchronize();
                    Assert.Empty(machine.Faults);
                    Assert.All(machine.Download<int>(x, 64), v => Assert.Equal(2, v));
                }
                else
                {
                    Assert.Throws<EmulatorFaultException>(machine.Driver.Synchronize);
                    Assert.Equal(FaultKind.StreamRace, Assert.Single(machine.Faults).Kind);
                }
            }
        }
    }

    [Fact]
    public void A_captured_graph_replays()
    {
        using var machine = new Machine(Source);
        DevicePointer x = machine.Upload(new int[64]);
        CudaStreamHandle stream = machine.Driver.CreateStream();
        machine.Driver.BeginCapture(stream);
        machine.Launch("increment", new LaunchConfiguration(1, 64, 0, stream), x, 64);
        machine.Launch("increment", new LaunchConfiguration(1, 64, 0, stream), x, 64);
        CudaGraphExecHandle graph = machine.Driver.InstantiateGraph(machine.Driver.EndCapture(stream));
        for (int k = 0; k < 3; k++) machine.Driver.LaunchGraph(graph, stream);
        machine.Driver.StreamSynchronize(stream);
        Assert.All(machine.Download<int>(x, 64), v => Assert.Equal(6, v));
    }

    [Fact]
    public void Buffers_beyond_two_to_the_31_elements_cost_nothing()
    {
        using var machine = new Machine(Source);
        const long elements = 5L << 30;                                              // 20 GiB of floats
        DevicePointer x = machine.Driver.Allocate(4 * (ulong)elements), y = machine.Empty<float>(32);
        machine.Driver.CopyToDevice<float>(x + 4 * (elements - 32), [.. Enumerable.Range(0, 32).Select(k => (float)k)]);
        machine.Launch("far", new LaunchConfiguration(1, 32), x, y, elements - 32);
        Assert.Equal(32f, machine.Download<float>(y, 32)[31]);
        Assert.Empty(machine.Faults);
    }

    [Fact]
    public void An_overrun_of_a_pools_buffer_is_seen()
    {
        using var machine = new Machine(Source);
        DevicePointer pool = machine.Driver.Allocate(4096);
        machine.Driver.SubAllocate(pool, 256, "left");
        machine.Driver.SubAllocate(pool + 512, 256, "right");
        machine.Driver.Synchronize();
        machine.Driver.FillAsync(pool, 0, 4, 64, default);
        machine.Driver.FillAsync(pool + 512, 0, 4, 64, default);
        FaultReport fault = Assert.Single(machine.Run("increment", new LaunchConfiguration(1, 96), pool, 65));
        Assert.Equal(FaultKind.OutOfBounds, fault.Kind);
    }

    [Fact]
    public void The_driver_refuses_what_a_gpu_refuses()
    {
        using var machine = new Machine(Source);
        DevicePointer x = machine.Upload(new int[64]);
        void Refused(CudaResult result, Action call) => Assert.Equal(result, Assert.Throws<CudaException>(call).Result);
        Refused(CudaResult.LaunchOutOfResources, () => machine.Launch("bounded", new LaunchConfiguration(1, 128), x));
        Refused(CudaResult.InvalidValue, () => machine.Launch("increment", new LaunchConfiguration(1, 2048), x, 64));
        Refused(CudaResult.InvalidValue, () => machine.Launch("increment", new LaunchConfiguration(0, 32), x, 64));
        Refused(CudaResult.InvalidValue, () => machine.Launch("increment", new LaunchConfiguration(new Dim3(1, 70000), 32), x, 64));
        Refused(CudaResult.InvalidValue, () => machine.Launch("increment", new LaunchConfiguration(1, 32, 200_000), x, 64));
        Refused(CudaResult.CooperativeLaunchTooLarge, () => machine.Launch("increment", new LaunchConfiguration(1 << 20, 32) { Cooperative = true }, x, 64));
        Refused(CudaResult.InvalidValue, () => machine.Driver.CopyToDevice<int>(x, new int[65]));
        Refused(CudaResult.OutOfMemory, () => machine.Driver.Allocate(1ul << 45));
        machine.Driver.Free(x);
        Refused(CudaResult.InvalidValue, () => machine.Driver.Free(x));
        DevicePointer other = machine.Upload(new int[64]);
        Assert.Equal(FaultKind.UseAfterFree, Assert.Single(machine.Run("increment", new LaunchConfiguration(1, 64), x, 64)).Kind);
        Assert.Throws<EmulatorFaultException>(() => machine.Download<int>(other, 64));
    }

    [Fact]
    public void Peer_memory_needs_permission()
    {
        foreach (bool isAllowed in (bool[])[true, false])
        {
            using var machine = new Machine(Source, new EmulatorOptions { Devices = 2 });
            machine.Driver.CurrentDevice = 1;
            DevicePointer x = machine.Upload(new int[64]);
            machine.Driver.CurrentDevice = 0;
            if (isAllowed) machine.Driver.EnablePeerAccess(1);
            Assert.Equal(isAllowed ? 0 : 1, machine.Run("increment", new LaunchConfiguration(1, 64), x, 64).Count);
        }
    }
}
