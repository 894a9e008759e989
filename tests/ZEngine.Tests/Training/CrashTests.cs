using System.Diagnostics;
using System.Globalization;
using ZEngine.CrashHost;
using ZEngine.Training;

namespace ZEngine.Tests.Training;

/// <summary>A process that is killed at any moment loses no checkpoint, and the run ends with the same bits.</summary>
public sealed class CrashTests(ITestOutputHelper output)
{
    private const int Runs = 2, KillsOfARun = 25, Steps = 3000;

    [Fact]
    public async Task Fifty_kills_at_random_moments_change_nothing()
    {
        // A process that starts leaves the other core idle: two runs are killed side by side.
        TemporaryRun[] killed = [.. Enumerable.Range(0, Runs).Select(_ => new TemporaryRun())];
        using var straight = new TemporaryRun();
        try
        {
            await Task.WhenAll(killed.Select((run, seed) => Task.Run(() => Kill(run, seed + 1))));
            using (Process process = Start(straight.Path, threads: 2, checkpointInterval: 500)) Finish(process);
            foreach (TemporaryRun run in killed)
            {
                Assert.Equal(Weights(straight), Weights(run));
                Assert.Equal(straight.Metrics(), run.Metrics());
            }
        }
        finally
        {
            foreach (TemporaryRun run in killed) run.Dispose();
        }
    }

    /// <summary>Kills a run again and again, each time after it went on from where it was, and then lets it end.</summary>
    private void Kill(TemporaryRun run, int seed)
    {
        var random = new Random(seed);
        var store = new CheckpointStore(Trainer.CheckpointFolder(run.Path));
        (long newest, int inWriting, int kills) = (-1, 0, 0);
        for (; kills < KillsOfARun; kills++)
        {
            using Process process = Start(run.Path, threads: 1 + kills % 2, checkpointInterval: 2);
            // Some kills by the clock, from the start of the process on; most some moments after a checkpoint was published.
            int lines = kills % 3 == 0 ? 0 : random.Next(1, 20);
            long published = -1;
            for (int line = 0; line < lines; line++) published = Math.Max(published, StepOf(process.StandardOutput.ReadLine()));
            Thread.Sleep(TimeSpan.FromMilliseconds(kills % 3 == 0 ? random.NextDouble() * 250 : random.NextDouble() * 8));
            process.Kill();
            while (process.StandardOutput.ReadLine() is { } line) published = Math.Max(published, StepOf(line));
            process.WaitForExit();
            Assert.NotEqual(0, process.ExitCode);

            if (Directory.Exists(store.Folder) && Directory.GetDirectories(store.Folder, "*.tmp").Length > 0) inWriting++;
            string? found = store.FindNewest(out IReadOnlyList<InvalidCheckpoint> invalid);
            Assert.Empty(invalid);
            long step = StepOf(found);
            Assert.True(step >= Math.Max(newest, published), $"kill {kills}: step {published} was published and {newest} was there before, but the newest now is {step}");
            newest = step;
        }
        output.WriteLine($"{kills} kills up to step {newest}, {inWriting} of them while a checkpoint was being written");
        using (Process process = Start(run.Path, threads: 1, checkpointInterval: 500)) Finish(process);
    }

    private static byte[] Weights(TemporaryRun run) => File.ReadAllBytes(Path.Combine(new CheckpointStore(Trainer.CheckpointFolder(run.Path)).FindNewest(out _)!, "model.safetensors"));

    private static long StepOf(string? folder) => folder is null ? -1 : long.Parse(folder[(folder.LastIndexOf('-') + 1)..], CultureInfo.InvariantCulture);

    private static void Finish(Process process)
    {
        Task<string> errors = process.StandardError.ReadToEndAsync();
        while (process.StandardOutput.ReadLine() is not null) { }
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"exit code {process.ExitCode}: {errors.Result}");
    }

    private static Process Start(string folder, int threads, int checkpointInterval)
    {
        string[] command = Programs.Command("ZEngine.CrashHost");
        var start = new ProcessStartInfo(command[0]) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in (string[])[.. command[1..], folder, $"{Steps}", $"{threads}", $"{checkpointInterval}"]) start.ArgumentList.Add(argument);
        return Process.Start(start)!;
    }

    private sealed class TemporaryRun : IDisposable
    {
        public string Path { get; } = Directory.CreateTempSubdirectory("zengine-crash-").FullName;

        public string[] Metrics() => [.. File.ReadAllLines(Trainer.MetricsPath(Path)).Select(line => line.Split(",\"tokens_per_second\"")[0])];

        public void Dispose() => Directory.Delete(Path, recursive: true);
    }
}
