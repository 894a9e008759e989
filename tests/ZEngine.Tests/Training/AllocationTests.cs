using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>What a training step takes from the garbage collector: handles and records, the same whatever the sizes.</summary>
public sealed class AllocationTests
{
    /// <summary>Bytes per layer and step: about 60 tensor handles, records and gradients of each.</summary>
    private const long PerLayer = 64 << 10;

    [Fact]
    public void Training_step_allocates_a_constant_that_no_size_changes()
    {
        (long small, long large) = (PerStep(1, 16), PerStep(4, 96));
        Assert.True(small <= 2 * PerLayer, $"a step of two layers allocates {small} bytes");
        Assert.True(Math.Abs(large - small) <= small / 20, $"a step allocates {small} bytes for 1 · 16 tokens, {large} for 4 · 96");
    }

    private static long PerStep(int batch, int length)
    {
        using var model = new Mamba2(new Mamba2Config { VocabularySize = 64, HiddenSize = 32, Layers = 2, Heads = 4, HeadDimension = 16, StateSize = 16 }, Device.Cpu, seed: 1);
        using var adam = new AdamW(model.Parameters);
        int[] ids = [.. Enumerable.Range(0, batch * length).Select(i => i % 64)];
        long least = long.MaxValue;
        for (int step = 0; step < 5; step++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            using (Tape tape = Tape.Begin())
            {
                Tensor tokens = Tensor.From<int>(ids, [batch, length], Device.Cpu);
                tape.Backward(ZEngine.Ops.CrossEntropy(model.Forward(tokens), tokens));
                adam.Step(1e-3f, Gradients.Norm(model.Parameters), 1);
            }
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }
        return least;
    }
}
