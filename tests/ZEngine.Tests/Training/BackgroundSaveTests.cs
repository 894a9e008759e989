using System.Globalization;
using System.Text.Json;
using ZEngine.CrashHost;
using ZEngine.Distributed;
using ZEngine.Tests.Distributed;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>Checkpoints that are written while training goes on are those of their step, one after the other, and their errors are the run's.</summary>
public sealed class BackgroundSaveTests
{
    private const int Steps = 16;

    /// <summary>Trains on so many ranks; returns what the first rank saw, in order.</summary>
    private static List<string> Train(RunFolder run, int ranks, TrainingOptions options, Action<int, TinyModel, Func<long>>? prepare = null, int? stopAfter = null) => InProcessWorld.Run(ranks, world =>
    {
        using TinyModel model = RunFolder.NewModel();
        using var stop = new CancellationTokenSource();
        var seen = new List<string>();
        var trainer = new Trainer(model, run.Windows(), run.Windows(DataPart.HeldOut), options, world: world);
        long step = 0;
        trainer.StepTaken += report =>
        {
            Interlocked.Exchange(ref step, report.Step);
            seen.Add($"{report.Step}");
            if (report.Step == stopAfter) stop.Cancel();
        };
        trainer.CheckpointSaved += folder => seen.Add(Path.GetFileName(folder));
        prepare?.Invoke(world.Rank, model, () => Interlocked.Read(ref step));
        trainer.Run(stop.Token);
        return seen;
    }, Worlds.Timeout)[0];

    private static TrainingOptions Options(RunFolder run, int ranks) => run.Options(Steps) with { Accumulation = 2, IsOptimizerSharded = ranks > 1, SegmentElements = 640, KeepCheckpoints = 9 };

    private static Dictionary<string, byte[]> Files(RunFolder run) => Directory.GetFiles(run.Checkpoints, "*.safetensors", SearchOption.AllDirectories)
        .ToDictionary(path => Path.GetRelativePath(run.Checkpoints, path), File.ReadAllBytes);

    [Theory, InlineData(1), InlineData(2)]
    public void Training_goes_on_while_a_checkpoint_is_written_and_the_next_save_waits(int ranks)
    {
        using RunFolder at = new(), beside = new();
        Train(at, ranks, Options(at, ranks) with { IsSaveInBackground = false });
        List<string> seen = Train(beside, ranks, Options(beside, ranks), (rank, model, step) => model.BeforeSave = folder =>
        {
            // The writer of every save waits until the run is two steps on.
            int save = int.Parse(Path.GetFileNameWithoutExtension(folder)["step-".Length..], CultureInfo.InvariantCulture);
            Assert.True(SpinWait.SpinUntil(() => step() >= Math.Min(save + 2, Steps), Worlds.Timeout));
        });
        Assert.Equal(Files(at).Keys.Order(), Files(beside).Keys.Order());
        foreach ((string name, byte[] bytes) in Files(at)) Assert.True(bytes.AsSpan().SequenceEqual(Files(beside)[name]), $"{name} is not what it was at its step");
        Assert.Equal(["step-000000005", "step-000000010", "step-000000015", "step-000000016"], seen.Where(line => line.StartsWith("step", StringComparison.Ordinal)));
        for (int save = 5; save <= 10; save += 5)
        {
            Assert.True(seen.IndexOf($"step-{save:D9}") > seen.IndexOf($"{save + 2}"), $"step {save + 2} did not come before the end of the save of {save}");
            Assert.True(seen.IndexOf($"step-{save:D9}") < seen.IndexOf($"{save + 6}"), $"the save of {save + 5} did not wait for that of {save}");
        }
        Assert.Equal(at.Metrics(), beside.Metrics());
    }

    [Theory, InlineData(1), InlineData(3)]
    public void Error_of_a_writer_ends_the_run_on_all_ranks_and_leaves_the_older_checkpoint(int ranks)
    {
        using RunFolder straight = new(), broken = new();
        TrainingOptions options = Options(broken, ranks) with { Accumulation = 12 };
        var e = Assert.Throws<IOException>(() => Train(broken, ranks, options, (_, model, _) => model.BeforeSave = folder =>
        {
            if (folder.Contains("step-000000010", StringComparison.Ordinal)) throw new IOException("no room");
        }));
        Assert.Matches(@"step-000000010: the checkpoint could not be written \((rank 0: )?no room\); older ones are as they were, the newest is step-000000005\.", e.Message);
        Assert.Equal(["step-000000005"], Directory.GetDirectories(broken.Checkpoints).Select(folder => Path.GetFileName(folder)));
        Train(straight, ranks, Options(straight, ranks) with { Accumulation = 12 });
        Train(broken, ranks, options);
        Assert.Equal(Files(straight)[Path.Combine("step-000000016", "model.safetensors")], Files(broken)[Path.Combine("step-000000016", "model.safetensors")]);
    }

    [Theory, InlineData(1), InlineData(2)]
    public void Stop_waits_for_the_save_that_is_under_way(int ranks)
    {
        using var run = new RunFolder();
        List<string> seen = Train(run, ranks, Options(run, ranks), (_, model, step) => model.BeforeSave = _ => SpinWait.SpinUntil(() => step() >= 6, TimeSpan.FromSeconds(2)), stopAfter: 6);
        Assert.Equal(["step-000000005", "step-000000006"], seen[^2..]);
        Assert.EndsWith("step-000000006", new CheckpointStore(run.Checkpoints).FindNewest(out IReadOnlyList<InvalidCheckpoint> invalid), StringComparison.Ordinal);
        Assert.Empty(invalid);
    }

    [Fact]
    public void Checkpoint_says_how_ranks_shared_the_work()
    {
        using var run = new RunFolder();
        Train(run, 2, Options(run, 2), stopAfter: 2);
        using JsonDocument state = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(run.Checkpoints, "step-000000002", "trainer.json")));
        JsonElement layout = state.RootElement.GetProperty("layout");
        Assert.Equal((2, 1), (layout.GetProperty("data").GetInt32(), layout.GetProperty("tensor").GetInt32()));
        Assert.Equal("0-1", layout.GetProperty("gradient_groups").GetProperty(nameof(GradientClass.Dense)).GetString());
        foreach (int rank in (int[])[0, 1])
        {
            using JsonDocument beat = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(run.Path, "logs", $"heartbeat-{rank:D5}.json")));
            Assert.Equal((rank, Environment.ProcessId), (beat.RootElement.GetProperty("rank").GetInt32(), beat.RootElement.GetProperty("process").GetInt32()));
            Assert.True(beat.RootElement.GetProperty("step").GetInt64() >= 1);
        }
    }

    [Fact]
    public void Rank_that_takes_more_than_one_and_a_half_times_the_median_is_named()
    {
        Assert.Empty(StepMonitor.Stragglers([0.10, 0.12, 0.11, 0.15]));
        Assert.StartsWith("rank 2 is slow: 200.0 ms of work a step, the median of the ranks is 100.0 ms", Assert.Single(StepMonitor.Stragglers([0.10, 0.09, 0.20, 0.10, 0.11])), StringComparison.Ordinal);
    }
}
