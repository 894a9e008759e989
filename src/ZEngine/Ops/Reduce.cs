namespace ZEngine;

/// <summary>What a reduction does with the elements.</summary>
internal enum Reduction
{
    Sum, Mean, Max,
}

public static partial class Ops
{
    /// <summary>The sum along an axis.</summary>
    /// <param name="x">Any shape.</param>
    /// <param name="axis">Negative counts from the end.</param>
    /// <param name="keepAxis">Whether the axis stays, with size 1.</param>
    public static Tensor Sum(Tensor x, int axis, bool keepAxis = false) => Reduce(Reduction.Sum, x, axis, keepAxis);

    /// <summary>The sum of all elements, shape [].</summary>
    public static Tensor Sum(Tensor x) => ReduceAll(Reduction.Sum, x);

    /// <summary>The mean along an axis.</summary>
    /// <param name="x">Any shape.</param>
    /// <param name="axis">Negative counts from the end.</param>
    /// <param name="keepAxis">Whether the axis stays, with size 1.</param>
    public static Tensor Mean(Tensor x, int axis, bool keepAxis = false) => Reduce(Reduction.Mean, x, axis, keepAxis);

    /// <summary>The mean of all elements, shape [].</summary>
    public static Tensor Mean(Tensor x) => ReduceAll(Reduction.Mean, x);

    /// <summary>The largest element along an axis; the gradient goes to the first of equals.</summary>
    /// <param name="x">Any shape; the axis must not be empty.</param>
    /// <param name="axis">Negative counts from the end.</param>
    /// <param name="keepAxis">Whether the axis stays, with size 1.</param>
    public static Tensor Max(Tensor x, int axis, bool keepAxis = false) => Reduce(Reduction.Max, x, axis, keepAxis);

    private static Tensor ReduceAll(Reduction reduction, Tensor x)
    {
        var contract = new ShapeContract(reduction.ToString());
        contract.Require(x, "...");
        using TensorScope scope = TensorScope.Enter();
        return scope.Keep(Reduce(reduction, x.Reshape(x.Count), 0, false));
    }

    private static Tensor Reduce(Reduction reduction, Tensor x, int axis, bool keepAxis)
    {
        var contract = new ShapeContract(reduction.ToString());
        contract.Require(x, "...");
        int reduced = axis < 0 ? axis + x.Rank : axis;
        contract.Require(reduced >= 0 && reduced < x.Rank, $"{x} has no axis {axis}.");
        contract.Require(reduction == Reduction.Sum || x.Shape[reduced] > 0, $"axis {axis} of {x} is empty.");
        using TensorScope scope = TensorScope.Enter();
        x = x.Contiguous();

        Span<long> shape = stackalloc long[Tensor.MaxRank];
        x.Shape[..reduced].CopyTo(shape);
        int rank = reduced;
        if (keepAxis) shape[rank++] = 1;
        x.Shape[(reduced + 1)..].CopyTo(shape[rank..]);
        rank += x.Rank - reduced - 1;
        Tensor y = Tensor.Empty(shape[..rank], x.DType, x.Device);
        (long outer, long inner) = (1, 1);
        for (int i = 0; i < reduced; i++) outer *= x.Shape[i];
        for (int i = reduced + 1; i < x.Rank; i++) inner *= x.Shape[i];
        x.Backend.ReduceForward(reduction, x, outer, x.Shape[reduced], inner, y);
        return scope.Keep(Tape.Tracks(x) ? RecordReduce(reduction, x, outer, x.Shape[reduced], inner, y) : y);
    }

    private static Tensor RecordReduce(Reduction reduction, Tensor x, long outer, long count, long inner, Tensor y)
    {
        Tensor? values = reduction == Reduction.Max ? x : null;
        long[] shape = x.Shape.ToArray();
        (DType dtype, Device device) = (x.DType, x.Device);
        return Tape.Record(y, [x], [values], dy =>
        {
            Tensor dx = Tensor.Empty(shape, dtype, device);
            dx.Backend.ReduceBackward(reduction, values, dy.Contiguous(), outer, count, inner, dx);
            return [dx];
        });
    }
}

public abstract partial class Backend
{
    /// <summary>What several backward ops may be given, so that their last sums are made together; null where a device makes them at once.</summary>
    internal virtual PartialSums? NewPartialSums() => null;

    /// <summary>Reduces the middle axis of x [outer, count, inner] to y [outer, inner].</summary>
    internal abstract void ReduceForward(Reduction reduction, Tensor x, long outer, long count, long inner, Tensor y);

    /// <summary>dx [outer, count, inner] from dy [outer, inner]; x is given for Max alone.</summary>
    internal abstract void ReduceBackward(Reduction reduction, Tensor? x, Tensor dy, long outer, long count, long inner, Tensor dx);
}

/// <summary>Sums of the partial results that several ops left: a device that collects them adds them up in one go when this is disposed.</summary>
internal abstract class PartialSums : IDisposable
{
    public abstract void Dispose();
}
