namespace ZEngine;

/// <content>Views and copies. All of them are differentiable.</content>
public sealed partial class Tensor
{
    /// <summary>The same elements under another shape; one size may be -1 and is worked out. A view where strides allow it, else a copy.</summary>
    public Tensor Reshape(params ReadOnlySpan<long> shape)
    {
        RequireAlive(nameof(Reshape));
        Axes target = default;
        ResolveShape(shape, target);
        ReadOnlySpan<long> sizes = ((ReadOnlySpan<long>)target)[..shape.Length];
        if (sizes.SequenceEqual(Shape)) return this;
        Axes strides = default;
        if (!TryViewStrides(sizes, strides))
        {
            Tensor dense = Contiguous(), copy = dense.Reshape(sizes);
            if (!Tape.Tracks(dense)) dense.Dispose();          // nobody else can see it, and there may be no scope
            return copy;
        }
        Tensor view = View(_offset, sizes, ((ReadOnlySpan<long>)strides)[..shape.Length]);
        return Tape.Tracks(this) ? Tape.Record(view, [this], [], ReshapeBackward(Shape.ToArray())) : view;
    }

    /// <summary>The part of one axis that begins at <paramref name="start"/> and has <paramref name="length"/> indices, as a view.</summary>
    public Tensor Slice(int axis, long start, long length)
    {
        RequireAlive(nameof(Slice));
        axis = ResolveAxis(axis, nameof(Slice));
        if (start < 0 || length < 0 || start > _shape[axis] - length)
            throw new ArgumentException($"Tensor.Slice: {start}..{start + length} is outside axis {axis} of {this}.");
        Axes sizes = _shape;
        sizes[axis] = length;
        Tensor view = View(_offset + start * _strides[axis], ((ReadOnlySpan<long>)sizes)[..Rank], Strides);
        return Tape.Tracks(this) ? Tape.Record(view, [this], [], SliceBackward(axis, start)) : view;
    }

    /// <summary>One index of an axis, which disappears, as a view.</summary>
    public Tensor Select(int axis, long index)
    {
        RequireAlive(nameof(Select));
        axis = ResolveAxis(axis, nameof(Select));
        if (index < 0 || index >= _shape[axis]) throw new ArgumentException($"Tensor.Select: {index} is outside axis {axis} of {this}.");
        Axes sizes = _shape, strides = _strides;
        Shape[(axis + 1)..].CopyTo(((Span<long>)sizes)[axis..]);
        Strides[(axis + 1)..].CopyTo(((Span<long>)strides)[axis..]);
        Tensor view = View(_offset + index * _strides[axis], ((ReadOnlySpan<long>)sizes)[..(Rank - 1)], ((ReadOnlySpan<long>)strides)[..(Rank - 1)]);
        return Tape.Tracks(this) ? Tape.Record(view, [this], [], SelectBackward(axis, index)) : view;
    }

    /// <summary>Two axes exchanged, as a view.</summary>
    public Tensor Transpose(int axis0, int axis1)
    {
        RequireAlive(nameof(Transpose));
        (axis0, axis1) = (ResolveAxis(axis0, nameof(Transpose)), ResolveAxis(axis1, nameof(Transpose)));
        (Axes sizes, Axes strides) = (_shape, _strides);
        (sizes[axis0], sizes[axis1]) = (sizes[axis1], sizes[axis0]);
        (strides[axis0], strides[axis1]) = (strides[axis1], strides[axis0]);
        Tensor view = View(_offset, ((ReadOnlySpan<long>)sizes)[..Rank], ((ReadOnlySpan<long>)strides)[..Rank]);
        return Tape.Tracks(this) ? Tape.Record(view, [this], [], dy => [dy.Transpose(axis0, axis1)]) : view;
    }

    /// <summary>This tensor if its elements stand in row-major order without gaps, else a copy that does.</summary>
    public Tensor Contiguous()
    {
        RequireAlive(nameof(Contiguous));
        return WithDenseInner(Rank);
    }

    /// <summary>The values in another element type, or this tensor when it has that type. Floats round to nearest even; integers are cut toward zero and saturate, and NaN becomes 0.</summary>
    public Tensor To(DType dtype)
    {
        RequireAlive(nameof(To));
        return dtype == DType ? this : Copied(dtype);
    }

    /// <summary>The values on another device, or this tensor when it is there.</summary>
    /// <exception cref="InvalidOperationException">A recorded tensor: gradients do not cross devices.</exception>
    public Tensor To(Device device)
    {
        ArgumentNullException.ThrowIfNull(device);
        RequireAlive(nameof(To));
        if (device == Device) return this;
        if (RequiresGradient) throw new InvalidOperationException($"Tensor.To: {this} is recorded by a tape, and gradients do not cross devices.");
        Tensor source = Contiguous(), copy = Empty(Shape, DType, device);
        source.ForEachHostBlock((bytes, at) => device.CopyFromHost(bytes, copy.Address + (nint)at));
        if (source != this) source.Dispose();
        return copy;
    }

    /// <summary>Writes all elements to a stream in row-major order, little-endian.</summary>
    public void WriteTo(Stream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        RequireAlive(nameof(WriteTo));
        using TensorScope scope = TensorScope.Enter();
        using NoGradient pause = Tape.NoGrad();
        Contiguous().ForEachHostBlock((bytes, _) => stream.Write(bytes));
    }

    /// <summary>Hands out the bytes of a contiguous tensor block by block, so that no size is too large for a span.</summary>
    private void ForEachHostBlock(HostBlock action)
    {
        long total = Count * DType.Size;
        var block = new byte[(int)Math.Min(total, 1 << 22)];
        for (long at = 0; at < total; at += block.Length)
        {
            Span<byte> bytes = block.AsSpan(0, (int)Math.Min(block.Length, total - at));
            Device.CopyToHost(Address + (nint)at, bytes);
            action(bytes, at);
        }
    }

    private delegate void HostBlock(ReadOnlySpan<byte> bytes, long at);

    /// <summary>Another handle on the same elements that no tape knows: gradients stop here.</summary>
    public Tensor Detach()
    {
        RequireAlive(nameof(Detach));
        return View(_offset, Shape, Strides);
    }

    /// <summary>A contiguous copy.</summary>
    public Tensor Clone()
    {
        RequireAlive(nameof(Clone));
        return Copied(DType);
    }

    /// <summary>This tensor if its last <paramref name="axes"/> axes are dense, else a contiguous copy.</summary>
    internal Tensor WithDenseInner(int axes) => HasDenseInner(Math.Min(axes, Rank)) ? this : Copied(DType);

    /// <summary>A view of a larger shape in which axes of size 1, and new leading axes, have stride 0. Not recorded.</summary>
    internal Tensor BroadcastTo(ReadOnlySpan<long> shape)
    {
        if (Shape.SequenceEqual(shape)) return this;
        Axes strides = default;
        int added = shape.Length - Rank;
        for (int axis = 0; axis < Rank; axis++) strides[axis + added] = _shape[axis] == 1 ? 0 : _strides[axis];
        return View(_offset, shape, ((ReadOnlySpan<long>)strides)[..shape.Length]);
    }

    private Tensor Copied(DType dtype)
    {
        Tensor copy = Empty(Shape, dtype, Device);
        Backend.Copy(this, copy);
        if (!Tape.Tracks(this)) return copy;
        DType own = DType;
        return Tape.Record(copy, [this], [], dy => [dy.To(own)]);
    }

    private Tensor View(long offset, ReadOnlySpan<long> shape, ReadOnlySpan<long> strides)
    {
        Storage storage = Storage;
        storage.AddView();
        return new Tensor(storage, offset, shape, strides, DType);
    }

    private static Func<Tensor, Tensor?[]> ReshapeBackward(long[] shape) => dy => [dy.Reshape(shape)];

    private Func<Tensor, Tensor?[]> SliceBackward(int axis, long start)
    {
        long[] shape = Shape.ToArray();
        return dy =>
        {
            Tensor dx = Zeros(shape, dy.DType, dy.Device);
            dy.Backend.Copy(dy, dx.Slice(axis, start, dy.Shape[axis]));
            return [dx];
        };
    }

    private Func<Tensor, Tensor?[]> SelectBackward(int axis, long index)
    {
        long[] shape = Shape.ToArray();
        return dy =>
        {
            Tensor dx = Zeros(shape, dy.DType, dy.Device);
            dy.Backend.Copy(dy, dx.Select(axis, index));
            return [dx];
        };
    }

    private int ResolveAxis(int axis, string call)
    {
        int resolved = axis < 0 ? axis + Rank : axis;
        if (resolved < 0 || resolved >= Rank) throw new ArgumentException($"Tensor.{call}: {this} has no axis {axis}.");
        return resolved;
    }

    private void ResolveShape(ReadOnlySpan<long> shape, Span<long> target)
    {
        if (shape.Length > MaxRank) throw new ArgumentException($"Tensor.Reshape: at most {MaxRank} axes, got {ShapeText(shape)}.");
        int open = -1;
        long product = 1;
        for (int axis = 0; axis < shape.Length; axis++)
        {
            target[axis] = shape[axis];
            if (shape[axis] == -1 && open < 0) open = axis;
            else if (shape[axis] < 0) throw new ArgumentException($"Tensor.Reshape: one size may be -1, got {ShapeText(shape)}.");
            else product = shape[axis] > 0 && product > long.MaxValue / shape[axis] ? long.MaxValue : product * shape[axis];
        }
        if (open >= 0) target[open] = product == 0 ? 0 : Count / product;
        if (product * (open >= 0 ? target[open] : 1) != Count)
            throw new ArgumentException($"Tensor.Reshape: {this} has {Count} elements, which do not fill {ShapeText(shape)}.");
    }

    /// <summary>Strides under which the existing elements read as <paramref name="sizes"/>, if there are any.</summary>
    private bool TryViewStrides(ReadOnlySpan<long> sizes, Span<long> strides)
    {
        if (Count == 0 || IsContiguous)
        {
            RowMajor(sizes, DType, strides);
            return true;
        }
        // Walk both shapes from the inside; a run of old axes that is dense among itself may be cut anywhere.
        int axis = sizes.Length - 1;
        for (int old = Rank - 1; old >= 0;)
        {
            long run = _shape[old], stride = _strides[old];
            while (--old >= 0 && (_shape[old] == 1 || run == 1 || _strides[old] == stride * run))
            {
                if (run == 1) stride = _strides[old];
                run *= _shape[old];
            }
            long filled = 1;
            while (axis >= 0 && (filled < run || sizes[axis] == 1))
            {
                strides[axis] = stride * filled;
                filled *= sizes[axis--];
            }
            if (filled != run) return false;
        }
        return true;
    }
}
