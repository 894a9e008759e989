using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>The norm before a block and the gated one behind a scan.</summary>
public class RmsNormBench : OpBench, IOpBench
{
    private const long D = 1024;
    private Tensor _x = null!, _z = null!, _weight = null!, _dy = null!;
    private long _rows;

    /// <summary>A batch, or one token.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        _rows = Phase == Phase.Train ? 4 * 512 : 1;
        (_x, _z, _weight, _dy) = (Normal(_rows, D), Normal(_rows, D), Normal(D), Normal(_rows, D));
    }

    /// <summary>Without a gate.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.RmsNorm(_x, _weight, 1e-5f));

    /// <summary>With a gate before the norm.</summary>
    [Benchmark]
    public void GatedForward() => Once(() => Ops.RmsNorm(_x, _weight, 1e-5f, _z));

    /// <summary>Without a gate, and back.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.RmsNorm(_x, _weight, 1e-5f), _dy, _x, _weight);

    /// <summary>With a gate, and back.</summary>
    [Benchmark]
    public void GatedForwardBackward() => Differentiate(() => Ops.RmsNorm(_x, _weight, 1e-5f, _z), _dy, _x, _weight, _z);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach (Phase phase in (Phase[])[Phase.Train, Phase.Decode])
        {
            using var bench = new RmsNormBench { Phase = phase };
            bench.Setup();
            double n = bench._rows * D;
            string shape = $"[{bench._rows}, {D}]";
            string pass = phase == Phase.Train ? "forward" : "decode";
            yield return new TableRow("RmsNorm", pass, shape, 0, 2 * 4 * n, bench.Forward);
            yield return new TableRow("RmsNorm", pass, $"{shape} gated", 0, 3 * 4 * n, bench.GatedForward);
            if (phase == Phase.Decode) continue;
            yield return new TableRow("RmsNorm", "train", shape, 0, (2 + 3) * 4 * n, bench.ForwardBackward);
            yield return new TableRow("RmsNorm", "train", $"{shape} gated", 0, (3 + 5) * 4 * n, bench.GatedForwardBackward);
        }
    }
}
