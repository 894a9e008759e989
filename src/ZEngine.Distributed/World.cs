using System.Globalization;
using System.Net;
using ZEngine.Interop;

namespace ZEngine.Distributed;

/// <summary>The ranks of this job as this process sees them: finds the launcher, connects, watches, and ends the job when it cannot go on.</summary>
public sealed class World : IDisposable
{
    /// <summary>Exit code of a job in which a rank was lost or stuck.</summary>
    public const int LostExitCode = 86;

    /// <summary>Environment variable with the seconds that a rank waits for another.</summary>
    public const string TimeoutVariable = "ZENGINE_COMM_TIMEOUT";

    private static readonly TimeSpan DefaultTimeout = TimeSpan.FromMinutes(2), Grace = TimeSpan.FromSeconds(5);

    private readonly Rendezvous? _hosted;
    private readonly CpuCollectives? _collectives;
    private readonly Transport? _transport;
    private readonly Action<string> _say;
    private readonly TimeSpan _timeout;
    private Device? _device;
    private volatile bool _isClosed;

    private World(LaunchEnvironment environment, Transport? transport, Rendezvous? hosted, Action<string> say)
    {
        (Environment, _transport, _hosted, _say, _timeout) = (environment, transport, hosted, say, transport?.Timeout ?? DefaultTimeout);
        if (transport is null)
        {
            Communicator = Communicator.Single;
            return;
        }
        Communicator = _collectives = new CpuCollectives(transport);
        new Thread(Watch) { IsBackground = true, Name = "ZEngine watchdog" }.Start();
    }

    /// <summary>What the launcher says.</summary>
    public LaunchEnvironment Environment { get; }

    /// <summary>All ranks; after <see cref="UseDevice"/> tensors of the device go between devices.</summary>
    public Communicator Communicator { get; private set; }

    /// <summary>What this rank computes on.</summary>
    public Device Device => _device ?? Device.Cpu;

    /// <summary>Where the last collectives are written when the job is lost; null for nowhere.</summary>
    public string? RecordFolder { get; set; }

    /// <summary>Connects to the other ranks; at once for a process of its own.</summary>
    /// <param name="say">Takes one line when this process ends itself.</param>
    /// <exception cref="InvalidDataException">The environment is incomplete or contradicts itself.</exception>
    /// <exception cref="CommunicatorException">A rank did not come, or the launcher belongs to another library.</exception>
    public static World Open(Action<string> say)
    {
        ArgumentNullException.ThrowIfNull(say);
        LaunchEnvironment environment = LaunchEnvironment.Detect();
        string choice = System.Environment.GetEnvironmentVariable(LaunchEnvironment.TransportVariable) is { Length: > 0 } set ? set : "auto";
        if (choice is not ("auto" or "mpi" or "tcp")) throw new InvalidDataException($"{LaunchEnvironment.TransportVariable} must be auto, mpi or tcp, got '{choice}'.");
        if (environment.Size == 1) return new World(environment, null, null, say);
        TimeSpan timeout = ReadTimeout();
        if (choice == "mpi" || choice == "auto" && environment.IsMpi)
        {
            MpiTransport mpi = MpiTransport.Join(environment);
            mpi.Timeout = timeout;
            return new World(environment, mpi, null, say);
        }
        if (environment.Rendezvous is not { } place) throw new InvalidDataException($"started by {environment.Launcher} without MPI ({LaunchEnvironment.TransportVariable}={choice}): set {LaunchEnvironment.RendezvousVariable}=host:port to a free port of rank 0's machine.");
        Rendezvous? hosted = environment is { HostsRendezvous: true, Rank: 0 } ? Host(place, environment) : null;
        TcpTransport tcp = Rendezvous.Join(place, environment.Job, environment.Rank, environment.Size, timeout, () =>
        {
            say($"rank {environment.Rank}: the launcher is gone; so is this rank.");
            Signals.ExitNow(LostExitCode);
        });
        return new World(environment, tcp, hosted, say);
    }

    /// <summary>Gives this rank its device, which goes with the world; all ranks call, each with its own device.</summary>
    /// <param name="open">Opens the device; is told this rank's number among those of its machine. Its error is reported together with the other ranks'.</param>
    /// <param name="connect">Lets the devices exchange: gets the ranks, the device, how long to wait, and what to tell when the devices cannot go on, which ends the job.</param>
    /// <exception cref="WorldMismatchException">Some ranks have no device or cannot connect it: a table of who. The same on every rank.</exception>
    /// <exception cref="CommunicatorException">The devices could not be connected.</exception>
    public void UseDevice(Func<int, Device> open, Func<Communicator, Device, TimeSpan, Action<string>, Communicator> connect)
    {
        ArgumentNullException.ThrowIfNull(open);
        ArgumentNullException.ThrowIfNull(connect);
        if (_device is not null) throw new InvalidOperationException("World: the rank has a device already.");
        if (Communicator.Size == 1)
        {
            _device = open(Environment.LocalRank);
            return;
        }
        _device = WorldAgreement.Together(Communicator, "have no device", () => open(Environment.LocalRank));
        Communicator = connect(Communicator, _device, _timeout, reason =>
        {
            _say($"rank {Environment.Rank}: {reason}; this job ends.");
            Abort(LostExitCode, reason);
        });
    }

    /// <summary>How many ranks this machine has; all ranks call.</summary>
    public int CountRanksHere() => Communicator.GatherText(HostIdentity.Value).Count(machine => machine == HostIdentity.Value);

    /// <summary>The groups of an exchange in two levels: the ranks of this machine, and those with this rank's place on the others. All ranks call.</summary>
    /// <returns>Null where there is one machine, or machines have different numbers of ranks.</returns>
    public (Communicator Node, Communicator Across)? SplitByMachine() => SplitByMachine(Communicator, HostIdentity.Value);

    /// <summary>Joins the world, runs a program in it, and leaves when all ranks have come to its end; a failure on one rank ends the job.</summary>
    /// <param name="say">Takes one line for people when this process ends itself.</param>
    /// <param name="program">Returns this rank's exit code.</param>
    /// <param name="describe">Exit code of the job for an error, and one line for the other ranks; is called before the job ends, so that it can be said.</param>
    /// <returns>The exit code.</returns>
    public static int Run(Action<string> say, Func<World, int> program, Func<World, Exception, (int Code, string Reason)> describe)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(describe);
        using World world = Open(say);
        try
        {
            int code = program(world);
            world.Communicator.Barrier();
            return code;
        }
        catch (Exception e) when (world.Communicator.Size > 1)
        {
            (int code, string reason) = describe(world, e);
            world.Abort(code, reason);
            return code;
        }
    }

    /// <summary>Ends the job: the other ranks are told, and this process is to exit with the code.</summary>
    public void Abort(int exitCode, string reason)
    {
        if (_transport is null || _isClosed) return;
        _isClosed = true;
        WriteRecord();
        // A second stage, should the library hang in its own abort.
        new Thread(() =>
        {
            Thread.Sleep(Grace);
            Signals.ExitNow(exitCode);
        }) { IsBackground = true }.Start();
        Communicator.Abort(exitCode, reason);
    }

    /// <summary>Leaves the world in peace; all ranks do.</summary>
    public void Dispose()
    {
        if (_isClosed) return;
        _isClosed = true;
        if (Communicator != _collectives) Communicator.Dispose();
        _collectives?.Dispose();
        _hosted?.Dispose();
        _device?.Dispose();
    }

    internal static (Communicator Node, Communicator Across)? SplitByMachine(Communicator world, string machine)
    {
        string[] machines = world.GatherText(machine);
        string[] distinct = [.. machines.Distinct()];
        if (distinct.Length == 1 || distinct.Any(one => machines.Count(other => other == one) * distinct.Length != machines.Length)) return null;
        int place = machines.Take(world.Rank).Count(other => other == machine);
        return (world.Split(Array.IndexOf(distinct, machine))!, world.Split(place)!);
    }

    private static TimeSpan ReadTimeout()
    {
        if (System.Environment.GetEnvironmentVariable(TimeoutVariable) is not { Length: > 0 } text) return DefaultTimeout;
        return double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double seconds) && seconds > 0 && seconds < 1e6
            ? TimeSpan.FromSeconds(seconds) : throw new InvalidDataException($"{TimeoutVariable} must be a number of seconds, got '{text}'.");
    }

    private static Rendezvous Host(string place, LaunchEnvironment environment)
    {
        int port = int.TryParse(place.AsSpan(place.LastIndexOf(':') + 1), CultureInfo.InvariantCulture, out int number) ? number : throw new InvalidDataException($"{LaunchEnvironment.RendezvousVariable}='{place}' must be host:port.");
        bool isLocal = place.StartsWith("127.", StringComparison.Ordinal) || place.StartsWith("localhost:", StringComparison.Ordinal);
        return new Rendezvous(new IPEndPoint(isLocal ? IPAddress.Loopback : IPAddress.Any, port), environment.Job, environment.Size);
    }

    private void WriteRecord()
    {
        if (RecordFolder is null || _collectives is null) return;
        try
        {
            Directory.CreateDirectory(RecordFolder);
            string Name(string what) => Path.Combine(RecordFolder, string.Create(CultureInfo.InvariantCulture, $"{what}-{Environment.Rank:D5}.jsonl"));
            _collectives.Recorder.Write(Name("collectives"));
            if (Communicator != _collectives) Communicator.Recorder?.Write(Name("device-collectives"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _say($"rank {Environment.Rank}: the record of the last collectives could not be written ({e.Message}).");
        }
    }

    /// <summary>Transports give up by themselves; this ends a process in which one hangs in native code.</summary>
    private void Watch()
    {
        while (!_isClosed)
        {
            Thread.Sleep(100);
            // A long collective is no stuck one: the loop of a transport that works turns many times a second.
            if (_collectives!.Recorder.Current is not var (sequence, call, age) || _transport!.SilentFor < _transport.Timeout + Grace || age < _transport.Timeout + Grace || _isClosed) continue;
            _say($"rank {Environment.Rank}: {call} (number {sequence}) has been running for {age.TotalSeconds:0} s; this job ends.");
            Abort(LostExitCode, "stuck");
            return;
        }
    }
}
