using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>Rotary embedding of queries, both orders of pairs.</summary>
public class RopeBench : OpBench, IOpBench
{
    private const long H = 8, P = 64;
    private Tensor _x = null!, _cosine = null!, _sine = null!, _dy = null!;
    private long _b, _l;

    /// <summary>A batch of sequences, or one token.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    /// <inheritdoc/>
    public override void Setup()
    {
        (_b, _l) = Phase == Phase.Train ? (4, 512) : (1, 1);
        (_x, _cosine, _sine, _dy) = (Normal(_b, _l, H, P), Normal(_l, P / 2), Normal(_l, P / 2), Normal(_b, _l, H, P));
    }

    /// <summary>First half with second half.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.Rope(_x, _cosine, _sine));

    /// <summary>Neighbours.</summary>
    [Benchmark]
    public void Interleaved() => Once(() => Ops.Rope(_x, _cosine, _sine, style: RotaryStyle.Interleaved));

    /// <summary>And back.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.Rope(_x, _cosine, _sine), _dy, _x);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        using var bench = new RopeBench();
        bench.Setup();
        double n = bench._x.Count;
        string shape = $"[4, 512, H {H}, P {P}]";
        yield return new TableRow("Rope", "forward", $"{shape} half", 0, 2 * 4 * n, bench.Forward);
        yield return new TableRow("Rope", "forward", $"{shape} interleaved", 0, 2 * 4 * n, bench.Interleaved);
        yield return new TableRow("Rope", "train", $"{shape} half", 0, 4 * 4 * n, bench.ForwardBackward);
    }
}
