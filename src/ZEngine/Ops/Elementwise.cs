namespace ZEngine;

/// <summary>A function of one number.</summary>
public enum Pointwise
{
    /// <summary>-x</summary>
    Negate,
    /// <summary>|x|; derivative 0 at 0.</summary>
    Abs,
    /// <summary>x²</summary>
    Square,
    /// <summary>√x</summary>
    Sqrt,
    /// <summary>1 / √x</summary>
    Rsqrt,
    /// <summary>1 / x</summary>
    Reciprocal,
    /// <summary>eˣ</summary>
    Exp,
    /// <summary>ln x</summary>
    Log,
    /// <summary>1 / (1 + e⁻ˣ)</summary>
    Sigmoid,
    /// <summary>x / (1 + e⁻ˣ), also called swish.</summary>
    Silu,
    /// <summary>x·Φ(x), exact.</summary>
    Gelu,
    /// <summary>½x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))</summary>
    GeluTanh,
    /// <summary>max(x, 0)</summary>
    Relu,
    /// <summary>max(x, 0)²</summary>
    Relu2,
    /// <summary>tanh x</summary>
    Tanh,
    /// <summary>ln(1 + eˣ)</summary>
    Softplus,
}

/// <summary>A function of two numbers.</summary>
internal enum Pairwise
{
    Add, Subtract, Multiply, Divide, Maximum, Minimum,
}

public static partial class Ops
{
    /// <summary>Applies a function to every element.</summary>
    public static Tensor Map(Pointwise function, Tensor x)
    {
        var shape = new ShapeContract(function.ToString());
        shape.Require(x, "...");
        using TensorScope scope = TensorScope.Enter();
        x = x.Contiguous();
        Tensor y = Tensor.EmptyLike(x);
        x.Backend.PointwiseForward(function, x, y);
        return scope.Keep(Tape.Tracks(x) ? RecordMap(function, x, y) : y);
    }

    /// <summary>x·factor.</summary>
    public static Tensor Scale(Tensor x, float factor)
    {
        var shape = new ShapeContract(nameof(Scale));
        shape.Require(x, "...");
        using TensorScope scope = TensorScope.Enter();
        x = x.Contiguous();
        Tensor y = Tensor.EmptyLike(x);
        x.Backend.Scale(x, factor, y);
        return scope.Keep(Tape.Tracks(x) ? Tape.Record(y, [x], [], ScaleBackward(factor)) : y);
    }

    /// <summary>a + b, shapes broadcast from the last axis.</summary>
    public static Tensor Add(Tensor a, Tensor b) => Combine(Pairwise.Add, a, b);

    /// <summary>a - b, shapes broadcast from the last axis.</summary>
    public static Tensor Subtract(Tensor a, Tensor b) => Combine(Pairwise.Subtract, a, b);

    /// <summary>a·b by elements, shapes broadcast from the last axis.</summary>
    public static Tensor Multiply(Tensor a, Tensor b) => Combine(Pairwise.Multiply, a, b);

    /// <summary>a / b, shapes broadcast from the last axis.</summary>
    public static Tensor Divide(Tensor a, Tensor b) => Combine(Pairwise.Divide, a, b);

    /// <summary>The larger of a and b; the gradient goes to a where they are equal.</summary>
    public static Tensor Maximum(Tensor a, Tensor b) => Combine(Pairwise.Maximum, a, b);

    /// <summary>The smaller of a and b; the gradient goes to a where they are equal.</summary>
    public static Tensor Minimum(Tensor a, Tensor b) => Combine(Pairwise.Minimum, a, b);

    private static Tensor Combine(Pairwise function, Tensor a, Tensor b)
    {
        var shape = new ShapeContract(function.ToString());
        shape.Require(a, "...");
        shape.Require(b, "...");
        using TensorScope scope = TensorScope.Enter();
        Span<long> sizes = stackalloc long[Tensor.MaxRank];
        sizes = BroadcastShape(function.ToString(), a, b, sizes);
        Tensor y = Tensor.Empty(sizes, a.DType, a.Device);
        a.Backend.PairwiseForward(function, a.BroadcastTo(sizes), b.BroadcastTo(sizes), y);
        return scope.Keep(Tape.Tracks(a) || Tape.Tracks(b) ? RecordCombine(function, a, b, y) : y);
    }

    private static Tensor RecordMap(Pointwise function, Tensor x, Tensor y) => Tape.Record(y, [x], [x], dy =>
    {
        Tensor dx = Tensor.EmptyLike(x);
        x.Backend.PointwiseBackward(function, x, dy.Contiguous(), dx);
        return [dx];
    });

    private static Func<Tensor, Tensor?[]> ScaleBackward(float factor) => dy => [Scale(dy, factor)];

    private static Tensor RecordCombine(Pairwise function, Tensor a, Tensor b, Tensor y)
    {
        long[] aShape = a.Shape.ToArray(), bShape = b.Shape.ToArray();
        return function switch
        {
            Pairwise.Add => Tape.Record(y, [a, b], [], dy => [SumTo(dy, aShape), SumTo(dy, bShape)]),
            Pairwise.Subtract => Tape.Record(y, [a, b], [], dy => [SumTo(dy, aShape), SumTo(Scale(dy, -1), bShape)]),
            Pairwise.Multiply => Tape.Record(y, [a, b], [a, b], dy => [SumTo(Multiply(dy, b), aShape), SumTo(Multiply(dy, a), bShape)]),
            Pairwise.Divide => Tape.Record(y, [a, b], [b, y], dy =>
            {
                Tensor da = Divide(dy, b);
                return [SumTo(da, aShape), SumTo(Scale(Multiply(da, y), -1), bShape)];
            }),
            _ => Tape.Record(y, [a, b], [a, b], dy =>
            {
                Tensor da = Tensor.EmptyLike(y), db = Tensor.EmptyLike(y);
                y.Backend.SelectBackward(function, a.BroadcastTo(dy.Shape), b.BroadcastTo(dy.Shape), dy.Contiguous(), da, db);
                return [SumTo(da, aShape), SumTo(db, bShape)];
            }),
        };
    }

    /// <summary>Adds up the axes along which a tensor of the given shape was broadcast.</summary>
    private static Tensor SumTo(Tensor x, long[] shape)
    {
        if (x.Shape.SequenceEqual(shape)) return x;
        for (int axis = 0; axis < x.Rank; axis++)
        {
            int own = axis - (x.Rank - shape.Length);
            if (x.Shape[axis] != 1 && (own < 0 || shape[own] == 1)) x = Sum(x, axis, keepAxis: true);
        }
        return x.Reshape(shape);
    }

    private static Span<long> BroadcastShape(string op, Tensor a, Tensor b, Span<long> sizes)
    {
        int rank = Math.Max(a.Rank, b.Rank);
        for (int axis = 1; axis <= rank; axis++)
        {
            long sizeA = axis <= a.Rank ? a.Shape[^axis] : 1, sizeB = axis <= b.Rank ? b.Shape[^axis] : 1;
            if (sizeA != sizeB && sizeA != 1 && sizeB != 1)
                throw new ArgumentException($"{op}: a is {Tensor.ShapeText(a.Shape)} and b is {Tensor.ShapeText(b.Shape)}: axis -{axis} is {sizeA} and {sizeB}, and neither is 1.");
            sizes[rank - axis] = sizeA == 1 ? sizeB : sizeA;
        }
        return sizes[..rank];
    }
}

public abstract partial class Backend
{
    /// <summary>y = f(x); contiguous.</summary>
    internal abstract void PointwiseForward(Pointwise function, Tensor x, Tensor y);

    /// <summary>dx = dy·f'(x); contiguous.</summary>
    internal abstract void PointwiseBackward(Pointwise function, Tensor x, Tensor dy, Tensor dx);

    /// <summary>y = x·factor; contiguous.</summary>
    internal abstract void Scale(Tensor x, float factor, Tensor y);

    /// <summary>y = f(a, b); y is contiguous, a and b have its shape with strides that may be 0.</summary>
    internal abstract void PairwiseForward(Pairwise function, Tensor a, Tensor b, Tensor y);

    /// <summary>Gradients of Maximum and Minimum: dy goes to the one that was taken, to a where they are equal.</summary>
    internal abstract void SelectBackward(Pairwise function, Tensor a, Tensor b, Tensor dy, Tensor da, Tensor db);
}
