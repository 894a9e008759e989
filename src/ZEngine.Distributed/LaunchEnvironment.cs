using System.Globalization;

namespace ZEngine.Distributed;

/// <summary>What the launcher of this process says in environment variables.</summary>
/// <param name="Launcher">For people; <c>none</c> for a process of its own.</param>
/// <param name="Rank">This rank.</param>
/// <param name="Size">The number of ranks.</param>
/// <param name="LocalRank">This rank among those of the machine; chooses the device.</param>
/// <param name="IsMpi">Whether the launcher starts MPI programs, so that MPI connects the ranks.</param>
/// <param name="Rendezvous">Where the ranks find each other without MPI, <c>host:port</c>; null where nothing says.</param>
/// <param name="HostsRendezvous">Whether rank 0 is to listen there; otherwise the launcher does.</param>
/// <param name="Job">Names the job.</param>
public sealed record LaunchEnvironment(string Launcher, int Rank, int Size, int LocalRank, bool IsMpi, string? Rendezvous, bool HostsRendezvous, string Job)
{
    /// <summary>Variables of <c>zengine launch</c>.</summary>
    public const string RankVariable = "ZENGINE_RANK", SizeVariable = "ZENGINE_WORLD", LocalRankVariable = "ZENGINE_LOCAL_RANK", RendezvousVariable = "ZENGINE_RDZV", JobVariable = "ZENGINE_JOB", TransportVariable = "ZENGINE_COMM";

    private const int FirstDerivedPort = 61440, DerivedPorts = 4096;

    /// <summary>Reads the environment of this process.</summary>
    /// <exception cref="InvalidDataException">Variables are missing or contradict each other; one line that names them.</exception>
    public static LaunchEnvironment Detect() => Detect(Environment.GetEnvironmentVariable);

    /// <summary>Reads an environment: the own launcher first, then Open MPI, MPICH and its kin, Slurm, torchrun.</summary>
    public static LaunchEnvironment Detect(Func<string, string?> variable)
    {
        ArgumentNullException.ThrowIfNull(variable);
        string? Get(string name) => variable(name) is { Length: > 0 } value ? value : null;
        string? place = Get(RendezvousVariable);
        if (Get(RankVariable) is not null) return Read("zengine launch", RankVariable, SizeVariable, LocalRankVariable, false, place ?? throw Missing("zengine launch", RendezvousVariable), false, Get(JobVariable) ?? "job");
        if (Get("OMPI_COMM_WORLD_RANK") is not null) return Read("Open MPI's mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", true, place, true, Get("PMIX_NAMESPACE") ?? "job");
        if (Get("PMI_RANK") is not null && Get("SLURM_STEP_ID") is null) return Read("MPICH's mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", true, place, true, Get("HYDRA_JOBID") ?? "job");
        // A batch script has a rank too, but no step: it is no member of a job of several ranks.
        if (Get("SLURM_PROCID") is not null && Get("SLURM_STEP_ID") is { } step)
        {
            string job = $"{Get("SLURM_JOB_ID") ?? "0"}.{step}";
            return Read("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", false, place ?? PlaceOfSlurm(Get, job), true, job);
        }
        if (Get("RANK") is not null && Get("WORLD_SIZE") is not null)
        {
            string master = place ?? $"{Get("MASTER_ADDR") ?? throw Missing("a launcher like torchrun", "MASTER_ADDR")}:{Get("MASTER_PORT") ?? throw Missing("a launcher like torchrun", "MASTER_PORT")}";
            return Read("a launcher like torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", false, master, true, Get("TORCHELASTIC_RUN_ID") ?? "job");
        }
        return new LaunchEnvironment("none", 0, 1, 0, false, null, false, "job");

        LaunchEnvironment Read(string launcher, string rankName, string sizeName, string localName, bool isMpi, string? rendezvous, bool hosts, string job)
        {
            int rank = Number(launcher, rankName), size = Number(launcher, sizeName);
            int local = Get(localName) is null ? rank : Number(launcher, localName);
            if (size < 1 || rank < 0 || rank >= size || local < 0) throw new InvalidDataException($"{launcher}: {rankName}={rank} and {sizeName}={size} contradict each other.");
            return new LaunchEnvironment(launcher, rank, size, local, isMpi, rendezvous, hosts, job.Replace(' ', '_'));
        }

        int Number(string launcher, string name)
        {
            string text = Get(name) ?? throw Missing(launcher, name);
            return int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int number) ? number : throw new InvalidDataException($"{launcher}: {name}='{text}' is no number.");
        }
    }

    /// <summary>The first host of a Slurm list such as <c>node[03-05,7],x1</c>.</summary>
    internal static string FirstHost(string list)
    {
        int bracket = list.IndexOf('['), comma = list.IndexOf(',', StringComparison.Ordinal);
        if (bracket < 0 || comma >= 0 && comma < bracket) return comma < 0 ? list : list[..comma];
        int end = list.IndexOfAny(['-', ',', ']'], bracket);
        int close = list.IndexOf(']', bracket), next = list.IndexOf(',', Math.Max(close, 0));
        if (end < 0 || close < 0) throw new InvalidDataException($"srun: the list of hosts '{list}' cannot be read; set {RendezvousVariable}=host:port.");
        return list[..bracket] + list[(bracket + 1)..end] + (next < 0 ? list[(close + 1)..] : list[(close + 1)..next]);
    }

    private static string PlaceOfSlurm(Func<string, string?> get, string job)
    {
        if (get("MASTER_ADDR") is { } address && get("MASTER_PORT") is { } port) return $"{address}:{port}";
        string hosts = get("SLURM_STEP_NODELIST") ?? get("SLURM_NODELIST") ?? throw Missing("srun", "SLURM_STEP_NODELIST");
        uint number = 0;
        foreach (char letter in job) number = number * 31 + letter;
        return string.Create(CultureInfo.InvariantCulture, $"{FirstHost(hosts)}:{FirstDerivedPort + number % DerivedPorts}");
    }

    private static InvalidDataException Missing(string launcher, string name) => new($"started by {launcher}, but {name} is not set.");
}
