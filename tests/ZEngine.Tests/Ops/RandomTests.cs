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

    [Fact]
    public void Nothing_is_recorded()
    {
        using Tape tape = Tape.Begin();
        Assert.False(ZEngine.Ops.RandomNormal([4], Device.Cpu, new RandomStream(1)).RequiresGradient);
    }
}
