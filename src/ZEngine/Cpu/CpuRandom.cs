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
            for (long i = begin; i < end; i++) y[i] = offset + scale * (isNormal ? random.Normal(i) : random.Uniform(i));
        }
    }
}
