using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class GatedActivationTests
{
    internal static Tensors Apply(EngineInputs x) => new() { ["y"] = ZEngine.Ops.GatedActivation(x["gate"], x["up"], ElementwiseTests.Named(x.Attrs.Text("activation")!)) };

    private static Tensors ApplyFused(EngineInputs x) => new()
    {
        ["y"] = ZEngine.Ops.GatedActivation(ZEngine.Ops.Concat(-1, x["gate"], x["up"]), ElementwiseTests.Named(x.Attrs.Text("activation")!)),
    };

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times(new[] { "silu", "gelu", "gelu_tanh", "sigmoid", "relu" }.Select(name =>
        Case("gated_mlp_activation", name).With("activation", name).Normal("gate", [5, 37], 3).Normal("up", [5, 37]).Build()));

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device)
    {
        EngineOp.Check(c, device);
        EngineOp.Check(c, device, ApplyFused);
    }

    [Fact]
    public void Rejects_a_function_that_is_no_gate()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 4], DType.Float32, Device.Cpu);
        Assert.Equal("GatedActivation: Exp is not the activation of a gated unit; Silu, Gelu, GeluTanh, Sigmoid and Relu are.",
            Assert.Throws<ArgumentException>(() => ZEngine.Ops.GatedActivation(x, x, Pointwise.Exp)).Message);
    }
}
