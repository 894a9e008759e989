namespace ZEngine.Tests.Core;

/// <summary>What a tape holds on to, measured in bytes of the device.</summary>
public sealed class TapeMemoryTests
{
    private const int Width = 4096;                            // 16 KiB a tensor, a size class of its own
    private const long TensorBytes = 4 * Width;

    [Fact]
    public void Op_whose_backward_reads_nothing_keeps_nothing()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Make());
        long before = Device.Cpu.LiveBytes;
        Tensor y;
        using (TensorScope scope = TensorScope.Enter())
            y = scope.Keep(Chain(x, 8, static x => ZEngine.Ops.Scale(x, 1.5f)));
        Assert.Equal(before + TensorBytes, Device.Cpu.LiveBytes);
        tape.Backward(y, Make());
        Assert.Equal(Make().ToArray<float>().Select(v => Enumerable.Repeat(1.5f, 8).Aggregate(v, (a, b) => a * b)), tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Op_that_reads_its_input_keeps_that_alone()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Make());
        long before = Device.Cpu.LiveBytes;
        Tensor y;
        using (TensorScope scope = TensorScope.Enter())
            y = scope.Keep(Chain(x, 8, static x => ZEngine.Ops.Scale(ZEngine.Ops.Map(Pointwise.Tanh, x), 2)));
        Assert.Equal(before + 8 * TensorBytes, Device.Cpu.LiveBytes);    // seven inputs between the pairs, and y
        tape.Backward(y, Make());
    }

    [Fact]
    public void Inner_scope_frees_what_is_not_recorded()
    {
        using Tape tape = Tape.Begin();
        Tensor x = Make();
        long before = Device.Cpu.LiveBytes;
        using (TensorScope.Enter()) Chain(x, 8, static x => ZEngine.Ops.Map(Pointwise.Tanh, x));
        Assert.Equal(before, Device.Cpu.LiveBytes);
    }

    [Fact]
    public void Backward_pass_frees_gradients_on_its_way()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Make()), y = Chain(x, 64, static x => ZEngine.Ops.Map(Pointwise.Tanh, x)), dy = Make();
        long before = Device.Cpu.LiveBytes;
        Device.Cpu.ResetPeak();
        tape.Backward(y, dy);
        Assert.True(Device.Cpu.PeakBytes <= before + 3 * TensorBytes, $"{(Device.Cpu.PeakBytes - before) / TensorBytes} tensors at the peak");
        Assert.Equal(before + TensorBytes, Device.Cpu.LiveBytes);
    }

    [Fact]
    public void Recomputation_gives_the_same_bits_with_less_memory()
    {
        (float[] Gradient, float[] Weights, long Peak) Run(bool isRecomputed)
        {
            using var weight = new Parameter([Width], Initializer.Ones);
            weight.Initialize(Device.Cpu, 1);
            using Tape tape = Tape.Begin();
            Tensor x = tape.Watch(Make()), y = ZEngine.Ops.Scale(x, 1);
            Device.Cpu.ResetPeak();
            long before = Device.Cpu.LiveBytes;
            for (int i = 0; i < 6; i++) y = isRecomputed ? Tape.Recompute([y, x], Region) : Region([y, x]);
            tape.Backward(y, Make());
            return (tape.GradientOf(x).ToArray<float>(), weight.Gradient!.ToArray<float>(), Device.Cpu.PeakBytes - before);

            Tensor Region(Tensor[] inputs)
            {
                Tensor z = Chain(inputs[0], 6, static z => ZEngine.Ops.Map(Pointwise.Silu, z));
                return ZEngine.Ops.Add(ZEngine.Ops.Multiply(z, weight.Value), inputs[1]);
            }
        }

        (float[] gradient, float[] weights, long peak) = Run(isRecomputed: false);
        (float[] again, float[] weightsAgain, long lessPeak) = Run(isRecomputed: true);
        Assert.Equal(gradient, again);
        Assert.Equal(weights, weightsAgain);
        Assert.True(2 * lessPeak < peak, $"{lessPeak} bytes against {peak}");
    }

    [Fact]
    public void Recomputed_regions_nest()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Make()), plain = Inner([Inner([x])]);
        tape.Backward(plain, Make());
        float[] expected = tape.GradientOf(x).ToArray<float>();
        Tensor again = tape.Watch(Make()), y = Tape.Recompute([again], static z => Tape.Recompute([Inner(z)], Inner));
        tape.Backward(y, Make());
        Assert.Equal(expected, tape.GradientOf(again).ToArray<float>());
        Assert.Equal(plain.ToArray<float>(), y.ToArray<float>());

        static Tensor Inner(Tensor[] x) => ZEngine.Ops.Map(Pointwise.Tanh, ZEngine.Ops.Map(Pointwise.Softplus, x[0]));
    }

    [Fact]
    public void Recomputed_region_without_anything_trainable_passes_no_gradient()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Make()), index = Tensor.From<int>([0, 1], [2], Device.Cpu), frozen = Make();
        Tensor y = Tape.Recompute([index], _ => ZEngine.Ops.Scale(frozen, 2));
        tape.Backward(ZEngine.Ops.Sum(ZEngine.Ops.Multiply(x, y)));
        Assert.Equal(frozen.ToArray<float>().Select(v => 2 * v), tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Region_that_returns_its_input_passes_the_gradient_on()
    {
        using Tape tape = Tape.Begin();
        Tensor x = tape.Watch(Make()), y = Tape.Recompute([ZEngine.Ops.Scale(x, 3)], static z => z[0]);
        tape.Backward(y, Make());
        Assert.Equal(Make().ToArray<float>().Select(v => 3 * v), tape.GradientOf(x).ToArray<float>());
    }

    [Fact]
    public void Hundred_steps_leave_nothing()
    {
        using var weight = new Parameter([Width], Initializer.Ones);
        weight.Initialize(Device.Cpu, 1);
        long buffers = 0;
        for (int step = 0; step < 100; step++)
        {
            using (Tape tape = Tape.Begin())
                tape.Backward(ZEngine.Ops.Mean(ZEngine.Ops.Multiply(Make(), Tape.Recompute([], _ => ZEngine.Ops.Map(Pointwise.Exp, weight.Value)))));
            if (step == 0) buffers = Devices.LiveBuffers(Device.Cpu);
        }
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    private static Tensor Make() => ZEngine.Ops.RandomUniform([Width], Device.Cpu, new RandomStream(3), -2, 2);

    private static Tensor Chain(Tensor x, int length, Func<Tensor, Tensor> op)
    {
        for (int i = 0; i < length; i++) x = op(x);
        return x;
    }
}
