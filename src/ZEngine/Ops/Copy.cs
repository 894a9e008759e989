namespace ZEngine;

/// <summary>The operations of the engine: shapes are checked first, then the device computes, then the open tape records.</summary>
public static partial class Ops
{
    /// <summary>Overwrites a tensor with the values of another of the same shape, in the destination's element type.</summary>
    /// <remarks>Not recorded: gradients do not pass through it. Floats round to nearest even; integers are cut toward zero and saturate, and NaN becomes 0.</remarks>
    public static void Copy(Tensor source, Tensor destination)
    {
        var shape = new ShapeContract(nameof(Copy));
        shape.RequireAny(source);
        shape.RequireAny(destination);
        shape.Require(source.Shape.SequenceEqual(destination.Shape), $"source is {source} but destination is {destination}.");
        source.Backend.Copy(source, destination);
    }

    /// <summary>Sets every element of a contiguous tensor to one value.</summary>
    public static void Fill(Tensor tensor, float value)
    {
        var contract = new ShapeContract(nameof(Fill));
        contract.RequireAny(tensor);
        contract.Require(tensor.IsContiguous, $"tensor must be contiguous, got strides {Tensor.ShapeText(tensor.Strides)} for {tensor}.");
        tensor.Backend.Fill(tensor, value);
    }

    /// <summary>Joins tensors along an axis.</summary>
    /// <param name="axis">The axis whose sizes add up; negative counts from the end.</param>
    /// <param name="parts">Equal in all other axes.</param>
    public static Tensor Concat(int axis, params ReadOnlySpan<Tensor> parts)
    {
        var contract = new ShapeContract(nameof(Concat));
        contract.Require(!parts.IsEmpty, "needs at least one tensor.");
        foreach (Tensor part in parts) contract.RequireAny(part);
        Tensor first = parts[0];
        axis = axis < 0 ? axis + first.Rank : axis;
        contract.Require(axis >= 0 && axis < first.Rank, $"{first} has no axis {axis}.");
        long[] sizes = first.Shape.ToArray(), lengths = new long[parts.Length];
        sizes[axis] = 0;
        for (int i = 0; i < parts.Length; i++)
        {
            Tensor part = parts[i];
            contract.Require(part.DType == first.DType && part.Rank == first.Rank, $"part {i} is {part} but part 0 is {first}.");
            for (int other = 0; other < sizes.Length; other++)
                contract.Require(other == axis || part.Shape[other] == sizes[other], $"part {i} is {part} but part 0 is {first}: they differ beside axis {axis}.");
            lengths[i] = part.Shape[axis];
            sizes[axis] += lengths[i];
        }

        using TensorScope scope = TensorScope.Enter();
        Tensor joined = Tensor.Empty(sizes, first.DType, first.Device);
        using (Tape.NoGrad())
            WriteParts(parts, joined, axis);
        return scope.Keep(Tape.Record(joined, parts!, [], dy =>
        {
            var gradients = new Tensor?[lengths.Length];
            long start = 0;
            for (int i = 0; i < lengths.Length; start += lengths[i++]) gradients[i] = dy.Slice(axis, start, lengths[i]);
            return gradients;
        }));
    }

    /// <summary>Cuts a tensor along its last axis into views of the given widths.</summary>
    /// <param name="x">[..., Σ widths].</param>
    /// <param name="widths">Width of each part.</param>
    /// <remarks>One record for all parts: their gradients are written into one buffer.</remarks>
    public static Tensor[] Split(Tensor x, params ReadOnlySpan<long> widths)
    {
        var contract = new ShapeContract(nameof(Split));
        contract.RequireAny(x);
        long total = 0;
        foreach (long width in widths)
        {
            contract.Require(width >= 0, $"widths must not be negative, got {width}.");
            total += width;
        }
        if (x.Rank == 0 || total != x.Shape[^1]) throw new ArgumentException($"Split: widths {Tensor.ShapeText(widths)} add up to {total}, but x is {x}.");

        var parts = new Tensor[widths.Length];
        using (Tape.NoGrad())
        {
            long start = 0;
            for (int i = 0; i < widths.Length; start += widths[i++]) parts[i] = x.Slice(-1, start, widths[i]);
        }
        if (Tape.Tracks(x)) RecordSplit(x, parts);
        return parts;
    }

    private static void RecordSplit(Tensor x, Tensor[] parts)
    {
        long[] shape = x.Shape.ToArray(), widths = Array.ConvertAll(parts, part => part.Shape[^1]);
        (DType dtype, Device device) = (x.DType, x.Device);
        Tape.Record(parts, [x], [], dParts =>
        {
            Tensor dx = Tensor.Empty(shape, dtype, device);
            long start = 0;
            for (int i = 0; i < widths.Length; start += widths[i++])
            {
                Tensor slice = dx.Slice(-1, start, widths[i]);
                if (dParts[i] is { } dPart) dx.Backend.Copy(dPart, slice);
                else dx.Backend.Copy(Tensor.Zeros(slice.Shape, dtype, device), slice);
            }
            return [dx];
        });
    }

    private static void WriteParts(ReadOnlySpan<Tensor> parts, Tensor whole, int axis)
    {
        long start = 0;
        foreach (Tensor part in parts)
        {
            whole.Backend.Copy(part, whole.Slice(axis, start, part.Shape[axis]));
            start += part.Shape[axis];
        }
    }
}

public abstract partial class Backend
{
    /// <summary>destination = source, converting; both may be strided.</summary>
    internal abstract void Copy(Tensor source, Tensor destination);

    /// <summary>Sets every element of a contiguous tensor.</summary>
    internal abstract void Fill(Tensor tensor, float value);

    /// <summary>sum += x; sum is contiguous.</summary>
    internal abstract void Accumulate(Tensor x, Tensor sum);
}
