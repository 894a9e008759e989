using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Counter-based random numbers.</summary>
public class RandomBench : OpBench, IOpBench
{
    private const long Numbers = 1 << 20;
    private RandomStream _random;

    /// <inheritdoc/>
    public override void Setup() => _random = new RandomStream(1);

    /// <summary>Normal distribution.</summary>
    [Benchmark]
    public void Normals() => Once(() => Ops.RandomNormal([Numbers], Device.Cpu, _random));

    /// <summary>Uniform distribution.</summary>
    [Benchmark]
    public void Uniforms() => Once(() => Ops.RandomUniform([Numbers], Device.Cpu, _random));

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new RandomBench();
        bench.Setup();
        yield return new TableRow("Random", "forward", $"[{Numbers}] normal", 0, 4.0 * Numbers, bench.Normals);
        yield return new TableRow("Random", "forward", $"[{Numbers}] uniform", 0, 4.0 * Numbers, bench.Uniforms);
    }
}
