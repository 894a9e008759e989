using System.Runtime.Intrinsics;

namespace ZEngine;

/// <summary>The CPU: activations are Float32, weight matrices may be of any floating-point type.</summary>
internal sealed unsafe partial class CpuBackend : Backend
{
    /// <summary>Elements that one piece of pointwise work covers.</summary>
    private const long PointwiseGrain = 16384;

    internal override bool AcceptsActivation(DType dtype) => dtype == DType.Float32;

    private static float* F32(Tensor? tensor) => tensor is null ? null : (float*)tensor.Address;

    /// <summary>Rows to a piece of work, so that a piece has about <see cref="PointwiseGrain"/> elements.</summary>
    private static long RowGrain(long width) => Math.Max(1, PointwiseGrain / Math.Max(1, width));

    /// <summary>A kernel over rows or elements, generic over the width of the vector unit.</summary>
    private interface IKernel
    {
        void Run<T>(long begin, long end) where T : struct, IFloats<T>;
    }

    /// <summary>Runs a kernel on all threads with the machine's vector width.</summary>
    private static void For<TKernel>(long total, long grain, in TKernel kernel) where TKernel : struct, IKernel =>
        CpuThreads.For(total, grain, new Job<TKernel>(kernel));

    private readonly struct Job<TKernel>(TKernel kernel) : IParallelJob where TKernel : struct, IKernel
    {
        public void Run(long begin, long end)
        {
            TKernel own = kernel;
            if (Vector512.IsHardwareAccelerated) own.Run<Floats16>(begin, end);
            else if (Vector256.IsHardwareAccelerated) own.Run<Floats8>(begin, end);
            else own.Run<Floats4>(begin, end);
        }
    }

    /// <summary>Partial sums of blocks of rows, added up in the order of the blocks: the bits do not depend on the threads.</summary>
    /// <param name="partials">[blocks, width].</param>
    /// <param name="blocks">Number of partial rows.</param>
    /// <param name="width">Number of sums.</param>
    /// <param name="sums">[width], overwritten.</param>
    private static void SumPartials(float* partials, long blocks, long width, float* sums) =>
        For(width, PointwiseGrain, new SumPartialsKernel(partials, blocks, width, sums));

    private readonly struct SumPartialsKernel(float* partials, long blocks, long width, float* sums) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = begin; i < end; i += T.Width)
            {
                T sum = T.Zero;
                for (long block = 0; block < blocks; block++) sum += T.LoadUpTo(partials + block * width + i, end - i);
                sum.StoreUpTo(sums + i, end - i);
            }
        }
    }
}
