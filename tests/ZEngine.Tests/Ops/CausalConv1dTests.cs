using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class CausalConv1dTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        bool hasSilu = x.Attrs.Text("activation") switch { "silu" => true, null => false, var other => throw new ArgumentException(other) };
        (Tensor y, Tensor final) = ZEngine.Ops.CausalConv1d(x["x"], x["weight"], x.Optional("bias"), hasSilu, x.States("initial_state"), x.Layout);
        Tensors outputs = new() { ["y"] = y, ["final_state"] = x.Last(final) };
        if (x.Layout is not null) outputs["final_states"] = final;
        return outputs;
    }

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("causal_conv1d", "one step").With("activation", "silu").Normal("x", [2, 1, 5]).Normal("weight", [5, 4]).Normal("bias", [5]).Normal("initial_state", [2, 3, 5]).Build(),
        Case("causal_conv1d", "two steps, three of state").Normal("x", [2, 2, 5]).Normal("weight", [5, 4]).Normal("initial_state", [2, 3, 5]).Build(),
        Case("causal_conv1d", "several blocks of time").With("activation", "silu").Normal("x", [1, 150, 20]).Normal("weight", [20, 3]).Normal("bias", [20]).Build(),
        Case("causal_conv1d", "one tap").With("activation", "silu").Normal("x", [1, 9, 3]).Normal("weight", [3, 1]).Build(),
        Case("causal_conv1d", "six taps, packed").With("activation", "silu").With("cu_seqlens", new[] { 0, 2, 3, 80, 90 })
            .Normal("x", [1, 90, 17]).Normal("weight", [17, 6]).Normal("bias", [17]).Normal("initial_state", [4, 5, 17]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Fact]
    public void Split_sequence_equals_whole()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = ZEngine.Ops.RandomNormal([2, 20, 9], Device.Cpu, new RandomStream(1)), w = ZEngine.Ops.RandomNormal([9, 4], Device.Cpu, new RandomStream(2));
        (Tensor whole, Tensor final) = ZEngine.Ops.CausalConv1d(x, w, hasSilu: true);
        (Tensor first, Tensor state) = ZEngine.Ops.CausalConv1d(x.Slice(1, 0, 2), w, hasSilu: true);
        (Tensor second, Tensor last) = ZEngine.Ops.CausalConv1d(x.Slice(1, 2, 18), w, hasSilu: true, initialState: state);
        Assert.Equal(whole.ToArray<float>(), ZEngine.Ops.Concat(1, first, second).ToArray<float>());
        Assert.Equal(final.ToArray<float>(), last.ToArray<float>());
    }

    [Fact]
    public void Rejects_a_state_of_another_width()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 5, 8], DType.Float32, Device.Cpu), w = Tensor.Zeros([8, 4], DType.Float32, Device.Cpu), state = Tensor.Zeros([2, 4, 8], DType.Float32, Device.Cpu);
        Assert.Equal("CausalConv1d: initialState must be Float32 [2, 3, 8], one state per sequence, got Float32 [2, 4, 8] on cpu.",
            Assert.Throws<ArgumentException>(() => ZEngine.Ops.CausalConv1d(x, w, initialState: state)).Message);
        Assert.Equal("CausalConv1d: packed sequences need B = 1, got 2.",
            Assert.Throws<ArgumentException>(() => ZEngine.Ops.CausalConv1d(x, w, layout: new SequenceLayout(0, 5))).Message);
    }
}
