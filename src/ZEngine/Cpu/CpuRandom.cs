namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void RandomNormal(RandomStream random, float mean, float standardDeviation, Tensor y) =>
        CpuThreads.For(y.Count, PointwiseGrain, new RandomJob(random, isNormal: true, mean, standardDeviation, F32(y)));

    internal override void RandomUniform(RandomStream random, float low, float high, Tensor y) =>
        CpuThreads.For(y.Count, PointwiseGrain, new RandomJob(random, isNormal: false, low, high - low, F32(y)));

    private readonly struct RandomJob(RandomStream random, bool isNormal, float offset, float scale, float* y) : IParallelJob
    {
        public void Run(long begin, long end)
        {
            // Neighbours share a block of random words: an even piece begins with a whole one.
            Span<float> numbers = stackalloc float[4];
            long block = isNormal ? 2 : 4;
            for (long i = begin; i < end; i += block - i % block)
            {
                if (isNormal) (numbers[0], numbers[1]) = random.Normals(i / 2);
                else (numbers[0], numbers[1], numbers[2], numbers[3]) = random.Uniforms(i / 4);
                for (long j = i % block; j < block && i - i % block + j < end; j++) y[i - i % block + j] = offset + scale * numbers[(int)j];
            }
        }
    }
}
