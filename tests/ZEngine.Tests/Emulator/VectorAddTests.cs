using ZEngine.Emulator;
using ZEngine.Interop;
using Xunit;

namespace ZEngine.Tests.Emulator;

public sealed class VectorAddTests
{
    private const string Source = """
        extern "C" __global__ void add(const float* a, const float* b, float* c, int n)
        {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < n) c[i] = a[i] + b[i];
        }
        """;

    [Fact]
    public void Adds_under_every_policy_and_check()
    {
        float[] a = [.. Enumerable.Range(0, 1000).Select(k => k * 0.5f)], b = [.. Enumerable.Range(0, 1000).Select(k => 1000f - k)];
        foreach (SchedulingPolicy policy in Enum.GetValues<SchedulingPolicy>())
        {
            using var machine = new Machine(Source, new EmulatorOptions { Policy = policy, Checks = EmulatorChecks.All });
            DevicePointer x = machine.Upload(a), y = machine.Upload(b), z = machine.Empty<float>(1000);
            machine.Launch("add", new LaunchConfiguration(4, 256), x, y, z, 1000);
            float[] c = machine.Download<float>(z, 1000);
            for (int k = 0; k < 1000; k++) Assert.Equal(a[k] + b[k], c[k]);
            Assert.Empty(machine.Faults);
            Assert.Equal(4000, machine.Profile[InstructionClass.GlobalStore].Bytes);
            // A warp that was split asks in several requests, so sectors are a measure only where warps stay whole.
            if (policy == SchedulingPolicy.Converge) Assert.Equal(250, machine.Profile[InstructionClass.GlobalLoad].Sectors);
        }
    }

    [Fact]
    public void Reports_a_store_past_the_end_with_source_line()
    {
        using var machine = new Machine(Source);
        DevicePointer x = machine.Upload(new float[64]), y = machine.Upload(new float[64]), z = machine.Empty<float>(63);
        FaultReport fault = Assert.Single(machine.Run("add", new LaunchConfiguration(1, 64), x, y, z, 64));
        Assert.Equal(FaultKind.OutOfBounds, fault.Kind);
        Assert.Equal(4, fault.SourceLine);
        Assert.Contains("thread (63,0,0)", fault.Where, StringComparison.Ordinal);
    }
}
