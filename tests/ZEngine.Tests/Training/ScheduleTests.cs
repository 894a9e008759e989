using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>Learning rates by hand.</summary>
public sealed class ScheduleTests
{
    [Fact]
    public void Warm_up_rises_from_one_part_to_the_peak()
    {
        Schedule schedule = new ConstantSchedule(8, steps: 10, warmup: 4);
        Assert.Equal([2, 4, 6, 8, 8, 8, 8, 8, 8, 8, 8, 8], Rates(schedule, 12));
    }

    [Fact]
    public void Linear_falls_to_the_floor()
    {
        Assert.Equal([4, 8, 8, 6.5f, 5, 3.5f, 2, 2], Rates(new LinearSchedule(8, steps: 6, warmup: 2, floor: 2), 8));
        Assert.Equal([8, 6, 4, 2, 0], Rates(new LinearSchedule(8, steps: 4), 5));
    }

    [Fact]
    public void Cosine_falls_to_the_floor()
    {
        Schedule schedule = new CosineSchedule(10, steps: 10, warmup: 2, floor: 2);
        Assert.Equal([5, 10, 10], Rates(schedule, 3));
        Assert.Equal((float)(2 + 4 * (1 + Math.Sqrt(0.5))), schedule[4]);
        Assert.Equal(6, schedule[6], 1e-6);
        Assert.Equal((float)(2 + 4 * (1 - Math.Sqrt(0.5))), schedule[8]);
        Assert.Equal([2, 2], (float[])[schedule[10], schedule[1_000_000]]);
    }

    [Fact]
    public void Inverse_square_root_is_the_peak_after_warm_up_and_half_of_it_at_four_times_the_step()
    {
        Schedule schedule = new InverseSquareRootSchedule(6, steps: 1000, warmup: 4, floor: 0.5f);
        Assert.Equal([1.5f, 3, 4.5f, 6, 6], Rates(schedule, 5));
        Assert.Equal((3f, 2f, 0.5f), (schedule[16], schedule[36], schedule[900]));
    }

    [Fact]
    public void Warm_up_stable_decay_stays_and_then_falls()
    {
        Schedule schedule = new WarmupStableDecaySchedule(8, steps: 10, warmup: 2, decay: 4, floor: 0);
        Assert.Equal([4, 8, 8, 8, 8, 8, 8, 6, 4, 2, 0], Rates(schedule, 11));
    }

    [Fact]
    public void Annealing_warms_to_three_quarters_and_falls_by_cosine_or_by_equal_factors()
    {
        Schedule cosine = new AnnealingSchedule(8, steps: 10, warmup: 2), exponential = new AnnealingSchedule(8, steps: 6, warmup: 2, share: 0.5f, floor: 0.25f, decay: AnnealingDecay.Exponential);
        Assert.Equal([3, 6, 6], Rates(cosine, 3));
        Assert.Equal(3, cosine[6], 1e-6);
        Assert.Equal(0, cosine[10]);
        Assert.Equal([2, 4, 4, 2, 1, 0.5f, 0.25f], Rates(exponential, 7));
    }

    [Fact]
    public void Options_name_every_schedule()
    {
        TrainingOptions options = new() { RunFolder = "run", Steps = 10, Length = 4, LearningRate = 1, Warmup = 2, DecaySteps = 3 };
        foreach (ScheduleKind kind in Enum.GetValues<ScheduleKind>())
        {
            Schedule schedule = (options with { Schedule = kind }).CreateSchedule();
            Assert.Equal((10, kind + "Schedule"), (schedule.Steps, schedule.GetType().Name));
        }
    }

    [Fact]
    public void Rejects_what_no_schedule_can_be()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => new CosineSchedule(0, 10));
        Assert.Throws<ArgumentOutOfRangeException>(() => new CosineSchedule(1, 10, warmup: 11));
        Assert.Throws<ArgumentOutOfRangeException>(() => new CosineSchedule(1, 10, floor: 2));
        Assert.Throws<ArgumentOutOfRangeException>(() => new WarmupStableDecaySchedule(1, 10, 5, 6));
        Assert.Throws<ArgumentOutOfRangeException>(() => new InverseSquareRootSchedule(1, 10, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => new AnnealingSchedule(1, 10, 0, decay: AnnealingDecay.Exponential));
        Assert.Throws<ArgumentOutOfRangeException>(() => new CosineSchedule(1, 10)[-1]);
    }

    private static float[] Rates(Schedule schedule, int count) => [.. Enumerable.Range(0, count).Select(step => schedule[step])];
}
