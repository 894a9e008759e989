namespace ZEngine.Training;

/// <summary>A second training phase on better data: the learning rate rises from 0 again, to a share of the first phase's peak, then falls to the floor.</summary>
/// <remarks>
/// Zyphra's guidance for annealing: re-warm linearly over a few thousand steps to about 75 % of the original peak, then decay to about
/// zero, by cosine or by a fast exponential, peak·(floor / peak)ˣ; with 50 to 70 % of the data replayed from the first phase
/// (<see cref="MixedSequences"/>).
/// </remarks>
public sealed class AnnealingSchedule : Schedule
{
    /// <summary>Creates the schedule.</summary>
    /// <param name="originalPeak">The largest learning rate of the first phase.</param>
    /// <param name="steps">Length of the second phase.</param>
    /// <param name="warmup">Steps of the second rise.</param>
    /// <param name="share">The part of the original peak that is reached.</param>
    /// <param name="floor">The smallest learning rate, reached one step after the last.</param>
    /// <param name="decay">How it falls.</param>
    public AnnealingSchedule(float originalPeak, int steps, int warmup, float share = 0.75f, float floor = 0, AnnealingDecay decay = AnnealingDecay.Cosine)
        : base(originalPeak * share, steps, warmup, floor)
    {
        if (!Enum.IsDefined(decay)) throw new ArgumentOutOfRangeException(nameof(decay), decay, "AnnealingSchedule: no such decay");
        if (decay == AnnealingDecay.Exponential && floor <= 0) throw new ArgumentOutOfRangeException(nameof(floor), floor, "AnnealingSchedule: exponential decay needs a floor above 0");
        Decay = decay;
    }

    /// <summary>How it falls.</summary>
    public AnnealingDecay Decay { get; }

    private protected override double AfterWarmup(long step)
    {
        double x = Progress(step, Warmup);
        return Decay == AnnealingDecay.Cosine
            ? Floor + 0.5 * ((double)Peak - Floor) * (1 + Math.Cos(Math.PI * x))
            : Peak * Math.Pow(Floor / (double)Peak, x);
    }
}
