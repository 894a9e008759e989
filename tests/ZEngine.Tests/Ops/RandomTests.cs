using ZEngine.Emulator;

namespace ZEngine.Tests.Ops;

/// <summary>Random tensors are the numbers of their stream.</summary>
public sealed class RandomTests
{
    [Theory, InlineData(1), InlineData(3)]
    public void Element_is_the_number_of_its_index(int threads)
    {
        int before = CpuDevice.Threads;
        CpuDevice.Threads = threads;
        try
        {
            using TensorScope scope = TensorScope.Enter();
            var random = new RandomStream(21, 4);
            float[] normal = ZEngine.Ops.RandomNormal([3, 20001], Device.Cpu, random, 1, 2).ToArray<float>();
            float[] uniform = ZEngine.Ops.RandomUniform([3, 20001], Device.Cpu, random, -1, 3).ToArray<float>();
            for (int i = 0; i < normal.Length; i++)
            {
                Assert.Equal(1 + 2 * random.Normal(i), normal[i]);
                Assert.Equal(-1 + 4 * random.Uniform(i), uniform[i]);
            }
        }
        finally
        {
            CpuDevice.Threads = before;
        }
    }

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    /// <summary>Uniform numbers bit by bit; normal ones within one unit of the last place, and nearly all of them exactly.</summary>
    [Theory, MemberData(nameof(DeviceNames))]
    public void Numbers_are_the_same_on_every_device(string device)
    {
        using TensorScope scope = TensorScope.Enter();
        var random = new RandomStream(0x123456789ABCDEF, 0xFEDCBA987654321);
        foreach (long count in (ReadOnlySpan<long>)[1, 2, 3, 4, 5, 60_003])
        {
            Tensor normal = ZEngine.Ops.RandomNormal([count], Devices.Open(device), random), uniform = ZEngine.Ops.RandomUniform([count], Devices.Open(device), random, -1, 3);
            float[] n = normal.ToArray<float>(), u = uniform.ToArray<float>();
            int differing = 0;
            for (int i = 0; i < count; i++)
            {
                Assert.Equal(-1 + 4 * random.Uniform(i), u[i]);
                float want = random.Normal(i);
                if (want == n[i]) continue;
                differing++;
                Assert.InRange(n[i], MathF.BitDecrement(want), MathF.BitIncrement(want));
            }
            Assert.InRange(differing, 0, 1);
        }
    }

    [Fact]
    public void Traffic_is_one_write()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        foreach (LaunchProfile launch in probe.Profile(() =>
        {
            ZEngine.Ops.RandomUniform([4096], probe.Device, new RandomStream(1));
            ZEngine.Ops.RandomNormal([4096], probe.Device, new RandomStream(1));
        }))
            CountedDevice.CheckWide(launch, read: 0, written: 4 * 4096);
    }

    [Fact]
    public void Nothing_is_recorded()
    {
        using Tape tape = Tape.Begin();
        Assert.False(ZEngine.Ops.RandomNormal([4], Device.Cpu, new RandomStream(1)).RequiresGradient);
    }
}
