using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ZEngine;

/// <summary>A view of device memory: shape, strides and element type over a shared storage.</summary>
/// <remarks>
/// A tensor belongs to the innermost open <see cref="TensorScope"/> (a <see cref="Tape"/> is one) of the thread that made it, and
/// otherwise to the caller, who disposes it. Counts, strides and offsets are 64-bit and in elements.
/// </remarks>
public sealed partial class Tensor : IDisposable
{
    /// <summary>The largest number of axes.</summary>
    public const int MaxRank = 6;

    private Storage? _storage;
    private Axes _shape, _strides;
    private readonly long _offset;                             // in elements, from the start of the storage

    private Tensor(Storage storage, long offset, ReadOnlySpan<long> shape, ReadOnlySpan<long> strides, DType dtype)
    {
        (_storage, _offset, DType, Rank) = (storage, offset, dtype, shape.Length);
        shape.CopyTo(_shape);
        strides.CopyTo(_strides);
        Count = 1;
        foreach (long size in shape) Count *= size;
        TensorScope.Adopt(this);
    }

    /// <summary>The sizes of the axes; empty for a scalar.</summary>
    public ReadOnlySpan<long> Shape => MemoryMarshal.CreateReadOnlySpan(ref Unsafe.As<Axes, long>(ref _shape), Rank);

    /// <summary>Elements from one index of an axis to the next.</summary>
    public ReadOnlySpan<long> Strides => MemoryMarshal.CreateReadOnlySpan(ref Unsafe.As<Axes, long>(ref _strides), Rank);

    /// <summary>The number of axes.</summary>
    public int Rank { get; }

    /// <summary>The number of elements.</summary>
    public long Count { get; }

    /// <summary>The element type.</summary>
    public DType DType { get; }

    /// <summary>Where the elements live.</summary>
    public Device Device => Storage.Device;

    /// <summary>Whether the memory was given back; every use then throws <see cref="ObjectDisposedException"/>.</summary>
    public bool IsDisposed => _storage is null;

    /// <summary>Whether the elements stand in row-major order without gaps.</summary>
    public bool IsContiguous => HasDenseInner(Rank);

    /// <summary>Whether ops on this tensor are recorded by the open tape.</summary>
    public bool RequiresGradient => Tape.Tracks(this);

    internal Storage Storage => _storage ?? throw Disposed("Tensor");

    internal Backend Backend => Device.Backend;

    /// <summary>Address of the first element on its device.</summary>
    internal nint Address => Storage.Address + (nint)(_offset * DType.Size);

    /// <summary>The parameter whose value this is.</summary>
    internal Parameter? Parameter { get; set; }

    /// <summary>The tape that tracks this tensor, and its place there.</summary>
    internal (TapeState? Tape, int Slot) Tracking { get; set; }

    /// <summary>The tape that needs this tensor for its backward pass, so that an inner scope must not dispose it.</summary>
    internal TapeState? Keeper { get; set; }

    /// <summary>How many gradient slots of a tape hold this very object.</summary>
    internal int GradientUses { get; set; }

    /// <summary>A tensor with undefined contents.</summary>
    /// <exception cref="ArgumentException">More than <see cref="MaxRank"/> axes, a negative size, or more bytes than 64 bits count.</exception>
    public static Tensor Empty(ReadOnlySpan<long> shape, DType dtype, Device device)
    {
        ArgumentNullException.ThrowIfNull(device);
        Axes strides = default;
        long bytes = RowMajor(shape, dtype, strides);
        return new Tensor(device.Allocate(bytes), 0, shape, ((ReadOnlySpan<long>)strides)[..shape.Length], dtype);
    }

    /// <summary>A contiguous tensor with undefined contents and the shape, type and device of another.</summary>
    public static Tensor EmptyLike(Tensor other)
    {
        ArgumentNullException.ThrowIfNull(other);
        return Empty(other.Shape, other.DType, other.Device);
    }

    /// <summary>The same for an optional tensor.</summary>
    internal static Tensor? EmptyLikeOrNull(Tensor? other) => other is null ? null : EmptyLike(other);

    /// <summary>A tensor of zeros.</summary>
    public static Tensor Zeros(ReadOnlySpan<long> shape, DType dtype, Device device)
    {
        Tensor tensor = Empty(shape, dtype, device);
        tensor.Clear();
        return tensor;
    }

    /// <summary>A copy of host values in row-major order.</summary>
    /// <exception cref="ArgumentException">The number of values is not the number of elements.</exception>
    public static Tensor From<T>(ReadOnlySpan<T> values, ReadOnlySpan<long> shape, Device device) where T : unmanaged
    {
        Tensor tensor = Empty(shape, DTypeExtensions.Of<T>(), device);
        tensor.CopyFrom(values);
        return tensor;
    }

    /// <summary>A float scalar, shape [].</summary>
    public static Tensor Scalar(float value, Device device) => From([value], [], device);

    /// <summary>Sees CPU memory of the caller as a tensor, without a copy.</summary>
    /// <param name="address">First element; must be aligned to the element size and outlive the tensor and its views.</param>
    /// <param name="shape">Sizes, row-major and dense.</param>
    /// <param name="dtype">Element type.</param>
    /// <param name="owner">Disposed when the last view of the memory goes.</param>
    public static Tensor Borrow(nint address, ReadOnlySpan<long> shape, DType dtype, IDisposable? owner = null)
    {
        if (address % dtype.Size != 0)
            throw new ArgumentException($"Tensor.Borrow: address 0x{address:x} is not aligned to {dtype.Size} bytes, as {dtype} needs.", nameof(address));
        Axes strides = default;
        long bytes = RowMajor(shape, dtype, strides);
        return new Tensor(Device.Cpu.Borrow(address, bytes, owner), 0, shape, ((ReadOnlySpan<long>)strides)[..shape.Length], dtype);
    }

    /// <summary>Overwrites all elements with host values in row-major order.</summary>
    /// <exception cref="ArgumentException">Wrong number or type of values, or the tensor is not contiguous.</exception>
    public void CopyFrom<T>(ReadOnlySpan<T> values) where T : unmanaged
    {
        RequireAlive(nameof(CopyFrom));
        RequireHostType<T>(values.Length, nameof(CopyFrom));
        Device.CopyFromHost(MemoryMarshal.AsBytes(values), Address);
    }

    /// <summary>Copies all elements to the host, in row-major order.</summary>
    /// <exception cref="ArgumentException">Wrong number or type of values.</exception>
    public void CopyTo<T>(Span<T> values) where T : unmanaged
    {
        RequireAlive(nameof(CopyTo));
        if (!IsContiguous)
        {
            using TensorScope scope = TensorScope.Enter();
            using NoGradient pause = Tape.NoGrad();
            Contiguous().CopyTo(values);
            return;
        }
        RequireHostType<T>(values.Length, nameof(CopyTo));
        Device.CopyToHost(Address, MemoryMarshal.AsBytes(values));
    }

    /// <summary>All elements in row-major order.</summary>
    public T[] ToArray<T>() where T : unmanaged
    {
        RequireAlive(nameof(ToArray));
        var values = new T[Count];
        CopyTo(values.AsSpan());
        return values;
    }

    /// <summary>The value of a tensor of one element, as a float.</summary>
    public float Item()
    {
        RequireAlive(nameof(Item));
        if (Count != 1) throw new ArgumentException($"Tensor.Item: needs one element, got {this}.");
        return DType switch
        {
            DType.Float32 => First<float>(),
            DType.BFloat16 => First<BFloat16>(),
            DType.Float16 => (float)First<Half>(),
            DType.Int32 => First<int>(),
            DType.Int64 => First<long>(),
            DType.UInt8 => First<byte>(),
            _ => First<sbyte>(),
        };
    }

    /// <summary>Sets every element to zero.</summary>
    public void Clear()
    {
        RequireAlive(nameof(Clear));
        if (!IsContiguous) throw new ArgumentException($"Tensor.Clear: needs a contiguous tensor, got {this}.");
        Device.Clear(Address, Count * DType.Size);
    }

    /// <summary>Gives the view back; the memory goes with the last view. Does nothing the second time.</summary>
    public void Dispose()
    {
        Storage? storage = _storage;
        if (storage is null) return;
        _storage = null;
        storage.RemoveView();
    }

    /// <summary>For example <c>Float32 [2, 17, 64] on cpu</c>.</summary>
    public override string ToString() => $"{DType} {ShapeText(Shape)}{(IsDisposed ? ", disposed" : $" on {Device.Name}")}";

    /// <summary>Rejects a use of a tensor whose memory was given back.</summary>
    internal void RequireAlive(string call)
    {
        if (_storage is null) throw Disposed($"Tensor.{call}");
    }

    private ObjectDisposedException Disposed(string call) => new(nameof(Tensor), $"{call}: {DType} {ShapeText(Shape)} was disposed, by hand or with the scope that owned it.");

    /// <summary>The number of elements of a shape.</summary>
    internal static long CountOf(ReadOnlySpan<long> shape, string what)
    {
        long count = 1;
        foreach (long size in shape)
        {
            if (size < 0) throw new ArgumentException($"{what}: sizes must not be negative, got {ShapeText(shape)}.");
            if (size > 0 && count > long.MaxValue / size) throw new ArgumentException($"{what}: {ShapeText(shape)} has more elements than 64 bits can count.");
            count *= size;
        }
        return count;
    }

    internal static string ShapeText(ReadOnlySpan<long> shape)
    {
        var sizes = new string[shape.Length];
        for (int axis = 0; axis < shape.Length; axis++) sizes[axis] = shape[axis].ToString(CultureInfo.InvariantCulture);
        return $"[{string.Join(", ", sizes)}]";
    }

    /// <summary>Whether the last <paramref name="axes"/> axes stand in row-major order without gaps.</summary>
    internal bool HasDenseInner(int axes)
    {
        long dense = 1;
        for (int axis = Rank - 1; axis >= Rank - axes; axis--)
        {
            if (_shape[axis] != 1 && _strides[axis] != dense) return false;
            dense *= _shape[axis];
        }
        return true;
    }

    /// <summary>Whether the rows along the last axis, or with 0 the elements, stand at even distances over all leading axes.</summary>
    internal bool HasEvenRows(int inner = 1)
    {
        long expected = -1;                                    // not known yet; a broadcast axis has stride 0
        for (int axis = Rank - 1 - inner; axis >= 0; axis--)
        {
            if (_shape[axis] == 1) continue;
            if (expected >= 0 && _strides[axis] != expected) return false;
            expected = _strides[axis] * _shape[axis];
        }
        return true;
    }

    /// <summary>Elements from one row to the next, for a tensor with even rows.</summary>
    internal long RowStride(int inner = 1)
    {
        for (int axis = Rank - 1 - inner; axis >= 0; axis--)
            if (_shape[axis] != 1) return _strides[axis];
        return Rank == 0 || inner == 0 ? 1 : _shape[Rank - 1];
    }

    /// <summary>This tensor if its last axis is dense and its rows are even, else a contiguous copy.</summary>
    internal Tensor WithEvenRows() => HasDenseInner(1) && HasEvenRows() ? this : Contiguous();

    private T First<T>() where T : unmanaged
    {
        T value = default;
        Device.CopyToHost(Address, MemoryMarshal.AsBytes(new Span<T>(ref value)));
        return value;
    }

    private void RequireHostType<T>(long count, string call) where T : unmanaged
    {
        if (DTypeExtensions.Of<T>() != DType) throw new ArgumentException($"Tensor.{call}: the tensor holds {DType}, the host values are {typeof(T).Name}.");
        if (count != Count) throw new ArgumentException($"Tensor.{call}: {this} has {Count} elements, got {count} host values.");
        if (!IsContiguous) throw new ArgumentException($"Tensor.{call}: needs a contiguous tensor, got {this}.");
    }

    /// <summary>Fills in row-major strides and returns the bytes.</summary>
    private static long RowMajor(ReadOnlySpan<long> shape, DType dtype, Span<long> strides)
    {
        if (shape.Length > MaxRank) throw new ArgumentException($"Tensor: at most {MaxRank} axes, got {ShapeText(shape)}.");
        try
        {
            long stride = 1;
            for (int axis = shape.Length - 1; axis >= 0; axis--)
            {
                if (shape[axis] < 0) throw new ArgumentException($"Tensor: sizes must not be negative, got {ShapeText(shape)}.");
                strides[axis] = stride;
                stride = checked(stride * shape[axis]);
            }
            return checked(stride * dtype.Size);
        }
        catch (OverflowException)
        {
            throw new ArgumentException($"Tensor: {ShapeText(shape)} of {dtype} has more bytes than 64 bits can count.");
        }
    }

    [InlineArray(MaxRank)]
    private struct Axes
    {
        private long _size;
    }
}
