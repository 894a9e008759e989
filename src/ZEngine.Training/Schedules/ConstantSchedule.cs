namespace ZEngine.Training;

/// <summary>Warm-up, then the peak.</summary>
public sealed class ConstantSchedule(float peak, int steps, int warmup = 0) : Schedule(peak, steps, warmup, floor: 0)
{
    private protected override double AfterWarmup(long step) => Peak;
}
