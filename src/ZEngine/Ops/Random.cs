namespace ZEngine;

public static partial class Ops
{
    /// <summary>Normal numbers; element i is number i of the stream, whatever the device and its threads.</summary>
    /// <param name="shape">Sizes.</param>
    /// <param name="device">Where.</param>
    /// <param name="random">Seed and stream.</param>
    /// <param name="mean">Mean.</param>
    /// <param name="standardDeviation">Standard deviation.</param>
    public static Tensor RandomNormal(ReadOnlySpan<long> shape, Device device, RandomStream random, float mean = 0, float standardDeviation = 1)
    {
        Tensor y = Tensor.Empty(shape, DType.Float32, device);
        y.Backend.RandomNormal(random, mean, standardDeviation, y);
        return y;
    }

    /// <summary>Uniform numbers in [low, high); element i is number i of the stream.</summary>
    /// <param name="shape">Sizes.</param>
    /// <param name="device">Where.</param>
    /// <param name="random">Seed and stream.</param>
    /// <param name="low">Inclusive.</param>
    /// <param name="high">Exclusive, up to rounding.</param>
    public static Tensor RandomUniform(ReadOnlySpan<long> shape, Device device, RandomStream random, float low = 0, float high = 1)
    {
        Tensor y = Tensor.Empty(shape, DType.Float32, device);
        y.Backend.RandomUniform(random, low, high, y);
        return y;
    }
}

public abstract partial class Backend
{
    /// <summary>y[i] = mean + standardDeviation·Normal(i).</summary>
    internal abstract void RandomNormal(RandomStream random, float mean, float standardDeviation, Tensor y);

    /// <summary>y[i] = low + (high - low)·Uniform(i).</summary>
    internal abstract void RandomUniform(RandomStream random, float low, float high, Tensor y);
}
