using System.Runtime.Intrinsics;

namespace ZEngine;

/// <summary>The CPU: activations are Float32, weight matrices may be of any floating-point type.</summary>
internal sealed unsafe partial class CpuBackend : Backend
{
    /// <summary>Elements that one piece of pointwise work covers.</summary>
    private const long PointwiseGrain = 16384;

    /// <summary>The same where every element costs an elementary function.</summary>
    private const long FunctionGrain = 4096;

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

    /// <summary>A kernel in which one function of a number is left open.</summary>
    private interface IPointwiseKernel
    {
        void Run<T, TFunction>(long begin, long end) where T : struct, IFloats<T> where TFunction : IPointwise;
    }

    /// <summary>Runs such a kernel with its function filled in: a loop of its own for each.</summary>
    private static void For<TKernel>(long total, long grain, Pointwise function, in TKernel kernel) where TKernel : struct, IPointwiseKernel =>
        For(total, grain, new WithFunction<TKernel>(function, kernel));

    private readonly struct WithFunction<TKernel>(Pointwise function, TKernel kernel) : IKernel where TKernel : struct, IPointwiseKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            switch (function)
            {
                case Pointwise.Negate: kernel.Run<T, Negate>(begin, end); break;
                case Pointwise.Abs: kernel.Run<T, Abs>(begin, end); break;
                case Pointwise.Square: kernel.Run<T, Square>(begin, end); break;
                case Pointwise.Sqrt: kernel.Run<T, Sqrt>(begin, end); break;
                case Pointwise.Rsqrt: kernel.Run<T, Rsqrt>(begin, end); break;
                case Pointwise.Reciprocal: kernel.Run<T, Reciprocal>(begin, end); break;
                case Pointwise.Exp: kernel.Run<T, Exp>(begin, end); break;
                case Pointwise.Log: kernel.Run<T, Log>(begin, end); break;
                case Pointwise.Sigmoid: kernel.Run<T, Sigmoid>(begin, end); break;
                case Pointwise.Silu: kernel.Run<T, Silu>(begin, end); break;
                case Pointwise.Gelu: kernel.Run<T, Gelu>(begin, end); break;
                case Pointwise.GeluTanh: kernel.Run<T, GeluTanh>(begin, end); break;
                case Pointwise.Relu: kernel.Run<T, Relu>(begin, end); break;
                case Pointwise.Relu2: kernel.Run<T, Relu2>(begin, end); break;
                case Pointwise.Tanh: kernel.Run<T, Tanh>(begin, end); break;
                case Pointwise.Softplus: kernel.Run<T, Softplus>(begin, end); break;
                default: throw new InvalidOperationException($"{function} is not a pointwise function.");
            }
        }
    }

    /// <summary>Adds up what the pieces of work of every group found for dB or dC of a scan, [groups, pieces, rows, n], in the order of the channels, to [rows, groups, n].</summary>
    private static void SumGroupBlocks(long groups, long pieces, long n, long rows, float* blocks, float* sums, long stride) =>
        For(rows, RowGrain(groups * pieces * n), new SumGroupBlocksKernel(groups, pieces, n, rows, blocks, sums, stride));

    private readonly struct SumGroupBlocksKernel(long groups, long pieces, long n, long rows, float* blocks, float* sums, long stride) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long row = begin; row < end; row++)
            for (long group = 0; group < groups; group++)
            for (long i = 0; i < n; i += T.Width)
            {
                T total = T.Zero;
                for (long piece = 0; piece < pieces; piece++) total += T.LoadUpTo(blocks + ((group * pieces + piece) * rows + row) * n + i, n - i);
                total.StoreUpTo(sums + row * stride + group * n + i, n - i);
            }
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
