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

    [Fact]
    public void Long_sums_do_not_drift()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Empty([1 << 22], DType.Float32, Device.Cpu);
        ZEngine.Ops.Fill(x, 0.1f);
        Assert.Equal((double)0.1f * (1 << 22), ZEngine.Ops.Sum(x).Item(), 0.1);
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
