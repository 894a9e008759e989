using System.Diagnostics;
using System.Globalization;
using ZEngine.Tests.Interop;

namespace ZEngine.Tests.Distributed;

/// <summary>Real processes as ranks, under mpirun or the own launcher.</summary>
internal static class RankProcesses
{
    private static readonly Lazy<string?> Missing = new(InstallMpi);

    /// <summary>Starts ranks of the host that goes wrong on demand.</summary>
    public static Process Start(string launcher, int ranks, string folder, int steps, string fault = "none", int rank = 0, int step = 0, int checkpointInterval = 5, double timeout = 20)
    {
        string[] host = Programs.Command("ZEngine.CrashHost");
        string[] program = ["ranks", folder, $"{steps}", fault, $"{rank}", $"{step}", $"{checkpointInterval}"];
        ProcessStartInfo start;
        if (launcher == "mpirun")
        {
            start = Mpirun(ranks, [.. host, .. program]);
        }
        else
        {
            start = new ProcessStartInfo(host[0]);
            Add(start, [.. host[1..], "launch", $"{ranks}", .. program]);
        }
        start.Environment["ZENGINE_COMM_TIMEOUT"] = timeout.ToString(CultureInfo.InvariantCulture);
        (start.RedirectStandardOutput, start.RedirectStandardError, start.RedirectStandardInput) = (true, true, true);
        return Process.Start(start)!;
    }

    /// <summary>A job of Open MPI; skips the test where there is none.</summary>
    public static ProcessStartInfo Mpirun(int ranks, params string[] command)
    {
        RequireMpi();
        var start = new ProcessStartInfo("mpirun");
        Add(start, ["-np", $"{ranks}", .. command]);
        foreach (string name in (string[])["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"]) start.Environment[name] = "1";
        start.Environment["TERM"] = "dumb";
        return start;
    }

    /// <summary>Waits for the end.</summary>
    /// <returns>Exit code and all that was said.</returns>
    public static (int Code, string Text, TimeSpan Time) Finish(Process process)
    {
        var clock = Stopwatch.StartNew();
        Task<string> errors = process.StandardError.ReadToEndAsync(), output = process.StandardOutput.ReadToEndAsync();
        if (!process.WaitForExit(TimeSpan.FromSeconds(60)))
        {
            process.Kill(entireProcessTree: true);
            process.WaitForExit();
            Assert.Fail($"the ranks did not end: {errors.Result}{output.Result}");
        }
        return (process.ExitCode, errors.Result + output.Result, clock.Elapsed);
    }

    /// <summary>Waits for the end.</summary>
    /// <returns>The last line of the output, if there was one more, and all errors.</returns>
    public static (string? Last, string Errors) ReadRest(Process process)
    {
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string? last = null;
        while (process.StandardOutput.ReadLine() is { } line) last = line;
        process.WaitForExit();
        return (last, errors.Result);
    }

    public static void RequireMpi()
    {
        if (Missing.Value is { } reason) Assert.Skip(reason);
    }

    private static void Add(ProcessStartInfo start, string[] arguments)
    {
        foreach (string argument in arguments) start.ArgumentList.Add(argument);
    }

    private static string? InstallMpi()
    {
        if (IsThere("mpirun")) return null;
        if (!OperatingSystem.IsLinux() || Environment.UserName != "root" || !IsThere("apt-get")) return "There is no mpirun, and it can be installed on Debian by root alone: install Open MPI for these tests.";
        using Process process = Process.Start(new ProcessStartInfo("bash", [Path.Combine(SourceTree.Root, "tests", "fetch-mpi.sh")]) { RedirectStandardError = true })!;
        string error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return IsThere("mpirun") ? null : $"Open MPI could not be installed: {error}";
    }

    private static bool IsThere(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(folder => folder.Length > 0 && File.Exists(Path.Combine(folder, program)));
}
