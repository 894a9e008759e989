using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class AdamWTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        double Number(string name) => x.Attrs.Number(name)!.Value;
        Tensor p = x["param"].Clone(), m = Tensor.Zeros(p.Shape, DType.Float32, x.Device), v = Tensor.Zeros(p.Shape, DType.Float32, x.Device);
        Tensor step = Tensor.Zeros([1], DType.Int64, x.Device);
        var options = new AdamWOptions(Number("beta1"), Number("beta2"), Number("eps"), Number("weight_decay"));
        for (int i = 0; i < x.Attrs.Int("steps"); i++)
            ZEngine.Ops.AdamW([new AdamWSlot(p, null, x["grads"].Select(0, i).Clone(), m, v, IsDecayed: true)], options, (float)Number("lr"), step);
        return new() { ["param"] = p, ["exp_avg"] = m, ["exp_avg_sq"] = v };
    }

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("adamw", "one step, odd count").With("steps", 1).With("lr", 0.01).With("beta1", 0.9).With("beta2", 0.95).With("eps", 1e-8).With("weight_decay", 0.1)
            .Normal("param", [37]).Normal("grads", [1, 37]).Build("none"),
        Case("adamw", "many steps").With("steps", 20).With("lr", 0.01).With("beta1", 0.9).With("beta2", 0.999).With("eps", 1e-6).With("weight_decay", 0.01)
            .Normal("param", [20]).Normal("grads", [20, 20]).Build("none"),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Steps_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Theory]
    [InlineData(float.NaN), InlineData(float.PositiveInfinity)]
    public void Norm_that_is_not_finite_changes_nothing(float norm)
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor p = ZEngine.Ops.RandomNormal([9], Device.Cpu, new RandomStream(1)), g = Tensor.From<float>([norm, 1, 1, 1, 1, 1, 1, 1, 1], [9], Device.Cpu);
        Tensor m = Tensor.Zeros([9], DType.Float32, Device.Cpu), v = Tensor.Zeros([9], DType.Float32, Device.Cpu), step = Tensor.Zeros([1], DType.Int64, Device.Cpu);
        float[] before = p.ToArray<float>();
        Tensor measured = ZEngine.Ops.Norm([g]);
        Assert.False(float.IsFinite(measured.Item()));
        ZEngine.Ops.AdamW([new AdamWSlot(p, null, g, m, v, true)], new AdamWOptions(), 0.1f, step, measured, 1);
        Assert.Equal(before, p.ToArray<float>());
        Assert.Equal(0, step.Item());
        Assert.All(m.ToArray<float>(), value => Assert.Equal(0, value));
    }

    [Fact]
    public void Clipping_equals_a_gradient_scaled_before()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor g = ZEngine.Ops.RandomNormal([1000], Device.Cpu, new RandomStream(1)), norm = ZEngine.Ops.Norm([g]);
        float[] Step(Tensor gradient, Tensor? measured, float limit)
        {
            Tensor p = Tensor.Zeros([1000], DType.Float32, Device.Cpu), m = Tensor.Zeros([1000], DType.Float32, Device.Cpu), v = Tensor.Zeros([1000], DType.Float32, Device.Cpu);
            ZEngine.Ops.AdamW([new AdamWSlot(p, null, gradient, m, v, true)], new AdamWOptions(), 0.1f, Tensor.Zeros([1], DType.Int64, Device.Cpu), measured, limit);
            return m.ToArray<float>();
        }
        Assert.Equal(Step(ZEngine.Ops.Scale(g, 0.5f / norm.Item()), null, 0), Step(g, norm, 0.5f));
        Assert.Equal(Step(g, null, 0), Step(g, norm, 1000));
    }

    [Fact]
    public void Norm_equals_the_sum_in_double()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor a = ZEngine.Ops.RandomNormal([100_001], Device.Cpu, new RandomStream(1)), b = ZEngine.Ops.RandomNormal([7, 3], Device.Cpu, new RandomStream(2), 0, 100);
        double want = Math.Sqrt(a.ToArray<float>().Concat(b.ToArray<float>()).Sum(value => (double)value * value));
        Assert.Equal(want, ZEngine.Ops.Norm([a, b]).Item(), want * 1e-6);
    }
}
