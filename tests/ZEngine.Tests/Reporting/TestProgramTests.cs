using System.Diagnostics;

namespace ZEngine.Tests.Reporting;

/// <summary>The test program as a process.</summary>
public sealed class TestProgramTests
{
    [Theory]
    [InlineData("*The_time_is_that_of_the_busiest_unit", 0, "1 passed, 0 failed")]
    [InlineData("*no test has this name*", 1, "FAIL the test program: no test of that name")]
    public void A_filter_that_matches_nothing_fails(string method, int code, string line)
    {
        string[] command = Programs.Command("ZEngine.Tests");
        var start = new ProcessStartInfo(command[0]) { RedirectStandardOutput = true };
        foreach (string argument in (string[])[.. command[1..], "-reporter", "zengine", "-noColor", "-method", method]) start.ArgumentList.Add(argument);
        using Process process = Process.Start(start)!;
        string[] lines = process.StandardOutput.ReadToEnd().Split('\n', StringSplitOptions.TrimEntries);
        process.WaitForExit();
        Assert.Contains(line, lines);
        Assert.Equal(code, process.ExitCode);
    }
}
