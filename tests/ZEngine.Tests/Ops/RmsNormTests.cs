using ZEngine.Emulator;
using ZEngine.Tests.Oracles;
using static ZEngine.Tests.Ops.OpData;

namespace ZEngine.Tests.Ops;

public sealed class RmsNormTests
{
    internal static Tensors Apply(EngineInputs x) => new()
    {
        ["y"] = ZEngine.Ops.RmsNorm(x["x"], x["weight"], (float)(x.Attrs.Number("eps") ?? 1e-5), x.Optional("z"),
            x.Attrs.Flag("norm_before_gate") ? GateOrder.AfterNorm : GateOrder.BeforeNorm, x.Attrs.Int("group_size") ?? 0),
    };

    public static IEnumerable<TheoryDataRow<OpCase, string>> Cases() => Times([
        Case("rms_norm", "one odd row").Normal("x", [1, 7]).Normal("weight", [7]).Build(),
        Case("rms_norm", "many rows").Normal("x", [150, 33]).Normal("weight", [33]).Build(),
        Case("rms_norm", "groups, gate before").With("gated", true).With("group_size", 5).Normal("x", [3, 4, 20]).Normal("z", [3, 4, 20], 3).Normal("weight", [20]).Build(),
        Case("rms_norm", "groups, gate after").With("gated", true).With("norm_before_gate", true).With("group_size", 10).Normal("x", [6, 20]).Normal("z", [6, 20], 3).Normal("weight", [20]).Build(),
        Case("rms_norm", "small values").With("eps", 1e-3).Normal("x", [4, 48], 1e-3).Normal("weight", [48]).Build(),
    ]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Forward_and_gradients_equal_oracle(OpCase c, string device) => EngineOp.Check(c, device);

    [Fact]
    public void Parts_of_wider_rows_equal_their_copies()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor wide = ZEngine.Ops.RandomNormal([2, 3, 90], Device.Cpu, new RandomStream(1)), w = ZEngine.Ops.RandomNormal([40], Device.Cpu, new RandomStream(2));
        Tensor x = wide.Slice(-1, 0, 40), z = wide.Slice(-1, 45, 40);
        Assert.Equal(ZEngine.Ops.RmsNorm(x.Clone(), w, 1e-5f, z.Clone()).ToArray<float>(), ZEngine.Ops.RmsNorm(x, w, 1e-5f, z).ToArray<float>());
    }

    [Fact]
    public void Rejects_a_group_that_does_not_divide_the_channels()
    {
        using TensorScope scope = TensorScope.Enter();
        Tensor x = Tensor.Zeros([2, 10], DType.Float32, Device.Cpu), w = Tensor.Zeros([10], DType.Float32, Device.Cpu);
        Assert.Equal("RmsNorm: groupSize 4 does not divide D = 10.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.RmsNorm(x, w, 1e-5f, groupSize: 4)).Message);
        Assert.Equal("RmsNorm: weight must be [D], got [9]: D is 10 but axis 0 is 9.", Assert.Throws<ArgumentException>(() => ZEngine.Ops.RmsNorm(x, w.Slice(0, 0, 9), 1e-5f)).Message.Replace("w.Slice(0, 0, 9)", "weight"));
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const int rows = 6, width = 512, threads = 128, floats = 4 * rows * width;
        Tensor x = tape.Watch(counted.Normal(1, rows, width)), weight = tape.Watch(counted.Normal(2, width)), dy = counted.Normal(3, rows, width);
        Tensor y = ZEngine.Ops.RmsNorm(x, weight, 1e-5f);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["rms_norm_forward"], forward);
        CountedDevice.Moved(2 * floats, floats + 4 * rows, forward[0]);
        CountedDevice.Are(["rms_norm_backward", "rms_norm_weight_backward"], backward);
        CountedDevice.Moved(4 * floats + 4 * rows * threads, floats + floats, backward[0]);    // one block a row: as many partial sums as elements
        CountedDevice.Moved(floats, 4 * width, backward[1]);
        // Stores fill whole sectors; each row's scale is one sector more.
        Assert.Equal(floats / 32 + rows, forward[0][InstructionClass.GlobalStore].Sectors);
        Assert.Equal(2 * floats / 32, backward[0][InstructionClass.GlobalStore].Sectors);
    }

    /// <summary>Rows with a gate, of which a thread takes two accesses at a time: gate and gradient are read and written once, and no two lanes meet in a bank.</summary>
    [Theory]
    [InlineData(DType.Float32), InlineData(DType.BFloat16)]
    public void Traffic_with_a_gate_equals_the_header(DType dtype)
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        const int rows = 3, width = 4096, threads = 256;
        int elements = rows * width * dtype.Size, floats = 4 * rows * width;
        Tensor x = tape.Watch(counted.Normal(1, rows, width).To(dtype)), z = tape.Watch(counted.Normal(2, rows, width).To(dtype)), weight = tape.Watch(counted.Normal(3, width));
        Tensor dy = counted.Normal(4, rows, width).To(dtype);
        counted.Launches();
        Tensor y = ZEngine.Ops.RmsNorm(x, weight, 1e-5f, z);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["rms_norm_forward"], forward);
        CountedDevice.Moved(2 * elements + floats, elements + 4 * rows, forward[0]);
        CountedDevice.Are(["rms_norm_backward", "rms_norm_weight_backward"], backward);
        CountedDevice.Moved(3 * elements + 2 * floats + 4 * rows * threads, 2 * elements + floats, backward[0]);
        const long words = rows * 3 * (threads / 32) * (threads / 32);
        CountedDevice.HasNoBankConflicts(forward[0], words);
        // Of four rows that the backward pass stores in shared memory the compiler takes one apart into its floats: seven passes over the banks where four would do.
        if (dtype == DType.Float32) Assert.InRange(backward[0][InstructionClass.SharedStore].Wavefronts, 0, 7 * floats / 128 + words);
        else CountedDevice.HasNoBankConflicts(backward[0], words);
    }
}
