using System.CommandLine;
using ZEngine.Distributed;
using ZEngine.Training;

namespace ZEngine.Cli;

/// <summary><c>zengine supervise</c></summary>
internal static class Supervise
{
    public static Command Command(Terminal terminal)
    {
        var folder = new Option<string>("--run") { Description = "The run folder of the job: its newest checkpoint tells whether the job gets on.", Required = true, HelpName = "FOLDER" };
        var failures = new Option<int>("--most-failures") { Description = "Restarts in a row without a new checkpoint before it gives up.", DefaultValueFactory = _ => 5, HelpName = "COUNT" };
        var wait = new Option<double>("--wait") { Description = "Seconds before the first restart without a new checkpoint; doubled with each further one.", DefaultValueFactory = _ => 2, HelpName = "SECONDS" };
        var job = new Argument<string[]>("command") { Description = "The job behind --, such as mpirun -np 4 zengine train FILES --out FOLDER; later starts add --resume.", Arity = ArgumentArity.OneOrMore };
        var command = new Command("supervise", "Runs a training job, and starts it again when it was preempted, lost a rank or was killed.") { folder, failures, wait, job };
        command.SetAction(parse =>
        {
            (string run, double seconds) = (parse.GetRequiredValue(folder), parse.GetValue(wait));
            if (parse.GetValue(failures) < 0 || !(seconds >= 0 && seconds < 1e6)) throw new UserError(ExitCode.Usage, "--most-failures and --wait must be 0 or more.");
            string[] first = parse.GetRequiredValue(job);
            // A job that was killed before its settings were written begins anew.
            string[] Again() => File.Exists(Path.Combine(run, "run.json")) && !first.Contains("--resume") ? [.. first, "--resume"] : first;
            var supervisor = new Supervisor(Again, () => NewestStep(run), parse.GetValue(failures), TimeSpan.FromSeconds(seconds));
            return supervisor.Run(line => terminal.Error.WriteLine($"zengine: {line}"));
        });
        return command;
    }

    private static long NewestStep(string run) => new CheckpointStore(Trainer.CheckpointFolder(run)).All is [var (step, _), ..] ? step : -1;
}
