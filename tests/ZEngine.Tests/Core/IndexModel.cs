namespace ZEngine.Tests.Core;

/// <summary>A view as the plain list of the base elements that it shows, in row-major order.</summary>
internal sealed record IndexModel(long[] Shape, long[] Indices)
{
    public long Count => Indices.Length;

    public static IndexModel Base(long[] shape) => new(shape, [.. Range(shape.Aggregate(1L, (a, b) => a * b))]);

    public IndexModel Reshape(long[] shape) => this with { Shape = shape };

    public IndexModel Slice(int axis, long start, long length) => Pick([.. Shape.Select((size, i) => i == axis ? length : size)], at =>
    {
        at[axis] += start;
        return at;
    });

    public IndexModel Select(int axis, long index) => Pick([.. Shape.Where((_, i) => i != axis)], at => [.. at[..axis], index, .. at[axis..]]);

    public IndexModel Transpose(int axis0, int axis1) => Pick(Swap(Shape, axis0, axis1), at => Swap(at, axis0, axis1));

    /// <summary>Whether one stride per axis describes it.</summary>
    public bool IsStrided
    {
        get
        {
            var strides = new long[Shape.Length];
            for (int axis = 0; axis < Shape.Length; axis++)
            {
                var one = new long[Shape.Length];
                one[axis] = 1;
                if (Shape[axis] > 1) strides[axis] = Indices[Flat(Shape, one)] - Indices[0];
            }
            return Range(Count).All(i => Indices[i] == Indices[0] + Unflat(Shape, i).Zip(strides, (a, b) => a * b).Sum());
        }
    }

    private IndexModel Pick(long[] shape, Func<long[], long[]> source) =>
        new(shape, [.. Range(shape.Aggregate(1L, (a, b) => a * b)).Select(i => Indices[Flat(Shape, source(Unflat(shape, i)))])]);

    private static long Flat(long[] shape, long[] at)
    {
        long flat = 0;
        for (int axis = 0; axis < shape.Length; axis++) flat = flat * shape[axis] + at[axis];
        return flat;
    }

    private static long[] Unflat(long[] shape, long flat)
    {
        var at = new long[shape.Length];
        for (int axis = shape.Length - 1; axis >= 0; axis--) (flat, at[axis]) = Math.DivRem(flat, shape[axis]);
        return at;
    }

    private static long[] Swap(long[] values, int i, int j)
    {
        long[] swapped = [.. values];
        (swapped[i], swapped[j]) = (swapped[j], swapped[i]);
        return swapped;
    }

    private static IEnumerable<long> Range(long count)
    {
        for (long i = 0; i < count; i++) yield return i;
    }
}
