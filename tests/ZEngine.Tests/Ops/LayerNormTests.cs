using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class LayerNormTests
{
    internal static Tensors Apply(EngineInputs x) => new() { ["y"] = ZEngine.Ops.LayerNorm(x["x"], x.Optional("weight"), x.Optional("bias"), (float)(x.Attrs.Number("eps") ?? 1e-5)) };

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("layer_norm", "one odd row").Normal("x", [1, 7]).Normal("weight", [7]).Normal("bias", [7]).Build(),
        Case("layer_norm", "many rows, three axes").Normal("x", [3, 50, 33]).Normal("weight", [33]).Normal("bias", [33]).Build(),
        Case("layer_norm", "whole accesses").Normal("x", [9, 264]).Normal("weight", [264]).Normal("bias", [264]).Build(),
        Case("layer_norm", "no weight, no bias").Normal("x", [40, 64]).Build(),
        Case("layer_norm", "weight alone").Normal("x", [5, 31]).Normal("weight", [31]).Build(),
        Case("layer_norm", "bias alone, large epsilon").With("eps", 1e-1).Normal("x", [5, 18]).Normal("bias", [18]).Build(),
        Case("layer_norm", "small values").With("eps", 1e-3).Normal("x", [4, 48], 1e-3).Normal("weight", [48]).Build(),
        Case("layer_norm", "a mean far from zero").Uniform("x", [6, 40], 90, 100).Normal("weight", [40]).Normal("bias", [40]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Fact]
    public void A_constant_row_gives_the_bias()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 19], DType.Float32, Device.Cpu), bias = ZEngine.Ops.RandomNormal([19], Device.Cpu, new RandomStream(1));
        ZEngine.Ops.Fill(x, 3);
        float[] y = ZEngine.Ops.LayerNorm(x, null, bias, 1e-5f).ToArray<float>(), want = bias.ToArray<float>();
        Assert.Equal([.. want, .. want], y);
    }

    [Fact]
    public void Parts_of_wider_rows_equal_their_copies()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = ZEngine.Ops.RandomNormal([2, 3, 90], Device.Cpu, new RandomStream(1)).Slice(-1, 5, 40);
        Assert.Equal(ZEngine.Ops.LayerNorm(x.Clone(), null, null, 1e-5f).ToArray<float>(), ZEngine.Ops.LayerNorm(x, null, null, 1e-5f).ToArray<float>());
    }

    [Fact]
    public void Rejects_a_weight_of_another_width()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 10], DType.Float32, Device.Cpu), w = Tensor.Zeros([9], DType.Float32, Device.Cpu);
        Assert.Equal("LayerNorm: weight must be [D], got [9]: D is 10 but axis 0 is 9.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.LayerNorm(x, w, null, 1e-5f)).Message);
        Assert.Equal("LayerNorm: bias must be [D], got [9]: D is 10 but axis 0 is 9.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.LayerNorm(x, null, w, 1e-5f)).Message);
    }

    [Fact]
    public void Sixteen_bits_round_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
        foreach (long width in (ReadOnlySpan<long>)[72, 33])
        {
            Tensor weight = counted.Normal(2, width), bias = counted.Normal(3, width);
            counted.RoundsOnce(dtype, x => ZEngine.Ops.LayerNorm(x[0], weight, bias, 1e-5f), counted.Normal(1, 6, width));
        }
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const int rows = 5, width = 256, threads = 64, bytes = 4 * rows * width;
        Tensor x = tape.Watch(counted.Normal(1, rows, width)), weight = tape.Watch(counted.Normal(2, width)), bias = tape.Watch(counted.Normal(3, width)), dy = counted.Normal(4, rows, width);
        Tensor y = ZEngine.Ops.LayerNorm(x, weight, bias, 1e-5f);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["layer_norm_forward"], forward);
        CountedDevice.Moved(3 * bytes, bytes + 2 * 4 * rows, forward[0]);
        Assert.Equal(3 * bytes / 32, forward[0][InstructionClass.GlobalLoad].Sectors);
        Assert.Equal(3 * bytes / 16, forward[0][InstructionClass.GlobalLoad].Threads);
        CountedDevice.Are(["layer_norm_backward", "reduce_sums"], backward);
        CountedDevice.Moved(4 * bytes + rows * threads * 8, bytes + 2 * bytes, backward[0]);     // a block a row: P = R; every thread asks for mean and s
        CountedDevice.Moved(2 * bytes, 2 * 4 * width, backward[1]);
        Assert.Equal(3 * bytes / 16, backward[0][InstructionClass.GlobalStore].Threads);
    }
}
