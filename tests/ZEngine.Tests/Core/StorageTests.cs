using System.Runtime.CompilerServices;

namespace ZEngine.Tests.Core;

/// <summary>Blocks of the CPU's pool.</summary>
public sealed class StorageTests
{
    /// <summary>A block that begins in the middle of a large page would lose one at either end.</summary>
    [Theory, InlineData(9_000_000), InlineData(100_000_001)]
    public void Large_blocks_begin_with_a_large_page(long bytes)
    {
        using Tensor tensor = Tensor.Empty([bytes], DType.UInt8, Device.Cpu);
        Assert.Equal(128, tensor.Address % ZEngine.Interop.HugePages.Bytes);          // behind the guard
    }

    /// <summary>Smaller ones share large pages, one behind the other, so that a model's weights have no other pages between them.</summary>
    [Fact]
    public unsafe void Blocks_of_a_slab_stand_behind_each_other()
    {
        var memory = new CpuMemory(128);
        byte* first = memory.Allocate(1_000_000), second = memory.Allocate(300_001);
        Assert.Equal(0, (nint)first % ZEngine.Interop.HugePages.Bytes);
        Assert.Equal(1_000_064, second - first);
        memory.Free(first, 1_000_000);
        byte* third = memory.Allocate(200_000);
        Assert.Equal(300_032, third - second);
        memory.Free(second, 300_001);
        memory.Free(third, 200_000);
    }

    /// <summary>Blocks of every kind, taken and given back in any order, keep what is written into them until the end.</summary>
    [Fact]
    public unsafe void Blocks_never_overlap()
    {
        var memory = new CpuMemory(128);
        var random = new Random(1);
        var live = new List<(nint Block, int Bytes, byte Value)>();
        for (int i = 0; i < 2000; i++)
        {
            if (live.Count == 40 || (live.Count > 0 && random.Next(3) == 0))
            {
                int which = random.Next(live.Count);
                (nint block, int bytes, byte value) = live[which];
                live.RemoveAt(which);
                Assert.False(new ReadOnlySpan<byte>((void*)block, bytes).ContainsAnyExcept(value), $"block of {bytes} bytes");
                memory.Free((byte*)block, bytes);
            }
            else
            {
                int bytes = 1 << random.Next(8, 24);
                bytes += random.Next(bytes);
                byte* block = memory.Allocate(bytes);
                Assert.Equal(0, (nint)block % 128);
                live.Add(((nint)block, bytes, (byte)i));
                new Span<byte>(block, bytes).Fill((byte)i);
            }
        }
        foreach ((nint block, int bytes, _) in live) memory.Free((byte*)block, bytes);
    }

    [Fact]
    public void Views_keep_the_buffer_alive()
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        Tensor x = Tensor.From<float>([1, 2, 3, 4], [4], Device.Cpu), tail = x.Slice(0, 2, 2), last = tail.Select(0, 1);
        Assert.Equal(buffers + 1, Device.Cpu.LiveBuffers);
        x.Dispose();
        tail.Dispose();
        Assert.Equal(buffers + 1, Device.Cpu.LiveBuffers);
        Assert.Equal(4f, last.Item());
        // Select makes a slice on its way, which the caller cannot see: without a scope it must not hold the buffer.
        last.Dispose();
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    [Fact]
    public void Returned_block_is_used_again()
    {
        Tensor x = Tensor.Empty([1000], DType.Float32, Device.Cpu);
        nint address = x.Address;
        x.Dispose();
        using Tensor again = Tensor.Empty([1001], DType.Float32, Device.Cpu);
        Assert.Equal(address, again.Address);
    }

    [Fact]
    public void Trim_gives_idle_blocks_back_and_leaves_live_ones()
    {
        using Tensor x = Tensor.From<float>([5], [1], Device.Cpu);
        Tensor.Empty([3000], DType.Float32, Device.Cpu).Dispose();
        Device.Cpu.Trim();
        Device.Cpu.Trim();
        Assert.Equal(5f, x.Item());
        Tensor.Empty([3000], DType.Float32, Device.Cpu).Dispose();
    }

    [Fact]
    public void Blocks_are_aligned()
    {
        foreach (long count in (ReadOnlySpan<long>)[0, 1, 127, 128, 5000, 70001])
        {
            using Tensor x = Tensor.Empty([count], DType.UInt8, Device.Cpu);
            Assert.Equal(0, x.Address % 128);
        }
    }

    [Fact]
    public void Size_class_holds_what_was_asked_and_wastes_a_quarter_at_most()
    {
        for (long bytes = 0; bytes < 1L << 40; bytes += 1 + bytes / 7)
        {
            long size = CpuPool.SizeClass(bytes);
            Assert.True(size >= bytes && (size <= Math.Max(512, bytes + bytes / 4) || size - bytes < 512), $"{bytes} bytes in a block of {size}");
            Assert.Equal(size, CpuPool.SizeClass(size));
        }
    }

    [Fact]
    public void Bytes_and_peak_are_counted()
    {
        Devices.LiveBuffers(Device.Cpu);                      // what other tests dropped goes before
        long bytes = Device.Cpu.LiveBytes;
        Device.Cpu.ResetPeak();
        Tensor x = Tensor.Empty([1 << 20], DType.Float32, Device.Cpu);
        Assert.Equal(bytes + (4 << 20), Device.Cpu.LiveBytes);
        x.Dispose();
        Assert.Equal((bytes, bytes + (4 << 20)), (Device.Cpu.LiveBytes, Device.Cpu.PeakBytes));
    }

    [Fact]
    public void Dropped_tensor_is_given_back_and_counted_as_a_leak()
    {
        Collect();
        long buffers = Device.Cpu.LiveBuffers, bytes = Device.Cpu.LiveBytes, leaks = Device.Cpu.LeakedBuffers;
        Drop();
        Collect();
        Assert.Equal((buffers, bytes, leaks + 2), (Device.Cpu.LiveBuffers, Device.Cpu.LiveBytes, Device.Cpu.LeakedBuffers));
        // The block goes on living in the pool.
        for (int i = 0; i < 3; i++) Tensor.Zeros([777], DType.Float32, Device.Cpu).Dispose();
        Collect();
        Assert.Equal((buffers, leaks + 2), (Device.Cpu.LiveBuffers, Device.Cpu.LeakedBuffers));
    }

    [Fact]
    public void Disposed_tensors_are_no_leaks()
    {
        Devices.LiveBuffers(Device.Cpu);                      // what other tests dropped is counted before
        long leaks = Device.Cpu.LeakedBuffers;
        UseScope();
        Collect();
        Assert.Equal(leaks, Device.Cpu.LeakedBuffers);
    }

    [Fact]
    public unsafe void Guards_notice_writes_beside_a_block()
    {
        foreach ((long at, string side) in (ReadOnlySpan<(long, string)>)[(-1, "before"), (1024, "behind")])
        {
            Tensor x = Tensor.Empty([256], DType.Float32, Device.Cpu);
            byte* block = (byte*)x.Address, planted = block + at;
            byte guard = *planted;
            *planted = 1;
            Assert.Equal($"A kernel wrote {side} a block of 1024 bytes.", Assert.Throws<InvalidOperationException>(x.Dispose).Message);
            Assert.NotEqual(1, guard);
        }
    }

    [Fact]
    public void Guard_that_fires_inside_a_scope_leaves_the_scopes_in_order()
    {
        using TensorScope outer = TensorScope.Enter();
        Assert.Throws<InvalidOperationException>(static () =>
        {
            using TensorScope inner = TensorScope.Enter();
            Spoil(Tensor.Empty([256], DType.Float32, Device.Cpu));
        });
        Tensor x = Tensor.Zeros([2], DType.Float32, Device.Cpu);
        outer.Keep(x);
        x.Dispose();
    }

    [Fact]
    public void Fresh_memory_reads_as_NaN_under_test()
    {
        using Tensor x = Tensor.Empty([300], DType.Float32, Device.Cpu);
        Assert.All(x.ToArray<float>(), value => Assert.True(float.IsNaN(value)));
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Drop()
    {
        Tensor x = Tensor.Zeros([777], DType.Float32, Device.Cpu);
        x.Slice(0, 3, 4);
        Tensor.Zeros([777], DType.Float32, Device.Cpu);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void UseScope()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([777], DType.Float32, Device.Cpu);
        x.Slice(0, 3, 4).Clone();
    }

    private static unsafe void Spoil(Tensor x) => ((byte*)x.Address)[x.Storage.Bytes] = 1;

    private static void Collect()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
    }
}
