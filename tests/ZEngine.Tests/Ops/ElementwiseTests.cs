using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class ElementwiseTests
{
    private static readonly string[] Names =
        ["negate", "abs", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sigmoid", "silu", "gelu", "gelu_tanh", "relu", "relu2", "tanh", "softplus"];

    internal static Tensors Apply(EngineInputs x)
    {
        string function = x.Attrs.Text("function") ?? x.Attrs.Text("activation")!;
        return new() { ["y"] = x.Optional("x") is { } single ? ZEngine.Ops.Map(Named(function), single) : Pair(function, x["a"], x["b"]) };
    }

    internal static Pointwise Named(string name) => Enum.Parse<Pointwise>(name.Replace("_", ""), ignoreCase: true);

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times(
        Names.Select(name => name is "log" or "sqrt" or "rsqrt" or "reciprocal"
            ? Case("elementwise", name).With("function", name).Uniform("x", [3, 67], 0.01, 9).Build()
            : Case("elementwise", name).With("function", name).Normal("x", [3, 67], deviation: 4).Build())
        .Concat(new[] { "add", "sub", "mul", "div", "max", "min" }.SelectMany(name => new[]
        {
            Case("elementwise", $"{name}, same shape").With("function", name).Normal("a", [5, 19]).Uniform("b", [5, 19], 0.5, 2).Build(),
            Case("elementwise", $"{name}, a row is broadcast").With("function", name).Normal("a", [4, 3, 19]).Uniform("b", [19], 0.5, 2).Build(),
            Case("elementwise", $"{name}, both are broadcast").With("function", name).Normal("a", [4, 1, 19]).Uniform("b", [3, 1], 0.5, 2).Build(),
        })));

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Fact]
    public void Extremes_neither_overflow_nor_turn_into_NaN()
    {
        using TensorScope scope = TensorScope.Enter();
        float[] values = [float.NegativeInfinity, -1e30f, -104, -90, -87.5f, 0, 87.5f, 88.7f, 90, 1e30f, float.PositiveInfinity];
        Tensor x = Tensor.From<float>(values, [values.Length], Device.Cpu);
        Assert.Equal(values.Select(v => v is < -87 and > -1e29f ? 0 : MathF.Exp(v)), ZEngine.Ops.Map(Pointwise.Exp, x).ToArray<float>().Zip(values, (e, v) => v is < -87 and > -1e29f && Math.Abs(e - Math.Exp(v)) < 2e-45 + 1e-6 * Math.Exp(v) ? 0 : v is > 80 and < 90 ? Close(e, MathF.Exp(v)) : e));
        foreach (Pointwise f in (ReadOnlySpan<Pointwise>)[Pointwise.Sigmoid, Pointwise.Softplus, Pointwise.Tanh])
            Assert.All(ZEngine.Ops.Map(f, x).ToArray<float>(), y => Assert.False(float.IsNaN(y)));
        Assert.Equal([float.NegativeInfinity, float.NaN, float.PositiveInfinity], ZEngine.Ops.Map(Pointwise.Log, Tensor.From<float>([0, -1, float.PositiveInfinity], [3], Device.Cpu)).ToArray<float>());
    }

    [Fact]
    public void NaN_stays_NaN()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor nan = Tensor.From<float>([float.NaN], [1], Device.Cpu), one = Tensor.From<float>([1f], [1], Device.Cpu);
        foreach (Pointwise f in Enum.GetValues<Pointwise>())
            if (f is not (Pointwise.Relu or Pointwise.Relu2)) Assert.True(float.IsNaN(ZEngine.Ops.Map(f, nan).Item()), f.ToString());
        Assert.True(float.IsNaN(ZEngine.Ops.Maximum(nan, one).Item()));
        Assert.True(float.IsNaN(ZEngine.Ops.Minimum(one, nan).Item()));
    }

    [Fact]
    public void Rejects_shapes_that_do_not_broadcast()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor a = Tensor.Zeros([2, 3], DType.Float32, Device.Cpu), b = Tensor.Zeros([2], DType.Float32, Device.Cpu);
        Assert.Equal("Add: a is [2, 3] and b is [2]: axis -1 is 3 and 2, and neither is 1.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Add(a, b)).Message);
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const long bytes = 4 * 12 * 64;
        Tensor a = tape.Watch(counted.Normal(1, 12, 64)), b = tape.Watch(counted.Normal(2, 12, 64)), dy = counted.Normal(3, 12, 64);
        counted.Launches();
        ZEngine.Ops.Scale(a, 2);
        Check("scale", bytes, bytes);
        ZEngine.Ops.Multiply(a, b);
        Check("pairwise_forward", 2 * bytes, bytes);
        Tensor y = ZEngine.Ops.Map(Pointwise.Silu, a);
        Check("pointwise_forward", bytes, bytes);
        tape.Backward(y, dy);
        Check("pointwise_backward", 2 * bytes, bytes);

        void Check(string kernel, long read, long written)
        {
            LaunchProfile[] launches = counted.Launches();
            CountedDevice.Are([kernel], launches);
            CountedDevice.CheckWide(launches[0], read, written);
        }
    }

    /// <summary>Operands that are taken by their strides, element by element: every byte once, but for the broadcast one.</summary>
    [Fact]
    public void Traffic_of_a_choice_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const long bytes = 4 * 12 * 64;
        Tensor a = tape.Watch(counted.Normal(1, 12, 64)), b = tape.Watch(counted.Normal(2, 12, 64)), dy = counted.Normal(3, 12, 64), y = ZEngine.Ops.Maximum(a, b);
        counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["select_backward"], launches);
        CountedDevice.Moved(3 * bytes, 2 * bytes, launches[0]);
        CountedDevice.FillsSectors(launches[0]);
    }

    private static float Close(float got, float want) => Math.Abs(got - want) <= 2e-6f * want ? want : got;

    private static Tensor Pair(string function, Tensor a, Tensor b) => function switch
    {
        "add" => ZEngine.Ops.Add(a, b),
        "sub" => ZEngine.Ops.Subtract(a, b),
        "mul" => ZEngine.Ops.Multiply(a, b),
        "div" => ZEngine.Ops.Divide(a, b),
        "max" => ZEngine.Ops.Maximum(a, b),
        _ => ZEngine.Ops.Minimum(a, b),
    };
}
