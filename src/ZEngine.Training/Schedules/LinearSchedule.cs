namespace ZEngine.Training;

/// <summary>Warm-up, then a straight line from the peak down to the floor, which it would reach one step after the last.</summary>
public sealed class LinearSchedule(float peak, int steps, int warmup = 0, float floor = 0) : Schedule(peak, steps, warmup, floor)
{
    private protected override double AfterWarmup(long step) => Peak + ((double)Floor - Peak) * Progress(step, Warmup);
}
