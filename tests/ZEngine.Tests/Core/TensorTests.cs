using System.Runtime.InteropServices;

namespace ZEngine.Tests.Core;

/// <summary>Making, reading and ending tensors.</summary>
public sealed class TensorTests
{
    [Fact]
    public void Shape_strides_and_count_are_row_major()
    {
        using Tensor x = Tensor.Empty([2, 3, 4], DType.Int64, Device.Cpu);
        Assert.Equal([2L, 3, 4], x.Shape.ToArray());
        Assert.Equal([12L, 4, 1], x.Strides.ToArray());
        Assert.Equal((3, 24L, true), (x.Rank, x.Count, x.IsContiguous));
        Assert.Equal("Int64 [2, 3, 4] on cpu", x.ToString());
    }

    [Fact]
    public void Scalar_has_no_axes_and_one_element()
    {
        using Tensor x = Tensor.Scalar(2.5f, Device.Cpu);
        Assert.Equal((0, 1L, 2.5f), (x.Rank, x.Count, x.Item()));
        Assert.Equal("Float32 [] on cpu", x.ToString());
    }

    [Fact]
    public void Empty_axis_makes_no_elements()
    {
        using Tensor x = Tensor.Zeros([3, 0, 2], DType.Float32, Device.Cpu);
        Assert.Equal(0, x.Count);
        Assert.Empty(x.ToArray<float>());
        using Tensor copy = x.Clone(), flat = x.Reshape(-1), part = x.Slice(0, 1, 2);
        Assert.Equal((0L, 0L, 0L), (copy.Count, flat.Count, part.Count));
    }

    [Theory]
    [InlineData(new[] { 1L << 31, 1L << 31, 2L }, DType.UInt8, "Tensor: [2147483648, 2147483648, 2] of UInt8 has more bytes than 64 bits can count.")]
    [InlineData(new[] { 1L << 32, 1L << 30 }, DType.Float32, "Tensor: [4294967296, 1073741824] of Float32 has more bytes than 64 bits can count.")]
    [InlineData(new[] { 2L, -1 }, DType.Float32, "Tensor: sizes must not be negative, got [2, -1].")]
    [InlineData(new[] { 1L, 1, 1, 1, 1, 1, 1 }, DType.Float32, "Tensor: at most 6 axes, got [1, 1, 1, 1, 1, 1, 1].")]
    public void Rejects_shapes_that_cannot_be(long[] shape, DType dtype, string message) =>
        Assert.Equal(message, Assert.Throws<ArgumentException>(() => Tensor.Empty(shape, dtype, Device.Cpu)).Message);

    [Theory]
    [InlineData(1L << 60, DType.Float32, "4,611,686,018,427,387,")]
    [InlineData(1L << 58, DType.UInt8, "288,230,376,151,71")]
    [InlineData(long.MaxValue, DType.UInt8, "9,223,372,036,854,775,807 bytes")]
    public void Block_that_no_machine_has_says_what_was_asked_for(long count, DType dtype, string size)
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        string message = Assert.ThrowsAny<OutOfMemoryException>(() => Tensor.Empty([count], dtype, Device.Cpu)).Message;
        Assert.StartsWith($"cpu: no memory for a block of {size}", message, StringComparison.Ordinal);
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    [Fact]
    public void Offsets_beyond_32_bits_are_addressed()
    {
        CpuDevice.Instance.Guards = false;                     // 6 GiB of addresses, of which a few pages are touched
        try
        {
            using TensorScope scope = TensorScope.Enter();
            Tensor bytes = Tensor.Empty([6L << 30], DType.UInt8, Device.Cpu);
            bytes.Slice(0, (6L << 30) - 3, 3).CopyFrom<byte>([7, 8, 9]);
            Tensor corner = bytes.Reshape(3, 2L << 30).Slice(1, (2L << 30) - 2, 2).Select(0, 2);
            Assert.Equal([8, 9], corner.ToArray<byte>());
        }
        finally
        {
            CpuDevice.Instance.Guards = true;
            Device.Cpu.Trim();
        }
    }

    [Fact]
    public void Host_values_must_fit()
    {
        using Tensor x = Tensor.Zeros([2, 2], DType.Float32, Device.Cpu), turned = x.Transpose(0, 1);
        Assert.Equal("Double is not an element type of a tensor.", Assert.Throws<NotSupportedException>(() => x.CopyFrom<double>([1, 2, 3, 4])).Message);
        Assert.Equal("Tensor.CopyFrom: the tensor holds Float32, the host values are Int32.", Message(() => x.CopyFrom<int>([1, 2, 3, 4])));
        Assert.Equal("Tensor.CopyFrom: Float32 [2, 2] on cpu has 4 elements, got 3 host values.", Message(() => x.CopyFrom<float>([1, 2, 3])));
        Assert.Equal("Tensor.CopyFrom: needs a contiguous tensor, got Float32 [2, 2] on cpu.", Message(() => turned.CopyFrom<float>([1, 2, 3, 4])));
        Assert.Equal("Tensor.Clear: needs a contiguous tensor, got Float32 [2, 2] on cpu.", Message(turned.Clear));
        Assert.Equal("Tensor.Item: needs one element, got Float32 [2, 2] on cpu.", Message(() => x.Item()));
    }

    [Fact]
    public void Item_reads_every_type()
    {
        using TensorScope scope = TensorScope.Enter();
        Assert.Equal(-3f, Tensor.From<float>([-3], [1], Device.Cpu).Item());
        Assert.Equal(-3f, Tensor.From<BFloat16>([(BFloat16)(-3f)], [1], Device.Cpu).Item());
        Assert.Equal(-3f, Tensor.From<Half>([(Half)(-3f)], [1], Device.Cpu).Item());
        Assert.Equal(-3f, Tensor.From<int>([-3], [1], Device.Cpu).Item());
        Assert.Equal(-3f, Tensor.From<long>([-3], [1], Device.Cpu).Item());
        Assert.Equal(253f, Tensor.From<byte>([253], [1], Device.Cpu).Item());
        Assert.Equal(-3f, Tensor.From<sbyte>([-3], [1], Device.Cpu).Item());
    }

    [Fact]
    public void Disposed_tensor_refuses_every_use()
    {
        Tensor x = Tensor.Zeros([2], DType.Float32, Device.Cpu);
        x.Dispose();
        x.Dispose();
        Assert.True(x.IsDisposed);
        Assert.Equal("Float32 [2], disposed", x.ToString());
        foreach (Action use in (Action[])[() => x.ToArray<float>(), () => x.CopyFrom<float>([1, 2]), x.Clear, () => x.Slice(0, 0, 1), () => x.Clone(), () => x.Detach(), () => x.Reshape(2, 1), () => _ = x.Device])
            Assert.Throws<ObjectDisposedException>(use);
        Assert.Equal("Add: a [2] was disposed, by hand or with the scope that owned it.", Assert.Throws<ObjectDisposedException>(() => ZEngine.Ops.Add(x, x)).Message.Split(Environment.NewLine)[0]);
    }

    [Fact]
    public unsafe void Borrowed_memory_is_read_in_place_and_the_owner_goes_with_the_last_view()
    {
        var owner = new Owner();
        var memory = (float*)NativeMemory.AlignedAlloc(16, 16);
        new Span<float>(memory, 4).Clear();
        long buffers = Device.Cpu.LiveBuffers, bytes = Device.Cpu.LiveBytes;
        Tensor x = Tensor.Borrow((nint)memory, [2, 2], DType.Float32, owner);
        Assert.Equal((buffers + 1, bytes + 16), (Device.Cpu.LiveBuffers, Device.Cpu.LiveBytes));
        Tensor row = x.Select(0, 1);
        memory[3] = 5;
        Assert.Equal([0, 5], row.ToArray<float>());
        row.CopyFrom<float>([6, 7]);
        Assert.Equal((6f, 7f), (memory[2], memory[3]));
        x.Dispose();
        Assert.Equal(0, owner.Disposals);
        row.Dispose();
        Assert.Equal((1, buffers), (owner.Disposals, Device.Cpu.LiveBuffers));
        Assert.StartsWith($"Tensor.Borrow: address 0x{(nint)memory + 2:x} is not aligned to 4 bytes, as Float32 needs.", Message(() => Tensor.Borrow((nint)memory + 2, [1], DType.Float32)), StringComparison.Ordinal);
        NativeMemory.AlignedFree(memory);
    }

    private static string Message(Action action) => Assert.Throws<ArgumentException>(action).Message;

    private sealed class Owner : IDisposable
    {
        public int Disposals { get; private set; }
        public void Dispose() => Disposals++;
    }
}
