using System.Diagnostics;
using ZEngine.Tests.Distributed;

namespace ZEngine.Tests.Cli;

/// <summary>Several ranks from the command line, as real processes.</summary>
public sealed class LaunchTests : IDisposable
{
    private readonly Zengine _zengine = new();

    public void Dispose() => _zengine.Dispose();

    private static (int Code, string Output, string Error) Run(params string[] args)
    {
        using Process process = Zengine.Start(args);
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
    public void Wrong_usage_is_said_once_and_is_the_jobs_code()
    {
        (int code, _, string error) = Run(["launch", "-np", "3", .. _zengine.Train("run", 5)]);
        Assert.Equal(2, code);
        Assert.Single(error.Split('\n'), line => line.Contains("3 ranks cannot share a step of 1 micro-batches of 2 sequences evenly", StringComparison.Ordinal));
        Assert.Equal(2, Run("launch", "-np", "0", "info").Code);
        Assert.Single(Run("launch", "-np", "2", "train", "nowhere.txt", "--config", _zengine.Path("none.json")).Error.Split('\n'), line => line.Contains("there is no such file", StringComparison.Ordinal));
    }
}
