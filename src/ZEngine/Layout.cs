// Who works with whom: the groups of a world and of its gradients, as data.
namespace ZEngine;

/// <summary>How a gradient is to be summed: which ranks hold copies of a parameter.</summary>
public enum GradientClass
{
    /// <summary>Replicated over data and context ranks; its own part on each tensor rank.</summary>
    Dense,
    /// <summary>An expert's: replicated over the data and context ranks that do not part the experts.</summary>
    Expert,
    /// <summary>The same on every tensor rank too, and each sees a part of its gradient.</summary>
    TensorReplicated,
    /// <summary>A norm whose tokens tensor ranks part among them: summed like <see cref="TensorReplicated"/>.</summary>
    SequenceNorm,
}

/// <summary>A dimension along which ranks part the work.</summary>
public enum LayoutAxis
{
    /// <summary>Parts of a matrix: neighbouring ranks.</summary>
    Tensor,
    /// <summary>Parts of the experts, among data ranks.</summary>
    Expert,
    /// <summary>Parts of a sequence.</summary>
    Context,
    /// <summary>Parts of the batch.</summary>
    Data,
}

/// <summary>The ranks of a world as a box of data × context × tensor, tensor innermost; experts are parted among neighbouring data ranks.</summary>
/// <param name="Data">Ranks along the batch.</param>
/// <param name="Context">Ranks along the sequence.</param>
/// <param name="Expert">Data ranks among which experts are parted; divides <paramref name="Data"/>.</param>
/// <param name="Tensor">Ranks along a matrix.</param>
public sealed record Layout(int Data, int Context = 1, int Expert = 1, int Tensor = 1)
{
    /// <summary>All ranks.</summary>
    public int Size => Data * Context * Tensor;

    /// <summary>The rule for every class of parameters, as the axes whose ranks its gradient is summed over.</summary>
    /// <remarks>Data stands for all data ranks, or for those that do not part the experts where Expert is not in the list.</remarks>
    public static IReadOnlyDictionary<GradientClass, IReadOnlyList<LayoutAxis>> ReduceAxes { get; } = new Dictionary<GradientClass, IReadOnlyList<LayoutAxis>>
    {
        [GradientClass.Dense] = [LayoutAxis.Data, LayoutAxis.Expert, LayoutAxis.Context],
        [GradientClass.Expert] = [LayoutAxis.Data, LayoutAxis.Context],
        [GradientClass.TensorReplicated] = [LayoutAxis.Data, LayoutAxis.Expert, LayoutAxis.Context, LayoutAxis.Tensor],
        [GradientClass.SequenceNorm] = [LayoutAxis.Data, LayoutAxis.Expert, LayoutAxis.Context, LayoutAxis.Tensor],
    };

    /// <summary>Checks the sizes against a world.</summary>
    /// <exception cref="ArgumentException">They do not fit.</exception>
    public void RequireFit(int worldSize)
    {
        if (Data < 1 || Context < 1 || Expert < 1 || Tensor < 1 || Data % Expert != 0) throw new ArgumentException($"Layout: needs sizes from 1 up, and Expert to divide Data, got {this}.");
        if (Size != worldSize) throw new ArgumentException($"Layout: {Data} data x {Context} context x {Tensor} tensor ranks are {Size}, the world has {worldSize}.");
    }

    /// <summary>The place of a rank along an axis.</summary>
    public int PlaceOf(int rank, LayoutAxis axis) => axis switch
    {
        LayoutAxis.Tensor => rank % Tensor,
        LayoutAxis.Context => rank / Tensor % Context,
        LayoutAxis.Expert => rank / (Tensor * Context) % Expert,
        _ => rank / (Tensor * Context * Expert),
    };

    /// <summary>The groups of ranks that differ along the given axes alone, each in the order of its ranks.</summary>
    public IReadOnlyList<IReadOnlyList<int>> GroupsAlong(params IReadOnlyList<LayoutAxis> axes)
    {
        ArgumentNullException.ThrowIfNull(axes);
        return [.. Enumerable.Range(0, Size).GroupBy(rank => string.Join(',', Enum.GetValues<LayoutAxis>().Except(axes).Select(axis => PlaceOf(rank, axis)))).Select(group => (IReadOnlyList<int>)[.. group])];
    }

    /// <summary>The groups over which the gradients of a class are summed; every rank is in exactly one.</summary>
    public IReadOnlyList<IReadOnlyList<int>> GroupsOf(GradientClass gradient) => GroupsAlong([.. ReduceAxes[gradient]]);

    /// <summary>The groups of a class in one line, for people and for checkpoints, such as <c>0-3; 4-7</c>.</summary>
    public string DescribeGroups(GradientClass gradient) => string.Join("; ", GroupsOf(gradient).Select(Runs));

    /// <summary>The communicator over which this rank sums the gradients of each class; every rank of the world calls. Classes with the same groups share one.</summary>
    public IReadOnlyDictionary<GradientClass, Communicator> JoinGradientGroups(Communicator world)
    {
        var byTable = new Dictionary<string, Communicator>();
        var result = new Dictionary<GradientClass, Communicator>();
        // In the order of the table: all ranks must make their groups in one order.
        foreach ((GradientClass gradient, IReadOnlyList<LayoutAxis> axes) in ReduceAxes)
        {
            string table = DescribeGroups(gradient);
            if (!byTable.TryGetValue(table, out Communicator? group)) byTable.Add(table, group = Join(world, axes));
            result.Add(gradient, group);
        }
        return result;
    }

    /// <summary>This rank's group along the given axes, the world itself where that is all ranks; every rank of the world calls with the same axes.</summary>
    public Communicator Join(Communicator world, params IReadOnlyList<LayoutAxis> axes)
    {
        ArgumentNullException.ThrowIfNull(world);
        RequireFit(world.Size);
        IReadOnlyList<IReadOnlyList<int>> groups = GroupsAlong(axes);
        if (groups.Count == 1) return world;
        int color = Enumerable.Range(0, groups.Count).First(group => groups[group].Contains(world.Rank));
        return world.Split(color, world.Rank)!;
    }

    /// <summary>The group table, for people and for checkpoints.</summary>
    public override string ToString() => $"data {Data} x context {Context} x tensor {Tensor}{(Expert > 1 ? $", experts over {Expert}" : "")}";

    /// <summary>For example <c>0-2, 5</c>.</summary>
    internal static string Runs(IEnumerable<int> ranks)
    {
        var runs = new List<(int First, int Last)>();
        foreach (int rank in ranks)
        {
            if (runs.Count > 0 && runs[^1].Last == rank - 1) runs[^1] = (runs[^1].First, rank);
            else runs.Add((rank, rank));
        }
        return string.Join(", ", runs.Select(run => run.First == run.Last ? $"{run.First}" : $"{run.First}-{run.Last}"));
    }
}
