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
}
