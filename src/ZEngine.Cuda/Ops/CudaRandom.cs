using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string RandomFile = "Random.cu";

    /// <summary>Mirrors RandomArgs in kernels/Random.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RandomArgs
    {
        public ulong Y;
        public long N;
        public ulong Seed, Stream;
        public float Offset, Scale;
        public int IsWide, Unused;
    }

    internal override void RandomNormal(RandomStream random, float mean, float standardDeviation, Tensor y) =>
        LaunchRandom(Kernel(RandomFile, $"random_normal"), random, mean, standardDeviation, y);

    internal override void RandomUniform(RandomStream random, float low, float high, Tensor y) =>
        LaunchRandom(Kernel(RandomFile, $"random_uniform"), random, low, high - low, y);

    private void LaunchRandom(CudaKernel kernel, RandomStream random, float offset, float scale, Tensor y) => LaunchElements(kernel, y.Count, 4, new RandomArgs
    {
        Y = Pointer(y), N = y.Count, Seed = random.Seed, Stream = random.Stream, Offset = offset, Scale = scale, IsWide = AreAligned(y),
    });
}
