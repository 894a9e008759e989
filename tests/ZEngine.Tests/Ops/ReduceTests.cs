using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class ReduceTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        (int? axis, bool keep) = (x.Attrs.Int("axis"), x.Attrs.Flag("keep_axis"));
        Tensor input = axis is null ? x["x"].Reshape(-1) : x["x"];
        return new()
        {
            ["y"] = x.Attrs.Text("function") switch
            {
                "sum" => ZEngine.Ops.Sum(input, axis ?? 0, keep),
                "mean" => ZEngine.Ops.Mean(input, axis ?? 0, keep),
                _ => ZEngine.Ops.Max(input, axis ?? 0, keep),
            },
        };
    }

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times(new[] { "sum", "mean", "max" }.SelectMany(f => new[]
    {
        Case("reduce", $"{f} of all").With("function", f).Normal("x", [7, 29]).Build(),
        Case("reduce", $"{f} of the last axis").With("function", f).With("axis", 1).Normal("x", [7, 29]).Build(),
        Case("reduce", $"{f} of a middle axis, kept").With("function", f).With("axis", 1).With("keep_axis", true).Normal("x", [3, 5, 19]).Build(),
        Case("reduce", $"{f} of a middle axis, wide").With("function", f).With("axis", 1).Normal("x", [3, 5, 150]).Build(),
        Case("reduce", $"{f} of the first axis").With("function", f).With("axis", 0).Normal("x", [9, 4, 3]).Build(),
    }));

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    [Theory, MemberData(nameof(DeviceNames))]
    public void Long_sums_do_not_drift(string device)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Empty([1 << 22], DType.Float32, Devices.Open(device));
        ZEngine.Ops.Fill(x, 0.1f);
        Assert.Equal((double)0.1f * (1 << 22), ZEngine.Ops.Sum(x).Item(), 0.1);
    }

    /// <summary>Shapes that are cut into pieces, have tails, or few columns; against sums in double.</summary>
    [Theory]
    [InlineData(1, 40_003, 1), InlineData(2, 33_000, 1), InlineData(3, 700, 1), InlineData(1, 3000, 6), InlineData(1, 2000, 264), InlineData(2, 3, 300), InlineData(70, 5, 2), InlineData(5, 1, 7)]
    public void Sums_and_maxima_equal_plain_loops(int outer, int count, int inner)
    {
        foreach (string name in Devices.Names)
        foreach (DType dtype in (ReadOnlySpan<DType>)(name == "cpu" ? [DType.Float32] : [DType.Float32, DType.BFloat16, DType.Float16]))
        {
            using Tape tape = Tape.Begin();
            Tensor x = tape.Watch(ZEngine.Ops.RandomNormal([outer, count, inner], Device.Cpu, new RandomStream(9)).To(Devices.Open(name)).To(dtype).Clone());
            Tensor sum = ZEngine.Ops.Sum(x, 1), mean = ZEngine.Ops.Mean(x, 1), max = ZEngine.Ops.Max(x, 1);
            float[] values = Floats(x), weights = Floats(ZEngine.Ops.RandomNormal([outer, inner], Device.Cpu, new RandomStream(10)).To(x.Device).To(dtype));
            tape.Backward(max, Tensor.From<float>(weights, [outer, inner], x.Device).To(dtype));
            float[] sums = Floats(sum), means = Floats(mean), maxima = Floats(max), gradient = Floats(tape.GradientOf(x));
            for (int o = 0; o < outer; o++)
            for (int i = 0; i < inner; i++)
            {
                int[] places = [.. Enumerable.Range(0, count).Select(c => (o * count + c) * inner + i)];
                double total = places.Sum(at => (double)values[at]), scale = places.Sum(at => Math.Abs((double)values[at])) * 1e-6;
                int best = places.MaxBy(at => values[at]);
                double rounding = dtype == DType.Float32 ? 0 : dtype == DType.Float16 ? 1.0 / 2048 : 1.0 / 256;
                Assert.Equal(total, sums[o * inner + i], scale + Math.Abs(total) * rounding);
                Assert.Equal(total / count, means[o * inner + i], (scale + Math.Abs(total) * rounding) / count + 1e-7);
                Assert.Equal(values[best], maxima[o * inner + i]);
                foreach (int at in places) Assert.Equal(at == best ? weights[o * inner + i] : 0, gradient[at]);
            }
        }
    }

    private static float[] Floats(Tensor x) => x.To(DType.Float32).ToArray<float>();

    [Theory, MemberData(nameof(DeviceNames))]
    public void Maximum_of_NaN_is_NaN_and_its_gradient_goes_to_the_largest(string device)
    {
        using Tape tape = Tape.Begin();
        const float N = float.NaN;
        Tensor x = tape.Watch(Tensor.From<float>([1, N, 3, 3, N, 5, 2, 0, -0f, 0, -1, -2, float.NegativeInfinity, float.NegativeInfinity, N, float.NegativeInfinity], [4, 4], Devices.Open(device)));
        Tensor rows = ZEngine.Ops.Max(x, 1), columns = ZEngine.Ops.Max(x, 0);
        Assert.Equal([N, N, 0, N], rows.ToArray<float>());
        Assert.Equal([N, N, N, 3], columns.ToArray<float>());
        tape.Backward(rows, Tensor.From<float>([1, 2, 3, 4], [4], x.Device));
        Assert.Equal([0, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Empty_axes_and_tensors()
    {
        foreach (string name in Devices.Names)
        {
            using TensorScope scope = TensorScope.Enter();
            Assert.Equal([0, 0, 0], ZEngine.Ops.Sum(Tensor.Zeros([3, 0], DType.Float32, Devices.Open(name)), 1).ToArray<float>());
            Assert.Equal([0, 0, 0], ZEngine.Ops.Sum(Tensor.Zeros([0, 3], DType.Float32, Devices.Open(name)), 0).ToArray<float>());
            Assert.Empty(ZEngine.Ops.Sum(Tensor.Zeros([0, 3], DType.Float32, Devices.Open(name)), 1).ToArray<float>());
        }
    }

    [Fact]
    public void Traffic_of_rows_is_one_read_and_one_write()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor x = ZEngine.Ops.RandomNormal([12, 1024], Device.Cpu, new RandomStream(1)).To(probe.Device);
        LaunchProfile forward = Assert.Single(probe.Profile(() => ZEngine.Ops.Sum(x, 1)));
        CountedDevice.CheckWide(forward, read: 4 * 12 * 1024, written: 4 * 12, isWrittenWide: false);
    }

    [Fact]
    public void Traffic_of_a_bias_gradient_is_one_read_and_two_stages()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const int T = 1024, D = 256;
        Tensor x = ZEngine.Ops.RandomNormal([T, D], Device.Cpu, new RandomStream(1)).To(probe.Device).To(DType.BFloat16);
        LaunchProfile[] stages = probe.Profile(() => ZEngine.Ops.Sum(x, 0));
        Assert.Equal(2, stages.Length);
        // 32 lanes of 8 columns: 8 rows at a time, 16 accesses of a thread at least, so 1024 / (8·16) pieces.
        CountedDevice.CheckWide(stages[0], read: 2 * T * D, written: 8 * 8 * D, isWrittenWide: false);
        Assert.Equal((8L * 8 * D, 2L * D), (stages[1].GlobalBytesRead, stages[1].GlobalBytesWritten));
    }

    [Fact]
    public void Traffic_of_one_huge_row_is_one_read_and_two_stages()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const int N = 1 << 17;                                 // 8 pieces of 256 threads · 4 elements · 16 accesses
        Tensor x = ZEngine.Ops.RandomNormal([N], Device.Cpu, new RandomStream(1)).To(probe.Device);
        LaunchProfile[] stages = probe.Profile(() => ZEngine.Ops.Sum(x));
        Assert.Equal(2, stages.Length);
        CountedDevice.CheckWide(stages[0], read: 4 * N, written: 8 * 8, isWrittenWide: false);
        Assert.Equal((8L * 8, 4L), (stages[1].GlobalBytesRead, stages[1].GlobalBytesWritten));
    }

    [Fact]
    public void Traffic_of_a_backward_is_one_write()
    {
        using var probe = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor dy = Tensor.Zeros([12], DType.Float32, probe.Device), dx = Tensor.Empty([12, 1024], DType.Float32, probe.Device);
        LaunchProfile backward = Assert.Single(probe.Profile(() => probe.Device.Backend.ReduceBackward(Reduction.Sum, null, dy, 12, 1024, 1, dx)));
        Assert.Equal(4L * 12 * 1024, backward.GlobalBytesWritten);
        Assert.Equal(backward.GlobalBytesWritten / 32, backward[InstructionClass.GlobalStore].Sectors);
        Assert.Equal(backward.GlobalBytesWritten / 512, backward[InstructionClass.GlobalStore].Requests);
        Assert.Equal(4L * 12 * 1024 / 4, backward.GlobalBytesRead);          // one dy for four elements, from the cache
    }

    [Fact]
    public void Largest_is_NaN_wherever_one_is()
    {
        using TensorScope scope = TensorScope.Enter();
        foreach (int size in (int[])[1, 5, 40, 130])
        for (int at = 0; at < size; at++)
        {
            float[] values = [.. Enumerable.Range(0, size).Select(i => (float)i)];
            values[at] = float.NaN;
            Tensor x = Tensor.From<float>(values, [size], Device.Cpu);
            Assert.Equal(float.NaN, ZEngine.Ops.Max(x, 0).Item());
            Tensor columns = ZEngine.Ops.Concat(1, x.Reshape(size, 1), Tensor.Zeros([size, 90], DType.Float32, Device.Cpu));
            Assert.Equal([float.NaN, .. new float[90]], ZEngine.Ops.Max(columns, 0).ToArray<float>());
        }
    }

    [Fact]
    public void Rejects_an_axis_that_is_not_there() => Assert.Contains("has no axis 2", Assert.Throws<ArgumentException>(() =>
    {
        using TensorScope scope = TensorScope.Enter();
        ZEngine.Ops.Sum(Tensor.Zeros([2, 3], DType.Float32, Device.Cpu), 2);
    }).Message);
}
