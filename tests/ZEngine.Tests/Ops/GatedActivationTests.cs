using ZEngine.Emulator;
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
        Case("gated_mlp_activation", name).With("activation", name).Normal("gate", [5, 37], 3).Normal("up", [5, 37]).Build()).Append(
            Case("gated_mlp_activation", "whole accesses").With("activation", "silu").Normal("gate", [3, 72], 3).Normal("up", [3, 72]).Build()));

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

    [Fact]
    public void Rows_of_any_distance_equal_their_copies()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        Tensor wide = counted.Normal(1, 3, 5, 96);
        foreach ((long first, long width) in (ReadOnlySpan<(long, long)>)[(0, 32), (4, 8), (3, 17)])
        {
            Tensor gate = wide.Slice(-1, first, width), up = wide.Slice(-1, 48 + first, width);
            Assert.Equal(ZEngine.Ops.GatedActivation(gate.Clone(), up.Clone(), Pointwise.Gelu).ToArray<float>(), ZEngine.Ops.GatedActivation(gate, up, Pointwise.Gelu).ToArray<float>());
        }
    }

    [Fact]
    public void Sixteen_bits_round_once()
    {
        using var counted = new CountedDevice();
        using TensorScope scope = TensorScope.Enter();
        foreach (DType dtype in (ReadOnlySpan<DType>)[DType.BFloat16, DType.Float16])
        foreach (long width in (ReadOnlySpan<long>)[48, 37])
            counted.RoundsOnce(dtype, x => ZEngine.Ops.GatedActivation(x[0], x[1], Pointwise.Silu), counted.Normal(1, 5, width), counted.Normal(2, 5, width));
    }

    [Fact]
    public void Rows_of_many_gigabytes_take_several_launches()
    {
        Assert.Equal([(0L, 7L)], ZEngine.Cuda.CudaBackend.CountedRows("op", 7 * 24, 24, 8));
        Assert.Equal([(0L, 3L), (3L, 3L), (6L, 1L)], ZEngine.Cuda.CudaBackend.CountedRows("op", 7 * 24, 24, 8, most: 10));
        Assert.Empty(ZEngine.Cuda.CudaBackend.CountedRows("op", 0, 0, 8));
        Assert.Equal("op: a row has 24 elements, the kernels take at most 16.", Assert.Throws<NotSupportedException>(() => ZEngine.Cuda.CudaBackend.CountedRows("op", 24, 24, 8, most: 2).Count()).Message);
    }

    [Fact]
    public void Traffic_equals_the_header()
    {
        using var counted = new CountedDevice();
        using Tape tape = Tape.Begin();
        Tensor gate = tape.Watch(counted.Normal(1, 6, 64)), up = tape.Watch(counted.Normal(2, 6, 64)), dy = counted.Normal(3, 6, 64);
        const long bytes = 4 * 6 * 64;
        Tensor y = ZEngine.Ops.GatedActivation(gate, up, Pointwise.Silu);
        LaunchProfile[] forward = counted.Launches();
        tape.Backward(y, dy);
        LaunchProfile[] backward = counted.Launches();
        CountedDevice.Are(["gated_activation_forward"], forward);
        CountedDevice.Are(["gated_activation_backward"], backward);
        CountedDevice.Moved(2 * bytes, bytes, forward[0]);
        CountedDevice.Moved(3 * bytes, 2 * bytes, backward[0]);
        CountedDevice.IsWide(forward[0]);
        CountedDevice.IsWide(backward[0]);
    }
}
