using System.Diagnostics;
using ZEngine.Tests.Distributed;

namespace ZEngine.Tests.Cli;

/// <summary>Several ranks from the command line, as real processes.</summary>
public sealed class LaunchTests : IDisposable
{
    private readonly Zengine _zengine = new();

    public void Dispose() => _zengine.Dispose();

    private static (int Code, string Output, string Error) Run(params string[] args) => Read(Zengine.Start(args));

    private static (int Code, string Output, string Error) Mpirun(int ranks, params string[] args) => Read(Zengine.Start(RankProcesses.Mpirun(ranks, Zengine.Program(args))));

    private static (int Code, string Output, string Error) Read(Process started)
    {
        using Process process = started;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, error.Result);
    }

    [Fact]
    public void Two_ranks_train_and_write_what_one_does_and_only_the_first_speaks()
    {
        Zengine.Succeed(_zengine.Train("one", 12, "--accumulation", "2"));
        (int code, string output, string error) = Run(["launch", "-np", "2", .. _zengine.Train("two", 12, "--accumulation", "2", "--shard-optimizer", "yes")]);
        Assert.True(code == 0, error + output);
        Assert.Equal(File.ReadAllBytes(_zengine.Path("one", "model", "model.safetensors")), File.ReadAllBytes(_zengine.Path("two", "model", "model.safetensors")));
        Assert.Single(output.Split('\n'), line => line.Contains("on each of 2 ranks over tcp", StringComparison.Ordinal));
        Assert.Contains("step     12/12", output, StringComparison.Ordinal);
        Assert.Contains("step     12/12", File.ReadAllText(_zengine.Path("two", "logs", "rank-00001.log")), StringComparison.Ordinal);
        Assert.True(File.Exists(_zengine.Path("two", "DONE")));

        string expected = Zengine.Succeed("generate", _zengine.Path("one"), "state space", "--max-tokens", "20", "--temperature", "0");
        (code, output, error) = Run("launch", "-np", "2", "generate", _zengine.Path("two"), "state space", "--max-tokens", "20", "--temperature", "0");
        Assert.True(code == 0, error);
        Assert.Equal(expected, output);
    }

    [Fact]
    public void Under_mpirun_plain_and_sharded_training_and_generation_are_those_of_one_rank()
    {
        byte[] Model(string run) => File.ReadAllBytes(_zengine.Path(run, "model", "model.safetensors"));
        Zengine.Succeed(_zengine.Train("one", 10, "--accumulation", "4", "--checkpoint-interval", "3"));
        foreach ((string run, int ranks, string isSharded) in ((string, int, string)[])[("plain", 2, "no"), ("sharded", 4, "yes")])
        {
            (int code, string output, string error) = Mpirun(ranks, _zengine.Train(run, 10, "--accumulation", "4", "--checkpoint-interval", "3", "--shard-optimizer", isSharded));
            Assert.True(code == 0, error + output);
            Assert.Equal(Model("one"), Model(run));
            Assert.Single(output.Split('\n'), line => line.Contains($"on each of {ranks} ranks over mpi", StringComparison.Ordinal));
            Assert.DoesNotContain('\u001b', output);
        }
        string expected = Zengine.Succeed("generate", _zengine.Path("one"), "state space", "--max-tokens", "24", "--temperature", "0");
        (int generated, string text, string complaints) = Mpirun(2, "generate", _zengine.Path("sharded"), "state space", "--max-tokens", "24", "--temperature", "0");
        Assert.True(generated == 0, complaints);
        Assert.Equal(expected, text);
    }

    [Fact]
    public void Demo_on_several_ranks_has_the_loss_curve_of_one()
    {
        string[] Losses(string launcher, int ranks)
        {
            string[] demo = ["demo", _zengine.Text, "--steps", "3", "--out", _zengine.Path($"demo{ranks}")];
            (int code, string output, string error) = launcher == "mpirun" ? Mpirun(ranks, demo) : Run(["launch", "-np", $"{ranks}", .. demo]);
            Assert.True(code == 0, error + output);
            return [.. File.ReadLines(_zengine.Path($"demo{ranks}", "metrics.jsonl")).Select(line => line.Split(",\"tokens_per_second\"")[0])];
        }
        string[] one = Losses("mpirun", 1);
        Assert.Equal(3, one.Count(line => line.Contains("\"loss\"", StringComparison.Ordinal)));
        Assert.Equal(one, Losses("mpirun", 4));
        Assert.Equal(one, Losses("launch", 2));
    }

    [Fact]
    public void Ranks_without_a_device_are_named_in_a_table()
    {
        Assert.SkipWhen(ZEngine.Cuda.CudaDevice.IsAvailable, "there is a GPU");
        Zengine.Succeed(_zengine.Train("one", 1));
        (int code, _, string error) = Run("launch", "-np", "2", "generate", _zengine.Path("one"), "x", "--device", "cuda");
        Assert.Equal(3, code);
        Assert.Single(error.Split('\n'), line => line.Contains("Some ranks have no device:", StringComparison.Ordinal));
        Assert.Matches("rank 0 +--device cuda:0: ", error);
        Assert.Matches("rank 1 +--device cuda:1: ", error);
    }

    [Fact]
    public void Ranks_on_threads_are_measured_too()
    {
        string output = Zengine.Succeed("bench", "comm", "--in-process", "3", "--to", "4096", "--seconds", "0.0001", "--json", _zengine.Path("comm.jsonl"));
        foreach (string op in (string[])["AllReduce", "ReduceScatter", "AllGather", "AllToAll", "Broadcast", "SendReceive", "TreeMerge"]) Assert.Contains($"# {op}: latency", output, StringComparison.Ordinal);
        Assert.All(File.ReadLines(_zengine.Path("comm.jsonl")), line => Assert.EndsWith("\"wrong\":0}", line, StringComparison.Ordinal));
        Assert.Equal(7 * 4 + 1, File.ReadLines(_zengine.Path("comm.jsonl")).Count());
    }

    [Fact]
    public void Wrong_usage_is_said_once_and_is_the_jobs_code()
    {
        (int code, _, string error) = Run(["launch", "-np", "3", .. _zengine.Train("run", 5)]);
        Assert.Equal(2, code);
        Assert.Single(error.Split('\n'), line => line.Contains("3 ranks cannot share a step of 1 micro-batches of 2 sequences evenly", StringComparison.Ordinal));
        Assert.Equal(2, Run("launch", "-np", "0", "info").Code);
        Assert.Single(Run("launch", "-np", "2", "train", "nowhere.txt", "--config", _zengine.Path("none.json")).Error.Split('\n'), line => line.Contains("there is no such file", StringComparison.Ordinal));
    }
}
