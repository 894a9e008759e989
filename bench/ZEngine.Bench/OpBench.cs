using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>What the bench rooms share: operands that live as long as the room, and a run of the tape.</summary>
public abstract class OpBench : IDisposable
{
    private readonly List<IDisposable> _owned = [];
    private ulong _seed;

    /// <summary>Makes the operands of the chosen phase.</summary>
    [GlobalSetup]
    public abstract void Setup();

    /// <summary>Gives the operands back.</summary>
    [GlobalCleanup]
    public void Dispose()
    {
        foreach (IDisposable owned in _owned) owned.Dispose();
        _owned.Clear();
        GC.SuppressFinalize(this);
    }

    /// <summary>Normally distributed numbers.</summary>
    protected Tensor Normal(params ReadOnlySpan<long> shape) => Own(Ops.RandomNormal(shape, Device.Cpu, new RandomStream(++_seed)));

    /// <summary>Token numbers below a bound.</summary>
    protected Tensor Tokens(long bound, params ReadOnlySpan<long> shape)
    {
        Tensor tokens = Own(Tensor.Empty(shape, DType.Int64, Device.Cpu));
        var values = new long[tokens.Count];
        for (int i = 0; i < values.Length; i++) values[i] = new RandomStream(7).Below(i, bound);
        tokens.CopyFrom<long>(values);
        return tokens;
    }

    /// <summary>Keeps a tensor until the room is disposed.</summary>
    protected Tensor Own(Tensor tensor)
    {
        _owned.Add(tensor);
        return tensor;
    }

    /// <summary>One forward run whose results are dropped.</summary>
    protected static void Once(Action forward)
    {
        ArgumentNullException.ThrowIfNull(forward);
        using TensorScope scope = TensorScope.Enter();
        forward();
    }

    /// <summary>A forward and a backward pass with the gradients of all <paramref name="inputs"/>.</summary>
    protected static void Differentiate(Func<Tensor> forward, Tensor dy, params ReadOnlySpan<Tensor> inputs)
    {
        ArgumentNullException.ThrowIfNull(forward);
        using Tape tape = Tape.Begin();
        foreach (Tensor input in inputs) tape.Watch(input);
        tape.Backward(forward(), dy);
    }
}
