using ZEngine.Emulator;
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

    [Theory]
    [InlineData(RotaryStyle.Half, 16, 8), InlineData(RotaryStyle.Half, 24, 8), InlineData(RotaryStyle.Half, 10, 3), InlineData(RotaryStyle.Half, 64, 0)]
    [InlineData(RotaryStyle.Interleaved, 16, 8), InlineData(RotaryStyle.Interleaved, 24, 4), InlineData(RotaryStyle.Interleaved, 11, 5)]
    public void Kernels_equal_the_cpu(RotaryStyle style, int channels, int pairs)
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor x = ZEngine.Ops.RandomNormal([1, 12, 3, channels], Device.Cpu, new RandomStream(1)), heads = ZEngine.Ops.RandomNormal([2, 3, 7, channels], Device.Cpu, new RandomStream(2)).Transpose(1, 2);
        (Tensor cosine, Tensor sine) = Tables(20, pairs, 10000, Device.Cpu);
        var layout = new SequenceLayout(0, 1, 5, 12);
        Tensor Apply(Tensor x, Device device, SequenceLayout? layout) => ZEngine.Ops.Rope(x, cosine.To(device), sine.To(device), 2, style, layout);
        Equal(Apply(x, Device.Cpu, layout), Apply(x.To(counted.Device), counted.Device, layout));
        Equal(Apply(heads, Device.Cpu, null), Apply(heads.Transpose(1, 2).To(counted.Device).Transpose(1, 2), counted.Device, null));
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16]) counted.RoundsOnce(dtype, x => Apply(x[0], counted.Device, layout), x.To(counted.Device));

        static void Equal(Tensor want, Tensor got)
        {
            (float[] w, float[] g) = (want.ToArray<float>(), got.ToArray<float>());
            for (int i = 0; i < w.Length; i++) Assert.Equal(w[i], g[i], 1e-6);
        }
    }

    [Theory]
    [InlineData(5), InlineData(2)]
    public void Heads_that_share_a_thread_equal_heads_alone(int heads)
    {
        using var counted = new CountedDevice(87);             // 16 multiprocessors: full with less
        using TensorScope scope = TensorScope.Enter();
        (Tensor cosine, Tensor sine) = Tables(2000, 4, 10000, counted.Device);
        Tensor x = counted.Normal(1, 1, 2000, heads, 16);
        float[] all = ZEngine.Ops.Rope(x, cosine, sine).ToArray<float>();
        for (int h = 0; h < heads; h++) Assert.Equal(ZEngine.Ops.Rope(x.Slice(2, h, 1), cosine, sine).ToArray<float>(), all.Chunk(16).Where((_, i) => i % heads == h).SelectMany(row => row));
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const long steps = 4, heads = 2, channels = 32, pairs = 16, bytes = 4 * steps * heads * channels;
        (Tensor cosine, Tensor sine) = Tables(steps, pairs, 10000, counted.Device);
        Tensor x = tape.Watch(counted.Normal(1, 1, steps, heads, channels)), dy = counted.Normal(2, 1, steps, heads, channels);
        tape.Backward(ZEngine.Ops.Rope(x, cosine, sine), dy);
        LaunchProfile[] launches = counted.Launches();
        CountedDevice.Are(["rope", "rope"], launches);
        foreach (LaunchProfile launch in launches)
        {
            CountedDevice.Moved(bytes + 2 * 4 * steps * heads * pairs, bytes, launch);     // so little work that no two heads share a thread
            CountedDevice.IsWide(launch);
        }
    }
}
