using System.Diagnostics;
using System.Runtime.Versioning;

namespace ZEngine.Tests.Cli;

/// <summary>The bundle's <c>zengine-check</c> with programs in place of tests and benches that note how they were called: what it runs, and every exit code.</summary>
public sealed class GpuCheckTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("zengine-check-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData(0, 0, 0, false, 0), InlineData(0, 0, 0, true, 0), InlineData(0, 1, 0, false, 1), InlineData(0, 0, 2, false, 1), InlineData(3, 0, 0, false, 3)]
    public async Task Runs_the_tests_then_the_benches_and_says_how_it_went(int probe, int tests, int bench, bool hasTorch, int code)
    {
        SourceTree.Require();
        if (!OperatingSystem.IsLinux())
        {
            Assert.Skip("the script is for Linux");
            return;
        }
        File.Copy(Path.Combine(SourceTree.Root, "bundle", "zengine-check"), In("zengine-check"));
        Program("bin/ZEngine.Bench", $$"""echo "bench $*" >> {{In("calls")}}; case "$*" in *--probe) exit {{probe}};; esac; exit {{bench}}""");
        Program("bin/ZEngine.Tests", $$"""echo "tests on $ZENGINE_TEST_DEVICES $*" >> {{In("calls")}}; echo "FAIL one"; echo "41 passed, 1 failed"; exit {{tests}}""");
        Program("python3", $"exit {(hasTorch ? 0 : 1)}");

        var start = new ProcessStartInfo("bash", [In("zengine-check"), In("result.json")]) { WorkingDirectory = _folder, RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["PATH"] = $"{_folder}:{Environment.GetEnvironmentVariable("PATH")}";
        using Process process = Process.Start(start)!;
        Task<string> output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        string error = await process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);

        Assert.Equal(code, process.ExitCode);
        string[] calls = File.ReadAllLines(In("calls"));
        Assert.Equal("bench device cuda --probe", calls[0]);
        if (probe != 0)
        {
            Assert.Single(calls);
            Assert.Contains("nothing was tested", error, StringComparison.Ordinal);
            return;
        }
        Assert.Equal("tests on cuda -noColor -parallel none -reporter zengine -namespace ZEngine.Tests.Ops -namespace ZEngine.Tests.Golden -namespace ZEngine.Tests.Cuda", calls[1]);
        string torch = hasTorch ? $"--torch {In("repository/bench/torch_ops.py")} " : "";
        Assert.Equal($"bench device cuda {torch}--tests 41 passed, 1 failed --command zengine-check {In("result.json")} --json {In("result.json")}", calls[2]);
        Assert.Contains("FAIL one", await output, StringComparison.Ordinal);
        Assert.Equal(!hasTorch, error.Contains("nothing to stand beside", StringComparison.Ordinal));
        Assert.Equal(tests != 0 && bench == 0, error.Contains("tests failed", StringComparison.Ordinal));
    }

    private string In(string name) => Path.Combine(_folder, name);

    [SupportedOSPlatform("linux")]
    private void Program(string name, string body)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(In(name))!);
        File.WriteAllText(In(name), $"#!/bin/sh\n{body}\n");
        File.SetUnixFileMode(In(name), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }
}
