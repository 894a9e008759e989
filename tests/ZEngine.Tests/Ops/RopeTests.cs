using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class RopeTests
{
    internal static Tensors Apply(EngineInputs x)
    {
        long pairs = (x.Attrs.Int("rotary_dim") ?? (int)x["x"].Shape[3]) / 2, offset = x.Attrs.Int("position_offset") ?? 0;
        (Tensor cosine, Tensor sine) = Tables(offset + x["x"].Shape[1], pairs, x.Attrs.Number("theta") ?? 10000, x.Device);
        RotaryStyle style = x.Attrs.Text("style") == "interleaved" ? RotaryStyle.Interleaved : RotaryStyle.Half;
        return new() { ["y"] = ZEngine.Ops.Rope(x["x"], cosine, sine, offset, style, x.Layout) };
    }

    private static (Tensor Cosine, Tensor Sine) Tables(long positions, long pairs, double theta, Device device)
    {
        var angles = new double[positions * pairs];
        for (long i = 0; i < angles.Length; i++) angles[i] = i / pairs * Math.Pow(theta, -(double)(i % pairs) / pairs);
        return (Tensor.From<float>([.. angles.Select(a => (float)Math.Cos(a))], [positions, pairs], device),
            Tensor.From<float>([.. angles.Select(a => (float)Math.Sin(a))], [positions, pairs], device));
    }

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("rope", "half, offset").With("style", "half").With("position_offset", 31).Normal("x", [2, 5, 3, 10]).Build(),
        Case("rope", "interleaved, partial").With("style", "interleaved").With("rotary_dim", 6).Normal("x", [2, 5, 3, 10]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Fact]
    public void Packed_sequences_begin_at_the_offset()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = ZEngine.Ops.RandomNormal([1, 12, 2, 8], Device.Cpu, new RandomStream(1));
        (Tensor cosine, Tensor sine) = Tables(20, 4, 10000, Device.Cpu);
        Tensor packed = ZEngine.Ops.Rope(x, cosine, sine, 2, layout: new SequenceLayout(0, 5, 12));
        Tensor separate = ZEngine.Ops.Concat(1, ZEngine.Ops.Rope(x.Slice(1, 0, 5), cosine, sine, 2), ZEngine.Ops.Rope(x.Slice(1, 5, 7), cosine, sine, 2));
        Assert.Equal(separate.ToArray<float>(), packed.ToArray<float>());
    }

    [Fact]
    public void Rejects_positions_beyond_the_table()
    {
        using TensorScope scope = TensorScope.Enter();
        (Tensor cosine, Tensor sine) = Tables(8, 4, 10000, Device.Cpu);
        Tensor x = Tensor.Zeros([1, 5, 2, 8], DType.Float32, Device.Cpu);
        Assert.Equal($"Rope: x {Tensor.ShapeText(x.Shape)} needs positions 4..9, but cosine {Tensor.ShapeText(cosine.Shape)} has 8.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.Rope(x, cosine, sine, 4)).Message);
    }
}
