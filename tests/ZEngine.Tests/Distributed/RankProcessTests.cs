using System.Diagnostics;
using ZEngine.CrashHost;
using ZEngine.Interop;
using ZEngine.Tests.Training;
using ZEngine.Training;

namespace ZEngine.Tests.Distributed;

/// <summary>Jobs of real processes: the bits of one process, and an end within seconds, with the documented code, whatever happens to a rank.</summary>
public sealed class RankProcessTests(ITestOutputHelper output)
{
    private const int Steps = 30;

    private static readonly Lazy<byte[]> Alone = new(() =>
    {
        using var folder = new TemporaryFolder();
        using var model = new TinyModel();
        model.Initialize(Device.Cpu, seed: 7);
        new CrashRun(folder.Path, Steps, 5).CreateTrainer(model).Run();
        return File.ReadAllBytes(Path.Combine(Newest(folder.Path), "model.safetensors"));
    });

    private static string Newest(string folder) => new CheckpointStore(Trainer.CheckpointFolder(folder)).FindNewest(out _)!;

    private (int Code, string Text) Run(Process process)
    {
        using (process)
        {
            (int code, string text, TimeSpan time) = RankProcesses.Finish(process);
            output.WriteLine($"exit code {code} after {time.TotalSeconds:F1} s\n{text}");
            return (code, text);
        }
    }

    [Theory]
    [InlineData("mpirun", 2)]
    [InlineData("mpirun", 4)]
    [InlineData("launch", 4)]
    public void Job_ends_with_the_bits_of_one_process(string launcher, int ranks)
    {
        using var folder = new TemporaryFolder();
        (int code, string text) = Run(RankProcesses.Start(launcher, ranks, folder.Path, Steps, "null", rank: 1, step: 3));
        Assert.True(code == 0, text);
        Assert.True(File.Exists(Path.Combine(folder.Path, "DONE")));
        Assert.Equal(Alone.Value, File.ReadAllBytes(Path.Combine(Newest(folder.Path), "model.safetensors")));
    }

    [Theory]
    [InlineData("mpirun", "throw", 3, "rank 1: planted")]
    [InlineData("mpirun", "exit", 1, "")]
    [InlineData("mpirun", "kill", 137, "")]
    [InlineData("mpirun", "stuck", 86, "in vain for rank 1")]
    [InlineData("launch", "throw", 3, "rank 1: planted")]
    [InlineData("launch", "exit", 86, "rank 1 is gone")]
    [InlineData("launch", "kill", 137, "rank 1 was killed by signal 9")]
    [InlineData("launch", "stuck", 86, "in vain for rank 1")]
    public void Fault_of_a_rank_ends_the_job_and_a_new_one_goes_on(string launcher, string fault, int expected, string message)
    {
        using var folder = new TemporaryFolder();
        (int code, string text) = Run(RankProcesses.Start(launcher, 2, folder.Path, Steps, fault, rank: 1, step: 12, timeout: fault == "stuck" ? 1.5 : 20));
        Assert.Equal(expected, code);
        Assert.Contains(message, text, StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(folder.Path, "DONE")));
        // The save of step 10 may have been under way.
        Assert.Matches("step-0000000(05|10)$", Newest(folder.Path));

        // One process opens what two have saved in parts, and ends with the bits of a run that nothing happened to.
        using var model = new TinyModel();
        model.Initialize(Device.Cpu, seed: 7);
        Assert.True(new CrashRun(folder.Path, Steps, 5).CreateTrainer(model).Run(TestContext.Current.CancellationToken).IsFinished);
        Assert.Equal(Alone.Value, File.ReadAllBytes(Path.Combine(Newest(folder.Path), "model.safetensors")));
    }

    [Theory, InlineData("mpirun"), InlineData("launch")]
    public void SIGUSR1_to_the_launcher_saves_and_stops(string launcher)
    {
        using var folder = new TemporaryFolder();
        Process process = RankProcesses.Start(launcher, 2, folder.Path, 1_000_000, checkpointInterval: 20);
        Assert.NotNull(process.StandardOutput.ReadLine());     // the first checkpoint
        Assert.True(Signals.Send(process.Id, Signals.User1));
        Assert.Equal(75, Run(process).Code);
        Assert.NotNull(Newest(folder.Path));
    }

    [Fact]
    public void Ranks_do_not_outlive_their_launcher()
    {
        using var folder = new TemporaryFolder();
        Process process = RankProcesses.Start("launch", 2, folder.Path, 1_000_000, checkpointInterval: 20);
        Assert.NotNull(process.StandardOutput.ReadLine());
        process.Kill();                                        // the launcher alone
        // The pipe of the error stream ends when the last rank does.
        Assert.Contains("the launcher is gone", Run(process).Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Kills_of_ranks_and_launcher_at_random_moments_lose_no_checkpoint()
    {
        using var folder = new TemporaryFolder();
        var random = new Random(3);
        var store = new CheckpointStore(Trainer.CheckpointFolder(folder.Path));
        (long newest, int inWriting) = (-1, 0);
        for (int kill = 0; kill < 8; kill++)
        {
            Process process = RankProcesses.Start("launch", 2 + 2 * (kill % 2), folder.Path, 1_000_000, checkpointInterval: 2);
            string? line = null;
            for (int i = random.Next(1, 12); i > 0; i--) line = process.StandardOutput.ReadLine() ?? line;
            Thread.Sleep(random.Next(0, 10));
            int[] ranks = Children(process.Id);
            Signals.Send(kill % 3 == 0 ? process.Id : ranks[random.Next(ranks.Length)], 9);
            (string? last, string errors) = RankProcesses.ReadRest(process);
            line = last ?? line;
            Assert.NotEqual(0, process.ExitCode);
            process.Dispose();
            if (Directory.GetDirectories(store.Folder, "*.tmp").Length > 0) inWriting++;
            string found = store.FindNewest(out IReadOnlyList<InvalidCheckpoint> invalid)!;
            Assert.Empty(invalid);
            long step = StepOf(found);
            Assert.True(step >= Math.Max(newest, StepOf(line!)), $"kill {kill}: {line} was published and step {newest} was there before, but the newest now is {step}: {errors}");
            newest = step;
        }
        output.WriteLine($"up to step {newest}; {inWriting} kills while a checkpoint was being written");
    }

    private static long StepOf(string folder) => long.Parse(folder[(folder.LastIndexOf('-') + 1)..], System.Globalization.CultureInfo.InvariantCulture);

    private static int[] Children(int process) =>
        [.. File.ReadAllText($"/proc/{process}/task/{process}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse)];

    private sealed class TemporaryFolder : IDisposable
    {
        public string Path { get; } = Directory.CreateTempSubdirectory("zengine-ranks-").FullName;

        public void Dispose() => Directory.Delete(Path, recursive: true);
    }
}
