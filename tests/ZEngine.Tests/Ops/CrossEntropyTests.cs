using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class CrossEntropyTests
{
    internal static Tensors Apply(EngineInputs x) => new()
    {
        ["loss"] = ZEngine.Ops.CrossEntropy(x["logits"], x["targets"], new CrossEntropyOptions(
            x.Attrs.Int("ignore_index") ?? -100, (float)(x.Attrs.Number("label_smoothing") ?? 0), (float)(x.Attrs.Number("z_loss") ?? 0))),
    };

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("cross_entropy", "one class").Normal("logits", [2, 1]).Integers("targets", [2], [0, 0]).Build(),
        Case("cross_entropy", "more classes than a block").Normal("logits", [3, 5000]).Integers("targets", [3], 5000).Build(),
        Case("cross_entropy", "ignored, smoothed, z-loss").With("ignore_index", -100).With("label_smoothing", 0.2).With("z_loss", 0.02)
            .Normal("logits", [5, 37], 4).Integers("targets", [5], [0, -100, 36, 2, -100]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Fact]
    public void Nothing_counted_gives_zero_loss_and_zero_gradient()
    {
        using Tape tape = Tape.Begin();
        Tensor logits = tape.Watch(ZEngine.Ops.RandomNormal([3, 7], Device.Cpu, new RandomStream(1)));
        Tensor loss = ZEngine.Ops.CrossEntropy(logits, Tensor.From<int>([-100, -100, -100], [3], Device.Cpu));
        tape.Backward(loss);
        Assert.Equal(0, loss.Item());
        Assert.All(tape.GradientOf(logits).ToArray<float>(), value => Assert.Equal(0, value));
    }

    [Fact]
    public void Rejects_a_target_that_is_no_class()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor logits = Tensor.Zeros([2, 5], DType.Float32, Device.Cpu);
        Assert.Equal("CrossEntropy: target 1 of [2] is 5, but there are 5 classes.",
            Assert.Throws<ArgumentException>(() => ZEngine.Ops.CrossEntropy(logits, Tensor.From<int>([0, 5], [2], Device.Cpu))).Message);
    }

    [Theory]
    [InlineData(7, 1), InlineData(131, 1), InlineData(64, 1), InlineData(1500, 1), InlineData(61, 3)]
    public void Kernels_equal_the_cpu(int classes, int skipped)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor wide = ZEngine.Ops.RandomNormal([5, classes + skipped - 1], Device.Cpu, new RandomStream(1), 0, 4);
        Tensor targets = Tensor.From<int>([0, classes - 1, -7, 3, 5], [5], Device.Cpu);
        var options = new CrossEntropyOptions(-7, 0.1f, 0.01f);
        float[][] want = Results(wide, targets), got = Results(wide.To(counted.Device), targets.To(counted.Device));
        for (int k = 0; k < want.Length; k++)
            for (int i = 0; i < want[k].Length; i++) Assert.True(Math.Abs(want[k][i] - got[k][i]) <= 2e-6 * (Math.Abs(want[k][i]) + 0.05), $"{k} [{i}]: got {got[k][i]:R}, want {want[k][i]:R}");
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
            counted.RoundsOnce(dtype, x => ZEngine.Ops.CrossEntropy(x[0].Slice(-1, skipped - 1, classes), targets.To(counted.Device), options), wide.To(counted.Device));

        float[][] Results(Tensor x, Tensor targets)
        {
            using Tape tape = Tape.Begin();
            tape.Watch(x);
            Tensor loss = ZEngine.Ops.CrossEntropy(x.Slice(-1, skipped - 1, classes), targets, options);
            tape.Backward(loss);
            return [loss.ToArray<float>(), tape.GradientOf(x).ToArray<float>()];
        }
    }

    [Fact]
    public void Masked_classes_have_probability_zero_on_every_device()
    {
        foreach (string name in Devices.Names)
        {
            using Tape tape = Tape.Begin();
            var values = new float[2 * 400];
            for (int i = 0; i < values.Length; i++) values[i] = i % 400 is 3 or 399 ? i % 7 : float.NegativeInfinity;
            Tensor logits = tape.Watch(Tensor.From<float>(values, [2, 400], Devices.Open(name)));
            Tensor loss = ZEngine.Ops.CrossEntropy(logits, Tensor.From<int>([3, 399], [2], logits.Device));
            tape.Backward(loss);
            Assert.True(float.IsFinite(loss.Item()));
            float[] d = tape.GradientOf(logits).ToArray<float>();
            for (int i = 0; i < d.Length; i++) Assert.True(i % 400 is 3 or 399 ? d[i] != 0 : d[i] == 0, $"{name} [{i}]: {d[i]:R}");
        }
    }

    [Fact]
    public void A_target_that_is_no_class_stops_the_kernel()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor loss = ZEngine.Ops.CrossEntropy(Tensor.Zeros([2, 5], DType.Float32, counted.Device), Tensor.From<int>([0, 5], [2], counted.Device));
        Assert.Contains("trap", Assert.ThrowsAny<Exception>(() => loss.Item()).ToString(), StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const int rows = 3, classes = 1024, threads = 256;
        Tensor logits = tape.Watch(counted.Normal(1, rows, classes)), targets = Tensor.From<long>([0, 1023, -100], [rows], counted.Device);
        Tensor loss = ZEngine.Ops.CrossEntropy(logits, targets);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(loss);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["cross_entropy_forward", "cross_entropy_mean"], forward);
        // Every thread asks for the target; the ignored row is not read.
        CountedDevice.Moved(2 * (4 * classes + 4) + rows * threads * 8, 3 * 4 * rows, forward[0]);
        CountedDevice.Moved(rows * (4 + 8), 4 + 4, forward[1]);
        LaunchProfile gradient = Assert.Single(backward, launch => launch.Kernel.Contains("cross_entropy", StringComparison.Ordinal));
        CountedDevice.Moved(2 * 4 * classes + rows * threads * (8 + 8) + 2 * threads * 8, 4 * rows * classes, gradient);
        Assert.Equal(4 * rows * classes / 32, gradient[InstructionClass.GlobalStore].Sectors);
        Assert.Equal(4 * rows * classes / 16, gradient[InstructionClass.GlobalStore].Threads);
    }
}
