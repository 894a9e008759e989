using ZEngine.Emulator;

namespace ZEngine.Tests.Ops;

/// <summary>Copies, joins and cuts; and every way from one element type to another.</summary>
public sealed class CopyTests
{
    private static readonly DType[] Types = Enum.GetValues<DType>();

    [Fact]
    public void Small_whole_numbers_survive_every_conversion()
    {
        float[] values = [0, 1, 2, 3, 64, 100, 127, 5];
        foreach (DType from in Types)
        foreach (DType to in Types)
        {
            using TensorScope scope = TensorScope.Enter();
            Tensor x = Tensor.From<float>(values, [2, 4], Device.Cpu).To(from), y = x.To(to), turned = x.Transpose(0, 1).To(to);
            Assert.Equal((to, from == to), (y.DType, ReferenceEquals(x, y)));
            Assert.Equal(values, y.To(DType.Float32).ToArray<float>());
            Assert.Equal([0, 64, 1, 100, 2, 127, 3, 5], turned.To(DType.Float32).ToArray<float>());
        }
    }

    [Fact]
    public void Integers_cut_toward_zero_and_saturate()
    {
        float[] values = [-0.9f, 0.5f, 1.5f, 2.99f, -1.5f, 300, -300, 1e30f, -1e30f, float.PositiveInfinity, float.NegativeInfinity, float.NaN];
        Assert.Equal([0, 0, 1, 2, 0, 255, 0, 255, 0, 255, 0, 0], Converted<byte>(values));
        Assert.Equal([0, 0, 1, 2, -1, 127, -128, 127, -128, 127, -128, 0], Converted<sbyte>(values));
        Assert.Equal([0, 0, 1, 2, -1, 300, -300, int.MaxValue, int.MinValue, int.MaxValue, int.MinValue, 0], Converted<int>(values));
        Assert.Equal([0, 0, 1, 2, -1, 300, -300, long.MaxValue, long.MinValue, long.MaxValue, long.MinValue, 0], Converted<long>(values));
        Assert.Equal([int.MaxValue, int.MinValue, 7], Converted<int>((long[])[long.MaxValue, long.MinValue, 7]));
        Assert.Equal([255, 0, 7], Converted<byte>([long.MaxValue, long.MinValue, 7L]));
        Assert.Equal([127, -128, -7], Converted<sbyte>([1000, -1000, -7]));
        Assert.Equal([9007199254740993, -9007199254740993], Converted<long>([9007199254740993L, -9007199254740993L]));
    }

    [Fact]
    public void Large_integers_survive_strided_copies()
    {
        using TensorScope scope = TensorScope.Enter();
        int[] numbers = [int.MaxValue, int.MinValue, 16777217, -16777219];
        long[] large = [long.MaxValue, long.MinValue, 9007199254740993, -9007199254740995];
        Assert.Equal([numbers[0], numbers[2], numbers[1], numbers[3]], Tensor.From<int>(numbers, [2, 2], Device.Cpu).Transpose(0, 1).ToArray<int>());
        Assert.Equal([large[0], large[2], large[1], large[3]], Tensor.From<long>(large, [2, 2], Device.Cpu).Transpose(0, 1).ToArray<long>());
        Assert.Equal(numbers.Select(n => (long)n), Tensor.From<int>(numbers, [4], Device.Cpu).To(DType.Int64).ToArray<long>());
    }

    [Fact]
    public void Transposed_copies_hold_every_element_in_its_place()
    {
        using TensorScope scope = TensorScope.Enter();
        (int a, int b, int c) = (3, 37, 53);
        Tensor x = Tensor.From<float>([.. Enumerable.Range(0, a * b * c).Select(i => (float)i)], [a, b, c], Device.Cpu);
        float[] copy = x.Transpose(1, 2).ToArray<float>(), outer = x.Transpose(0, 2).ToArray<float>();
        int[] whole = x.To(DType.Int32).Transpose(0, 2).ToArray<int>();
        for (int i = 0; i < a; i++)
        for (int j = 0; j < b; j++)
        for (int k = 0; k < c; k++)
        {
            int value = (i * b + j) * c + k, at = (k * b + j) * a + i;
            Assert.Equal(value, copy[(i * c + k) * b + j]);
            Assert.Equal((value, value), (outer[at], whole[at]));
        }
    }

    /// <summary>Tiles through shared memory: both sides in whole sectors, every element once, and no two lanes in one bank.</summary>
    [Theory]
    [InlineData(DType.Float32, DType.Float32), InlineData(DType.BFloat16, DType.BFloat16), InlineData(DType.Int64, DType.Int64), InlineData(DType.UInt8, DType.UInt8), InlineData(DType.Float32, DType.BFloat16)]
    public void Transposed_copies_are_coalesced_on_both_sides(DType from, DType to)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long B = 3, M = 96, N = 160;
        Tensor x = counted.Normal(1, B, M, N).To(from), y = Tensor.Empty([B, N, M], to, counted.Device);
        LaunchProfile[] launches = counted.Profile(() => counted.Device.Backend.Copy(x.Transpose(1, 2), y));
        CountedDevice.Are(["copy_transposed"], launches);
        CountedDevice.Moved(B * M * N * from.Size, B * M * N * to.Size, launches[0]);
        CountedDevice.FillsSectors(launches[0]);
        CountedDevice.HasNoBankConflicts(launches[0]);
        float[] want = x.To(to).To(DType.Float32).ToArray<float>(), got = y.To(DType.Float32).ToArray<float>();
        for (long b = 0; b < B; b++)
            for (long m = 0; m < M; m++)
                for (long n = 0; n < N; n++) Assert.Equal(want[(b * M + m) * N + n], got[(b * N + n) * M + m]);
    }

    /// <summary>Sums of a transposed view take the same tiles: both sides and the sum in whole sectors, once; elements are added where they belong.</summary>
    [Theory]
    [InlineData(DType.Float32, DType.Float32), InlineData(DType.BFloat16, DType.BFloat16), InlineData(DType.BFloat16, DType.Float32), InlineData(DType.Float32, DType.Float16)]
    public void Transposed_sums_are_coalesced_on_both_sides(DType from, DType to)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long B = 3, M = 96, N = 160;
        Tensor x = counted.Normal(1, B, M, N).To(from), sum = counted.Normal(2, B, N, M).To(to), expected = Tensor.Empty([B, N, M], to, counted.Device), turned = Tensor.Empty([B, N, M], from, counted.Device);
        ZEngine.Ops.Copy(sum, expected);
        ZEngine.Ops.Copy(x.Transpose(1, 2), turned);
        counted.Device.Backend.Accumulate(turned, expected);
        LaunchProfile[] launches = counted.Profile(() => counted.Device.Backend.Accumulate(x.Transpose(1, 2), sum));
        CountedDevice.Are(["accumulate_transposed"], launches);
        CountedDevice.Moved(B * M * N * (from.Size + to.Size), B * M * N * to.Size, launches[0]);
        CountedDevice.FillsSectors(launches[0]);
        CountedDevice.HasNoBankConflicts(launches[0]);
        Assert.Equal(expected.To(DType.Float32).ToArray<float>(), sum.To(DType.Float32).ToArray<float>());
    }

    /// <summary>Tiles that are not full, and an axis beside them.</summary>
    [Theory]
    [InlineData(70, 90), InlineData(5, 300), InlineData(64, 33)]
    public void Transposed_sums_of_any_size_equal_the_cpu_s(long m, long n)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor x = ZEngine.Ops.RandomNormal([2, m, n + 3], Device.Cpu, new RandomStream(1)), sum = ZEngine.Ops.RandomNormal([2, n, m], Device.Cpu, new RandomStream(2)), onDevice = sum.To(counted.Device);
        counted.Device.Backend.Accumulate(x.To(counted.Device).Slice(2, 2, n).Transpose(1, 2), onDevice);
        Device.Cpu.Backend.Accumulate(x.Slice(2, 2, n).Transpose(1, 2), sum);
        Assert.Equal(sum.ToArray<float>(), onDevice.ToArray<float>());
    }

    /// <summary>Axes between and around the two that are exchanged, tiles that are not full, sides that have gaps.</summary>
    [Fact]
    public void Transposed_copies_of_any_axes_equal_the_cpu_s()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor x = ZEngine.Ops.RandomNormal([2, 35, 3, 70, 2], Device.Cpu, new RandomStream(1)), wide = ZEngine.Ops.RandomNormal([70, 90], Device.Cpu, new RandomStream(2));
        foreach (Func<Tensor, Tensor> view in (Func<Tensor, Tensor>[])[x => x.Slice(4, 0, 1).Transpose(1, 3), x => x.Transpose(1, 4), x => x.Transpose(0, 3), x => x.Slice(3, 5, 40).Transpose(3, 4).Transpose(1, 4)])
            Assert.Equal(view(x).Clone().ToArray<float>(), view(x.To(counted.Device)).Clone().ToArray<float>());
        Tensor into = Tensor.Zeros([90, 120], DType.Float32, Device.Cpu), onto = Tensor.Zeros([90, 120], DType.Float32, counted.Device);
        ZEngine.Ops.Copy(wide.Transpose(0, 1), into.Slice(1, 20, 70));
        ZEngine.Ops.Copy(wide.To(counted.Device).Transpose(0, 1), onto.Slice(1, 20, 70));
        Assert.Equal(into.ToArray<float>(), onto.ToArray<float>());
    }

    [Fact]
    public void Traffic_of_dense_copies_equals_the_header()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long n = 4096;
        Tensor x = counted.Normal(1, n), half = Tensor.Empty([n], DType.BFloat16, counted.Device), same = Tensor.EmptyLike(x);
        CountedDevice.CheckWide(One(() => ZEngine.Ops.Copy(x, same), "copy_words"), 4 * n, 4 * n);
        CountedDevice.CheckWide(One(() => ZEngine.Ops.Fill(same, 3), "fill"), 0, 4 * n);
        CountedDevice.CheckWide(One(() => counted.Device.Backend.Accumulate(x, same), "accumulate"), 8 * n, 4 * n);
        Assert.Equal(x.ToArray<float>().Select(v => v + 3), same.ToArray<float>());
        LaunchProfile converted = One(() => counted.Device.Backend.Copy(x, half), "convert");
        CountedDevice.CheckWide(converted, 4 * n, 2 * n, isWrittenWide: false);
        CountedDevice.FillsSectors(converted);

        LaunchProfile One(Action action, string kernel)
        {
            LaunchProfile[] launches = counted.Profile(action);
            CountedDevice.Are([kernel], launches);
            return launches[0];
        }
    }

    [Fact]
    public void Floats_round_to_nearest_even_once()
    {
        // 2^24 + 2^16 is a tie of BFloat16, and one more is just above it: rounding by way of Float32 would make a tie of that too.
        Assert.Equal([16777216f, 16908288f, 16777216f], Converted<BFloat16>((int[])[16777216 + 65536, 16777216 + 65537, 16777216 + 65535]).Select(v => (float)v));
        Assert.Equal([16908288f, -16908288f], Converted<BFloat16>([16777216 + 65537L, -16777216 - 65537L]).Select(v => (float)v));
        Assert.Equal([16777216f, 16777220f, 9007200328482816f], Converted<float>([16777217L, 16777219L, (1L << 53) + (1L << 29) + 1]));
        Assert.Equal([2048f, 2052f, float.PositiveInfinity, 65504f], Converted<Half>([2049, 2051, 65520, 65519]).Select(v => (float)v));
        Assert.Equal([1f, 1.0078125f, float.PositiveInfinity], Converted<BFloat16>([1.00390625f, 1.003907f, 3.4e38f]).Select(v => (float)v));
    }

    [Fact]
    public void Copy_writes_into_a_view_and_checks_shapes()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 3], DType.Int32, Device.Cpu), column = Tensor.From<float>([7, 8], [2], Device.Cpu);
        ZEngine.Ops.Copy(column, x.Select(1, 2));
        Assert.Equal([0, 0, 7, 0, 0, 8], x.ToArray<int>());
        Assert.Equal("Copy: source is Float32 [2] on cpu but destination is Int32 [2, 3] on cpu.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Copy(column, x)).Message);
    }

    [Fact]
    public void Fill_sets_every_element_of_every_type()
    {
        foreach (DType type in Types)
        {
            using TensorScope scope = TensorScope.Enter();
            Tensor x = Tensor.Empty([3, 50], type, Device.Cpu);
            ZEngine.Ops.Fill(x, 3);
            Assert.All(x.To(DType.Float32).ToArray<float>(), value => Assert.Equal(3f, value));
        }
        using TensorScope outer = TensorScope.Enter();
        Tensor turned = Tensor.Zeros([2, 3], DType.Float32, Device.Cpu).Transpose(0, 1);
        Assert.Equal("Fill: tensor must be contiguous, got strides [1, 3] for Float32 [3, 2] on cpu.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Fill(turned, 1)).Message);
    }

    [Theory, InlineData(0), InlineData(1), InlineData(-1)]
    public void Concat_and_its_gradient_undo_slices(int axis)
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Counting(4, 5, 6));
        int resolved = axis < 0 ? 2 : axis;
        long size = x.Shape[resolved];
        Tensor joined = ZEngine.Ops.Concat(axis, x.Slice(axis, 2, size - 2), x.Slice(axis, 0, 2));
        tape.Backward(ZEngine.Ops.Concat(axis, joined.Slice(axis, size - 2, 2), joined.Slice(axis, 0, size - 2)), Counting(4, 5, 6));
        Assert.Equal(x.ToArray<float>(), tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Split_parts_that_nothing_uses_have_gradient_zero()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Counting(2, 6));
        Tensor[] parts = ZEngine.Ops.Split(x, 1, 3, 2);
        Assert.Equal([2, 3, 4, 8, 9, 10], parts[1].ToArray<float>());
        tape.Backward(parts[1], Counting(2, 3));
        Assert.Equal([0, 1, 2, 3, 0, 0, 0, 4, 5, 6, 0, 0], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Parts_that_do_not_fit_are_named()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor a = Counting(2, 3), b = Counting(3, 2);
        Assert.Equal("Concat: part 1 is Float32 [3, 2] on cpu but part 0 is Float32 [2, 3] on cpu: they differ beside axis 0.", Message(() => ZEngine.Ops.Concat(0, a, b)));
        Assert.Equal("Concat: Float32 [2, 3] on cpu has no axis 2.", Message(() => ZEngine.Ops.Concat(2, a)));
        Assert.Equal("Concat: needs at least one tensor.", Message(() => ZEngine.Ops.Concat(0)));
        Assert.Equal("Split: widths [1, 1] add up to 2, but x is Float32 [2, 3] on cpu.", Message(() => ZEngine.Ops.Split(a, 1, 1)));
    }

    private static T[] Converted<T>(params float[] values) where T : unmanaged => To<float, T>(values);
    private static T[] Converted<T>(long[] values) where T : unmanaged => To<long, T>(values);
    private static T[] Converted<T>(int[] values) where T : unmanaged => To<int, T>(values);

    private static TTo[] To<TFrom, TTo>(TFrom[] values) where TFrom : unmanaged where TTo : unmanaged
    {
        using TensorScope scope = TensorScope.Enter();
        return Tensor.From<TFrom>(values, [values.Length], Device.Cpu).To(DTypeExtensions.Of<TTo>()).ToArray<TTo>();
    }

    private static Tensor Counting(params long[] shape)
    {
        var values = new float[shape.Aggregate(1L, (a, b) => a * b)];
        for (int i = 0; i < values.Length; i++) values[i] = i + 1;
        return Tensor.From<float>(values, shape, Device.Cpu);
    }

    private static string Message(Action action) => Assert.Throws<ArgumentException>(action).Message;
}
