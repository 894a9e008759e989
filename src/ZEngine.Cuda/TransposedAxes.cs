namespace ZEngine.Cuda;

/// <summary>A copy between tensors whose innermost axes differ: element (m, n) stands at m·<see cref="FromStride"/> + n of one and at n·<see cref="ToStride"/> + m of the other.</summary>
/// <param name="Others">How often, over the other axes, which <paramref name="From"/> and <paramref name="To"/> are.</param>
internal readonly record struct TransposedAxes(long M, long N, long FromStride, long ToStride, long Others, StridedShape From, StridedShape To)
{
    /// <summary>Shorter axes leave most of a tile empty.</summary>
    private const long Least = 16;

    /// <summary>The axes of a copy, or null where both tensors are dense along the same axis, or one along none.</summary>
    public static TransposedAxes? Of(Tensor from, Tensor to)
    {
        if (from.Rank < 2 || from.Strides[^1] == to.Strides[^1]) return null;        // most copies: nothing is made for them
        var axes = new List<(long Size, long From, long To)>();
        for (int axis = 0; axis < from.Rank; axis++)
        {
            (long size, long fromStride, long toStride) = (from.Shape[axis], from.Strides[axis], to.Strides[axis]);
            if (size == 1) continue;
            if (axes.Count > 0 && axes[^1].From == size * fromStride && axes[^1].To == size * toStride) axes[^1] = (axes[^1].Size * size, fromStride, toStride);
            else axes.Add((size, fromStride, toStride));
        }
        int n = axes.FindIndex(axis => axis.From == 1), m = axes.FindIndex(axis => axis.To == 1);
        if (n < 0 || m < 0 || n == m || axes[n].Size < Least || axes[m].Size < Least) return null;
        (long Size, long From, long To)[] others = [.. axes.Where((_, axis) => axis != n && axis != m)];
        long count = others.Aggregate(1L, (product, axis) => product * axis.Size);
        return new(axes[m].Size, axes[n].Size, axes[m].From, axes[n].To, count,
            StridedShape.Of(count, others.Select(axis => (axis.Size, axis.From))), StridedShape.Of(count, others.Select(axis => (axis.Size, axis.To))));
    }
}
