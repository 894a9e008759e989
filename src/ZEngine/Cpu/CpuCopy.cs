using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void Copy(Tensor source, Tensor destination)
    {
        long width = source.Rank == 0 ? 1 : source.Shape[^1];
        bool isFlat = source.IsContiguous && destination.IsContiguous;
        var walk = new StridedRows(source, destination, isFlat);
        CpuThreads.For(walk.Rows, isFlat ? 1 : Math.Max(16, RowGrain(width)), new CopyJob(walk, (byte*)source.Address, source.DType, (byte*)destination.Address, destination.DType));
    }

    internal override void Fill(Tensor tensor, float value)
    {
        Tensor one = tensor.DType == DType.Float32 ? tensor : Tensor.Empty(tensor.Shape, DType.Float32, tensor.Device);
        For(one.Count, PointwiseGrain, new FillKernel(F32(one), value));
        if (one == tensor) return;
        Copy(one, tensor);
        one.Dispose();
    }

    internal override void Accumulate(Tensor x, Tensor sum)
    {
        if (sum.DType != DType.Float32)
        {
            using Tensor wide = Tensor.Empty(sum.Shape, DType.Float32, sum.Device);
            Copy(sum, wide);
            Accumulate(x, wide);
            Copy(wide, sum);
            return;
        }
        if (x.DType != DType.Float32 || !x.IsContiguous)
        {
            using Tensor dense = Tensor.Empty(x.Shape, DType.Float32, x.Device);
            Copy(x, dense);
            Accumulate(dense, sum);
            return;
        }
        For(sum.Count, PointwiseGrain, new AccumulateKernel(F32(x), F32(sum)));
    }

    private readonly struct FillKernel(float* y, float value) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            T filled = T.Broadcast(value);
            for (long i = begin; i < end; i += T.Width) filled.StoreUpTo(y + i, end - i);
        }
    }

    private readonly struct AccumulateKernel(float* x, float* sum) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            for (long i = begin; i < end; i += T.Width)
                (T.LoadUpTo(sum + i, end - i) + T.LoadUpTo(x + i, end - i)).StoreUpTo(sum + i, end - i);
        }
    }

    /// <summary>Two tensors of one shape as rows along the last axis; contiguous pairs as pieces of one long row.</summary>
    private readonly struct StridedRows
    {
        private readonly Steps _sizes, _from, _to;
        private readonly int _outer;

        public StridedRows(Tensor source, Tensor destination, bool isFlat)
        {
            if (isFlat)
            {
                (Width, SourceStep, DestinationStep, _outer) = (PointwiseGrain, 1, 1, 1);
                (_sizes[0], _from[0], _to[0]) = ((source.Count + PointwiseGrain - 1) / PointwiseGrain, PointwiseGrain, PointwiseGrain);
                (Rows, Count) = (_sizes[0], source.Count);
                return;
            }
            _outer = source.Rank - 1;
            (Width, SourceStep, DestinationStep) = (source.Shape[^1], source.Strides[^1], destination.Strides[^1]);
            Rows = 1;
            for (int axis = 0; axis < _outer; axis++)
            {
                (_sizes[axis], _from[axis], _to[axis]) = (source.Shape[axis], source.Strides[axis], destination.Strides[axis]);
                Rows *= source.Shape[axis];
            }
            Count = Rows * Width;
        }

        public long Rows { get; }
        public long Width { get; }
        public long SourceStep { get; }
        public long DestinationStep { get; }
        private long Count { get; }

        /// <summary>Where row <paramref name="row"/> begins in both, and how many elements it has.</summary>
        public (long From, long To, long Width) At(long row)
        {
            long from = 0, to = 0, rest = row;
            for (int axis = _outer - 1; axis >= 0; axis--)
            {
                (rest, long index) = Math.DivRem(rest, _sizes[axis]);
                from += index * _from[axis];
                to += index * _to[axis];
            }
            return (from, to, Math.Min(Width, Count - row * Width));
        }

        [InlineArray(Tensor.MaxRank)]
        private struct Steps
        {
            private long _step;
        }
    }

    private readonly struct CopyJob(StridedRows rows, byte* source, DType from, byte* destination, DType to) : IParallelJob
    {
        private const int RowsAtOnce = 16;                     // floats in a cache line

        public void Run(long begin, long end)
        {
            if (from == to && from.Size == sizeof(float) && rows.SourceStep != 1 && rows.DestinationStep == 1)
            {
                for (long row = begin; row < end; row += RowsAtOnce) Gather(row, Math.Min(RowsAtOnce, end - row));
                return;
            }
            for (long row = begin; row < end; row++)
            {
                (long sourceAt, long destinationAt, long width) = rows.At(row);
                byte* s = source + sourceAt * from.Size, d = destination + destinationAt * to.Size;
                if (from == to && rows.SourceStep == 1 && rows.DestinationStep == 1) Buffer.MemoryCopy(s, d, width * to.Size, width * to.Size);
                else if (from == DType.Float32 && to == DType.BFloat16) for (long i = 0; i < width; i++) ((BFloat16*)d)[i * rows.DestinationStep] = (BFloat16)((float*)s)[i * rows.SourceStep];
                else if (from == DType.BFloat16 && to == DType.Float32) for (long i = 0; i < width; i++) ((float*)d)[i * rows.DestinationStep] = (float)((BFloat16*)s)[i * rows.SourceStep];
                else if (from == DType.Int64 || to == DType.Int64) ConvertThroughInt64(s, d, width);
                else for (long i = 0; i < width; i++) Store(d, to, i * rows.DestinationStep, Load(s, from, i * rows.SourceStep));
            }
        }

        /// <summary>Rows whose elements lie apart: neighbouring rows of a transposed tensor share cache lines, so several are copied column by column.</summary>
        private void Gather(long row, long count)
        {
            uint** from = stackalloc uint*[RowsAtOnce];
            uint** to = stackalloc uint*[RowsAtOnce];
            long width = 0;
            for (long i = 0; i < count; i++)
            {
                (long sourceAt, long destinationAt, width) = rows.At(row + i);
                from[i] = (uint*)source + sourceAt;
                to[i] = (uint*)destination + destinationAt;
            }
            for (long column = 0; column < width; column++)
            for (long i = 0; i < count; i++) to[i][column] = from[i][column * rows.SourceStep];
        }

        private void ConvertThroughInt64(byte* s, byte* d, long width)
        {
            for (long i = 0; i < width; i++)
            {
                long at = i * rows.SourceStep, into = i * rows.DestinationStep;
                if (to == DType.Int64) ((long*)d)[into] = from switch { DType.Int64 => ((long*)s)[at], DType.Int32 => ((int*)s)[at], _ => (long)Load(s, from, at) };
                else if (to == DType.Int32) ((int*)d)[into] = (int)Math.Clamp(((long*)s)[at], int.MinValue, int.MaxValue);
                else if (to == DType.Float32) ((float*)d)[into] = ((long*)s)[at];
                else Store(d, to, into, ToOdd(((long*)s)[at]));
            }
        }

        /// <summary>A double that rounds to 16 bits as the integer itself would: bits cut off leave a mark in the last one kept.</summary>
        private static double ToOdd(long value)
        {
            long cut = value & ~1023L;
            return value is >= -(1L << 53) and <= 1L << 53 || cut == value ? value : cut | 1024;
        }

        /// <summary>A float that rounds to 16 bits as the double itself would: an inexact one gets an odd last bit.</summary>
        private static float ToOdd(double value)
        {
            float near = (float)value;
            if (near == value || !float.IsFinite(near)) return near;
            float toZero = Math.Abs((double)near) > Math.Abs(value) ? BitConverter.Int32BitsToSingle(BitConverter.SingleToInt32Bits(near) - 1) : near;
            return BitConverter.Int32BitsToSingle(BitConverter.SingleToInt32Bits(toZero) | 1);
        }

        private static double Load(byte* p, DType dtype, long i) => dtype switch
        {
            DType.Float32 => (double)((float*)p)[i],           // without the cast the type of the whole switch is float
            DType.BFloat16 => (float)((BFloat16*)p)[i],
            DType.Float16 => (float)((Half*)p)[i],
            DType.Int32 => ((int*)p)[i],
            DType.Int64 => ((long*)p)[i],
            DType.UInt8 => p[i],
            _ => ((sbyte*)p)[i],
        };

        private static void Store(byte* p, DType dtype, long i, double value)
        {
            switch (dtype)
            {
                case DType.Float32: ((float*)p)[i] = (float)value; break;
                case DType.BFloat16: ((BFloat16*)p)[i] = (BFloat16)ToOdd(value); break;
                case DType.Float16: ((Half*)p)[i] = (Half)value; break;
                case DType.Int32: ((int*)p)[i] = (int)value; break;
                case DType.UInt8: p[i] = (byte)Math.Clamp(value, 0, 255); break;
                default: ((sbyte*)p)[i] = (sbyte)Math.Clamp(value, -128, 127); break;
            }
        }
    }
}
