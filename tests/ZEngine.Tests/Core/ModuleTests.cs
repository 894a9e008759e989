namespace ZEngine.Tests.Core;

/// <summary>Parameters and the modules that own them.</summary>
public sealed class ModuleTests
{
    [Fact]
    public void Names_are_paths_from_the_root_in_order_of_declaration()
    {
        using var model = new Stack(2);
        Assert.Equal(["in.weight", "in.bias", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "scale"], model.Parameters.Select(parameter => parameter.Name));
        Assert.Equal(3 * (6 + 2) + 1, model.ParameterCount);
        Assert.Equal("layers.1.weight [2, 3]", model.Parameters[4].ToString());
    }

    [Fact]
    public void Shared_module_counts_once_under_its_first_name()
    {
        var shared = new Layer();
        using var model = new Pair(new Holder("attention", shared), new Holder("mlp", shared), shared);
        Assert.Equal(["first.attention.weight", "first.attention.bias"], model.Parameters.Select(parameter => parameter.Name));
        Assert.Equal(8, model.ParameterCount);
    }

    [Fact]
    public void Double_declarations_are_errors()
    {
        Assert.Equal("Twice declares parameter w twice.", Assert.Throws<ArgumentException>(() => new Twice()).Message);
        Assert.Equal("Parameter weight already belongs to a module.", Assert.Throws<ArgumentException>(() => new Borrower(new Layer())).Message);
    }

    [Fact]
    public void Structure_needs_no_memory()
    {
        long bytes = Device.Cpu.LiveBytes;
        using var huge = new Parameter([1L << 30, 1L << 20], Initializer.Zeros);
        Assert.Equal((1L << 50, bytes), (huge.Count, Device.Cpu.LiveBytes));
        Assert.Equal("Parameter  [1073741824, 1048576] has no value yet: initialise or load the module first.", Assert.Throws<InvalidOperationException>(() => huge.Value).Message);
    }

    [Theory]
    [InlineData(1L << 40, 1L << 40, "Parameter: [1099511627776, 1099511627776] has more elements than 64 bits can count.")]
    [InlineData(4L, -1L, "Parameter: sizes must not be negative, got [4, -1].")]
    public void Shapes_that_cannot_be_are_errors(long rows, long columns, string message) =>
        Assert.Equal(message, Assert.Throws<ArgumentException>(() => new Parameter([rows, columns], Initializer.Zeros)).Message);

    [Fact]
    public void Initial_values_depend_on_seed_and_name_alone()
    {
        using Stack two = new(2), three = new(3), other = new(2);
        two.Initialize(Device.Cpu, 7);
        three.Initialize(Device.Cpu, 7);
        other.Initialize(Device.Cpu, 8);
        Dictionary<string, float[]> a = Values(two), b = Values(three), c = Values(other);
        foreach (string name in a.Keys) Assert.Equal(a[name], b[name]);
        Assert.NotEqual(a["in.weight"], a["layers.0.weight"]);
        Assert.NotEqual(a["in.weight"], c["in.weight"]);
        Assert.Equal([0, 0], a["in.bias"]);
        Assert.Equal([1], a["scale"]);

        static Dictionary<string, float[]> Values(Module module) => module.Parameters.ToDictionary(parameter => parameter.Name, parameter => parameter.Value.ToArray<float>());
    }

    [Fact]
    public void Matrices_take_the_asked_type_and_the_rest_stays_Float32()
    {
        using var model = new Layer();
        model.Initialize(Device.Cpu, 1, DType.BFloat16);
        Assert.Equal([DType.BFloat16, DType.Float32], model.Parameters.Select(parameter => parameter.Value.DType));
    }

    [Fact]
    public void Gradients_add_up_over_uses_and_tapes_until_cleared()
    {
        using var model = new Layer();
        model.Initialize(Device.Cpu, 1);
        Parameter bias = model.Parameters[1];
        for (int step = 0; step < 3; step++)
        {
            using Tape tape = Tape.Begin();
            tape.Backward(ZEngine.Ops.Sum(ZEngine.Ops.Add(bias.Value, ZEngine.Ops.Scale(bias.Value, 2))));
        }
        Assert.Equal([9, 9], bias.Gradient!.ToArray<float>());
        Assert.Null(model.Parameters[0].Gradient);
        bias.ScaleGradient(0.5f);
        Assert.Equal([4.5f, 4.5f], bias.Gradient.ToArray<float>());
        model.ClearGradients();
        Assert.Null(bias.Gradient);
    }

    [Fact]
    public void Gradient_of_a_16_bit_parameter_is_Float32()
    {
        using var model = new Layer();
        model.Initialize(Device.Cpu, 1, DType.BFloat16);
        for (int use = 0; use < 2; use++)
        {
            using Tape tape = Tape.Begin();
            tape.Backward(ZEngine.Ops.Sum(model.Parameters[0].Value.To(DType.Float32)));
        }
        Assert.Equal(DType.Float32, model.Parameters[0].Gradient!.DType);
        Assert.Equal([2, 2, 2, 2, 2, 2], model.Parameters[0].Gradient!.ToArray<float>());
    }

    [Fact]
    public void Frozen_parameter_is_not_recorded()
    {
        using var model = new Layer();
        model.Initialize(Device.Cpu, 1);
        (Parameter weight, Parameter bias) = (model.Parameters[0], model.Parameters[1]);
        weight.IsTrainable = false;
        using Tape tape = Tape.Begin();
        Assert.False(ZEngine.Ops.Scale(weight.Value, 2).RequiresGradient);
        Tensor x = Tensor.From<float>([1, 2, 3], [1, 3], Device.Cpu);
        tape.Backward(ZEngine.Ops.Sum(ZEngine.Ops.Linear(x, weight.Value, bias.Value)));
        Assert.Null(weight.Gradient);
        Assert.Equal([1, 1], bias.Gradient!.ToArray<float>());
    }

    [Fact]
    public void Value_must_fit_and_belongs_to_the_parameter()
    {
        using var model = new Layer();
        Parameter bias = model.Parameters[1];
        using Tensor wrong = Tensor.Zeros([3], DType.Float32, Device.Cpu), integers = Tensor.Zeros([2], DType.Int32, Device.Cpu);
        Assert.Equal("Parameter bias must be a contiguous float [2], got Float32 [3] on cpu.", Assert.Throws<ArgumentException>(() => bias.Materialize(wrong)).Message);
        Assert.Equal("Parameter bias must be a contiguous float [2], got Int32 [2] on cpu.", Assert.Throws<ArgumentException>(() => bias.Materialize(integers)).Message);
        using (TensorScope.Enter()) bias.Materialize(Tensor.From<float>([1, 2], [2], Device.Cpu));
        Assert.True(bias.IsMaterialized);
        Assert.Equal([1, 2], bias.Value.ToArray<float>());
    }

    [Fact]
    public void Module_gives_everything_back()
    {
        long buffers = Devices.LiveBuffers(Device.Cpu);
        using (var model = new Stack(3))
        {
            model.Initialize(Device.Cpu, 1);
            model.Initialize(Device.Cpu, 2);
            using Tape tape = Tape.Begin();
            tape.Backward(ZEngine.Ops.Sum(model.Parameters[0].Value));
        }
        Assert.Equal(buffers, Device.Cpu.LiveBuffers);
    }

    private sealed class Layer : Module
    {
        public Layer()
        {
            Register("weight", new Parameter([2, 3], Initializer.Normal(1), isMatrix: true, isDecayed: true));
            Register("bias", new Parameter([2], Initializer.Zeros));
        }
    }

    private sealed class Stack : Module
    {
        public Stack(int layers)
        {
            Register("in", new Layer());
            for (int i = 0; i < layers; i++) Register($"layers.{i}", new Layer());
            Register("scale", new Parameter([1], Initializer.Ones));
        }
    }

    private sealed class Holder : Module
    {
        public Holder(string name, Module child) => Register(name, child);
    }

    private sealed class Pair : Module
    {
        public Pair(Module first, Module second, Module shared)
        {
            Register("first", first);
            Register("second", second);
            Register("third", shared);
        }
    }

    private sealed class Twice : Module
    {
        public Twice()
        {
            Register("w", new Parameter([1], Initializer.Ones));
            Register("w", new Parameter([1], Initializer.Ones));
        }
    }

    private sealed class Borrower : Module
    {
        public Borrower(Module other) => Register("mine", other.Parameters[0]);
    }
}
