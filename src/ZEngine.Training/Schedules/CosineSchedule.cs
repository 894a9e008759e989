namespace ZEngine.Training;

/// <summary>Warm-up, then half a cosine from the peak down to the floor, which it would reach one step after the last.</summary>
/// <remarks>floor + ½(peak - floor)(1 + cos πx), x from 0 to 1. Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.</remarks>
public sealed class CosineSchedule(float peak, int steps, int warmup = 0, float floor = 0) : Schedule(peak, steps, warmup, floor)
{
    private protected override double AfterWarmup(long step) => Floor + 0.5 * ((double)Peak - Floor) * (1 + Math.Cos(Math.PI * Progress(step, Warmup)));
}
