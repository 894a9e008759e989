using System.Globalization;
using System.Reflection;
using ZEngine.Distributed;

namespace ZEngine.Cli;

/// <summary>The ranks that run one command together: rank 0 speaks, every rank keeps a log, and none waits for one that failed.</summary>
internal sealed class Ranks : IDisposable
{
    private const string LogFolder = "logs";

    private readonly World _world;
    private readonly Terminal _terminal;
    private StreamWriter? _log;

    private Ranks(World world, Terminal terminal) => (_world, _terminal) = (world, terminal);

    public Communicator World => _world.Communicator;

    public bool IsFirst => World.Rank == 0;

    /// <summary>Joins the world of the launcher, runs a command in it, and leaves; a failure ends the whole job.</summary>
    /// <returns>The command's exit code.</returns>
    public static int Run(Terminal terminal, Func<Ranks, int> command)
    {
        using World world = ZEngine.Distributed.World.Open(line => terminal.Error.WriteLine($"zengine: {line}"));
        using var ranks = new Ranks(world, terminal);
        try
        {
            if (world.Communicator.Size > 1) WorldAgreement.RequireSame(world.Communicator, ("build", typeof(Ranks).Assembly.ManifestModule.ModuleVersionId.ToString()), ("engine", typeof(Tensor).Assembly.ManifestModule.ModuleVersionId.ToString()));
            int code = command(ranks);
            world.Communicator.Barrier();
            return code;
        }
        catch (Exception e) when (world.Communicator.Size > 1)
        {
            // Said before the job ends: afterwards nobody may be left to say it.
            (int code, string message) = CommandLine.Describe(e);
            if (ranks.IsFirst || e is not (UserError or WorldMismatchException)) terminal.Error.WriteLine($"zengine: rank {world.Communicator.Rank}: {message}");
            ranks._log?.WriteLine(message);
            ranks._log?.Flush();
            terminal.Error.Flush();
            world.Abort(code, message);
            throw new UserError(code, "");
        }
    }

    /// <summary>Begins the logs of the ranks in a run folder.</summary>
    /// <returns>The terminal to write to: rank 0's writes to both, the others' to the log alone.</returns>
    public Terminal OpenLog(string folder)
    {
        if (World.Size == 1) return _terminal;
        folder = _world.RecordFolder = Path.Combine(folder, LogFolder);
        Directory.CreateDirectory(folder);
        _log = new StreamWriter(Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"rank-{World.Rank:D5}.log")), append: true) { AutoFlush = true };
        _log.WriteLine(string.Create(CultureInfo.InvariantCulture, $"# {DateTime.UtcNow:O} {World}, process {Environment.ProcessId} on {Environment.MachineName}, started by {_world.Environment.Launcher}"));
        return IsFirst ? _terminal with { Output = new TeeWriter(_terminal.Output, _log) } : _terminal with { Output = _log, Error = _log, IsOutputRedirected = true };
    }

    public void Dispose() => _log?.Dispose();
}
