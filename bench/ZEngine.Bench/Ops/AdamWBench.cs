using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>One optimizer step, with the norm of the gradients.</summary>
public class AdamWBench : OpBench, IOpBench
{
    private const long Numbers = 8 << 20;
    private Tensor _step = null!, _gradient = null!;
    private AdamWSlot[] _slots = [];

    /// <inheritdoc/>
    public override void Setup()
    {
        _step = Own(Tensor.Zeros([], DType.Int64, Device.Cpu));
        _gradient = Normal(Numbers);
        _slots = [new AdamWSlot(Normal(Numbers), null, _gradient, Own(Tensor.Zeros([Numbers], DType.Float32, Device.Cpu)), Own(Tensor.Zeros([Numbers], DType.Float32, Device.Cpu)), IsDecayed: true)];
    }

    /// <summary>Value and both moments.</summary>
    [Benchmark]
    public void Step() => Once(() => Ops.AdamW(_slots, new AdamWOptions(), 1e-4f, _step));

    /// <summary>√Σg².</summary>
    [Benchmark]
    public void Norm() => Once(() => Ops.Norm([_gradient]));

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new AdamWBench();
        bench.Setup();
        yield return new TableRow("AdamW", "step", $"[{Numbers}]", 0, 7 * 4.0 * Numbers, bench.Step);
        yield return new TableRow("AdamW", "norm", $"[{Numbers}]", 0, 4.0 * Numbers, bench.Norm);
    }
}
