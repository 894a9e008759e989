using Op = ZEngine.Ops;

namespace ZEngine.Tests.Core;

/// <summary>When a backward pass says that a parameter's gradient is final.</summary>
public sealed class FinalGradientTests
{
    private static Parameter NewParameter(string name)
    {
        var parameter = new Parameter([2, 2], Initializer.Normal(1)) { Name = name };
        parameter.Initialize(Device.Cpu, 1);
        return parameter;
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Shared_parameter_is_final_after_its_last_use_alone(bool isRecomputed)
    {
        using Parameter shared = NewParameter("shared"), early = NewParameter("early"), late = NewParameter("late"), unused = NewParameter("unused");
        var order = new List<string>();
        var seen = new Dictionary<string, float[]>();
        using (Tape tape = Tape.Begin())
        {
            Tensor x = Tensor.From<float>([1, 2, 3, 4], [2, 2], Device.Cpu);
            Tensor Block(Tensor input) => Op.MatMul(input, shared.Value);
            x = Op.MatMul(isRecomputed ? Tape.Recompute([x], given => Block(given[0])) : Block(x), early.Value);
            x = Op.MatMul(Block(x), late.Value);
            Tensor loss = Op.Sum(x);
            tape.Backward(loss, Tensor.Scalar(1, Device.Cpu), parameter =>
            {
                order.Add(parameter.Name);
                seen.Add(parameter.Name, parameter.Gradient!.ToArray<float>());
            });
        }
        // A region that is recomputed may use anything: it holds all back.
        Assert.Equal(["late", "early", "shared"], isRecomputed ? order.OrderByDescending(name => name == "late").ThenBy(name => name) : order);
        foreach (Parameter parameter in (Parameter[])[shared, early, late]) Assert.Equal(parameter.Gradient!.ToArray<float>(), seen[parameter.Name]);
        Assert.Null(unused.Gradient);
    }
}
