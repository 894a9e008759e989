using ZEngine.Distributed;

namespace ZEngine.Tests.Distributed;

/// <summary>Environments as launchers leave them.</summary>
public sealed class LaunchEnvironmentTests
{
    private static LaunchEnvironment Detect(string variables)
    {
        var set = variables.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(pair => pair.Split('=', 2)).ToDictionary(pair => pair[0], pair => pair[1]);
        return LaunchEnvironment.Detect(name => set.GetValueOrDefault(name));
    }

    [Theory]
    [InlineData("", "none", 0, 1, 0, false)]
    [InlineData("ZENGINE_RANK=1 ZENGINE_WORLD=4 ZENGINE_LOCAL_RANK=1 ZENGINE_RDZV=127.0.0.1:5 OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2", "zengine launch", 1, 4, 1, false)]
    [InlineData("OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1 PMIX_RANK=3 PMIX_NAMESPACE=123 SLURM_JOB_ID=7", "Open MPI's mpirun", 3, 4, 1, true)]
    [InlineData("PMI_RANK=2 PMI_SIZE=3 MPI_LOCALRANKID=0", "MPICH's mpirun", 2, 3, 0, true)]
    [InlineData("SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 SLURM_JOB_ID=9 SLURM_STEP_ID=0 SLURM_STEP_NODELIST=n[07-09],x PMI_RANK=5 PMI_SIZE=8", "srun", 5, 8, 1, false)]
    [InlineData("SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_LOCALID=0 SLURM_JOB_ID=9", "none", 0, 1, 0, false)]
    [InlineData("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=h MASTER_PORT=29500", "a launcher like torchrun", 1, 2, 1, false)]
    public void Reads_rank_and_size(string variables, string launcher, int rank, int size, int local, bool isMpi)
    {
        LaunchEnvironment environment = Detect(variables);
        Assert.Equal((launcher, rank, size, local, isMpi), (environment.Launcher, environment.Rank, environment.Size, environment.LocalRank, environment.IsMpi));
    }

    [Theory]
    [InlineData("RANK=1 WORLD_SIZE=2", "MASTER_ADDR is not set")]
    [InlineData("ZENGINE_RANK=0", "ZENGINE_RDZV is not set")]
    [InlineData("OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE is not set")]
    [InlineData("PMI_RANK=4 PMI_SIZE=4", "PMI_RANK=4 and PMI_SIZE=4 contradict")]
    [InlineData("PMI_RANK=x PMI_SIZE=4", "PMI_RANK='x' is no number")]
    public void Refuses_what_is_missing_or_contradicts(string variables, string message) =>
        Assert.Contains(message, Assert.Throws<InvalidDataException>(() => Detect(variables)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("node1", "node1")]
    [InlineData("node1,node2", "node1")]
    [InlineData("n[07-09,12],x", "n07")]
    [InlineData("n[3,5].cluster,x[1-2]", "n3.cluster")]
    [InlineData("a,n[3,5]", "a")]
    public void Finds_the_first_host_of_a_list(string list, string host) => Assert.Equal(host, LaunchEnvironment.FirstHost(list));

    [Fact]
    public void Ranks_of_a_Slurm_step_meet_at_one_place()
    {
        string[] places = [.. Enumerable.Range(0, 3).Select(rank => Detect($"SLURM_PROCID={rank} SLURM_NTASKS=3 SLURM_JOB_ID=91 SLURM_STEP_ID=2 SLURM_STEP_NODELIST=n[07-09]").Rendezvous!)];
        Assert.Single(places.Distinct());
        Assert.StartsWith("n07:", places[0], StringComparison.Ordinal);
    }
}
