namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    internal override void RandomNormal(RandomStream random, float mean, float standardDeviation, Tensor y) => throw NoKernel("Random");

    internal override void RandomUniform(RandomStream random, float low, float high, Tensor y) => throw NoKernel("Random");
}
