using System.Globalization;
using ZEngine.Cuda;
using ZEngine.Distributed;
using ZEngine.Models;
using ZEngine.Training;

namespace ZEngine.Cli;

/// <summary>The ranks that run one command together: rank 0 speaks, every rank keeps a log, and none waits for one that failed.</summary>
internal sealed class Ranks
{
    private const string LogFolder = "logs", ThreadsVariable = "ZENGINE_THREADS", ProcessorFile = "/proc/cpuinfo";

    private readonly World _world;
    private readonly Terminal _terminal;
    private TextWriter? _log;                                  // flushes every line; the process's end closes it

    private Ranks(World world, Terminal terminal) => (_world, _terminal) = (world, terminal);

    public Communicator World => _world.Communicator;

    /// <summary>The device that <see cref="OpenDevice"/> opened.</summary>
    public Device Device => _world.Device;

    public bool IsFirst => World.Rank == 0;

    /// <summary>Whether a launcher started this process, be it on one rank.</summary>
    public bool IsLaunched => _world.Environment.Launcher != "none";

    /// <summary>Joins the world of the launcher, runs a command in it, and leaves; a failure ends the whole job.</summary>
    /// <returns>The command's exit code.</returns>
    public static int Run(Terminal terminal, Func<Ranks, int> command)
    {
        Ranks? own = null;
        return ZEngine.Distributed.World.Run(line => terminal.Error.WriteLine($"zengine: {line}"), world =>
        {
            Ranks ranks = own = new Ranks(world, terminal);
            if (ranks.World.Size == 1) return command(ranks);
            ranks.ShareProcessors();
            WorldAgreement.RequireSame(ranks.World, ("build", typeof(Ranks).Assembly.ManifestModule.ModuleVersionId.ToString()), ("engine", typeof(Tensor).Assembly.ManifestModule.ModuleVersionId.ToString()));
            return command(ranks);
        }, (world, e) =>
        {
            (int code, string message) = CommandLine.Describe(e);
            // What all ranks have alike, the first says for all.
            if (world.Communicator.Rank == 0 || !IsOfAll(e)) terminal.Error.WriteLine($"zengine: rank {world.Communicator.Rank}: {message}");
            terminal.Error.Flush();
            own?.Log(message);
            return (code, message);
        });
    }

    /// <summary>Whether every rank runs into this error alike, because it has the same command line and settings.</summary>
    public static bool IsOfAll(Exception e) => e is UserError or WorldMismatchException or ArgumentException;

    /// <summary>Opens this rank's device, which goes with the job: with several ranks <c>cuda</c> is the GPU of the rank's number on its machine.</summary>
    /// <param name="name">As <c>--device</c> has it.</param>
    /// <exception cref="UserError">There is no such device; for one rank.</exception>
    /// <exception cref="WorldMismatchException">Some ranks have no device, share one or lack NCCL: a table of who.</exception>
    public Device OpenDevice(string name)
    {
        bool isAlone = World.Size == 1;
        _world.UseDevice(localRank => DeviceChoice.Open(name == "cuda" && !isAlone ? string.Create(CultureInfo.InvariantCulture, $"cuda:{localRank}") : name), DeviceRanks.Connect);
        return _world.Device;
    }

    /// <summary>How the ranks part keys and values: on several machines merged on each first. Null for one rank.</summary>
    public KeyValueSharding? NewSharding()
    {
        if (World.Size == 1) return null;
        return _world.SplitByMachine() is var (node, across) ? new KeyValueSharding(World, Node: node, Across: across) : new KeyValueSharding(World);
    }

    /// <summary>The options with what is to be measured between these ranks: the size of buckets, where it is 0.</summary>
    public TrainingOptions Tuned(TrainingOptions options, Device device, Terminal terminal)
    {
        if (options.BucketBytes != 0) return options;
        if (World.Size == 1) return options with { BucketBytes = TrainingOptions.DefaultBucketBytes };
        long bytes = CommunicationBench.TuneBucket(World, device);
        terminal.Line($"Gradients are exchanged in buckets of {bytes:N0} bytes, from a measurement between the ranks.");
        return options with { BucketBytes = bytes };
    }

    /// <summary>Begins the logs of the ranks in a run folder.</summary>
    /// <returns>The terminal to write to: rank 0's writes to both, the others' to the log alone.</returns>
    public Terminal OpenLog(string folder)
    {
        if (World.Size == 1) return _terminal;
        folder = _world.RecordFolder = Path.Combine(folder, LogFolder);
        Directory.CreateDirectory(folder);
        _log = TextWriter.Synchronized(new StreamWriter(Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"rank-{World.Rank:D5}.log")), append: true) { AutoFlush = true });
        _log.WriteLine(string.Create(CultureInfo.InvariantCulture, $"# {DateTime.UtcNow:O} {World}, process {Environment.ProcessId} on {Environment.MachineName}, started by {_world.Environment.Launcher}"));
        return IsFirst ? _terminal with { Output = new TeeWriter(_terminal.Output, _log) } : _terminal with { Output = _log, Error = _log, IsOutputRedirected = true };
    }

    /// <summary>Ranks of one machine part its processors, where neither the launcher has bound them to some nor the user has said how many.</summary>
    private void ShareProcessors()
    {
        int ranks = _world.CountRanksHere();
        if (Environment.GetEnvironmentVariable(ThreadsVariable) is { Length: > 0 }) return;
        int processors = File.Exists(ProcessorFile) ? File.ReadLines(ProcessorFile).Count(line => line.StartsWith("processor", StringComparison.Ordinal)) : Environment.ProcessorCount;
        CpuDevice.Threads = Math.Clamp(processors / ranks, 1, Environment.ProcessorCount);
    }

    /// <summary>A last line, after which the job ends.</summary>
    private void Log(string line) => _log?.WriteLine(line);
}
