using ZEngine.Distributed;

namespace ZEngine.Tests.Distributed;

/// <summary>Which ends are worth another start, and when to give up.</summary>
public sealed class SupervisorTests
{
    private static (int Code, List<string> Said, int Starts) Run(string script, int mostFailures, Func<int, long> progress)
    {
        if (OperatingSystem.IsWindows()) Assert.Skip("The job is a shell script.");
        int starts = 0;
        var said = new List<string>();
        int code = new Supervisor(() => ["sh", "-c", script, "job", $"{++starts}"], () => progress(starts), mostFailures, TimeSpan.FromMilliseconds(1)).Run(said.Add);
        return (code, said, starts);
    }

    [Fact]
    public void Job_that_was_preempted_lost_or_killed_is_started_until_it_is_done()
    {
        (int code, List<string> said, int starts) = Run("case $1 in 1) exit 75;; 2) exit 86;; 3) kill -9 $$;; *) exit 0;; esac", 0, start => start);
        Assert.Equal((0, 4), (code, starts));
        Assert.Equal(["75", "86", "137"], said.Select(line => line.Split(' ')[3]));
    }

    [Theory, InlineData(1), InlineData(2), InlineData(3), InlineData(130)]
    public void Wrong_input_and_Ctrl_C_are_not_tried_again(int exitCode) => Assert.Equal((exitCode, 1), (Run($"exit {exitCode}", 5, _ => 0).Code, Run($"exit {exitCode}", 5, _ => 0).Starts));

    [Fact]
    public void Job_that_does_not_get_on_is_given_up()
    {
        (int code, List<string> said, int starts) = Run("exit 86", 3, _ => 7);
        Assert.Equal((86, 4), (code, starts));
        Assert.EndsWith("giving up.", said[^1], StringComparison.Ordinal);
        // Progress in between begins the count anew.
        Assert.Equal(7, Run("exit 86", 3, start => start >= 3 ? 8 : 7).Starts);
    }
}
