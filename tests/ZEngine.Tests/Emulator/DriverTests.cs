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
        extern "C" __global__ void number(int* at, unsigned* ticket) { at[blockIdx.x] = atomicAdd(ticket, 1u) + 1; }
        extern "C" __global__ void both(const int* x, int* y) { y[threadIdx.x] = x[threadIdx.x]; y[threadIdx.x + 64] = x[threadIdx.x + 64] * 3; }
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

    /// <summary>Buffers that begin with a granule of the allocation table and one that does not, one that was taken back, and one whose place is used again.</summary>
    [Theory]
    [InlineData(0, 64, null), InlineData(0, 65, FaultKind.OutOfBounds), InlineData(384, 1, FaultKind.OutOfBounds)]
    [InlineData(512, 256, null), InlineData(512, 257, FaultKind.OutOfBounds), InlineData(1536, 1, FaultKind.OutOfBounds)]
    [InlineData(1600, 32, null), InlineData(1600, 33, FaultKind.OutOfBounds)]
    [InlineData(2048, 1, FaultKind.UseAfterFree)]
    [InlineData(2560, 160, null), InlineData(2560, 161, FaultKind.UseAfterFree), InlineData(2432, 33, FaultKind.OutOfBounds)]
    public void Buffers_of_a_pool_are_told_apart(int offset, int count, FaultKind? expected)
    {
        using var machine = new Machine(Source);
        DevicePointer pool = machine.Driver.Allocate(8192);
        machine.Driver.SubAllocate(pool + 2048, 256, "gone");
        machine.Driver.SubAllocate(pool + 2560, 1024, "before");
        machine.Driver.SubFree(pool + 2048);
        machine.Driver.SubFree(pool + 2560);
        foreach ((int start, int bytes) in ((int, int)[])[(0, 256), (512, 1024), (1600, 128), (2560, 640)])
        {
            machine.Driver.SubAllocate(pool + start, (ulong)bytes, $"buffer at {start}");
            machine.Driver.FillAsync(pool + start, 0, 4, (ulong)bytes / 4, default);
        }
        IReadOnlyList<FaultReport> faults = machine.Run("increment", new LaunchConfiguration((count + 31) / 32, 32), pool + offset, count);
        Assert.Equal(expected, faults.SingleOrDefault()?.Kind);
    }

    /// <summary>The same of buffers so large that their parts are noted one by one, when an access comes to them.</summary>
    [Theory]
    [InlineData(0, 64, null), InlineData((3 << 20) - 256, 64, null), InlineData((3 << 20) - 256, 65, FaultKind.OutOfBounds), InlineData((3 << 20) + 256, 1, FaultKind.OutOfBounds)]
    [InlineData((3 << 20) + 512, 64, null), InlineData((5 << 20) - 128, 64, null), InlineData((5 << 20) - 128, 97, FaultKind.OutOfBounds)]
    [InlineData(9 << 20, 1, FaultKind.UseAfterFree)]
    [InlineData(10 << 20, 64, null), InlineData((13 << 20) - 256, 64, null), InlineData((13 << 20) - 256, 65, FaultKind.UseAfterFree), InlineData(14 << 20, 1, FaultKind.UseAfterFree)]
    [InlineData(16 << 20, 64, null), InlineData((18 << 20) - 4, 2, FaultKind.UseAfterFree)]
    public void Large_buffers_are_told_apart(int offset, int count, FaultKind? expected)
    {
        using var machine = new Machine(Source);
        DevicePointer gone = machine.Driver.Allocate(2 << 20), pool = machine.Driver.Allocate(64 << 20), next = machine.Driver.Allocate(2 << 20);
        void Take(int start, ulong bytes)
        {
            machine.Driver.SubAllocate(pool + start, bytes, $"buffer at {start}");
            machine.Driver.FillAsync(pool + start, 0, 4, bytes / 4, default);
        }
        Take(8 << 20, 2 << 20);
        Take(10 << 20, 5 << 20);
        Take(16 << 20, 4 << 20);
        machine.Run("increment", new LaunchConfiguration(1, 32), pool + (10 << 20), 32);
        foreach (int start in (ReadOnlySpan<int>)[8 << 20, 10 << 20, 16 << 20]) machine.Driver.SubFree(pool + start);
        Take(0, 3 << 20);
        Take((3 << 20) + 512, (2 << 20) - 256);
        Take(10 << 20, 3 << 20);
        Take(16 << 20, 2 << 20);
        machine.Driver.FillAsync(next, 0, 4, 1 << 19, default);
        machine.Driver.Free(gone);
        IReadOnlyList<FaultReport> faults = machine.Run("increment", new LaunchConfiguration((count + 31) / 32, 32), pool + offset, count);
        Assert.Equal(expected, faults.SingleOrDefault()?.Kind);
        if (expected is not null) return;
        Assert.Empty(machine.Run("increment", new LaunchConfiguration(1, 32), next + ((2 << 20) - 128), 32));
        Assert.Equal(FaultKind.UseAfterFree, Assert.Single(machine.Run("increment", new LaunchConfiguration(1, 32), gone + (1 << 20), 1)).Kind);
    }

    /// <summary>The first two and the last two of ten blocks, or all of four; and those whose numbers are a ticket's.</summary>
    [Theory, InlineData(10, false), InlineData(10, true), InlineData(4, true)]
    public void Outer_blocks_run_alone(int blocks, bool hasTicket)
    {
        ulong ticket = 0;
        var outer = new OuterBlocks(2, hasTicket ? (name, arguments) => name.Contains("number", StringComparison.Ordinal) ? ticket : null : null);
        using var machine = new Machine(Source, new EmulatorOptions { Checks = EmulatorChecks.None, OuterBlocks = outer });
        DevicePointer numbers = machine.Upload(new int[10]), counter = machine.Upload(new int[1]);
        ticket = counter.Address;
        machine.Launch("number", new LaunchConfiguration(blocks, 1), numbers, counter);
        int skipped = blocks - 4, last = hasTicket ? skipped : 0;
        Assert.Equal([1, 2, .. new int[skipped], 3 + last, 4 + last, .. new int[10 - blocks]], machine.Download<int>(numbers, 10));
        Assert.Equal([4 + last], machine.Download<int>(counter, 1));
        Assert.Empty(machine.Faults);
    }

    [Fact]
    public void Outer_blocks_need_an_order_and_no_look_at_what_was_never_written()
    {
        var options = new EmulatorOptions { Checks = EmulatorChecks.None, OuterBlocks = new OuterBlocks(1) };
        foreach (EmulatorOptions wrong in (EmulatorOptions[])[options with { Workers = 2 }, options with { Policy = SchedulingPolicy.Adversarial }, options with { Checks = EmulatorChecks.Uninitialised }])
            Assert.Throws<ArgumentException>(() => new EmulatedCudaDriver(wrong));
        Assert.Throws<ArgumentOutOfRangeException>(() => new EmulatedCudaDriver(options with { OuterBlocks = new OuterBlocks(0) }));
    }

    [Theory, InlineData(false, 2), InlineData(true, 1)]
    public void A_launch_ends_with_its_first_finding_where_that_is_asked_for(bool stops, int findings)
    {
        using var machine = new Machine(Source, new EmulatorOptions { StopsAtFinding = stops });
        DevicePointer never = machine.Empty<int>(128), y = machine.Empty<int>(128);
        Assert.Equal(findings, machine.Run("both", new LaunchConfiguration(1, 64), never, y).Count(fault => fault.Kind == FaultKind.Uninitialised));
    }

    /// <summary>A text that is loaded twice has its variables twice, whether its code names them or can be shared.</summary>
    [Theory, InlineData(false), InlineData(true)]
    public void Modules_of_one_text_have_variables_of_their_own(bool isNamed)
    {
        using var machine = new Machine($"__device__ int base = 7; extern \"C\" __global__ void add(int* x) {{ x[threadIdx.x] += {(isNamed ? "base" : "7")}; }}");
        CudaModuleHandle again = machine.Driver.LoadModule(machine.Image);
        machine.Driver.CopyToDevice<int>(machine.Driver.GetGlobal(again, "base").Pointer, [9]);
        DevicePointer x = machine.Upload(new int[32]);
        machine.Launch("add", new LaunchConfiguration(1, 32), x);
        machine.Driver.Launch(machine.Driver.GetFunction(again, "add"), new LaunchConfiguration(1, 32), BitConverter.GetBytes(x.Address));
        Assert.All(machine.Download<int>(x, 32), value => Assert.Equal(isNamed ? 16 : 14, value));
        Assert.Empty(machine.Faults);
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
