namespace ZEngine.Tests.Core;

/// <summary>What the tape adds up, and what it refuses.</summary>
public sealed class TapeTests
{
    [Fact]
    public void Gradients_add_up_over_several_uses()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(1, -2, 3));
        Tensor y = ZEngine.Ops.Add(ZEngine.Ops.Add(ZEngine.Ops.Multiply(x, x), x), x);   // x² + 2x
        tape.Backward(ZEngine.Ops.Sum(y));
        Assert.Equal([4, -2, 8], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Gradients_add_up_over_several_backward_passes()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(1, -2, 3)), square = ZEngine.Ops.Map(Pointwise.Square, x), sum = ZEngine.Ops.Sum(square);
        tape.Backward(sum);
        Tensor first = tape.GradientOf(x);
        Assert.Equal([2, -4, 6], first.ToArray<float>());
        tape.Backward(ZEngine.Ops.Sum(x));
        Assert.Equal([3, -3, 7], tape.GradientOf(x).ToArray<float>());
        tape.Backward(sum);
        tape.Backward([square, sum], [From(1, 1, 1), Tensor.Scalar(-1, Device.Cpu)]);
        Assert.Equal([5, -7, 13], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Gradient_sent_in_is_neither_changed_nor_disposed()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(1, 2)), dx = From(10, 20);
        for (int pass = 0; pass < 3; pass++) tape.Backward([x, ZEngine.Ops.Scale(x, 1)], [dx, dx]);
        Assert.Equal([10, 20], dx.ToArray<float>());
        Assert.Equal([60, 120], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Intermediate_tensors_can_be_watched()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(1, 2)), y = tape.Watch(ZEngine.Ops.Scale(x, 3));
        tape.Backward(ZEngine.Ops.Sum(ZEngine.Ops.Map(Pointwise.Square, y)));
        Assert.Equal([6, 12], tape.GradientOf(y).ToArray<float>());
        Assert.Equal([18, 36], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Gradient_made_inside_an_inner_scope_lives_as_long_as_the_tape()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(1, 2)), w = tape.Watch(From(5, 6));
        using (TensorScope.Enter())
        {
            tape.Backward(ZEngine.Ops.Sum(ZEngine.Ops.Multiply(x, w)));
            tape.Backward(x, From(1, 1));
            tape.Backward(w, From(2, 2));
        }
        Assert.Equal([6, 7], tape.GradientOf(x).ToArray<float>());
        Assert.Equal([3, 4], tape.GradientOf(w).ToArray<float>());
    }

    [Fact]
    public void Watched_16_bit_tensor_may_be_used_twice()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(1, 2, 3).To(DType.BFloat16));
        Tensor y = ZEngine.Ops.Add(x.To(DType.Float32), ZEngine.Ops.Scale(x.To(DType.Float32), 2));
        tape.Backward(y, From(1, 10, 100));
        Assert.Equal([3, 30, 300], tape.GradientOf(x).To(DType.Float32).ToArray<float>());
    }

    [Fact]
    public void Output_that_nothing_uses_has_no_gradient()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(2, 3));
        Tensor[] parts = [From(4, 9), From(8, 27)];            // x², x³
        Tensor?[] seen = [];
        Tape.Record(parts, [x], [x], dOutputs =>
        {
            seen = dOutputs;
            return [ZEngine.Ops.Multiply(ZEngine.Ops.Scale(x, 2), dOutputs[0]!)];
        });
        tape.Backward(ZEngine.Ops.Sum(parts[0]));
        Assert.Null(seen[1]);
        Assert.Equal([4, 6], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Op_that_the_loss_does_not_depend_on_is_not_run_backward()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(2, 3));
        Tape.Record(From(0, 0), [x], _ => throw new InvalidOperationException("must not run"));
        tape.Backward(ZEngine.Ops.Sum(x));
        Assert.Equal([1, 1], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Detach_and_NoGrad_stop_gradients()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(2, 3)), y;
        Assert.True(Tape.IsRecording && x.RequiresGradient);
        using (Tape.NoGrad())
        {
            Assert.False(Tape.IsRecording || x.RequiresGradient);
            y = ZEngine.Ops.Map(Pointwise.Square, x);
        }
        Assert.True(Tape.IsRecording);
        Assert.False(y.RequiresGradient || x.Detach().RequiresGradient);
        tape.Backward(ZEngine.Ops.Sum(ZEngine.Ops.Multiply(x, y)));
        Assert.Equal([4, 9], tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Ops_without_a_tracked_input_are_not_recorded()
    {
        using Tape tape = Tape.Begin();
        Tensor y = ZEngine.Ops.Map(Pointwise.Exp, From(1, 2));
        Assert.False(y.RequiresGradient);
        Assert.Equal("Tape.Backward: Float32 [] on cpu was not recorded by this tape.", Fault(static (tape, x, y) => tape.Backward(x), tape, ZEngine.Ops.Sum(y), y));
    }

    [Fact]
    public void Mistakes_are_named()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(From(1, 2)), y = ZEngine.Ops.Scale(x, 2), other = From(1, 2);
        Assert.Equal("Tape.Backward: the loss must have one element, got Float32 [2] on cpu; give the gradient of other tensors with it.", Fault(static (tape, x, y) => tape.Backward(y), tape, x, y));
        Assert.Equal("Tape.Backward: 2 outputs but 1 gradients.", Fault(static (tape, x, y) => tape.Backward([y, y], [x]), tape, x, y));
        Assert.Equal("Tape.Backward: the gradient must have the output's shape [2], got Float32 [] on cpu.", Fault(static (tape, x, y) => tape.Backward(y, Tensor.Scalar(1, Device.Cpu)), tape, x, y));
        Assert.Equal("Tape.GradientOf: no gradient reached Float32 [2] on cpu; was it watched, and does the loss depend on it?", Fault(static (tape, x, y) => tape.GradientOf(x), tape, other, y));
        Assert.Equal("Tape.GradientOf: no gradient reached Float32 [2] on cpu; was it watched, and does the loss depend on it?", Fault(static (tape, x, y) => tape.GradientOf(x), tape, x, y));
        Assert.Equal("Tape.Begin: a tape is already recording on this thread.", Assert.Throws<InvalidOperationException>(static () => Tape.Begin().Dispose()).Message);
    }

    [Fact]
    public void Tape_ends_what_it_owns_and_stops_recording()
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        Tensor x, loss, kept;
        using (Tape tape = Tape.Begin())
        {
            x = tape.Watch(From(1, 2));
            loss = ZEngine.Ops.Sum(x);
            kept = TensorScope.Release(ZEngine.Ops.Scale(x, 2));
            tape.Backward(loss);
        }
        Assert.False(Tape.IsRecording || kept.RequiresGradient || kept.IsDisposed);
        Assert.True(x.IsDisposed && loss.IsDisposed);
        kept.Dispose();
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    [Fact]
    public void Threads_record_on_tapes_of_their_own()
    {
        var results = new float[4];
        var threads = new Thread[4];
        for (int i = 0; i < threads.Length; i++)
        {
            int own = i;
            threads[i] = new Thread(() =>
            {
                for (int round = 0; round < 200; round++)
                {
                    using Tape tape = Tape.Begin();
                    Tensor x = tape.Watch(From(own + 1, own + 2));
                    tape.Backward(ZEngine.Ops.Sum(ZEngine.Ops.Map(Pointwise.Square, x)));
                    results[own] = tape.GradientOf(x).ToArray<float>().Sum();
                }
            });
        }
        foreach (Thread thread in threads) thread.Start();
        foreach (Thread thread in threads) thread.Join();
        Assert.Equal([6, 10, 14, 18], results);
    }

    private delegate void Use(Tape tape, Tensor x, Tensor y);

    private static string Fault(Use use, Tape tape, Tensor x, Tensor y)
    {
        try
        {
            use(tape, x, y);
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException)
        {
            return e.Message;
        }
        return "no error";
    }

    private static Tensor From(params float[] values) => Tensor.From<float>(values, [values.Length], Device.Cpu);
}
