namespace ZEngine;

/// <summary>How a fresh model fills a parameter.</summary>
/// <remarks>Random numbers come from <see cref="RandomStream"/>: they depend on the seed, the parameter's name and the element's index alone.</remarks>
public abstract class Initializer
{
    private Initializer() { }

    /// <summary>All elements one value.</summary>
    public static Initializer Constant(float value) => new ConstantInitializer(value);

    /// <summary>All elements zero.</summary>
    public static Initializer Zeros { get; } = Constant(0);

    /// <summary>All elements one.</summary>
    public static Initializer Ones { get; } = Constant(1);

    /// <summary>Normal distribution around zero.</summary>
    public static Initializer Normal(float standardDeviation) => new NormalInitializer(standardDeviation);

    /// <summary>Uniform distribution over [low, high).</summary>
    public static Initializer Uniform(float low, float high) => new HostInitializer((random, _) => low + (high - low) * random);

    /// <summary>Any function of a uniform number in [0, 1) and the element's row-major index; worked out on the host.</summary>
    public static Initializer FromUniform(Func<float, long, float> element) => new HostInitializer(element);

    internal abstract Tensor Create(ReadOnlySpan<long> shape, Device device, ulong seed, ulong stream);

    private sealed class ConstantInitializer(float value) : Initializer
    {
        internal override Tensor Create(ReadOnlySpan<long> shape, Device device, ulong seed, ulong stream)
        {
            Tensor tensor = Tensor.Empty(shape, DType.Float32, device);
            device.Backend.Fill(tensor, value);
            return tensor;
        }
    }

    private sealed class NormalInitializer(float standardDeviation) : Initializer
    {
        internal override Tensor Create(ReadOnlySpan<long> shape, Device device, ulong seed, ulong stream) =>
            Ops.RandomNormal(shape, device, new RandomStream(seed, stream), 0, standardDeviation);
    }

    private sealed class HostInitializer(Func<float, long, float> element) : Initializer
    {
        internal override Tensor Create(ReadOnlySpan<long> shape, Device device, ulong seed, ulong stream)
        {
            Tensor tensor = Tensor.Empty(shape, DType.Float32, device);
            var random = new RandomStream(seed, stream);
            var values = new float[tensor.Count];
            for (long i = 0; i < values.Length; i++) values[i] = element(random.Uniform(i), i);
            tensor.CopyFrom<float>(values);
            return tensor;
        }
    }
}
