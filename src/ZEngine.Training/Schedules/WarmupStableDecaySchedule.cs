namespace ZEngine.Training;

/// <summary>Warm-up, then the peak, then a straight line down to the floor over the last <see cref="Decay"/> steps.</summary>
/// <remarks>Hu et al. 2024, arXiv:2404.06395, section 4.2, with linear decay.</remarks>
public sealed class WarmupStableDecaySchedule : Schedule
{
    /// <summary>Creates the schedule; warm-up and decay together must fit into the run.</summary>
    public WarmupStableDecaySchedule(float peak, int steps, int warmup, int decay, float floor = 0) : base(peak, steps, warmup, floor)
    {
        if (decay < 1 || decay > steps - warmup)
            throw new ArgumentOutOfRangeException(nameof(decay), decay, $"WarmupStableDecaySchedule: decay must be from 1 to the {steps - warmup} steps after warm-up");
        Decay = decay;
    }

    /// <summary>Steps of the fall at the end.</summary>
    public int Decay { get; }

    private protected override double AfterWarmup(long step) => step < Steps - Decay ? Peak : Peak + ((double)Floor - Peak) * Progress(step, Steps - Decay);
}
