using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class RmsNormTests
{
    internal static Tensors Apply(EngineInputs x) => new()
    {
        ["y"] = ZEngine.Ops.RmsNorm(x["x"], x["weight"], (float)(x.Attrs.Number("eps") ?? 1e-5), x.Optional("z"),
            x.Attrs.Flag("norm_before_gate") ? GateOrder.AfterNorm : GateOrder.BeforeNorm, x.Attrs.Int("group_size") ?? 0),
    };

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("rms_norm", "one odd row").Normal("x", [1, 7]).Normal("weight", [7]).Build(),
        Case("rms_norm", "many rows").Normal("x", [150, 33]).Normal("weight", [33]).Build(),
        Case("rms_norm", "groups, gate before").With("gated", true).With("group_size", 5).Normal("x", [3, 4, 20]).Normal("z", [3, 4, 20], 3).Normal("weight", [20]).Build(),
        Case("rms_norm", "groups, gate after").With("gated", true).With("norm_before_gate", true).With("group_size", 10).Normal("x", [6, 20]).Normal("z", [6, 20], 3).Normal("weight", [20]).Build(),
        Case("rms_norm", "rows longer than registers hold").Normal("x", [3, 1303]).Normal("weight", [1303]).Build(),
        Case("rms_norm", "such rows, gate before").With("gated", true).Normal("x", [2, 4680]).Normal("z", [2, 4680], 3).Normal("weight", [4680]).Build(),
        Case("rms_norm", "such groups, gate after").With("gated", true).With("norm_before_gate", true).With("group_size", 2600).Normal("x", [2, 5200]).Normal("z", [2, 5200], 3).Normal("weight", [5200]).Build(),
        Case("rms_norm", "small values").With("eps", 1e-3).Normal("x", [4, 48], 1e-3).Normal("weight", [48]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Fact]
    public void Parts_of_wider_rows_equal_their_copies()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor wide = ZEngine.Ops.RandomNormal([2, 3, 90], Device.Cpu, new RandomStream(1)), w = ZEngine.Ops.RandomNormal([40], Device.Cpu, new RandomStream(2));
        Tensor x = wide.Slice(-1, 0, 40), z = wide.Slice(-1, 45, 40);
        Assert.Equal(ZEngine.Ops.RmsNorm(x.Clone(), w, 1e-5f, z.Clone()).ToArray<float>(), ZEngine.Ops.RmsNorm(x, w, 1e-5f, z).ToArray<float>());
    }

    /// <summary>Rows so far apart that x, z and a residual reach beyond 2³¹ elements, in memory that nothing touches between them, forward and backward.</summary>
    [Theory, InlineData(null), InlineData(GateOrder.BeforeNorm), InlineData(GateOrder.AfterNorm)]
    public void Rows_beyond_two_to_the_31_elements_are_found(GateOrder? gate)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        const long rows = 3, width = 24, far = 1L << 30;
        Tensor[] near = [counted.Normal(1, rows, width).To(DType.BFloat16), counted.Normal(2, rows, width).To(DType.BFloat16)];
        Tensor weight = counted.Normal(3, width), dy = counted.Normal(4, rows, width).To(DType.BFloat16), memory = Tensor.Empty([rows, far + 2 * width], DType.BFloat16, counted.Device);
        Tensor Spread(int k)
        {
            Tensor spread = memory.Slice(1, k * width, width);
            ZEngine.Ops.Copy(near[k], spread);
            return spread;
        }
        float[][] Results(Tensor[] x)
        {
            using Tape tape = Tape.Begin();
            foreach (Tensor tensor in x) tape.Watch(tensor);
            Tensor y = gate is { } order ? ZEngine.Ops.RmsNorm(x[0], weight, 1e-5f, x[1], order) : ZEngine.Ops.AddRmsNorm(x[0], x[1], weight, 1e-5f).Y;
            tape.Backward(y, dy);
            return [Floats(y), .. Gradients(tape, x)];
        }
        Tensor[] spread = [Spread(0), Spread(1)];
        Assert.True(spread[0].Strides[0] * (rows - 1) >= 1L << 31);
        float[][] want = Results(near), got = Results(spread);
        for (int k = 0; k < want.Length; k++)
        {
            Assert.Equal(want[k], got[k]);
            Assert.True(got[k][0] != 0 && got[k][^1] != 0);
        }
    }

    public static TheoryData<string> DeviceNames => [.. Devices.Names];

    /// <summary>A sum with its norm is the sum, then the norm, to the bit; its gradient is that of both.</summary>
    [Theory, MemberData(nameof(DeviceNames))]
    public void Sum_and_norm_equal_one_after_the_other(string name)
    {
        Device device = Devices.Open(name);
        foreach (DType dtype in name == "cpu" ? [DType.Float32] : (ReadOnlySpan<DType>)[DType.Float32, DType.BFloat16])
        foreach (long width in (ReadOnlySpan<long>)[40, 33, 4680])
        {
            using Tape tape = Tape.Begin();
            Tensor Random(ulong seed, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)).To(device);
            Tensor x = tape.Watch(Random(1, 2, 5, width + 8).To(dtype)), residual = tape.Watch(Random(2, 2, 5, width).To(dtype)), weight = tape.Watch(Random(3, width));
            Tensor part = x.Slice(-1, 8, width), dy = Random(4, 2, 5, width).To(dtype), dSum = Random(5, 2, 5, width).To(dtype);
            (Tensor y, Tensor sum) = ZEngine.Ops.AddRmsNorm(part, residual, weight, 1e-5f);
            Tensor sumAlone = ZEngine.Ops.Add(part, residual), alone = ZEngine.Ops.RmsNorm(sumAlone, weight, 1e-5f);
            Assert.Equal(Floats(sumAlone), Floats(sum));
            Assert.Equal(Floats(alone), Floats(y));
            tape.Backward([y, sum], [dy, dSum]);
            float[][] got = Gradients(tape, x, residual, weight);
            tape.Backward([alone, sumAlone], [dy, dSum]);      // adds the same once more
            float[][] twice = Gradients(tape, x, residual, weight);
            double unit = dtype == DType.Float32 ? 1e-6 : Close.BFloat16Epsilon;
            for (int k = 0; k < got.Length; k++)
            for (int i = 0; i < got[k].Length; i++) Assert.InRange(twice[k][i] - 2 * got[k][i], -4 * unit * (1 + Math.Abs(got[k][i])), 4 * unit * (1 + Math.Abs(got[k][i])));
        }
    }

    /// <summary>A factor that the norm's squares leave, against the same by single ops.</summary>
    [Theory, MemberData(nameof(DeviceNames))]
    public void Deferred_factor_equals_its_product(string name)
    {
        Device device = Devices.Open(name);
        const long rows = 6, width = 40, parts = 3, count = 24;
        using Tape tape = Tape.Begin();
        Tensor Random(ulong seed, params long[] shape) => ZEngine.Ops.RandomNormal(shape, Device.Cpu, new RandomStream(seed)).To(device);
        Tensor x = tape.Watch(Random(1, rows, width)), residual = tape.Watch(Random(2, rows, width)), weight = tape.Watch(Random(3, width)), squares = tape.Watch(ZEngine.Ops.Map(Pointwise.Square, Random(4, rows, parts)));
        Tensor[] watched = [x, residual, weight, squares];
        Tensor dy = Random(5, rows, width), dSum = Random(6, rows, width);
        (Tensor y, Tensor sum) = ZEngine.Ops.AddRmsNorm(x, residual, weight, 1e-5f, new RowScale(squares, count, 1e-3f));
        Tensor epsilon = Tensor.Empty([1], DType.Float32, device);
        ZEngine.Ops.Fill(epsilon, 1e-3f);
        Tensor factor = ZEngine.Ops.Map(Pointwise.Rsqrt, ZEngine.Ops.Add(ZEngine.Ops.Scale(ZEngine.Ops.Sum(squares, 1, keepAxis: true), 1f / count), epsilon));
        Tensor sumAlone = ZEngine.Ops.Add(ZEngine.Ops.Multiply(x, factor), residual), alone = ZEngine.Ops.RmsNorm(sumAlone, weight, 1e-5f);
        tape.Backward([y, sum], [dy, dSum]);
        float[][] got = [Floats(y), Floats(sum), .. Gradients(tape, watched)];
        tape.Backward([alone, sumAlone], [dy, dSum]);
        float[][] want = [Floats(alone), Floats(sumAlone), .. Gradients(tape, watched)];
        for (int k = 0; k < got.Length; k++)
        for (int i = 0; i < got[k].Length; i++) Assert.Equal(want[k][i] - (k < 2 ? 0 : got[k][i]), got[k][i], 2e-5f * (1 + MathF.Abs(got[k][i])));
    }

    private static float[][] Gradients(Tape tape, params Tensor[] tensors)
    {
        var gradients = new float[tensors.Length][];
        for (int i = 0; i < tensors.Length; i++) gradients[i] = Floats(tape.GradientOf(tensors[i]));
        return gradients;
    }

    private static float[] Floats(Tensor tensor) => tensor.To(DType.Float32).ToArray<float>();

    [Fact]
    public void Rejects_a_group_that_does_not_divide_the_channels()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 10], DType.Float32, Device.Cpu), w = Tensor.Zeros([10], DType.Float32, Device.Cpu);
        Assert.Equal("RmsNorm: groupSize 4 does not divide D = 10.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.RmsNorm(x, w, 1e-5f, groupSize: 4)).Message);
        Assert.Equal("RmsNorm: weight must be [D], got [9]: D is 10 but axis 0 is 9.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.RmsNorm(x, w.Slice(0, 0, 9), 1e-5f)).Message.Replace("w.Slice(0, 0, 9)", "weight"));
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const int rows = 6, width = 512, threads = 128, floats = 4 * rows * width;
        Tensor x = tape.Watch(counted.Normal(1, rows, width)), weight = tape.Watch(counted.Normal(2, width)), dy = counted.Normal(3, rows, width);
        Tensor y = ZEngine.Ops.RmsNorm(x, weight, 1e-5f);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["rms_norm_forward"], forward);
        CountedDevice.Moved(2 * floats, floats + 4 * rows, forward[0]);
        CountedDevice.Are(["rms_norm_backward", "reduce_sums"], backward);
        CountedDevice.Moved(4 * floats + 4 * rows * threads, floats + floats + 4 * rows, backward[0]);    // one block a row: as many partial sums as elements, and a turn
        CountedDevice.Moved(floats, 4 * width, backward[1]);
        // Stores fill whole sectors; each row's scale is one sector more, and so is each block's turn.
        Assert.Equal(floats / 32 + rows, forward[0][InstructionClass.GlobalStore].Sectors);
        Assert.Equal(2 * floats / 32 + rows, backward[0][InstructionClass.GlobalStore].Sectors);
    }

    /// <summary>Rows with a gate, of which a thread takes two accesses at a time: gate and gradient are read and written once, and no two lanes meet in a bank.</summary>
    [Theory]
    [InlineData(DType.Float32), InlineData(DType.BFloat16)]
    public void Traffic_with_a_gate_equals_the_header(DType dtype)
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const int rows = 3, width = 4096, threads = 256;
        int elements = rows * width * dtype.Size, floats = 4 * rows * width, again = 3 * (elements - rows * 2 * 16 * threads);      // what two accesses of a thread do not hold is read twice
        Tensor x = tape.Watch(counted.Normal(1, rows, width).To(dtype)), z = tape.Watch(counted.Normal(2, rows, width).To(dtype)), weight = tape.Watch(counted.Normal(3, width));
        Tensor dy = counted.Normal(4, rows, width).To(dtype);
        counted.Launches();
        Tensor y = ZEngine.Ops.RmsNorm(x, weight, 1e-5f, z);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["rms_norm_forward"], forward);
        CountedDevice.Moved(2 * elements + floats, elements + 4 * rows, forward[0]);
        CountedDevice.Are(["rms_norm_backward", "reduce_sums"], backward);
        CountedDevice.Moved(3 * elements + again + 2 * floats + 4 * rows * threads, 2 * elements + floats + 4 * rows, backward[0]);
        const long words = rows * 3 * (threads / 32) * (threads / 32);
        CountedDevice.HasNoBankConflicts(forward[0], words);
        CountedDevice.HasNoBankConflicts(backward[0], words);
    }
}
