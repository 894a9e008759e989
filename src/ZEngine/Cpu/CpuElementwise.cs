using System.Runtime.CompilerServices;

namespace ZEngine;

internal sealed unsafe partial class CpuBackend
{
    internal override void PointwiseForward(Pointwise function, Tensor x, Tensor y) =>
        For(x.Count, FunctionGrain, function, new PointwiseForwardKernel(F32(x), F32(y)));

    internal override void PointwiseBackward(Pointwise function, Tensor x, Tensor dy, Tensor dx) =>
        For(x.Count, PointwiseGrain, function, new PointwiseBackwardKernel(F32(x), F32(dy), F32(dx)));

    internal override void Scale(Tensor x, float factor, Tensor y) => For(x.Count, PointwiseGrain, new ScaleKernel(F32(x), factor, F32(y)));

    internal override void PairwiseForward(Pairwise function, Tensor a, Tensor b, Tensor y)
    {
        bool isFlat = a.IsContiguous && b.IsContiguous;
        StridedRows rowsA = new(a, y, isFlat), rowsB = new(b, y, isFlat);
        For(rowsA.Rows, isFlat ? 1 : RowGrain(rowsA.Width), new PairwiseKernel(function, rowsA, rowsB, F32(a), F32(b), F32(y)));
    }

    internal override void SelectBackward(Pairwise function, Tensor a, Tensor b, Tensor dy, Tensor da, Tensor db)
    {
        StridedRows rowsA = new(a, dy, false), rowsB = new(b, dy, false);
        For(rowsA.Rows, RowGrain(rowsA.Width), new SelectBackwardKernel(function == Pairwise.Maximum ? 1 : -1, rowsA, rowsB, F32(a), F32(b), F32(dy), F32(da), F32(db)));
    }

    private readonly struct ScaleKernel(float* x, float factor, float* y) : IKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            T scale = T.Broadcast(factor);
            for (long i = begin; i < end; i += T.Width) (T.LoadUpTo(x + i, end - i) * scale).StoreUpTo(y + i, end - i);
        }
    }

    private readonly struct PointwiseForwardKernel(float* x, float* y) : IPointwiseKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T, TFunction>(long begin, long end) where T : struct, IFloats<T> where TFunction : IPointwise
        {
            for (long i = begin; i < end; i += T.Width) TFunction.Value(T.LoadUpTo(x + i, end - i)).StoreUpTo(y + i, end - i);
        }
    }

    private readonly struct PointwiseBackwardKernel(float* x, float* dy, float* dx) : IPointwiseKernel
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Run<T, TFunction>(long begin, long end) where T : struct, IFloats<T> where TFunction : IPointwise
        {
            for (long i = begin; i < end; i += T.Width)
                (T.LoadUpTo(dy + i, end - i) * TFunction.Derivative(T.LoadUpTo(x + i, end - i))).StoreUpTo(dx + i, end - i);
        }
    }

    private readonly struct PairwiseKernel(Pairwise function, StridedRows rowsA, StridedRows rowsB, float* a, float* b, float* y) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            switch (function)
            {
                case Pairwise.Add: Loop<T, AddPair>(begin, end); break;
                case Pairwise.Subtract: Loop<T, SubtractPair>(begin, end); break;
                case Pairwise.Multiply: Loop<T, MultiplyPair>(begin, end); break;
                case Pairwise.Divide: Loop<T, DividePair>(begin, end); break;
                case Pairwise.Maximum: Loop<T, MaximumPair>(begin, end); break;
                case Pairwise.Minimum: Loop<T, MinimumPair>(begin, end); break;
                default: throw new InvalidOperationException($"{function} is not a pairwise function.");
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Loop<T, TFunction>(long begin, long end) where T : struct, IFloats<T> where TFunction : IPairwise
        {
            for (long row = begin; row < end; row++)
            {
                (long atA, long into, long width) = rowsA.At(row);
                float* rowA = a + atA, rowB = b + rowsB.At(row).From, rowY = y + into;
                for (long i = 0; i < width; i += T.Width)
                {
                    T left = LoadStepped<T>(rowA, rowsA.SourceStep, i, width), right = LoadStepped<T>(rowB, rowsB.SourceStep, i, width);
                    TFunction.Value(left, right).StoreUpTo(rowY + i, width - i);
                }
            }
        }
    }

    private readonly struct SelectBackwardKernel(float sign, StridedRows rowsA, StridedRows rowsB, float* a, float* b, float* dy, float* da, float* db) : IKernel
    {
        public void Run<T>(long begin, long end) where T : struct, IFloats<T>
        {
            T signs = T.Broadcast(sign);
            for (long row = begin; row < end; row++)
            {
                (long atA, long into, long width) = rowsA.At(row);
                float* rowA = a + atA, rowB = b + rowsB.At(row).From;
                for (long i = 0; i < width; i += T.Width)
                {
                    T left = LoadStepped<T>(rowA, rowsA.SourceStep, i, width) * signs, right = LoadStepped<T>(rowB, rowsB.SourceStep, i, width) * signs;
                    T gradient = T.LoadUpTo(dy + into + i, width - i);
                    T.SelectGreater(right, left, T.Zero, gradient).StoreUpTo(da + into + i, width - i);
                    T.SelectGreater(right, left, gradient, T.Zero).StoreUpTo(db + into + i, width - i);
                }
            }
        }
    }

    /// <summary>Lanes i, i+1, … of a row whose elements stand <paramref name="step"/> apart.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T LoadStepped<T>(float* row, long step, long i, long width) where T : struct, IFloats<T>
    {
        if (step == 1) return T.LoadUpTo(row + i, width - i);
        if (step == 0) return T.Broadcast(row[0]);
        float* lanes = stackalloc float[T.Width];
        for (int lane = 0; lane < T.Width; lane++) lanes[lane] = i + lane < width ? row[(i + lane) * step] : 0;
        return T.Load(lanes);
    }

    private interface IPairwise
    {
        static abstract T Value<T>(T a, T b) where T : struct, IFloats<T>;
    }

    private readonly struct AddPair : IPairwise { public static T Value<T>(T a, T b) where T : struct, IFloats<T> => a + b; }
    private readonly struct SubtractPair : IPairwise { public static T Value<T>(T a, T b) where T : struct, IFloats<T> => a - b; }
    private readonly struct MultiplyPair : IPairwise { public static T Value<T>(T a, T b) where T : struct, IFloats<T> => a * b; }
    private readonly struct DividePair : IPairwise { public static T Value<T>(T a, T b) where T : struct, IFloats<T> => a / b; }
    private readonly struct MaximumPair : IPairwise { public static T Value<T>(T a, T b) where T : struct, IFloats<T> => T.SelectNaN(a, a, T.Max(a, b)); }
    private readonly struct MinimumPair : IPairwise { public static T Value<T>(T a, T b) where T : struct, IFloats<T> => T.SelectNaN(a, a, T.Min(a, b)); }
}
