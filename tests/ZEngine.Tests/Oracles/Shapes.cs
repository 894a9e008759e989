namespace ZEngine.Tests.Oracles;

/// <summary>Arithmetic on shapes, row-major.</summary>
internal static class Shapes
{
    public static int Count(ReadOnlySpan<int> shape)
    {
        int count = 1;
        foreach (int size in shape) count = checked(count * size);
        return count;
    }

    public static string Text(IEnumerable<int> shape) => $"[{string.Join(", ", shape)}]";

    /// <summary>The indices of element <paramref name="flat"/>.</summary>
    public static int[] Unravel(int flat, int[] shape)
    {
        var index = new int[shape.Length];
        for (int axis = shape.Length - 1; axis >= 0; axis--) (flat, index[axis]) = Math.DivRem(flat, shape[axis]);
        return index;
    }
}
