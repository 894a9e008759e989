using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

internal sealed partial class CudaBackend
{
    private const string ReduceFile = "Reduce.cu";

    /// <summary>The kernels' fourth reduction: where the largest stands.</summary>
    private const int PlaceOfMax = 3;

    /// <summary>Mirrors ReduceArgs in kernels/Reduce.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ReduceArgs
    {
        public ulong X, Partial, Y, Total;
        public long Outer, Count, Inner, Chunk;
        public int P, Lanes, Reduction;
    }

    /// <summary>Mirrors ReduceBackwardArgs in kernels/Reduce.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ReduceBackwardArgs
    {
        public ulong Dy, Best, Dx;
        public long N, Count, Inner;
        public int Is32;
        public float Divisor;
    }

    private const int MostPartialSums = 4;

    /// <summary>Mirrors PartialSum in kernels/Reduce.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PartialSum
    {
        public ulong Partial, Y;
        public long Rows, Pitch, Width, Inner, Stride, FirstBlock;
    }

    [InlineArray(MostPartialSums)]
    private struct PartialSumList
    {
        private PartialSum _first;
    }

    /// <summary>Mirrors PartialSumsArgs in kernels/Reduce.cu, field for field.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PartialSumsArgs
    {
        public PartialSumList Sums;
        public long Count;
    }

    internal override PartialSums NewPartialSums() => new ColumnSums(this);

    /// <summary>Columns of partial results that one launch of reduce_sums adds up.</summary>
    private sealed class ColumnSums(CudaBackend backend) : PartialSums
    {
        private readonly List<Tensor> _partials = [];
        private PartialSumsArgs _args;
        private long _blocks;

        /// <summary>Takes the results over: rows of a contiguous <paramref name="partial"/> are added up.</summary>
        public void Add(Tensor partial) => _partials.Add(partial);

        /// <summary>Adds up <paramref name="width"/> columns of the last partial results, from <paramref name="first"/> on: column c goes to c % inner · stride + c / inner.</summary>
        public void To(Tensor y, long first, long width, long inner, long stride = 1)
        {
            Tensor partial = _partials[^1];
            if (_args.Count == MostPartialSums) throw new InvalidOperationException($"reduce_sums takes at most {MostPartialSums} matrices.");
            _args.Sums[(int)_args.Count++] = new PartialSum
            {
                Partial = Pointer(partial) + (ulong)(first * sizeof(float)), Y = Pointer(y), Rows = partial.Shape[0], Pitch = partial.Count / partial.Shape[0],
                Width = width, Inner = inner, Stride = stride, FirstBlock = _blocks,
            };
            _blocks += (width + ColumnsOfBlock - 1) / ColumnsOfBlock;
        }

        public override void Dispose()
        {
            if (_blocks > 0) backend.Kernel(ReduceFile, $"reduce_sums").Launch(Blocks("Reduce", _blocks), ColumnSumThreads, 0, _args);
            _blocks = 0;
            foreach (Tensor partial in _partials) partial.Dispose();
            _partials.Clear();
        }
    }

    internal override void ReduceForward(Reduction reduction, Tensor x, long outer, long count, long inner, Tensor y) =>
        Reduce((int)reduction, x, outer, count, inner, Pointer(y), 0);

    internal override void ReduceBackward(Reduction reduction, Tensor? x, Tensor dy, long outer, long count, long inner, Tensor dx)
    {
        using Tensor? best = reduction == Reduction.Max ? Tensor.Empty([outer, inner], DType.Int64, dy.Device) : null;
        if (best is not null)
        {
            if (count > uint.MaxValue) throw new NotSupportedException($"Reduce: the gradient of a maximum over {count:N0} elements, the kernels take at most {uint.MaxValue:N0}.");
            Reduce(PlaceOfMax, x!, outer, count, inner, 0, Pointer(best));
        }
        int wide = WideElements(dx.DType);
        bool isWide = AreAligned(dx) == 1 && (inner == 1 ? count % wide == 0 : inner % wide == 0 && AreAligned(dy) == 1);
        LaunchElements(Kernel(ReduceFile, $"reduce_backward<{dx.DType}, {isWide}>"), dx.Count, isWide ? wide : 1, new ReduceBackwardArgs
        {
            Dy = Pointer(dy), Best = Pointer(best), Dx = Pointer(dx), N = dx.Count, Count = count, Inner = inner,
            Is32 = dx.Count <= int.MaxValue ? 1 : 0, Divisor = reduction == Reduction.Mean ? count : 1,
        });
    }

    /// <summary>Reduces to y, or to 64-bit words where y is 0.</summary>
    private void Reduce(int reduction, Tensor x, long outer, long count, long inner, ulong y, ulong words)
    {
        ReducePlan plan = ReducePlan.For(outer, count, inner, WideElements(x.DType), AreAligned(x) == 1);
        using Tensor? partial = plan.Pieces > 1 ? Tensor.Empty([outer, plan.Pieces, inner], DType.Int64, x.Device) : null;
        var args = new ReduceArgs
        {
            X = Pointer(x), Partial = Pointer(partial), Y = y, Total = partial is null ? words : Pointer(partial),
            Outer = outer, Count = count, Inner = inner, Chunk = plan.Chunk, P = plan.Pieces, Lanes = plan.Lanes, Reduction = reduction,
        };
        CudaKernel kernel = inner == 1 ? Kernel(ReduceFile, $"reduce_rows<{x.DType}, {plan.IsWide}>") : Kernel(ReduceFile, $"reduce_columns<{x.DType}, {plan.IsWide}>");
        kernel.Launch(Blocks("Reduce", plan.Blocks), ElementThreads, 0, args);
        if (partial is null) return;
        int lanes = ReducePlan.LanesFor(inner, plan.Pieces);
        Kernel(ReduceFile, $"reduce_partials<{x.DType}>").Launch(Blocks("Reduce", outer * ((inner + lanes - 1) / lanes)), ElementThreads, 0, args with { Total = words, Lanes = lanes });
    }

    /// <summary>How a reduction is cut into blocks; it follows from the shape alone, so that every device adds in the same order.</summary>
    internal readonly record struct ReducePlan(bool IsWide, int Lanes, int Pieces, long Chunk, long Blocks)
    {
        /// <summary>Blocks that fill the largest devices.</summary>
        private const long WantedBlocks = 1024;

        /// <summary>Accesses that a thread makes at least, before a reduction is cut into pieces.</summary>
        private const long LeastAccesses = 16;

        public static ReducePlan For(long outer, long count, long inner, int wideElements, bool isAligned)
        {
            bool isWide = isAligned && (inner > 1 ? inner % wideElements == 0 : outer == 1 || count % wideElements == 0);
            int perThread = isWide ? wideElements : 1;
            if (inner == 1)
            {
                int rowLanes = count <= LeastAccesses * 32 * perThread ? 32 : ElementThreads;
                (int rowPieces, long rowChunk) = Cut(count, outer, ElementThreads * perThread * LeastAccesses, perThread);
                return new(isWide, rowLanes, rowPieces, rowChunk, (outer * rowPieces * rowLanes + ElementThreads - 1) / ElementThreads);
            }
            int lanes = LanesFor(inner / perThread, count);
            long tiles = (inner / perThread + lanes - 1) / lanes;
            (int pieces, long chunk) = Cut(count, outer * tiles, ElementThreads / lanes * LeastAccesses, 1);
            return new(isWide, lanes, pieces, chunk, outer * pieces * tiles);
        }

        /// <summary>Threads that stand side by side over the columns: a warp where it has work, more where there are few rows.</summary>
        public static int LanesFor(long columns, long rows)
        {
            int all = (int)BitOperations.RoundUpToPowerOf2((uint)Math.Clamp(columns, 1, ElementThreads)), lanes = Math.Min(32, all);
            while (lanes < all && ElementThreads / lanes > rows) lanes *= 2;
            return lanes;
        }

        private static (int Pieces, long Chunk) Cut(long count, long blocks, long leastChunk, long multiple)
        {
            long pieces = Math.Clamp(Math.Min(WantedBlocks / Math.Max(1, blocks), count / leastChunk), 1, WantedBlocks);
            long chunk = ((count + pieces - 1) / pieces + multiple - 1) / multiple * multiple;
            return ((int)Math.Max(1, (count + chunk - 1) / Math.Max(1, chunk)), chunk);
        }
    }
}
