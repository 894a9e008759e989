using static ZEngine.Tape;

namespace ZEngine.Tests.Core;

/// <summary>Ops of one's own, written with what every user of the library has.</summary>
public sealed class CustomOpTests
{
    [Fact]
    public void Swish_of_a_user_equals_the_built_in_one()
    {
        float[] values = [-3, -0.5f, 0, 0.25f, 2], weights = [1, -2, 3, -4, 5];
        float[] own, builtIn, ownGradient, builtInGradient;
        using (Tape tape = Begin())
        {
            Tensor x = tape.Watch(From(values)), y = Swish(x, 1);
            tape.Backward(y, From(weights));
            (own, ownGradient) = (y.ToArray<float>(), tape.GradientOf(x).ToArray<float>());
        }
        using (Tape tape = Begin())
        {
            Tensor x = tape.Watch(From(values)), y = ZEngine.Ops.Map(Pointwise.Silu, x);
            tape.Backward(y, From(weights));
            (builtIn, builtInGradient) = (y.ToArray<float>(), tape.GradientOf(x).ToArray<float>());
        }
        for (int i = 0; i < values.Length; i++)
        {
            Assert.Equal(builtIn[i], own[i], 1e-6f);
            Assert.Equal(builtInGradient[i], ownGradient[i], 1e-5f);
        }
    }

    [Fact]
    public void Absent_inputs_and_absent_gradients_are_null()
    {
        using Tape tape = Begin();
        Tensor x = tape.Watch(From(1, 2)), w = tape.Watch(From(3, 4));
        Tensor y = Record(From(0, 0), [x, null, w], dy => [ZEngine.Ops.Scale(dy, 2), null, null]);
        tape.Backward(y, From(1, 1));
        Assert.Equal([2, 2], tape.GradientOf(x).ToArray<float>());
        Assert.Contains("no gradient reached", Fault(() => Record(y, [x], _ => []), tape, w), StringComparison.Ordinal);
    }

    [Fact]
    public void Gradient_that_the_op_keeps_for_itself_is_neither_changed_nor_disposed()
    {
        using Tensor ones = From(1, 1);
        for (int step = 0; step < 2; step++)
        {
            using var weight = new Parameter([2], Initializer.Ones);
            weight.Initialize(Device.Cpu, 1);
            using Tape tape = Begin();
            Tensor x = tape.Watch(From(1, 2)), between = ZEngine.Ops.Scale(x, 1);
            for (int use = 0; use < 3; use++)
            {
                tape.Backward(Record(Tensor.Scalar(3, Device.Cpu), [between, weight.Value, x], _ => [ones, ones, ones]));
                tape.Backward(Record(Tensor.Scalar(3, Device.Cpu), [between, weight.Value], _ => [ones, ones]));
            }
            Assert.Equal([9, 9], tape.GradientOf(x).ToArray<float>());
            Assert.Equal([6, 6], weight.Gradient!.ToArray<float>());
            weight.ClearGradient();
            Assert.Equal([1, 1], ones.ToArray<float>());
        }
    }

    [Fact]
    public void Same_gradient_may_be_given_to_several_inputs()
    {
        using Tape tape = Begin();
        Tensor x = tape.Watch(From(1, 2)), w = tape.Watch(From(3, 4));
        Tensor y = Record(From(4, 6), [x, w, x], [], dy => [dy, dy, dy]);
        tape.Backward(y, From(1, 10));
        tape.Backward(y, From(1, 10));
        Assert.Equal([4, 40], tape.GradientOf(x).ToArray<float>());
        Assert.Equal([2, 20], tape.GradientOf(w).ToArray<float>());
    }

    [Fact]
    public void Wrong_gradients_are_named()
    {
        using Tape tape = Begin();
        Tensor x = tape.Watch(From(1, 2));
        Tensor few = Record(Tensor.Scalar(1, Device.Cpu), [x], _ => []);
        Assert.Equal("Tape.Record: backward returned 0 gradients for 1 inputs.", Fault(() => few, tape, null));
        Tensor wide = Record(Tensor.Scalar(1, Device.Cpu), [x], _ => [From(1, 2, 3)]);
        Assert.Equal("Tape.Record: backward returned Float32 [3] on cpu as the gradient of input 0, Float32 [2] on cpu.", Fault(() => wide, tape, null));
        Tensor integers = Record(Tensor.Scalar(1, Device.Cpu), [x], _ => [Tensor.From<int>([1, 2], [2], Device.Cpu)]);
        Assert.Equal("Tape.Record: backward returned Int32 [2] on cpu as the gradient of input 0, Float32 [2] on cpu.", Fault(() => integers, tape, null));
    }

    [Fact]
    public void Error_in_backward_arrives_and_the_tape_goes_on()
    {
        using Tape tape = Begin();
        Tensor x = tape.Watch(From(1, 2)), y = ZEngine.Ops.Scale(x, 5);
        Tensor bad = Record(Tensor.Scalar(1, Device.Cpu), [y], _ => throw new NotSupportedException("no gradient here"));
        Assert.Equal("no gradient here", Fault(() => bad, tape, null));
        tape.Backward(ZEngine.Ops.Sum(y));
        Assert.Equal([5, 5], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Without_a_tape_nothing_is_kept()
    {
        using Tensor x = From(1, 2), y = From(3, 4);
        Assert.Same(y, Record(y, [x], _ => throw new InvalidOperationException("must not run")));
        Assert.False(y.RequiresGradient);
    }

    private static Tensor Swish(Tensor x, float beta)
    {
        float[] values = x.ToArray<float>();
        Tensor y = Tensor.From<float>([.. values.Select(v => v / (1 + MathF.Exp(-beta * v)))], x.Shape, x.Device);
        return Record(y, [x], dy =>
        {
            float[] dx = dy.ToArray<float>();
            for (int i = 0; i < dx.Length; i++)
            {
                float s = 1 / (1 + MathF.Exp(-beta * values[i]));
                dx[i] *= s * (1 + beta * values[i] * (1 - s));
            }
            return [Tensor.From<float>(dx, x.Shape, x.Device)];
        });
    }

    private static string Fault(Func<Tensor> output, Tape tape, Tensor? asked)
    {
        try
        {
            if (asked is not null) tape.GradientOf(asked);
            else tape.Backward(output());
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or NotSupportedException)
        {
            return e.Message;
        }
        return "no error";
    }

    private static Tensor From(params float[] values) => Tensor.From<float>(values, [values.Length], Device.Cpu);
}
