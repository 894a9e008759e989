using BenchmarkDotNet.Attributes;

namespace ZEngine.Bench;

/// <summary>The scan of a Mamba block with d 512 (1024 channels) and 16 states.</summary>
public class SelectiveScanBench : OpBench, IOpBench
{
    private const long Channels = 1024, States = 16;

    private Tensor _u = null!, _dt = null!, _A = null!, _B = null!, _C = null!, _D = null!, _z = null!, _state = null!, _dy = null!;

    /// <summary>A step's scan, or one token's.</summary>
    [Params(Phase.Train, Phase.Decode)]
    public Phase Phase { get; set; }

    private (long Batch, long Length) Size => Phase == Phase.Train ? (4, 512) : (1, 1);

    /// <inheritdoc/>
    public override void Setup()
    {
        (long batch, long length) = Size;
        (_u, _dt, _z, _dy) = (Normal(batch, length, Channels), Normal(batch, length, Channels), Normal(batch, length, Channels), Normal(batch, length, Channels));
        (_B, _C, _D, _state) = (Normal(batch, length, 1, States), Normal(batch, length, 1, States), Normal(Channels), Normal(batch, Channels, States));
        _A = Own(Ops.Scale(Own(Ops.Map(Pointwise.Exp, Normal(Channels, States))), -1));
    }

    /// <summary>y and the state; decoding goes on from a state.</summary>
    [Benchmark]
    public void Forward() => Once(() => Ops.SelectiveScan(_u, _dt, _A, _B, _C, _D, _z, initialState: Phase == Phase.Decode ? _state : null));

    /// <summary>Also the gradients of all inputs.</summary>
    [Benchmark]
    public void ForwardBackward() => Differentiate(() => Ops.SelectiveScan(_u, _dt, _A, _B, _C, _D, _z).Y, _dy, _u, _dt, _A, _B, _C, _D, _z);

    /// <inheritdoc/>
    public static IEnumerable<TableRow> Rows()
    {
        foreach (Phase phase in (Phase[])[Phase.Train, Phase.Decode])
        {
            using var bench = new SelectiveScanBench { Phase = phase };
            bench.Setup();
            (long batch, long length) = bench.Size;
            // Per channel, state and step: Δ·A, h = decay·h + input·B, y += C·h.
            double steps = (double)batch * length, flops = steps * Channels * States * 6, bytes = 4 * (steps * (4 * Channels + 2 * States) + (phase == Phase.Decode ? 3 : 1) * Channels * States);
            string shape = $"[{batch}, {length}, {Channels}], {States} states, gate";
            yield return new TableRow("SelectiveScan", phase == Phase.Train ? "forward" : "decode", shape, flops, bytes, bench.Forward);
            if (phase == Phase.Train) yield return new TableRow("SelectiveScan", "train", shape, 3 * flops, 3 * bytes, bench.ForwardBackward);
        }
    }
}
