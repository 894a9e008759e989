namespace ZEngine.Training;

/// <summary>Warm-up over W steps, then peak·√W / √t, never below the floor.</summary>
/// <remarks>Vaswani et al. 2017, arXiv:1706.03762, section 5.3, in Megatron's form.</remarks>
public sealed class InverseSquareRootSchedule : Schedule
{
    /// <summary>Creates the schedule; it needs at least one step of warm-up.</summary>
    public InverseSquareRootSchedule(float peak, int steps, int warmup, float floor = 0) : base(peak, steps, warmup, floor) =>
        ArgumentOutOfRangeException.ThrowIfLessThan(warmup, 1);

    private protected override double AfterWarmup(long step) => Math.Max(Floor, Peak * Math.Sqrt(Warmup / (double)step));
}
