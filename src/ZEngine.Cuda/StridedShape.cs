using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ZEngine.Cuda;

/// <summary>Mirrors StridedShape in kernels/common/Strided.cuh, field for field: a strided tensor with axes merged where its strides allow.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct StridedShape
{
    private const int MaxAxes = 6;
    public Axes6 Sizes, Strides;
    public int Axes, Is32;

    public StridedShape(Tensor tensor, long count)
    {
        for (int axis = 0; axis < MaxAxes; axis++) (Sizes[axis], Strides[axis]) = (1, 0);
        int at = MaxAxes;
        for (int axis = tensor.Rank - 1; axis >= 0; axis--)
        {
            (long size, long stride) = (tensor.Shape[axis], tensor.Strides[axis]);
            if (size == 1) continue;
            if (at < MaxAxes && stride == Sizes[at] * Strides[at]) Sizes[at] *= size;      // one axis with its inner neighbour
            else (Sizes[--at], Strides[at]) = (size, stride);
        }
        Axes = MaxAxes - at;
        Is32 = count <= int.MaxValue ? 1 : 0;
    }

    /// <summary>Axes as they are, outermost first.</summary>
    public static StridedShape Of(long count, IEnumerable<(long Size, long Stride)> axes)
    {
        var shape = default(StridedShape);
        for (int axis = 0; axis < MaxAxes; axis++) (shape.Sizes[axis], shape.Strides[axis]) = (1, 0);
        int at = MaxAxes;
        foreach ((long size, long stride) in axes.Reverse()) (shape.Sizes[--at], shape.Strides[at]) = (size, stride);
        shape.Axes = MaxAxes - at;
        shape.Is32 = count <= int.MaxValue ? 1 : 0;
        return shape;
    }

    /// <summary>Row-major without gaps.</summary>
    public readonly bool IsDense => Axes == 0 || Axes == 1 && Strides[MaxAxes - 1] == 1;

    /// <summary>Elements that stand side by side along the innermost axis.</summary>
    public readonly long Run => Axes == 0 ? 1 : Strides[MaxAxes - 1] == 1 ? Sizes[MaxAxes - 1] : 1;

    /// <summary>Whether runs of <paramref name="elements"/> begin at multiples of it, so that each can be moved as one word.</summary>
    public readonly bool CanWiden(int elements)
    {
        if (Run % elements != 0) return false;
        for (int axis = MaxAxes - Axes; axis < MaxAxes - 1; axis++)
            if (Strides[axis] % elements != 0) return false;
        return true;
    }

    /// <summary>The shape in words of <paramref name="elements"/> elements.</summary>
    public readonly StridedShape Widened(int elements)
    {
        StridedShape wide = this;
        if (Axes == 0 || elements == 1) return wide;
        wide.Sizes[MaxAxes - 1] /= elements;
        for (int axis = MaxAxes - Axes; axis < MaxAxes - 1; axis++) wide.Strides[axis] /= elements;
        return wide;
    }

    [InlineArray(MaxAxes)]
    public struct Axes6
    {
        private long _value;
    }
}
